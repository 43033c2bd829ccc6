"""From the `model` section to a keras.Model: inputs, preprocessing, layers, in one functional graph."""

from collections.abc import Mapping
from typing import Any

from mltool import extras
from mltool.errors import Message, SpecError
from mltool.models.backbones import warn_of_scaling
from mltool.models.keras_objects import REFUSALS, reason_of
from mltool.models.outputs import TargetScale, difference, in_original_units
from mltool.models.own_model import KEY, apply_own_model
from mltool.models.precision import computing_in
from mltool.models.preprocess import ModelInput, build_layer, call_layer, learns_from_data, preprocess
from mltool.spec.catalogue_entries import backbones
from mltool.spec.model import AUTO, OWN_MODEL, LayerSpec, ModelSpec
from mltool.spec.outputs import ONLY
from mltool.spec.own_things import OwnThing

Shape = tuple[int, ...]
_NO_SCALES: Mapping[str, TargetScale] = {}


def build_model(
    spec: ModelSpec,
    inputs: Mapping[str, ModelInput],
    *,
    name: str,
    outputs: Mapping[str, str] | None = None,
    target_scales: Mapping[str, TargetScale] = _NO_SCALES,
    gives_difference: bool = False,
    precision: str = "float32",
) -> Any:
    """Builds the model; its inputs bear the names of `inputs`.

    Args:
        spec: checked.
        inputs: what the data have, by name; preprocessing layers that learn from data see only the values in it.
        name: of the model.
        outputs: the layer of each output by its key; the last layer alone when None.
        target_scales: of outputs that are regressions: the answer is brought to these units inside of the model.
        gives_difference: whether the answer is taken from what the layers were given, as anomalies are told.
        precision: in what the layers compute, but for preprocessing and those that give an output; see `precision.py`.

    Returns:
        A keras.Model that takes one tensor (one input) or a map of tensors, and gives one tensor (one output) or a map.

    Raises:
        SpecError: if a layer does not fit its inputs, naming the layer and the shapes.
    """
    keras = extras.keras()
    takes = {key: keras.Input(info.shape, dtype=info.dtype, name=key) for key, info in inputs.items()}
    tensors = preprocess(spec, inputs, takes)
    if spec.preprocess == AUTO and len(tensors) > 1 and not (spec.layers and spec.layers[0].inputs):
        joined = keras.layers.Concatenate(name="features")(list(tensors.values()))
        previous, tensors = joined, tensors if spec.layers else {"features": joined}
    else:
        previous = next(iter(tensors.values())) if len(tensors) == 1 else None
    previous_of_first = previous
    if spec.python is not None:
        _require_free_name(spec, inputs)
        with computing_in(precision):
            previous = apply_own_model(spec.python, spec.arguments or {}, tensors)
    known = {**takes, **tensors}
    gives_output = (outputs or {}).values() or [layer.name for layer in spec.layers[-1:]]
    built: dict[str, tuple[LayerSpec, Any]] = {}
    for layer in spec.layers:
        sources = [_source(known, source, layer) for source in layer.inputs] or [previous]
        if layer.name in takes:
            raise _misfit(layer, f"{layer.name!r} is the name of an input too", "give the layer another name:")
        if sources[0] is None:
            raise _misfit(layer, f"the model has the inputs {', '.join(tensors)}", _joining(tensors))
        with computing_in("float32" if layer.name in gives_output else precision):
            known[layer.name] = previous = _apply(layer, sources, built)
    if spec.layers:
        _require_all_used(spec, tensors, is_joined=previous_of_first is not None)
    if gives_difference:
        previous = difference(previous_of_first, previous, spec.own_names[-1])
    several = outputs is not None and set(outputs) != {ONLY}
    ends = {key: known[layer] for key, layer in outputs.items()} if outputs and several else {ONLY: previous}
    answers = in_original_units(ends, target_scales)
    structure = takes if len(takes) > 1 else next(iter(takes.values()))
    try:
        return keras.Model(structure, answers if several else answers[ONLY], name=name)
    except REFUSALS as error:
        key = KEY if spec.python else "model.layers"
        raise SpecError(Message(f"the layers are not one graph: {reason_of(error)}", key=key)) from error


def _require_free_name(spec: ModelSpec, inputs: Mapping[str, ModelInput]) -> None:
    """The own model's layer has one name, which no input and no preprocessing layer may have."""
    if OWN_MODEL in (*inputs, *(layer.name for layer in spec.preprocess_layers)):
        message = f"{OWN_MODEL!r}, the name of its layer, is the name of an input or a preprocessing layer too"
        raise SpecError(Message(message, "rename that one", key=KEY))


def _require_all_used(spec: ModelSpec, tensors: Mapping[str, Any], *, is_joined: bool) -> None:
    """Proves that every input reaches a layer: Keras takes one that does not without a word.

    Raises:
        SpecError: naming the first that does not.
    """
    used = {name for layer in spec.layers for name in layer.inputs}
    unused = [name for name in tensors if name not in used]
    if unused and not (is_joined and not spec.layers[0].inputs):
        joined = f"- Concatenate: {{inputs: [{', '.join(tensors)}]}}" if len(tensors) > 1 else f"inputs: [{unused[0]}]"
        message = f"nothing uses the input {unused[0]!r}"
        raise SpecError(Message(message, f"write {joined}, or leave the input out of the data", key="model.layers"))


def _joining(tensors: Mapping[str, Any]) -> str:
    """What makes one tensor of several."""
    words = [name for name, tensor in tensors.items() if tensor.dtype == "string"]
    first = f"model.preprocess must make numbers of {', '.join(words)}; then " if words else ""
    return f"{first}begin with a layer that joins them: - Concatenate: {{inputs: [{', '.join(tensors)}]}}"


def call_model(model: Any, inputs: Mapping[str, Any], *, training: bool) -> Any:
    """Calls a model of `build_model` with a map of named inputs."""
    single = not isinstance(model.input, dict)
    return model(next(iter(inputs.values())) if single else dict(inputs), training=training)


def _source(tensors: Mapping[str, Any], name: str, layer: LayerSpec) -> Any:
    if name not in tensors:
        raise _misfit(layer, f"no layer or input is called {name!r}", f"known: {', '.join(tensors)}")
    return tensors[name]


def _apply(spec: LayerSpec, sources: list[Any], built: dict[str, tuple[LayerSpec, Any]]) -> Any:
    """The output of a layer; `built` holds all layers so far, for those that are used again."""
    if spec.shares is None:
        built[spec.name] = spec, build_layer(spec, _place(spec))
    own, layer = built[spec.shares or spec.name]
    if learns_from_data(own, layer):
        message = f"{own.layer.name} learns from data before training"
        raise _misfit(spec, message, "put it under model.preprocess")
    texts = [source.name for source in sources if source.dtype == "string"]
    if texts and own.layer.name not in _TAKE_TEXT and not isinstance(own.layer, OwnThing):
        # Keras' layers take text without a word until they compute: that would be in the first step of training.
        hint = "put a StringLookup or a TextVectorization for it under model.preprocess, or preprocess: auto"
        raise _misfit(spec, f"takes numbers, and {texts[0]!r} is text", hint)
    if own.layer.name == "HashedCrossing" and (numbers := [one.name for one in sources if "float" in one.dtype]):
        # Keras says so when it computes; the numbers of the data are float32 in every model.
        message = f"HashedCrossing takes text or whole numbers, and {numbers[0]!r} is {sources[0].dtype}"
        raise _misfit(spec, message, "put an IntegerLookup for it under model.preprocess")
    _require_ids(spec, own, sources[0])
    if own.layer.name in backbones():
        warn_of_scaling(own.layer.name, own.layer.arguments, sources[0])
    return call_layer(spec, own.layer, layer, sources, _place(spec))


_IDS = {"Embedding": "input_dim", "TextTransformer": "vocabulary_size"}
"""Layers that look ids up, and the argument that says how many there are."""


def _require_ids(spec: LayerSpec, own: LayerSpec, source: Any) -> None:
    """An id too many would stop training at the first sample that has it, with an error of TensorFlow's.

    Raises:
        SpecError: if the layer before gives more ids than the layer knows.
    """
    before = source._keras_history.operation
    known = own.layer.arguments.get(_IDS.get(own.layer.name, ""))
    if known is None or not hasattr(before, "vocabulary_size") or before.get_config().get("output_mode") != "int":
        return
    given = int(before.vocabulary_size())
    if given > known:
        message = f"knows {known} ids, and {before.name!r} gives {given}"
        raise _misfit(spec, message, f"write {_IDS[own.layer.name]}: {given}")


_TAKE_TEXT = ("HashedCrossing", "Hashing", "StringLookup", "TextVectorization")


def _place(spec: LayerSpec) -> str:
    return ".".join(map(str, ("model", *spec.place)))


def _misfit(spec: LayerSpec, message: str, hint: str) -> SpecError:
    return SpecError(Message(message, hint, key=_place(spec)))


def require_output(shape: tuple[int | None, ...], spec: ModelSpec, layer: str, *, wanted: Shape, what: str) -> None:
    """Holds an output of the model against what the data have.

    Args:
        shape: of a sample of the output.
        spec: that the model was built from, for the message.
        layer: that gives it.
        wanted: shape of a sample that the loss needs.
        what: the reason in words, such as "10 classes".

    Raises:
        SpecError: if the layer gives another shape.
    """
    if shape == wanted:
        return
    hint = f"make it give {wanted}"
    if not spec.layers:
        message = f"the model of {spec.python} gives {shape} a sample, the data have {what}"
        raise SpecError(Message(message, hint, key=KEY))
    found = next(one for one in spec.layers if one.name == layer)
    which = "the last layer" if found is spec.layers[-1] else "the layer"
    raise _misfit(found, f"{which} {layer!r} gives {shape} a sample, the data have {what}", hint)

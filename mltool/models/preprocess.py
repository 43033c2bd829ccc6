"""From raw inputs to what the layers learn from: preprocessing layers, adapted on training data only."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mltool import extras
from mltool.errors import DataError, Message, SpecError
from mltool.models.auto import auto_preprocess
from mltool.models.backbones import Backbone
from mltool.models.blocks import OF_SOUND, OURS, BlockLayer, build_block
from mltool.models.keras_objects import REFUSALS, build_keras, reason_of, refusals
from mltool.models.own_layer import OwnLayerBuilder
from mltool.spec.catalogue import KerasObject, call_arguments
from mltool.spec.catalogue_entries import backbones
from mltool.spec.graph import KNOWN_ALREADY
from mltool.spec.model import SINGLE, LayerSpec, ModelSpec
from mltool.spec.own_things import OwnThing

Array = np.ndarray[Any, Any]

_KIND_OF_WORD = {"numbers": "number", "categories": "category", "texts": "text"}
"""The kind of input that a key of `preprocess` stands for."""


@dataclass(frozen=True)
class ModelInput:
    """One input of the model, and the training data that preprocessing learns from.

    Attributes:
        shape: of one sample.
        dtype: `float32` or `string`.
        kind: `number`, `category`, `text`, `image`, `audio`, `series`, or "" where nothing is known.
        batches: training samples in the type of the source, a batch after the other; called anew for every layer.
        missing: whether numbers are missing (NaN) in them.
        sample_rate: of audio, per second, where the data tell.
    """

    shape: tuple[int, ...]
    dtype: str
    kind: str
    batches: Callable[[], Iterator[Array]]
    missing: bool = False
    sample_rate: int | None = None


def preprocess(spec: ModelSpec, inputs: Mapping[str, ModelInput], tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Runs every input through its layers.

    Args:
        spec: whose `preprocess` it is.
        inputs: of the model, by name.
        tensors: the same inputs as Keras tensors.

    Returns:
        By name what the layers of the model take: an input, or `numbers`, `categories`, `texts` for all of a kind.

    Raises:
        SpecError: if a layer does not fit, or text comes out where the layers take numbers.
    """
    chains = auto_preprocess(inputs) if isinstance(spec.preprocess, str) else spec.preprocess
    _require_filled(inputs, chains)
    work = _Work(inputs, tensors)
    results: dict[str, Any] = {}
    taken: set[str] = set()
    for key, layers in chains.items():
        place = f"model.preprocess.{key}" if key != SINGLE else "model.preprocess"
        members = _members(key, inputs, chains)
        if not members:
            known = ", ".join([*inputs, *(word for word in _KIND_OF_WORD if _members(word, inputs, {}))])
            raise SpecError(Message(f"the data have no input {key!r}", f"known: {known}", key=place))
        taken |= set(members)
        if key in _KIND_OF_WORD and key not in inputs and len(members) > 1:
            run = work.together if key == "numbers" else work.side_by_side
            results[key] = run(key, layers, members, place)
        else:
            name = key if key in _KIND_OF_WORD else members[0]
            info = inputs[members[0]]
            told = _with_sample_rate(layers, info.sample_rate, place)
            results[name] = _chain(told, tensors[members[0]], info.batches, place)
    if isinstance(spec.preprocess, str):
        _join_numbers(results, inputs)
    return results | {name: tensors[name] for name in inputs if name not in taken}


def _join_numbers(results: dict[str, Any], inputs: Mapping[str, ModelInput]) -> None:
    """Puts the numbers that `auto` gave layers of their own with the others: the model takes `numbers` in any case."""
    apart = [name for name, info in inputs.items() if info.kind == "number" and name in results]
    if apart and len(inputs) > 1 and "numbers" not in inputs:
        parts = [results.pop(name) for name in (*(["numbers"] if "numbers" in results else []), *apart)]
        joined = extras.keras().layers.Concatenate(name="numbers_with_bins")
        results["numbers"] = joined(parts) if len(parts) > 1 else parts[0]


def _require_filled(inputs: Mapping[str, ModelInput], chains: Mapping[str, Sequence[LayerSpec]]) -> None:
    """A number that is missing would make every weight NaN.

    Raises:
        DataError: if numbers are missing and no layer fills them.
    """
    for name in (name for name, info in inputs.items() if info.missing):
        key = next((key for key in chains if name in _members(key, inputs, chains)), None)
        if key is None or "FillMissing" not in [layer.layer.name for layer in chains[key]]:
            hint = "begin its preprocess with FillMissing, or take preprocess: auto, or fill them in"
            raise DataError(f"numbers are missing in {name!r}, and nothing fills them", hint)


def _with_sample_rate(layers: Sequence[LayerSpec], rate: int | None, key: str) -> Sequence[LayerSpec]:
    """The layers, those of sound with the sample rate of the data.

    Raises:
        SpecError: if the spec says another one.
    """
    done: list[LayerSpec] = []
    for index, spec in enumerate(layers):
        name, arguments = spec.layer.name, spec.layer.arguments
        if name not in OF_SOUND or rate is None:
            done.append(spec)
            continue
        said = arguments.get("sample_rate")
        if said not in (None, rate):
            message = Message(
                f"says {said}, the data have {rate}", "leave it out", key=f"{key}.{index}.{name}.sample_rate"
            )
            raise SpecError(message)
        done.append(replace(spec, layer=KerasObject(name, {**arguments, "sample_rate": rate})))
    return done


def _members(key: str, inputs: Mapping[str, ModelInput], chains: Mapping[str, Any]) -> list[str]:
    """The inputs that a key of `preprocess` means; those with a key of their own are not among their kind."""
    if key == SINGLE:
        return list(inputs) if len(inputs) == 1 else []
    if key in inputs:
        return [key]
    return [name for name, info in inputs.items() if info.kind == _KIND_OF_WORD.get(key) and name not in chains]


@dataclass(frozen=True)
class _Work:
    """The inputs, as what they hold and as Keras tensors."""

    inputs: Mapping[str, ModelInput]
    tensors: Mapping[str, Any]

    def together(self, key: str, layers: Sequence[LayerSpec], members: Sequence[str], place: str) -> Any:
        """Numbers side by side, through the layers once: one normalization with a mean for every column."""

        def batches() -> Iterator[Array]:
            for parts in zip(*(self.inputs[name].batches() for name in members), strict=True):
                yield np.concatenate([part.astype(np.float32) for part in parts], axis=-1)

        joined = extras.keras().layers.Concatenate(name=f"{key}_side_by_side")
        return _chain(layers, joined([self.tensors[name] for name in members]), batches, place)

    def side_by_side(self, key: str, layers: Sequence[LayerSpec], members: Sequence[str], place: str) -> Any:
        """Categories and texts through layers of their own each: every column has a vocabulary of its own."""
        done = [
            _chain(
                [replace(layer, name=f"{layer.name}_{name}") for layer in layers],
                self.tensors[name],
                self.inputs[name].batches,
                place,
            )
            for name in members
        ]
        if any(tensor.dtype == "string" for tensor in done):
            message = f"the {key} are text still after these layers"
            raise SpecError(Message(message, "begin with StringLookup: {output_mode: one_hot}, or the like", key=place))
        return extras.keras().layers.Concatenate(name=f"{key}_side_by_side")(done)


def _chain(layers: Sequence[LayerSpec], tensor: Any, batches: Callable[[], Iterator[Array]], key: str) -> Any:
    """Chains preprocessing layers; each adapts on training data as the layers before it leave them."""
    done: list[Any] = []
    for index, spec in enumerate(layers):
        place = f"{key}.{index}.{spec.layer.name}"
        layer = build_layer(spec, place)
        if learns_from_data(spec, layer):
            try:
                _adapt(layer, done, batches)
            except REFUSALS as error:
                raise SpecError(Message(does_not_fit(spec, [tensor]), reason_of(error), key=place)) from error
        tensor = call_layer(spec, spec.layer, layer, [tensor], place)
        done.append(layer)
    return tensor


def _adapt(layer: Any, before: Sequence[Any], batches: Callable[[], Iterator[Array]]) -> None:
    """Lets a layer learn from training data.

    Streamed, so that no more than a batch is in memory twice; on other backends than TensorFlow, Keras takes one array.
    """
    if extras.backend() != "tensorflow":
        layer.adapt(_all_through(before, batches))
        return
    tf = extras.tensorflow()

    def through() -> Iterator[Any]:
        for batch in batches():
            values: Any = tf.constant(batch if batch.dtype.kind in "OUS" else batch.astype(np.float32))
            for earlier in before:
                values = earlier(values)
            yield values

    first = next(through())
    signature = tf.TensorSpec((None, *first.shape[1:]), first.dtype)
    layer.adapt(tf.data.Dataset.from_generator(through, output_signature=signature))


def _all_through(before: Sequence[Any], batches: Callable[[], Iterator[Array]]) -> Array:
    """All training samples of an input, as the layers before leave them."""
    parts = []
    for batch in batches():
        values: Any = batch.astype(np.float32)
        for earlier in before:
            values = earlier(values)
        parts.append(extras.keras().ops.convert_to_numpy(values))
    return np.concatenate(parts)


def build_layer(spec: LayerSpec, at: str) -> Any:
    """The layer of Keras, the block or named architecture of ours, the Keras Application, or the user's own.

    Raises:
        SpecError: if Keras, or the block, refuses its arguments; if code of the user's fails.
    """
    if spec.layer.name in OURS:
        try:
            return build_block(spec.layer.name, dict(spec.layer.arguments), spec.name)
        except ValueError as error:
            raise SpecError(Message(str(error), key=at)) from error
    if spec.layer.name in backbones():
        return BlockLayer(Backbone(spec.layer.name, spec.layer.arguments, spec.name, at), spec.name)
    if isinstance(spec.layer, OwnThing):
        return OwnLayerBuilder(spec.layer, spec.name, at)
    return build_keras(spec.layer, "layers", at=at, name=spec.name)


def learns_from_data(spec: LayerSpec, layer: Any) -> bool:
    """Whether a layer must see training data before it can be used."""
    return hasattr(layer, "adapt") and not any(name in spec.layer.arguments for name in KNOWN_ALREADY)


def call_layer(spec: LayerSpec, own: KerasObject, layer: Any, sources: Sequence[Any], at: str) -> Any:
    """The output of a layer: one tensor.

    Args:
        spec: what stands in the list, for messages; of `Shared`, not the layer itself.
        own: the layer itself.
        layer: as `build_layer` made it.
        sources: Keras tensors. Merging layers take several as a list; attention and its like, one an argument.
        at: dotted key of the spec.

    Raises:
        SpecError: if the layer does not fit them, or gives several tensors.
    """
    needed = () if isinstance(own, OwnThing) else call_arguments(own.name)
    if len(sources) < len(needed):
        message = f"{own.name} takes {len(needed)} tensors, {' and '.join(needed)} (got {len(sources)})"
        hint = "write inputs: [NAME, NAME]; for self-attention, the same name again"
        raise SpecError(Message(message, hint, key=at))
    as_list = len(sources) > 1 and len(needed) == 1
    try:
        output = layer(list(sources)) if as_list else layer(*sources)
    except refusals() as error:
        raise SpecError(Message(does_not_fit(spec, sources), reason_of(error), key=at)) from error
    count = len(extras.keras().tree.flatten(output))
    if count > 1:
        hint = "leave return_state out" if "return_state" in own.arguments else "use a layer that gives one"
        raise SpecError(Message(f"{own.name} gives {count} tensors, and other layers take one", hint, key=at))
    return output


def does_not_fit(spec: LayerSpec, sources: Sequence[Any]) -> str:
    """Says which layer refused which shapes."""
    shapes = ", ".join(str(tuple(tensor.shape)) for tensor in extras.keras().tree.flatten(list(sources)))
    return f"the layer {spec.name!r} does not fit its input of shape {shapes}"

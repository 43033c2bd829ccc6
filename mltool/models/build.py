"""From the `model` section to a keras.Model: inputs, preprocessing, layers, in one functional graph."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mltool import extras
from mltool.errors import Message, SpecError
from mltool.models.keras_objects import REFUSALS, build_keras, reason_of
from mltool.spec.catalogue import call_arguments
from mltool.spec.model import SINGLE, LayerSpec, ModelSpec

Array = np.ndarray[Any, Any]

_KNOWN_ALREADY = ("mean", "variance", "vocabulary", "bin_boundaries")
"""Arguments that give a layer what it would learn from data."""


def build_model(
    spec: ModelSpec, input_shapes: Mapping[str, tuple[int, ...]], *, name: str, adapt_on: Mapping[str, Array]
) -> Any:
    """Builds the model; its inputs are float32 and bear the names of `input_shapes`.

    Args:
        spec: checked.
        input_shapes: shape of one sample of every input.
        name: of the model.
        adapt_on: training inputs by name, [samples, ...]; preprocessing layers that learn from data see only these.

    Returns:
        A keras.Model that takes one tensor (one input) or a map of tensors.

    Raises:
        SpecError: if a layer does not fit its inputs, naming the layer and the shapes.
    """
    keras = extras.keras()
    inputs = {key: keras.Input(shape, dtype="float32", name=key) for key, shape in input_shapes.items()}
    tensors: dict[str, Any] = {}
    for key, tensor in inputs.items():
        layers = spec.preprocess.get(key, spec.preprocess.get(SINGLE, ()))
        place = f"model.preprocess.{key}" if key in spec.preprocess else "model.preprocess"
        tensors[key] = _preprocess(layers, tensor, adapt_on[key], place)
    previous = next(iter(tensors.values())) if len(tensors) == 1 else None
    for index, layer in enumerate(spec.layers):
        sources = [_source(tensors, source, index, layer) for source in layer.inputs] or [previous]
        if sources[0] is None:
            message, hint = f"the model has the inputs {', '.join(inputs)}", f"add inputs: [{next(iter(inputs))}]"
            raise _misfit(index, layer, message, hint)
        tensors[layer.name] = previous = _apply(layer, sources, index)
    takes = inputs if len(inputs) > 1 else next(iter(inputs.values()))
    try:
        return keras.Model(takes, previous, name=name)
    except REFUSALS as error:
        raise SpecError(Message(f"the layers are not one graph: {reason_of(error)}", key="model.layers")) from error


def call_model(model: Any, inputs: Mapping[str, Any], *, training: bool) -> Any:
    """Calls a model of `build_model` with a map of named inputs."""
    single = not isinstance(model.input, dict)
    return model(next(iter(inputs.values())) if single else dict(inputs), training=training)


def _preprocess(layers: Sequence[LayerSpec], tensor: Any, data: Array, key: str) -> Any:
    """Chains preprocessing layers; each adapts on training data as the layers before it leave them."""
    done: list[Any] = []
    for index, spec in enumerate(layers):
        place = f"{key}.{index}.{spec.layer.name}"
        layer = build_keras(spec.layer, "layers", at=place, name=spec.name)
        try:
            if _learns_from_data(spec, layer):
                layer.adapt(_through(done, data))
            tensor = layer(tensor)
        except REFUSALS as error:
            raise SpecError(Message(_does_not_fit(spec, [tensor]), reason_of(error), key=place)) from error
        done.append(layer)
    return tensor


def _through(layers: Sequence[Any], data: Array) -> Array:
    values: Any = data.astype(np.float32)
    for layer in layers:
        values = layer(values)
    return np.asarray(values)


def _source(tensors: Mapping[str, Any], name: str, index: int, layer: LayerSpec) -> Any:
    if name not in tensors:
        raise _misfit(index, layer, f"no layer or input is called {name!r}", f"known: {', '.join(tensors)}")
    return tensors[name]


def _apply(spec: LayerSpec, sources: list[Any], index: int) -> Any:
    layer = build_keras(spec.layer, "layers", at=_place(index, spec), name=spec.name)
    if _learns_from_data(spec, layer):
        message = f"{spec.layer.name} learns from data before training"
        raise _misfit(index, spec, message, "put it under model.preprocess")
    try:
        if len(sources) == 1:
            return layer(sources[0])
        # Merging layers take a list; attention and its like take one tensor an argument.
        return layer(*sources) if len(call_arguments(spec.layer.name)) > 1 else layer(sources)
    except REFUSALS as error:
        raise _misfit(index, spec, _does_not_fit(spec, sources), reason_of(error)) from error


def _learns_from_data(spec: LayerSpec, layer: Any) -> bool:
    return hasattr(layer, "adapt") and not any(name in spec.layer.arguments for name in _KNOWN_ALREADY)


def _does_not_fit(spec: LayerSpec, sources: Sequence[Any]) -> str:
    shapes = ", ".join(str(tuple(tensor.shape)) for tensor in extras.keras().tree.flatten(list(sources)))
    return f"the layer {spec.name!r} does not fit its input of shape {shapes}"


def _place(index: int, spec: LayerSpec) -> str:
    return f"model.layers.{index}.{spec.layer.name}"


def _misfit(index: int, spec: LayerSpec, message: str, hint: str) -> SpecError:
    return SpecError(Message(message, hint, key=_place(index, spec)))


def require_output(model: Any, spec: ModelSpec, *, num_outputs: int, what: str) -> None:
    """Holds the model's output against what the data have.

    Args:
        model: a keras.Model.
        spec: that it was built from, for the message.
        num_outputs: values a sample that the loss needs.
        what: the reason in words, such as "10 classes".

    Raises:
        SpecError: if the last layer gives another number of values.
    """
    shape = tuple(model.output_shape[1:])
    last = spec.layers[-1]
    if shape != (num_outputs,):
        message = f"the last layer {last.name!r} gives {shape} a sample, the data have {what}"
        raise _misfit(len(spec.layers) - 1, last, message, f"make it give ({num_outputs},)")

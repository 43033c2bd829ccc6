"""The ends of a model: its outputs, and the layers of ours behind the last ones of the spec."""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from mltool import extras
from mltool.errors import Message, SpecError

ORIGINAL_UNITS = "original_units"
"""Name of the layer that turns the scaled answer of a regression into the units of its targets."""

DIFFERENCE = "difference"
"""Name of the layer that takes what an autoencoder gives back from what it was given: zero where it knows a sample."""

_GIVEN_BACK = "given_back"
"""Name of the layer that gives what an autoencoder gives back the axes of what it was given."""


@dataclass(frozen=True)
class TargetScale:
    """Mean and standard deviation of the training targets, value by value.

    Attributes:
        mean: of each value of the target.
        deviation: likewise; 1 where all are the same.
    """

    mean: tuple[float, ...]
    deviation: tuple[float, ...]


def units_layers(outputs: Collection[str]) -> dict[str, str]:
    """Names of the layers of original units, by output: that of the only one bears no name of an output."""
    return {name: f"{name}_{ORIGINAL_UNITS}" if len(outputs) > 1 else ORIGINAL_UNITS for name in outputs}


def in_original_units(tensors: Mapping[str, Any], scales: Mapping[str, TargetScale]) -> dict[str, Any]:
    """Outputs in the units of their targets, where those were scaled for the loss.

    Args:
        tensors: by key of the output, see `TrainSpec.heads`.
        scales: likewise, of some.
    """
    layers, names = extras.keras().layers, units_layers(tensors)
    return {
        key: layers.Rescaling(scales[key].deviation, scales[key].mean, name=names[key])(tensor)
        if key in scales
        else tensor
        for key, tensor in tensors.items()
    }


def difference(given: Any, back: Any, layer: str) -> Any:
    """What an autoencoder was given less what it gives back.

    Args:
        given: tensor behind the preprocessing; None where there are several.
        back: of the last layer.
        layer: its name, for messages.

    Raises:
        SpecError: if it gives back another number of values.
    """
    if given is None:
        message = "an autoencoder gives its input back, and the model has several"
        raise SpecError(Message(message, "join them under model.preprocess, or declare one input", key="model.layers"))
    layers = extras.keras().layers
    wanted, found = tuple(given.shape[1:]), tuple(back.shape[1:])
    if wanted != found:
        if None in wanted or None in found or math.prod(wanted) != math.prod(found):
            message = f"the last layer {layer!r} gives back {found}, and was given {wanted}"
            raise SpecError(Message(message, f"make it give {math.prod(wanted)} values a sample", key="model.layers"))
        back = layers.Reshape(wanted, name=_GIVEN_BACK)(back)
    return layers.Subtract(name=DIFFERENCE)([given, back])


def named_outputs(model: Any) -> dict[str, Any]:
    """The outputs of a functional model, by the name of the layer of the spec that answers.

    What brings a regression to its units, and what compares an autoencoder, answers in that layer's name.
    """
    if isinstance(model.output, dict):
        return dict(model.output)
    return {_name(tensor): tensor for tensor in model.outputs}


def _name(tensor: Any) -> str:
    layer = tensor._keras_history.operation
    if layer.name == ORIGINAL_UNITS:
        return _name(layer.input)
    if layer.name == DIFFERENCE:
        return _name(layer.input[1])
    return _name(layer.input) if layer.name == _GIVEN_BACK else str(layer.name)


ENDINGS = (DIFFERENCE, _GIVEN_BACK)
"""Layers of ours at the end of a model, beside `units_layers`."""

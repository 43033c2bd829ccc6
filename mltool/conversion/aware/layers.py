"""A layer of Keras 3 as the layer of tf_keras that computes the same, or a reason why there is none."""

import inspect
from typing import Any

import numpy as np

from mltool import extras
from mltool.errors import ConversionError

DROPPED = frozenset(
    {"name", "dtype", "trainable", "build_config", "batch_shape", "batch_input_shape", "seed", "autocast"}
    | {"lora_rank", "lora_alpha", "quantization_mode", "quantization_config", "optional", "sparse", "ragged"}
    | {"use_cudnn", "flash_attention", "renorm", "synchronized", "zero_output_for_mask"}
)
"""Arguments that change nothing of what a trained layer answers, or that are set otherwise."""

_NESTED = ("regularizer", "constraint", "initializer")
"""How the names of arguments end that hold a thing of Keras."""

_RENAMED = {"silu": "swish"}
"""Activations by their name in Keras 3, and in tf_keras."""


class NoCounterpart(Exception):  # noqa: N818  said as a reason
    """Why tf_keras cannot have a layer; its text follows the layer's name."""


def counterpart(layer: Any, name: str, **changed: Any) -> Any:
    """Builds the layer of tf_keras of the same class and arguments; its weights are copied by `copy_weights`.

    Args:
        layer: of Keras 3, built; of Keras itself.
        name: of the new layer.
        changed: arguments that it has other than the layer's.

    Raises:
        NoCounterpart: if tf_keras has no such class, or it lacks an argument that is not at its default.
    """
    tf_keras = extras.require("tf_keras")
    kind = type(layer).__name__
    if not type(layer).__module__.startswith("keras."):
        raise NoCounterpart(f"is a {kind}, and no layer of Keras' own")
    if kind == "Normalization":
        return _normalization(layer, name)
    if kind in ("Bidirectional", "TimeDistributed"):
        return _wrapper(layer, name)
    found = getattr(tf_keras.layers, kind, None)
    if found is None:
        raise NoCounterpart(f"is a {kind}, which tf_keras does not have")
    arguments = _arguments(layer, found)
    try:
        return found(**{**arguments, **changed}, name=name, trainable=layer.trainable)
    except (TypeError, ValueError) as error:
        raise NoCounterpart(f"({kind}) has arguments that tf_keras refuses: {error}") from error


def _arguments(layer: Any, found: type) -> dict[str, Any]:
    """The config of a layer as arguments of a class of tf_keras."""
    config = {key: value for key, value in layer.get_config().items() if key not in DROPPED}
    taken = _parameters(found)
    defaults = _parameters(type(layer))
    arguments = {}
    for key, value in config.items():
        if key in taken:
            arguments[key] = _value(key, value, layer)
        elif value != (defaults[key].default if key in defaults else False):
            raise NoCounterpart(f"has {key}: {value!r}, which {found.__name__} of tf_keras does not know")
    return arguments


def _parameters(kind: type) -> dict[str, inspect.Parameter]:
    """The arguments of a class and of those that it hands the rest to."""
    found: dict[str, inspect.Parameter] = {}
    for base in kind.__mro__:
        if "__init__" in vars(base):
            found = {**dict(inspect.signature(base).parameters), **found}
    return found


def _value(key: str, value: Any, layer: Any) -> Any:
    """An argument as tf_keras takes it."""
    tf_keras = extras.require("tf_keras")
    if value is None or not key.endswith((*_NESTED, "activation")):
        return value
    if key.endswith("initializer"):
        return "zeros"  # the weights are copied
    if key.endswith("activation"):
        return _activation(value)
    module = tf_keras.regularizers if key.endswith("regularizer") else tf_keras.constraints
    kind = getattr(module, value["class_name"], None)
    if kind is None:
        raise NoCounterpart(f"has the {key} {value['class_name']}, which tf_keras does not have")
    return kind(**value["config"])


def _activation(value: Any) -> Any:
    tf_keras = extras.require("tf_keras")
    name = value if isinstance(value, str) else value.get("class_name", value)
    try:
        tf_keras.activations.get(_RENAMED.get(name, name))
    except (ValueError, TypeError) as error:
        raise NoCounterpart(f"has the activation {name!r}, which tf_keras does not have") from error
    return _RENAMED.get(name, name)


def _normalization(layer: Any, name: str) -> Any:
    """Keras 3 keeps mean and variance as weights, tf_keras beside a count: here they are arguments."""
    tf_keras = extras.require("tf_keras")
    axis = tuple(layer.axis) if isinstance(layer.axis, list | tuple) else layer.axis
    # Both have one value for every axis that is kept.
    mean, variance = (np.asarray(values).reshape(-1) for values in (layer.mean, layer.variance))
    return tf_keras.layers.Normalization(
        axis=axis, mean=_plain(mean, axis), variance=_plain(variance, axis), invert=layer.invert, name=name
    )


def _plain(values: Any, axis: Any) -> Any:
    return float(values[0]) if axis in (None, ()) else values


def _wrapper(layer: Any, name: str) -> Any:
    tf_keras = extras.require("tf_keras")
    kind = type(layer).__name__
    if kind == "TimeDistributed":
        return tf_keras.layers.TimeDistributed(counterpart(layer.layer, layer.layer.name), name=name)
    forward = counterpart(layer.forward_layer, layer.forward_layer.name)
    backward = counterpart(layer.backward_layer, layer.backward_layer.name)
    return tf_keras.layers.Bidirectional(forward, merge_mode=layer.merge_mode, backward_layer=backward, name=name)


def copy_weights(layer: Any, rebuilt: Any) -> None:
    """Copies the weights of a layer of Keras 3 into its counterpart, which is built.

    Raises:
        ConversionError: if they are others.
    """
    if type(layer).__name__ == "Normalization":
        return
    values = [np.asarray(weight) for weight in layer.weights]
    shapes, wanted = [value.shape for value in values], [tuple(weight.shape) for weight in rebuilt.weights]
    if shapes != wanted:
        message = f"the layer {layer.name!r} ({type(layer).__name__}) has weights of {shapes}, in tf_keras of {wanted}"
        raise ConversionError(message, "take another layer, or another scheme than qat")
    rebuilt.set_weights(values)

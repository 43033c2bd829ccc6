"""A functional model of Keras 3 rebuilt in tf_keras, node by node, with its weights; models inside of it flattened.

Neither package loads what the other saved. Both live in one process: Keras 3 reads, tf_keras builds.
"""

import itertools
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mltool import extras
from mltool.conversion.aware.fold import folded_weights
from mltool.conversion.aware.layers import NoCounterpart, copy_weights, counterpart
from mltool.errors import ConversionError
from mltool.models.own_layer import HOLDER

TOLERANCE = 1e-5
"""Largest difference of the outputs, as a share of the largest: the order of float32 sums differs."""

GUARD = "_taken"
"""In the name of a layer that does nothing, in front of another, so that what that one takes can be quantized."""

_NOTHING: Mapping[str, str] = {}


@dataclass
class Rebuilt:
    """A model in tf_keras.

    Attributes:
        model: of tf_keras; takes a list of inputs and gives a list of outputs, of one alone the tensor.
        inputs: names, in the order of the model.
        outputs: names, likewise.
        origins: of every layer that was rebuilt, by its name, the layer of Keras 3; those of models inside of the model
            have the names of both, `block/conv`.
        folds: by the name of a layer the BatchNormalization of Keras 3 that was folded into it.
        weights: by the same names, what the weights are called in tf_keras, in the order of those of Keras 3.
        pairs: of every call of a layer its name, what it gives in Keras 3, and what here, in the order of the calls.
    """

    model: Any = None
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    origins: dict[str, Any] = field(default_factory=dict)
    folds: dict[str, Any] = field(default_factory=dict)
    weights: dict[str, list[str]] = field(default_factory=dict)
    pairs: list[tuple[str, Any, Any]] = field(default_factory=list)

    def call(self, inputs: Mapping[str, Any], *, training: bool, model: Any = None) -> dict[str, Any]:
        """Runs the model, or another one of the same inputs and outputs, on named inputs; gives named outputs."""
        values = [inputs[name] for name in self.inputs]
        answers = (model or self.model)(values if len(values) > 1 else values[0], training=training)
        listed = answers if isinstance(answers, list | tuple) else [answers]
        return dict(zip(self.outputs, listed, strict=True))


def rebuild(
    model: Any, outputs: Mapping[str, Any], guarded: Collection[str] = (), folded: Mapping[str, str] = _NOTHING
) -> Rebuilt:
    """Rebuilds a model.

    Args:
        model: of Keras 3, functional.
        outputs: its output tensors, by name.
        guarded: names of layers whose inputs go through a layer that does nothing, see `GUARD`.
        folded: names of BatchNormalization layers, and of the layers before them that they are folded into.

    Raises:
        ConversionError: naming the layer that tf_keras cannot have.
    """
    tf_keras = extras.require("tf_keras")
    texts = [tensor.name for tensor in model.inputs if tensor.dtype == "string"]
    if texts:
        raise ConversionError(f"the input {texts[0]!r} is text, and qat takes numbers only", "take another scheme")
    rebuilt = Rebuilt(inputs=tuple(tensor.name for tensor in model.inputs), outputs=tuple(outputs))
    taken = [tf_keras.Input(tensor.shape[1:], dtype=tensor.dtype, name=tensor.name) for tensor in model.inputs]
    known = {id(tensor): new for tensor, new in zip(model.inputs, taken, strict=True)}
    _Walk(rebuilt, frozenset(guarded), folded).walk(model, known)
    given = [known[id(tensor)] for tensor in outputs.values()]
    rebuilt.model = tf_keras.Model(taken, given if len(given) > 1 else given[0], name=model.name)
    for name, layer in rebuilt.origins.items():
        new = rebuilt.model.get_layer(name)
        if name in rebuilt.folds:
            new.set_weights(folded_weights(layer, rebuilt.folds[name]))
        else:
            copy_weights(layer, new)
        rebuilt.weights[name] = [short_name(variable) for variable in new.weights]
    return rebuilt


def short_name(variable: Any) -> str:
    """The name of a variable of tf_keras in its layer, such as `kernel`."""
    return str(variable.name).rpartition("/")[2].partition(":")[0]


class _Walk:
    """A walk through a model and those inside of it, in the order of computation."""

    def __init__(self, rebuilt: Rebuilt, guarded: Collection[str], folded: Mapping[str, str]) -> None:
        self._rebuilt, self._guarded, self._folded = rebuilt, guarded, folded
        self._layers: dict[int, Any] = {}

    def walk(self, model: Any, known: dict[int, Any], outer: tuple[str, ...] = ()) -> None:
        """Calls the counterparts of all operations of a model.

        Args:
            model: of Keras 3, functional.
            known: by id of a tensor of Keras 3, the tensor of tf_keras; those of the inputs are there.
            outer: names of the models around it.
        """
        for depth in sorted(model._nodes_by_depth, reverse=True):
            for node in model._nodes_by_depth[depth]:
                if node.is_input or any(id(tensor) not in known for tensor in node.input_tensors):
                    continue
                given = extras.keras().tree.flatten(self._call(node, known, outer))
                name = "/".join((*outer, node.operation.name))
                for tensor, new in zip(node.outputs, given, strict=True):
                    known[id(tensor)] = new
                    if name not in self._folded.values():  # what it gives is what the two give
                        self._rebuilt.pairs.append((name, tensor, new))

    def _call(self, node: Any, known: Mapping[int, Any], outer: tuple[str, ...]) -> Any:
        """What an operation gives here."""
        keras, operation = extras.keras(), node.operation
        arguments, keywords = node.arguments.fill_in(known)
        inner = operation.layer if type(operation).__name__ == HOLDER else operation
        if isinstance(inner, keras.Model):
            return self._flatten(inner, keras.tree.flatten(arguments), (*outer, operation.name))
        keywords = {key: value for key, value in keywords.items() if value is not None}
        name = "/".join((*outer, operation.name))
        if name in self._folded:
            self._rebuilt.folds[self._folded[name]] = inner
            return arguments[0]
        layer = self._layer(operation, inner, name)
        if name in self._guarded:
            arguments = _behind_guards(arguments, name)
        try:
            return layer(*arguments, **keywords)
        except (TypeError, ValueError) as error:
            reason = " ".join(str(error).split())[:200]
            raise _refused(name, f"({type(inner).__name__}) cannot be called in tf_keras: {reason}") from error

    def _flatten(self, model: Any, tensors: list[Any], outer: tuple[str, ...]) -> Any:
        """Walks through a model inside of the model."""
        keras = extras.keras()
        inner = model._functional if isinstance(model, keras.Sequential) else model
        if not hasattr(inner, "_nodes_by_depth"):
            raise _refused("/".join(outer), f"is a {type(model).__name__}, a model that is no graph of layers")
        known = {id(tensor): new for tensor, new in zip(inner.inputs, tensors, strict=True)}
        self.walk(inner, known, outer)
        return keras.tree.map_structure(lambda tensor: known[id(tensor)], inner.output)

    def _layer(self, operation: Any, inner: Any, name: str) -> Any:
        """The counterpart of a layer, the same for every call of it."""
        if id(operation) in self._layers:
            return self._layers[id(operation)]
        if not isinstance(inner, extras.keras().Layer):
            raise _refused(name, f"is the operation {type(inner).__name__}, and no layer")
        try:
            more = {"use_bias": True} if name in self._folded.values() else {}
            layer = counterpart(inner, name, **more)
        except NoCounterpart as reason:
            raise _refused(name, str(reason)) from reason
        self._layers[id(operation)] = layer
        self._rebuilt.origins[name] = inner
        return layer


def _behind_guards(arguments: Any, name: str) -> Any:
    """Every tensor that a layer takes, behind a layer that does nothing."""
    numbers = itertools.count(1)

    def guard(tensor: Any) -> Any:
        layer = extras.require("tf_keras").layers.Activation("linear", name=f"{name}{GUARD}_{next(numbers)}")
        return layer(tensor)

    return extras.keras().tree.map_structure(guard, arguments)


def _refused(name: str, reason: str) -> ConversionError:
    hint = "train with other layers, or convert with another scheme: int8 rebuilds no model"
    return ConversionError(f"cannot train the model for its quantization: the layer {name!r} {reason}", hint)


def require_equal(model: Any, rebuilt: Rebuilt, inputs: Mapping[str, np.ndarray[Any, Any]]) -> float:
    """Proves that the rebuilt model answers as the model.

    Args:
        model: of Keras 3.
        rebuilt: of it.
        inputs: samples by name.

    Returns:
        The largest difference of an output, as a share of its largest value.

    Raises:
        ConversionError: naming the first layer that differs.
    """
    keras = extras.keras()
    values = [keras.ops.convert_to_tensor(inputs[tensor.name], tensor.dtype) for tensor in model.inputs]
    answers = keras.Model(model.inputs, model.outputs)(values, training=False)
    rebuilt_answers = rebuilt.model(values, training=False)
    pairs = zip(keras.tree.flatten(answers), keras.tree.flatten(rebuilt_answers), strict=True)
    worst = max(_difference(wanted, found) for wanted, found in pairs)
    if worst <= TOLERANCE:
        return worst
    first = _first_that_differs(model, rebuilt, values)
    message = f"the model rebuilt in tf_keras gives other answers, by {worst:.1e} of the largest"
    raise ConversionError(f"{message}; the first layer that differs is {first!r}", "take another scheme than qat")


def _difference(wanted: Any, found: Any) -> float:
    """Largest difference, as a share of the largest value; infinite where one is no number and the other is."""
    one, other = (np.asarray(values, np.float64) for values in (wanted, found))
    if not np.array_equal(np.isfinite(one), np.isfinite(other)):
        return float("inf")
    difference = np.abs(np.nan_to_num(one) - np.nan_to_num(other)).max(initial=0.0)
    return float(difference / (np.abs(np.nan_to_num(one)).max(initial=0.0) or 1.0))


def _first_that_differs(model: Any, rebuilt: Rebuilt, values: list[Any]) -> str:
    """The first layer of the run's model whose counterpart gives something else; of a model inside, that one's own."""
    keras, tf_keras = extras.keras(), extras.require("tf_keras")
    # What is inside of another model has no tensor that can be asked for from outside: it counts as that model.
    inside = {id(tensor) for _, tensor, _ in rebuilt.pairs if not _is_of(model, tensor)}
    pairs = [pair for pair in rebuilt.pairs if id(pair[1]) not in inside]
    wanted = keras.Model(model.inputs, [tensor for _, tensor, _ in pairs])(values, training=False)
    found = tf_keras.Model(rebuilt.model.inputs, [new for _, _, new in pairs])(values, training=False)
    compared = zip(pairs, keras.tree.flatten(wanted), keras.tree.flatten(found), strict=True)
    return next((name for (name, _, _), one, other in compared if _difference(one, other) > TOLERANCE), pairs[-1][0])


def _is_of(model: Any, tensor: Any) -> bool:
    return any(operation is tensor._keras_history.operation for operation in model.operations)

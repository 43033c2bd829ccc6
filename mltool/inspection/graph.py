"""A model as the calls that Keras runs one after the other, those of models inside of it too."""

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from mltool import extras

Shape = tuple[int | None, ...]


@dataclass(frozen=True, eq=False)
class Tensor:
    """What a call gives and others take; two are the same only if they are one object.

    Attributes:
        shape: of one sample; None where the graph does not tell a length.
        dtype: by TensorFlow's name, such as `float32` or `string`.
    """

    shape: Shape
    dtype: str

    @property
    def num_values(self) -> int | None:
        """Values of one sample; None where a length is not known, 0 of text, which has no fixed size."""
        if self.dtype == "string":
            return 0
        known = [length for length in self.shape if length is not None]
        return math.prod(known) if len(known) == len(self.shape) else None


@dataclass(frozen=True)
class Call:
    """One call of a layer or of an operation of `keras.ops`.

    Attributes:
        path: name of the layer, below the names of the models that it lies in, as `mel/rfft`.
        operation: the keras.Layer or keras.Operation.
        operands: its positional arguments, constants too, as they were given.
        takes: the tensors among its arguments.
        gives: its outputs.
    """

    path: str
    operation: Any
    operands: tuple[Any, ...]
    takes: tuple[Tensor, ...]
    gives: tuple[Tensor, ...]


def calls_of(model: Any) -> tuple[list[Call], tuple[Tensor, ...]]:
    """The calls of a model in the order in which Keras runs them, and the outputs of the model.

    Args:
        model: a functional keras.Model; functional models that it calls are told as their own calls.
    """
    given = tuple(_tensor(tensor) for tensor in model.inputs)
    calls = [
        Call(tensor._keras_history.operation.name, tensor._keras_history.operation, (), (), (known,))
        for tensor, known in zip(model.inputs, given, strict=True)
    ]
    outputs = _walk(model, given, "", calls)
    return calls, outputs


def _walk(model: Any, given: Sequence[Tensor], prefix: str, calls: list[Call]) -> tuple[Tensor, ...]:
    known = {id(tensor): own for tensor, own in zip(model.inputs, given, strict=True)}
    numbered: Counter[str] = Counter()
    for node in _nodes(model):
        takes = tuple(known[id(tensor)] for tensor in node.input_tensors)
        path = f"{prefix}{_name(node.operation, numbered)}"
        if hasattr(node.operation, "_nodes_by_depth"):
            gives = _walk(node.operation, takes, f"{path}/", calls)
        else:
            gives = tuple(_tensor(tensor) for tensor in node.output_tensors)
            calls.append(Call(path, node.operation, tuple(node.arguments.args), takes, gives))
        known |= {id(tensor): own for tensor, own in zip(node.output_tensors, gives, strict=True)}
    return tuple(known[id(tensor)] for tensor in model.outputs)


def _name(operation: Any, numbered: Counter[str]) -> str:
    """A layer's name; of an operation its kind, numbered in its graph: Keras numbers them over the whole process."""
    if isinstance(operation, extras.keras().Layer):
        return str(operation.name)
    kind = re.sub(r"_\d+$", "", operation.name)
    numbered[kind] += 1
    return kind if numbered[kind] == 1 else f"{kind}_{numbered[kind] - 1}"


def _nodes(model: Any) -> Iterator[Any]:
    """The nodes of a graph but its inputs, deepest first: the order of `Function._run_through_graph` of Keras."""
    for depth in sorted(model._nodes_by_depth, reverse=True):
        yield from (node for node in model._nodes_by_depth[depth] if not node.is_input)


def _tensor(tensor: Any) -> Tensor:
    return Tensor(tuple(tensor.shape[1:]), str(extras.keras().backend.standardize_dtype(tensor.dtype)))

"""A converted file beside what was asked for: what the checks of all schemes look at."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from mltool.conversion.precision import Precision
from mltool.conversion.schemes import INTEGER_IO, NO_INT8_KERNEL
from mltool.inspection.model_file import FLOAT_TYPES, ModelFile, Operator, Tensor

Problems = Iterator[tuple[str, str]]
"""What is wrong, and a hint."""

_MOVES = frozenset(
    {"CONCATENATION", "EXPAND_DIMS", "GATHER", "PACK", "RESHAPE", "REVERSE_V2", "SLICE", "SQUEEZE"}
    | {"STRIDED_SLICE", "TRANSPOSE"}
)
"""Operators that move values and compute none: in float between two loops, they lose nothing and take no kernel."""


@dataclass(frozen=True)
class Asked:
    """A file beside what was asked for.

    Attributes:
        file: read with the names of its layers.
        quantize: a name in `SCHEMES`.
        io: type of quantizable inputs and outputs.
        preprocess: layers that may stay float in an int8 file of the converter.
        keep_float: layers that had to stay float.
        precision: what each layer was to be, the layers to keep in float among the patterns; `None` for schemes of the
            converter.
        granularity: what shares a scale.
        free_granularity: operators whose weights may have either.
    """

    file: ModelFile
    quantize: str
    io: str
    preprocess: frozenset[str]
    keep_float: frozenset[str]
    precision: Precision | None
    granularity: str
    free_granularity: frozenset[str] = frozenset()

    @property
    def computing(self) -> list[Operator]:
        """The operators that compute: not those that stand between two precisions."""
        return [op for op in self.file.operators if op.compute_dtype != "edge"]

    def in_float(self) -> list[Operator]:
        """The operators that compute in floating point, with float or integer weights."""
        return [op for op in self.computing if in_float(op)]

    @cached_property
    def _unpacked(self) -> dict[tuple[int, int], Tensor]:
        """The stored tensor behind every tensor that a DEQUANTIZE unpacks from one."""
        return {
            (op.subgraph, op.outputs[0].index): source
            for op in self.file.operators
            if op.op == "DEQUANTIZE" and (source := op.inputs[0]) is not None and source.constant
        }

    def weight(self, op: Operator, position: int) -> Tensor | None:
        """The stored tensor at a position among the inputs, as it is stored; `None` where it is computed."""
        tensor = op.inputs[position] if position < len(op.inputs) else None
        if tensor is None or tensor.constant:
            return tensor
        return self._unpacked.get((op.subgraph, tensor.index))

    def place_of(self, constant: Tensor) -> str:
        """Who reads a constant, as `, which SUB of layer 'normalization' reads`; empty where nobody does."""
        readers = [op for op in self.file.operators if self._reads(op, constant) and op.op != "DEQUANTIZE"]
        return f", which {readers[0]} reads," if readers else ""

    def _reads(self, op: Operator, constant: Tensor) -> bool:
        return any(self.weight(op, place) is constant for place in range(len(op.inputs)))

    def reason(self, op: Operator) -> str | None:
        """Why an operator may compute in float inside an int8 file of the converter; `None` when it may not."""
        if self.io in INTEGER_IO:
            return None
        if self.keep_float & set(op.layers):
            return "keep_float"
        if self.preprocess & set(op.layers):
            return "preprocessing"
        if op.op in NO_INT8_KERNEL:
            return "no int8 kernel"
        return "next to WHILE" if op.op in _MOVES and self._next_to_loop(op) else None

    def _next_to_loop(self, op: Operator) -> bool:
        """Whether a loop, which hands its state round in float, makes what an operator takes or takes what it makes."""
        loops = [one for one in self.file.operators if one.op == "WHILE" and one.subgraph == op.subgraph]
        made = {tensor.index for loop in loops for tensor in loop.outputs}
        taken = {tensor.index for loop in loops for tensor in loop.inputs if tensor is not None}
        given = {tensor.index for tensor in op.inputs if tensor is not None}
        return bool(made & given) or bool(taken & {tensor.index for tensor in op.outputs})


def in_float(op: Operator) -> bool:
    """Whether an operator reads or writes floating-point values."""
    return op.compute_dtype in FLOAT_TYPES or op.compute_dtype == "hybrid"

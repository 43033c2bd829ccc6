"""What a `.tflite` file holds, as the rest of mltool sees it."""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

FLOAT_TYPES = frozenset({"float16", "bfloat16", "float32", "float64"})
"""Element types that are computed in floating point."""

SMALL_INTEGER_TYPES = frozenset({"int2", "uint4", "int4", "int8", "uint8", "int16", "uint16"})
"""Element types that a quantizer writes for weights and activations."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor of one subgraph.

    Attributes:
        subgraph: index of its subgraph.
        index: index in it.
        name: as the converter wrote it.
        dtype: element type in lower case, such as `float32` or `int8`.
        shape: with -1 where the size is not fixed.
        constant: whether its values are stored in the file.
        bytes: size of the stored values; 0 without.
        scales: quantization scales, real value per step; one, one per channel, or one per block, channel by channel;
            empty when it is not quantized.
        zero_points: the integer that stands for 0, one per scale.
        quantized_dimension: the axis that `scales` run along, `None` unless there are several.
        variable: whether it keeps its values between two runs.
        finite: `False` when a stored float value is infinite or not a number.
        saturated: whether a stored float16 value is 65,504 or its negative, where the converter clamps what is larger.
        block_size: values along the last axis that share a scale; 0 unless there is a scale per block.
    """

    subgraph: int
    index: int
    name: str
    dtype: str
    shape: tuple[int, ...]
    constant: bool
    bytes: int
    scales: tuple[float, ...]
    zero_points: tuple[int, ...]
    quantized_dimension: int | None
    variable: bool
    finite: bool
    saturated: bool
    block_size: int = 0

    @property
    def elements(self) -> int:
        """How many values it holds, a free dimension counted as one."""
        return math.prod(size if size >= 0 else 1 for size in self.shape)


@dataclass(frozen=True, slots=True)
class Operator:
    """One operator.

    Attributes:
        subgraph: index of its subgraph.
        index: position in it; the order of execution.
        op: builtin name, such as `CONV_2D`; `CUSTOM` for custom operators.
        version: of the operator, which decides what runtime is needed.
        inputs: its tensors; `None` where an optional one is left out.
        outputs: its tensors.
        custom_code: name of a custom operator, empty for builtin ones; `Flex...` for a TensorFlow operator.
        layers: the Keras layers that it came from, in the order of the model; empty when they were not asked for or are
            not to be told.
        compute_dtype: `float32` (and its like) when it reads or writes floating-point values, `hybrid` when it does so
            with integer weights, else the type of what it reads: `int8`, `int32`. QUANTIZE and DEQUANTIZE stand on an
            edge and have `edge`.
    """

    subgraph: int
    index: int
    op: str
    version: int
    inputs: tuple[Tensor | None, ...]
    outputs: tuple[Tensor, ...]
    custom_code: str
    layers: tuple[str, ...]
    compute_dtype: str

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All inputs and outputs that are there."""
        return (*(tensor for tensor in self.inputs if tensor is not None), *self.outputs)

    def __str__(self) -> str:
        """As messages name it: `CONV_2D of layer 'first'`."""
        name = self.custom_code or self.op
        if not self.layers:
            return f"{name} {self.index}"
        return f"{name} of layer {' + '.join(repr(layer) for layer in self.layers)}"


@dataclass(frozen=True, slots=True)
class Signature:
    """A named entry of the model: its key, and tensors by the names that a caller uses."""

    name: str
    inputs: Mapping[str, Tensor]
    outputs: Mapping[str, Tensor]


@dataclass(frozen=True)
class ModelFile:
    """What a `.tflite` file holds.

    Attributes:
        path: the file.
        total_bytes: its size.
        tensors: of all subgraphs.
        operators: of all subgraphs, in order of execution.
        signatures: named entries; empty in files made without.
        inputs: of the first subgraph, in the order of the file.
        outputs: of the first subgraph.
        min_runtime_version: of TensorFlow Lite, as the converter recorded it; `None` where it did not.
    """

    path: Path
    total_bytes: int
    tensors: tuple[Tensor, ...]
    operators: tuple[Operator, ...]
    signatures: tuple[Signature, ...]
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    min_runtime_version: str | None
    buffer_bytes: Mapping[str, int] = field(repr=False)

    @cached_property
    def half_read(self) -> tuple[Operator, ...]:
        """Operators of the first subgraph with an output that nothing reads, as a SPLIT whose middle is not needed."""
        own = [op for op in self.operators if op.subgraph == 0]
        read = {tensor.index for op in own for tensor in op.inputs if tensor is not None}
        read |= {tensor.index for tensor in self.outputs}
        return tuple(op for op in own if any(tensor.index not in read for tensor in op.outputs))

    @property
    def constants(self) -> tuple[Tensor, ...]:
        """The tensors whose values are stored in the file."""
        return tuple(tensor for tensor in self.tensors if tensor.constant)

    @property
    def op_counts(self) -> dict[str, int]:
        """How often each operator occurs, custom ones by their own name, in the order of the alphabet."""
        return dict(sorted(Counter(op.custom_code or op.op for op in self.operators).items()))

    @property
    def ops_by_dtype(self) -> dict[str, int]:
        """How many operators compute in each type; see `Operator.compute_dtype`."""
        return dict(sorted(Counter(op.compute_dtype for op in self.operators).items()))

    @property
    def weight_bytes_by_dtype(self) -> dict[str, int]:
        """Bytes of stored values by element type; values that several tensors share count once."""
        return dict(sorted(self.buffer_bytes.items()))

    @property
    def custom_ops(self) -> tuple[str, ...]:
        """Names of custom operators, Flex ones among them."""
        return tuple(sorted({op.custom_code or op.op for op in self.operators if op.op == "CUSTOM"}))

    @property
    def flex_ops(self) -> tuple[str, ...]:
        """Names of the TensorFlow operators that need the Flex delegate."""
        return tuple(name for name in self.custom_ops if name.startswith("Flex"))

    @property
    def variables(self) -> tuple[str, ...]:
        """What keeps its value between two runs: names of variable tensors and of resource handles."""
        handles = (op.outputs[0].name for op in self.operators if op.op == "VAR_HANDLE" and op.outputs)
        return (*(tensor.name for tensor in self.tensors if tensor.variable), *handles)

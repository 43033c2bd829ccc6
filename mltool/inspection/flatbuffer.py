"""What is in a `.tflite` file: read, never run, and without TensorFlow.

The format is `tensorflow/compiler/mlir/lite/schema/schema.fbs`, version 3. The file is held to be untrusted: every
index is checked against what it points into, every constant against its shape, and the number of entries against the
size of the file (a table of 16 bytes can be named a million times by a file of 4 MB).
"""

import math
import struct
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mltool.errors import ArtifactError
from mltool.inspection.layers import LayerNames, Node, find_layers
from mltool.inspection.model_file import FLOAT_TYPES, SMALL_INTEGER_TYPES, ModelFile, Operator, Signature, Tensor

FILE_IDENTIFIER = b"TFL3"
"""Bytes 4 to 7 of every file of schema version 3."""

_BITS = {
    "int2": 2, "int4": 4, "uint4": 4, "bool": 8, "int8": 8, "uint8": 8, "int16": 16, "uint16": 16, "float16": 16,
    "bfloat16": 16, "int32": 32, "uint32": 32, "float32": 32, "int64": 64, "uint64": 64, "float64": 64, "complex64": 64,
    "complex128": 128,
}  # fmt: skip
"""Bits of one element; types of no fixed size are not checked against their shape."""


def read_flatbuffer(path: Path, layer_names: Sequence[str] = ()) -> ModelFile:
    """Reads what a `.tflite` file says about itself; nothing in it is run.

    Args:
        path: the file.
        layer_names: the Keras layers that the model was made of, in its order, to tell which operator came from which;
            a layer inside a layer as `outer/inner`.

    Raises:
        ArtifactError: the file is missing, damaged, or no `.tflite` file.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ArtifactError(f"cannot read {path}: {error.strerror}", "give the path of a .tflite file") from error
    if data[4:8] != FILE_IDENTIFIER:
        raise ArtifactError(
            f"{path} is not a .tflite file: bytes 4 to 7 are {data[4:8]!r}, not {FILE_IDENTIFIER!r}",
            "convert the model again, or give another file",
        )
    try:
        return _Reader(path, data).read(layer_names)
    except (struct.error, ValueError, IndexError, KeyError, TypeError, OverflowError, AttributeError) as error:
        raise ArtifactError(
            f"{path} is damaged: {error or type(error).__name__}", "copy it again, or convert the model again"
        ) from error


class _Reader:
    """Walks the tables of one file; what points outside raises an error that `read_flatbuffer` translates."""

    def __init__(self, path: Path, data: bytes) -> None:
        from ai_edge_litert import schema_py_generated as schema

        self._path, self._data, self._schema = path, data, schema
        self._blockwise = schema.QuantizationDetails.BlockwiseQuantization
        self._model = schema.Model.GetRootAs(data, 0)
        self._dtypes = _names_by_value(schema.TensorType, str.lower)
        self._ops = _names_by_value(schema.BuiltinOperator, str)
        self._entries = 0

    def read(self, layer_names: Sequence[str]) -> ModelFile:
        model = self._model
        buffers = [self._buffer(index) for index in range(self._count(model.BuffersLength()))]
        graphs = [model.Subgraphs(index) for index in range(self._count(model.SubgraphsLength()))]
        if not graphs:
            raise ValueError("it holds no subgraph")
        tensors = [self._tensors(index, graph, buffers) for index, graph in enumerate(graphs)]
        names = LayerNames(layer_names, [tensor.name for of_graph in tensors for tensor in of_graph])
        operators = [
            operator
            for index, graph in enumerate(graphs)
            for operator in self._operators(index, graph, tensors[index], names)
        ]
        return ModelFile(
            path=self._path,
            total_bytes=len(self._data),
            tensors=tuple(tensor for of_graph in tensors for tensor in of_graph),
            operators=tuple(operators),
            signatures=tuple(self._signatures(tensors)),
            inputs=tuple(_pick(tensors[0], graphs[0].InputsAsNumpy())),
            outputs=tuple(_pick(tensors[0], graphs[0].OutputsAsNumpy())),
            min_runtime_version=self._min_runtime_version(buffers),
            buffer_bytes=self._buffer_bytes(graphs, tensors),
        )

    def _count(self, length: int) -> int:
        """A length, unless the file is too small to hold so many entries."""
        self._entries += length
        if self._entries > len(self._data):
            raise ValueError(f"it says that it holds more than {self._entries} entries in {len(self._data)} bytes")
        return length

    def _buffer(self, index: int) -> memoryview:
        """The stored bytes of one buffer, inside the tables or after them."""
        buffer = self._model.Buffers(index)
        if buffer.DataIsNone():
            if buffer.Offset() <= 1:  # 0 and 1: nothing outside, as the schema says
                return memoryview(b"")
            start, size = buffer.Offset(), buffer.Size()
        else:
            start, size = buffer._tab.Vector(buffer._tab.Offset(4)), buffer.DataLength()
        if start < 0 or start + size > len(self._data):
            raise ValueError(f"buffer {index} ends at byte {start + size}, the file at {len(self._data)}")
        return memoryview(self._data)[start : start + size]

    def _tensors(self, subgraph: int, graph: Any, buffers: Sequence[memoryview]) -> list[Tensor]:
        tables = (graph.Tensors(index) for index in range(self._count(graph.TensorsLength())))
        tensors = [self._tensor(subgraph, index, table, buffers) for index, table in enumerate(tables)]
        return [self._with_blocks(graph, tensor, buffers) for tensor in tensors]

    def _with_blocks(self, graph: Any, tensor: Tensor, buffers: Sequence[memoryview]) -> Tensor:
        """The tensor with the scales of its blocks, which stand in a tensor of their own (`BlockwiseQuantization`)."""
        quantization = graph.Tensors(tensor.index).Quantization()
        if quantization is None or quantization.DetailsType() != self._blockwise:
            return tensor
        details = self._schema.BlockwiseQuantization()
        details.Init(quantization.Details().Bytes, quantization.Details().Pos)
        if not 0 <= details.Scales() < graph.TensorsLength() or details.BlockSize() < 1:
            raise ValueError(f"the blocks of tensor {tensor.name!r} have no scales")
        table = graph.Tensors(details.Scales())
        scales = _floats(buffers[table.Buffer()], self._dtypes[table.Type()])
        if len(scales) * details.BlockSize() != tensor.elements:
            text = f"tensor {tensor.name!r} has {len(scales)} scales for {tensor.elements} values"
            raise ValueError(f"{text} in blocks of {details.BlockSize()}")
        return replace(
            tensor,
            scales=tuple(scales.tolist()),
            zero_points=(0,) * len(scales),
            quantized_dimension=len(tensor.shape) - 1,
            block_size=details.BlockSize(),
        )

    def _tensor(self, subgraph: int, index: int, table: Any, buffers: Sequence[memoryview]) -> Tensor:
        name = (table.Name() or b"").decode(errors="replace")
        dtype = self._dtypes[table.Type()]
        shape = _integers(table.ShapeAsNumpy(), self._count(table.ShapeLength()))
        signature = _integers(table.ShapeSignatureAsNumpy(), self._count(table.ShapeSignatureLength()))
        stored = buffers[table.Buffer()]
        quantization = table.Quantization()
        scales: tuple[float, ...] = ()
        zero_points: tuple[int, ...] = ()
        if quantization is not None and self._count(quantization.ScaleLength()):
            scales = tuple(float(value) for value in quantization.ScaleAsNumpy())
            count = self._count(quantization.ZeroPointLength())
            zero_points = _integers(quantization.ZeroPointAsNumpy(), count) or (0,) * len(scales)
        elements = math.prod(shape)
        if stored and dtype in _BITS and table.Sparsity() is None and len(stored) != -(-elements * _BITS[dtype] // 8):
            raise ValueError(f"tensor {name!r} of {dtype} and shape {list(shape)} has {len(stored)} bytes stored")
        values = _floats(stored, dtype)
        return Tensor(
            subgraph=subgraph,
            index=index,
            name=name,
            dtype=dtype,
            shape=signature or shape,
            constant=bool(stored),
            bytes=len(stored),
            scales=scales,
            zero_points=zero_points,
            quantized_dimension=quantization.QuantizedDimension() if len(scales) > 1 else None,
            variable=bool(table.IsVariable()),
            finite=bool(np.isfinite(values).all()),
            saturated=dtype == "float16" and bool((np.abs(values) == np.finfo(np.float16).max).any()),
        )

    def _operators(self, subgraph: int, graph: Any, tensors: Sequence[Tensor], names: LayerNames) -> Iterator[Operator]:
        rows = []
        for index in range(self._count(graph.OperatorsLength())):
            table = graph.Operators(index)
            self._count(table.InputsLength() + table.OutputsLength())
            inputs = tuple(
                None if tensor == -1 else _at(tensors, tensor) for tensor in _integers(table.InputsAsNumpy())
            )
            rows.append((self._code(table.OpcodeIndex()), inputs, tuple(_pick(tensors, table.OutputsAsNumpy()))))
        outputs = _integers(graph.OutputsAsNumpy(), self._count(graph.OutputsLength()))
        layers = find_layers(_nodes(rows), names, outputs)
        for index, ((op, version, custom), inputs, results) in enumerate(rows):
            dtype = _compute_dtype(op, inputs, results)
            yield Operator(subgraph, index, op, version, inputs, results, custom, layers[index], dtype)

    def _code(self, index: int) -> tuple[str, int, str]:
        """Name, version and custom name of an operator code."""
        if index >= self._model.OperatorCodesLength():
            raise ValueError(f"operator code {index} does not exist")
        code = self._model.OperatorCodes(index)
        # Codes up to 126 stand in the old one-byte field too, as files from before schema 3a have them in that alone.
        op = self._ops[max(code.BuiltinCode(), code.DeprecatedBuiltinCode())]
        return op, code.Version(), (code.CustomCode() or b"").decode(errors="replace")

    def _signatures(self, tensors: Sequence[Sequence[Tensor]]) -> Iterator[Signature]:
        for index in range(self._count(self._model.SignatureDefsLength())):
            table = self._model.SignatureDefs(index)
            of_graph = _at(tensors, table.SubgraphIndex())
            self._count(table.InputsLength() + table.OutputsLength())
            inputs = (table.Inputs(number) for number in range(table.InputsLength()))
            outputs = (table.Outputs(number) for number in range(table.OutputsLength()))
            yield Signature(
                (table.SignatureKey() or b"").decode(errors="replace"),
                {(entry.Name() or b"").decode(): _at(of_graph, entry.TensorIndex()) for entry in inputs},
                {(entry.Name() or b"").decode(): _at(of_graph, entry.TensorIndex()) for entry in outputs},
            )

    def _min_runtime_version(self, buffers: Sequence[memoryview]) -> str | None:
        for index in range(self._count(self._model.MetadataLength())):
            entry = self._model.Metadata(index)
            if entry.Name() == b"min_runtime_version":
                return bytes(buffers[entry.Buffer()]).rstrip(b"\0").decode(errors="replace") or None
        return None

    def _buffer_bytes(self, graphs: Sequence[Any], tensors: Sequence[Sequence[Tensor]]) -> dict[str, int]:
        """Bytes by element type, every buffer once."""
        once = {
            graph.Tensors(tensor.index).Buffer(): tensor
            for graph, of_graph in zip(graphs, tensors, strict=True)
            for tensor in of_graph
            if tensor.constant
        }
        total: Counter[str] = Counter()
        for tensor in once.values():
            total[tensor.dtype] += tensor.bytes
        return dict(total)


_Row = tuple[tuple[str, int, str], tuple[Tensor | None, ...], tuple[Tensor, ...]]


def _nodes(rows: Sequence[_Row]) -> list[Node]:
    """What `find_layers` needs of every operator; a weight that a DEQUANTIZE unpacks counts as the constant it is."""
    unpacked = {
        outputs[0].index: source.name
        for (op, _, _), (source, *_), outputs in (row for row in rows if row[1] and row[2])
        if op == "DEQUANTIZE" and source is not None and source.constant
    }
    readers = Counter(tensor.index for _, inputs, _ in rows for tensor in inputs if tensor is not None)
    nodes = []
    for (op, _, _), inputs, outputs in rows:
        given = [tensor for tensor in inputs if tensor is not None]
        stored = {tensor.index: tensor for tensor in given if tensor.constant or tensor.index in unpacked}
        own = [unpacked.get(index, tensor.name) for index, tensor in stored.items() if readers[index] == 1]
        nodes.append(
            Node(
                op=op,
                reads=tuple(tensor.index for tensor in given),
                inputs=tuple(tensor.index for tensor in given if tensor.index not in stored),
                outputs=tuple(tensor.index for tensor in outputs),
                output_names=tuple(tensor.name for tensor in outputs),
                constant_names=tuple(own),
            )
        )
    return nodes


def _compute_dtype(op: str, inputs: Sequence[Tensor | None], outputs: Sequence[Tensor]) -> str:
    if op in {"QUANTIZE", "DEQUANTIZE"}:
        return "edge"
    if op == "SHAPE":  # reads no value
        return outputs[0].dtype
    given = [tensor for tensor in inputs if tensor is not None]
    moving = [tensor.dtype for tensor in (*given, *outputs) if not tensor.constant]
    floats = [tensor.dtype for tensor in (*given, *outputs) if tensor.dtype in FLOAT_TYPES]
    if floats:
        hybrid = any(tensor.constant and tensor.dtype in SMALL_INTEGER_TYPES for tensor in given)
        return "hybrid" if hybrid else floats[0]
    small = [dtype for dtype in moving if dtype in SMALL_INTEGER_TYPES]
    return (small or moving or ["none"])[0]


def _floats(stored: memoryview, dtype: str) -> NDArray[Any]:
    """The stored values if they are floats that numpy knows, else nothing."""
    known = dtype in {"float16", "float32", "float64"}
    return np.frombuffer(stored if known else b"", np.dtype(dtype).newbyteorder("<") if known else np.float32)


def _names_by_value(enum: type, spell: Any) -> dict[int, str]:
    return {value: spell(name) for name, value in vars(enum).items() if isinstance(value, int)}


def _integers(values: Any, count: int | None = None) -> tuple[int, ...]:
    """A vector of the file as a tuple; the generated code gives 0 for one that is not there."""
    return () if count == 0 or isinstance(values, int) else tuple(int(value) for value in values)


def _pick(tensors: Sequence[Tensor], indices: Any) -> list[Tensor]:
    return [_at(tensors, index) for index in _integers(indices)]


def _at(entries: Sequence[Any], index: int) -> Any:
    """An entry; unlike plain indexing it refuses negative numbers, which a damaged file is full of."""
    if not 0 <= index < len(entries):
        raise IndexError(f"entry {index} of {len(entries)} does not exist")
    return entries[index]

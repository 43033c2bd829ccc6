"""What a recurrent layer of Keras 3 needs in a `.tflite` file to take more samples than one.

Such a layer keeps the answers of its steps in a TensorList. Where the batch is free, TensorFlow's converter makes a
constant of zeros of it that has room for one sample (`_experimental_default_to_single_batch_in_tensor_list_ops`), and
the file fails on two. All else in the file follows the batch. So the constant is replaced by operators that make zeros
for as many samples as come in. The format is `tensorflow/compiler/mlir/lite/schema/schema.fbs`, version 3.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mltool import extras


def free_the_batch(data: bytes, batch: int | None) -> bytes:
    """Gives every recurrent layer of a file room for as many samples as the file is run with.

    Args:
        data: the file, in float or with weights in float16 or int8, converted with a free batch.
        batch: of the file's inputs from now on; `None` leaves it free.

    Returns:
        The file with both changed; equal bytes for equal arguments.
    """
    schema = extras.require("ai_edge_litert.schema_py_generated")
    surgeon = _Surgeon(schema, schema.ModelT.InitFromPackedBuf(data))
    surgeon.free_lists()
    if batch is not None:
        surgeon.fix_inputs(batch)
    return surgeon.pack()


class _Surgeon:
    """Changes the first subgraph of a model; the loops of recurrent layers stand there."""

    def __init__(self, schema: Any, model: Any) -> None:
        self._schema, self._model = schema, model
        self._graph = model.subgraphs[0]
        self._prefix = b""

    def free_lists(self) -> None:
        """Puts operators in place of the constants that WHILE operators start from, where the loop frees the batch."""
        operators: list[Any] = []
        for operator in self._graph.operators:
            if self._is(operator, "WHILE"):
                operators += self._free_loop(operator)
            operators.append(operator)
        self._graph.operators = operators

    def fix_inputs(self, batch: int) -> None:
        for index in self._graph.inputs:
            tensor = self._graph.tensors[index]
            signature = _signature(tensor)
            signature[0] = batch
            tensor.shape = [batch, *tensor.shape[1:]]
            tensor.shapeSignature = signature if -1 in signature else None

    def pack(self) -> bytes:
        builder = extras.require("flatbuffers").Builder(1 << 16)
        builder.Finish(self._model.Pack(builder), b"TFL3")
        return bytes(builder.Output())

    def _free_loop(self, loop: Any) -> list[Any]:
        """The operators to stand before a loop; its inputs are changed."""
        body = self._model.subgraphs[loop.builtinOptions.bodySubgraphIndex]
        inputs = [int(index) for index in loop.inputs]
        lists = [
            place
            for place, (index, inside) in enumerate(zip(inputs, body.inputs, strict=True))
            if self._is_zeros(index) and _is_free(self._graph.tensors[index], body.tensors[inside])
        ]
        if not lists:
            return []
        # A layer is found by the names of its tensors: these are the loop's, and so the layer's.
        self._prefix = self._graph.tensors[loop.outputs[0]].name
        added = self._measure(inputs)
        size = int(added[-1].outputs[0])
        for place in lists:
            added += self._zeros(inputs[place], size)
            inputs[place] = int(added[-1].outputs[0])
        loop.inputs = inputs
        return added

    def _measure(self, inputs: list[int]) -> list[Any]:
        """Operators of which the last makes the batch, int32 [1], from a value of the loop that has it."""
        source, axis = int(self._graph.inputs[0]), 0  # the batch, unless a value of the loop says it
        for index in inputs:
            signature = _signature(self._graph.tensors[index])
            if len(signature) > 1 and signature.count(-1) == 1:
                source, axis = index, signature.index(-1)
                break
        rank = len(_signature(self._graph.tensors[source]))
        shape = self._tensor("shape", [rank], "INT32")
        ends = [self._constant(np.array([end], np.int32)) for end in (axis, axis + 1, 1)]
        size = self._tensor("batch", [1], "INT32")
        options = self._schema.StridedSliceOptionsT()
        kind = self._schema.ShapeOptionsT()
        kind.outType = self._schema.TensorType.INT32
        return [
            self._operator("SHAPE", [source], shape, kind),
            self._operator("STRIDED_SLICE", [shape, *ends], size, options),
        ]

    def _zeros(self, like: int, size: int) -> list[Any]:
        """Operators of which the last makes zeros of the shape of a tensor, with the batch on its second axis."""
        shape = [int(length) for length in self._graph.tensors[like].shape]
        parts = [self._constant(np.array(part, np.int32)) for part in (shape[:1], shape[2:])]
        whole = self._tensor("list_shape", [len(shape)], "INT32")
        zeros = self._tensor("list", shape, "FLOAT32", [shape[0], -1, *shape[2:]])
        joined = [parts[0], size, *parts[1:]] if shape[2:] else [parts[0], size]
        unpacked, nothing = self._zero(like)
        return [
            *unpacked,
            self._operator("CONCATENATION", joined, whole, self._schema.ConcatenationOptionsT()),
            self._operator("FILL", [whole, nothing], zeros, self._schema.FillOptionsT()),
        ]

    def _zero(self, like: int) -> tuple[list[Any], int]:
        """One zero, stored as a constant of zeros is: plain, or in float16 with the operator that unpacks it."""
        if self._stored(like):
            return [], self._constant(np.array(0, np.float32))
        zero = self._tensor("zero", [], "FLOAT32")
        options = self._schema.DequantizeOptionsT()
        return [self._operator("DEQUANTIZE", [self._constant(np.array(0, np.float16))], zero, options)], zero

    def _stored(self, index: int) -> bool:
        stored = self._model.buffers[self._graph.tensors[index].buffer].data
        return stored is not None and len(stored) > 0

    def _is_zeros(self, index: int) -> bool:
        """Whether a tensor is a constant of zeros, as it stands or unpacked from float16."""
        if not self._stored(index):
            for operator in self._graph.operators:
                if index in operator.outputs:
                    return self._is(operator, "DEQUANTIZE") and self._is_zeros(int(operator.inputs[0]))
            return False
        tensor = self._graph.tensors[index]
        return tensor.type in _floats(self._schema) and not np.any(self._model.buffers[tensor.buffer].data)

    def _is(self, operator: Any, name: str) -> bool:
        code = self._model.operatorCodes[operator.opcodeIndex]
        return bool(code.builtinCode == getattr(self._schema.BuiltinOperator, name))

    def _operator(self, name: str, inputs: list[int], output: int, options: Any) -> Any:
        operator = self._schema.OperatorT()
        operator.opcodeIndex = self._code(getattr(self._schema.BuiltinOperator, name))
        operator.inputs, operator.outputs = inputs, [output]
        operator.builtinOptions = options
        operator.builtinOptionsType = getattr(self._schema.BuiltinOptions, type(options).__name__.removesuffix("T"))
        return operator

    def _code(self, builtin: int) -> int:
        for index, code in enumerate(self._model.operatorCodes):
            if code.builtinCode == builtin:
                return index
        code = self._schema.OperatorCodeT()
        code.builtinCode, code.deprecatedBuiltinCode, code.version = builtin, min(builtin, 127), 1
        self._model.operatorCodes.append(code)
        return len(self._model.operatorCodes) - 1

    def _constant(self, values: NDArray[Any]) -> int:
        kind = values.dtype.name.upper()
        index = self._tensor("constant", list(values.shape), kind)
        stored = np.frombuffer(values.tobytes(), np.uint8)
        self._model.buffers[self._graph.tensors[index].buffer].data = stored
        return index

    def _tensor(self, name: str, shape: list[int], kind: str, signature: list[int] | None = None) -> int:
        self._model.buffers.append(self._schema.BufferT())
        tensor = self._schema.TensorT()
        tensor.name = self._prefix + f"_{name}_{len(self._graph.tensors)}".encode()
        tensor.shape, tensor.shapeSignature = shape, signature
        tensor.type, tensor.hasRank = getattr(self._schema.TensorType, kind), True
        tensor.buffer = len(self._model.buffers) - 1
        self._graph.tensors.append(tensor)
        return len(self._graph.tensors) - 1


def _is_free(outside: Any, inside: Any) -> bool:
    """Whether a constant has one sample on its second axis, and the loop that carries it any number."""
    signature = _signature(inside)
    return len(signature) > 1 and len(outside.shape) == len(signature) and outside.shape[1] == 1 and signature[1] == -1


def _signature(tensor: Any) -> list[int]:
    """The shape, with -1 where a length is free."""
    found = tensor.shape if tensor.shapeSignature is None or not len(tensor.shapeSignature) else tensor.shapeSignature
    return [int(length) for length in found]


def _floats(schema: Any) -> tuple[int, int]:
    return schema.TensorType.FLOAT32, schema.TensorType.FLOAT16

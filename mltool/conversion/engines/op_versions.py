"""The version of every operator that a file needs, which litert-quantizer does not write.

It leaves the versions of the float file: a runtime that knows an operator in float only then computes garbage instead
of refusing. The numbers are those of `GetBuiltinOperatorVersion` in TensorFlow's
`tensorflow/compiler/mlir/lite/tools/versioning/op_version.cc`, the versions of the runtime those of
`runtime_version.cc` beside it, as of November 2026. They are higher here in two places, where the original
tells nothing apart: with int16 activations its conditions ask for int16 weights, which no quantizer writes (and the
converter's own int16x8 files claim the versions of int8); and 4-bit weights under float activations have no version of
their own, and take that of the operator's first kernel with 4-bit weights.
"""

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

from mltool.conversion.schemes import CHANNEL_AXIS
from mltool.inspection.model_file import Operator, Tensor

_BY_ACTIVATION: Mapping[str, tuple[int, int]] = MappingProxyType(
    {
        "ADD": (2, 3), "AVERAGE_POOL_2D": (2, 3), "BATCH_MATMUL": (2, 3), "BROADCAST_TO": (3, 3),
        "CONCATENATION": (2, 3), "CONV_2D": (3, 4), "DEPTHWISE_CONV_2D": (3, 5), "DYNAMIC_UPDATE_SLICE": (1, 4),
        "EQUAL": (2, 5), "FULLY_CONNECTED": (4, 7), "GATHER": (2, 4), "GATHER_ND": (1, 3), "GELU": (2, 2),
        "LOGISTIC": (2, 3), "MAXIMUM": (2, 4), "MAX_POOL_2D": (2, 3), "MEAN": (2, 3), "MINIMUM": (2, 4),
        "MIRROR_PAD": (2, 3), "MUL": (2, 4), "NOT_EQUAL": (2, 4), "PACK": (2, 3), "PAD": (2, 3), "PADV2": (2, 3),
        "REDUCE_MAX": (2, 3), "REDUCE_MIN": (2, 3), "RELU": (2, 3), "RELU6": (2, 3), "RESIZE_BILINEAR": (2, 4),
        "RESIZE_NEAREST_NEIGHBOR": (2, 4), "RSQRT": (2, 3), "SELECT": (2, 1), "SLICE": (2, 4), "SOFTMAX": (2, 3),
        "SPACE_TO_DEPTH": (2, 1), "SPLIT": (2, 4), "SQRT": (2, 2), "SQUARED_DIFFERENCE": (2, 1),
        "STRIDED_SLICE": (2, 2), "SUB": (2, 5), "SUM": (2, 2), "TANH": (2, 3), "TRANSPOSE": (2, 5),
        "TRANSPOSE_CONV": (2, 3), "UNPACK": (2, 4),
    }
)  # fmt: skip
"""Versions by operator, with int8 and with int16 activations; 1 for operators that are not here."""

_NARROW_WEIGHTS: Mapping[str, tuple[int, int, int]] = MappingProxyType(
    {
        "CONV_2D": (7, 7, 8),
        "DEPTHWISE_CONV_2D": (7, 7, 7),
        "EMBEDDING_LOOKUP": (4, 4, 4),
        "FULLY_CONNECTED": (12, 10, 13),
    }
)
"""Versions with 4-bit weights: activations in float, int8, int16."""

_HYBRID: Mapping[str, tuple[int, int]] = MappingProxyType(
    {"CONV_2D": (2, 5), "DEPTHWISE_CONV_2D": (4, 6), "EMBEDDING_LOOKUP": (1, 4), "FULLY_CONNECTED": (3, 12)}
)
"""Versions with int8 weights and float activations: one scale, and one per channel."""

BLOCKWISE_VERSION = 13
"""FULLY_CONNECTED with a scale per block: no version marks it; that of TensorFlow 2.18 keeps older ones away."""

_RUNTIME: Mapping[str, Mapping[int, str]] = MappingProxyType(
    {
        "ADD": {2: "1.14.0", 3: "2.4.0"}, "AVERAGE_POOL_2D": {2: "1.14.0", 3: "2.3.0"},
        "BATCH_MATMUL": {1: "2.3.0", 2: "2.3.0", 3: "2.4.0"}, "BROADCAST_TO": {3: "2.5.0"},
        "CONCATENATION": {2: "1.14.0", 3: "2.3.0"},
        "CONV_2D": {2: "1.14.0", 3: "1.14.0", 4: "2.3.0", 5: "2.4.0", 6: "2.9.0", 7: "2.11.0", 8: "2.15.0"},
        "DEPTHWISE_CONV_2D": {3: "1.14.0", 4: "2.2.0", 5: "2.3.0", 6: "2.3.0", 7: "2.11.0"},
        "DEQUANTIZE": {1: "1.13.1", 2: "1.14.0", 3: "1.15.0", 5: "2.7.0", 6: "2.18.0", 7: "2.21.0"},
        "DYNAMIC_UPDATE_SLICE": {4: "2.20.0"}, "EMBEDDING_LOOKUP": {4: "2.18.0"},
        "EQUAL": {2: "1.14.0", 5: "2.21.0"},
        "FULLY_CONNECTED": {3: "1.14.0", 4: "1.14.0", 5: "2.0.0", 6: "2.1.0", 7: "2.3.0", 10: "2.11.0", 12: "2.17.0",
                            13: "2.18.0"},
        "GATHER": {2: "1.14.0", 4: "2.4.0"}, "GATHER_ND": {3: "2.5.0"}, "GELU": {1: "2.9.0", 2: "2.9.0"},
        "LOGISTIC": {2: "1.14.0", 3: "2.3.0"}, "MAXIMUM": {2: "1.14.0", 4: "2.3.0"},
        "MAX_POOL_2D": {2: "1.14.0", 3: "2.3.0"}, "MEAN": {2: "1.14.0", 3: "2.4.0"},
        "MINIMUM": {2: "1.14.0", 4: "2.3.0"}, "MIRROR_PAD": {2: "2.3.0", 3: "2.12.0"},
        "MUL": {2: "1.14.0", 3: "1.15.0", 4: "2.3.0"}, "NOT_EQUAL": {2: "1.14.0", 4: "2.21.0"},
        "PACK": {2: "1.14.0", 3: "2.3.0"}, "PAD": {2: "1.14.0", 3: "2.4.0"}, "PADV2": {2: "1.14.0", 3: "2.4.0"},
        "QUANTIZE": {1: "1.14.0", 2: "1.15.0", 3: "2.7.0"}, "REDUCE_MAX": {2: "1.14.0", 3: "2.5.0"},
        "REDUCE_MIN": {2: "1.14.0", 3: "2.5.0"}, "RELU": {2: "2.1.0", 3: "2.5.0"}, "RELU6": {2: "1.14.0", 3: "2.5.0"},
        "RESIZE_BILINEAR": {2: "1.14.0", 3: "2.2.0", 4: "2.5.0"},
        "RESIZE_NEAREST_NEIGHBOR": {2: "1.14.0", 3: "2.3.0", 4: "2.4.0"}, "RSQRT": {2: "2.5.0", 3: "2.15.0"},
        "SELECT": {2: "1.14.0"}, "SLICE": {2: "1.14.0", 4: "2.4.0"}, "SOFTMAX": {2: "1.14.0", 3: "2.3.0"},
        "SPACE_TO_DEPTH": {2: "1.14.0"}, "SPLIT": {2: "1.14.0", 4: "2.3.0"}, "SQRT": {2: "2.21.0"},
        "SQUARED_DIFFERENCE": {2: "2.5.0"}, "STRIDED_SLICE": {2: "1.14.0"},
        "SUB": {2: "1.14.0", 3: "2.3.0", 5: "2.4.0"}, "SUM": {2: "1.15.0"}, "TANH": {2: "1.14.0", 3: "2.3.0"},
        "TRANSPOSE": {2: "1.14.0", 4: "2.3.0", 5: "2.4.0"},
        "TRANSPOSE_CONV": {2: "2.2.0", 3: "2.3.0", 4: "2.13.0"}, "UNPACK": {2: "1.14.0", 4: "2.3.0"},
    }
)  # fmt: skip
"""Version of TensorFlow Lite that first ran a version of an operator, where that is later than 1.13."""


def version_of(op: Operator) -> int:
    """The version that an operator needs: what it had in the float file, or more.

    Args:
        op: as it stands in the quantized file, with the version of the float file.
    """
    return max(op.version, _needed(op))


def _needed(op: Operator) -> int:
    if op.op in {"QUANTIZE", "DEQUANTIZE"}:
        return _of_edge(op)
    weight = next((t for t in op.inputs[:2] if t is not None and t.constant and t.dtype in {"int4", "int8"}), None)
    if op.op in _HYBRID and weight is not None:
        if weight.block_size:
            return BLOCKWISE_VERSION
        if weight.dtype == "int4":
            return _NARROW_WEIGHTS[op.op][("int8", "int16").index(op.compute_dtype) + 1 if _static(op) else 0]
        if op.compute_dtype == "hybrid":
            return _HYBRID[op.op][_per_channel(op.op, weight)]
    if not _static(op):
        return 1
    version = _BY_ACTIVATION.get(op.op, (1, 1))[op.compute_dtype == "int16"]
    return 3 if op.op == "MUL" and op.compute_dtype == "int8" and _grows(op) else version


def _static(op: Operator) -> bool:
    return op.compute_dtype in {"int8", "int16"}


def _of_edge(op: Operator) -> int:
    tensor = op.inputs[0] if op.op == "DEQUANTIZE" else op.outputs[0]
    if tensor is None:
        return 1
    if op.op == "DEQUANTIZE":
        if tensor.dtype == "int8":
            return 5 if len(tensor.scales) > 1 else 2
        return {"int2": 7, "int4": 6, "int16": 3, "float16": 3}.get(tensor.dtype, 1)
    if tensor.dtype == "int4":
        return 4
    return 3 if len(tensor.scales) > 1 else 2 if tensor.dtype == "int16" else 1


def _per_channel(op: str, weight: Tensor) -> bool:
    axis = CHANNEL_AXIS[op]
    return axis < len(weight.shape) and len(weight.scales) == weight.shape[axis]


def _grows(op: Operator) -> bool:
    """Whether a product is scaled up, which the first int8 kernels of MUL could not."""
    scales = [tensor.scales[0] for tensor in (*op.inputs, *op.outputs) if tensor is not None and tensor.scales]
    return len(scales) == 3 and scales[0] * scales[1] / scales[2] >= 1


def runtime_of(versions: Iterable[tuple[str, int]], known: str | None) -> str:
    """The version of TensorFlow Lite that runs all of them.

    Args:
        versions: operators and their versions.
        known: what the float file needs, which counts for operators that are not in the table.
    """
    found = [_RUNTIME.get(op, {}).get(version, "1.5.0") for op, version in versions]
    return max((*found, known or "1.5.0"), key=lambda text: [int(part) for part in text.split(".") if part.isdigit()])


def set_versions(model: Any, operators: Iterable[Operator], known: str | None) -> None:
    """Writes the versions into a model, an object of the schema (`ModelT`), one per operator code.

    Args:
        model: changed in place.
        operators: of the same file, as `read_flatbuffer` tells them.
        known: `min_runtime_version` of the float file.
    """
    needed: dict[int, tuple[str, int]] = {}
    for op in operators:
        code = model.subgraphs[op.subgraph].operators[op.index].opcodeIndex
        needed[code] = (op.op, max(version_of(op), needed.get(code, ("", 1))[1]))
    for code, (_, version) in needed.items():
        model.operatorCodes[code].version = version
    text = runtime_of(needed.values(), known).encode()
    for entry in model.metadata or []:
        if entry.name == b"min_runtime_version":
            model.buffers[entry.buffer].data = list(text.ljust(16, b"\0"))

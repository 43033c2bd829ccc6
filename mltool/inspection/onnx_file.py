"""What is in an `.onnx` file: read, never run."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mltool import extras
from mltool.errors import ArtifactError


@dataclass(frozen=True)
class OnnxEnd:
    """One input or output.

    Attributes:
        name: as callers write it.
        dtype: NumPy's name of it; `object` for what is no tensor.
        shape: with the batch; None where free.
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...]


@dataclass(frozen=True)
class OnnxFile:
    """What an `.onnx` file says of itself.

    Attributes:
        opsets: version of every operator set that it imports, by domain; "" is ONNX's own.
        ir_version: of the file's form.
        producer: that made it, with its version.
        inputs: that callers give, weights not among them.
        outputs: that it gives.
        operators: how many of each, subgraphs counted too; with `domain.` before those of another domain than ONNX's.
        unknown: type and name of every node that no operator set of this ONNX has, in the version that is imported.
        weight_bytes: by dtype.
    """

    opsets: Mapping[str, int]
    ir_version: int
    producer: str
    inputs: Sequence[OnnxEnd]
    outputs: Sequence[OnnxEnd]
    operators: Mapping[str, int]
    unknown: Sequence[tuple[str, str]]
    weight_bytes: Mapping[str, int]


def read_onnx(path: Path) -> OnnxFile:
    """Reads what an `.onnx` file says of itself.

    Raises:
        ArtifactError: if the file is missing, damaged, or no `.onnx` file.
        MissingExtraError: if `onnx` is not installed.
    """
    onnx = extras.require("onnx")
    decode_error = extras.require("google.protobuf.message").DecodeError
    try:
        model = onnx.load_model(str(path), load_external_data=False)
    except (OSError, decode_error) as error:
        raise ArtifactError(f"{path} is missing or damaged: {' '.join(str(error).split())[:200]}") from error
    # An empty file, for one, is a valid message without a field.
    if not model.ir_version or not model.graph.output:
        raise ArtifactError(f"{path} is not an .onnx file: it has no graph with outputs", "export it again")
    return describe_onnx(model)


def describe_onnx(model: Any) -> OnnxFile:
    """As `read_onnx`, for a model in memory (an `onnx.ModelProto`)."""
    opsets = {_domain(opset.domain): opset.version for opset in model.opset_import}
    nodes = list(_nodes(model.graph))
    weights = {item.name for item in model.graph.initializer}
    return OnnxFile(
        opsets=opsets,
        ir_version=model.ir_version,
        producer=f"{model.producer_name} {model.producer_version}".strip(),
        inputs=[_end(item) for item in model.graph.input if item.name not in weights],
        outputs=[_end(item) for item in model.graph.output],
        operators=dict(sorted(Counter(_operator(node) for node in nodes).items())),
        unknown=[(_operator(node), node.name) for node in nodes if not _is_known(node, opsets)],
        weight_bytes=_weight_bytes(model.graph.initializer),
    )


def _domain(domain: str) -> str:
    """ONNX's own domain has two names (ONNX IR specification, "Operator Sets")."""
    return "" if domain == "ai.onnx" else domain


def _operator(node: Any) -> str:
    domain = _domain(node.domain)
    return f"{domain}.{node.op_type}" if domain else str(node.op_type)


def _nodes(graph: Any) -> Iterator[Any]:
    """All nodes, those in the bodies of If, Loop and Scan too."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for body in (attribute.g, *attribute.graphs):
                yield from _nodes(body)


def _is_known(node: Any, opsets: Mapping[str, int]) -> bool:
    onnx = extras.require("onnx")
    domain = _domain(node.domain)
    try:
        return not onnx.defs.get_schema(node.op_type, opsets.get(domain, 0), domain).deprecated
    except onnx.defs.SchemaError:
        return False


def _end(item: Any) -> OnnxEnd:
    kind = item.type.tensor_type
    if item.type.WhichOneof("value") != "tensor_type":
        return OnnxEnd(item.name, "object", ())
    sizes = (dim.dim_value if dim.HasField("dim_value") else None for dim in kind.shape.dim)
    return OnnxEnd(item.name, _dtype(kind.elem_type), tuple(sizes))


def _dtype(number: int) -> str:
    """NumPy's name of an ONNX type; `string` for text, ONNX's own name where NumPy has none."""
    onnx = extras.require("onnx")
    try:
        name = str(onnx.helper.tensor_dtype_to_np_dtype(number).name)
    except (KeyError, ValueError):
        return "undefined"
    return "string" if number == onnx.TensorProto.STRING else name


def _weight_bytes(initializers: Sequence[Any]) -> dict[str, int]:
    onnx = extras.require("onnx")
    found: Counter[str] = Counter()
    for item in initializers:
        size = 1
        for dim in item.dims:
            size *= dim
        width = 0 if item.data_type == onnx.TensorProto.STRING else _width(item.data_type)
        found[_dtype(item.data_type)] += size * width
    return dict(found)


def _width(number: int) -> int:
    """Bytes of one value; 1 for the types of less than a byte."""
    try:
        return int(extras.require("onnx").helper.tensor_dtype_to_np_dtype(number).itemsize)
    except (KeyError, ValueError):
        return 0

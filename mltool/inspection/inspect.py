"""What is in a model file, read without running it."""

import json
import zipfile
import zlib
from pathlib import Path
from typing import Any

from mltool import extras
from mltool.errors import ArtifactError, MltoolError
from mltool.inference.open import kind_of
from mltool.inspection.flatbuffer import read_flatbuffer
from mltool.inspection.model_file import Tensor
from mltool.inspection.onnx_file import read_onnx
from mltool.runs.find import run_of

UNREADABLE_KERAS = (
    *(zipfile.BadZipFile, zlib.error, RuntimeError, LookupError, ValueError, TypeError, AttributeError, OSError),
)
"""What reading a damaged Keras file raises; RuntimeError: an encrypted archive, an unknown compression, JSON nested too
deep."""

MAX_CONFIG_BYTES = 32 * 1024 * 1024
"""A Keras file whose description unpacks to more is taken for a bomb: a 307 kB one was measured to cost 830 MB."""


def inspect(path: Path) -> dict[str, Any]:
    """Describes a model file.

    Args:
        path: a `.tflite`, `.keras` or `.onnx` file, or a SavedModel folder.

    Returns:
        `path`, `format`, `bytes`, facts of the format, and `tables`: title to rows.

    Raises:
        ArtifactError: if it is missing, damaged, or no model.
        MissingExtraError: for a SavedModel where TensorFlow is not installed, for an `.onnx` file where `onnx` is not.
    """
    match kind_of(path):
        case "litert":
            return _flatbuffer(path)
        case "keras":
            return _keras(path)
        case "saved_model":
            return _saved_model(path)
        case "onnx":
            return _onnx(path)


def _flatbuffer(path: Path) -> dict[str, Any]:
    file = read_flatbuffer(path, _layer_names(path))
    operators = [
        {
            "#": op.index,
            "operator": op.custom_code or op.op,
            "version": op.version,
            "computes in": op.compute_dtype,
            "layers": " + ".join(op.layers) or "-",
            "output": _shape(op.outputs[0]) if op.outputs else "-",
        }
        for op in file.operators
    ]
    ends = [
        {
            "signature": s.name,
            "direction": direction,
            "name": name,
            "dtype": t.dtype,
            "shape": _shape(t),
            "scale": _scale(t),
        }
        for s in file.signatures
        for direction, tensors in (("input", s.inputs), ("output", s.outputs))
        for name, t in tensors.items()
    ]
    return {
        "path": str(path),
        "format": "LiteRT flatbuffer",
        "bytes": file.total_bytes,
        "min_runtime_version": file.min_runtime_version,
        "operators_by_dtype": file.ops_by_dtype,
        "custom_operators": list(file.custom_ops),
        "variables": list(file.variables),
        "tables": {
            "inputs_and_outputs": ends,
            "operators": operators,
            "weights": [{"dtype": dtype, "bytes": f"{size:,}"} for dtype, size in file.weight_bytes_by_dtype.items()],
        },
    }


def _layer_names(path: Path) -> tuple[str, ...]:
    """The Keras layers of the run that a file lies in; none where that is damaged: the file is shown all the same."""
    try:
        run = run_of(path)
        return run.spec.model.layer_names if run else ()
    except MltoolError:
        return ()


def _shape(tensor: Tensor) -> str:
    return "x".join("?" if size < 0 else str(size) for size in tensor.shape) or "scalar"


def _scale(tensor: Tensor) -> str:
    return f"{tensor.scales[0]:.6g} (zero point {tensor.zero_points[0]})" if tensor.scales else "-"


def _keras(path: Path) -> dict[str, Any]:
    """The description inside of a `.keras` archive; no class of it is built."""
    try:
        with zipfile.ZipFile(path) as archive:
            metadata = _json_member(path, archive, "metadata.json")
            config = _json_member(path, archive, "config.json")
            weights = archive.getinfo("model.weights.h5").file_size
        layers = [
            {
                "layer": layer["config"].get("name", "-"),
                "class": layer["class_name"],
                "module": layer.get("module") or "-",
            }
            for layer in config["config"].get("layers", [])
        ]
        return {
            "path": str(path),
            "format": f"Keras {metadata.get('keras_version')}",
            "bytes": path.stat().st_size,
            "saved": metadata.get("date_saved"),
            "weights_bytes": weights,
            "tables": {"layers": layers},
        }
    except UNREADABLE_KERAS as error:
        raise ArtifactError(f"{path} is damaged, or not a .keras file: {error}") from error


def _json_member(path: Path, archive: zipfile.ZipFile, name: str) -> Any:
    if archive.getinfo(name).file_size > MAX_CONFIG_BYTES:
        raise ArtifactError(f"{path}: {name} unpacks to more than {MAX_CONFIG_BYTES:,} bytes", "it is not opened")
    return json.loads(archive.read(name))


def _saved_model(path: Path) -> dict[str, Any]:
    tf = extras.tensorflow()
    decode_error = extras.require("google.protobuf.message").DecodeError
    proto = extras.require("tensorflow.core.protobuf.saved_model_pb2").SavedModel()
    try:
        proto.ParseFromString((path / "saved_model.pb").read_bytes())
        graph = proto.meta_graphs[0]
    except (decode_error, IndexError, OSError) as error:
        raise ArtifactError(f"{path} is damaged: {error}") from error
    ends = [
        {
            "signature": key,
            "direction": direction,
            "name": name,
            "dtype": tf.dtypes.as_dtype(info.dtype).name,
            "shape": _dims(info),
        }
        for key, signature in sorted(graph.signature_def.items())
        if not key.startswith("__saved_model")  # TensorFlow's own: what initializes it
        for direction, tensors in (("input", signature.inputs), ("output", signature.outputs))
        for name, info in sorted(tensors.items())
    ]
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    made_by = graph.meta_info_def.tensorflow_version
    return {
        "path": str(path),
        "format": f"SavedModel of TensorFlow {made_by}",
        "bytes": size,
        "tables": {"signatures": ends},
    }


def _onnx(path: Path) -> dict[str, Any]:
    file = read_onnx(path)
    ends = [
        {
            "direction": direction,
            "name": end.name,
            "dtype": end.dtype,
            "shape": "x".join("?" if size is None else str(size) for size in end.shape) or "scalar",
        }
        for direction, found in (("input", file.inputs), ("output", file.outputs))
        for end in found
    ]
    opsets = ", ".join(f"{domain or 'ai.onnx'} {version}" for domain, version in file.opsets.items())
    return {
        "path": str(path),
        "format": f"ONNX, operators of {opsets}, made by {file.producer or 'nobody named'}",
        "bytes": path.stat().st_size,
        "ir_version": file.ir_version,
        "opsets": {domain or "ai.onnx": version for domain, version in file.opsets.items()},
        "unknown_operators": sorted({operator for operator, _ in file.unknown}),
        "tables": {
            "inputs_and_outputs": ends,
            "operators": [{"operator": name, "count": count} for name, count in file.operators.items()],
            "weights": [{"dtype": dtype, "bytes": f"{size:,}"} for dtype, size in file.weight_bytes.items()],
        },
    }


def _dims(info: Any) -> str:
    return "x".join("?" if d.size < 0 else str(d.size) for d in info.tensor_shape.dim) or "scalar"

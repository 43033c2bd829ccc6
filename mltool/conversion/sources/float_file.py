"""A float `.tflite` file of somebody else's: read, never run, and held to be float before it is quantized."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mltool.conversion.sources.layer_names import layers_in
from mltool.errors import ArtifactError, ConversionError, UsageError
from mltool.inspection.flatbuffer import read_flatbuffer
from mltool.inspection.model_file import SMALL_INTEGER_TYPES, ModelFile, Signature, Tensor


def open_float_file(path: Path, scratch: Path, signature: str | None) -> dict[str, Any]:
    """Describes a float file.

    Args:
        path: of it.
        scratch: a folder, should it have to be written anew.
        signature: its key; the only one when left out.

    Raises:
        ArtifactError: if it is missing or damaged.
        ConversionError: if it is quantized already, which the quantizer would mangle without a word, or cannot be run.
        UsageError: if it has no such signature.
    """
    file = read_flatbuffer(path)
    _require_float(path, file)
    if file.custom_ops:
        message = f"{path} needs operators that are not builtin: {', '.join(file.custom_ops)}"
        raise ConversionError(message, "no runtime here has them; convert the model again with builtin operators only")
    chosen = _chosen(path, file, signature)
    return {
        "folder": None,
        "file": str(path),
        "signature": chosen.name,
        "inputs": _ends(chosen.inputs.items()),
        "outputs": _ends(chosen.outputs.items()),
        "layers": layers_in(output.name for op in file.operators for output in op.outputs[:1]),
        "loaded_by": f"schema of {file.min_runtime_version or 'an unknown version'}",
    }


def _ends(tensors: Iterable[tuple[str, Tensor]]) -> dict[str, tuple[str, list[int]]]:
    return {name: (tensor.dtype, list(tensor.shape)) for name, tensor in tensors}


def _require_float(path: Path, file: ModelFile) -> None:
    """Scales, small integers and float16 weights each say that somebody quantized it."""
    marked = [tensor for tensor in file.tensors if tensor.scales or tensor.dtype in SMALL_INTEGER_TYPES]
    marked += [tensor for tensor in file.constants if tensor.dtype == "float16"]
    if not marked:
        return
    counts = Counter(tensor.dtype for tensor in marked)
    held = ", ".join(f"{count} of {dtype}" for dtype, count in counts.most_common())
    weights = ", ".join(f"{size:,} bytes of {dtype}" for dtype, size in file.weight_bytes_by_dtype.items())
    message = f"{path} is quantized already: {held} among {len(file.tensors)} tensors; its weights are {weights}"
    raise ConversionError(message, "give the float32 file, or the model that it was made from")


def _chosen(path: Path, file: ModelFile, signature: str | None) -> Signature:
    if not file.signatures:
        if signature is not None:
            raise UsageError(f"{path} has no signature {signature!r}, and no other", "leave out --signature")
        message = f"{path} has no signature: nothing says which input is which"
        raise ConversionError(message, "convert its model again; every TensorFlow since 2.5 writes one")
    if len(file.signatures) > 1:
        names = ", ".join(one.name for one in file.signatures)
        message = f"{path} has several signatures: {names}; one file cannot be quantized for one of them"
        raise ConversionError(message, "convert the model again with the one that is wanted")
    (only,) = file.signatures
    if signature not in (None, only.name):
        raise UsageError(f"{path} has no signature {signature!r}", f"it has {only.name}")
    if not file.operators:
        raise ArtifactError(f"{path} holds no operator", "convert the model again")
    return only

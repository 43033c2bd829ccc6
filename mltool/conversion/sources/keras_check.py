"""A `.keras` or `.h5` file, looked through before any Keras opens it: code inside, bombs, damage; nothing is built.

Needed because a file is more than weights: tf_keras runs the payload of a Lambda layer on load, a class or function is
imported from whatever module the file names, HDF5 reads other files through external links, and a small archive can
unpack to gigabytes.
"""

import json
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

from mltool import extras
from mltool.errors import ArtifactError
from mltool.inspection.inspect import MAX_CONFIG_BYTES, UNREADABLE_KERAS

Library = Literal["keras", "tf_keras"]

TIMES_PACKED = 20
"""A file that unpacks to more than this many times its size is taken for a bomb; weights hardly shrink."""

LEAST_BYTES = 64 << 20
"""A file that unpacks to no more is taken whatever its size."""

_MODELING = "layers|activations|initializers|regularizers|constraints|models|losses|metrics|optimizers|ops"
_MODELING += "|dtype_policies|quantizers|mixed_precision|random|engine"
_KERAS_MODULE = re.compile(rf"(tf_)?keras(\.src)?(\.({_MODELING})(\.\w+)*)?")
"""Modules of Keras that hold parts of models, and none that load, save or fetch."""

_KERAS_FUNCTION = re.compile(r"(tf_)?keras(\.src)?\.(activations|losses|metrics|ops|random)(\.\w+)*")

_CODE = {
    "Lambda": "",
    "TFSMLayer": " runs a SavedModel",
    "TorchModuleWrapper": " unpickles a module of PyTorch",
    "JaxLayer": " calls a function of JAX",
    "FlaxLayer": " calls a function of JAX",
    "TensorFlowOpLayer": " runs any operator of TensorFlow",
}
"""Layers that run more than what Keras brings, and what they do."""

_TENSORFLOW_FUNCTION = frozenset({"TFOpLambda", "SlicingOpLambda"})
_TENSORFLOW_CALL = _TENSORFLOW_FUNCTION | {"ClassMethod", "InstanceMethod"}

_SAFE_FUNCTION = re.compile(
    r"""(math|nn|linalg|signal|image|__operators__|bitwise|keras\.activations)\.\w+ | reshape
    | cast | concat | stack | unstack | split | transpose | expand_dims | squeeze | tile | gather(_nd)? | where | pad
    | slice | strided_slice | shape | size | rank | zeros(_like)? | ones(_like)? | fill | one_hot | identity
    | stop_gradient | broadcast_to | repeat | range | reverse | roll | clip_by_value | argsort | sort | boolean_mask
    | convert_to_tensor | abs | sqrt | exp | sigmoid | tanh | minimum | maximum | add_n | square | sin | cos | round
    | reduce_\w+ | matmul | tensordot | einsum | norm | compat\.v1\.(transpose|shape|reduce_\w+|pad|gather|expand_dims
    | squeeze|concat|nn\.\w+|math\.\w+|image\.\w+)""",
    re.VERBOSE,
)
"""Functions of TensorFlow that a layer of a Keras 2 file may call: they compute, and touch nothing.

A file may name any, `io.write_file` too, and one that is called with constants runs when the file is loaded.
"""


@dataclass(frozen=True)
class CheckedFile:
    """A file that may be opened.

    Attributes:
        path: of it.
        version: of the Keras that wrote it; "" where it does not say.
        library: that it is to be opened with.
    """

    path: Path
    version: str
    library: Library


def check_keras_file(path: Path, *, allow_code: bool) -> CheckedFile:
    """Looks through a file.

    Args:
        path: a `.keras` archive, or an HDF5 file.
        allow_code: let code inside pass; bombs and damage are refused all the same.

    Raises:
        ArtifactError: if it is damaged, a bomb, holds code or things that are not Keras' own, or weights only.
    """
    h5py = extras.require("h5py")
    try:
        with path.open("rb") as opened:
            start = opened.read(8)
        if not start.strip(b"\0"):
            raise ArtifactError(f"{path} is damaged: it is empty", "copy it again")
        is_archive = zipfile.is_zipfile(path)
        if not is_archive and not h5py.is_hdf5(str(path)):
            what = "its end is missing" if start.startswith(b"PK") else f"it begins with {start!r}"
            raise ArtifactError(f"{path} is damaged, or no Keras file: {what}", "copy it again")
        version, config = _read_archive(path) if is_archive else _read_hdf5(path)
    # What h5py finds broken is OSError and its like.
    except (*UNREADABLE_KERAS, EOFError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ArtifactError(f"{path} is damaged: {reason or type(error).__name__}", "copy it again") from error
    if not allow_code:
        _require_keras_alone(path, config)
    return CheckedFile(path, version, "keras" if version.partition(".")[0] in ("3", "4") else "tf_keras")


def _read_archive(path: Path) -> tuple[str, Any]:
    """Version and description of a `.keras` file, its sizes held against the directory of the archive."""
    with zipfile.ZipFile(path) as archive:
        unpacked = sum(info.file_size for info in archive.infolist())
        _require_small(path, unpacked, path.stat().st_size)
        for needed in ("config.json", "metadata.json", "model.weights.h5"):
            if needed not in archive.namelist():
                raise ArtifactError(f"{path} is damaged, or no Keras file: {needed} is not in it", "save it again")
        if archive.getinfo("config.json").file_size > MAX_CONFIG_BYTES:
            raise ArtifactError(f"{path}: its description has more than {MAX_CONFIG_BYTES:,} bytes", "it is not opened")
        metadata, config = json.loads(archive.read("metadata.json")), json.loads(archive.read("config.json"))
        with archive.open("model.weights.h5") as weights:
            _check_hdf5(path, weights, archive.getinfo("model.weights.h5").file_size)
    return str(metadata.get("keras_version") or ""), config


def _read_hdf5(path: Path) -> tuple[str, Any]:
    with path.open("rb") as opened:
        return _check_hdf5(path, opened, path.stat().st_size)


def _check_hdf5(path: Path, opened: IO[bytes], size: int) -> tuple[str, Any]:
    """Version and description of an HDF5 file, None in a file of weights; what it says of its arrays is checked."""
    h5py = extras.require("h5py")
    sizes: list[int] = []

    # What these return ends the walk; an exception cannot pass through HDF5.
    def outside(name: bytes, info: Any) -> str | None:
        own = info.type in (h5py.h5l.TYPE_HARD, h5py.h5l.TYPE_SOFT)
        return None if own else f"{name.decode(errors='replace')} is a link to another file"

    def elsewhere(name: str, item: Any) -> str | None:
        if not isinstance(item, h5py.Dataset):
            return None
        sizes.append(int(item.nbytes))
        return f"{name} lies in another file" if item.external or item.is_virtual else None

    with h5py.File(opened, "r") as file:
        reason = file.id.links.visit(outside, info=True) or file.visititems(elsewhere)
        if reason:
            raise ArtifactError(f"{path}: {reason}", "it is not opened")
        _require_small(path, sum(sizes), size)
        stored = file.attrs.get("model_config")
        version = file.attrs.get("keras_version", "")
        if stored is None:
            if path.suffix in (".h5", ".hdf5"):
                raise ArtifactError(f"{path} holds weights only, no model", "save the whole model: model.save(...)")
            return _text(version), None
        text = _text(stored)
    if len(text) > MAX_CONFIG_BYTES:
        raise ArtifactError(f"{path}: its description has more than {MAX_CONFIG_BYTES:,} bytes", "it is not opened")
    return _text(version), json.loads(text)


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _require_small(path: Path, unpacked: int, size: int) -> None:
    if unpacked > max(LEAST_BYTES, TIMES_PACKED * size):
        message = f"{path} has {size:,} bytes and unpacks to {unpacked:,}: that is a bomb, not a model"
        raise ArtifactError(message, "it is not opened")


def _require_keras_alone(path: Path, config: Any) -> None:
    """Refuses code, and whatever would be imported from elsewhere, by name."""
    if not all(isinstance(item["class_name"], str) for item in _objects(config)):
        raise ArtifactError(f"{path} is damaged: the name of a class in it is no text", "copy it again")
    code = dict.fromkeys(_code_in(config))
    if code:
        message = f"{path} holds code: {'; '.join(code)}"
        raise ArtifactError(message, "save it without, or pass --allow-code if you trust who made it")
    strangers = dict.fromkeys(_strangers_in(config))
    if strangers:
        message = f"{path} holds what is not Keras' own: {', '.join(strangers)}"
        raise ArtifactError(message, "export it to a SavedModel where its classes are: model.export(folder)")


def _objects(config: Any) -> Iterator[dict[str, Any]]:
    """Every map of the description that names a class; without recursion.

    What the whole model was trained with is left out: it is not loaded. That of a model inside of it is.
    """
    waiting = [{**config, "compile_config": None}] if isinstance(config, dict) else [config]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            if "class_name" in item:
                yield item
            waiting += reversed(item.values())
        elif isinstance(item, list):
            waiting += reversed(item)


def _code_in(config: Any) -> Iterator[str]:
    lambdas = any(item["class_name"] == "Lambda" for item in _objects(config))  # which hold bytecode too
    for item in _objects(config):
        kind, inner = item["class_name"], item.get("config")
        name = inner.get("name") if isinstance(inner, dict) else None
        called = f"{kind} layer {name!r}" if name else str(kind)
        if kind in _CODE:
            yield f"{called}{_CODE[kind]}"
        elif kind == "__lambda__" and not lambdas:
            yield "a function as bytecode"
        elif kind in _TENSORFLOW_CALL and isinstance(inner, dict):
            function = str(inner.get("function") or inner.get("method_name") or "?")
            if kind not in _TENSORFLOW_FUNCTION or not _SAFE_FUNCTION.fullmatch(function):
                yield f"{called} calls tf.{function}"
        elif isinstance(inner, dict) and isinstance(inner.get("vocabulary"), str):
            yield f"{called} reads the file {inner['vocabulary']!r}"


def _strangers_in(config: Any) -> Iterator[str]:
    for item in _objects(config):
        kind, module, registered = item["class_name"], item.get("module"), item.get("registered_name")
        if kind == "function":
            name = str(item.get("config"))
            if module is not None and not _KERAS_FUNCTION.fullmatch(str(module)):
                yield f"the function {name}" + (f" of {module}" if module != "builtins" else "")
        elif module is not None and module != "builtins" and not _KERAS_MODULE.fullmatch(str(module)):
            yield f"{kind} of {module}"
        elif isinstance(registered, str) and ">" in registered and not registered.startswith("Keras>"):
            yield registered
        elif module is None and registered not in (None, kind) and not str(registered).startswith("Keras>"):
            yield str(registered)

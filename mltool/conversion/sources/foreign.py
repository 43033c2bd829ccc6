"""Models that no run trained: a file of somebody else's, or what a function of the user's returns.

Nothing of a file is run in this process. What can be told without loading it is told first; what has to be loaded is
loaded in a child process, with bounds on time and memory. Code inside of a file runs only where the user allows it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from mltool.child import Child, ChildCrashed, ChildTimedOut
from mltool.conversion.sources.float_file import open_float_file
from mltool.conversion.sources.user_models import require_reference
from mltool.errors import ArtifactError, ConversionError, MltoolError, UsageError
from mltool.exporting.export import SIGNATURE
from mltool.inference.predictor import Array, TensorInfo, tensor_info
from mltool.runs.atomic import sha256_of

Kind = Literal["keras", "h5", "saved_model", "tflite", "torch", "jax"]
MadeKind = Literal["torch", "jax"]

OPEN_TIMEOUT_SECONDS = 600.0
"""A model that takes longer to load is taken for a bomb."""

MAKE_TIMEOUT_SECONDS = 1800.0
"""A conversion of PyTorch or JAX that takes longer is taken for hung."""

_SUFFIXES: dict[str, Kind] = {".keras": "keras", ".h5": "h5", ".hdf5": "h5", ".tflite": "tflite"}

_LOADERS = {
    "saved_model": "mltool.conversion.sources.saved_models:open_saved_model",
    "keras": "mltool.conversion.sources.keras_files:open_keras_file",
    "h5": "mltool.conversion.sources.keras_files:open_keras_file",
    "torch": "mltool.conversion.sources.torch_models:make_float_file",
    "jax": "mltool.conversion.sources.jax_models:make_saved_model",
}
"""What the child is asked to call."""


@dataclass(frozen=True)
class Foreign:
    """What is known of a model of somebody else's.

    Attributes:
        name: of its file without the ending, or of the function that made it.
        kind: what it was.
        saved_model: the folder that is converted; None where it is a float file.
        float_file: the float `.tflite` file that is quantized; None where it is a SavedModel. One of the two is there.
        signature: key of the signature.
        inputs: shapes without the first axis, which counts the samples.
        outputs: the same.
        batch: samples of every call, where the model fixes them; None where they are free.
        layers: names, as far as the model tells them, in its order; of a model without names empty.
        sha256: of the file or folder; of a model that a function made, of what came out.
        loaded_by: what loaded or made it, with its version, such as `tf_keras 2.21.0`.
        difference: largest one from the model that it was made of, as a share of its largest output; None where nothing
            had to be made.
    """

    name: str
    kind: Kind
    saved_model: Path | None
    float_file: Path | None
    signature: str
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    batch: int | None
    layers: tuple[str, ...]
    sha256: str
    loaded_by: str = ""
    difference: float | None = None


def kind_of_file(path: Path) -> Kind:
    """What a file or folder is, by its ending or by what the folder holds.

    Raises:
        ArtifactError: if it is missing, or of no kind that can be converted.
    """
    if not path.exists():
        raise ArtifactError(f"{path} is missing", "give a .keras, .h5 or .tflite file, or a SavedModel folder")
    if path.is_dir():
        if (path / "saved_model.pb").is_file():
            return "saved_model"
        found = sorted(folder.parent for folder in path.glob("*/saved_model.pb"))
        hint = f"give {found[-1]}" if found else "a SavedModel is a folder with saved_model.pb in it"
        raise ArtifactError(f"{path} holds no saved_model.pb", hint)
    kind = _SUFFIXES.get(path.suffix.lower())
    if kind is None:
        message = f"{path} is no model that can be converted: its ending is {path.suffix or 'missing'}"
        raise ArtifactError(message, f"give a {', '.join(_SUFFIXES)} file, or a SavedModel folder")
    return kind


def open_foreign(
    path: Path, scratch: Path, *, signature: str | None = None, allow_code: bool = False, child: Child
) -> Foreign:
    """Opens a model file of somebody else's, as something that a converter or quantizer takes.

    Args:
        path: a `.keras`, `.h5` or float `.tflite` file, or a SavedModel folder.
        scratch: a folder for what has to be made of it; must be there, and stay as long as the result is used.
        signature: of several; the only one, else `serving_default`, when left out.
        allow_code: run code that the file holds: Lambda layers, operators that touch files or call Python.
        child: loads it.

    Raises:
        ArtifactError: if it is missing, damaged, unsafe, or of a kind that cannot be read.
        ConversionError: if it is something that no `.tflite` file can be: float64, text, no signature.
        UsageError: if there is no such signature, or it must be chosen.
        MissingExtraError: if what loads it is not installed.
    """
    kind = kind_of_file(path)
    if kind == "tflite":
        return _of_float_file(path, scratch, signature)
    if signature not in (None, SIGNATURE) and kind != "saved_model":
        raise UsageError(f"{path} has no signatures to choose from (got {signature!r})", "leave out --signature")
    arguments = {"signature": signature} if kind == "saved_model" else {}
    found = _ask(
        child,
        kind,
        str(path),
        OPEN_TIMEOUT_SECONDS,
        path=str(path.absolute()),
        made=str(scratch / path.stem),
        allow_code=allow_code,
        **arguments,
    )
    return _described(path.stem, kind, found, sha256_of(path))


def make_foreign(
    kind: MadeKind,
    reference: str,
    scratch: Path,
    *,
    child: Child,
    samples: Mapping[str, Array] | None = None,
    folder: Path | None = None,
) -> Foreign:
    """Makes a model of PyTorch or JAX that a function of the user's returns into what a converter or quantizer takes.

    Args:
        kind: what the function returns a model of.
        reference: of the function, `module:function` or `FILE.py:function`; it is run, without arguments. It returns
            an `nn.Module` in evaluation mode, or a JAX callable, or (callable, parameters); sample inputs may follow.
        scratch: a folder for what is made; must be there.
        child: runs it.
        samples: inputs by name, [samples, ...], as the data have them; where left out, the function must return some.
        folder: that modules are looked for in; the current one when left out.

    Raises:
        UsageError: if there is no such function, it raises, or returns something else.
        ConversionError: if what it returns cannot be converted.
        VerificationError: if what was made does not answer as the model.
        MissingExtraError: if PyTorch, its converter or JAX is not installed.
    """
    if kind not in get_args(MadeKind):
        raise UsageError(f"cannot make a model of {kind!r}", f"one of {', '.join(get_args(MadeKind))}")
    resolved = require_reference(reference, folder or Path.cwd())
    name = reference.rpartition(":")[2]
    arguments = {
        "reference": resolved,
        "folder": str((folder or Path.cwd()).absolute()),
        "made": str(scratch / (f"{name}.tflite" if kind == "torch" else name)),
        "samples": None if samples is None else dict(samples),
    }
    try:
        found = _ask(child, kind, reference, MAKE_TIMEOUT_SECONDS, **arguments)
    except MltoolError as error:  # with the reference as the user wrote it
        shown = (replace(one, message=one.message.replace(resolved, reference)) for one in error.messages)
        raise type(error)(shown) from error
    return _described(name, kind, found, sha256_of(Path(found["file"] or found["folder"])))


def _of_float_file(path: Path, scratch: Path, signature: str | None) -> Foreign:
    """A `.tflite` file is read, never run."""
    found = open_float_file(path, scratch, signature)
    return _described(path.stem, "tflite", found, sha256_of(path))


def _described(name: str, kind: Kind, found: Mapping[str, Any], sha256: str) -> Foreign:
    """The answer of a loader, its tensors checked: every one has an axis that counts the samples."""
    ends = {
        key: tuple(tensor_info(name, end, dtype, shape) for end, (dtype, shape) in found[key].items())
        for key in ("inputs", "outputs")
    }
    if not ends["inputs"]:
        raise ConversionError(f"{name} takes no input", "a model that is converted has one at least")
    sizes = {shape[0] for _, shape in found["inputs"].values()}
    fixed = sorted(size for size in sizes if size is not None and size >= 0)
    return Foreign(
        name=name,
        kind=kind,
        saved_model=Path(found["folder"]) if found["folder"] else None,
        float_file=Path(found["file"]) if found["file"] else None,
        signature=found["signature"],
        inputs=ends["inputs"],
        outputs=ends["outputs"],
        batch=fixed[0] if fixed else None,
        layers=tuple(found["layers"]),
        sha256=sha256,
        loaded_by=found["loaded_by"],
        difference=found.get("difference"),
    )


def _ask(child: Child, kind: Kind, what: str, timeout_seconds: float, **arguments: Any) -> Any:
    """The child's answer; its death is the model's doing."""
    made = kind in get_args(MadeKind)
    error_class: type[MltoolError] = ConversionError if made else ArtifactError
    verb = "converting" if made else "loading"
    try:
        return child.call(_LOADERS[kind], timeout_seconds=timeout_seconds, **arguments)
    except ChildCrashed as error:
        lines = error.output.strip().splitlines()
        hint = f"the last it said: {lines[-1]}" if lines else "it said nothing; is memory short?"
        raise error_class(f"{what}: the process that was {verb} it {error.status}", hint) from error
    except ChildTimedOut as error:
        message = f"{what}: {verb} it took longer than {error.timeout_seconds:g} s"
        raise error_class(message, "it is damaged, or too large for this machine") from error

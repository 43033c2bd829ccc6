"""What `mltool convert` takes of a model that no run trained: which it is, and the options that are for it alone."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mltool.errors import UsageError

MODEL_ENDINGS = (".keras", ".h5", ".hdf5", ".tflite")
ELSEWHERE = {
    **dict.fromkeys(
        (".pt", ".pth", ".safetensors"),
        "write a function that returns the module: mltool convert --from torch nets:make",
    ),
    ".onnx": "give the model that it was exported from: a .keras file, a SavedModel folder, or --from torch",
    ".pb": "give the folder that it lies in, if it is a SavedModel",
}
"""What to do with files of models that are not converted, by their ending."""


def is_model(source: str | None, made_by: str | None) -> bool:
    """Whether what is named is a model, or a function that makes one, and no run.

    Raises:
        UsageError: if it is a model that cannot be converted, or a function of nobody knows what.
    """
    if made_by is not None:
        if made_by not in ("torch", "jax"):
            raise UsageError(f"--from takes torch or jax (got {made_by!r})", "what its function returns a model of")
        if source is None:
            raise UsageError(f"--from {made_by} needs a function", f"mltool convert --from {made_by} my_models:make")
        return True
    if source is None:
        return False
    path = Path(source)
    if path.is_dir():
        # A folder one too high is told where its SavedModel lies.
        found = [*path.glob("saved_model.pb"), *path.glob("*/saved_model.pb")]
        return bool(found) and not (path / "run.json").is_file()
    ending = path.suffix.lower()
    if ending in ELSEWHERE:
        raise UsageError(f"{source} cannot be converted as it is", ELSEWHERE[ending])
    if ":" in source and not path.exists():
        raise UsageError(f"{source} looks like a function, of nobody says what", "--from torch, or --from jax")
    return path.is_file() or ending in MODEL_ENDINGS


def require_fitting(of_models: Mapping[str, Any], *, made_by: str | None) -> None:
    """Options that one kind of model has, and another has not: none is passed over in silence.

    Args:
        of_models: by flag, what was given.
        made_by: what `--from` says.

    Raises:
        UsageError: if one does not fit.
    """
    reasons = {"--signature": "what it returns has one", "--allow-code": "a function is code, and is run anyway"}
    for flag, reason in reasons.items() if made_by is not None else ():
        if of_models[flag]:
            raise UsageError(f"{flag} is for a model file, not for --from {made_by}: {reason}", f"leave {flag} out")
    for flag in ("--input-shape", "--input-range"):
        if of_models["--data"] and of_models[flag]:
            message = f"{flag} is for samples that are made up, and --data brings real ones"
            raise UsageError(message, f"leave {flag} out")


def by_name(flag: str, given: Sequence[str]) -> dict[str, str]:
    """`NAME=VALUE` of a flag that may be repeated.

    Raises:
        UsageError: if a part is missing, or a name comes twice.
    """
    found: dict[str, str] = {}
    for text in given:
        name, _, value = text.partition("=")
        if not name or not value:
            raise UsageError(
                f"{flag} takes NAME=VALUE (got {text!r})", "NAME is that of an input: mltool inspect MODEL"
            )
        if name in found:
            raise UsageError(f"{flag} is given twice for {name!r}", "leave one out")
        found[name] = value
    return found


def shape_of(name: str, text: str) -> list[int]:
    """The shape of one sample: `32,32,3`.

    Raises:
        UsageError: if it is none.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        message = f"--input-shape {name} takes whole numbers above 0 (got {text!r})"
        raise UsageError(message, f"write --input-shape {name}=32,32,3, without the axis of samples")
    return [int(part) for part in parts]


def range_of(name: str, text: str) -> tuple[float, float]:
    """Two numbers, `0,255`.

    Raises:
        UsageError: if they are none, or the first is not the lesser.
    """
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        low = high = float("nan")
    if not float("-inf") < low < high < float("inf"):
        message = f"--input-range {name} takes two numbers, the lesser first (got {text!r})"
        raise UsageError(message, f"write --input-range {name}=0,255")
    return low, high

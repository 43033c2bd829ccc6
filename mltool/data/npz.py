"""Samples in an .npz file: arrays NAME, or NAME_train and NAME_test."""

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mltool.data.source import Array, Source, checked_source, inferred_input_name
from mltool.errors import DataError


def load_npz(path: Path, *, inputs: Mapping[str, str] | None = None, target: str = "y") -> Source:
    """Reads the samples of an .npz file.

    Args:
        path: the file.
        inputs: input name to array name; one array called `x` when None.
        target: name of the targets' array.

    Raises:
        DataError: if the file is missing or damaged, holds pickled objects, or lacks an array.
    """
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            raise ValueError("it holds a single array without a name")
        with loaded as arrays:
            return _read(path, dict(arrays), inputs, target)
    except FileNotFoundError as error:
        raise DataError(f"{path} is not there", "give a path that is, with --set data.source.path=FILE.npz") from error
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path} cannot be read as .npz: {error}", "write it again with numpy.savez") from error


def _read(path: Path, arrays: Mapping[str, Array], inputs: Mapping[str, str] | None, target: str) -> Source:
    targets, given = _joined(path, arrays, target)
    names = inputs or {"": "x"}
    read: dict[str, Array] = {}
    for name, array_name in names.items():
        array, splits = _joined(path, arrays, array_name)
        if splits != given:
            raise DataError(f"{path}: {array_name!r} and {target!r} have different lengths", f"{splits} and {given}")
        read[name or inferred_input_name(array)] = array
    return checked_source(str(path), read, targets, given)


def _joined(path: Path, arrays: Mapping[str, Array], name: str) -> tuple[Array, dict[str, range]]:
    """The array `name`, or its parts one after the other and where each part lies."""
    if name in arrays:
        return np.asarray(arrays[name]), {}
    parts = {split: arrays[f"{name}_{split}"] for split in ("train", "test") if f"{name}_{split}" in arrays}
    if set(parts) != {"train", "test"}:
        wanted = f"{name!r}, or {name}_train and {name}_test"
        raise DataError(f"{path} has no array {wanted}; it has: {', '.join(sorted(arrays)) or 'nothing'}", "name them")
    if parts["train"].ndim == 0 or parts["train"].shape[1:] != parts["test"].shape[1:]:
        message = (
            f"{path}: {name}_train and {name}_test differ in shape: {parts['train'].shape} and {parts['test'].shape}"
        )
        raise DataError(message)
    edge, end = len(parts["train"]), len(parts["train"]) + len(parts["test"])
    return np.concatenate([parts["train"], parts["test"]]), {"train": range(edge), "test": range(edge, end)}

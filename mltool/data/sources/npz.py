"""Samples in an .npz file, or a folder of .npy files: arrays NAME, or NAME_train and NAME_test."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mltool.data.source import Array, Source, checked_source, inferred_input_name, inferred_kind
from mltool.data.sources.joined import joined_sources
from mltool.errors import DataError
from mltool.runs.arrays import UNREADABLE_NPZ, load_arrays, read_npz

SPLITS = ("train", "validation", "test")
"""Endings of arrays that bring their own splits: NAME_train and NAME_test, and NAME_validation where it is there."""


def load_npz(
    paths: Mapping[str, Path], *, inputs: Mapping[str, str] | None = None, target: str = "y", weight: str | None = None
) -> Source:
    """Reads the samples of .npz files, or of folders of .npy files, whose arrays stay on the disk.

    Args:
        paths: the file or folder (key ""), and those of splits that have one of their own.
        inputs: input name to array name; one array called `x` when None.
        target: name of the targets' array.
        weight: name of the array of weights, if there is one.

    Raises:
        DataError: if the file is missing or damaged, holds pickled objects, or lacks an array.
    """
    found = {split: _load_file(path, inputs, target, weight) for split, path in paths.items()}
    return found[""] if len(found) == 1 else joined_sources(found)


def _load_file(path: Path, inputs: Mapping[str, str] | None, target: str, weight: str | None) -> Source:
    return source_of_arrays(str(path), read_arrays(path), inputs, target, weight)


def read_arrays(path: Path) -> dict[str, Array]:
    """The arrays of an .npz, in memory, or of a folder of .npy files, by their names, on the disk.

    Raises:
        DataError: if it is missing or damaged, or holds pickled objects.
    """
    if path.suffix.lower() == ".npy":
        raise DataError(f"{path} is one array", "give the folder that holds x.npy and y.npy, or an .npz")
    try:
        if path.is_dir() and path.suffix.lower() != ".npz":
            return {file.stem: np.asanyarray(load_arrays(file, on_disk=True)) for file in sorted(path.glob("*.npy"))}
        return read_npz(path)
    except FileNotFoundError as error:
        raise DataError(f"{path} is not there", "give a path that is, with --set data.source.path=FILE.npz") from error
    except UNREADABLE_NPZ as error:
        raise DataError(f"{path} cannot be read as .npz: {error}", "write it again with numpy.savez") from error


def source_of_arrays(
    origin: str, arrays: Mapping[str, Array], inputs: Mapping[str, str] | None, target: str, weight: str | None
) -> Source:
    """A source of arrays by name; see `load_npz`.

    Args:
        origin: where they came from, for messages.
        arrays: `x` and `y`, or their parts.
        inputs: see `load_npz`.
        target: see `load_npz`.
        weight: see `load_npz`.

    Raises:
        DataError: if one is missing, or they do not fit together.
    """
    targets, given = _joined(origin, arrays, target)
    names = inputs or {"": "x"}
    read: dict[str, Array] = {}
    for name, array_name in names.items():
        array, splits = _joined(origin, arrays, array_name)
        if splits != given:
            raise DataError(f"{origin}: {array_name!r} and {target!r} have different lengths", f"{splits} and {given}")
        read[name or inferred_input_name(array)] = array
    weights = _joined(origin, arrays, weight)[0].astype(np.float32) if weight else None
    kinds = {name: inferred_kind(array) for name, array in read.items()}
    return checked_source(origin, read, targets, given, kinds=kinds, weights=weights, target_name=target)


def _joined(origin: str, arrays: Mapping[str, Array], name: str) -> tuple[Array, dict[str, range]]:
    """The array `name`, or its parts one after the other and where each part lies."""
    if name in arrays:
        return arrays[name], {}
    parts = {split: arrays[f"{name}_{split}"] for split in SPLITS if f"{name}_{split}" in arrays}
    if not {"train", "test"} <= set(parts):
        wanted = f"{name!r}, or {name}_train and {name}_test"
        raise DataError(
            f"{origin} has no array {wanted}; it has: {', '.join(sorted(arrays)) or 'nothing'}", "name them"
        )
    for split, array in parts.items():
        if array.ndim == 0 or parts["train"].shape[1:] != array.shape[1:]:
            message = (
                f"{origin}: {name}_train and {name}_{split} differ in shape: {parts['train'].shape} and {array.shape}"
            )
            raise DataError(message)
    edges = np.cumsum([0, *(len(array) for array in parts.values())]).tolist()
    given = {split: range(edges[i], edges[i + 1]) for i, split in enumerate(parts)}
    return np.concatenate(list(parts.values())), given

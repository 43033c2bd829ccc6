"""Samples in an .npz file, or a folder of .npy files: arrays NAME, or NAME_train and NAME_test."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mltool.data.source import Array, Source, checked_source, inferred_input_name, inferred_kind
from mltool.data.sources.files import SPLIT_FOLDERS
from mltool.data.sources.joined import joined_sources
from mltool.errors import DataError
from mltool.runs.arrays import UNREADABLE_NPZ, load_arrays, read_npz, together

logger = logging.getLogger("mltool")

ONE_TARGET: Mapping[str, str] = {"": "y"}
"""The array of the only output's targets, where none is named."""

SPLITS = ("train", "validation", "test")
"""In the order in which their arrays are joined: NAME_train and NAME_test, and NAME_validation where it is there."""

SPLIT_WORDS = {word: split for word, split in SPLIT_FOLDERS.items() if word not in ("training", "testing")}
"""Endings of arrays, as they are also written, and the split that they bring."""


def load_npz(
    paths: Mapping[str, Path],
    *,
    inputs: Mapping[str, str] | None = None,
    targets: Mapping[str, str] = ONE_TARGET,
    weight: str | None = None,
) -> Source:
    """Reads the samples of .npz files, or of folders of .npy files, whose arrays stay on the disk.

    Args:
        paths: the file or folder (key ""), and those of splits that have one of their own.
        inputs: input name to array name; one array called `x` when None.
        targets: output to the name of its targets' array; the key of the only output is "".
        weight: name of the array of weights, if there is one.

    Raises:
        DataError: if the file is missing or damaged, holds pickled objects, or lacks an array.
    """
    found = {split: _load_file(path, inputs, targets, weight) for split, path in paths.items()}
    return found[""] if len(found) == 1 else joined_sources(found)


def _load_file(path: Path, inputs: Mapping[str, str] | None, targets: Mapping[str, str], weight: str | None) -> Source:
    return source_of_arrays(str(path), read_arrays(path), inputs, targets, weight)


def read_arrays(path: Path) -> dict[str, Array]:
    """The arrays of an .npz, in memory, or of a folder of .npy files, by their names, on the disk.

    Raises:
        DataError: if it is missing or damaged, or holds pickled objects.
    """
    if path.suffix.lower() == ".npy":
        raise DataError(f"{path} is one array", "give the folder that holds x.npy and y.npy, or an .npz")
    if path.is_dir() and path.suffix.lower() != ".npz":
        return {file.stem: _read_array(file) for file in sorted(path.glob("*.npy"))}
    try:
        return read_npz(path)
    except FileNotFoundError as error:
        raise DataError(f"{path} is not there", "give a path that is, with --set data.source.path=FILE.npz") from error
    except UNREADABLE_NPZ as error:
        raise DataError(f"{path} cannot be read as .npz: {error}", "write it again with numpy.savez") from error


def _read_array(file: Path) -> Array:
    try:
        return np.asanyarray(load_arrays(file, on_disk=True))
    except UNREADABLE_NPZ as error:
        raise DataError(f"{file} cannot be read as .npy: {error}", "write it again with numpy.save") from error


def source_of_arrays(
    origin: str,
    arrays: Mapping[str, Array],
    inputs: Mapping[str, str] | None,
    targets: Mapping[str, str],
    weight: str | None,
) -> Source:
    """A source of arrays by name; see `load_npz`.

    Args:
        origin: where they came from, for messages.
        arrays: `x` and `y`, or their parts.
        inputs: see `load_npz`.
        targets: see `load_npz`.
        weight: see `load_npz`.

    Raises:
        DataError: if one is missing, or they do not fit together.
    """
    target = next(iter(targets.values()))
    first, given = _joined(origin, arrays, target)
    names = inputs or {"": "x"}

    def beside(name: str) -> Array:
        array, splits = _joined(origin, arrays, name)
        if splits != given:
            shown = f"{name!r}: {_lengths(array, splits)}; {target!r}: {_lengths(first, given)}"
            raise DataError(f"{origin}: {name!r} and {target!r} have different lengths", shown)
        return array

    read: dict[str, Array] = {}
    for name, array_name in names.items():
        array = beside(array_name)
        read[name or inferred_input_name(array)] = array
    weights = beside(weight) if weight else None
    found = {output: first if name == target else beside(name) for output, name in targets.items()}
    for output, array in found.items():
        if array.ndim and first.ndim and len(array) != len(first):
            message = f"{origin}: {targets[output]!r} has {len(array)} samples, {target!r} has {len(first)}"
            raise DataError(message, "give all targets of the same samples")
    taken = (*targets.values(), *names.values(), *([weight] if weight else []))
    used = {_part(arrays, name, split) for name in taken for split in (given or [""])}
    unused = [name for name in arrays if name not in used]
    if unused:
        logger.info("%s: arrays that nothing takes: %s (data.inputs)", origin, ", ".join(unused))
    kinds = {name: inferred_kind(array) for name, array in read.items()}
    return checked_source(
        origin,
        read,
        together(found),
        given,
        kinds=kinds,
        weights=weights,
        names=_PartNames([(_part(arrays, target, split), place) for split, place in given.items()]),
        target_name=" and ".join(targets.values()),
    )


def _part(arrays: Mapping[str, Array], name: str, split: str) -> str:
    """What the part of an array for a split is called; the array itself for the split ""."""
    if not split:
        return name
    words = (word for word, other in SPLIT_WORDS.items() if other == split)
    return next(f"{name}_{word}" for word in words if f"{name}_{word}" in arrays)


def _lengths(array: Array, splits: Mapping[str, range]) -> str:
    return ", ".join(f"{len(place)} {split}" for split, place in splits.items()) or f"shape {array.shape}"


class _PartNames(Sequence[str]):
    """What samples of arrays in parts are called: `y_test[3]`; none where there are no parts."""

    def __init__(self, parts: Sequence[tuple[str, range]]) -> None:
        self._parts = parts

    def __len__(self) -> int:
        return sum(len(place) for _, place in self._parts)

    def __getitem__(self, position: Any) -> Any:
        """A name, or those of a slice."""
        if isinstance(position, slice):
            return [self[index] for index in range(*position.indices(len(self)))]
        place_of = range(len(self))[position]
        name, place = next(part for part in self._parts if place_of < part[1].stop)
        return f"{name}[{place_of - place.start}]"


def _joined(origin: str, arrays: Mapping[str, Array], name: str) -> tuple[Array, dict[str, range]]:
    """The array `name`, or its parts one after the other and where each part lies."""
    found = [(word, split) for word, split in SPLIT_WORDS.items() if f"{name}_{word}" in arrays]
    splits = [split for _, split in found]
    is_whole, is_parted = name in arrays, {"train", "test"} <= set(splits)
    if is_parted and (is_whole or len(set(splits)) < len(splits)):
        both = [name] * is_whole + [f"{name}_{word}" for word, _ in found]
        raise DataError(f"{origin} has {', '.join(both)}: which of them count?", "take one way of naming them")
    if is_whole:
        return arrays[name], {}
    parts = {split: arrays[f"{name}_{word}"] for word, split in sorted(found, key=lambda item: SPLITS.index(item[1]))}
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

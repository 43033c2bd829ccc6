"""Room for arrays with an entry a sample: in memory, or in a file without a name where samples are too many for it.

A table of millions of rows is read in pieces; what is known of each row (hash, class, split) would outgrow memory long
before its pieces do. It lies in files whose pages are given back as soon as they were used.
"""

import mmap
import os
import tempfile
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from mltool.errors import MachineError

if TYPE_CHECKING:
    from mltool.data.source import Array, ArrayLike

AT_ONCE = 2**18
"""Entries that are worked on at once."""


def is_on_disk(array: "ArrayLike") -> bool:
    """Whether an array lies in a file, or is made of one when it is asked for."""
    return type(array) is not np.ndarray


def room_for(shape: tuple[int, ...], dtype: Any, *, on_disk: bool) -> "Array":
    """A new array, without defined contents in memory, of zeros on the disk."""
    kind = np.dtype(dtype)
    if not on_disk or 0 in shape:
        return np.empty(shape, kind)
    return temporary_array(shape, kind, Path(tempfile.gettempdir()), "samples")


def slices_of(count: int, size: int = AT_ONCE) -> Iterator[slice]:
    """Slices that cover `count` entries."""
    return (slice(start, min(start + size, count)) for start in range(0, count, size))


def taken_from(array: "Array", positions: "Array") -> "Array":
    """Entries at some positions; where the array lies on the disk, so do they."""
    if not is_on_disk(array):
        return array[positions]
    found = room_for((len(positions), *array.shape[1:]), array.dtype, on_disk=True)
    for part in slices_of(len(positions)):
        found[part] = array[positions[part]]
        let_go(array, positions, found)
    return found


def positions_of(mask: "Array", *, on_disk: bool, dtype: Any = np.int64) -> "Array":
    """Ascending, as int64 or another type: where a mask is true."""
    if not on_disk:
        return np.flatnonzero(mask).astype(dtype, copy=False)
    found = room_for((int(np.count_nonzero(mask)),), dtype, on_disk=True)
    filled = 0
    for part in slices_of(len(mask)):
        here = np.flatnonzero(mask[part]) + part.start
        found[filled : filled + len(here)] = here
        filled += len(here)
        let_go(found)
    return found


PARTS = 16
"""Numbers are sorted in so many parts, by their last bits: sorting all at once takes several times their memory."""


def with_last_bits(values: "Array", bits: int) -> "Array":
    """Of integers those of one of `PARTS` parts."""
    parts = [values[:0]]
    for part in slices_of(len(values)):
        here = values[part]
        parts.append(here[here % here.dtype.type(PARTS) == bits])
        let_go(values)
    return np.concatenate(parts)


def as_index(positions: "Sequence[int] | Array") -> "slice | Array":
    """Positions as what indexes an array; a range needs no list of them."""
    if isinstance(positions, range):
        return slice(positions.start, positions.stop, positions.step)
    return np.asarray(positions, np.int64)


def spread(positions: "Array", most: int) -> "Array":
    """At most so many of the positions, evenly over all."""
    if len(positions) <= most:
        return positions
    return positions[np.linspace(0, len(positions) - 1, most).astype(np.int64)]


def let_go(*arrays: Any) -> None:
    """Gives back the memory that holds pages of arrays on the disk; what was written stays written.

    Args:
        arrays: of numpy, or inputs of ours whose `stored_in` names what they are made of.
    """
    for file in {id(file): file for array in arrays for file in _files_of(array)}.values():
        # Linux and macOS have it; Windows gives pages back by itself.
        if hasattr(mmap, "MADV_DONTNEED"):
            file.madvise(mmap.MADV_DONTNEED)


def _files_of(array: Any) -> Iterator[mmap.mmap]:
    while isinstance(array, np.ndarray):
        array = array.base
    if isinstance(array, mmap.mmap):
        yield array
    for part in getattr(array, "stored_in", ()):
        yield from _files_of(part)


def temporary_array(shape: tuple[int, ...], dtype: np.dtype[Any], folder: Path, what: str) -> "Array":
    """An array in a file without a name: its room is given back with the array, even when the process is killed.

    Args:
        shape: of the array.
        dtype: of the array.
        folder: that the file lies in.
        what: it holds, for messages.

    Raises:
        MachineError: if the disk is full.
    """
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    file = tempfile.TemporaryFile(dir=folder, prefix="mltool-", suffix=".cache")  # noqa: SIM115  see `_open_files`
    try:
        file.truncate(size)
        # Now, not when a sample is written: that would be a SIGBUS. Linux has it, macOS and Windows have not.
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
    except OSError as error:
        file.close()
        message = f"{what} cannot be kept in {folder}: {error.strerror}"
        raise MachineError(message, "set TMPDIR to a larger disk, or data.cache: none") from error
    array = np.memmap(file, dtype=dtype, mode="r+", shape=shape)
    _open_files[next(_files_of(array))] = file
    return array


def descriptor_of(mapping: mmap.mmap) -> int | None:
    """What the file of a temporary array is read with; None of other mappings."""
    file = _open_files.get(mapping)
    return None if file is None else file.fileno()


_open_files: weakref.WeakKeyDictionary[mmap.mmap, IO[bytes]] = weakref.WeakKeyDictionary()
"""Of temporary arrays, as long as these are there."""

"""Decodes the files of a source once, and keeps the samples in memory or in a temporary file."""

import logging
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from mltool.data.memory import free_memory_bytes
from mltool.data.scratch import let_go, temporary_array
from mltool.data.select import taken
from mltool.data.source import Array, ArrayLike, Skipped, Source, Subset, first_of
from mltool.errors import DataError, MachineError

logger = logging.getLogger("mltool")

MEMORY_SHARE = 0.4
"""Decoded samples may take this share of the free memory: training holds a copy of them."""

SHOWN = 10
"""Unreadable files that a message names; all of them stand in the scan."""


_AT_ONCE, _AT_ONCE_BYTES = 128, 1 << 23
"""Files of one task, and bytes of their samples: a task for each costs a quarter of the time of decoding a small image
(measured)."""


_READ_BYTES = 1 << 28
"""Of the samples that are decoded before the next ones are asked for."""


class UnreadableError(Exception):
    """A file that cannot be decoded; the text is the reason."""


DecodeMany = Callable[[Sequence[int], Array], dict[int, str]]
"""From positions of files, and room for their samples, to the reasons why some of them cannot be read."""


def one_by_one(decode: Callable[[int], Array]) -> DecodeMany:
    """Files that each are decoded alone.

    Args:
        decode: from a position to a sample; raises `UnreadableError` or OSError.
    """

    def decode_many(positions: Sequence[int], out: Array) -> dict[int, str]:
        def read(row: int) -> None:
            out[row] = decode(positions[row])

        return unreadable(read, positions, range(len(positions)))

    return decode_many


def unreadable(read: Callable[[int], None], positions: Sequence[int], rows: Iterable[int]) -> dict[int, str]:
    """Positions of the rows that cannot be read, with the reasons; `read` raises `UnreadableError` or OSError."""
    bad: dict[int, str] = {}
    for row in rows:
        try:
            read(row)
        except (UnreadableError, OSError) as error:
            bad[positions[row]] = str(error)
    return bad


class FileArray:
    """Files that are decoded when they are asked for.

    Args:
        count: of the files.
        decode_many: them, a few at once, in any thread.
        sample_shape: of every sample.
        dtype: of every sample.
        names: of the files, for messages.
    """

    def __init__(
        self,
        count: int,
        decode_many: DecodeMany,
        sample_shape: tuple[int, ...],
        dtype: Any,
        names: Sequence[str],
    ) -> None:
        self.shape = (count, *sample_shape)
        self.dtype = np.dtype(dtype)
        self._sample_bytes = int(np.prod(sample_shape, dtype=np.int64)) * self.dtype.itemsize
        self._decode_many = decode_many
        self._names = names

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, positions: Any) -> Array:
        """Decodes in threads: the decoders let go of the interpreter's lock.

        Raises:
            DataError: naming the first file that cannot be read.
        """
        if isinstance(positions, int | np.integer):
            return self[np.asarray([positions])][0]  # type: ignore[no-any-return]
        wanted = np.arange(len(self))[positions]
        samples, bad = self.read_all(wanted.tolist())
        if bad:
            position, reason = next(iter(bad.items()))
            raise DataError(f"{self._names[position]} cannot be read: {reason}", "mend it, or take it away")
        return samples

    def read_all(self, positions: Sequence[int], out: Array | None = None) -> tuple[Array, dict[int, str]]:
        """Samples at some positions, and why some of them could not be read.

        Args:
            positions: of the files.
            out: where to put the samples; new memory when left out.
        """
        samples = np.empty((len(positions), *self.shape[1:]), self.dtype) if out is None else out
        bad: dict[int, str] = {}

        workers = os.cpu_count() or 1
        size = max(1, min(_AT_ONCE, _AT_ONCE_BYTES // self._sample_bytes, len(positions) // (2 * workers)))

        def read(first: int) -> None:
            bad.update(self._decode_many(positions[first : first + size], samples[first : first + size]))

        with ThreadPoolExecutor(max_workers=workers) as pool:
            for _ in pool.map(read, range(0, len(positions), size)):
                pass
        return samples, dict(sorted(bad.items()))


def keep_decoded(source: Source, cache: Literal["auto", "memory", "disk", "none"], *, max_skipped: int) -> Source:
    """The source with its files decoded, and without those that cannot be read.

    Args:
        source: of files, or of arrays, which stay as they are.
        cache: where decoded samples are kept; `auto`: in memory where they fit, else in a temporary file.
        max_skipped: unreadable files that are left out; more fail.

    Raises:
        DataError: naming the files that cannot be read, if they are more than `max_skipped`.
        MachineError: if neither memory nor disk can hold the samples.
    """
    inputs: dict[str, ArrayLike] = {}
    bad: dict[int, str] = {}
    for name, array in source.inputs.items():
        files, positions = _files_of(array)
        if files is None:
            inputs[name] = array
            continue
        store = _storage(files, len(positions), cache)
        found = _decode_all(files, positions, store)
        index_of = {int(position): index for index, position in enumerate(positions)}
        bad |= {index_of[position]: reason for position, reason in found.items()}
        inputs[name] = array if store is None else store
    skipped = [Skipped(source.name_of(index), reason) for index, reason in sorted(bad.items())]
    if len(skipped) > max_skipped:
        raise _unreadable(skipped, max_skipped)
    source = replace(source, inputs=inputs)
    if not skipped:
        return source
    logger.info("%d files could not be read and are left out (mltool check --data names them)", len(skipped))
    whole = np.setdiff1d(np.arange(source.num_samples), list(bad))
    return replace(taken(source, whole), skipped=skipped)


def _unreadable(skipped: Sequence[Skipped], max_skipped: int) -> DataError:
    what = "file cannot" if len(skipped) == 1 else "files cannot"
    allowed = f", {max_skipped} may be skipped" if max_skipped else ""
    return DataError(
        f"{len(skipped)} {what} be read{allowed}: {listed(skipped)}",
        "mend them, take them away, or "
        + ("raise data.source.max_skipped" if allowed else "set data.source.on_error: skip"),
    )


def listed(skipped: Sequence[Skipped]) -> str:
    """The first files with their reasons, and how many more there are."""
    return first_of([f"{item.name}: {item.reason}" for item in skipped[:SHOWN]], SHOWN, len(skipped))


def _files_of(array: ArrayLike) -> tuple[FileArray | None, Array]:
    """The files below an input, and which of them it takes."""
    if isinstance(array, FileArray):
        return array, np.arange(len(array))
    if isinstance(array, Subset) and isinstance(array.base, FileArray):
        return array.base, array.positions
    return None, np.empty(0, np.int64)


def _decode_all(files: FileArray, positions: Array, store: Array | None) -> dict[int, str]:
    """Decodes every file once, also where none is kept: what is damaged must not show after an hour of training."""
    bad: dict[int, str] = {}
    size = max(1, min(4096, _READ_BYTES // max(1, files.dtype.itemsize * math.prod(files.shape[1:]))))
    for start in range(0, len(positions), size):
        part = positions[start : start + size].tolist()
        bad |= files.read_all(part, None if store is None else store[start : start + size])[1]
        if store is not None:
            let_go(store)
    return bad


def _storage(files: FileArray, count: int, cache: str) -> Array | None:
    """Where the decoded samples go; None to decode them anew every time."""
    if cache == "none":
        return None
    shape = (count, *files.shape[1:])
    size = int(np.prod(shape, dtype=np.int64)) * files.dtype.itemsize
    free = free_memory_bytes()
    if cache == "memory" or (cache == "auto" and size <= MEMORY_SHARE * free):
        if size > free:
            raise MachineError(
                f"decoded samples take {size:,} bytes of memory, {free:,} are free", "set data.cache: disk"
            )
        return np.empty(shape, files.dtype)
    folder = Path(tempfile.gettempdir())
    if size > shutil.disk_usage(folder).free:
        message = f"decoded samples take {size:,} bytes, neither memory ({free:,}) nor {folder} has room for them"
        if cache == "disk":
            raise MachineError(message, "set TMPDIR to a larger disk, or data.cache: none")
        logger.warning("%s: they are decoded anew in every epoch", message)
        return None
    if cache == "auto":
        logger.warning("decoded samples take %s bytes, more than memory has room for: kept in %s", f"{size:,}", folder)
    return temporary_array(shape, files.dtype, folder, "decoded samples")

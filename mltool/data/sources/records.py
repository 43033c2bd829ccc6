"""The records of TFRecord files: where each one lies, proven by its checksums, and its bytes."""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mltool import extras
from mltool.data.cache import listed
from mltool.data.source import Array, Skipped
from mltool.data.sources.files import printable
from mltool.errors import DataError
from mltool.spec.features import RECORD_NAME

_HEADER = 12
_AROUND = 16
"""Bytes before and around the data of a record: its length and the checksum of that, and the checksum of the data
(tensorflow/core/lib/io/record_writer.h)."""

_GZIP, _ZLIB = b"\x1f\x8b", (b"\x78\x01", b"\x78\x9c", b"\x78\xda")

AT_ONCE = 1024
"""Records that are parsed at once."""


@dataclass(frozen=True)
class Records:
    """Records of files, in the order of the files.

    Attributes:
        paths: of the files.
        files: [records] which file each lies in.
        offsets: int64 [records], of the data in it.
        lengths: int64 [records], of the data in bytes.
        names: of the records, for messages; the first of a file is number 0.
        given: positions by split, where the splits have files of their own.
    """

    paths: Sequence[Path]
    files: Array
    offsets: Array
    lengths: Array
    names: Sequence[str]
    given: Mapping[str, Array]

    def __len__(self) -> int:
        return len(self.offsets)

    def read(self, positions: Sequence[int]) -> list[bytes]:
        """The data of some records, in the order of the positions.

        Raises:
            DataError: if a file is gone or shorter than it was.
        """
        found = [b""] * len(positions)
        rows = np.asarray(positions, dtype=np.int64)
        for number in np.unique(self.files[rows]).tolist():
            path = self.paths[number]
            try:
                with path.open("rb", buffering=0) as file:
                    for row in np.flatnonzero(self.files[rows] == number).tolist():
                        place, length = int(self.offsets[rows[row]]), int(self.lengths[rows[row]])
                        found[row] = os.pread(file.fileno(), length, place)
                        if len(found[row]) != length:
                            raise DataError(f"{path} got shorter while it was read", "restore it")
            except OSError as error:
                raise DataError(f"{path} cannot be read: {error.strerror}", "restore it") from error
        return found


def find_records(paths: Mapping[str, Path]) -> Records:
    """Reads files once from end to end, checks every record against its checksums, and remembers where it lies.

    Args:
        paths: a file, or a folder of them (key ""), and those of splits that have one of their own.

    Raises:
        DataError: naming the records that are damaged or cut off, or if a file is compressed or there is no record.
    """
    splits = {split: record_files(path) for split, path in paths.items()}
    files = [file for found in splits.values() for file in found]
    bad: list[Skipped] = []
    places = [np.asarray(list(_places(file, bad)), dtype=np.int64).reshape(-1, 2) for file in files]
    if bad:
        what = "record is" if len(bad) == 1 else "records are"
        raise DataError(f"{len(bad)} {what} damaged: {listed(bad)}", "copy the file again, or write it again")
    counts = [len(found) for found in places]
    sizes = [sum(counts[files.index(file)] for file in found) for found in splits.values()]
    for path, size in zip(paths.values(), sizes, strict=True):
        if not size:
            raise DataError(f"{path} holds no records", "write it again")
    edges = np.cumsum([0, *sizes]).tolist()
    given = {split or "train": np.arange(edges[i], edges[i + 1]) for i, split in enumerate(splits)}
    every = np.concatenate(places)
    return Records(
        paths=files,
        files=np.repeat(np.arange(len(files)), counts),
        offsets=every[:, 0],
        lengths=every[:, 1],
        names=[f"{printable(str(file))} record {i}" for file, n in zip(files, counts, strict=True) for i in range(n)],
        given=given if len(splits) > 1 else {},
    )


def record_files(path: Path) -> list[Path]:
    """The file, or the files of a folder, in alphabetical order.

    Raises:
        DataError: if there is none, or one is compressed or no plain file.
    """
    files = sorted(file for file in path.iterdir() if RECORD_NAME.search(file.name)) if path.is_dir() else [path]
    if not files:
        raise DataError(f"{path} holds no .tfrecord files", "name a file, or a folder that holds them")
    for file in files:
        shown = printable(str(file))
        if not file.is_file():
            raise DataError(f"{shown} is no plain file", "take it away")
        try:
            with file.open("rb") as opened:
                start = opened.read(2)
        except OSError as error:
            raise DataError(f"{shown} cannot be read: {error.strerror}", "give it read permission") from error
        # A length of a record that begins with these two bytes is followed by zeros; a compressed file is not.
        if file.suffix.lower() == ".gz" or (start in (_GZIP, *_ZLIB) and not _is_length(file)):
            raise DataError(f"{shown} is compressed, and has no record that can be jumped to", "unpack it: gunzip FILE")
    return files


def _is_length(file: Path) -> bool:
    """Whether a file begins with a length that fits into it."""
    with file.open("rb") as opened:
        return int.from_bytes(opened.read(8), "little") + _AROUND <= file.stat().st_size


def _places(file: Path, bad: list[Skipped]) -> Iterator[tuple[int, int]]:
    """Offset and length of the data of every record; the damaged ones go to `bad`."""
    for number, (_, offset, length, reason) in enumerate(_walk(file)):
        if reason:
            bad.append(Skipped(f"{printable(str(file))} record {number}", reason))
        yield offset, length


def first_records(file: Path, count: int) -> list[bytes]:
    """The data of the first records that are whole."""
    found: list[bytes] = []
    for data, _, _, reason in _walk(file):
        if not reason:
            found.append(data)
        if len(found) == count:
            break
    return found


def _walk(file: Path) -> Iterator[tuple[bytes, int, int, str]]:
    """Data, offset and length of the data, and what is wrong, of every record, by TensorFlow's own reader."""
    tensorflow = extras.tensorflow()
    # The one reader of TensorFlow that goes on after a damaged record; a test holds it to that.
    reader: Any = extras.require("tensorflow.python.lib.io.tf_record").tf_record_random_reader(str(file))
    size, offset = file.stat().st_size, 0
    with file.open("rb") as opened:
        while offset < size:
            try:
                data, after = reader.read(offset)
                yield data, offset + _HEADER, len(data), ""
            except (IndexError, tensorflow.errors.DataLossError) as error:
                opened.seek(offset)
                length = int.from_bytes(opened.read(8), "little")
                after = offset + length + _AROUND
                # The reader names the place whose checksum is wrong: that of the record is that of its length.
                if after > size or re.search(rf"corrupted record at {offset}\b", str(error)):
                    reason = "it is cut off, or its length is damaged: what follows cannot be found"
                    yield b"", offset + _HEADER, 0, reason
                    return
                yield b"", offset + _HEADER, length, "its checksum is wrong"
            offset = after

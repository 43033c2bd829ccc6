"""Where the rows of a table stand in its file, for messages: read anew when something is to be told, not before."""

import csv
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from mltool.data.source import Array

_HUGE = 2**31 - 1


class Rows:
    """The rows of a file, as an editor counts lines: quoted line ends and blank lines move those below.

    Args:
        path: of the file.
        separator: between its fields; None for a file without lines (Parquet), whose first row is row 1.
        count: of its rows; a file with as many lines needs no second look.
    """

    def __init__(self, path: Path, separator: str | None, count: int = 0) -> None:
        self._path, self.separator, self._count = path, separator, count

    def line(self, position: int) -> int:
        """The line at which a row begins; the first below a header of one line is 2."""
        if self.separator is None:
            return position + 1
        return position + 2 if self._lines is None else int(self._lines[position])

    @cached_property
    def _lines(self) -> Array | None:
        """The line of every row; None where each has one line."""
        ends, last = 0, b""
        with self._path.open("rb") as file:
            while block := file.read(2**24):
                ends, last = ends + block.count(b"\n"), block[-1:]
        if ends + (last != b"\n") == self._count + 1:
            return None
        return np.fromiter((line for line, _ in self.records()), np.int64)[1:]

    def records(self) -> Iterator[tuple[int, list[str]]]:
        """Every record with the line that it begins at, the header first; bytes that are no UTF-8 are surrogates."""
        with _any_length(), self._path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            reader = csv.reader(file, delimiter=self.separator or ",")
            begin = 1
            for record in reader:
                if record:  # a blank line is no record
                    yield begin, record
                begin = reader.line_num + 1

    def first_ragged(self) -> tuple[int, int, int] | None:
        """Line, number of fields, and fields of the header, of the first row that has another number of fields."""
        wanted = 0
        for line, record in self.records():
            wanted = wanted or len(record)
            if len(record) != wanted:
                return line, len(record), wanted
        return None

    def first_undecodable(self) -> tuple[int, str] | None:
        """Line and column of the first field that is no UTF-8; the column is its number where the header is damaged."""
        header: list[str] = []
        for line, record in self.records():
            header = header or record
            for index, cell in enumerate(record):
                if not is_text(cell):
                    named = index < len(header) and is_text(header[index])
                    return line, repr(header[index]) if named else f"column {index + 1}"
        return None


class RowNames(Sequence[str]):
    """What rows are called in messages.

    Args:
        file: that they stand in.
        rows: of it.
        count: how many there are.
    """

    def __init__(self, file: str, rows: Rows, count: int) -> None:
        self._file, self._rows, self._count = file, rows, count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, position: Any) -> Any:
        """The name of a row, or of those of a slice."""
        if isinstance(position, slice):
            return [self[index] for index in range(*position.indices(self._count))]
        return f"{self._file} row {self._rows.line(int(position))}"

    def __iter__(self) -> Iterator[str]:
        return (self[index] for index in range(self._count))


def is_text(cell: str) -> bool:
    """Whether a field was UTF-8, by what `Rows.records` gives."""
    return not any("\ud800" <= character <= "\udfff" for character in cell)


@contextmanager
def _any_length() -> Iterator[None]:
    """Python's csv refuses fields of more than 128 KiB, unless it is told otherwise, for the whole process."""
    before = csv.field_size_limit(_HUGE)
    try:
        yield
    finally:
        csv.field_size_limit(before)

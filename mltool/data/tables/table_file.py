"""The cells of a table file, CSV, TSV or Parquet, by column: numbers with NaN, or text with ""."""

import difflib
import logging
import mmap
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from mltool import extras
from mltool.data.scratch import let_go
from mltool.data.source import Array
from mltool.data.sources.text import MAX_TEXT_BYTES
from mltool.data.tables.arrow_file import kept_on_disk
from mltool.data.tables.columns import WHOLE, ColumnKind, as_texts, is_number
from mltool.data.tables.rows import Rows
from mltool.data.tables.text_table import first_line, read_text_table
from mltool.errors import DataError

logger = logging.getLogger("mltool")


class Columns(Mapping[str, Array]):
    """The columns of a file by name: text with "" where missing, or numbers with NaN.

    They are made when they are asked for, and not kept: numpy holds a text in 4 bytes a character of the longest.

    Args:
        path: of the file, for messages.
        arrow: Arrow's columns, whose pieces end at the same rows.
        missing: markers of missing values.
        file: the memory map that Arrow's columns lie in; None where they are in memory.
    """

    def __init__(
        self, path: Path, arrow: Mapping[str, Any], missing: Sequence[str], file: mmap.mmap | None = None
    ) -> None:
        self._path, self._arrow, self._missing = path, arrow, set(missing)
        self.stored_in = () if file is None else (file,)

    @property
    def on_disk(self) -> bool:
        """Whether the cells are read from the disk when they are asked for."""
        return bool(self.stored_in)

    def __getitem__(self, name: str) -> Array:
        """The cells of a column."""
        return _cells(self._path, name, self._arrow[name], self._missing)

    def __contains__(self, name: object) -> bool:
        return name in self._arrow  # `Mapping` would make the cells to see that they are there

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrow)

    def __len__(self) -> int:
        return len(self._arrow)

    def values_of(self, name: str, kind: ColumnKind | None = None) -> Array:
        """The cells of a column, as numbers where all of them are: float64 that float32 holds, with NaN.

        Args:
            name: of the column.
            kind: where it is known: words are left as they are written, because 007 is none but 7 a number.
        """
        return self._values_of(self._arrow[name], name, kind, may_be_empty=False)

    def _values_of(self, column: Any, name: str, kind: ColumnKind | None, *, may_be_empty: bool) -> Array:
        numbers = None
        if kind in (None, "number"):
            numbers = _numbers_of(column, self._missing, may_be_empty=may_be_empty)
        return _cells(self._path, name, column, self._missing) if numbers is None else numbers

    def pieces_of(self, name: str, kind: ColumnKind | None = None) -> Iterator[Array]:
        """The same, a piece after the other where they are on the disk: all are numbers, or all text, or as `kind`."""
        if not self.on_disk:
            yield self.values_of(name, kind)
            return
        pa = extras.require("pyarrow")
        pieces = [pa.chunked_array([chunk]) for chunk in self._arrow[name].chunks if len(chunk)]
        if kind is None:
            kind = "number" if all(_are_numbers(piece, self._missing) for piece in pieces) else "text"
        for piece in pieces:
            yield self._values_of(piece, name, kind, may_be_empty=True)
            let_go(self)

    @cached_property
    def _edges(self) -> Array:
        """The rows at which pieces begin, which are those of every column, and the number of rows."""
        first = next(iter(self._arrow.values()))
        return np.cumsum([0, *map(len, first.chunks)])

    def are_identifiers(self, name: str) -> bool:
        """Whether a column of text holds whole numbers alone, some of which float64 does not tell apart."""
        pa = extras.require("pyarrow")
        collide = False
        for chunk in self._arrow[name].chunks:
            numbers = _numbers_of(pa.chunked_array([chunk]), self._missing, may_be_empty=True)
            if numbers is None or (np.floor(there := numbers[~np.isnan(numbers)]) != there).any():
                return False
            large = np.flatnonzero(np.abs(numbers) >= WHOLE)[:HEAD_ROWS]
            texts = [text.strip() for text in chunk.take(pa.array(large)).to_pylist()]
            collide = collide or any(re.fullmatch(r"[+-]?\d+", text) and int(text) != float(text) for text in texts)
        return collide

    def has_early(self, name: str, text: str) -> bool:
        """Whether a text is a cell of a column, in its first rows."""
        pa, compute = extras.require("pyarrow"), extras.require("pyarrow.compute")
        cells = self._arrow[name].slice(0, HEAD_ROWS)
        return pa.types.is_string(cells.type) and bool(compute.any(compute.equal(cells, text)).as_py())

    def num_rows_of(self, name: str) -> int:
        """How many cells a column has."""
        return len(self._arrow[name])

    def texts(self, name: str) -> "Texts":
        """A column of text whose cells are made when they are asked for."""
        longest = max(as_texts(piece).dtype.itemsize for piece in self.pieces_of(name, "text"))
        return Texts(self, name, longest // np.dtype("U1").itemsize)

    def at(self, name: str, positions: Any) -> Array:
        """Cells of a column of text, at some rows."""
        column = self._arrow[name]

        def texts(rows: Any) -> Array:
            return as_texts(_cells(self._path, name, rows, self._missing))

        if isinstance(positions, slice):
            start, stop, step = positions.indices(len(column))
            if step == 1:
                return texts(column.slice(start, max(0, stop - start)))
            positions = np.arange(start, stop, step)
        # Piece by piece: Arrow's `take` would first copy the whole column, and fail beyond 2 GiB.
        places = np.searchsorted(self._edges, positions, side="right") - 1
        found = {
            place: texts(column.chunk(place).take(positions[places == place] - self._edges[place]))
            for place in np.unique(places).tolist()
        }
        cells = np.empty(len(positions), max((part.dtype for part in found.values()), default=np.dtype("U1")))
        for place, part in found.items():
            cells[places == place] = part
        return cells


_PLAIN_NUMBER = re.compile(r"[+-]?\d+(\.\d*)?([eE][+-]?\d+)?")

HEAD_ROWS = 10_000
"""Rows that are looked at where one would do."""


class Texts:
    """A column of text on the disk, see `ArrayLike`."""

    def __init__(self, columns: Columns, name: str, longest: int) -> None:
        self._columns, self._name = columns, name
        self.shape = (columns.num_rows_of(name),)
        self.dtype = np.dtype(f"U{max(longest, 1)}")
        self.stored_in = (columns,)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, positions: Any) -> Array:
        """See `ArrayLike`."""
        if isinstance(positions, int | np.integer):
            return self[np.asarray([positions])][0]  # type: ignore[no-any-return]
        return self._columns.at(self._name, positions)


@dataclass(frozen=True)
class Table:
    """The cells of a file.

    Attributes:
        path: of the file.
        columns: by name.
        rows: where they stand in the file.
        num_rows: without the header.
    """

    path: Path
    columns: Columns
    rows: Rows = field(repr=False)
    num_rows: int

    def require(self, name: str, what: str) -> None:
        """Proves that there is a column of this name.

        Raises:
            DataError: if there is none.
        """
        if name not in self.columns:
            close = difflib.get_close_matches(name, list(self.columns), n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"it has: {', '.join(self.columns)}"
            raise DataError(f"{self.path} has no column {name!r}, which {what} names", hint)

    def tell_strange_header(self) -> None:
        """A remark where the names look like a row of the data: a text file without a header loses its first."""
        if self.rows.separator is None:
            return
        numbers = [name for name in self.columns if _PLAIN_NUMBER.fullmatch(name)]
        # 0, 1, 2 ... and 2020, 2019 ... and 400.5, 410.5 ... are names; 5.1, 3.5, 1.4 are more likely values.
        in_order = len(numbers) > 1 and numbers == sorted(numbers, key=float)
        in_order |= all(map(str.isdigit, numbers)) and numbers == sorted(numbers, key=float, reverse=True)
        strange = [] if in_order else list(numbers)
        strange += [name for name in self.columns if name not in numbers and self.columns.has_early(name, name)]
        if 2 * len(strange) >= len(self.columns):
            message = (
                "%s: the first row names the columns, and %r looks like a value: without a header, a sample is lost"
            )
            logger.warning(message, self.path.name, strange[0])

    def column(self, name: str, what: str) -> Array:
        """The cells of a column.

        Raises:
            DataError: if there is none of this name.
        """
        self.require(name, what)
        return self.columns[name]


def read_table(path: Path, missing: Sequence[str], separator: str | None, *, on_disk: bool = False) -> Table:
    """The cells of a CSV, TSV or Parquet file.

    Args:
        path: of the file.
        missing: markers of missing values; they read as "" or NaN.
        separator: between fields of a text file; found when None.
        on_disk: keeps the cells in a file of Arrow's, from where they are read when they are asked for.

    Raises:
        DataError: if it is empty, damaged, ragged, no UTF-8, names a column twice, or has cells that are no values.
    """
    if not path.is_file():
        raise DataError(f"{path} is no plain file", "name a .csv, .tsv or .parquet file")
    if path.suffix.lower() == ".parquet":
        (arrow, file), rows = _read_parquet(path, on_disk), Rows(path, None)
    else:
        arrow, file, rows = read_text_table(path, separator, on_disk=on_disk)
    names = [name.strip() for name in arrow.column_names]
    _require_names(path, names)
    if arrow.num_rows == 0:
        raise DataError(f"{path} has a header and no rows", "it needs a row a sample")
    columns = Columns(path, dict(zip(names, arrow.columns, strict=True)), missing, file)
    return Table(path, columns, rows, arrow.num_rows)


def _require_names(path: Path, names: Sequence[str]) -> None:
    """Proves that every column has a name of its own.

    Raises:
        DataError: if one has none, or that of another.
    """
    twice = sorted({name for name in names if names.count(name) > 1 and name})
    if twice:
        hint = "the first row must name the columns" if is_number(twice[0]) else "rename one of them"
        raise DataError(f"{path}: the column {twice[0]!r} stands twice in the header", hint)
    if not all(names):
        raise DataError(f"{path}: column {names.index('') + 1} has no name", "name it")


def _read_parquet(path: Path, on_disk: bool) -> tuple[Any, mmap.mmap | None]:
    pa, parquet = extras.require("pyarrow"), extras.require("pyarrow.parquet")
    try:
        with parquet.ParquetFile(path) as file:
            _require_names(path, [name.strip() for name in file.schema_arrow.names])
            if not on_disk:
                return file.read(), None
            return kept_on_disk(file.schema_arrow, file.iter_batches())
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{path} cannot be read as Parquet: {first_line(error)}", "write it again") from error


def _cells(path: Path, name: str, column: Any, missing: set[str]) -> Array:
    r"""A column of Arrow, or a piece of one, as numpy: numbers as float64 with NaN, all else as text with "".

    Line ends in texts are "\n".

    Raises:
        DataError: if its cells are lists, maps or bytes, integers that float64 does not hold, or texts too long.
    """
    pa, compute = extras.require("pyarrow"), extras.require("pyarrow.compute")
    kind = column.type
    if pa.types.is_floating(kind) or pa.types.is_integer(kind):
        try:
            numbers: Array = column.cast(pa.float64()).to_numpy(zero_copy_only=False).astype(np.float64)
        except pa.ArrowInvalid as error:
            raise IntegersTooLargeError(path, name) from error
        marks = [float(mark) for mark in missing if _is_finite(mark)]
        return np.where(np.isin(numbers, marks), np.nan, numbers) if marks else numbers
    try:
        text = column.cast(pa.string())
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid) as error:
        raise DataError(f"{path}: {name!r} holds {kind}", "numbers or text are expected: take it out") from error
    text = compute.fill_null(_marked(text, missing), "")
    if compute.any(compute.match_substring(text, "\r")).as_py():
        # Arrow loses one half of a line end that lies on the edge of a block: both are told as one.
        text = compute.replace_substring_regex(text, "\r\n?", "\n")
    longest = compute.max(compute.utf8_length(text)).as_py() or 0
    if 4 * longest * len(text) > MAX_TEXT_BYTES:
        message = f"{path}: a text of {name!r} has {longest:,} characters: too long beside {len(text):,} rows"
        raise DataError(message, "cut long texts into several rows")
    return np.asarray(text.to_numpy(zero_copy_only=False), dtype=np.str_)


class IntegersTooLargeError(DataError):
    """Integers of Parquet that float64 does not tell apart, as those of identifiers."""

    def __init__(self, path: Path, name: str) -> None:
        message = f"{path}: {name!r} holds integers beyond 2**53, which are no longer told apart as numbers"
        super().__init__(message, f"leave it out with columns: {{{name}: ignore}}, or write it as text")


def _marked(text: Any, missing: set[str]) -> Any:
    """Texts without white space around them; null where empty or a marker of missing values."""
    pa, compute = extras.require("pyarrow"), extras.require("pyarrow.compute")
    trimmed = compute.utf8_trim_whitespace(text)
    marks = pa.array(sorted({"", *missing}), pa.string())
    return compute.if_else(compute.is_in(trimmed, value_set=marks), None, trimmed)


def _are_numbers(column: Any, missing: set[str]) -> bool:
    """Whether a piece of a column is numbers of Arrow's, or texts that are numbers or missing."""
    pa = extras.require("pyarrow")
    kind = column.type
    if pa.types.is_floating(kind) or pa.types.is_integer(kind):
        return True
    return pa.types.is_string(kind) and _numbers_of(column, missing, may_be_empty=True) is not None


def _numbers_of(column: Any, missing: set[str], *, may_be_empty: bool) -> Array | None:
    """A column of texts as float64 with NaN; None if one is no number, or none that float32 holds."""
    pa = extras.require("pyarrow")
    if not pa.types.is_string(column.type):
        return None
    try:
        found = _marked(column, missing).cast(pa.float64())
    except pa.ArrowInvalid:
        return None
    numbers: Array = found.to_numpy()
    most = np.abs(numbers[~np.isnan(numbers)]).max(initial=0.0)
    # A text may spell NaN without being a marker of missing values: the other way tells it.
    strange = int(np.isnan(numbers).sum()) != found.null_count or most > np.finfo(np.float32).max
    return None if strange or (found.null_count == len(found) and not may_be_empty) else numbers


def _is_finite(mark: str) -> bool:
    try:
        return bool(np.isfinite(float(mark)))
    except ValueError:
        return False

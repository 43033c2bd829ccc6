"""Columns of a table as inputs: in memory, or in files beside it where the table is too large to be held.

Numbers lie row by row in one file of float32, because a batch asks for whole rows; categories as numbers of their
words; texts stay in the file that Arrow wrote.
"""

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from mltool.data.scratch import let_go, room_for
from mltool.data.source import Array
from mltool.data.stored_rows import RowReader
from mltool.data.tables.columns import ColumnKind, Read, read_column
from mltool.data.tables.table_file import Table


def keep_columns(table: Table, inputs: Mapping[str, str], kinds: Mapping[str, ColumnKind], hint: str) -> dict[str, Any]:
    """The values of columns.

    Args:
        table: read.
        inputs: name to column.
        kinds: of the columns.
        hint: what to do about a cell that is no number; `{name}` stands for the column.

    Returns:
        By name, [rows]: float32 with NaN where missing, or text with "".

    Raises:
        DataError: if a cell is no number where numbers are expected, or is infinite.
    """
    if not table.columns.on_disk:
        return {
            name: np.concatenate(list(column_values(table, column, kinds[column], hint)))
            for name, column in inputs.items()
        }
    numbers = [name for name, column in inputs.items() if kinds[column] == "number"]
    words = [name for name, column in inputs.items() if kinds[column] == "category"]
    rows = room_for((table.num_rows, len(numbers)), np.float32, on_disk=True)
    codes = room_for((table.num_rows, len(words)), np.int32, on_disk=True)
    numbered: dict[str, dict[str, int]] = {name: {} for name in words}
    pieces = {name: column_values(table, inputs[name], kinds[inputs[name]], hint) for name in (*numbers, *words)}
    start = 0
    for together in zip(*pieces.values(), strict=True):
        place = slice(start, start + len(together[0]))
        for index, (name, piece) in enumerate(zip(pieces, together, strict=True)):
            if index < len(numbers):
                rows[place, index] = piece
            else:
                codes[place, index - len(numbers)] = _codes(piece, numbered[name])
        let_go(rows, codes)
        let_go(table.columns)
        start = place.stop
    kept: dict[str, Any] = {name: rows[:, index] for index, name in enumerate(numbers)}
    kept |= {name: Words(codes[:, index : index + 1], list(numbered[name])) for index, name in enumerate(words)}
    kept |= {name: table.columns.texts(inputs[name]) for name in inputs if name not in pieces}
    return {name: kept[name] for name in inputs}


def column_values(table: Table, column: str, kind: ColumnKind, hint: str) -> Iterator[Array]:
    """The values of a column in pieces; see `keep_columns`."""
    start = 0
    for cells in table.columns.pieces_of(column, kind):
        read = Read(str(table.path), functools.partial(_line, table, start), hint)
        yield read_column(read, column, cells, kind)
        start += len(cells)


def _line(table: Table, start: int, row: int) -> int:
    return table.rows.line(start + row)


def keep_pieces(pieces: Callable[[], Iterable[Array]], num_rows: int, *, on_disk: bool) -> Array:
    """Pieces of a column one after the other.

    Args:
        pieces: gives them, as often as it is called: the longest text must be known before the first is kept.
        num_rows: of all of them.
        on_disk: whether they are kept there.
    """
    if not on_disk:
        return np.concatenate(list(pieces()))
    dtype = np.result_type(*{piece.dtype for piece in pieces()})
    kept, start = room_for((num_rows,), dtype, on_disk=True), 0
    for piece in pieces():
        kept[start : start + len(piece)] = piece
        start += len(piece)
        let_go(kept)
    return kept


class Words:
    """Categories as numbers of their words, see `ArrayLike`.

    Args:
        codes: [samples, 1], places in `words`; on the disk.
        words: each once.
    """

    def __init__(self, codes: Array, words: Sequence[str]) -> None:
        self._codes, self._words = codes, np.asarray(words, np.str_)
        self.shape, self.dtype, self.stored_in = codes.shape, self._words.dtype, (codes,)

    def __len__(self) -> int:
        return len(self._codes)

    def __getitem__(self, positions: Any) -> Array:
        """See `ArrayLike`."""
        words: Array = self._words[self._codes[positions]]
        return words

    def rows_at(self, positions: Array, reader: RowReader) -> Array:
        """See `MadeOfRows`."""
        words: Array = self._words[reader.take(self._codes, positions)]
        return words


def _codes(values: Array, numbered: dict[str, int]) -> Array:
    """int32: the number of every word; new words get the next ones."""
    return np.asarray([numbered.setdefault(value, len(numbered)) for value in values.tolist()], np.int32)

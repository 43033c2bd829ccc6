"""What a column of a table holds, and its values as a model takes them."""

import logging
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from mltool.data.source import Array
from mltool.errors import DataError

logger = logging.getLogger("mltool")

ColumnKind = Literal["number", "category", "text", "ignore"]

MOST_DISTINCT = 1_000_000
"""Distinct values of a column that are looked at."""

TEXT_WORDS = 3.0
"""Words of a value, on average, from which on a column is text."""

FEWEST_ROWS = 50
"""Rows from which on another value in nearly every one of them is no chance."""

FEWEST_NUMBERS = 20
"""Distinct values from which on words that are nearly all numbers are hardly categories."""

_FORMATTED = re.compile(r"[$€£]?\s*[+-]?(\d+|\d{1,3}([,.'\u2019\u00a0\u202f ]\d{3})+)([.,]\d+)?\s*[%$€£]?")
"""A number as people write it: with a decimal comma, thousands separators, a unit of money or per cent."""

WHOLE = 2**53
"""Integers from here on are not all told apart by float64."""


TOO_LARGE = "column %r holds integers that numbers cannot tell apart: left out"


@dataclass(frozen=True)
class Read:
    """Where cells are read from.

    Attributes:
        origin: for messages.
        line: of a row in the file, for messages.
        hint: what to do about a cell that is no number; `{name}` stands for the column.
    """

    origin: str
    line: Callable[[int], int]
    hint: str


def infer_kind(name: str, pieces: Iterable[Array], are_identifiers: Callable[[], bool] = lambda: False) -> ColumnKind:
    """What a column holds, told by the training rows.

    Numbers where every value is one; text where values have many words; a category where few differ; a column that says
    nothing (one value, or a name of its own in every row) is left out, with a remark.

    Args:
        name: of the column, for the remark.
        pieces: of the column, one after the other: float64 with NaN, or text with "".
        are_identifiers: tells whether numbers of 2**53 and more are integers that float64 does not tell apart.
    """
    seen = _Seen()
    for cells in pieces:
        seen.look_at(cells)
    if not seen.num_there:
        logger.warning("column %r is empty in every row: left out", name)
        return "ignore"
    if seen.is_number and max(map(abs, seen.distinct)) >= WHOLE and are_identifiers():
        logger.warning(TOO_LARGE, name)
        return "ignore"
    if seen.num_there == seen.num_rows and len(seen.distinct) == 1:
        value = next(iter(seen.distinct))
        shown = f"{value:g}" if seen.is_number else repr(value)
        logger.warning("column %r is %s in every row: left out", name, shown)
        return "ignore"
    if seen.is_number:
        return "number"
    distinct = sorted(seen.distinct)
    return "number" if are_numbers(np.asarray(distinct)) else _kind_of_words(name, seen.num_looked_at, distinct)


_STEP = 2**16
"""Rows after which it is seen whether a column has shown enough of its words."""


class _Seen:
    """What was seen of a column so far."""

    def __init__(self) -> None:
        self.num_rows = self.num_there = self.num_looked_at = 0
        self.is_number = self._has_enough = False
        self.distinct: set[Any] = set()

    def look_at(self, cells: Array) -> None:
        """A piece of the column; of numbers only whether they differ is kept, and of words not more than are needed."""
        # In steps of the column, not of its pieces: what is found must not depend on how it is cut.
        start = 0
        while start < len(cells):
            end = start + _STEP - self.num_rows % _STEP
            self._look_at(cells[start:end])
            start = end
            if self.num_rows % _STEP == 0:
                self._has_enough = len(self.distinct) >= MOST_DISTINCT

    def _look_at(self, cells: Array) -> None:
        is_number = cells.dtype.kind == "f"
        there = cells[~np.isnan(cells)] if is_number else cells[cells != ""]
        self.num_rows, self.num_there = self.num_rows + len(cells), self.num_there + len(there)
        if not len(there):
            return
        self.is_number = is_number
        if is_number:
            self.distinct |= {float(there.min()), float(there.max())}
        elif not self._has_enough:
            self.distinct.update(there.tolist())
            self.num_looked_at += len(there)


def _kind_of_words(name: str, num_there: int, distinct: Sequence[str]) -> ColumnKind:
    words = float(np.mean([len(value.split()) for value in distinct[:2000]]))
    if words >= TEXT_WORDS:
        return "text"
    if len(distinct) > 0.9 * num_there and num_there >= FEWEST_ROWS:
        cure = doubt_about(name, distinct)
        kept = f"columns: {{{name}: category}} or {{{name}: text}} keeps it"
        told = "; ".join(cure) if cure else f"column {name!r} is another value in nearly every row"
        logger.warning("%s: left out (%s)", told, kept)
        return "ignore"
    return "category"


def doubt_about(name: str, categories: Collection[str]) -> tuple[str, str] | None:
    """Whether categories are rather numbers that cannot be read as such.

    Args:
        name: of the column.
        categories: each once; "" is missing.

    Returns:
        What is strange, and the cure; None where nothing is.
    """
    if len(categories) < FEWEST_NUMBERS:
        return None
    others = sorted(value for value in categories if value and not is_number(value))
    formatted = [value for value in others if _FORMATTED.fullmatch(value)]
    words = sorted(set(others) - set(formatted))
    if not others or len(words) > 0.1 * len(categories):
        return None
    if formatted:
        message = f"{name!r} holds numbers that are not written as such, as {formatted[0]!r}, and counts as words"
        return message, "write them with a decimal point, without separators of thousands and units"
    message = f"{name!r} holds numbers, but for {words[0]!r} and the like, and counts as words"
    return message, f"if {words[0]!r} stands for a missing value, add it to data.source.missing"


def are_numbers(values: Array) -> bool:
    """Whether every text is a number."""
    try:
        values.astype(np.float64)
    except ValueError:
        return False
    return True


def read_column(read: Read, name: str, cells: Array, kind: ColumnKind) -> Array:
    """The values of a column.

    Args:
        read: where the cells come from.
        name: of the column.
        cells: float64 with NaN, or text with "".
        kind: what it holds.

    Returns:
        A number: float32 [rows], NaN where missing; else text [rows], "" where missing.

    Raises:
        DataError: if a cell is no number where numbers are expected, or is infinite.
    """
    if kind != "number":
        return as_texts(cells)
    numbers = cells if cells.dtype.kind == "f" else _numbers(read, name, cells)
    with np.errstate(over="ignore"):  # what float32 cannot hold is told as infinite
        infinite = np.isinf(numbers.astype(np.float32))
    if infinite.any():
        row = int(np.flatnonzero(infinite)[0])
        raise DataError(
            f"{read.origin}, row {read.line(row)}: {name!r} is {cells[row].item()!r}", "a finite number is expected"
        )
    return numbers.astype(np.float32)


def as_texts(cells: Array) -> Array:
    """Cells as text: whole numbers without a fraction, missing ones as ""."""
    return cells if cells.dtype.kind == "U" else np.asarray([_as_text(value) for value in cells.tolist()], np.str_)


def _as_text(value: float) -> str:
    if np.isnan(value):
        return ""
    return str(int(value)) if value == int(value) else repr(value)


def _numbers(read: Read, name: str, cells: Array) -> Array:
    filled = np.where(cells == "", "nan", cells)
    try:
        return filled.astype(np.float64)
    except ValueError:
        row = next(index for index, cell in enumerate(filled.tolist()) if not is_number(cell))
        message = f"{read.origin}, row {read.line(row)}: {name!r} is {cells[row].item()!r}, a number is expected"
        raise DataError(message, read.hint.format(name=name)) from None


def is_number(cell: str) -> bool:
    """Whether a text is a number."""
    try:
        float(cell)
    except ValueError:
        return False
    return True

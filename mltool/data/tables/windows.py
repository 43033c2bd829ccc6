"""Windows over a table, for forecasting: some rows of a series are a sample, values of the rows after them its target.

A series is the whole table, or the rows of a group. It is cut where rows are missing in time and where a value is
missing, and no window crosses a cut.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from mltool import extras
from mltool.data.scratch import let_go, room_for, taken_from
from mltool.data.source import Array, Source, Windows, checked_source
from mltool.data.tables.columns import ColumnKind
from mltool.data.tables.rows import Rows
from mltool.data.tables.table import kind_of
from mltool.data.tables.table_file import Table, read_table
from mltool.data.tables.table_store import column_values
from mltool.errors import DataError

logger = logging.getLogger("mltool")

GAP = 1.5
"""A step in time of more than so many usual ones (their median) is a gap: months differ by less, a missing row by 2."""

INPUT = "series"
"""What the one input is called."""


@dataclass(frozen=True)
class Window:
    """See `WindowSpec`."""

    length: int
    horizon: int = 1
    stride: int = 1


@dataclass(frozen=True)
class Series:
    """Rows in order: of one series after the other, each as time goes.

    Attributes:
        order: int64 [rows], places of the rows in the file.
        begins: int64 [rows], the first row of the series that a row belongs to.
        ends: int64 [rows], one past its last row.
        cuts: bool [rows], whether nothing may cross from the row before to this one.
        names: text [rows], of the group; None where there are no groups.
    """

    order: Array
    begins: Array
    ends: Array
    cuts: Array
    names: Array | None


def load_windows(
    path: Path,
    window: Window,
    *,
    target: str,
    kinds: Mapping[str, ColumnKind] | None = None,
    missing: Sequence[str] = ("",),
    separator: str | None = None,
    group: str | None = None,
    time: str | None = None,
    on_disk: bool = False,
) -> Source:
    """The windows of a table: `series`, float32 [samples, length, columns], and targets, float32 [samples, horizon].

    All columns of numbers are in the series, the past of the target too. The rows are held once; a window is cut out of
    them when it is asked for.

    Args:
        path: of the table.
        window: how long they are, and how far apart.
        target: column whose next values are the targets.
        kinds: of columns where the inferred one is not right.
        missing: markers of missing values.
        separator: between fields; found when None.
        group: column of groups, each of which is a series.
        time: column that rows are sorted by, within their group; the order of the file when None.
        on_disk: keeps the rows in a temporary file.

    Raises:
        DataError: naming file, row or column, and the cure.
    """
    table = read_table(path, missing, separator, on_disk=on_disk)
    table.tell_strange_header()
    named = {"data.source.target": target, "data.source.group": group, "data.source.time": time}
    for key, name in (*named.items(), *(("data.source.columns", name) for name in kinds or {})):
        if name is not None:
            table.require(name, key)
    columns = _columns(table, target, kinds or {}, {group, time})
    series = read_series(table, group, time)
    rows = taken_from(read_rows(table, (*columns, target), on_disk=on_disk), series.order)
    firsts = _firsts(table, rows, series, window)
    shown = f"{window.length} rows of {', '.join(columns)}"
    logger.info(
        "%s: %d windows of %s; target: the next %d of %s", path.name, len(firsts), shown, window.horizon, target
    )
    extras.require("pyarrow").default_memory_pool().release_unused()  # as in `load_table`
    inputs = WindowedRows(rows[:, : len(columns)], firsts, window.length)
    following = WindowedRows(rows[:, len(columns) :], firsts + window.length, window.horizon)
    return checked_source(
        str(path),
        {INPUT: inputs},
        following[:][..., 0],
        {},
        kinds={INPUT: "series"},
        groups=None if series.names is None else series.names[firsts],
        names=WindowNames(path.name, table.rows, series.order[firsts]),
        target_name=target,
        value_names={"": (target,)},
        windows=Windows(
            columns=columns,
            time=time,
            group=group,
            firsts=firsts,
            num_rows=window.length + window.horizon,
            begins=series.begins[firsts],
            ends=series.ends[firsts],
        ),
    )


def _columns(table: Table, target: str, kinds: Mapping[str, ColumnKind], others: set[str | None]) -> tuple[str, ...]:
    """The columns of the series.

    Raises:
        DataError: naming those that hold words.
    """
    decided: dict[str, ColumnKind] = {}
    for name in table.columns:
        if name not in others:
            decided[name] = kinds.get(name) or ("number" if name == target else kind_of(table, name))
    words = [name for name, kind in decided.items() if kind in ("category", "text")]
    if words:
        shown = ", ".join(map(repr, words))
        ignored = ", ".join(f"{name}: ignore" for name in words)
        message = (
            f"{table.path}: {shown} {'holds' if len(words) == 1 else 'hold'} words, and windows take numbers alone"
        )
        raise DataError(message, f"leave out what is no number: data.source.columns: {{{ignored}}}")
    found = tuple(name for name, kind in decided.items() if kind == "number")
    if not found:
        raise DataError(f"{table.path} has no column that is an input", "data.source.columns ignores all of them")
    return found


def read_rows(table: Table, columns: Sequence[str], *, on_disk: bool = False) -> Array:
    """float32 [rows, columns] in the order of the file, NaN where missing.

    Raises:
        DataError: if a cell is no number.
    """
    rows = room_for((table.num_rows, len(columns)), np.float32, on_disk=on_disk)
    for index, column in enumerate(columns):
        start = 0
        for piece in column_values(table, column, "number", "data.source.missing takes markers of missing values"):
            rows[start : start + len(piece), index] = piece
            start += len(piece)
        let_go(rows, table.columns)
    return rows


def read_series(table: Table, group: str | None, time: str | None) -> Series:
    """The series of a table.

    Args:
        table: read.
        group: column of groups, each of which is a series.
        time: column that rows are sorted by, within their group.

    Raises:
        DataError: if a time is missing, cannot be read, or stands twice in a series.
    """
    count = table.num_rows
    numbers, names = np.zeros(count, np.int64), None
    if group is not None:
        names = np.asarray(table.column(group, "data.source.group"), np.str_)
        _, first, inverse = np.unique(names, return_index=True, return_inverse=True)
        numbers = first[inverse]  # a series stands where its first row stands
    times = None if time is None else _times(table, time)
    order = np.argsort(numbers, kind="stable") if times is None else np.lexsort((times, numbers))
    numbers = numbers[order]
    is_first = np.append(True, numbers[1:] != numbers[:-1])
    starts = np.flatnonzero(is_first)
    sizes = np.diff(starts, append=count)
    cuts = is_first if times is None else is_first | _gaps(table, str(time), times[order], order, is_first)
    return Series(
        order=order,
        begins=np.repeat(starts, sizes),
        ends=np.repeat(starts + sizes, sizes),
        cuts=cuts,
        names=None if names is None else names[order],
    )


def _gaps(table: Table, name: str, times: Array, order: Array, is_first: Array) -> Array:
    """Bool [rows]: whether rows are missing before a row; `times` and `is_first` are in order."""
    steps = np.diff(times, prepend=times[0])
    inside = ~is_first
    twice = np.flatnonzero(inside & (steps == 0))
    if len(twice):
        one, other = (table.rows.line(int(order[place])) for place in (twice[0] - 1, twice[0]))
        message = f"{table.path}: rows {one} and {other} have the same {name!r}"
        raise DataError(message, "take one of them out, or name the column that tells them apart: data.source.group")
    if not inside.any():
        return np.zeros(len(times), bool)
    usual = float(np.median(steps[inside]))
    gaps: Array = inside & (steps > GAP * usual)
    if gaps.any():
        place = int(np.flatnonzero(gaps)[0])
        told = (table.path.name, int(gaps.sum()), name, GAP, table.rows.line(int(order[place])))
        message = "%s: %d gaps in %r, steps of more than %g usual ones (first: before row %d): no window crosses them"
        logger.warning(message, *told)
    return gaps


def _times(table: Table, name: str) -> Array:
    """float64 [rows], in the order of the file: numbers as they are, dates and times as seconds.

    Raises:
        DataError: naming the first that is neither.
    """
    cells = table.columns.values_of(name)
    is_missing = np.isnan(cells) if cells.dtype.kind == "f" else cells == ""
    if is_missing.any():
        row = table.rows.line(int(np.flatnonzero(is_missing)[0]))
        raise DataError(f"{table.path}, row {row}: {name!r} is missing", "fill it in, or take the row out")
    if cells.dtype.kind == "f":
        return cells
    found = np.empty(len(cells))
    with_zone: set[bool] = set()
    for place, text in enumerate(cells.tolist()):
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            message = f"{table.path}, row {table.rows.line(place)}: {name!r} is {text!r}"
            raise DataError(message, "write numbers, or dates as ISO 8601 has them: 2026-11-25 18:00") from None
        with_zone.add(moment.tzinfo is not None)
        if len(with_zone) > 1:
            message = f"{table.path}, row {table.rows.line(place)}: {name!r} is {text!r}; others differ in time zone"
            raise DataError(message, "give all of them a time zone, or none")
        moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
        found[place] = moment.timestamp()
    return found


def stretches(rows: Array, series: Series) -> tuple[Array, Array]:
    """Begin and end, int64 each, of the longest stretches of rows without a cut and a missing value.

    Args:
        rows: float32 [rows, columns], in the order of `series`.
        series: that they are.
    """
    whole = np.asarray(~np.isnan(rows).any(axis=1))
    begins = np.flatnonzero(whole & (series.cuts | ~np.append(False, whole[:-1])))
    ends_here = whole & np.append(series.cuts[1:] | ~whole[1:], True)
    return begins, np.flatnonzero(ends_here) + 1


def _firsts(table: Table, rows: Array, series: Series, window: Window) -> Array:
    """int64 [windows]: the first row of each, in the order of `series`.

    Raises:
        DataError: if there is none.
    """
    holes = np.isnan(rows).any(axis=1)
    if holes.any():
        place = int(series.order[np.flatnonzero(holes)[0]])
        told = (table.path.name, int(holes.sum()), table.rows.line(place))
        logger.warning("%s: %d rows have a missing value (first: row %d): no window holds them", *told)
    begins, ends = stretches(rows, series)
    num_rows = window.length + window.horizon
    found = [np.arange(begin, end - num_rows + 1, window.stride) for begin, end in zip(begins, ends, strict=True)]
    firsts = np.concatenate([np.empty(0, np.int64), *found]).astype(np.int64)
    if not len(firsts):
        longest = int((ends - begins).max(initial=0))
        message = (
            f"{table.path}: a window takes {num_rows} rows ({window.length} and a horizon of {window.horizon}), "
            f"and the longest stretch without a gap has {longest}"
        )
        raise DataError(message, "take shorter windows: data.source.window")
    return firsts


class WindowedRows:
    """Windows of rows, see `ArrayLike`: a view of the rows, copied only where they are asked for.

    Args:
        rows: [rows, columns].
        firsts: int64 [samples], the first row of each.
        length: rows of each.
    """

    def __init__(self, rows: Array, firsts: Array, length: int) -> None:
        self._windows = np.lib.stride_tricks.sliding_window_view(rows, length, axis=0)  # [.., columns, length]
        self._firsts = firsts
        self.dtype, self.shape, self.stored_in = rows.dtype, (len(firsts), length, rows.shape[1]), (rows,)

    def __len__(self) -> int:
        return len(self._firsts)

    def __getitem__(self, positions: Any) -> Array:
        """See `ArrayLike`."""
        return np.ascontiguousarray(np.swapaxes(self._windows[self._firsts[positions]], -1, -2))


class WindowNames(Sequence[str]):
    """What windows are called in messages.

    Args:
        file: that they stand in.
        rows: of it.
        places: int64 [samples], of their first rows in the file.
    """

    def __init__(self, file: str, rows: Rows, places: Array) -> None:
        self._file, self._rows, self._places = file, rows, places

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, position: Any) -> Any:
        """The name of a window, or of those of a slice."""
        if isinstance(position, slice):
            return [self[index] for index in range(*position.indices(len(self)))]
        return f"{self._file} window from row {self._rows.line(int(self._places[position]))}"


def last_windows(table: Table, columns: Sequence[str], length: int, series: Series) -> tuple[Array, Array]:
    """What comes before the forecast of every series: its last rows.

    Args:
        table: without targets.
        columns: of the series, in the order of the model.
        length: rows that it takes.
        series: of the table.

    Returns:
        float32 [series, length, columns]; and int64 [series], the place of the last row of each in the file.

    Raises:
        DataError: if a series is too short, or has a gap or a missing value among its last rows.
    """
    rows = read_rows(table, columns)[series.order]
    begins, ends = stretches(rows, series)
    lasts = np.unique(series.ends)
    for last in lasts.tolist():
        found = np.flatnonzero(ends == last)
        whole = int(last - begins[found[0]]) if len(found) else 0
        if whole < length:
            row = table.rows.line(int(series.order[last - 1]))
            message = f"{table.path}: up to row {row}, {whole} rows stand without a gap and a missing value"
            raise DataError(message, f"the model takes {length}")
    return WindowedRows(rows, lasts - length, length)[:], series.order[lasts - 1]

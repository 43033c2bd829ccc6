"""Samples in a table: CSV, TSV or Parquet, a row a sample, an input a column."""

import difflib
import keyword
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mltool import extras
from mltool.data.columns import ColumnKind, Read, infer_kind, read_column
from mltool.data.rows import RowNames, Rows, is_text
from mltool.data.source import Array, Source, checked_source, joined_sources
from mltool.data.text import MAX_TEXT_BYTES
from mltool.errors import DataError

logger = logging.getLogger("mltool")

TARGET_NAMES = ("label", "target", "class", "y")
"""Names that a target is known by, in any case, where the spec names none."""

SPLIT_WORDS = {"train": "train", "training": "train", "validation": "validation", "val": "validation",
               "valid": "validation", "dev": "validation", "test": "test"}  # fmt: skip
"""Values of a column that decides the split."""


@dataclass(frozen=True)
class Plan:
    """What each column of a table is, decided on the training rows and held for all files.

    Attributes:
        target: column of the targets.
        inputs: name of the input to its column.
        kinds: of the inputs' columns.
    """

    target: str
    inputs: Mapping[str, str]
    kinds: Mapping[str, ColumnKind]


def load_table(
    paths: Mapping[str, Path],
    *,
    target: str | None = None,
    inputs: Mapping[str, str] | None = None,
    kinds: Mapping[str, ColumnKind] | None = None,
    missing: Sequence[str] = ("",),
    separator: str | None = None,
    weight: str | None = None,
    group: str | None = None,
    split_column: str | None = None,
    is_regression: bool = False,
) -> Source:
    """Reads a table, and those of the splits that have one of their own.

    Args:
        paths: the file (key ""), and those of splits.
        target: column of the targets; found by its name, else the last one.
        inputs: input to column; every column that is left, when None.
        kinds: of columns where the inferred one is not right.
        missing: markers of missing values.
        separator: between fields; found when None.
        weight: column of weights.
        group: column of groups.
        split_column: column with `train`, `validation` or `test`.
        is_regression: whether targets are numbers.

    Raises:
        DataError: naming file, row or column, and the cure.
    """
    special = {"data.source.weight": weight, "data.source.group": group, "data.split.column": split_column}
    tables = {split: read_table(path, missing, separator) for split, path in paths.items()}
    plan = _plan(tables[""], target, inputs, kinds or {}, special)
    sources = {
        split: _source(table, plan, special, is_regression=is_regression, first=tables[""])
        for split, table in tables.items()
    }
    return sources[""] if len(sources) == 1 else joined_sources(sources)


@dataclass(frozen=True)
class Table:
    """The cells of a file.

    Attributes:
        path: of the file.
        columns: by name: text with "" where missing, or numbers with NaN.
        rows: where they stand in the file.
    """

    path: Path
    columns: Mapping[str, Array]
    rows: Rows = field(repr=False)

    @property
    def num_rows(self) -> int:
        """Rows, without the header."""
        return len(next(iter(self.columns.values())))

    def column(self, name: str, what: str) -> Array:
        """The cells of a column.

        Raises:
            DataError: if there is none of this name.
        """
        if name not in self.columns:
            close = difflib.get_close_matches(name, list(self.columns), n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"it has: {', '.join(self.columns)}"
            raise DataError(f"{self.path} has no column {name!r}, which {what} names", hint)
        return self.columns[name]


def read_table(path: Path, missing: Sequence[str], separator: str | None) -> Table:
    """The cells of a CSV, TSV or Parquet file.

    Args:
        path: of the file.
        missing: markers of missing values; they read as "" or NaN.
        separator: between fields of a text file; found when None.

    Raises:
        DataError: if it is empty, damaged, ragged, no UTF-8, names a column twice, or has cells that are no values.
    """
    if not path.is_file():
        raise DataError(f"{path} is no plain file", "name a .csv, .tsv or .parquet file")
    if path.suffix.lower() == ".parquet":
        arrow, rows = _read_parquet(path), Rows(path, None)
    else:
        arrow, rows = _read_text(path, separator)
    names = [name.strip() for name in arrow.column_names]
    twice = sorted({name for name in names if names.count(name) > 1 and name})
    if twice:
        raise DataError(f"{path}: the column {twice[0]!r} stands twice in the header", "rename one of them")
    if not all(names):
        raise DataError(f"{path}: column {names.index('') + 1} has no name", "name it")
    if arrow.num_rows == 0:
        raise DataError(f"{path} has a header and no rows", "it needs a row a sample")
    marks = set(missing)
    return Table(
        path, {name: _cells(path, name, cells, marks) for name, cells in zip(names, arrow.columns, strict=True)}, rows
    )


def _read_parquet(path: Path) -> Any:
    pa = extras.require("pyarrow")
    try:
        return extras.require("pyarrow.parquet").read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{path} cannot be read as Parquet: {_first_line(error)}", "write it again") from error


def _read_text(path: Path, separator: str | None) -> tuple[Any, Rows]:
    """Every cell as text: what a column holds is decided by all of its rows, not by the first block."""
    pa, reader = extras.require("pyarrow"), extras.require("pyarrow.csv")
    separator = separator or _separator(path, _head(path))
    rows = Rows(path, separator)
    names = next(rows.records(), (1, []))[1]
    if not all(is_text(name) for name in names):
        raise _not_utf8(path, rows)
    try:
        arrow = reader.read_csv(
            path,
            parse_options=reader.ParseOptions(delimiter=separator, newlines_in_values=True),
            convert_options=reader.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False
            ),
        )
    except (pa.ArrowInvalid, pa.ArrowKeyError, OSError) as error:
        raise _reason(path, rows, _first_line(error)) from error
    rows = Rows(path, separator, arrow.num_rows)
    _require_closed_quote(path, rows, arrow)
    return arrow, rows


def _reason(path: Path, rows: Rows, told: str) -> DataError:
    """What Arrow refused, with the line and the column, which it does not tell."""
    if "Empty CSV" in told:  # a header without a line end
        return DataError(f"{path} has a header and no rows", "it needs a row a sample")
    if "UTF8" in told:
        return _not_utf8(path, rows)
    ragged = rows.first_ragged() if "Expected" in told else None
    if ragged is None:
        return DataError(f"{path}: {told}", "save it as comma-separated UTF-8")
    line, found, wanted = ragged
    return DataError(f"{path}, row {line}: {found} fields, the header has {wanted}", _RAGGED)


def _not_utf8(path: Path, rows: Rows) -> DataError:
    line, column = rows.first_undecodable() or (1, "column 1")
    return DataError(f"{path}, row {line}: {column} is no UTF-8", "save the file as UTF-8")


def _require_closed_quote(path: Path, rows: Rows, arrow: Any) -> None:
    """A quote that is opened and never closed makes one cell of all rows below, and Arrow is content with it.

    Raises:
        DataError: naming the row in which it is opened.
    """
    last = str(arrow.columns[-1][-1].as_py()) if arrow.num_rows and arrow.num_columns else ""
    if "\n" not in last and "\r" not in last:
        return
    with path.open("rb") as file:
        file.seek(max(path.stat().st_size - 1024, 0))
        is_closed = file.read().rstrip(b" \t\r\n").endswith(b'"')
    if not is_closed:
        line = rows.line(arrow.num_rows - 1)
        raise DataError(f"{path}, row {line}: a quote is opened and never closed", "close it, or double it")


_RAGGED = "every row needs as many fields as the header; a field with a separator in it needs quotes, in pairs"


def _head(path: Path) -> list[str]:
    """The first lines.

    Raises:
        DataError: if there are none, or they are no UTF-8 text.
    """
    with path.open("rb") as file:
        block = file.read(65536)
    if not block.strip():
        raise DataError(f"{path} is empty", "it needs a header, and a row a sample")
    if b"\0" in block:
        raise DataError(f"{path} is no text file: it holds zero bytes", "save it as UTF-8 .csv, or as .parquet")
    text = block.decode("utf-8-sig", errors="ignore")
    lines = text.splitlines()
    return lines[:-1] if len(lines) > 2 else lines


def _separator(path: Path, head: Sequence[str]) -> str:
    """The separator of a file: a tab in a .tsv; else the one of `, ; tab |` that the header has most often."""
    if path.suffix.lower() == ".tsv":
        return "\t"
    counts = {mark: head[0].count(mark) for mark in (",", ";", "\t", "|")}
    best = max(counts, key=lambda mark: counts[mark])
    if counts[best] and best != ",":
        logger.info("%s: fields are separated by %r (data.source.separator says another)", path, best)
    return best if counts[best] else ","


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _cells(path: Path, name: str, column: Any, missing: set[str]) -> Array:
    """A column of Arrow as numpy: numbers as float64 with NaN, all else as text with "".

    Raises:
        DataError: if its cells are lists, maps or bytes, or its texts are too long to be held.
    """
    pa, compute = extras.require("pyarrow"), extras.require("pyarrow.compute")
    kind = column.type
    if pa.types.is_floating(kind) or pa.types.is_integer(kind):
        numbers: Array = column.cast(pa.float64()).to_numpy().astype(np.float64)
        marks = [float(mark) for mark in missing if _is_finite(mark)]
        return np.where(np.isin(numbers, marks), np.nan, numbers) if marks else numbers
    try:
        text = column.cast(pa.string())
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid) as error:
        raise DataError(f"{path}: {name!r} holds {kind}", "numbers or text are expected: take it out") from error
    text = compute.utf8_trim_whitespace(compute.fill_null(text, ""))
    words = pa.array(sorted(missing - {""}), pa.string())
    if len(words):
        text = compute.if_else(compute.is_in(text, value_set=words), "", text)
    longest = compute.max(compute.utf8_length(text)).as_py() or 0
    if 4 * longest * len(text) > MAX_TEXT_BYTES:
        message = f"{path}: a text of {name!r} has {longest:,} characters: too long beside {len(text):,} rows"
        raise DataError(message, "cut long texts into several rows")
    return np.asarray(text.to_numpy(zero_copy_only=False), dtype=np.str_)


def _is_finite(mark: str) -> bool:
    try:
        return bool(np.isfinite(float(mark)))
    except ValueError:
        return False


def _plan(
    table: Table,
    target: str | None,
    inputs: Mapping[str, str] | None,
    kinds: Mapping[str, ColumnKind],
    special: Mapping[str, str | None],
) -> Plan:
    for name in kinds:
        table.column(name, "data.source.columns")
    found = target if target is not None else _find_target(table)
    table.column(found, "data.source.target")
    for key, named in special.items():
        if named is not None:
            table.column(named, key)
    taken = {found, *(name for name in special.values() if name is not None)}
    if inputs is not None:
        for input_name, column in inputs.items():
            table.column(column, f"data.inputs.{input_name}")
        chosen = dict(inputs)
    else:
        chosen = identifiers([name for name in table.columns if name not in taken])
    decided = {column: kinds.get(column) or infer_kind(column, table.columns[column]) for column in chosen.values()}
    kept = {name: column for name, column in chosen.items() if decided[column] != "ignore"}
    if not kept:
        raise DataError(f"{table.path} has no column that is an input", "data.source.columns says what they are")
    by_kind = {
        kind: [column for column in kept.values() if decided[column] == kind] for kind in ("number", "category", "text")
    }
    told = "; ".join(f"{kind}: {', '.join(names)}" for kind, names in by_kind.items() if names)
    logger.info("%s: target %s; %s (data.source.columns says otherwise)", table.path.name, found, told)
    return Plan(found, kept, decided)


def _find_target(table: Table) -> str:
    names = list(table.columns)
    for wanted in TARGET_NAMES:
        for name in names:
            if name.lower() == wanted:
                return name
    logger.warning("%s: the target is the last column, %r (data.source.target names another)", table.path, names[-1])
    return names[-1]


def identifiers(columns: Sequence[str]) -> dict[str, str]:
    """Names that TensorFlow keeps in a signature: letters, digits and _, a letter first, no word of Python.

    Returns:
        name to column, in the order of the columns.
    """
    found: dict[str, str] = {}
    for column in columns:
        base = re.sub(r"[^A-Za-z0-9_]+", "_", column).strip("_") or "column"
        base = base if base[0].isalpha() and not keyword.iskeyword(base) else f"column_{base}"
        name, number = base, 2
        while name.lower() in {other.lower() for other in found}:
            name, number = f"{base}_{number}", number + 1
        found[name] = column
    return found


def _source(
    table: Table, plan: Plan, special: Mapping[str, str | None], *, is_regression: bool, first: Table
) -> Source:
    lacking = [column for column in plan.inputs.values() if column not in table.columns]
    if lacking:
        raise DataError(
            f"{table.path} has no column {lacking[0]!r}, {first.path.name} has", "give both the same header"
        )
    targets = _targets(table, plan.target, is_regression)
    read = _read_of(table, _WORDS_AS_NUMBERS)
    inputs = {
        name: read_column(read, column, table.columns[column], plan.kinds[column])
        for name, column in plan.inputs.items()
    }
    weights = special["data.source.weight"]
    split = special["data.split.column"]
    group = special["data.source.group"]
    return checked_source(
        str(table.path),
        inputs,
        targets,
        _given(table, split) if split else {},
        kinds={name: plan.kinds[column] for name, column in plan.inputs.items()},
        originals={name: column for name, column in plan.inputs.items() if name != column},
        groups=np.asarray(table.column(group, "data.source.group"), np.str_) if group else None,
        weights=_weights(table, weights) if weights else None,
        names=RowNames(table.path.name, table.rows, table.num_rows),
        target_name=plan.target,
    )


_WORDS_AS_NUMBERS = "data.source.missing takes markers; data.source.columns takes {{{name}: category}}"
"""What to do where a word stands among numbers."""


def _read_of(table: Table, hint: str) -> Read:
    return Read(str(table.path), table.rows.line, hint)


def _targets(table: Table, name: str, is_regression: bool) -> Array:
    cells = table.column(name, "data.source.target")
    empty = np.isnan(cells) if cells.dtype.kind == "f" else cells == ""
    if empty.any():
        rows = f"{int(empty.sum())} rows have no {name!r} (first: row {table.rows.line(int(np.flatnonzero(empty)[0]))})"
        raise DataError(f"{table.path}: {rows}", "fill them in, or take the rows out")
    if is_regression:
        read = _read_of(table, "mend it, or use a loss of classes")
        return read_column(read, name, cells, "number").astype(np.float32)
    if cells.dtype.kind == "f" and np.isfinite(cells).all() and (cells == np.round(cells)).all():
        return cells.astype(np.int64)
    return cells


def _weights(table: Table, name: str) -> Array:
    read = _read_of(table, "a weight is 0 or more")
    weights = read_column(read, name, table.column(name, "data.source.weight"), "number").reshape(-1)
    bad = ~(np.isfinite(weights) & (weights >= 0))
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        found = "missing" if np.isnan(weights[row]) else weights[row]
        raise DataError(
            f"{table.path}, row {table.rows.line(row)}: the weight in {name!r} is {found}", "0 or more is expected"
        )
    return weights.astype(np.float32)


def _given(table: Table, name: str) -> dict[str, Array]:
    cells = np.asarray(table.column(name, "data.split.column"), np.str_)
    words = np.asarray([SPLIT_WORDS.get(str(cell).lower(), "") for cell in cells])
    if (words == "").any():
        row = int(np.flatnonzero(words == "")[0])
        raise DataError(
            f"{table.path}, row {table.rows.line(row)}: {name!r} is {str(cells[row])!r}",
            "train, validation or test is expected",
        )
    return {word: np.flatnonzero(words == word) for word in ("train", "validation", "test") if (words == word).any()}

"""Samples in a table: CSV, TSV or Parquet, a row a sample, an input a column."""

import keyword
import logging
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mltool import extras
from mltool.data.scratch import positions_of
from mltool.data.source import Array, Source, checked_source
from mltool.data.sources.joined import joined_sources
from mltool.data.tables.columns import TOO_LARGE, ColumnKind, infer_kind
from mltool.data.tables.rows import RowNames
from mltool.data.tables.table_file import IntegersTooLargeError, Table, read_table
from mltool.data.tables.table_store import column_values, keep_columns, keep_pieces
from mltool.errors import DataError
from mltool.runs.arrays import together
from mltool.spec.data import Columns
from mltool.spec.outputs import ONLY

logger = logging.getLogger("mltool")

ONE_TARGET: Mapping[str, Columns | None] = {"": None}
"""The column of the only output's targets is looked for."""

TARGET_NAMES = ("label", "target", "class", "y")
"""Names that a target is known by, in any case, where the spec names none."""

SPLIT_WORDS = {"train": "train", "training": "train", "validation": "validation", "val": "validation",
               "valid": "validation", "dev": "validation", "test": "test"}  # fmt: skip
"""Values of a column that decides the split."""


@dataclass(frozen=True)
class Plan:
    """What each column of a table is, decided on the training rows and held for all files.

    Attributes:
        targets: output to the column of its targets, or to several.
        inputs: name of the input to its column.
        kinds: of the inputs' columns.
    """

    targets: Mapping[str, Columns]
    inputs: Mapping[str, str]
    kinds: Mapping[str, ColumnKind]


def load_table(
    paths: Mapping[str, Path],
    *,
    targets: Mapping[str, Columns | None] = ONE_TARGET,
    inputs: Mapping[str, str] | None = None,
    kinds: Mapping[str, ColumnKind] | None = None,
    missing: Sequence[str] = ("",),
    separator: str | None = None,
    weight: str | None = None,
    group: str | None = None,
    split_column: str | None = None,
    values: Collection[str] = (),
    on_disk: bool = False,
) -> Source:
    """Reads a table, and those of the splits that have one of their own.

    Args:
        paths: the file (key ""), and those of splits.
        targets: output to the column of its targets, or to several of values or labels; the key of the only output is
            "", and its column is found by its name, else the last one, where it is None.
        inputs: input to column; every column that is left, when None.
        kinds: of columns where the inferred one is not right.
        missing: markers of missing values.
        separator: between fields; found when None.
        weight: column of weights.
        group: column of groups.
        split_column: column with `train`, `validation` or `test`.
        values: outputs whose targets are numbers.
        on_disk: keeps the rows in temporary files, and reads them when they are asked for.

    Raises:
        DataError: naming file, row or column, and the cure.
    """
    special = {"data.source.weight": weight, "data.source.group": group, "data.split.column": split_column}
    tables = {split: read_table(path, missing, separator, on_disk=on_disk) for split, path in paths.items()}
    for table in tables.values():
        table.tell_strange_header()
    plan = _plan(tables[""], targets, inputs, kinds or {}, special)
    sources = {split: _source(table, plan, special, values=values, first=tables[""]) for split, table in tables.items()}
    tables.clear()
    # Arrow keeps the memory of what it read for the next time; there is none.
    extras.require("pyarrow").default_memory_pool().release_unused()
    return sources[""] if len(sources) == 1 else joined_sources(sources)


def _plan(
    table: Table,
    targets: Mapping[str, Columns | None],
    inputs: Mapping[str, str] | None,
    kinds: Mapping[str, ColumnKind],
    special: Mapping[str, str | None],
) -> Plan:
    for name in kinds:
        table.require(name, "data.source.columns")
    found = {name: find_target(table) if columns is None else columns for name, columns in targets.items()}
    of_targets = list(dict.fromkeys(column for columns in found.values() for column in _each(columns)))
    for column in of_targets:
        table.require(column, "data.source.target")
    for key, named in special.items():
        if named is not None:
            table.require(named, key)
    taken = {*of_targets, *(name for name in special.values() if name is not None)}
    if inputs is not None:
        for input_name, column in inputs.items():
            table.require(column, f"data.inputs.{input_name}")
        chosen = dict(inputs)
    else:
        chosen = identifiers([name for name in table.columns if name not in taken])
    decided = {column: kinds.get(column) or kind_of(table, column) for column in chosen.values()}
    kept = {name: column for name, column in chosen.items() if decided[column] != "ignore"}
    if not kept:
        first = next(iter(chosen.values()), "COLUMN")
        hint = f"data.source.columns says what they are: {{{first}: number}}, category or text"
        raise DataError(f"{table.path} has no column that is an input", hint)
    by_kind = {
        kind: [column for column in kept.values() if decided[column] == kind] for kind in ("number", "category", "text")
    }
    told = "; ".join(f"{kind}: {', '.join(names)}" for kind, names in by_kind.items() if names)
    named = ", ".join(of_targets)
    logger.info("%s: target %s; %s (data.source.columns says otherwise)", table.path.name, named, told)
    return Plan(found, kept, decided)


def kind_of(table: Table, column: str) -> ColumnKind:
    """What a column holds, told by its rows; see `infer_kind`."""
    try:
        pieces = table.columns.pieces_of(column)
        return infer_kind(column, pieces, lambda: table.columns.are_identifiers(column))
    except IntegersTooLargeError:
        logger.warning(TOO_LARGE, column)
        return "ignore"


def find_target(table: Table) -> str:
    """The column of the targets: known by its name, else the last one, with a remark."""
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
    table: Table, plan: Plan, special: Mapping[str, str | None], *, values: Collection[str], first: Table
) -> Source:
    lacking = [column for column in plan.inputs.values() if column not in table.columns]
    if lacking:
        raise DataError(
            f"{table.path} has no column {lacking[0]!r}, {first.path.name} has", "give both the same header"
        )
    targets = {name: _targets_of(table, columns, name in values) for name, columns in plan.targets.items()}
    inputs = keep_columns(table, plan.inputs, plan.kinds, _WORDS_AS_NUMBERS)
    value_names = _value_names(plan.targets)
    weights = special["data.source.weight"]
    split = special["data.split.column"]
    group = special["data.source.group"]
    return checked_source(
        str(table.path),
        inputs,
        together(targets),
        _given(table, split) if split else {},
        kinds={name: plan.kinds[column] for name, column in plan.inputs.items()},
        originals={name: column for name, column in plan.inputs.items() if name != column},
        groups=np.asarray(table.column(group, "data.source.group"), np.str_) if group else None,
        weights=_weights(table, weights) if weights else None,
        names=RowNames(table.path.name, table.rows, table.num_rows),
        target_name=" and ".join(column for columns in plan.targets.values() for column in _each(columns)),
        classes=_names_of_labels(plan.targets),
        value_names=value_names,
    )


_WORDS_AS_NUMBERS = "data.source.missing takes markers; data.source.columns takes {{{name}: category}}"
"""What to do where a word stands among numbers."""


def _each(columns: Columns) -> tuple[str, ...]:
    return (columns,) if isinstance(columns, str) else columns


def _names_of_labels(targets: Mapping[str, Columns]) -> tuple[str, ...]:
    """The columns of one-hot classes, or of several labels, of the only output: each names one."""
    columns = targets.get(ONLY, "")
    return () if isinstance(columns, str) else columns


def _value_names(targets: Mapping[str, Columns]) -> dict[str, tuple[str, ...]]:
    """By output the columns of its values: each names one."""
    return {name: _each(columns) for name, columns in targets.items()}


def _targets_of(table: Table, columns: Columns, are_values: bool) -> Array:
    """[samples] of one column; float32 [samples, columns] of several."""
    if isinstance(columns, str):
        return _targets(table, columns, are_values)
    hint = "a target of several columns takes numbers: values, or a 0 or 1 for each of several labels"
    return np.stack([_targets(table, column, True, hint).reshape(-1) for column in columns], axis=1)


def _targets(table: Table, name: str, is_regression: bool, hint: str = "mend it, or use a loss of classes") -> Array:
    table.require(name, "data.source.target")
    on_disk = table.columns.on_disk
    count, first, start, whole = 0, -1, 0, True
    for cells in table.columns.pieces_of(name, "category"):
        empty = np.isnan(cells) if cells.dtype.kind == "f" else cells == ""
        if empty.any():
            first = start + int(np.flatnonzero(empty)[0]) if first < 0 else first
            count += int(empty.sum())
        whole = whole and _are_whole(cells)
        start += len(cells)
    if count:
        rows = f"{count} rows have no {name!r} (first: row {table.rows.line(first)})"
        raise DataError(f"{table.path}: {rows}", "fill them in, or take the rows out")
    if is_regression:
        return keep_pieces(lambda: column_values(table, name, "number", hint), table.num_rows, on_disk=on_disk)

    def classes() -> Iterator[Array]:
        for cells in table.columns.pieces_of(name, "category"):
            yield cells.astype(np.int64) if whole else cells

    return keep_pieces(classes, table.num_rows, on_disk=on_disk)


def _are_whole(cells: Array) -> bool:
    return cells.dtype.kind == "f" and bool(np.isfinite(cells).all() and (cells == np.round(cells)).all())


def _weights(table: Table, name: str) -> Array:
    hint = "a weight is 0 or more"
    return np.concatenate(list(column_values(table, name, "number", hint)))


def _given(table: Table, name: str) -> dict[str, Array]:
    numbers, start = np.zeros(table.num_rows, np.int8), 0
    for cells in table.columns.pieces_of(name, "category"):
        words = [SPLIT_WORDS.get(str(cell).lower(), "") for cell in cells.tolist()]
        if "" in words:
            row = words.index("")
            raise DataError(
                f"{table.path}, row {table.rows.line(start + row)}: {name!r} is {str(cells[row])!r}",
                "train, validation or test is expected",
            )
        numbers[start : start + len(words)] = [_SPLITS.index(word) for word in words]
        start += len(words)
    found = {
        word: positions_of(numbers == number, on_disk=table.columns.on_disk) for number, word in enumerate(_SPLITS)
    }
    return {word: positions for word, positions in found.items() if len(positions)}


_SPLITS = ("train", "validation", "test")

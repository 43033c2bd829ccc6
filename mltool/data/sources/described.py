"""Sources whose columns a library describes: numbers, text, classes with names, encoded images."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mltool.data.source import Array, ArrayLike, InputKind, Source, checked_source, inferred_kind
from mltool.data.sources.encoded import Reading, encoded_images
from mltool.data.tables.columns import ColumnKind, Read, infer_kind, read_column
from mltool.data.tables.table import TARGET_NAMES, identifiers
from mltool.errors import DataError


@dataclass(frozen=True)
class Described:
    """A column: values, or what reads its encoded images.

    Attributes:
        values: [samples, ...]; a number a sample is float64 with NaN, or text with "".
        read_image: from a position to the bytes of an image.
        classes: names of the classes that the values number; empty where they are no classes.
    """

    values: Array | None = None
    read_image: Callable[[int], bytes] | None = None
    classes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Asked:
    """What the spec says of the columns; see `SourceSpec`."""

    target: str | None = None
    inputs: Mapping[str, str] | None = None
    weight: str | None = None
    group: str | None = None
    kinds: Mapping[str, ColumnKind] | None = None
    images: Reading = field(default_factory=Reading)


def described_source(
    origin: str,
    columns: Mapping[str, Described],
    given: Mapping[str, Array],
    names: Sequence[str],
    asked: Asked,
) -> Source:
    """A source of described columns.

    Args:
        origin: where they came from.
        columns: by name.
        given: the splits that it brings.
        names: of the samples, for messages.
        asked: what the spec says.

    Raises:
        DataError: if a column is not there, or is none that the spec can use so.
    """
    target = asked.target or find_target(columns)
    special = [name for name in (target, asked.weight, asked.group) if name is not None]
    free = [name for name in columns if name not in special]
    chosen = dict(asked.inputs) if asked.inputs is not None else identifiers(free)
    for name in (*special, *chosen.values(), *(name for name, kind in (asked.kinds or {}).items() if kind != "ignore")):
        if name not in columns:
            raise DataError(f"{origin} has no column {name!r}", f"it has: {', '.join(columns)}")
    for name in special:
        if columns[name].values is None:
            raise DataError(f"{origin}: {name!r} holds images", "take a column of numbers or text")
    inputs: dict[str, ArrayLike] = {}
    kinds: dict[str, InputKind] = {}
    for name, column in chosen.items():
        found = _input(origin, column, columns[column], names, asked)
        if found is not None:
            inputs[name], kinds[name] = found
    if not inputs:
        raise DataError(f"{origin} has no column that is an input", "data.inputs says which is one")
    return checked_source(
        origin,
        inputs,
        _targets(origin, target, columns[target], names),
        given,
        kinds=kinds,
        originals={name: column for name, column in chosen.items() if name in inputs and name != column},
        groups=_values(columns, asked.group, np.str_),
        weights=_values(columns, asked.weight, np.float32),
        names=names,
        target_name=target,
        classes=columns[target].classes,
        resize=asked.images.resize if asked.images.size and "image" in kinds.values() else None,
    )


def find_target(columns: Mapping[str, Described]) -> str:
    """The one column of classes; else one known by its name; else the last that holds no images."""
    classes = [name for name, column in columns.items() if column.classes]
    if len(classes) == 1:
        return classes[0]
    usable = [name for name, column in columns.items() if column.values is not None] or list(columns)
    return next((name for wanted in TARGET_NAMES for name in usable if name.lower() == wanted), usable[-1])


def _input(
    origin: str, name: str, column: Described, names: Sequence[str], asked: Asked
) -> tuple[ArrayLike, InputKind] | None:
    """The values of an input, and what they hold; None where it is left out."""
    kind = (asked.kinds or {}).get(name)
    if kind == "ignore":
        return None
    if column.read_image is not None:
        return encoded_images(column.read_image, names, asked.images), "image"
    values: Any = column.values
    if column.classes:
        values = np.asarray([*column.classes, ""])[values]
    if values.ndim > 1:
        return values, inferred_kind(values)
    kind = kind or infer_kind(name, [values])
    if kind == "ignore":
        return None
    return read_column(Read(origin, int, "data.source.columns says what {name} is"), name, values, kind), kind


def _targets(origin: str, name: str, column: Described, names: Sequence[str]) -> Array:
    values: Any = column.values
    lacking = values < 0 if column.classes else values == "" if values.dtype.kind == "U" else np.isnan(values)
    lacking = lacking.reshape(len(values), -1).any(axis=1)
    if lacking.any():
        first = names[int(np.flatnonzero(lacking)[0])]
        message = f"{origin}: {int(lacking.sum())} samples have no {name!r} (first: {first})"
        raise DataError(message, "take them out")
    if column.classes:
        return np.asarray(column.classes)[values]  # type: ignore[no-any-return]
    whole = values.dtype.kind == "f" and np.array_equal(values, np.round(values)) and np.abs(values).max() < 2**53
    return values.astype(np.int64) if whole else values  # type: ignore[no-any-return]


def _values(columns: Mapping[str, Described], name: str | None, dtype: Any) -> Array | None:
    if name is None:
        return None
    values: Any = columns[name].values
    return values.reshape(len(values)).astype(dtype)  # type: ignore[no-any-return]

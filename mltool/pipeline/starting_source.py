"""Looks at a folder or file of data: the keys of `data.source` that read it, and all that they yield."""

import logging
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from mltool.data.source import Array, Source
from mltool.data.sources.described import find_target as find_class_column
from mltool.data.sources.encoded import as_files
from mltool.data.sources.files import open_tree
from mltool.data.sources.huggingface import read_saved
from mltool.data.sources.images import image_sizes, sizes_of
from mltool.data.sources.kinds import ENDINGS, kind_at
from mltool.data.sources.npz import SPLIT_WORDS, read_arrays
from mltool.data.sources.open import build_source
from mltool.data.sources.records import find_records
from mltool.data.sources.tfrecord import Feature, image_reader, infer_features, read_feature
from mltool.data.tables.columns import are_numbers
from mltool.data.tables.table import TARGET_NAMES, find_target
from mltool.data.tables.table_file import IntegersTooLargeError, read_table
from mltool.errors import DataError
from mltool.spec.data import DataSpec, Kind, SourceSpec
from mltool.spec.outputs import ONLY

logger = logging.getLogger("mltool")

MOST_CLASSES = 20
"""Numbers of more distinct values than this, or with a fraction, are taken for a regression."""

MOST_COLUMNS = 60
"""Columns that are written down with their kinds; of a wider table the kinds are found anew every time."""

MISSING_MARKS = ("?", "-", "--", "missing", "#N/A")
"""Markers of missing values beyond those of the spec, taken where a column of numbers has them, or `?` anywhere."""

LABEL_PATTERNS = (r"^([^_\-]+)[_\-]", r"[_\-]([^_\-]+)\.[^.]+$", r"^([^\W\d]+)\d+\.[^.]+$")
"""Where names of files that lie in no folder of a class have the label: first word, last word, word before a number."""


@dataclass(frozen=True)
class StartingSource:
    """Data that were looked at.

    Attributes:
        kind: of the path.
        keys: of `data.source`, with the path as it stands in the spec.
        inputs: of `data`, where the arrays have other names than the spec expects; else None.
        source: all samples.
        is_regression: whether the targets are values.
    """

    kind: Kind
    keys: dict[str, Any]
    inputs: dict[str, Any] | None
    source: Source
    is_regression: bool

    @property
    def has_several_labels(self) -> bool:
        """Whether a sample may be of several classes: rows of 0 and 1 that are not one-hot."""
        targets = self.source.targets
        rows = not self.is_regression and targets.ndim == 2 and targets.shape[1] > 1
        return rows and bool((targets.sum(axis=1) != 1).any())


def look(path: Path, target: str | None, spec_folder: Path) -> StartingSource:
    """Finds out how the data are read, and reads them.

    Args:
        path: of a folder, a .zip, a table or an .npz.
        target: the column or array with the labels or values; found when None.
        spec_folder: that paths in the spec are relative to.

    Raises:
        DataError: if the data are missing, damaged, of no known kind, or have no labels.
    """
    if not path.exists():
        raise DataError(f"{path} is not there", "name a folder, a .zip, or a .csv, .tsv, .parquet or .npz file")
    kind = kind_at(path)
    if target is not None and kind not in ("table", "npz", "tfrecord", "huggingface"):
        raise DataError(f"--target names a column, an array or a feature, and {path} holds {kind}", "leave it out")
    match kind:
        case "npz":
            found = _look_at_arrays(path, target)
        case "table":
            found = _look_at_table(path, target)
        case "tfrecord":
            found = _look_at_records(path, target)
        case "huggingface":
            found = _look_at_saved(path, target)
        case _:
            # A folder a class: what it is called is no value, 0 to 99 neither.
            found = _Found(dict(_look_at_files(path, kind)))
    section: dict[str, Any] = {"source": {**found.keys, "path": str(path.absolute())}}
    if found.inputs:
        section["inputs"] = found.inputs
    source = build_source(DataSpec.model_validate(section), seed=42, values={ONLY} if found.is_regression else ())
    keys = {"path": _shown_path(path, spec_folder), **found.keys}
    if found.columns and len(found.columns) <= MOST_COLUMNS:
        kind_of = {source.originals.get(name, name): kind for name, kind in source.kinds.items()}
        keys["columns"] = {name: kind_of.get(name, "ignore") for name in found.columns}
    return StartingSource(kind, keys, found.inputs, source, found.is_regression)


@dataclass(frozen=True)
class _Found:
    """What the first look tells: keys of `data.source`, `data.inputs`, and the columns beside the target."""

    keys: dict[str, Any]
    inputs: dict[str, Any] | None = None
    is_regression: bool = False
    columns: tuple[str, ...] = ()


def _shown_path(path: Path, folder: Path) -> str:
    """Relative to the spec, as it is looked up; absolute where there is no such way (another drive)."""
    try:
        return Path(os.path.relpath(path.absolute(), folder.absolute())).as_posix()
    except ValueError:
        return path.absolute().as_posix()


def _are_values(targets: Array) -> bool:
    """Whether targets are values and no classes."""
    if targets.dtype.kind == "U":
        if not are_numbers(targets):
            return False
        targets = targets.astype(np.float64)
    if targets.dtype.kind not in "uif":
        return False
    if targets.ndim == 2 and targets.shape[1] > 1:
        return not bool(np.isin(targets, (0, 1)).all())  # else one-hot rows, or several labels
    has_fractions = targets.dtype.kind == "f" and bool((targets != np.round(targets)).any())
    return has_fractions or len(np.unique(targets)) > MOST_CLASSES


# Arrays


def _look_at_arrays(path: Path, target: str | None) -> _Found:
    arrays = read_arrays(path)
    ending = f"_({'|'.join(SPLIT_WORDS)})"
    stems = list(dict.fromkeys(_stem_of(name, arrays) for name in arrays))
    found = target or next(
        (s for wanted in (*TARGET_NAMES, "labels", "targets") for s in stems if s.lower() == wanted), ""
    )
    if found not in stems:
        if target is not None:
            raise DataError(f"{path} has no array {target!r}", f"it has: {', '.join(arrays)}")
        found = stems[-1]
        logger.warning("%s: the targets are the last array, %r (--target names another)", path, found)
    length = {
        stem: sum(len(a) for n, a in arrays.items() if re.fullmatch(f"{re.escape(stem)}({ending})?", n) and a.ndim)
        for stem in stems
    }
    others = [stem for stem in stems if stem != found and length[stem] == length[found]]
    if not others:
        raise DataError(f"{path} has no array beside {found!r} with a value for every sample", "name one x")
    parts = [arrays[name] for name in (found, f"{found}_train") if name in arrays]
    return _Found(
        keys={} if found == "y" else {"target": found},
        inputs=None if others == ["x"] else {_input_name(stem): {"array": stem} for stem in others},
        is_regression=bool(parts) and _are_values(parts[0]),
    )


def _stem_of(name: str, arrays: Mapping[str, Any]) -> str:
    """The name of an array without that of its split, where it has parts for training and test."""
    stem, _, word = name.rpartition("_")
    return stem if word in SPLIT_WORDS and {f"{stem}_train", f"{stem}_test"} <= set(arrays) else name


def _input_name(stem: str) -> str:
    name = re.sub(r"\W+", "_", stem).strip("_") or "x"
    return name if name[0].isalpha() else f"x_{name}"


# Tables


def _look_at_table(path: Path, target: str | None) -> _Found:
    known = SourceSpec.model_fields["missing"].default
    table = read_table(path, known, None)
    found = target or find_target(table)
    marks: set[str] = set()
    row_numbers: list[str] = []
    for name in table.columns:
        try:
            cells = table.columns[name]
        except IntegersTooLargeError:
            continue
        marks |= _marks_of(cells)
        if name != found and _are_row_numbers(cells):
            row_numbers.append(name)
    keys: dict[str, Any] = {"target": found}
    if table.rows.separator not in (None, ",", "\t"):
        keys["separator"] = table.rows.separator
    if row_numbers and len(row_numbers) < len(table.columns) - 1:  # else there is nothing else to learn from
        logger.warning(
            "%s: %s counts the rows: left out (data.source.columns)", path.name, " and ".join(map(repr, row_numbers))
        )
        keys["columns"] = dict.fromkeys(row_numbers, "ignore")
    if marks:
        used = [mark for mark in MISSING_MARKS if mark in marks]
        logger.warning(
            "%s: %s is taken for a missing value (data.source.missing)", path.name, " and ".join(map(repr, used))
        )
        keys["missing"] = [*known, *used]
    others = tuple(name for name in table.columns if name != found)
    return _Found(keys, is_regression=_are_values(table.column(found, "--target")), columns=others)


def _are_row_numbers(cells: Array) -> bool:
    """Whether every value is the one before and one more: the order of a file, which a model must not learn."""
    if len(cells) < 3 or not are_numbers(cells[:3]):
        return False
    first = float(cells[0])
    if not first.is_integer() or abs(first) > 2**53:  # beyond, floats do not count
        return False
    counted = np.arange(int(first), int(first) + len(cells))
    return bool((cells == (counted if cells.dtype.kind == "f" else counted.astype(str))).all())


def _marks_of(cells: Array) -> set[str]:
    """What stands for a missing value: `?` always, others where all else in the column is a number."""
    if cells.dtype.kind == "f":
        return set()
    there = set(np.unique(cells[np.isin(cells, MISSING_MARKS)]).tolist())
    rest = cells[(cells != "") & ~np.isin(cells, MISSING_MARKS)]
    return there if len(rest) and are_numbers(rest) else there & {"?"}


# Records


def _look_at_records(path: Path, target: str | None) -> _Found:
    features = infer_features(path)
    numbers = [name for name, feature in features.items() if feature.get("decode") != "image"]
    if len(features) < 2 or not numbers:
        raise DataError(f"{path}: the first records hold no input and no label of one shape", "write the spec by hand")
    named = (name for wanted in TARGET_NAMES for name in numbers if name.lower().rpartition("/")[2] == wanted)
    found = target or next(named, numbers[-1])
    if found not in numbers:
        raise DataError(f"{path} has no feature {found!r} of numbers or text", f"it has: {', '.join(numbers)}")
    logger.info("%s: the target is the feature %r (--target names another)", path, found)
    images = [name for name in features if name not in numbers]
    if images:
        # What stands beside a photo is its size and its label once more, as text: a model would learn to read that.
        logger.warning("%s: the input is the image %r (data.source.features)", path, images[0])
        features = {name: features[name] for name in (images[0], found)}
    records = find_records({"": path})
    values = read_feature(records, found, Feature(**{"shape": (), **features[found]}))
    keys: dict[str, Any] = {"features": features, "target": found}
    for name, feature in features.items():
        sizes = (
            Counter(sizes_of(as_files(image_reader(records, name), records.names)))
            if feature.get("decode") == "image"
            else Counter()
        )
        if len(sizes) > 1:
            keys |= {"image_size": list(_common_size(path, sizes)), "resize": "pad"}
    return _Found(keys, is_regression=_are_values(values))


# Data sets of Hugging Face


def _look_at_saved(path: Path, target: str | None) -> _Found:
    columns, _, names = read_saved({"": path}, {})
    found = target or find_class_column(columns)
    values = columns[found].values if found in columns else None
    if values is None:
        raise DataError(f"{path} has no column {found!r} of numbers or text", f"it has: {', '.join(columns)}")
    keys: dict[str, Any] = {"target": found}
    images = [(name, column.read_image) for name, column in columns.items() if column.read_image is not None]
    for image, read in images[:1]:
        others = [name for name in columns if name not in (image, found)]
        if others:
            logger.warning("%s: the input is the image %r; left out: %s", path, image, ", ".join(others))
            keys["columns"] = dict.fromkeys(others, "ignore")
        sizes = Counter(sizes_of(as_files(read, names)))
        if len(sizes) > 1:
            keys |= {"image_size": list(_common_size(path, sizes)), "resize": "pad"}
    return _Found(keys, is_regression=not columns[found].classes and _are_values(values))


# Folders


def _look_at_files(path: Path, kind: Kind) -> Iterator[tuple[str, Any]]:
    what = {"images": "images", "audio": "sound files", "text": "text files"}[kind]
    names = open_tree(path, ENDINGS[kind], what).names
    if not all("/" in name for name in names):
        yield "label", _label_pattern(path, names)
    if kind == "images":
        sizes = Counter(image_sizes(path))
        if len(sizes) > 1:
            yield "image_size", list(_common_size(path, sizes))
            yield "resize", "pad"
    if kind == "audio":
        yield from _look_at_sounds(path)


def _label_pattern(path: Path, names: Any) -> str:
    for pattern in LABEL_PATTERNS:
        found = [re.search(pattern, PurePosixPath(name).name) for name in names]
        counts = Counter(match[1] for match in found if match)
        # A name of its own for nearly every file is no class.
        if None not in found and 2 <= len(counts) <= max(2, len(names) // 4) and min(counts.values()) > 1:
            shown = ", ".join(sorted(counts)[:10])
            logger.warning("%s: the files lie in no folder a class; labels from their names: %s", path, shown)
            return pattern
    raise DataError(
        f"{path}: the files lie in no folder of a class, and their names tell none", "make a folder a class"
    )


def _common_size(path: Path, sizes: Counter[tuple[int, int]]) -> tuple[int, int]:
    """A square of about the median of the shorter sides, a multiple of 32 from 32 to 128."""
    sides = np.repeat([min(size) for size in sizes], list(sizes.values()))
    side = int(np.clip(round(float(np.median(sides)) / 32) * 32, 32, 128))
    logger.warning(
        "%s: images of %d sizes are brought to %dx%d, padded (image_size, resize)", path, len(sizes), side, side
    )
    return side, side


def _look_at_sounds(path: Path) -> Iterator[tuple[str, Any]]:
    from mltool.data.sources.audio import sound_headers

    headers = sound_headers(path)
    rates = Counter(header.sample_rate for header in headers)
    rate = rates.most_common(1)[0][0]
    yield "sample_rate", rate
    # What is longer than nearly all is cut, so that one long file does not make every sample long.
    seconds = float(np.quantile([header.seconds for header in headers], 0.98))
    yield "seconds", max(0.1, round(seconds + 0.05, 1))

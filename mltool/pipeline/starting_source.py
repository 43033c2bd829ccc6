"""Looks at a folder or file of data: the keys of `data.source` that read it, and all that they yield."""

import logging
import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from mltool.data.files import open_tree
from mltool.data.images import image_sizes
from mltool.data.kinds import ENDINGS, kind_at
from mltool.data.npz import read_arrays
from mltool.data.open import build_source
from mltool.data.source import Source
from mltool.data.table import TARGET_NAMES
from mltool.data.table_file import read_table
from mltool.errors import DataError
from mltool.spec.data import DataSpec, Kind, SourceSpec

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
    keys: dict[str, Any] = {"path": _shown_path(path, spec_folder)}
    inputs: dict[str, Any] | None = None
    if target is not None and kind not in ("table", "npz"):
        raise DataError(f"--target names a column or an array, and {path} holds {kind}", "leave it out")
    match kind:
        case "npz":
            found, inputs = _look_at_arrays(path, target)
        case "table":
            found = _look_at_table(path, target)
        case _:
            found = dict(_look_at_files(path, kind))
    keys |= found
    absolute = {**keys, "path": str(path.absolute())}
    source = _read(absolute, inputs, is_regression=False)
    is_regression = _is_regression(source)
    if is_regression:
        source = _read(absolute, inputs, is_regression=True)
    if kind == "table":
        keys |= _columns_of(source, path, keys)
    return StartingSource(kind, keys, inputs, source, is_regression)


def _shown_path(path: Path, folder: Path) -> str:
    """Relative to the spec, as it is looked up; absolute where there is no such way (another drive)."""
    try:
        return Path(os.path.relpath(path.absolute(), folder.absolute())).as_posix()
    except ValueError:
        return path.absolute().as_posix()


def _read(keys: dict[str, Any], inputs: dict[str, Any] | None, *, is_regression: bool) -> Source:
    section: dict[str, Any] = {"source": keys} | ({"inputs": inputs} if inputs else {})
    return build_source(DataSpec.model_validate(section), seed=42, is_regression=is_regression)


def _is_regression(source: Source) -> bool:
    targets = source.targets
    if targets.dtype.kind == "U":
        try:
            targets = targets.astype(np.float64)
        except ValueError:
            return False
    if targets.dtype.kind not in "uif" or (targets.ndim == 2 and targets.shape[1] > 1):
        return False
    has_fractions = targets.dtype.kind == "f" and bool((targets != np.round(targets)).any())
    return has_fractions or len(np.unique(targets)) > MOST_CLASSES


# Arrays


def _look_at_arrays(path: Path, target: str | None) -> tuple[dict[str, Any], dict[str, Any] | None]:
    arrays = read_arrays(path)
    stems = list(dict.fromkeys(re.sub(r"_(train|validation|test)$", "", name) for name in arrays))
    found = target or next(
        (s for wanted in (*TARGET_NAMES, "labels", "targets") for s in stems if s.lower() == wanted), ""
    )
    if found not in stems:
        if target is not None:
            raise DataError(f"{path} has no array {target!r}", f"it has: {', '.join(arrays)}")
        found = stems[-1]
        logger.warning("%s: the targets are the last array, %r (--target names another)", path, found)
    length = {stem: sum(len(a) for n, a in arrays.items() if re.fullmatch(rf"{re.escape(stem)}(_\w+)?", n) and a.ndim)
              for stem in stems}  # fmt: skip
    others = [stem for stem in stems if stem != found and length[stem] == length[found]]
    if not others:
        raise DataError(f"{path} has no array beside {found!r} with a value for every sample", "name one x")
    keys = {} if found == "y" else {"target": found}
    return keys, None if others == ["x"] else {_input_name(stem): {"array": stem} for stem in others}


def _input_name(stem: str) -> str:
    name = re.sub(r"\W+", "_", stem).strip("_") or "x"
    return name if name[0].isalpha() else f"x_{name}"


# Tables


def _look_at_table(path: Path, target: str | None) -> dict[str, Any]:
    known = SourceSpec.model_fields["missing"].default
    table = read_table(path, known, None)
    used = [mark for mark in MISSING_MARKS if any(_is_mark(cells, mark) for cells in table.columns.values())]
    keys: dict[str, Any] = {} if target is None else {"target": target}
    if used:
        logger.warning(
            "%s: %s is taken for a missing value (data.source.missing)", path.name, " and ".join(map(repr, used))
        )
        keys["missing"] = [*known, *used]
    return keys


def _is_mark(cells: Any, mark: str) -> bool:
    """Whether a text stands for a missing value: `?` always, others where all else in the column is a number."""
    if cells.dtype.kind == "f" or not (cells == mark).any():
        return False
    if mark == "?":
        return True
    rest = cells[(cells != "") & ~np.isin(cells, MISSING_MARKS)]
    try:
        rest.astype(np.float64)
    except ValueError:
        return False
    return len(rest) > 0


def _columns_of(source: Source, path: Path, keys: dict[str, Any]) -> dict[str, Any]:
    """The target by name, and the kind of every column, so that they are shown and can be changed."""
    found: dict[str, Any] = {"target": source.target_name}
    names = list(read_table(path, keys.get("missing", ()), None).columns)
    if len(names) <= MOST_COLUMNS:
        kind_of = {source.originals.get(name, name): kind for name, kind in source.kinds.items()}
        found["columns"] = {name: kind_of.get(name, "ignore") for name in names if name != source.target_name}
    return found


# Folders


def _look_at_files(path: Path, kind: Kind) -> Iterator[tuple[str, Any]]:
    what = {"images": "images", "audio": "sound files", "text": "text files"}[kind]
    names = open_tree(path, ENDINGS[kind], what).names
    pattern = None
    if not all("/" in name for name in names):
        pattern = _label_pattern(path, names)
        yield "label", pattern
    if kind == "images":
        sizes = Counter(image_sizes(path, label=pattern))
        if len(sizes) > 1:
            yield "image_size", list(_common_size(path, sizes))
            yield "resize", "pad"
    if kind == "audio":
        yield from _look_at_sounds(path, pattern)


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


def _look_at_sounds(path: Path, pattern: str | None) -> Iterator[tuple[str, Any]]:
    from mltool.data.audio import sound_headers

    headers = sound_headers(path, label=pattern)
    rates = Counter(header.sample_rate for header in headers)
    rate = rates.most_common(1)[0][0]
    yield "sample_rate", rate
    # What is longer than nearly all is cut, so that one long file does not make every sample long.
    seconds = float(np.quantile([header.seconds for header in headers], 0.98))
    yield "seconds", max(0.1, round(seconds + 0.05, 1))

"""Data sets that Hugging Face's `datasets` saved to disk: Arrow files, and what their columns hold in JSON.

They are read with pyarrow, which is here anyway: `datasets` would bring a dozen packages, and can run code and reach
for the network; what `save_to_disk` writes needs neither.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mltool import extras
from mltool.data.source import Array, Source
from mltool.data.sources.described import Asked, Described, described_source
from mltool.data.sources.files import SPLIT_FOLDERS
from mltool.errors import DataError
from mltool.spec.data import SAVED_SET, SAVED_SETS

_AGAIN = "save it again with Dataset.save_to_disk"


def load_huggingface(paths: Mapping[str, Path], asked: Asked) -> Source:
    """The samples of a saved data set; images are decoded when they are asked for.

    Args:
        paths: the folder of a Dataset or a DatasetDict (key ""), and those of splits that have one of their own.
        asked: what the spec says of the columns.

    Raises:
        DataError: if a file is missing or damaged, or a column holds what no model takes.
    """
    columns, given, names = read_saved(paths, asked.kinds or {})
    return described_source(str(paths[""]), columns, given, names, asked)


def read_saved(
    paths: Mapping[str, Path], kinds: Mapping[str, str]
) -> tuple[dict[str, Described], dict[str, Array], list[str]]:
    """Columns, splits and names of the rows; columns that `kinds` ignores are left out.

    Raises:
        DataError: see `load_huggingface`.
    """
    folders = dict(_folders(paths))
    tables = {split: _table(folder) for split, folder in folders.items()}
    features = {split: _features(folder) for split, folder in folders.items()}
    first = next(iter(folders))
    for split, found in features.items():
        if found != features[first]:
            raise DataError(f"{folders[split]} and {folders[first]} have different columns", "save them with the same")
    edges = np.cumsum([0, *(table.num_rows for table in tables.values())]).tolist()
    names = [f"{folders[split]} row {row}" for split, table in tables.items() for row in range(table.num_rows)]
    if not names:
        raise DataError(f"{paths['']} holds no rows", _AGAIN)
    table = extras.require("pyarrow").concat_tables(list(tables.values()))
    given = {split: np.arange(edges[i], edges[i + 1]) for i, split in enumerate(folders) if split}
    used = {name: feature for name, feature in features[first].items() if kinds.get(name) != "ignore"}
    columns = {name: _described(str(paths[""]), name, feature, table, names) for name, feature in used.items()}
    return columns, given if len(given) > 1 else {}, names


def _folders(paths: Mapping[str, Path]) -> Any:
    """The folder of every split."""
    for split, path in paths.items():
        if not (path / SAVED_SETS).is_file():
            yield (split or "train" if len(paths) > 1 else split), path
            continue
        if len(paths) > 1:
            raise DataError(f"{path} brings splits of its own", "leave test_path and validation_path out")
        found = _json(path / SAVED_SETS).get("splits")
        known = {SPLIT_FOLDERS[name]: name for name in found or () if name in SPLIT_FOLDERS}
        if "train" not in known:
            raise DataError(f"{path} has no split 'train'; it has: {', '.join(found or ()) or 'nothing'}", _AGAIN)
        yield from ((split, path / known[split]) for split in ("train", "validation", "test") if split in known)


def _json(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{file} cannot be read: {error}", _AGAIN) from error
    if not isinstance(found, dict):
        raise DataError(f"{file} holds no map", _AGAIN)
    return found


def _features(folder: Path) -> dict[str, Any]:
    found = _json(folder / "dataset_info.json").get("features")
    if not isinstance(found, dict) or not found:
        raise DataError(f"{folder}/dataset_info.json names no columns", _AGAIN)
    return found


def _table(folder: Path) -> Any:
    """The rows of a saved Dataset, on the disk until they are asked for."""
    arrow = extras.require("pyarrow")
    state = _json(folder / SAVED_SET)
    if state.get("_indices_data_files"):
        raise DataError(f"{folder} was saved with indices beside its rows", "save it again after flatten_indices()")
    names = [str(entry.get("filename")) for entry in state.get("_data_files") or () if isinstance(entry, dict)]
    if not names or any(Path(name).name != name for name in names):
        raise DataError(f"{folder}/{SAVED_SET} names no files beside it", _AGAIN)
    tables = []
    for name in names:
        try:
            tables.append(arrow.ipc.open_stream(arrow.memory_map(str(folder / name))).read_all())
        except (OSError, arrow.ArrowException) as error:
            raise DataError(f"{folder / name} cannot be read: {error}", "copy it again, or save it again") from error
    return arrow.concat_tables(tables)


def _described(origin: str, name: str, feature: Any, table: Any, names: list[str]) -> Described:
    """A column with what its feature says."""
    if name not in table.column_names:
        raise DataError(f"{origin}: the Arrow files have no column {name!r}, which dataset_info.json names", _AGAIN)
    column = table.column(name)
    kind = feature.get("_type") if isinstance(feature, dict) else "List"
    match kind:
        case "Image":
            return Described(read_image=lambda position: _image(column[position].as_py()))
        case "ClassLabel":
            classes = tuple(feature.get("names") or ())
            numbers = column.fill_null(-1).to_numpy().astype(np.int64)
            if numbers.max(initial=0) >= len(classes):
                row = names[int(np.argmax(numbers))]
                raise DataError(f"{row}: {name!r} is {numbers.max()}, there are {len(classes)} classes", _AGAIN)
            return Described(np.maximum(numbers, -1), classes=classes)
        case "Value":
            return Described(_cells(origin, name, column))
        case "List" | "LargeList" | "Sequence" | "Array2D" | "Array3D" | "Array4D":
            return Described(_lists(origin, name, column, names))
    raise DataError(
        f"{origin}: a column of {kind} ({name!r}) is none that mltool reads", f"columns: {{{name}: ignore}}"
    )


def _image(cell: Any) -> bytes:
    if not isinstance(cell, dict) or not cell.get("bytes"):
        raise OSError("the image is not in the data set, only its path" if cell else "there is no image")
    return bytes(cell["bytes"])


def _cells(origin: str, name: str, column: Any) -> Array:
    """Numbers as float64 with NaN, or text with ""."""
    types = extras.require("pyarrow").types
    if types.is_string(column.type) or types.is_large_string(column.type):
        return np.asarray(column.fill_null("").to_pylist(), dtype=np.str_)
    if types.is_boolean(column.type) or types.is_integer(column.type) or types.is_floating(column.type):
        return np.asarray(column.cast("float64").to_numpy(zero_copy_only=False), dtype=np.float64)
    raise _unusable(origin, name, str(column.type))


def _unusable(origin: str, name: str, what: str) -> DataError:
    message = f"{origin}: a column of {what} ({name!r}) is none that mltool reads"
    return DataError(message, f"leave it out: data.source.columns: {{{name}: ignore}}")


def _lists(origin: str, name: str, column: Any, names: list[str]) -> Array:
    """Lists of one length, also of lists: [samples, ...]."""
    types, lengths_of = extras.require("pyarrow").types, extras.require("pyarrow.compute").list_value_length
    shape, flat, found = [len(column)], column.combine_chunks(), column.type
    while types.is_nested(found):
        if not (types.is_list(found) or types.is_large_list(found) or types.is_fixed_size_list(found)):
            raise _unusable(origin, name, str(column.type))
        lengths = np.asarray(lengths_of(flat).fill_null(-1).to_numpy(zero_copy_only=False))
        if (lengths != lengths[0]).any() or lengths[0] <= 0:
            row = int(np.flatnonzero(lengths != lengths[0])[0] if lengths[0] > 0 else 0) * len(column) // len(lengths)
            raise DataError(
                f"{names[row]}: {name!r} is a list of another length than in the first row, or empty",
                f"bring all to one length, or columns: {{{name}: ignore}}",
            )
        shape.append(int(lengths[0]))
        flat, found = flat.flatten(), found.value_type
    if types.is_string(found):
        return np.asarray(flat.fill_null("").to_pylist(), dtype=np.str_).reshape(shape)
    values = flat.to_numpy(zero_copy_only=False)
    if values.dtype.kind not in "uifb":
        raise _unusable(origin, name, f"{column.type}, or with empty values,")
    return np.asarray(values).reshape(shape)

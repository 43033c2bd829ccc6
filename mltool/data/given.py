"""Samples without labels, as `predict` is given them: files and folders, a table, or arrays of numpy."""

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mltool.data.source import Array
from mltool.data.sources.kinds import ENDINGS
from mltool.data.tables.columns import ColumnKind, Read, read_column
from mltool.errors import DataError
from mltool.runs.arrays import UNREADABLE_NPZ, load_arrays
from mltool.runs.input_schema import InputInfo, InputSchema
from mltool.spec.data import TABLE_ENDINGS, SourceSpec

logger = logging.getLogger("mltool")


@dataclass(frozen=True)
class Given:
    """Samples to answer.

    Attributes:
        inputs: by name, each [samples, ...].
        numbers: what the samples are called: files, rows of a table as an editor counts them, else from 0.
        what: the numbers count, for messages.
    """

    inputs: dict[str, Array]
    numbers: list[int] | list[str]
    what: str = "sample "

    def name_of(self, position: int) -> str:
        """What a sample is called in messages: `new.csv row 2`."""
        return f"{self.what}{self.numbers[position]}"


def read_given(file: Path, schema: InputSchema | None) -> Given:
    """The samples of a file.

    Args:
        file: an image, a sound, a text, a folder or .zip of them, a table, an .npz or an .npy.
        schema: of the model, which says what its inputs are called and hold.

    Raises:
        DataError: if it is missing or damaged, or lacks a column.
    """
    if file.suffix.lower() in TABLE_ENDINGS:
        return _read_table(file, schema)
    if file.is_dir() or file.suffix.lower() in (".zip", *(ending for own in ENDINGS.values() for ending in own)):
        return _read_files(file, schema)
    return _read_arrays(file, schema)


def _read_files(path: Path, schema: InputSchema | None) -> Given:
    from mltool.data.sources.audio import read_sounds
    from mltool.data.sources.images import read_images
    from mltool.data.sources.text import read_texts

    if schema is None or len(schema.inputs) != 1:
        raise DataError(f"{path} gives one input, and the model takes several or unknown ones", "give a .npz file")
    (info,) = schema.inputs
    match info.kind:
        case "image":
            values, names = read_images(path, info.shape, info.resize)
        case "audio" if info.sample_rate is not None:
            values, names = read_sounds(path, info.shape[0], info.sample_rate)
        case "text":
            values, names = read_texts(path)
        case _:
            raise DataError(f"{path} holds files, and the model takes {info.kind or 'arrays'}", "give a .npz file")
    return Given({info.name: values}, names, what="")


def _read_table(file: Path, schema: InputSchema | None) -> Given:
    from mltool.data.tables.table_file import read_table

    if schema is not None and len(schema.inputs) == 1 and schema.inputs[0].columns:
        return _read_windows(file, schema.inputs[0], schema.missing_markers)
    if schema is None:
        raise DataError(f"{file} is a table, and no input.json says what its columns are", "give a .npz file")
    markers = schema.missing_markers or SourceSpec.model_fields["missing"].default
    table = read_table(file, markers, None)
    read = Read(str(file), table.rows.line, "mend it")
    inputs: dict[str, Array] = {}
    wanted = [info.original or info.name for info in schema.inputs]
    _require_columns(file, wanted, table.columns)
    for info, column in zip(schema.inputs, wanted, strict=True):
        kind: ColumnKind = "category" if info.kind == "category" else "text" if info.kind == "text" else "number"
        values = read_column(read, column, table.columns.values_of(column, kind), kind)
        inputs[info.name] = values.reshape(len(values), *info.shape)
    used = {info.original or info.name for info in schema.inputs}
    ignored = [name for name in table.columns if name not in used]
    if ignored:
        logger.info("%s: the model takes no %s", file.name, ", ".join(ignored))
    return Given(inputs, [table.rows.line(position) for position in range(table.num_rows)], what=f"{file.name} row ")


def _read_windows(file: Path, info: InputInfo, markers: Sequence[str]) -> Given:
    """The last rows of every series of a table: what a model forecasts from."""
    from mltool.data.tables.table_file import read_table
    from mltool.data.tables.windows import last_windows, read_series

    table = read_table(file, markers, None)
    wanted = [*info.columns, *(name for name in (info.time, info.group) if name is not None)]
    _require_columns(file, wanted, table.columns)
    series = read_series(table, info.group, info.time)
    values, places = last_windows(table, info.columns, info.shape[0], series)
    lines = [table.rows.line(int(place)) for place in places]
    logger.info("%s: forecasts from the last %d rows before each answer", file.name, info.shape[0])
    return Given({info.name: values}, lines, what=f"{file.name} after row ")


def _require_columns(file: Path, wanted: Sequence[str], there: Collection[str]) -> None:
    lacking = [column for column in wanted if column not in there]
    if lacking:
        named = ", ".join(map(repr, lacking))
        raise DataError(f"{file} has no {named}, which the model takes", f"it has: {', '.join(there)}")


def _read_arrays(file: Path, schema: InputSchema | None) -> Given:
    if not file.exists():
        raise DataError(f"{file} is not there", "name a file, a folder or a .zip of samples")
    try:
        loaded = load_arrays(file)
    except UNREADABLE_NPZ as error:
        raise DataError(f"{file} cannot be read: {error}", "give a table, or a .npz or .npy file of numpy") from error
    batch = loaded if isinstance(loaded, dict) else {schema.inputs[0].name if schema else "x": loaded}
    if not batch or any(array.ndim == 0 for array in batch.values()):
        raise DataError(f"{file} holds no arrays of samples", "the first axis of every array counts the samples")
    # An image without its channel axis, as the sources take it.
    for info in schema.inputs if schema else ():
        if info.name in batch and info.shape[-1:] == (1,) and batch[info.name].shape[1:] == info.shape[:-1]:
            batch[info.name] = batch[info.name][..., np.newaxis]
    return Given(batch, list(range(len(next(iter(batch.values()))))))

"""Data of another spec for the model of a run: they must be what the model takes, and are held against its training."""

import logging
from pathlib import Path
from typing import Literal

import numpy as np

from mltool.data.dataset import Dataset, Samples
from mltool.data.scratch import taken_from
from mltool.errors import DataError
from mltool.runs.arrays import of_output
from mltool.runs.input_schema import InputInfo, OutputInfo
from mltool.runs.run import Run
from mltool.spec.load import load_data_spec

logger = logging.getLogger("mltool")

EvaluatedSplit = Literal["test", "validation", "train", "all"]
"""What of the data is measured; `all` shares nothing out."""


def other_data(run: Run, path: Path, split: EvaluatedSplit) -> tuple[Dataset, Samples, int]:
    """The data of a spec, as the model of a run takes them and names their classes.

    Args:
        run: whose model is measured.
        path: of the spec; its `data` and `seed` count.
        split: of the data.

    Returns:
        The data, the samples of the split, and how many of them the run was trained on.

    Raises:
        SpecError: if the spec has mistakes.
        DataError: if the inputs are not those of the model, or a class is unknown to it.
    """
    schema = run.input_schema
    outputs = dict(zip(run.spec.output_names, schema.outputs, strict=True))
    data = Dataset(load_data_spec(path, run.spec), labels={key: output.labels for key, output in outputs.items()})
    _require_inputs(data, schema.inputs)
    for key, output in outputs.items():
        values = int(np.prod(of_output(data.targets, key).shape[1:], dtype=int))
        if output.task == "regression" and values != int(np.prod(output.shape)):
            message = f"{data.source.origin} has {values} values a sample as target, the model gives {output.shape}"
            raise DataError(message, "name the target: data.source.target")
        _require_columns(data, key, output)
    samples = data.take(np.arange(data.source.num_samples)) if split == "all" else data.split(split)
    return data, samples, _told_seen(run, data, samples)


def _require_columns(data: Dataset, key: str, output: OutputInfo) -> None:
    """Values in another order would be measured against others; one alone may bear another name, which is said."""
    found, wanted = data.meanings[key].columns, output.columns
    if not found or not wanted or found == wanted:
        return
    message = f"{data.source.origin}: the targets are {', '.join(found)}; the model gives {', '.join(wanted)}"
    if len(wanted) > 1:
        raise DataError(message, "name them as the model does, in its order: data.source.target")
    logger.warning("%s", message)


def _require_inputs(data: Dataset, wanted: tuple[InputInfo, ...]) -> None:
    """Names, shapes, types, kinds and sample rates as in training; values are held against it later (`require_fit`)."""
    source = data.source
    names = [info.name for info in wanted]
    if set(source.inputs) != set(names):
        message = f"{source.origin} has the inputs {', '.join(source.inputs)}; the model takes {', '.join(names)}"
        raise DataError(message, "name them under data.inputs, or leave columns out: data.source.columns: {id: ignore}")
    for info in wanted:
        array, what = source.inputs[info.name], f"{source.origin}: {info.original or info.name!r}"
        if tuple(array.shape[1:]) != info.shape:
            message = f"{what} has samples of shape {tuple(array.shape[1:])}; the model takes {info.shape}"
            raise DataError(message, "bring them to that shape, as the data of the run were")
        columns = source.windows.columns if source.windows is not None else ()
        if columns != info.columns:
            message = f"{what} has the columns {', '.join(columns)}; the model takes {', '.join(info.columns)}"
            raise DataError(message, "bring them to that order, and leave others out: data.source.columns")
        is_text, kind = array.dtype.kind == "U", source.kinds.get(info.name, "")
        if is_text != (info.dtype == "string") or (kind and info.kind and kind != info.kind):
            found, expected = kind or array.dtype, info.kind or info.dtype
            hint = f"data.source.columns: {{{info.original or info.name}: {info.kind or 'number'}}}"
            raise DataError(f"{what} is read as {found}; the model takes {expected}", hint)
        if info.sample_rate is not None and source.sample_rate not in (None, info.sample_rate):
            message = f"{what} has {source.sample_rate} samples a second; the model takes {info.sample_rate}"
            raise DataError(message, f"write data.source.sample_rate: {info.sample_rate}")


def _told_seen(run: Run, data: Dataset, samples: Samples) -> int:
    """How many samples the run was trained on, said: on those a model is better than it is."""
    seen = np.isin(taken_from(data.hashes, samples.ids), run.load_splits()["train_hashes"])
    count = int(seen.sum())
    if count:
        first = data.source.name_of(int(samples.ids[int(np.flatnonzero(seen)[0])]))
        logger.warning(
            "%d of %d samples are equal to training samples of the run (first: %s): the figures are too good",
            count,
            len(samples),
            first,
        )
    return count

"""Metrics of parts of a split, and how far chance alone may have moved them."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mltool import console
from mltool.data.dataset import Dataset
from mltool.data.source import Array
from mltool.errors import UsageError
from mltool.evaluation.metrics import measure
from mltool.runs.input_schema import InputSchema
from mltool.spec.argument_check import did_you_mean
from mltool.spec.outputs import Measure

RESAMPLES = 1000
"""Times that the samples are drawn anew: the ends of a 95 % interval then rest on the 25 lowest and highest."""

MOST_VALUES = 20
"""Different values of a number that are slices of their own; more are cut at the quartiles."""

MOST_SLICES = 1000
"""Slices that a metric is measured on: more values are names of samples rather than kinds of them."""


@dataclass(frozen=True)
class Slice:
    """The samples of a split that have one value in common.

    Attributes:
        value: as it is shown.
        samples: how many.
        metrics: by name; of some, few samples tell nothing (NaN).
    """

    value: str
    samples: int
    metrics: Mapping[str, float]

    def to_json(self) -> dict[str, Any]:
        """As `--json` prints it."""
        return {"value": self.value, "samples": self.samples, "metrics": dict(self.metrics)}


def sliced(
    by: str, data: Dataset, ids: Array, outputs: Array, *, measures: Sequence[Measure], schema: InputSchema
) -> list[Slice]:
    """The metrics of every value of a column.

    Args:
        by: an input, or what the source calls it, `group`, or the targets' name for the classes.
        data: that the samples come from.
        ids: int64 [samples], positions of the samples.
        outputs: float32 [samples, ...].
        measures: metrics of the spec.
        schema: what the outputs mean.

    Raises:
        UsageError: if the data have no such column, or it holds no single values.
    """
    values = _column(by, data, ids)
    names, numbers = np.unique(values, return_inverse=True)
    if len(names) > MOST_SLICES:
        raise UsageError(f"{by!r} has {len(names):,} values: too many for slices", "take a column of categories")
    targets = data.targets[ids]
    found = []
    for number, name in enumerate(names.tolist()):
        here = np.flatnonzero(numbers == number)
        found.append(Slice(name, len(here), measure(measures, outputs[here], targets[here], schema)))
    return found


def _column(by: str, data: Dataset, ids: Array) -> Array:
    """Text [samples]: the slice of every sample."""
    source = data.source
    # An input, under its own name or what the source calls it.
    columns = {name: name for name in source.inputs} | {old: name for name, old in source.originals.items()}
    if data.classes is not None and by in (source.target_name, "label"):
        return np.asarray(data.labels)[data.classes[ids]]
    if by == "group" and source.groups is not None:
        return np.asarray(source.groups[ids], np.str_)
    if by not in columns:
        others = {"label": data.classes is not None, "group": source.groups is not None}
        known = [*columns, *(name for name, is_there in others.items() if is_there)]
        hint = did_you_mean(by, known) or f"there are: {', '.join(known)}"
        raise UsageError(f"the data have no column {by!r} to slice by", hint)
    values = source.inputs[columns[by]][ids]
    if int(np.prod(values.shape[1:])) != 1:
        raise UsageError(f"{by!r} holds {values.shape[1:]} values a sample", "slice by a column, label or group")
    values = values.reshape(-1)
    if values.dtype.kind == "U":
        return np.where(values == "", "(missing)", values)
    return _of_numbers(values.astype(np.float64))


def _of_numbers(values: Array) -> Array:
    """Numbers as slices: each value, or the ranges between the quartiles."""
    there = ~np.isnan(values)
    different = np.unique(values[there])
    if len(different) <= MOST_VALUES:
        shown = {value: f"{value:g}" for value in different.tolist()}
        return np.asarray([shown.get(value, "(missing)") for value in values.tolist()])
    edges = np.unique(np.quantile(values[there], [0, 0.25, 0.5, 0.75, 1]))
    place = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, len(edges) - 2)
    # Numbered, so that they stay in order.
    names = [
        f"{number + 1}: {low:g} to {high:g}" for number, (low, high) in enumerate(itertools.pairwise(edges.tolist()))
    ]
    return np.where(there, np.asarray(names)[place], "(missing)")


def confidence_intervals(
    level: float, outputs: Array, targets: Array, measures: Sequence[Measure], schema: InputSchema, *, seed: int
) -> dict[str, tuple[float, float]]:
    """Percentile intervals of the bootstrap: Efron, Tibshirani, "An introduction to the bootstrap", 1993, chapter 13.

    They tell how far the figures move with the draw of the test samples; not with another training.

    Args:
        level: share of the draws that lie inside, such as 0.95.
        outputs: float32 [samples, ...].
        targets: as the data set has them.
        measures: metrics of the spec.
        schema: what the outputs mean.
        seed: of the draws.

    Returns:
        By metric the lower and upper end; NaN where a metric is no number on most draws.
    """
    random = np.random.default_rng([seed, 0xB007])
    drawn: dict[str, list[float]] = {}
    with console.progress("bootstrap", RESAMPLES, "draws") as bar:
        for number in range(RESAMPLES):
            here = random.integers(len(outputs), size=len(outputs))
            for name, value in measure(measures, outputs[here], targets[here], schema).items():
                drawn.setdefault(name, []).append(value)
            bar.update(number + 1)
    ends = [(1 - level) / 2, (1 + level) / 2]
    return {name: _ends(values, ends) for name, values in drawn.items()}


def _ends(values: list[float], ends: list[float]) -> tuple[float, float]:
    finite = [value for value in values if np.isfinite(value)]
    if len(finite) < len(values) / 2:
        return float("nan"), float("nan")
    low, high = np.quantile(finite, ends).tolist()
    return low, high

"""The representative dataset: what calibrates a quantizer, from training data only, never augmented, recorded by id."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from mltool.data.dataset import Dataset, Samples
from mltool.data.scratch import AT_ONCE, spread
from mltool.data.source import Array, batches_of
from mltool.errors import DataError
from mltool.runs.input_schema import InputSchema
from mltool.spec.convert import LEAST_SAMPLES

MOST_LOOKED_AT = 200_000
"""Training samples among which those that calibrate are drawn, evenly over all."""

FEW_SAMPLES = 32
"""Accuracy was measured flat from 25 samples on; fewer calibrate with a remark."""

logger = logging.getLogger("mltool")


Split = Literal["train", "random"]
"""Where calibration samples come from."""

FAR_OUT = 6.0
"""Standard deviations from the mean beyond which a value counts as an outlier."""


@dataclass(frozen=True)
class Calibration:
    """The samples that calibrate a file.

    Attributes:
        samples: from the training split, or random.
        hashes: uint64, identity of their inputs; empty for random ones.
        ranges: least and greatest value of every input in the training data, as far as they are known.
        split: where they come from.
    """

    samples: Samples
    hashes: Array
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    split: Split = "train"

    def to_json(self) -> dict[str, Any]:
        """Ids, hashes and statistics, as the record of an artifact holds them.

        Hashes are text, because JSON numbers would round them.
        """
        known = {} if self.split == "random" else {"ids": self.samples.ids.tolist()}
        return {
            "split": self.split,
            "samples": len(self.samples),
            **known,
            "hashes": [f"{value:016x}" for value in self.hashes.tolist()],
            "statistics": {
                name: _statistics(array, self.ranges.get(name))
                for name, array in self.samples.first(len(self.samples)).items()
                if array.dtype.kind != "U"
            },
        }


def _statistics(array: Array, training: tuple[float, float] | None) -> dict[str, Any]:
    """Of the values of one input.

    Returns:
        `minimum`, `maximum`, `mean`, `deviation` (standard), `outliers` (share of the values that lie more than six
        deviations from the mean), and where the training range is known `training_minimum`, `training_maximum`, and
        `coverage`, the share of it that the samples span.
    """
    low, high, mean, deviation = (float(of(array)) for of in (np.min, np.max, np.mean, np.std))
    far = np.abs(array - mean) > FAR_OUT * deviation
    found = {"minimum": low, "maximum": high, "mean": mean, "deviation": deviation, "outliers": float(far.mean())}
    if training is None:
        return found
    span = training[1] - training[0]
    coverage = (high - low) / span if span > 0 else 1.0
    return {**found, "training_minimum": training[0], "training_maximum": training[1], "coverage": coverage}


def draw_random(schema: InputSchema, count: int, seed: int) -> Calibration:
    """Draws numbers evenly from the range that each input had in training.

    What they calibrate has ranges of activations that no real sample may have: its accuracy is unknown.

    Raises:
        DataError: if an input takes text, or its range is not known.
    """
    random = np.random.default_rng([seed, 0xCA1B])
    ranges = ranges_of(schema)
    unknown = [info.name for info in schema.inputs if info.name not in ranges]
    if unknown:
        message = f"no random samples can be drawn for {', '.join(map(repr, unknown))}: text, or of unknown range"
        raise DataError(message, "leave out --calibration random, or calibration: random in the spec")
    inputs = {
        info.name: random.uniform(*ranges[info.name], (count, *info.shape)).astype(np.float32) for info in schema.inputs
    }
    samples = Samples(inputs, np.zeros(count, np.int64), np.arange(count))
    return Calibration(samples, np.zeros(0, np.uint64), ranges, "random")


def ranges_of(schema: InputSchema) -> dict[str, tuple[float, float]]:
    """Least and greatest value of every input in the training data; text and unknown ranges are left out."""
    return {
        info.name: (info.minimum, info.maximum)
        for info in schema.inputs
        if info.minimum is not None and info.maximum is not None
    }


def draw_representative(data: Dataset, count: int, seed: int, ranges: Mapping[str, tuple[float, float]]) -> Calibration:
    """Draws `count` training samples, from every class in proportion, in a seeded order.

    Args:
        data: with its splits.
        count: samples; all of training where there are fewer.
        seed: of the order.
        ranges: of the inputs in training, for the statistics.

    Copies of test and validation samples, which `duplicates: keep` leaves in the training split, are passed over.

    Raises:
        DataError: if the training split has fewer than 8 samples.
    """
    train = spread(data.splits.train, max(MOST_LOOKED_AT, count))
    train = train[~_held_out(data, train)]
    train = train[_complete(data, train)]
    if len(train) < LEAST_SAMPLES:
        raise DataError(
            f"calibration needs {LEAST_SAMPLES} training samples, there are {len(train)}", "use another scheme"
        )
    if len(train) < FEW_SAMPLES:
        logger.warning("only %d training samples calibrate: the ranges of an int8 file may be too narrow", len(train))
    random = np.random.default_rng([seed, 0xCA1B])
    shuffled = random.permutation(train)
    if data.classes is not None:
        # Ranks within the class, scaled by its size: taking the smallest takes every class in proportion.
        ranks, classes = np.empty(len(shuffled)), data.classes[shuffled]
        for number in np.unique(classes):
            members = np.flatnonzero(classes == number)
            ranks[members] = (np.arange(len(members)) + 0.5) / len(members)
        shuffled = shuffled[np.argsort(ranks, kind="stable")]
    chosen = shuffled[:count]
    return Calibration(data.take(chosen), data.hashes[chosen], ranges)


def _held_out(data: Dataset, ids: Array) -> Array:
    """Which samples are copies of validation or test samples."""
    found = np.zeros(len(ids), bool)
    for held_out in (data.splits.validation, data.splits.test):
        for part in batches_of(data.hashes, held_out, AT_ONCE):
            found |= np.isin(data.hashes[ids], part)
    return found


def _complete(data: Dataset, ids: Array) -> Array:
    """Which samples have all their numbers: a missing one (NaN) in calibration makes the converter's ranges NaN.

    What fills it in is inside of the model, and gives nothing that other samples do not.
    """
    complete = np.ones(len(ids), bool)
    for name, array in data.source.inputs.items():
        if data.source.kinds.get(name) == "number":
            complete &= ~np.isnan(array[ids].astype(np.float32)).reshape(len(ids), -1).any(axis=1)
    return complete


def require_sound(calibration: Calibration) -> None:
    """Proves that calibration data are what the model was trained on; a converter takes anything without a word.

    Raises:
        DataError: for too few samples, NaN or infinity, values outside of the range of the training data, or an input
            that is the same in every sample where training was not.
    """
    samples = calibration.samples
    if len(samples) < LEAST_SAMPLES:
        raise DataError(f"calibration needs {LEAST_SAMPLES} samples (got {len(samples)})", "raise representative")
    for name, array in samples.first(len(samples)).items():
        if name not in calibration.ranges:
            continue  # text: what its step makes of it is bounded by the step
        if not np.isfinite(array).all():
            raise DataError(f"calibration samples of {name!r} hold NaN or infinity", "remove them from the data")
        low, high = calibration.ranges[name]
        found, span = f"{float(array.min()):g} to {float(array.max()):g}", f"{low:g} to {high:g}"
        if array.min() < low or array.max() > high:
            message = f"calibration samples of {name!r} span {found}, training data {span}"
            raise DataError(message, "calibrate with what the model was trained on, in the same units")
        if array.min() == array.max() and low < high:
            message = f"calibration samples of {name!r} are all {float(array.min()):g}, training data {span}"
            hint = "raise representative: an integer scale cannot be told from one value"
            if array[0].size > 1:
                raise DataError(message, hint)
            logger.warning("%s; %s", message, hint)  # a column of a table may be rare

"""The representative dataset: what calibrates a quantizer, from training data only, never augmented, recorded by id."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mltool.data.dataset import Dataset, Samples
from mltool.data.scratch import AT_ONCE, spread
from mltool.data.source import Array, batches_of
from mltool.errors import DataError
from mltool.spec.convert import LEAST_SAMPLES

MOST_LOOKED_AT = 200_000
"""Training samples among which those that calibrate are drawn, evenly over all."""

FEW_SAMPLES = 32
"""Accuracy was measured flat from 25 samples on; fewer calibrate with a remark."""

logger = logging.getLogger("mltool")


@dataclass(frozen=True)
class Calibration:
    """The samples that calibrate a file.

    Attributes:
        samples: from the training split.
        hashes: uint64, identity of their inputs.
    """

    samples: Samples
    hashes: Array

    def to_json(self) -> dict[str, Any]:
        """Ids and hashes, as the record of an artifact holds them; hashes as text, which JSON numbers would round."""
        return {
            "split": "train",
            "samples": len(self.samples),
            "ids": self.samples.ids.tolist(),
            "hashes": [f"{value:016x}" for value in self.hashes.tolist()],
        }


def draw_representative(data: Dataset, count: int, seed: int) -> Calibration:
    """Draws `count` training samples, from every class in proportion, in a seeded order.

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
    if data.task in ("classification", "binary"):
        # Ranks within the class, scaled by its size: taking the smallest takes every class in proportion.
        ranks, classes = np.empty(len(shuffled)), data.targets[shuffled]
        for number in np.unique(classes):
            members = np.flatnonzero(classes == number)
            ranks[members] = (np.arange(len(members)) + 0.5) / len(members)
        shuffled = shuffled[np.argsort(ranks, kind="stable")]
    chosen = shuffled[:count]
    return Calibration(data.take(chosen), data.hashes[chosen])


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


def require_sound(samples: Samples, ranges: Mapping[str, tuple[float, float]]) -> None:
    """Proves that calibration data are what the model was trained on; a converter takes anything without a word.

    Args:
        samples: that calibrate.
        ranges: least and greatest value of every input in the training data.

    Raises:
        DataError: for too few samples, NaN or infinity, or values outside of the range of the training data.
    """
    if len(samples) < LEAST_SAMPLES:
        raise DataError(f"calibration needs {LEAST_SAMPLES} samples (got {len(samples)})", "raise representative")
    for name, array in samples.first(len(samples)).items():
        if name not in ranges:
            continue  # text: what its step makes of it is bounded by the step
        if not np.isfinite(array).all():
            raise DataError(f"calibration samples of {name!r} hold NaN or infinity")
        low, high = ranges[name]
        if array.min() < low or array.max() > high:
            found = f"{float(array.min()):g} to {float(array.max()):g}"
            raise DataError(f"calibration samples of {name!r} span {found}, training data {low:g} to {high:g}")

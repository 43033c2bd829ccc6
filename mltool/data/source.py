"""What a source yields: named numpy inputs and targets, in one order, with the splits that it brings."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mltool.errors import DataError

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Source:
    """Samples in memory.

    Attributes:
        origin: where they came from, for messages.
        inputs: by name, each [samples, ...].
        targets: [samples] or [samples, values]; classes as the source has them (numbers or text).
        given: the splits that the source brings, as positions; `train` and `test`, or `train` alone.
    """

    origin: str
    inputs: Mapping[str, Array]
    targets: Array
    given: Mapping[str, range] = field(default_factory=dict)

    @property
    def num_samples(self) -> int:
        """How many samples there are, over all splits."""
        return len(self.targets)


def checked_source(origin: str, inputs: Mapping[str, Array], targets: Array, given: Mapping[str, range]) -> Source:
    """A source whose arrays fit together and hold finite numbers.

    uint8 samples of two axes are gray images and get a channel axis: (8, 8) becomes (8, 8, 1).

    Raises:
        DataError: if an array is empty, of a type that a model cannot take, of another length, or holds NaN, infinity.
    """
    if targets.ndim == 0 or len(targets) == 0:
        raise DataError(f"{origin}: there are no samples", "the first axis of every array counts them")
    ready: dict[str, Array] = {}
    for name, array in inputs.items():
        if array.ndim == 0 or array.size == 0:
            raise DataError(
                f"{origin}: input {name!r} is empty (shape {array.shape})", "give it a value for every sample"
            )
        if array.dtype.kind not in "uifb":
            raise DataError(f"{origin}: input {name!r} is of type {array.dtype}", "this version takes numbers only")
        if len(array) != len(targets):
            raise DataError(f"{origin}: input {name!r} has {len(array)} samples, the targets have {len(targets)}")
        _require_finite(origin, f"input {name!r}", array)
        gray = array.dtype == np.uint8 and array.ndim == 3
        ready[name] = array[..., np.newaxis] if gray or array.ndim == 1 else array
    _require_finite(origin, "the targets", targets)
    return Source(origin, ready, targets, given)


def _require_finite(origin: str, what: str, array: Array) -> None:
    if array.dtype.kind != "f":
        return
    bad = ~np.isfinite(array).reshape(len(array), -1).all(axis=1)
    if bad.any():
        first = int(np.flatnonzero(bad)[0])
        raise DataError(
            f"{origin}: {what}: {int(bad.sum())} samples hold NaN or infinity (first: {first})", "clean them"
        )


def inferred_input_name(array: Array) -> str:
    """`image` for samples of three axes, or of two axes in uint8; else `x`."""
    return "image" if array.ndim == 4 or (array.ndim == 3 and array.dtype == np.uint8) else "x"

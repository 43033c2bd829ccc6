"""The representative dataset on its way into an engine: what is unfit is refused, since calibrators take anything."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mltool.errors import ConversionError
from mltool.runs.arrays import UNREADABLE_NPZ, read_npz

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Taken:
    """What one input takes.

    Attributes:
        shape: of one sample, -1 where it is free.
        dtype: of numpy.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]


class Batches:
    """The samples in batches of one size, as often as somebody asks; the last batch is filled up from the front."""

    def __init__(self, samples: Arrays, size: int) -> None:
        self._samples, self._size = samples, size

    def __iter__(self) -> Iterator[Arrays]:
        count = len(next(iter(self._samples.values())))
        for start in range(0, count, self._size):
            chosen = np.arange(start, start + self._size) % count
            yield {name: array[chosen] for name, array in self._samples.items()}


def load_samples(representative: str | None, taken: Mapping[str, Taken]) -> Arrays:
    """The representative dataset, in the model's own types.

    Args:
        representative: an `.npz` file with one array per input, `[n, ...]`.
        taken: what each input of the model takes.

    Raises:
        ConversionError: if it is missing, unreadable, empty, or does not fit; if a value is NaN or infinite.
    """
    if representative is None:
        raise ConversionError("integer activations need a representative dataset to calibrate with, and none was given")
    try:
        arrays = read_npz(Path(representative))
    except UNREADABLE_NPZ as error:
        raise ConversionError(f"cannot read the representative dataset {representative}: {error}") from error
    if set(arrays) != set(taken):
        raise ConversionError(f"the representative dataset has inputs {sorted(arrays)}, the model {sorted(taken)}")
    counts = {name: len(array) if array.ndim else 0 for name, array in arrays.items()}
    if len(set(counts.values())) != 1 or 0 in counts.values():
        raise ConversionError(f"the representative dataset needs the same number of samples, 1 or more (got {counts})")
    return {name: _fit(name, array, taken[name]) for name, array in arrays.items()}


def _fit(name: str, array: NDArray[Any], taken: Taken) -> NDArray[Any]:
    """One array in the type of its input."""
    shape = array.shape[1:]
    if len(shape) != len(taken.shape) or any(
        want not in (-1, got) for want, got in zip(taken.shape, shape, strict=True)
    ):
        wanted = [None if size < 0 else size for size in taken.shape]
        raise ConversionError(
            f"the representative dataset's {name!r} has samples of shape {list(shape)}, the model takes {wanted}"
        )
    if not np.issubdtype(array.dtype, np.number) and array.dtype != np.bool_:
        raise ConversionError(f"the representative dataset's {name!r} is not numeric (got {array.dtype})")
    with np.errstate(over="ignore", invalid="ignore"):  # what overflows is infinite, and said below
        cast: NDArray[Any] = array.astype(taken.dtype)
    finite = np.isfinite(array) & np.isfinite(
        cast
    )  # NaN in an array becomes some number where the input takes integers
    if not finite.all():
        bad = int(np.argmin(finite.reshape(len(cast), -1).all(axis=1)))
        raise ConversionError(
            f"the representative dataset's {name!r} is not finite (first in sample {bad})",
            "remove NaN and infinite values from the training data",
        )
    return cast

"""The representative dataset of a conversion, in the model's own types: what is unfit is refused."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mltool.errors import ConversionError

Arrays = dict[str, NDArray[Any]]


def load_samples(representative: str | None, specs: Mapping[str, Any]) -> Arrays:
    """Reads what calibrates a model, and holds it against the model; the calibrator itself takes anything.

    Args:
        representative: an `.npz` file with one array per input, `[n, ...]`.
        specs: TensorSpecs by the name of the input.

    Raises:
        ConversionError: there is none, or it has other inputs, shapes or types, no samples, or values that are not
            finite.
    """
    if representative is None:
        raise ConversionError("int8 needs a representative dataset to calibrate with, and none was given")
    try:
        with np.load(representative, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
    except (OSError, ValueError) as error:
        raise ConversionError(f"cannot read the representative dataset {representative}: {error}") from error
    if set(arrays) != set(specs):
        raise ConversionError(f"the representative dataset has inputs {sorted(arrays)}, the model {sorted(specs)}")
    counts = {name: len(array) if array.ndim else 0 for name, array in arrays.items()}
    if len(set(counts.values())) != 1 or 0 in counts.values():
        raise ConversionError(f"the representative dataset needs the same number of samples, 1 or more (got {counts})")
    return {name: _fit(name, array, specs[name]) for name, array in arrays.items()}


def _fit(name: str, array: NDArray[Any], spec: Any) -> NDArray[Any]:
    """One array in the type of its input."""
    if not spec.shape[1:].is_compatible_with(array.shape[1:]):
        raise ConversionError(
            f"the representative dataset's {name!r} has samples of shape {list(array.shape[1:])}, "
            f"the model takes {spec.shape[1:].as_list()}"
        )
    if not np.issubdtype(array.dtype, np.number) and array.dtype != np.bool_:
        raise ConversionError(f"the representative dataset's {name!r} is not numeric (got {array.dtype})")
    cast: NDArray[Any] = array.astype(spec.dtype.as_numpy_dtype)
    if not np.isfinite(cast).all():  # one Inf segfaults the calibrator, one NaN spoils every scale in silence
        bad = int(np.argmin(np.isfinite(cast).reshape(len(cast), -1).all(axis=1)))
        raise ConversionError(
            f"the representative dataset's {name!r} is not finite (first in sample {bad})",
            "remove NaN and infinite values from the training data",
        )
    return cast


def batches(samples: Arrays, size: int) -> Iterator[Arrays]:
    """Batches of exactly `size` samples, the last one filled up from the front."""
    count = len(next(iter(samples.values())))
    for start in range(0, count, size):
        chosen = np.arange(start, start + size) % count
        yield {name: array[chosen] for name, array in samples.items()}

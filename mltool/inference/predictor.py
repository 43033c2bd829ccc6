"""The one protocol through which every verb sees a model, whatever runs underneath."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np

from mltool.data.source import ArrayLike
from mltool.errors import ArtifactError, DataError

Array = np.ndarray[Any, Any]
Batch = Mapping[str, ArrayLike]


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One input or output.

    Attributes:
        name: in the signature.
        dtype: as stored in the artifact; a predictor takes text for `string` and else float32, and gives float32.
        shape: of one sample, without the batch axis; None where free.
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...]


class Predictor(Protocol):
    """Takes a batch of named inputs and returns a batch of named outputs.

    Attributes:
        runtime: what runs underneath, with its version, such as `LiteRT 2.3.0`.
        inputs: by name.
        outputs: by name.
        fixed_batch: samples that every call takes; None where it is free.
    """

    runtime: str
    fixed_batch: int | None
    inputs: Mapping[str, TensorInfo]
    outputs: Mapping[str, TensorInfo]

    def predict(self, batch: Batch) -> dict[str, Array]:
        """Runs the model.

        Args:
            batch: every input by name, [samples, ...]: numbers of any type, which the runtime sees as float32, or text.

        Returns:
            Every output by name, float32 [samples, ...].

        Raises:
            DataError: if a name or a shape is not the model's, or there are no samples.
        """
        ...

    def latencies_ms(self, batch: Batch, *, warmup: int, runs: int) -> Array:
        """Milliseconds of each of `runs` calls with the same batch, after `warmup` calls; float64 [runs]."""
        ...

    def close(self) -> None:
        """Lets go of what runs underneath."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


BATCH_SIZE = 256
"""Samples of one call where the runtime leaves the choice: large enough to amortise a call, small enough for memory."""


class BasePredictor:
    """What every predictor has: the check of its batch, timing, and a context manager."""

    runtime: str
    inputs: Mapping[str, TensorInfo]
    outputs: Mapping[str, TensorInfo]
    fixed_batch: int | None = None

    def parts(self, batch: Batch, size: int = BATCH_SIZE) -> Iterator[dict[str, Array]]:
        """The batch in runs of at most `size` samples, in float32, in the order of the inputs.

        Only the run at hand is copied: a test set of bytes would be four times as large as float32.

        Raises:
            DataError: if a name is missing or unknown, a shape does not fit, or there are no samples.
        """
        self._require_fitting(batch)
        for part in in_batches(batch, size):
            yield {name: _ready(part[name], info) for name, info in self.inputs.items()}

    def _require_fitting(self, batch: Batch) -> None:
        if set(batch) != set(self.inputs):
            message = f"the model takes {', '.join(self.inputs)} (got {', '.join(batch) or 'nothing'})"
            raise DataError(message, "name the arrays so")
        for name, info in self.inputs.items():
            array = batch[name]
            wanted_kind = "text" if info.dtype == "string" else "numbers"
            if (array.dtype.kind == "U") != (wanted_kind == "text") or array.dtype.kind not in "uifbU":
                raise DataError(f"input {name!r} takes {wanted_kind} (got {array.dtype})", f"give {wanted_kind}")
            found = tuple(array.shape[1:])
            fits = len(found) == len(info.shape) and all(w in (None, f) for w, f in zip(info.shape, found, strict=True))
            if len(array.shape) == 0 or not fits:
                wanted = tuple("any" if size is None else size for size in info.shape)
                raise DataError(
                    f"input {name!r} takes samples of shape {wanted} (got an array of shape {array.shape})",
                    "the first axis counts the samples",
                )
        counts = {name: len(batch[name]) for name in self.inputs}
        if len(set(counts.values())) != 1 or 0 in counts.values():
            raise DataError(f"every input needs the same number of samples, at least 1 (got {counts})")

    def latencies_ms(self, batch: Batch, *, warmup: int, runs: int) -> Array:
        """Times whole calls of `predict`; see `Predictor`."""
        for _ in range(warmup):
            self.predict(batch)
        times = np.empty(runs)
        for index in range(runs):
            start = time.perf_counter()
            self.predict(batch)
            times[index] = (time.perf_counter() - start) * 1e3
        return times

    def predict(self, batch: Batch) -> dict[str, Array]:
        """See `Predictor`."""
        raise NotImplementedError

    def close(self) -> None:
        """Nothing to let go of, unless a predictor says otherwise."""

    def __enter__(self) -> Self:
        """The predictor itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes it."""
        self.close()


def _ready(array: Array, info: TensorInfo) -> Array:
    """Numbers as float32; text as objects, which TensorFlow takes for its own."""
    return array.astype(object) if info.dtype == "string" else np.ascontiguousarray(array, dtype=np.float32)


def in_batches(batch: Batch, size: int) -> Iterator[dict[str, Array]]:
    """The samples in runs of at most `size`."""
    for start in range(0, len(next(iter(batch.values()))), size):
        yield {name: array[start : start + size] for name, array in batch.items()}


def tensor_info(artifact: str, name: str, dtype: str, shape: Sequence[int | None] | None) -> TensorInfo:
    """An input or output of which the first axis counts the samples.

    Args:
        artifact: for messages.
        name: in the signature.
        dtype: numpy's name of it.
        shape: with the first axis; None or below 0 where free, None as a whole where the rank is not known.

    Raises:
        ArtifactError: if there is no such axis, or the tensor holds neither numbers nor text: nothing can feed it.
    """
    if not shape or dtype in ("resource", "variant", "bytes", "object"):
        what = f"of {dtype}" if shape else "without an axis of samples"
        raise ArtifactError(f"{artifact}: {name!r} is a tensor {what}, which this version cannot run")
    return TensorInfo(name, dtype, tuple(None if size is None or size < 0 else int(size) for size in shape[1:]))


def concatenated(parts: list[dict[str, Array]]) -> dict[str, Array]:
    """The outputs of several calls, one after the other."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

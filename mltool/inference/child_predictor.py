"""A file that is run in a child process, since a damaged one may crash its runtime: what all such predictors share."""

import contextlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from mltool.child import Child, ChildCrashed, ChildTimedOut
from mltool.errors import ArtifactError
from mltool.inference.predictor import BATCH_SIZE, Array, BasePredictor, Batch, concatenated, tensor_info

TIMEOUT_SECONDS = 600.0
"""A call of the child that takes longer is taken for hung."""

MESSAGE_BYTES = 16 * 1024 * 1024
"""Most input bytes of one message to the child: a test set goes there in parts, not in three copies at once."""


class ChildPredictor(BasePredictor):
    """Runs a file in a child process, by three functions of the runtime's module: describe_file, run_file, time_file.

    Args:
        path: the file.
        child: a warm process to run it in; one of its own when left out.
        threads: of the runtime.

    Raises:
        ArtifactError: if the file is missing, damaged, or crashes the runtime.
    """

    module: ClassVar[str]
    """That holds the three functions."""

    words: ClassVar[str]
    """The runtime in messages."""

    def __init__(self, path: Path, *, child: Child | None = None, threads: int = 1) -> None:
        if not path.is_file():
            raise ArtifactError(f"{path} is missing")
        self._own = child is None
        self._child = child or Child()
        self._file: dict[str, Any] = {"path": str(path.absolute()), "mark": _mark(path), "threads": threads}
        with contextlib.ExitStack() as on_failure:
            on_failure.callback(self.close)
            described = self._call("describe_file")
            self._require_runnable(str(path), described)
            self.inputs, self.outputs = (
                {name: tensor_info(str(path), name, *info) for name, info in described[ends].items()}
                for ends in ("inputs", "outputs")
            )
            on_failure.pop_all()
        self.fixed_batch: int | None = described["batch"]

    def _require_runnable(self, path: str, described: Mapping[str, Any]) -> None:
        """For a runtime that runs files whose ends we cannot take; nothing to refuse, unless one says otherwise."""

    def predict(self, batch: Batch) -> dict[str, Array]:
        """See `Predictor`."""
        return concatenated([self._call("run_file", batch=part) for part in self.parts(batch, self._message_size())])

    def latencies_ms(self, batch: Batch, *, warmup: int, runs: int) -> Array:
        """Times the runtime inside the child, without the way there and back; see `Predictor`."""
        size = self.fixed_batch or len(next(iter(batch.values())))
        one = next(self.parts({name: array[:size] for name, array in batch.items()}, size))
        found: Array = self._call("time_file", batch=one, warmup=warmup, runs=runs)
        return found

    def close(self) -> None:
        """Ends the child, if it is this predictor's own."""
        if self._own:
            self._child.close()

    def _message_size(self) -> int:
        """Samples of one message: whole batches of the file, or one call's where the file leaves the batch free."""
        sample = sum(4 * math.prod(size or 1 for size in info.shape) for info in self.inputs.values())
        most = max(1, MESSAGE_BYTES // max(sample, 1))
        if self.fixed_batch is None:
            return min(most, BATCH_SIZE)
        return max(self.fixed_batch, most // self.fixed_batch * self.fixed_batch)

    def _call(self, function: str, **arguments: Any) -> Any:
        try:
            return self._child.call(
                f"{self.module}:{function}", timeout_seconds=TIMEOUT_SECONDS, **self._file, **arguments
            )
        except (ChildCrashed, ChildTimedOut) as error:
            message = f"{self._file['path']}: {self.words} {error.status}"
            raise ArtifactError(message, "the file is damaged, or this runtime cannot run it") from error


Mark = tuple[int, int, int]


def _mark(path: Path) -> Mark:
    """Tells a file that was written anew from the one that the child may hold open."""
    stat = path.stat()
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


def padded(array: Array, size: int) -> Array:
    """The last sample again and again, until there are `size`; what has more stays."""
    missing = size - len(array)
    return np.concatenate([array, np.repeat(array[-1:], missing, axis=0)]) if missing > 0 else array

"""An `.onnx` file as a predictor: ONNX Runtime on the CPU, in a child process, since a damaged file may crash it."""

import functools
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mltool import extras
from mltool.child import Child, ChildCrashed, ChildTimedOut
from mltool.errors import ArtifactError
from mltool.inference.predictor import BATCH_SIZE, Array, BasePredictor, Batch, concatenated, in_batches, tensor_info

TIMEOUT_SECONDS = 600.0
"""A call of the child that takes longer is taken for hung."""

MESSAGE_BYTES = 16 * 1024 * 1024
"""Most input bytes of one message to the child: a test set goes there in parts, not in three copies at once."""

_NUMPY_NAMES = {"float": "float32", "double": "float64"}
"""ONNX Runtime's names of types that are called otherwise in NumPy; see `_dtype`."""


class OnnxPredictor(BasePredictor):
    """Runs an `.onnx` file in a child process.

    Args:
        path: the file.
        child: a warm process to run it in; one of its own when left out.
        threads: of ONNX Runtime.

    Raises:
        ArtifactError: if the file is missing, damaged, or crashes ONNX Runtime.
        MissingExtraError: if ONNX Runtime is not installed.
    """

    def __init__(self, path: Path, *, child: Child | None = None, threads: int = 1) -> None:
        if not path.is_file():
            raise ArtifactError(f"{path} is missing")
        extras.require_installed("onnxruntime")
        self._own = child is None
        self._child = child or Child()
        stat = path.stat()
        # The mark tells a file that was written anew from the one that the child may hold open.
        mark = (stat.st_ino, stat.st_size, stat.st_mtime_ns)
        self._file: dict[str, Any] = {"path": str(path.absolute()), "mark": mark, "threads": threads}
        self.runtime = f"ONNX Runtime {extras.version_of('onnxruntime')}"
        try:
            described = self._call("describe_model")
            _require_runnable(str(path), described)
            self.inputs, self.outputs = (
                {name: tensor_info(str(path), name, dtype, shape) for name, (dtype, shape) in described[ends].items()}
                for ends in ("inputs", "outputs")
            )
        except BaseException:
            self.close()
            raise
        self.fixed_batch: int | None = described["batch"]

    def predict(self, batch: Batch) -> dict[str, Array]:
        """See `Predictor`."""
        return concatenated([self._call("run_model", batch=part) for part in self.parts(batch, self._message_size())])

    def latencies_ms(self, batch: Batch, *, warmup: int, runs: int) -> Array:
        """Times ONNX Runtime inside the child, without the way there and back; see `Predictor`."""
        size = self.fixed_batch or len(next(iter(batch.values())))
        one = next(self.parts({name: array[:size] for name, array in batch.items()}, size))
        found: Array = self._call("time_model", batch=one, warmup=warmup, runs=runs)
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
                f"mltool.inference.onnx_predictor:{function}",
                timeout_seconds=TIMEOUT_SECONDS,
                **self._file,
                **arguments,
            )
        except (ChildCrashed, ChildTimedOut) as error:
            status = (
                error.status if isinstance(error, ChildCrashed) else f"did not answer in {error.timeout_seconds:g} s"
            )
            message = f"{self._file['path']}: ONNX Runtime {status}"
            raise ArtifactError(message, "the file is damaged, or this runtime cannot run it") from error


def _require_runnable(path: str, described: Mapping[str, Any]) -> None:
    """Refuses answers in words, and numbers that NumPy has no type for.

    Raises:
        ArtifactError: naming the input or output.
    """
    for name, (dtype, _) in (*described["inputs"].items(), *described["outputs"].items()):
        unknown = dtype != "string" and not _is_known(dtype)
        if unknown or (dtype == "string" and name in described["outputs"]):
            message = f"{path}: {name!r} is a tensor of {dtype}, which this version cannot run"
            raise ArtifactError(message, "write the file with numbers of 32 bits at its ends")


def _is_known(dtype: str) -> bool:
    try:
        return np.dtype(dtype).isbuiltin == 1  # another package may have told NumPy of more, which the child has not
    except TypeError:
        return False


# What follows runs inside the child.

_Mark = tuple[int, int, int]


@functools.lru_cache(maxsize=4)
def _open(path: str, mark: _Mark, threads: int) -> Any:
    """A session on the CPU."""
    onnxruntime = extras.require("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3  # errors alone
    try:
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    # ONNX Runtime's own errors have no common class but this one.
    except Exception as error:
        message = f"{path} cannot be loaded: {' '.join(str(error).split())[:200]}"
        raise ArtifactError(message, "the file is damaged, or of operators that ONNX Runtime has not") from error


def describe_model(path: str, mark: _Mark, threads: int) -> dict[str, Any]:
    """Dtype and shape of every input and output, by name, and the batch where it is fixed."""
    session = _open(path, mark, threads)
    inputs, outputs = (
        {end.name: (_dtype(end.type), [size if isinstance(size, int) else None for size in end.shape]) for end in ends}
        for ends in (session.get_inputs(), session.get_outputs())
    )
    batched = inputs and all(shape for _, shape in inputs.values())
    return {"inputs": inputs, "outputs": outputs, "batch": _fixed_batch(session) if batched else None}


def _dtype(kind: str) -> str:
    """NumPy's name of `tensor(float)` and its like; `object` for what is no tensor, such as a map of probabilities."""
    if not kind.startswith("tensor("):
        return "object"
    inner = kind.removeprefix("tensor(").removesuffix(")")
    return _NUMPY_NAMES.get(inner, inner)


def run_model(path: str, mark: _Mark, threads: int, batch: dict[str, Array]) -> dict[str, Array]:
    """The outputs for a batch of any size, float32; a file of a fixed batch is called as often as it takes."""
    session = _open(path, mark, threads)
    size = _fixed_batch(session) or len(next(iter(batch.values())))
    names = [end.name for end in session.get_outputs()]
    parts = []
    for part in in_batches(batch, max(size, 1)):
        count = len(next(iter(part.values())))
        ready = _ready(session, part, size)
        values = _run(path, session, ready)
        given = len(next(iter(ready.values())))
        for name, value in zip(names, values, strict=True):
            if len(value) != given:
                raise ArtifactError(f"{path}: {name!r} gives {len(value)} answers for {given} samples")
        parts.append(
            {name: value[:count].astype(np.float32) for name, value in zip(names, values, strict=True)},
        )
    return concatenated(parts)


def time_model(path: str, mark: _Mark, threads: int, *, batch: dict[str, Array], warmup: int, runs: int) -> Array:
    """Milliseconds of each call with one batch, its size the file's where that is fixed; float64 [runs]."""
    session = _open(path, mark, threads)
    inputs = _ready(session, batch, _fixed_batch(session) or len(next(iter(batch.values()))))
    times = np.empty(runs)
    for _ in range(warmup):
        _run(path, session, inputs)
    for index in range(runs):
        start = time.perf_counter()
        _run(path, session, inputs)
        times[index] = (time.perf_counter() - start) * 1e3
    return times


def _run(path: str, session: Any, inputs: Mapping[str, Array]) -> Sequence[Array]:
    try:
        values: Sequence[Array] = session.run(None, dict(inputs))
    except Exception as error:  # as in `_open`
        raise ArtifactError(f"{path} cannot be run: {' '.join(str(error).split())[:200]}") from error
    return values


def _fixed_batch(session: Any) -> int | None:
    sizes = [end.shape[0] for end in session.get_inputs()]
    return sizes[0] if all(isinstance(size, int) for size in sizes) else None


def _ready(session: Any, part: Mapping[str, Array], size: int) -> dict[str, Array]:
    """The file's own types; the last sample again and again, until the batch is as large as the file wants it."""
    ready = {}
    for end in session.get_inputs():
        array = part[end.name]
        if len(array) < size:
            array = np.concatenate([array, np.repeat(array[-1:], size - len(array), axis=0)])
        ready[end.name] = array if array.dtype == object else array.astype(_dtype(end.type))
    return ready

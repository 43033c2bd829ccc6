"""An `.onnx` file as a predictor: ONNX Runtime on the CPU, in a child process, since a damaged file may crash it."""

import functools
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mltool import extras
from mltool.child import Child
from mltool.errors import ArtifactError
from mltool.inference.child_predictor import ChildPredictor, Mark, padded
from mltool.inference.predictor import Array, concatenated, in_batches

_NUMPY_NAMES = {"float": "float32", "double": "float64"}
"""ONNX Runtime's names of types that are called otherwise in NumPy; see `_dtype`."""


class OnnxPredictor(ChildPredictor):
    """Runs an `.onnx` file in a child process.

    Args:
        path: the file.
        child: a warm process to run it in; one of its own when left out.
        threads: of ONNX Runtime.

    Raises:
        ArtifactError: if the file is missing, damaged, or crashes ONNX Runtime.
        MissingExtraError: if ONNX Runtime is not installed.
    """

    module = "mltool.inference.onnx_predictor"
    words = "ONNX Runtime"

    def __init__(self, path: Path, *, child: Child | None = None, threads: int = 1) -> None:
        if path.is_file():  # what is missing needs no runtime to be told
            extras.require_installed("onnxruntime")
        super().__init__(path, child=child, threads=threads)
        self.runtime = f"ONNX Runtime {extras.version_of('onnxruntime')}"

    def _require_runnable(self, path: str, described: Mapping[str, Any]) -> None:
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


@functools.lru_cache(maxsize=4)
def _open(path: str, mark: Mark, threads: int) -> Any:
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


def describe_file(path: str, mark: Mark, threads: int) -> dict[str, Any]:
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


def run_file(path: str, mark: Mark, threads: int, batch: dict[str, Array]) -> dict[str, Array]:
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


def time_file(path: str, mark: Mark, threads: int, *, batch: dict[str, Array], warmup: int, runs: int) -> Array:
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
        array = padded(part[end.name], size)
        ready[end.name] = array if array.dtype == object else array.astype(_dtype(end.type))
    return ready

"""A `.tflite` file as a predictor: LiteRT's interpreter, which a damaged file can crash, in a child process."""

import contextlib
import functools
import os
import platform
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mltool import extras
from mltool.child import Child
from mltool.errors import ArtifactError
from mltool.inference.child_predictor import ChildPredictor, Mark, padded
from mltool.inference.predictor import Array, concatenated, in_batches


class LiteRtPredictor(ChildPredictor):
    """Runs a `.tflite` file in a child process.

    Inputs and outputs of integer files are quantized and dequantized here, with the file's own scales, so that every
    predictor takes and gives the same numbers.

    Args:
        path: the file.
        child: a warm process to run it in; one of its own when left out.
        threads: of the interpreter.

    Raises:
        ArtifactError: if the file is missing, damaged, or crashes the interpreter.
    """

    module = "mltool.inference.litert"
    words = "the interpreter"

    def __init__(self, path: Path, *, child: Child | None = None, threads: int = 1) -> None:
        super().__init__(path, child=child, threads=threads)
        self.runtime = runtime_name()


def runtime_name() -> str:
    """`LiteRT`, its version, and the processor: what must be equal for bit-equal answers."""
    return f"LiteRT {extras.version_of('ai-edge-litert')} on {_processor()}"


@functools.cache
def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


# What follows runs inside the child.


@functools.lru_cache(maxsize=4)
def _open(path: str, mark: Mark, threads: int) -> Any:
    """An interpreter with its tensors allocated, and the runner of its signature."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # read at the import
    litert = extras.require("ai_edge_litert.interpreter")
    try:
        interpreter = litert.Interpreter(model_path=path, num_threads=threads)
        interpreter.allocate_tensors()
        signatures = interpreter.get_signature_list()
        if not signatures:
            raise ArtifactError(f"{path} has no signature", "convert it again; inputs are addressed by name")
        runner = interpreter.get_signature_runner(next(iter(signatures)))
    except (ValueError, RuntimeError) as error:
        raise ArtifactError(f"{path} cannot be loaded: {' '.join(str(error).split())[:200]}") from error
    return interpreter, runner


def describe_file(path: str, mark: Mark, threads: int) -> dict[str, Any]:
    """Dtype and shape of every input and output, by name, and the batch where it is fixed."""
    _, runner = _open(path, mark, threads)
    inputs, outputs = _described(runner.get_input_details()), _described(runner.get_output_details())
    batched = inputs and all(shape for _, shape in inputs.values())
    return {"inputs": inputs, "outputs": outputs, "batch": _fixed_batch(runner) if batched else None}


def _described(details: Mapping[str, Any]) -> dict[str, tuple[str, list[int]]]:
    """Dtype and shape, by name; LiteRT gives the type of text as numpy's class for bytes."""
    return {
        name: (
            "bytes" if np.dtype(info["dtype"]).kind in "SO" else np.dtype(info["dtype"]).name,
            info["shape_signature"].tolist(),
        )
        for name, info in details.items()
    }


def run_file(path: str, mark: Mark, threads: int, batch: dict[str, Array]) -> dict[str, Array]:
    """The outputs for a batch of any size; a file of a fixed batch is called as often as it takes."""
    interpreter, runner = _open(path, mark, threads)
    size = _fixed_batch(runner) or len(next(iter(batch.values())))
    parts = []
    for part in in_batches(batch, max(size, 1)):
        count = len(next(iter(part.values())))
        with _refusals(path):
            # State of a recurrent layer would leak from one sample into the next.
            interpreter.reset_all_variables()
            outputs = _dequantized(runner, runner(**_quantized(runner, part, size)))
        parts.append({name: array[:count] for name, array in outputs.items()})
    return concatenated(parts)


@contextlib.contextmanager
def _refusals(path: str) -> Iterator[None]:
    """What the interpreter raises when it cannot run a file."""
    try:
        yield
    except (ValueError, RuntimeError) as error:
        raise ArtifactError(f"{path} cannot be run: {' '.join(str(error).split())[:200]}") from error


def time_file(path: str, mark: Mark, threads: int, *, batch: dict[str, Array], warmup: int, runs: int) -> Array:
    """Milliseconds of each call with one batch, its size the file's where that is fixed; float64 [runs]."""
    _, runner = _open(path, mark, threads)
    size = _fixed_batch(runner) or len(next(iter(batch.values())))
    inputs = _quantized(runner, batch, size)
    times = np.empty(runs)
    with _refusals(path):
        for _ in range(warmup):
            runner(**inputs)
        for index in range(runs):
            start = time.perf_counter()
            runner(**inputs)
            times[index] = (time.perf_counter() - start) * 1e3
    return times


def _fixed_batch(runner: Any) -> int | None:
    sizes = [int(info["shape_signature"][0]) for info in runner.get_input_details().values()]
    return None if any(size < 0 for size in sizes) else sizes[0]


def _quantized(runner: Any, batch: Mapping[str, Array], size: int) -> dict[str, Array]:
    """A batch of `size`; floats as integers: round(x / scale) + zero_point, clipped.

    (LiteRT 8-bit quantization specification.)
    """
    ready = {}
    for name, info in runner.get_input_details().items():
        dtype, (scale, zero_point) = np.dtype(info["dtype"]), info["quantization"]
        array = padded(batch[name], size)
        if dtype.kind in "iu" and scale:
            limits = np.iinfo(dtype)
            array = np.clip(np.round(array / scale) + zero_point, limits.min, limits.max)
        ready[name] = array.astype(dtype)
    return ready


def _dequantized(runner: Any, outputs: Mapping[str, Array]) -> dict[str, Array]:
    """The file's integers to floats: (q - zero_point) * scale."""
    ready = {}
    for name, info in runner.get_output_details().items():
        scale, zero_point = info["quantization"]
        array = outputs[name].astype(np.float32)
        integer = np.dtype(info["dtype"]).kind in "iu" and scale
        ready[name] = ((array - zero_point) * np.float32(scale)).astype(np.float32) if integer else array
    return ready

"""Latency and throughput of an artifact on this host."""

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mltool.errors import UsageError
from mltool.inference.open import kind_of, open_predictor
from mltool.inference.predictor import Array

PERCENTILES = (50, 90, 99)


def percentiles_of(times_ms: Array) -> dict[str, float]:
    """p50, p90 and p99 of some latencies, to the nanosecond."""
    return {f"p{share}": round(float(np.percentile(times_ms, share)), 6) for share in PERCENTILES}


@dataclass(frozen=True)
class BenchmarkResult:
    """What was measured.

    Attributes:
        artifact: that was run.
        runtime: what ran it, with its version.
        threads: of the runtime; None where it decides itself.
        batch: samples of one call.
        warmup: calls before the first that counts.
        runs: calls that count.
        latency_ms: p50, p90 and p99 of one call, in milliseconds.
        throughput_per_second: samples a second at the median.
        host: the machine's name.
    """

    artifact: Path
    runtime: str
    threads: int | None
    batch: int
    warmup: int
    runs: int
    latency_ms: Mapping[str, float]
    throughput_per_second: float
    host: str

    def to_json(self) -> dict[str, Any]:
        """As `--json` prints it."""
        return {
            "artifact": str(self.artifact),
            "runtime": self.runtime,
            "threads": self.threads,
            "batch": self.batch,
            "warmup": self.warmup,
            "runs": self.runs,
            "latency_ms": dict(self.latency_ms),
            "throughput_per_second": self.throughput_per_second,
            "host": self.host,
        }


def benchmark(
    artifact: Path, *, batch: int = 1, threads: int = 1, warmup: int = 20, runs: int = 200
) -> BenchmarkResult:
    """Times calls of an artifact with random inputs; a `.tflite` file of a fixed batch is called with that.

    A latency of this host says little about a device: int8 files were measured 1.4 to 2.6 times slower than float here.

    Args:
        artifact: a `.keras` file, a SavedModel folder, a `.tflite` or `.onnx` file.
        batch: samples of one call, where the file leaves it free.
        threads: of LiteRT's interpreter and ONNX Runtime; TensorFlow takes what it wants.
        warmup: calls before the first that counts.
        runs: calls that count.

    Raises:
        ArtifactError: if the artifact is missing or damaged.
        UsageError: if a number is below its least.
    """
    for name, value, least in (("batch", batch, 1), ("threads", threads, 1), ("warmup", warmup, 0), ("runs", runs, 1)):
        if value < least:
            raise UsageError(f"--{name} must be at least {least} (got {value})")
    with open_predictor(artifact, threads=threads) as predictor:
        if any(size is None for info in predictor.inputs.values() for size in info.shape):
            message = f"{artifact} has inputs of a free size"
            raise UsageError(message, "convert it with fixed sizes; only the batch may be free here")
        size = predictor.fixed_batch or batch
        random = np.random.default_rng(0)
        inputs = {
            name: random.random((size, *(int(n or 1) for n in info.shape)), dtype=np.float32)
            for name, info in predictor.inputs.items()
        }
        latency = percentiles_of(predictor.latencies_ms(inputs, warmup=warmup, runs=runs))
        return BenchmarkResult(
            artifact=artifact,
            runtime=predictor.runtime,
            threads=threads if kind_of(artifact) in ("litert", "onnx") else None,
            batch=size,
            warmup=warmup,
            runs=runs,
            latency_ms=latency,
            throughput_per_second=round(size * 1e3 / latency["p50"], 1),
            host=platform.node(),
        )

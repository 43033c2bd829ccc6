"""Latencies are counted, named and bounded; how long they are is the machine's business."""

import numpy as np
import pytest

from mltool.benchmarking.benchmark import benchmark, percentiles_of
from mltool.errors import ArtifactError, UsageError

KEYS = {"artifact", "runtime", "threads", "batch", "warmup", "runs", "latency_ms", "throughput_per_second", "host"}


def test_percentiles_by_hand():
    assert percentiles_of(np.arange(1, 102, dtype=float)) == {"p50": 51.0, "p90": 91.0, "p99": 100.0}


@pytest.mark.parametrize(
    ("name", "batch", "threads"),
    [("lite/none.tflite", 1, 1), ("lite/five.tflite", 5, 1), ("lite/free.tflite", 3, 1), ("model.keras", 3, None)],
)
def test_a_file_of_a_fixed_batch_is_called_with_that(made, name, batch, threads):
    found = benchmark(made / name, batch=3, warmup=1, runs=5)
    assert (found.batch, found.threads, found.warmup, found.runs) == (batch, threads, 1, 5)
    document = found.to_json()
    assert set(document) == KEYS
    assert set(document["latency_ms"]) == {"p50", "p90", "p99"}
    assert 0 < found.latency_ms["p50"] <= found.latency_ms["p90"] <= found.latency_ms["p99"]
    assert found.throughput_per_second == pytest.approx(batch * 1e3 / found.latency_ms["p50"], rel=0.01)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch": 0}, r"--batch must be at least 1 \(got 0\)"),
        ({"threads": 0}, r"--threads must be at least 1"),
        ({"warmup": -1}, r"--warmup must be at least 0"),
        ({"runs": 0}, r"--runs must be at least 1"),
    ],
)
def test_numbers_below_their_least_are_refused(made, arguments, message):
    with pytest.raises(UsageError, match=message):
        benchmark(made / "lite/none.tflite", **arguments)


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ArtifactError, match="is missing"):
        benchmark(tmp_path / "gone.tflite")

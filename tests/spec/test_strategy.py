"""`train.strategy` and what stands beside it: every mistake is told without TensorFlow, what is right reads back."""

import pytest

from mltool.spec.spec import to_plain
from mltool.spec.strategy import STRATEGIES, MirroredStrategy, MultiWorkerStrategy

MISTAKES = {
    "a typo": ("mirorred", "train.strategy: unknown strategy 'mirorred'; did you mean 'mirrored'?"),
    "nothing like it": ("horovod", "known: auto, one_device, mirrored, multi_worker"),
    "a number": (3, "must be a strategy (got 3); write mirrored, or mirrored: {devices: [GPU:0]}"),
    "a typo with arguments": ({"miror": {}}, "unknown strategy 'miror'; did you mean 'mirrored'?"),
    "two strategies": ({"mirrored": {}, "tpu": {}}, "must be a strategy (got"),
    "a place of no TPU": (
        {"tpu": {"zone": "us-a"}},
        "strategy.tpu.zone: zone is of a TPU that is named; add name",
    ),
    "arguments that are none": ({"tpu": "v4"}, "must be a map of arguments (got 'v4')"),
    "an unknown argument": (
        {"mirrored": {"device": ["GPU:0"]}},
        "train.strategy.mirrored.device: unknown argument; did you mean 'devices'?",
    ),
    "an argument of another": ({"auto": {"devices": ["GPU:0"]}}, "unknown argument; it takes none"),
    "no device": (
        {"one_device": {"device": "gpu"}},
        "train.strategy.one_device.device: must be a device (got 'gpu'); write GPU:0, GPU:1, ... or CPU:0",
    ),
    "no devices": ({"mirrored": {"devices": []}}, "train.strategy.mirrored.devices"),
    "a device twice": (
        {"mirrored": {"devices": ["GPU:0", "GPU:1", "GPU:0"]}},
        "train.strategy.mirrored.devices.2: GPU:0 stands twice; name every device once",
    ),
    "devices of two kinds": ({"mirrored": {"devices": ["GPU:0", "CPU:0"]}}, "devices of one kind are needed"),
    "another communication": ({"multi_worker": {"communication": "mpi"}}, "train.strategy.multi_worker.communication"),
    "no time": ({"multi_worker": {"start_timeout": "soon"}}, "must be a time above 0 (got 'soon')"),
}


@pytest.mark.parametrize(("value", "expected"), MISTAKES.values(), ids=MISTAKES)
def test_a_strategy_is_checked(value, expected, bench):
    assert expected in str(bench.refused({"train.strategy": value}))


OTHERS = {
    "no part": ("train.accumulate", 0, "train.accumulate: must be at least 1 (got 0)"),
    "more parts than samples": ("train.accumulate", 1000, "train.accumulate: 1000 parts of a batch of"),
    "another precision": ("train.precision", "float16", "train.precision"),
    "no threads": ("train.threads", 0, "train.threads: must be at least 1 (got 0)"),
    "a word for XLA": ("train.jit_compile", "yes", "train.jit_compile"),
    "a number for determinism": ("train.deterministic", 1, "train.deterministic"),
}


@pytest.mark.parametrize(("key", "value", "expected"), OTHERS.values(), ids=OTHERS)
def test_what_stands_beside_it_is_checked(key, value, expected, bench):
    assert expected in str(bench.refused({key: value}))


def test_a_strategy_reads_back_as_it_was_written(bench):
    for value in ("auto", "tpu", {"mirrored": {"devices": ["CPU:0", "CPU:1"]}}, {"tpu": {"name": "mine"}}):
        assert to_plain(bench.load({"train.strategy": value}).train.strategy) == value
    assert to_plain(bench.load({"train.strategy": {"multi_worker": {}}}).train.strategy) == "multi_worker"


def test_a_time_has_a_unit(bench):
    strategy = bench.load({"train.strategy": {"multi_worker": {"start_timeout": "2 min"}}}).train.strategy
    assert strategy == MultiWorkerStrategy(start_timeout=120.0)


def test_every_strategy_is_called_after_itself():
    assert set(STRATEGIES) == {
        *("auto", "one_device", "mirrored", "multi_worker", "parameter_server", "central_storage", "tpu"),
    }
    assert STRATEGIES["mirrored"] is MirroredStrategy


def test_what_replicas_of_central_storage_cannot_share_is_refused(bench):
    changes = {
        "train.strategy": "central_storage",
        "train.precision": "mixed_float16",
        "train.optimizer": {"Adam": {"use_ema": True}},
    }
    found = str(bench.refused(changes))
    assert "train.precision: scales the loss by a state that replicas of central_storage cannot share" in found
    assert "train.optimizer.Adam.use_ema: replicas of central_storage cannot share an average; take mirrored" in found


TOO_SMALL = {
    "for all devices": (1, 1, "data.batch_size: a batch of 1 is not enough for 2 devices; take 2 or more"),
    "for all parts": (3, 2, "train.accumulate: 2 parts of a batch of 3 on each of 2 devices; data.batch_size is the"),
}


@pytest.mark.parametrize(("batch_size", "accumulate", "expected"), TOO_SMALL.values(), ids=TOO_SMALL)
def test_a_batch_that_is_too_small_is_told_at_the_key_that_asks_for_more(batch_size, accumulate, expected, bench):
    two = {"mirrored": {"devices": ["CPU:0", "CPU:1"]}}
    changes = {"data.batch_size": batch_size, "train.accumulate": accumulate, "train.strategy": two}
    (found,) = bench.refused({key: value for key, value in changes.items() if value != 1 or "batch" in key})
    assert found.startswith(expected)

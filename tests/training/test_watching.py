"""What a training says of itself while it runs: events, speed, and what holds it up."""

import logging
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mltool import console
from mltool.errors import Interrupted
from mltool.runs.run import Run
from mltool.spec.catalogue import KerasObject
from mltool.spec.data import DataSpec
from mltool.spec.outputs import OutputSpec
from mltool.spec.task import task_of
from mltool.training import watching
from mltool.training.checkpoints import Checkpoints
from mltool.training.loops.head import Head
from mltool.training.loops.loop import Loop
from mltool.training.records import Events, read_lines
from mltool.training.train import train
from mltool.training.watching import Bound, Waits, Watch, remark_of, shown_bytes, shown_result


def scalars(folder: Path) -> dict[tuple[int, str], list[float]]:
    """Every value of every point of all files of a TensorBoard run."""
    import tensorflow as tf

    found: dict[tuple[int, str], list[float]] = {}
    for file in folder.iterdir():
        for record in tf.data.TFRecordDataset(str(file)):
            event = tf.compat.v1.Event.FromString(record.numpy())
            for value in event.summary.value:
                found.setdefault((event.step, value.tag), []).append(float(tf.make_ndarray(value.tensor)))
    return found


def expected(run: Run, *, of_validation: bool) -> dict[tuple[int, str], list[Any]]:
    """The points that metrics.jsonl asks for."""
    return {
        (line["epoch"], f"epoch_{name.removeprefix('val_')}"): [pytest.approx(value)]
        for line in read_lines(run.metrics_file)
        for name, value in line.items()
        if name not in ("epoch", "step", "seconds") and name.startswith("val_") == of_validation and value is not None
    }


def assert_events_say_what_the_lines_say(run: Run) -> None:
    assert scalars(run.events_folder / "train") == expected(run, of_validation=False)
    assert scalars(run.events_folder / "validation") == expected(run, of_validation=True)


@pytest.mark.parametrize(
    ("names", "shown"),
    [
        (["/device:CPU:0"], "CPU"),
        (["/device:CPU:0", "/device:GPU:0"], "GPU"),
        ([f"/job:worker/replica:0/task:0/device:{name}" for name in ("CPU:0", "GPU:0", "GPU:1")], "2 GPUs"),
        ([f"/job:worker/replica:0/task:0/device:{name}" for name in ("CPU:0", "TPU:0")], "TPU"),
    ],
    ids=["a CPU", "a GPU", "GPUs of a worker", "a TPU of a worker"],
)
def test_devices_are_shown_by_their_kind(monkeypatch, names, shown):
    monkeypatch.setattr(watching, "device_names", lambda: names)
    assert watching._shown_devices() == shown


def test_events_hold_every_number_of_every_epoch_as_two_runs_with_the_same_names(trained_run):
    assert_events_say_what_the_lines_say(trained_run)
    names = {name for _, name in scalars(trained_run.events_folder / "train")}
    assert names == {"epoch_loss", "epoch_accuracy", "epoch_learning_rate", "epoch_samples_per_second"}
    assert {name for _, name in scalars(trained_run.events_folder / "validation")} == {"epoch_loss", "epoch_accuracy"}


def test_events_of_an_epoch_that_runs_again_are_there_once(features, make_run, monkeypatch):
    """Dies after the second epoch's events and before its checkpoint."""
    features["train"]["epochs"] = 3
    run = make_run(features)
    saves = iter(range(10))
    save = Checkpoints.save

    def dying(self, *arguments):
        if next(saves) == 1:
            raise KeyboardInterrupt
        save(self, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(Checkpoints, "save", dying)
        with pytest.raises(Interrupted, match=r"Ctrl-C: stopped at once; go on with: mltool train --resume .*run"):
            train(run)
    assert run.status == "interrupted"
    assert (2, "epoch_loss") in scalars(run.events_folder / "train")
    train(run)
    assert_events_say_what_the_lines_say(run)
    assert {epoch for epoch, _ in scalars(run.events_folder / "train")} == {1, 2, 3}


def test_a_number_that_is_none_is_no_point(tmp_path):
    events = Events(tmp_path)
    events.write({"epoch": 1, "loss": float("nan"), "val_auc": 0.5, "phase": 1, "step": 3, "seconds": 1.0})
    assert scalars(tmp_path / "validation") == {(1, "epoch_auc"): [0.5]}
    assert scalars(tmp_path / "train") == {}


class SmallPipeline:
    """10 batches of 8 samples but for the last one, of 4."""

    batch_size, num_samples = 8, 76


def test_the_speed_is_that_of_the_steps_that_were_not_compiled_too():
    watch = Watch(SmallPipeline())
    assert watch.samples_per_second is None
    assert watch.rate() == ""
    watch.took(0, 1, 60.0, Waits(0.0, 0.0))  # compiles
    assert watch.bound() is None
    watch.took(1, 8, 2.0, Waits(0.5, 0.2))
    watch.took(9, 1, 0.5, Waits(0.5, 0.0))
    assert watch.samples_per_second == pytest.approx((64 + 4) / 2.5)
    assert watch.rate() == "27 samples/s"
    assert watch.bound() == Bound("input", pytest.approx(0.4), pytest.approx(27.2), pytest.approx(68 / 1.5))
    watch.begin_epoch()
    assert watch.samples_per_second is None
    watch.took(0, 4, 1.0, Waits(0.19, 0.0))
    assert watch.bound() == Bound("compute", pytest.approx(0.19), pytest.approx(32.0), pytest.approx(32 / 0.81))
    watch.trace_anew()
    watch.took(4, 4, 9.0, Waits(0.0, 0.0))
    assert watch.samples_per_second == pytest.approx(32.0)


def test_a_chunk_in_which_a_step_was_compiled_says_nothing_of_the_speed():
    watch = Watch(SmallPipeline())
    watch.took(0, 1, 60.0, Waits(0.0, 0.0, compiled=True))
    watch.took(1, 8, 2.0, Waits(0.5, 0.2))
    watch.took(9, 1, 60.0, Waits(0.0, 0.0, compiled=True))  # the short batch at the end
    assert watch.samples_per_second == pytest.approx(64 / 2)
    assert watch.bound() == Bound("input", pytest.approx(0.25), pytest.approx(32.0), pytest.approx(64 / 1.5))


def test_waits_of_a_device_that_is_busy_meanwhile_do_not_count(monkeypatch):
    monkeypatch.setattr(watching, "device_names", lambda: ["/device:CPU:0", "/device:GPU:0", "/device:GPU:1"])
    watch = Watch(SmallPipeline())
    watch.took(0, 1, 1.0, Waits(0.0, 0.0))
    watch.took(0, 4, 1.0, Waits(0.6, 0.6))  # the last batch came when more than half of the work was still to do
    assert watch.bound() == Bound("compute", 0.0, pytest.approx(32.0), pytest.approx(32.0))
    watch.begin_epoch()
    watch.took(0, 4, 1.0, Waits(0.9, 0.15))  # one step was left: 0.15 s is what a step takes
    assert watch.bound() == Bound("input", pytest.approx(0.9), pytest.approx(32.0), pytest.approx(8 / 0.15))


def a_loop_and_batches() -> tuple[Any, Any]:
    import keras
    import tensorflow as tf

    inputs = keras.Input((3,), name="x")
    model = keras.Model(inputs, keras.layers.Dense(1)(inputs))
    loss = KerasObject("MeanSquaredError")
    output = OutputSpec.model_construct(loss=loss, metrics=())
    heads = [Head("", output, task=task_of(loss), shape=(1,))]
    loop = Loop(model, keras.optimizers.SGD(0.1), heads=lambda: heads, strategy=tf.distribute.get_strategy())
    batch = ({"x": np.ones((4, 3), np.float32)}, np.zeros((4, 1), np.float32), np.ones(4, np.float32))
    return loop, iter(tf.data.Dataset.from_tensors(batch).repeat(5))


def test_the_loop_adds_up_the_waits_of_its_steps(monkeypatch):
    """By a clock that ticks at every reading."""
    import tensorflow as tf

    readings: list[int] = []

    def tick():
        readings.append(0)
        return np.float64(len(readings))

    monkeypatch.setattr(tf, "timestamp", lambda: tf.ensure_shape(tf.numpy_function(tick, [], tf.float64), ()))
    loop, batches = a_loop_and_batches()
    done, times = loop.train_steps(batches, tf.constant(5, tf.int64))
    waited, arrived = times.numpy()
    assert int(done) == 5
    assert (waited, arrived) == (5.0, 10.0)


def test_the_loop_reads_the_clock_before_it_asks_for_a_batch_and_when_the_batch_is_there():
    """As the order of operations in the graph says it."""
    import tensorflow as tf

    loop, batches = a_loop_and_batches()
    graph = loop.train_steps.get_concrete_function(batches, tf.constant(5, tf.int64)).graph.as_graph_def()
    (body,) = [f.node_def for f in graph.library.function if any(n.op == "IteratorGetNext" for n in f.node_def)]
    (asks,) = [node for node in body if node.op == "IteratorGetNext"]
    clocks = {node.name: node for node in body if node.op == "Timestamp"}
    (before,) = [name for name in clocks if f"^{name}" in asks.input]
    (after,) = set(clocks) - {before}
    assert f"^{asks.name}" in clocks[after].input


def test_what_came_after_the_last_batch_is_told_by_the_clock(monkeypatch):
    monkeypatch.setattr(time, "time", lambda: 107.5)
    assert Waits.of(np.array([2.0, 107.0])) == Waits(2.0, 0.5)
    assert Waits.of(np.array([2.0, 109.0])) == Waits(2.0, 0.0), "a clock that was set back is no negative time"
    assert Waits.of((2.0, 107.0, 1.0)) == Waits(2.0, 0.5, compiled=True)
    assert Waits.of((2.0, 107.0, 0.0)) == Waits(2.0, 0.5)


@pytest.mark.parametrize(("by", "share"), [("input", 0.0), ("compute", 1.1)])
def test_what_holds_training_up_is_recorded_and_said_once(features, make_run, monkeypatch, caplog, by, share):
    monkeypatch.setattr(watching, "INPUT_BOUND_SHARE", share)
    monkeypatch.setattr(watching, "WORTH_SAYING_SECONDS", 0.0)
    run = make_run(features)
    with caplog.at_level(logging.INFO, logger="mltool"):
        train(run)
    said = [record.getMessage() for record in caplog.records if "bound: " in record.getMessage()]
    assert len(said) == 1
    assert said[0].startswith(f"{by}-bound: ")
    bound = run.manifest["bound"]
    assert bound["by"] == by
    assert 0 <= bound["wait_share"] <= 1
    assert 0 < bound["samples_per_second"] <= bound["model_samples_per_second"]


def test_of_a_short_epoch_nothing_is_said(features, make_run, monkeypatch, caplog):
    monkeypatch.setattr(watching, "WORTH_SAYING_SECONDS", 1e9)
    run = make_run(features)
    with caplog.at_level(logging.INFO, logger="mltool"):
        train(run)
    assert "bound: " not in caplog.text
    assert run.manifest["bound"]["by"] in ("input", "compute")


CURES = {
    "of what is decoded anew": ({"cache": "none"}, "data.cache: memory, a larger data.batch_size"),
    "of augmentation": ({"augment": ("RandomFlip",)}, "fewer or cheaper layers in data.augment, more processor cores"),
    "of neither": ({}, "what helps: a larger data.batch_size"),
}


@pytest.mark.parametrize(("keys", "cure"), CURES.values(), ids=CURES.keys())
def test_the_cure_is_one_that_the_spec_leaves(keys, cure):
    bound = Bound("input", 0.75, 1234.4, 4937.6)
    said = remark_of(bound, DataSpec.model_construct(**keys))
    assert said == (
        "input-bound: steps wait for data 75% of the time; the data come at 1,234 samples/s, the model could take"
        f" about 4,938; what helps: {cure.removeprefix('what helps: ')}"
    )
    compute = Bound("compute", 0.04, 882.0, 914.0)
    assert remark_of(compute, DataSpec.model_construct(**keys)) == (
        "compute-bound: 882 samples/s; steps wait for data 4% of the time"
    )


def as_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a command that ran in this process before has set."""
    monkeypatch.setattr(console, "_settings", console._Settings())


def test_the_bar_shows_speed_figures_rate_memory_and_device(features, make_run, monkeypatch):
    shown: list[tuple[int, str, str]] = []

    class Shown(console.Progress):
        is_shown = True

        def update(self, completed: int, note: str = "", rate: str = "") -> None:
            shown.append((completed, note, rate))

    as_library(monkeypatch)
    monkeypatch.setattr(console, "Progress", Shown)
    train(make_run(features))
    assert [completed for completed, _, _ in shown] == sorted(completed for completed, _, _ in shown)
    completed, note, rate = shown[-1]
    assert completed == 8
    assert re.fullmatch(r"epoch 2  loss \d\.\d{4}  accuracy \d\.\d{4}  lr 0\.01  [\d.]+ [MG]B  CPU", note)
    assert re.fullmatch(r"[\d,]+ samples/s", rate)


def test_the_line_of_an_epoch_tells_its_time_and_speed(features, make_run, monkeypatch):
    said: list[str] = []
    as_library(monkeypatch)
    monkeypatch.setattr(console.Progress, "line", lambda self, text: said.append(text))
    train(make_run(features))
    pattern = r"epoch \d/2  loss \S+  accuracy \S+  val_loss \S+  val_accuracy \S+  [\d.]+ s  [\d,]+ samples/s"
    assert len(said) == 2
    assert all(re.fullmatch(pattern, line) for line in said), said


RESULTS = {
    "a small one": (0.123456, "0.1235"),
    "one of thousands": (52_900.0, "52900.0000"),
    "one of millions": (-9_999_999.0, "-9999999.0000"),
    "a huge one": (3.7324252973253507e28, "3.7324e+28"),
    "a huge one below zero": (-2e7, "-2.0000e+07"),
    "no number": (float("nan"), "nan"),
    "no end": (float("inf"), "inf"),
}


@pytest.mark.parametrize(("value", "text"), RESULTS.values(), ids=RESULTS)
def test_a_result_is_shown_with_an_exponent_where_it_is_huge(value, text):
    assert shown_result(value) == text
    assert f"loss {text}  lr" in Watch(SmallPipeline()).figures({"loss": value}, 0.1)


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 KB"), (24_360, "24 KB"), (812_400_000, "812 MB"), (3_140_000_000, "3.1 GB")]
)
def test_sizes_are_said_in_their_unit(size, text):
    assert shown_bytes(size) == text

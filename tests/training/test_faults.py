"""What goes wrong in a training is told with its cause, left out, or gone back from, and resumes to the same bits."""

import dataclasses
import resource
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cuts import one_step_chunks

from mltool import extras
from mltool.data.order import epoch_order
from mltool.data.pipeline import Pipeline
from mltool.errors import ArtifactError, DiskError, Interrupted, MachineError, TrainingError
from mltool.runs.run import Run
from mltool.training import due
from mltool.training.checkpoints import Checkpoints, State, newest_file
from mltool.training.diagnosis import find_cause
from mltool.training.loops.loop import Loop
from mltool.training.records import read_lines
from mltool.training.setup import build_setup
from mltool.training.train import train

TRAINED_ON, BATCH, POISONED = 108, 32, 50
SAMPLES_OF_OTHERS = 150 - TRAINED_ON
COMPILED = Loop._compiled

CODE = """
import keras

class Cut(keras.layers.Layer):
    def call(self, inputs):
        return keras.ops.stop_gradient(inputs)

class Log(keras.layers.Layer):
    def call(self, inputs):
        return keras.ops.log(inputs)

class OfSquares(keras.layers.Layer):
    def call(self, inputs):
        squares = keras.ops.square(inputs)
        return inputs * (squares / squares)

def deaf(targets, outputs):
    return keras.ops.mean(keras.ops.square(keras.ops.stop_gradient(outputs) - targets), axis=-1)

def root_of_nothing(targets, outputs):
    return keras.ops.sum(keras.ops.sqrt(0.0 * outputs), axis=-1)
"""


COUNTING = """
import keras

class Counting(keras.callbacks.Callback):
    # Every fifth step halves the learning rate.
    steps = 0

    def on_train_batch_end(self, batch, logs=None):
        self.steps += 1
        if self.steps % 5 == 0:
            self.model.optimizer.learning_rate = float(self.model.optimizer.learning_rate) / 2

    def get_state(self):
        return {"steps": self.steps}

    def set_state(self, state):
        self.steps = state["steps"]
"""


@pytest.fixture
def values(tmp_path: Path, arrays: Path) -> dict[str, Any]:
    """A spec of a linear regression without any chance but the order; sample 50 of 108 brings an infinite loss."""
    (tmp_path / "faulty.py").write_text(CODE, encoding="utf-8")
    stored = dict(np.load(arrays))
    stored["f"][POISONED, 2] = 1e30
    np.savez(tmp_path / "own.npz", f=stored["f"], value=stored["value"])
    return {
        "name": "values",
        "data": {
            "source": {"path": "own.npz", "target": "value"},
            "inputs": {"f": {"array": "f"}},
            "split": {"by": "order"},
            "batch_size": BATCH,
        },
        "model": {"preprocess": [], "layers": [{"Dense": {"units": 2, "name": "out", "kernel_initializer": "ones"}}]},
        "train": {
            "epochs": 3,
            "keep": "last",
            "optimizer": {"SGD": {"learning_rate": 0.1}},
            "loss": "MeanSquaredError",
            "scale_target": "none",
            "metrics": [],
        },
    }


def order_of(run: Run, epoch: int) -> np.ndarray:
    return epoch_order(run.spec.seed, epoch, TRAINED_ON)


def poisoned_step(run: Run, epoch: int) -> int:
    """From 1."""
    return int(np.flatnonzero(order_of(run, epoch) == POISONED)[0]) // BATCH + 1


def weights(run: Run) -> list[np.ndarray]:
    found: list[np.ndarray] = extras.keras().models.load_model(run.keras_file, compile=False).get_weights()
    return found


TIMES = ("seconds", "samples_per_second")


def lines(run: Run) -> list[dict[str, Any]]:
    found = read_lines(run.metrics_file)
    return [{key: value for key, value in line.items() if key not in TIMES} for line in found]


def assert_same_end(run: Run, other: Run) -> None:
    for one, another in zip(weights(run), weights(other), strict=True):
        np.testing.assert_array_equal(one, another)
    assert lines(run) == lines(other)


def not_finite_once(monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    """One step a chunk; that of number `at` (from 0) is as one that was not finite: it changes nothing."""
    one_step_chunks(monkeypatch)
    compiled, calls = COMPILED, iter(range(10_000))

    def once(self: Loop) -> tuple[Callable[..., Any], Callable[..., Any]]:
        train_steps, evaluate_steps = compiled(self)

        def steps(batches: Any, count: Any) -> Any:
            if next(calls) == at:
                next(batches)
                return 0, np.zeros(2)
            return train_steps(batches, count)

        return steps, evaluate_steps

    monkeypatch.setattr(Loop, "_compiled", once)


class Killed(BaseException):
    """Stands for kill -9."""


def die() -> None:
    raise Killed


def killed(run: Run, monkeypatch: pytest.MonkeyPatch, chunk: int) -> Run:
    with monkeypatch.context() as patched:
        one_step_chunks(patched, chunk, die)
        with pytest.raises(Killed):
            train(run)
    return run


# A step that is not finite.

CAUSES: dict[str, tuple[dict[str, Any], str]] = {
    "the loss": ({}, r": the loss is infinity, of finite outputs"),
    "a layer": (
        {
            "layers": [
                {"Dense": {"units": 3, "name": "first"}},
                {"python": "faulty:Log", "name": "log"},
                {"Dense": {"units": 2}},
            ]
        },
        r": the layer 'log/log(_\d+)?' gives NaN; lower the learning rate, or clip",
    ),
    "a layer in a layer": (
        {
            "layers": [
                {"Reshape": {"target_shape": [4, 1]}},
                {"TimeDistributed": {"layer": {"Dense": {"units": 1, "activation": "exponential", "name": "inner"}}}},
                "Flatten",
                {"Dense": {"units": 2}},
            ]
        },
        r": the layer 'time_distributed/\w+' gives infinity",
    ),
    "a gradient": (
        {"loss": {"python": "faulty:root_of_nothing", "task": "regression"}},
        r": the gradient of out/kernel is NaN, of a finite loss",
    ),
}


@pytest.mark.parametrize(("change", "cause"), CAUSES.values(), ids=CAUSES.keys())
def test_a_step_that_is_not_finite_is_told_with_its_place_and_cause(values, make_run, change, cause):
    values["model"] |= {"layers": change.get("layers", values["model"]["layers"])}
    values["train"] |= {"loss": change.get("loss", "MeanSquaredError")}
    run = make_run(values)
    with pytest.raises(TrainingError, match=rf"not finite in step \d of epoch 1{cause}") as found:
        train(run)
    assert found.value.exit_code == 6
    if cause.startswith(": the loss"):
        assert f"step {poisoned_step(run, 0)} of epoch 1" in str(found.value)


def test_a_sample_that_is_no_number_is_named(values, make_run):
    import tensorflow as tf

    run = make_run(values)
    setup = build_setup(run)
    break_one = lambda sample, epoch, identity: sample / tf.cast(identity != POISONED, tf.float32)  # noqa: E731
    pipeline = Pipeline(setup.data.split("train"), BATCH, seed=run.spec.seed, augment=break_one)
    state = State(epoch=2, step=poisoned_step(run, 2) - 1)
    cause, hint = find_cause(dataclasses.replace(setup, pipeline=pipeline), state)
    assert cause == f": the layer 'out' gives infinity, the input 'f' of sample {POISONED} is infinity"
    assert hint == "mend that sample, or leave it out; or write train.on_nan: skip"


@pytest.mark.parametrize(("on_nan", "named"), [("stop", True), ("rollback", False)])
def test_what_is_asked_for_is_not_advised(values, make_run, on_nan, named):
    values["train"]["on_nan"] = on_nan
    _, hint = find_cause(build_setup(make_run(values)), State())
    assert ("; or write train.on_nan: rollback" in hint) == named


def linear_regression(run: Run, *, epochs: int, rate: float) -> tuple[np.ndarray, np.ndarray]:
    """Plain gradient descent without the batches that hold the poisoned sample."""
    stored = dict(np.load(run.directory.parent / "own.npz"))
    kernel, bias = np.ones((4, 2)), np.zeros(2)
    for epoch in range(epochs):
        order = order_of(run, epoch)
        for begin in range(0, TRAINED_ON, BATCH):
            ids = order[begin : begin + BATCH]
            if POISONED in ids:
                continue
            inputs, targets = stored["f"][ids].astype(float), stored["value"][ids]
            slope = (inputs @ kernel + bias - targets) / len(ids)  # of a mean over two values
            kernel, bias = kernel - rate * inputs.T @ slope, bias - rate * slope.sum(axis=0)
    return kernel, bias


def test_skipped_steps_change_nothing_and_are_counted(values, make_run, caplog):
    values["train"]["on_nan"] = "skip"
    run = make_run(values)
    train(run)
    for found, expected in zip(weights(run), linear_regression(run, epochs=3, rate=0.1), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert [line["skipped"] for line in lines(run)] == [1, 1, 1]
    assert [line["step"] for line in lines(run)] == [4, 8, 12]
    assert run.manifest["skipped_steps"] == 3
    assert "3 of 12 steps were not finite, and left out" in caplog.text
    assert f"step {poisoned_step(run, 1)} of epoch 2 is not finite and was left out: 2 so far" in caplog.text


def test_a_skipped_step_leaves_batch_statistics_alone(values, make_run):
    values["train"]["on_nan"] = "skip"
    values["model"]["layers"].insert(0, {"Activation": {"activation": "exponential"}})
    values["model"]["layers"].insert(1, "BatchNormalization")
    run = make_run(values)
    train(run)
    assert all(np.isfinite(value).all() for value in weights(run))
    assert run.manifest["skipped_steps"] == 3


@pytest.mark.parametrize("chunk", [2, 6, 9])
@pytest.mark.slow
def test_a_training_that_skips_resumes_to_the_same_bits(values, make_run, monkeypatch, chunk):
    values["train"] |= {"on_nan": "skip", "checkpoint": {"every": "1 steps"}}
    uncut, run = make_run(values, "uncut"), make_run(values, "run")
    train(uncut)
    train(killed(run, monkeypatch, chunk))
    assert_same_end(run, uncut)
    assert run.manifest["skipped_steps"] == 3


def test_steps_that_are_all_skipped_fail(values, make_run):
    values["train"] |= {"on_nan": "skip", "optimizer": {"SGD": {"learning_rate": 1e30}}, "epochs": 20}
    run = make_run(values)
    message = r"not finite in step 4 of epoch 2, after 5 in a row that were left out: the loss is infinity"
    with pytest.raises(TrainingError, match=message):
        train(run)


RATES: dict[str, Any] = {
    "a number": 6e18,
    "a schedule": {"PiecewiseConstantDecay": {"boundaries": [1], "values": [6e18, 6e18]}},
}


@pytest.fixture
def hot(values: dict[str, Any]) -> dict[str, Any]:
    """A first step so long that the loss of the second overflows, but not that of half or a quarter of it."""
    values["data"]["batch_size"] = 54  # 2 steps
    values["train"] |= {"on_nan": "rollback", "epochs": 1}
    return values


@pytest.mark.parametrize("rate", RATES.values(), ids=RATES.keys())
def test_a_rollback_halves_the_learning_rate_and_goes_on(hot, make_run, caplog, arrays, tmp_path, rate):
    shutil.copy(arrays, tmp_path / "own.npz")
    hot["train"]["optimizer"] = {"SGD": {"learning_rate": rate}}
    run = make_run(hot)
    train(run)
    rollbacks = run.manifest["rollbacks"]
    assert 1 <= rollbacks <= 3
    assert lines(run)[0]["learning_rate"] == pytest.approx(6e18 / 2**rollbacks)
    assert "not finite in step 2 of epoch 1: back to epoch 1, step 0, with a learning rate of 3e+18" in caplog.text
    assert all(np.isfinite(value).all() for value in weights(run))
    calm = {**hot, "train": {**hot["train"], "optimizer": {"SGD": {"learning_rate": 6e18 / 2**rollbacks}}}}
    other = make_run(calm, "other")
    train(other)
    assert other.manifest["rollbacks"] == 0
    assert_same_end(run, other)


@pytest.mark.parametrize("chunk", [1, 2, 3, 4])
def test_a_training_that_goes_back_resumes_to_the_same_bits(hot, make_run, monkeypatch, arrays, tmp_path, chunk):
    shutil.copy(arrays, tmp_path / "own.npz")
    hot["train"]["optimizer"] = {"SGD": {"learning_rate": RATES["a schedule"]}}
    uncut, run = make_run(hot, "uncut"), make_run(hot, "run")
    train(uncut)
    train(killed(run, monkeypatch, chunk))
    assert_same_end(run, uncut)
    assert run.manifest["rollbacks"] == uncut.manifest["rollbacks"]


def test_a_rollback_keeps_the_variables_of_a_loss_scale(values, make_run, arrays, tmp_path, monkeypatch):
    """A schedule is halved by compiling the steps anew, with the same optimizer: its checkpoints fit the next one."""
    shutil.copy(arrays, tmp_path / "own.npz")
    schedule = {"PiecewiseConstantDecay": {"boundaries": [1], "values": [0.1, 0.05]}}
    values["train"] |= {"precision": "mixed_float16", "optimizer": {"SGD": {"learning_rate": schedule}}}
    values["train"] |= {"on_nan": "rollback"}
    uncut, run = make_run(values, "uncut"), make_run(values, "run")
    not_finite_once(monkeypatch, at=2)
    train(uncut)
    assert uncut.manifest["rollbacks"] == 1
    not_finite_once(monkeypatch, at=2)
    train(killed(run, monkeypatch, 7))
    assert_same_end(run, uncut)


def test_a_rollback_stays_in_its_phase(values, make_run, arrays, tmp_path, monkeypatch):
    """Its learning rate is halved where the step failed, and no phase before is touched."""
    shutil.copy(arrays, tmp_path / "own.npz")
    for key in ("epochs", "optimizer"):
        del values["train"][key]
    phases = [{"epochs": 1, "optimizer": {"SGD": {"learning_rate": rate}}} for rate in (0.1, 0.02)]
    values["train"] |= {"on_nan": "rollback", "phases": phases}
    uncut, run = make_run(values, "uncut"), make_run(values, "run")
    not_finite_once(monkeypatch, at=5)
    train(uncut)
    assert uncut.manifest["rollbacks"] == 1
    assert [line["learning_rate"] for line in lines(uncut)] == pytest.approx([0.1, 0.01])
    not_finite_once(monkeypatch, at=5)
    train(killed(run, monkeypatch, 8))  # in the second phase, when it went back
    assert_same_end(run, uncut)
    assert run.manifest["rollbacks"] == 1


def test_a_rollback_takes_callbacks_along(values, make_run, arrays, tmp_path, monkeypatch, caplog):
    shutil.copy(arrays, tmp_path / "own.npz")
    (tmp_path / "counting.py").write_text(COUNTING, encoding="utf-8")
    csv = {"CSVLogger": {"filename": "epochs.csv"}}
    values["train"] |= {"on_nan": "rollback", "checkpoint": {"every": "2 epochs"}}
    values["train"] |= {"callbacks": [{"python": "counting:Counting"}, csv]}
    run = make_run(values)
    not_finite_once(monkeypatch, at=5)  # the first epoch is over, and has no checkpoint
    train(run)
    assert run.manifest["rollbacks"] == 1
    # Of the 12 steps that count, the fifth and the tenth: not of those that were taken back.
    assert lines(run)[-1]["learning_rate"] == pytest.approx(0.05 * 0.5**2)
    written = (run.callbacks_folder / "epochs.csv").read_text().splitlines()
    assert [line.partition(",")[0] for line in written] == ["epoch", "0", "1", "2"]


def test_best_weights_of_a_monitor_that_is_never_a_number_are_an_error(values, make_run, arrays, tmp_path):
    stored = dict(np.load(arrays))
    stored["f"][-SAMPLES_OF_OTHERS:, 0] *= 1e30  # of validation and test; the loss of training stays a number
    np.savez(tmp_path / "own.npz", f=stored["f"], value=stored["value"])
    values["model"]["layers"].append({"python": "faulty:OfSquares"})
    values["train"] |= {"keep": "best"}
    run = make_run(values)
    message = "val_loss was NaN after every epoch: no weights are the best; mend what makes val_loss NaN, or write keep"
    with pytest.raises(TrainingError, match=message) as found:
        train(run)
    assert found.value.exit_code == 6
    assert not run.keras_file.exists()
    kept = make_run({**values, "train": {**values["train"], "keep": "last"}}, "kept")
    train(kept)
    assert [line["val_loss"] for line in lines(kept)] == [None] * 3


def test_the_first_error_is_told_where_the_disk_takes_no_note_of_it(features, make_run, monkeypatch):
    def fail(run: Run) -> None:
        monkeypatch.setattr(Run, "update", full)
        raise ZeroDivisionError("a flaw")

    def full(self: Run, **entries: Any) -> None:
        raise DiskError("disk full", "free space")

    monkeypatch.setattr("mltool.training.train.build_setup", fail)
    with pytest.raises(ZeroDivisionError, match="a flaw"):
        train(make_run(features))


def test_three_rollbacks_are_enough(values, make_run):
    values["train"]["on_nan"] = "rollback"
    run = make_run(values)
    message = r"in step \d of epoch 1, after 3 rollbacks and with a learning rate of 0.0125: the loss is infinity"
    with pytest.raises(TrainingError, match=message):
        train(run)


# Weights that no gradient reaches.


def test_a_loss_without_any_gradient_fails_and_names_the_weights(values, make_run):
    values["train"]["loss"] = {"python": "faulty:deaf", "task": "regression"}
    run = make_run(values)
    with pytest.raises(
        TrainingError, match=r"the loss has no gradient for any weight: out/kernel, out/bias; let it depend on them"
    ) as found:
        train(run)
    assert found.value.exit_code == 6


def test_weights_without_a_gradient_are_named_once(features, make_run, caplog, tmp_path):
    (tmp_path / "faulty.py").write_text(CODE, encoding="utf-8")
    features["model"]["layers"] = [
        {"Dense": {"units": 3, "name": "deaf"}},
        {"python": "faulty:Cut"},
        {"Dense": {"units": 3}},
    ]
    train(make_run(features))
    told = [record.message for record in caplog.records if "no gradient" in record.message]
    assert told == ["the loss has no gradient for 2 weights, which stay as they are: deaf/kernel, deaf/bias"]


# Memory that runs out.


OOM_OF_A_GRAPH = """Graph execution error:

Detected at node functional_1/conv2d_1/Relu defined at (most recent call last):
  File "loop.py", line 1, in step
OOM when allocating a tensor
\t [[{{node functional_1/conv2d_1/Relu}}]]
"""
"""As TensorFlow words it where a step is part of a graph."""


def run_out_of_memory(monkeypatch: pytest.MonkeyPatch, *calls_that_do: int) -> None:
    """TensorFlow's error comes in chunks of these numbers (from 0), after the chunk has changed the weights."""
    compiled, calls = Loop._compiled, iter(range(10_000))

    def exhausted(self: Loop) -> tuple[Callable[..., Any], Callable[..., Any]]:
        train_steps, evaluate_steps = compiled(self)

        def steps(*arguments: Any) -> Any:
            done = train_steps(*arguments)
            if next(calls) in calls_that_do:
                raise extras.tensorflow().errors.ResourceExhaustedError(None, None, OOM_OF_A_GRAPH)
            return done

        return steps, evaluate_steps

    monkeypatch.setattr(Loop, "_compiled", exhausted)


def test_memory_that_runs_out_at_once_trains_as_with_accumulation(features, make_run, monkeypatch, caplog):
    run = make_run(features, "run")
    with monkeypatch.context() as patched:
        run_out_of_memory(patched, 0)
        train(run)
    assert run.manifest["accumulate"] == 2
    assert "out of memory (OOM when allocating a tensor): going on from the newest checkpoint with every" in caplog.text
    features["train"]["accumulate"] = 2
    asked = make_run(features, "asked")
    train(asked)
    assert_same_end(run, asked)


def test_memory_that_runs_out_later_goes_on_from_the_checkpoint(features, make_run, monkeypatch):
    features["train"]["epochs"] = 4
    uncut, run = make_run(features, "uncut"), make_run(features, "run")
    train(uncut)
    with monkeypatch.context() as patched:
        one_step_chunks(patched)
        run_out_of_memory(patched, 6)  # the third step of the second epoch
        train(run)
    # The sums of halves are those of the whole but for rounding.
    for one, other in zip(weights(run), weights(uncut), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)
    assert [line["epoch"] for line in lines(run)] == [1, 2, 3, 4]


MEMORY: dict[str, tuple[dict[str, Any], str]] = {
    "twice": ({}, r"out of memory again, with batches in 2 parts: OOM when allocating a tensor; make data\.batch_size"),
    "not wanted": ({"train.on_oom": "stop"}, r"out of memory: OOM when .*; write train\.accumulate: 2 or more"),
    "one sample": ({"data.batch_size": 1}, r"out of memory, and a batch cannot be in more than 1 parts"),
}


@pytest.mark.parametrize(("change", "message"), MEMORY.values(), ids=MEMORY.keys())
def test_memory_that_cannot_be_had_is_an_error_of_the_machine(features, make_run, monkeypatch, change, message):
    for key, value in change.items():
        section, name = key.split(".")
        features[section][name] = value
    run = make_run(features)
    run_out_of_memory(monkeypatch, 0, 1)
    with pytest.raises(MachineError, match=message) as found:
        train(run)
    assert found.value.exit_code == 10
    assert run.status == "failed"


def test_a_run_that_was_short_of_memory_stays_so_when_it_is_resumed(features, make_run, monkeypatch):
    features["train"] |= {"epochs": 4}
    uncut, run = make_run(features, "uncut"), make_run(features, "run")
    for each, death in ((uncut, None), (run, 9)):
        with monkeypatch.context() as patched:
            one_step_chunks(patched, death, die)
            run_out_of_memory(patched, 2)
            if death is None:
                train(each)
            else:
                with pytest.raises(Killed):
                    train(each)
    assert run.manifest["accumulate"] == 2
    train(run)
    assert_same_end(run, uncut)


# How often there is a checkpoint.


def saved_steps(monkeypatch: pytest.MonkeyPatch, run: Run) -> list[int]:
    """Trains, and gives the global steps that were saved."""
    found, save = [], Checkpoints.save

    def noting(self: Checkpoints, state: State, variables: Any) -> None:
        found.append(state.global_step)
        save(self, state, variables)

    with monkeypatch.context() as patched:
        patched.setattr(Checkpoints, "save", noting)
        train(run)
    return found


EVERY = {
    "an epoch": ("1 epoch", [4, 8, 12]),
    "two epochs, and at the end": ("2 epochs", [8, 12]),
    "three steps, and at the end": ("3 steps", [3, 6, 9, 12, 12]),
    "more steps than there are": ("500 steps", [12]),
    "an hour": ("1 h", [12]),
}


@pytest.mark.parametrize(("every", "steps"), EVERY.values(), ids=EVERY.keys())
def test_checkpoints_come_as_often_as_the_spec_says(features, make_run, monkeypatch, every, steps):
    features["train"] |= {"epochs": 3, "checkpoint": {"every": every}}
    assert saved_steps(monkeypatch, make_run(features)) == steps


def test_checkpoints_come_by_the_clock(features, make_run, monkeypatch):
    features["train"] |= {"epochs": 3, "checkpoint": {"every": "1 min"}}
    ticks = iter(range(0, 10_000, 20))  # a look at the clock every 20 s
    monkeypatch.setattr(due.time, "monotonic", lambda: float(next(ticks)))
    one_step_chunks(monkeypatch)
    found = saved_steps(monkeypatch, make_run(features))
    assert found == [3, 5, 8, 10, 12]


@pytest.mark.parametrize("every", ["3 steps", "2 epochs"])
@pytest.mark.parametrize("chunk", [2, 7, 13])
def test_a_kill_between_checkpoints_repeats_what_came_after_the_last(features, make_run, monkeypatch, every, chunk):
    features["train"] |= {"epochs": 3, "checkpoint": {"every": every}}
    uncut, run = make_run(features, "uncut"), make_run(features, "run")
    train(uncut)
    train(killed(run, monkeypatch, chunk))
    assert_same_end(run, uncut)


def test_best_weights_do_not_pile_up_between_checkpoints(features, make_run):
    features["train"] |= {"epochs": 6, "checkpoint": {"every": "100 steps"}}
    run = make_run(features)
    train(run)
    assert len(list(run.checkpoints_folder.glob("best-*.npz"))) == 1


# A disk that is full.


@pytest.fixture
def small_disk() -> Iterator[Callable[[int | None], None]]:
    """Lets no file grow beyond a number of bytes: the system's own refusal, without a disk of one's own to fill."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (soft if size is None else size, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


# One step a chunk: 4 of training and 1 of validation an epoch; what holds training up is written
# between them. Events of two epochs are the smaller file.
FULL = {
    "in the first checkpoint": (4, 1500, "step-000000004.npz", False),
    "in a later checkpoint": (7, 1500, "step-000000008.npz", True),
    "in the events": (7, 600, "events", True),
}


@pytest.mark.parametrize(("chunk", "size", "file", "has_one"), FULL.values(), ids=FULL.keys())
def test_a_full_disk_keeps_the_last_whole_checkpoint(
    features, make_run, monkeypatch, small_disk, chunk, size, file, has_one
):
    features["train"] |= {"epochs": 3}
    uncut, run = make_run(features, "uncut"), make_run(features, "run")
    train(uncut)
    with monkeypatch.context() as patched:
        one_step_chunks(patched, chunk, lambda: small_disk(size))
        with pytest.raises(
            MachineError, match=rf"disk full: cannot write .*{file}: File too large; free space"
        ) as found:
            train(run)
    small_disk(None)
    assert found.value.exit_code == 10
    whole = "step-000000004.npz is whole: go on from it with: mltool train --resume"
    assert (whole in str(found.value)) == has_one
    assert (newest_file(run.checkpoints_folder) is not None) == has_one
    assert not list(run.directory.rglob("*.part*"))
    train(run)
    assert_same_end(run, uncut)


def test_a_line_of_results_is_whole_or_not_there(features, make_run, monkeypatch, small_disk):
    uncut, run = make_run(features, "uncut"), make_run(features, "run")
    train(uncut)
    size = len(uncut.metrics_file.read_text().splitlines()[0])
    with monkeypatch.context() as patched:
        one_step_chunks(patched, 4, lambda: small_disk(size - 10))
        with pytest.raises(MachineError, match=r"disk full: cannot write .*metrics\.jsonl: File too large; free space"):
            train(run)
    small_disk(None)
    assert run.metrics_file.read_text() == ""
    train(run)
    assert_same_end(run, uncut)


# Checkpoints that are not of this training.


def interrupted(run: Run, monkeypatch: pytest.MonkeyPatch) -> Run:
    import signal

    with monkeypatch.context() as patched:
        one_step_chunks(patched, 6, lambda: signal.raise_signal(signal.SIGTERM))
        with pytest.raises(Interrupted, match="SIGTERM"):
            train(run)
    return run


def test_every_key_that_changed_since_training_began_is_listed(features, make_run, monkeypatch):
    run = interrupted(make_run(features), monkeypatch)
    text = run.spec_file.read_text().replace("learning_rate: 0.01", "learning_rate: 0.02")
    run.spec_file.write_text(text.replace("units: 3", "units: 3\n      use_bias: false"))
    with pytest.raises(ArtifactError, match=r"spec\.yaml was changed since training began; train it anew") as found:
        train(run)
    told = {message.key: message.message for message in found.value.messages[1:]}
    assert told == {
        "model.layers.0.Dense.use_bias": "was not there when training began, is false",
        "train.optimizer.Adam.learning_rate": "was 0.01 when training began, is 0.02",
    }
    assert found.value.exit_code == 5


def test_a_checkpoint_of_a_newer_version_is_refused(features, make_run, monkeypatch):
    run = interrupted(make_run(features), monkeypatch)
    newest = newest_file(run.checkpoints_folder)
    assert newest is not None
    stored = dict(np.load(newest))
    text = stored["state"].tobytes().replace(b'"version": 2', b'"version": 3')
    stored["state"] = np.frombuffer(text, np.uint8)
    np.savez(newest, **stored)
    with pytest.raises(
        ArtifactError, match=r"step-0.*npz is of version 3 of checkpoints, this mltool reads up to 2; update mltool"
    ) as found:
        train(run)
    assert found.value.exit_code == 5


def test_a_model_that_does_not_fit_is_the_machines_and_the_run_is_no_more(features, make_run, monkeypatch):
    def exhausted(*_: Any, **__: Any) -> None:
        raise extras.tensorflow().errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")

    run = make_run(features)
    monkeypatch.setattr("keras.src.backend.Variable._initialize_with_initializer", exhausted)
    with pytest.raises(MachineError, match="the model does not fit: out of memory: OOM when allocating tensor; take a"):
        train(run)
    assert not run.directory.exists()

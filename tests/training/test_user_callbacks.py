"""Callbacks of Keras and of the user's: called as Keras' `fit` does, resumed exactly, heard when they want to stop."""

import csv
import functools
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cuts import interrupt_at, one_step_chunks

from mltool.errors import Interrupted, SpecError, TrainingError
from mltool.runs.run import Run
from mltool.training import setup
from mltool.training.checkpoints import Checkpoints
from mltool.training.devices.workers import Workers
from mltool.training.loops.chunks import Chunks
from mltool.training.train import train
from mltool.training.user_callbacks import build_user_callbacks

CALLBACKS = '''
import keras

CALLS = []


class Epochs(keras.callbacks.Callback):
    """Writes every call down that comes once an epoch, or less often."""

    def on_train_begin(self, logs=None):
        CALLS.append(("train_begin", self.params["epochs"], self.params["steps"]))

    def on_epoch_begin(self, epoch, logs=None):
        CALLS.append(("epoch_begin", epoch))

    def on_test_begin(self, logs=None):
        CALLS.append(("test_begin",))

    def on_test_end(self, logs=None):
        CALLS.append(("test_end", *sorted(logs)))

    def on_epoch_end(self, epoch, logs=None):
        CALLS.append(("epoch_end", epoch, *sorted(logs)))

    def on_train_end(self, logs=None):
        CALLS.append(("train_end",))


class Batches(Epochs):
    def on_train_batch_begin(self, batch, logs=None):
        CALLS.append(("train_batch_begin", batch))

    def on_train_batch_end(self, batch, logs=None):
        CALLS.append(("train_batch_end", batch, *sorted(logs)))

    def on_test_batch_begin(self, batch, logs=None):
        CALLS.append(("test_batch_begin", batch))

    def on_test_batch_end(self, batch, logs=None):
        CALLS.append(("test_batch_end", batch, *sorted(logs)))


class Forgetful(keras.callbacks.Callback):
    """Every third step shrinks the weights and the learning rate."""

    def __init__(self, every=3):
        super().__init__()
        self.steps, self.every = 0, every

    def on_train_batch_end(self, batch, logs=None):
        self.steps += 1
        if self.steps % self.every == 0:
            self.model.set_weights([0.9 * weight for weight in self.model.get_weights()])
            self.model.optimizer.learning_rate = 0.8 * float(self.model.optimizer.learning_rate)


class Shrinking(Forgetful):
    def get_state(self):
        return {"steps": self.steps}

    def set_state(self, state):
        self.steps = state["steps"]


class Stopping(keras.callbacks.Callback):
    def __init__(self, epoch=None, batch=None):
        super().__init__()
        self.epoch, self.batch = epoch, batch

    def on_epoch_end(self, epoch, logs=None):
        self.model.stop_training = self.model.stop_training or epoch == self.epoch


class StoppingBatch(Stopping):
    def on_train_batch_end(self, batch, logs=None):
        self.model.stop_training = batch == self.batch


class StoppingFirst(Stopping):
    def on_epoch_begin(self, epoch, logs=None):
        self.model.stop_training = epoch == self.epoch


class Zeros(keras.callbacks.Callback):
    """Zeroes the weights at the end of the epochs, or of the training."""

    def __init__(self, at):
        super().__init__()
        self.at = at

    def zero(self, at):
        if at == self.at:
            self.model.set_weights([0 * weight for weight in self.model.get_weights()])

    def on_epoch_end(self, epoch, logs=None):
        self.zero("epoch")

    def on_train_end(self, logs=None):
        self.zero("train")


class Raising(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        if epoch == 1:
            raise KeyError("no such thing")


class WithSet(keras.callbacks.Callback):
    def get_state(self):
        return {1: "one"}

    def set_state(self, state):
        pass


class WithArray(WithSet):
    def get_state(self):
        import numpy as np

        return {"seen": np.zeros(2)}


def nothing():
    return None
'''


@pytest.fixture
def calls(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(CALLBACKS, encoding="utf-8")
    return path


def with_callbacks(spec: dict[str, Any], *callbacks: Any, **more: Any) -> dict[str, Any]:
    return spec | {"train": spec["train"] | {"callbacks": list(callbacks), **more}}


def own(name: str, **arguments: Any) -> dict[str, Any]:
    return {"python": f"mine:{name}", **({"arguments": arguments} if arguments else {})}


def lines(run: Run) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in run.metrics_file.read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in ("seconds", "samples_per_second")} for line in found]


def weights_of(run: Run) -> list[np.ndarray]:
    import keras

    return keras.models.load_model(run.keras_file).get_weights()


@pytest.mark.parametrize("name", ["Epochs", "Batches"])
def test_a_callback_is_called_as_fit_calls_it(calls, features, make_run, caplog, name):
    """108 samples of training are 4 batches of 32, 12 of validation are one."""
    import keras

    train(make_run(with_callbacks(features, own(name))))
    ours = list(sys.modules["mltool_user_mine"].CALLS)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    x, y = np.zeros((108, 4), np.float32), np.zeros(108, np.int64)
    callback = getattr(sys.modules["mltool_user_mine"], name)()
    sys.modules["mltool_user_mine"].CALLS.clear()
    model.fit(
        x, y, batch_size=32, epochs=2, validation_data=(x[:12], y[:12]), verbose=0, callbacks=[callback], shuffle=False
    )
    assert ours == sys.modules["mltool_user_mine"].CALLS
    assert len(ours) == (10 if name == "Epochs" else 10 + 2 * 10)
    slow = [message for message in caplog.messages if "one step runs at a time" in message]
    expected = [f"{calls}:Batches asks for every batch of {which}" for which in ("training", "validation")]
    assert [message.partition(": one")[0] for message in slow] == (expected if name == "Batches" else [])


@pytest.mark.parametrize(("chunk", "place"), [(2, "epoch 1, step 3"), (3, "epoch 1, step 4"), (7, "epoch 2, step 3")])
def test_a_callback_with_a_state_is_resumed_exactly(calls, features, make_run, monkeypatch, caplog, chunk, place):
    spec = with_callbacks(features, own("Shrinking"), epochs=3, keep="last")
    uncut, run = make_run(spec, "uncut"), make_run(spec, "cut")
    train(uncut)
    with monkeypatch.context() as patched:
        interrupt_at(patched, chunk)
        with pytest.raises(Interrupted, match=f"stopped at {place} of 4"):
            train(run)
    train(run)
    for one, other in zip(weights_of(run), weights_of(uncut), strict=True):
        np.testing.assert_array_equal(one, other)
    assert lines(run) == lines(uncut)
    assert lines(run)[-1]["learning_rate"] == pytest.approx(0.01 * 0.8**4, rel=1e-5)  # 12 steps, every third
    assert "inexact" not in caplog.text


def test_a_callback_without_a_state_is_said_to_be_inexact(calls, features, make_run, monkeypatch, caplog):
    run = make_run(with_callbacks(features, own("Forgetful"), own("Shrinking")))
    with monkeypatch.context() as patched:
        interrupt_at(patched, 2)
        with pytest.raises(Interrupted, match="stopped at epoch 1, step 3"):
            train(run)
    assert "inexact" not in caplog.text
    train(run)
    said = [message for message in caplog.messages if "inexact" in message]
    assert said == [f"inexact: the callback {calls}:Forgetful keeps no state (get_state, set_state); it begins anew"]


def test_a_callback_stops_after_an_epoch_as_early_stopping_does(calls, features, make_run):
    run = make_run(with_callbacks(features, own("Stopping", epoch=1), epochs=5))
    assert train(run).epochs == 2
    assert run.manifest["stopped"] == "a callback set model.stop_training"


def test_a_callback_that_stops_ends_the_phase(calls, features, make_run):
    del features["train"]["optimizer"], features["train"]["epochs"]
    phases = [{"epochs": 3}, {"epochs": 2}]
    run = make_run(with_callbacks(features, own("Stopping", epoch=0), own("Epochs"), phases=phases))
    train(run)
    assert [(line["phase"], line["epoch"]) for line in lines(run)] == [(1, 1), (2, 2), (2, 3)]
    begins = [call for call in sys.modules["mltool_user_mine"].CALLS if call[0] in ("train_begin", "epoch_begin")]
    assert begins == [("train_begin", 5, 4), ("epoch_begin", 0), ("epoch_begin", 1), ("epoch_begin", 2)]


@pytest.mark.parametrize("chunk", [None, 1, 2])
def test_a_callback_stops_within_an_epoch_which_is_validated_then(calls, features, make_run, monkeypatch, chunk):
    """Also where the training is cut in the step in which it asks, or in the validation that follows."""
    run = make_run(with_callbacks(features, own("StoppingBatch", batch=1), epochs=5))
    if chunk is not None:
        with monkeypatch.context() as patched:
            interrupt_at(patched, chunk)
            with pytest.raises(Interrupted, match="stopped at epoch 1, step 2 of 4"):
                train(run)
    train(run)
    (line,) = lines(run)
    assert line["step"] == 2
    assert {"loss", "val_loss"} <= set(line)
    assert run.manifest["stopped"] == "a callback set model.stop_training"


def test_a_callback_that_stops_as_an_epoch_begins_lets_one_step_run_as_fit_does(calls, features, make_run, monkeypatch):
    """However many the clock would let into a chunk."""
    monkeypatch.setattr(Chunks, "next_length", lambda self, left: min(left, 3))
    run = make_run(with_callbacks(features, own("StoppingFirst", epoch=1), epochs=5))
    train(run)
    assert [line["step"] for line in lines(run)] == [4, 5]
    assert run.manifest["stopped"] == "a callback set model.stop_training"


CHIEFS = [{"CSVLogger": {"filename": "epochs.csv"}}, {"RemoteMonitor": {"root": "http://localhost:9"}}]


@pytest.mark.parametrize("callback", CHIEFS, ids=[next(iter(row)) for row in CHIEFS])
def test_a_worker_asks_the_others_as_often_as_the_chief_that_has_callbacks(features, make_run, monkeypatch, callback):
    """What is asked is a step of all: who asks less lets the others wait for ever."""
    asked: list[str] = []
    monkeypatch.setattr(Chunks, "next_length", lambda self, left: 1)
    monkeypatch.setattr(Workers, "any", lambda self, flag: asked.append("any") or flag)
    monkeypatch.setattr(Workers, "of_chief", lambda self, number: asked.append("of_chief") or number)
    found = []
    for is_chief in (True, False):
        build = functools.partial(build_user_callbacks, writes=is_chief)
        monkeypatch.setattr(
            setup, "build_user_callbacks", lambda things, folder, writes, build=build: build(things, folder)
        )
        asked.clear()
        train(make_run(with_callbacks(features, callback), f"chief-{is_chief}"))
        found.append(list(asked))
    assert found[0] == found[1]
    assert "any" in found[0]


def test_a_worker_that_stops_waits_until_the_chief_has_written(features, make_run, monkeypatch):
    done: list[str] = []
    save, wait = Checkpoints.save, Workers.wait
    monkeypatch.setattr(Checkpoints, "save", lambda self, *rest: done.append("save") or save(self, *rest))
    monkeypatch.setattr(Workers, "wait", lambda self: done.append("wait") or wait(self))
    interrupt_at(monkeypatch, 2)
    with pytest.raises(Interrupted, match="stopped at epoch 1, step 3"):
        train(make_run(features))
    assert done == ["save", "wait"]


@pytest.mark.parametrize(
    ("at", "keep", "is_zero"),
    [("epoch", "last", True), ("epoch", "best", False), ("train", "best", True), ("train", "last", True)],
)
def test_weights_that_a_callback_changes_stay(calls, features, make_run, at, keep, is_zero):
    run = make_run(with_callbacks(features, own("Zeros", at=at), keep=keep))
    train(run)
    assert all(not weight.any() for weight in weights_of(run)) == is_zero


def test_the_model_that_is_kept_holds_no_optimizer(calls, features, make_run):
    import zipfile

    import h5py

    run = make_run(with_callbacks(features, own("Epochs")))
    train(run)
    with zipfile.ZipFile(run.keras_file) as archive, archive.open("model.weights.h5") as file, h5py.File(file) as h5:
        assert "optimizer" not in set(h5)
        assert "layers" in set(h5)


def test_a_csv_logger_writes_into_the_run_and_goes_on_when_resumed(features, make_run, monkeypatch, caplog):
    run = make_run(with_callbacks(features, {"CSVLogger": {"filename": "epochs.csv"}}, epochs=3))
    with monkeypatch.context() as patched:
        interrupt_at(patched, 6)
        with pytest.raises(Interrupted, match="stopped at epoch 2, step 2"):
            train(run)
    train(run)
    with (run.callbacks_folder / "epochs.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["0", "1", "2"]
    assert [float(row["val_loss"]) for row in rows] == [line["val_loss"] for line in lines(run)]
    assert "inexact" not in caplog.text


class Killed(BaseException):
    """Stands for kill -9."""


def die() -> None:
    raise Killed


@pytest.mark.parametrize("append", [False, True])
def test_a_csv_logger_has_no_epoch_twice_after_a_kill_between_checkpoints(features, make_run, monkeypatch, append):
    arguments = {"filename": "epochs.csv", "append": append, "separator": ";"}
    spec = with_callbacks(features, {"CSVLogger": arguments}, epochs=4, checkpoint={"every": "2 epochs"})
    run = make_run(spec)
    file = run.callbacks_folder / "epochs.csv"
    before = "epoch;accuracy\n0;0.5\n" if append else ""  # of another training
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(before)
    with monkeypatch.context() as patched:
        one_step_chunks(patched, 17, die)  # in the fourth epoch, of 5 chunks as each is
        with pytest.raises(Killed):
            train(run)
    killed = file.read_text()
    assert [row[:2] for row in killed.removeprefix(before).splitlines()[-3:]] == ["0;", "1;", "2;"]
    train(run)
    assert file.read_text().startswith(before)
    written = file.read_text().removeprefix(before).splitlines()
    assert [row.partition(";")[0] for row in written] == [*([] if append else ["epoch"]), "0", "1", "2", "3"]


def test_early_stopping_stands_beside_a_callback_of_the_users(calls, features, make_run):
    stopping = {"EarlyStopping": {"patience": 1, "min_delta": 10.0}}
    run = make_run(with_callbacks(features, own("Epochs"), stopping, epochs=5))
    assert train(run).epochs == 2
    assert sys.modules["mltool_user_mine"].CALLS[-1] == ("train_end",)


MISTAKES = {
    "what raises": ("Raising", r"mine\.py:Raising raised KeyError: 'no such thing'; see line \d+ of mine\.py"),
    "a key that is no text": (
        "WithSet",
        r"get_state of .*:WithSet gives what a checkpoint gives back otherwise",
    ),
    "an array": (
        "WithArray",
        r"get_state of .*:WithArray gives what a checkpoint cannot hold: .*; return num",
    ),
}


@pytest.mark.parametrize(("name", "message"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_callback_that_fails_fails_the_run(calls, features, make_run, name, message):
    run = make_run(with_callbacks(features, own(name)))
    with pytest.raises(TrainingError, match=message) as found:
        train(run)
    assert found.value.exit_code == 6
    assert run.status == "failed"


def test_what_is_no_callback_is_refused_before_training(calls, features, make_run):
    run = make_run(with_callbacks(features, own("nothing")))
    message = r"train\.callbacks\.0\.python: .*:nothing gives NoneType, which is no callback; derive it from keras"
    with pytest.raises(SpecError, match=message):
        train(run)
    assert not run.directory.exists()

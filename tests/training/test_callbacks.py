"""EarlyStopping and ReduceLROnPlateau, held against Keras' own on the same values."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from mltool.errors import SpecError
from mltool.spec.catalogue import KerasObject
from mltool.training.callbacks import ReduceLROnPlateau, build_callback, improves, restore, state_of

DIRECTIONS = {"loss": False, "accuracy": True, "true_positives": None}
NAN = float("nan")

SEQUENCES = {
    "falls, then stalls": [1.0, 0.5, 0.25, 0.25, 0.25, 0.25, 0.25, 0.25],
    "rises from the start": [0.25, 0.5, 0.75, 1.0, 1.25, 1.5],
    "goes up and down": [1.0, 0.5, 0.75, 0.375, 0.5, 0.25, 0.5, 0.5, 0.5, 0.125, 0.5, 0.5],
    "creeps": [1.0, 0.96875, 0.9375, 0.90625, 0.875, 0.84375, 0.8125],
    "NaN in between": [1.0, NAN, 0.5, NAN, NAN, NAN, 0.25],
    "infinite first": [float("inf"), 1.0, 1.0, 1.0, 0.5],
}
EARLY_STOPPING = {
    "as it is": {},
    "patience": {"patience": 2},
    "min_delta": {"patience": 2, "min_delta": 0.0625},
    "negative min_delta": {"patience": 2, "min_delta": -0.0625},
    "baseline never met": {"patience": 2, "baseline": 0.0625},
    "baseline met later": {"patience": 3, "baseline": 0.4375},
    "start_from_epoch": {"patience": 1, "start_from_epoch": 2},
    "mode max": {"patience": 2, "mode": "max"},
    "auto of accuracy": {"patience": 2, "monitor": "val_accuracy"},
    "mode min of accuracy": {"patience": 2, "monitor": "val_accuracy", "mode": "min"},
    "training loss": {"patience": 1, "monitor": "loss"},
}
REDUCE = {
    "patience 0": {"patience": 0},
    "patience": {"patience": 2, "factor": 0.5},
    "min_delta": {"patience": 1, "min_delta": 0.0625, "factor": 0.5},
    "cooldown": {"patience": 1, "cooldown": 2, "factor": 0.5},
    "min_lr": {"patience": 1, "factor": 0.5, "min_lr": 0.3},
    "min_lr that float32 rounds up": {"patience": 1, "factor": 0.5, "min_lr": 0.1, "cooldown": 1},
    "mode max": {"patience": 1, "mode": "max", "factor": 0.5},
    "auto of accuracy": {"patience": 1, "monitor": "val_accuracy", "factor": 0.5},
}


class Optimizer:
    """Keeps its learning rate as float32, as Keras' optimizers do."""

    def __init__(self) -> None:
        self._rate = 1.0

    @property
    def learning_rate(self) -> float:
        return self._rate

    @learning_rate.setter
    def learning_rate(self, value: float) -> None:
        self._rate = float(np.float32(value))


@pytest.fixture(scope="module")
def keras_model() -> Any:
    """What Keras' callbacks read: an optimizer, and metrics by name with their directions."""
    import keras

    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.test_on_batch(np.zeros((1, 2)), np.zeros(1))
    return model


def keras_callback(model: Any, name: str, arguments: dict[str, Any]) -> Any:
    import keras

    model.optimizer.learning_rate = 1.0
    model.stop_training = False
    callback = getattr(keras.callbacks, name)(**arguments)
    callback.set_model(model)
    callback.on_train_begin()
    return callback


def logs_of(value: float) -> dict[str, float]:
    return {"loss": value, "val_loss": value, "accuracy": value, "val_accuracy": value}


@pytest.mark.parametrize("values", SEQUENCES.values(), ids=SEQUENCES.keys())
@pytest.mark.parametrize("arguments", EARLY_STOPPING.values(), ids=EARLY_STOPPING.keys())
def test_early_stopping_stops_when_keras_does(keras_model, arguments, values):
    ours = build_callback(KerasObject("EarlyStopping", arguments), DIRECTIONS)
    theirs = keras_callback(keras_model, "EarlyStopping", arguments)
    for epoch, value in enumerate(values):
        stopped = ours.on_epoch_end(epoch, logs_of(value), None)
        theirs.on_epoch_end(epoch, logs_of(value))
        assert (stopped is not None, ours.wait) == (theirs.model.stop_training, theirs.wait), f"epoch {epoch}"
        if stopped:
            assert "has not improved for" in stopped
            return


@pytest.mark.parametrize("values", SEQUENCES.values(), ids=SEQUENCES.keys())
@pytest.mark.parametrize("arguments", REDUCE.values(), ids=REDUCE.keys())
def test_reduce_lr_on_plateau_sets_the_rates_of_keras(keras_model, arguments, values):
    optimizer = Optimizer()
    ours = build_callback(KerasObject("ReduceLROnPlateau", arguments), DIRECTIONS)
    theirs = keras_callback(keras_model, "ReduceLROnPlateau", arguments)
    for epoch, value in enumerate(values):
        assert ours.on_epoch_end(epoch, logs_of(value), optimizer) is None
        theirs.on_epoch_end(epoch, logs_of(value))
        assert optimizer.learning_rate == float(keras_model.optimizer.learning_rate), f"epoch {epoch}"
        assert (ours.wait, ours.cooldown_left) == (theirs.wait, theirs.cooldown_counter), f"epoch {epoch}"


def test_the_sequences_stop_and_reduce_at_all():
    """So that the comparisons above compare something."""
    early = build_callback(KerasObject("EarlyStopping", {"patience": 2}), DIRECTIONS)
    stops = [early.on_epoch_end(e, logs_of(v), None) for e, v in enumerate(SEQUENCES["falls, then stalls"])]
    assert stops[:5] == [None, None, None, None, "val_loss has not improved for 2 epochs"]
    hasty = build_callback(KerasObject("EarlyStopping", {"patience": 1}), DIRECTIONS)
    stops = [hasty.on_epoch_end(e, logs_of(v), None) for e, v in enumerate(SEQUENCES["falls, then stalls"])]
    assert stops[3] == "val_loss has not improved for 1 epoch"
    optimizer = Optimizer()
    reduce = build_callback(KerasObject("ReduceLROnPlateau", {"patience": 2, "factor": 0.5}), DIRECTIONS)
    rates = []
    for epoch, value in enumerate(SEQUENCES["falls, then stalls"]):
        reduce.on_epoch_end(epoch, logs_of(value), optimizer)
        rates.append(optimizer.learning_rate)
    assert rates == [1, 1, 1, 1, 0.5, 0.5, 0.25, 0.25]


def test_a_first_value_of_nan_is_no_best_one_unlike_with_keras():
    early = build_callback(KerasObject("EarlyStopping", {"patience": 2}), DIRECTIONS)
    assert [early.on_epoch_end(e, logs_of(v), None) for e, v in enumerate([NAN, 2.0, 1.0, 0.5])] == [None] * 4
    assert early.best == 0.5


@pytest.mark.parametrize(
    ("mode", "value", "best", "min_delta", "expected"),
    [
        ("min", 0.5, None, 0.0, True),
        ("min", 0.5, 0.5, 0.0, False),
        ("min", 0.4, 0.5, 0.25, False),
        ("max", 0.5, 0.4, 0.0, True),
        ("max", 0.5, 0.5, 0.0, False),
        ("max", NAN, None, 0.0, False),
    ],
)
def test_improves(mode, value, best, min_delta, expected):
    assert improves(mode, value, best, min_delta) is expected


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("ReduceLROnPlateau", {"factor": 2.0}, r"here\.factor: must be less than 1 \(got 2\)"),
        ("EarlyStopping", {"monitor": "val_true_positives"}, "here: whether more of val_true_positives is better"),
    ],
    ids=["a factor that raises the rate", "a monitor without a direction"],
)
def test_arguments_that_make_no_sense_are_refused(name, arguments, message):
    with pytest.raises(SpecError, match=message):
        build_callback(KerasObject(name, arguments), DIRECTIONS, at="here")


@pytest.mark.parametrize("name", ["EarlyStopping", "ReduceLROnPlateau"])
@pytest.mark.parametrize("cut", [1, 4, 7])
def test_a_restored_callback_goes_on_as_the_first_one(name, cut):
    values = SEQUENCES["goes up and down"]
    whole, optimizer = build_callback(KerasObject(name, {"patience": 3}), DIRECTIONS), Optimizer()
    after = [state_of_after(whole, epoch, value, optimizer) for epoch, value in enumerate(values)]
    resumed, optimizer = build_callback(KerasObject(name, {"patience": 3}), DIRECTIONS), Optimizer()
    restore(resumed, after[cut - 1])
    assert [state_of_after(resumed, epoch, values[epoch], optimizer) for epoch in range(cut, len(values))] == after[
        cut:
    ]


def state_of_after(callback: Any, epoch: int, value: float, optimizer: Optimizer) -> dict[str, Any]:
    callback.on_epoch_end(epoch, logs_of(value), optimizer)
    return state_of(callback)


def test_a_learning_rate_that_is_reduced_is_told(caplog):
    optimizer = SimpleNamespace(learning_rate=np.float32(0.1))
    callback = ReduceLROnPlateau(patience=2, factor=0.5, mode="min")
    with caplog.at_level("INFO", "mltool"):
        for epoch, loss in enumerate([1.0, 1.0, 1.0]):
            callback.on_epoch_end(epoch, {"val_loss": loss}, optimizer)
    told = [record.message for record in caplog.records]
    assert told == ["val_loss has not improved for 2 epochs: the learning rate goes from 0.1 to 0.05"]

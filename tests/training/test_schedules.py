"""Learning rates against closed forms: Keras' own schedules in steps where it has them, else the formula in numpy."""

import math
from typing import Any

import numpy as np
import pytest
from training.test_resume import check_interrupt, lines

from mltool.errors import SpecError
from mltool.spec.catalogue import KerasObject
from mltool.spec.schedules import SCHEDULE_DOCS, SCHEDULES
from mltool.training.optimizing.schedules import RATES, Span, build_schedule
from mltool.training.train import train

SPAN = Span(epochs=12, steps=7)
TOTAL = 84


def rates_of(name: str, arguments: dict[str, Any], span: Span = SPAN) -> np.ndarray:
    """The learning rate of every step of the phase, in the graph."""
    import tensorflow as tf

    schedule = build_schedule(KerasObject(name, arguments), span, at="here")
    rates = tf.function(lambda: tf.map_fn(schedule, tf.range(TOTAL, dtype=tf.int64), fn_output_signature="float"))()
    assert rates.dtype == tf.float32
    return rates.numpy()


def keras_rates(name: str, **arguments: Any) -> np.ndarray:
    import keras

    schedule = getattr(keras.optimizers.schedules, name)(**arguments)
    return np.asarray([float(schedule(step)) for step in range(TOTAL)])


AS_KERAS = {
    "a cosine": ("Cosine", {"learning_rate": 0.3}, "CosineDecay", {"initial_learning_rate": 0.3, "decay_steps": 84}),
    "a cosine that is warmed up and has a floor": (
        "Cosine",
        {"learning_rate": 0.5, "warmup_epochs": 2, "warmup_learning_rate": 0.1, "final_learning_rate": 0.05},
        "CosineDecay",
        {"initial_learning_rate": 0.1, "warmup_target": 0.5, "warmup_steps": 14, "decay_steps": 70, "alpha": 0.1},
    ),
    "cycles": (
        "Cosine",
        {"learning_rate": 0.5, "cycle_epochs": 1.5, "cycle_factor": 2, "cycle_decay": 0.5},
        "CosineDecayRestarts",
        {"initial_learning_rate": 0.5, "first_decay_steps": 10.5, "t_mul": 2.0, "m_mul": 0.5},
    ),
    "cycles of one length": (
        "Cosine",
        {"learning_rate": 0.5, "cycle_epochs": 4},
        "CosineDecayRestarts",
        {"initial_learning_rate": 0.5, "first_decay_steps": 28, "t_mul": 1.0},
    ),
    "a straight line": (
        "Polynomial",
        {"learning_rate": 0.2, "final_learning_rate": 0.02},
        "PolynomialDecay",
        {"initial_learning_rate": 0.2, "decay_steps": 84, "end_learning_rate": 0.02},
    ),
    "a polynomial": (
        "Polynomial",
        {"learning_rate": 0.2, "power": 0.9},
        "PolynomialDecay",
        {"initial_learning_rate": 0.2, "decay_steps": 84, "end_learning_rate": 0.0, "power": 0.9},
    ),
    "an exponential": (
        "Exponential",
        {"learning_rate": 0.2, "factor": 0.94, "decay_epochs": 2},
        "ExponentialDecay",
        {"initial_learning_rate": 0.2, "decay_steps": 14, "decay_rate": 0.94},
    ),
}


@pytest.mark.parametrize(("name", "arguments", "of_keras", "in_steps"), AS_KERAS.values(), ids=AS_KERAS)
def test_a_schedule_in_epochs_is_that_of_keras_in_steps(name, arguments, of_keras, in_steps):
    found = rates_of(name, arguments)
    np.testing.assert_allclose(found, keras_rates(of_keras, **in_steps), rtol=2e-5, atol=1e-7)
    assert len(set(found)) >= 28


def one_cycle(step: int, top: float, first: float, highest: float, last: float) -> float:
    """As PyTorch's OneCycleLR anneals: `end + (start - end) / 2 * (1 + cos(pi * share))`."""
    begin, end, share = (first, highest, step / top) if step < top else (highest, last, (step - top) / (TOTAL - top))
    return end + (begin - end) / 2 * (1 + math.cos(math.pi * share))


FORMULAS = {
    "one": ("Constant", {"learning_rate": 0.1}, lambda step: 0.1),
    "one after a warm-up of half an epoch": (
        "Constant",
        {"learning_rate": 0.1, "warmup_epochs": 0.5, "warmup_learning_rate": 0.03},
        lambda step: 0.1 if step >= 3.5 else 0.03 + 0.07 * step / 3.5,
    ),
    "steps of five epochs": ("Step", {"learning_rate": 1.0, "step_epochs": 5}, lambda step: 0.1 ** (step // 35)),
    "steps at milestones after a warm-up": (
        "Step",
        {"learning_rate": 1.0, "milestones": [3, 9.5], "factor": 0.5, "warmup_epochs": 1},
        lambda step: step / 7 if step < 7 else 0.5 ** ((step >= 21) + (step >= 66.5)),
    ),
    "an exponential counts from the end of the warm-up": (
        "Exponential",
        {"learning_rate": 1.0, "factor": 0.5, "warmup_epochs": 1},
        lambda step: step / 7 if step < 7 else 0.5 ** (step / 7 - 1),
    ),
    "one cycle": (
        "OneCycle",
        {"learning_rate": 0.5},
        lambda step: one_cycle(step, 0.3 * 84, 0.5 / 25, 0.5, 0.5 / 25 / 1e4),
    ),
    "one cycle of one's own": (
        "OneCycle",
        {"learning_rate": 0.5, "warmup_epochs": 6, "div_factor": 10, "final_div_factor": 2},
        lambda step: one_cycle(step, 42, 0.05, 0.5, 0.025),
    ),
}


@pytest.mark.parametrize(("name", "arguments", "formula"), FORMULAS.values(), ids=FORMULAS)
def test_a_schedule_is_its_formula(name, arguments, formula):
    expected = [formula(step) for step in range(TOTAL)]
    np.testing.assert_allclose(rates_of(name, arguments), expected, rtol=1e-5, atol=1e-7)


def test_the_tables_of_names_arguments_and_descriptions_agree():
    assert set(RATES) == set(SCHEDULES) == set(SCHEDULE_DOCS)
    for name, entry in SCHEDULES.items():
        assert set(entry["arguments"]) == set(SCHEDULE_DOCS[name]) - {""}


@pytest.mark.parametrize(
    ("name", "key"), [("Step", "step_epochs"), ("Cosine", "cycle_epochs")], ids=["a step", "a cycle"]
)
def test_what_comes_again_within_a_step_is_refused(name, key):
    with pytest.raises(SpecError, match=rf"here\.{key}: is less than a step: an epoch has 7 \(got 0\.1\)"):
        rates_of(name, {"learning_rate": 0.1, key: 0.1})


LONGER = {
    "a cosine": (
        "CosineDecay",
        {"initial_learning_rate": 0.001, "decay_steps": 1000},
        r"decay_steps: 1000 steps are more than the 84 of its phase, 12 epochs of 7: it would end at a learning rate of"
        r" 0\.000983; write at most 84 in all, or Cosine: ",
    ),
    "a warm-up that never ends": (
        "CosineDecay",
        {"initial_learning_rate": 0.0, "decay_steps": 80, "warmup_steps": 100, "warmup_target": 0.1},
        r"warmup_steps: 180 steps are more than the 84 .* end at a learning rate of 0\.084",
    ),
    "a polynomial": (
        "PolynomialDecay",
        {"initial_learning_rate": 0.1, "decay_steps": 168, "end_learning_rate": 0.0},
        r"decay_steps: 168 steps .* end at a learning rate of 0\.05; .* Polynomial",
    ),
    "a first cycle": (
        "CosineDecayRestarts",
        {"initial_learning_rate": 0.1, "first_decay_steps": 85},
        r"first_decay_steps: 85 steps are more than the 84",
    ),
    "a stair that never comes": (
        "ExponentialDecay",
        {"initial_learning_rate": 0.1, "decay_steps": 84, "decay_rate": 0.5, "staircase": True},
        r"decay_steps: 85 steps .* end at a learning rate of 0\.05",
    ),
    "a boundary that never comes": (
        "PiecewiseConstantDecay",
        {"boundaries": [10, 84], "values": [0.3, 0.2, 0.1]},
        r"boundaries: 85 steps are more than the 84 of its phase.* Step: ",
    ),
}


@pytest.mark.parametrize(("name", "arguments", "message"), LONGER.values(), ids=LONGER)
def test_a_schedule_of_keras_that_is_longer_than_its_phase_is_refused(name, arguments, message):
    with pytest.raises(SpecError, match=message):
        rates_of(name, arguments)


FITTING = {
    "a cosine of all steps": ("CosineDecay", {"initial_learning_rate": 0.1, "decay_steps": 84}),
    "an exponential, which has no end": (
        "ExponentialDecay",
        {"initial_learning_rate": 0.1, "decay_steps": 1000, "decay_rate": 0.5},
    ),
    "a last boundary": ("PiecewiseConstantDecay", {"boundaries": [83], "values": [0.3, 0.2]}),
}


@pytest.mark.parametrize(("name", "arguments"), FITTING.values(), ids=FITTING)
def test_a_schedule_of_keras_that_fits_is_keras_own(name, arguments):
    np.testing.assert_allclose(rates_of(name, arguments), keras_rates(name, **arguments), atol=1e-7)


@pytest.fixture
def scheduled(features: dict[str, Any]) -> dict[str, Any]:
    """Two phases of 4 steps an epoch: a cosine with a warm-up of half an epoch, then steps."""
    of_phases = [
        {"Cosine": {"learning_rate": 0.1, "warmup_epochs": 0.5}},
        {"Step": {"learning_rate": 1, "milestones": [1]}},
    ]
    del features["train"]["epochs"], features["train"]["optimizer"]
    features["train"]["phases"] = [{"epochs": 2, "optimizer": {"SGD": {"learning_rate": rate}}} for rate in of_phases]
    return features


def test_a_schedule_is_of_its_phase_and_resumes_exactly(scheduled, make_run, monkeypatch):
    uncut = make_run(scheduled, "uncut")
    train(uncut)
    # Written at the end of an epoch is the rate of the next step: 4 of 8, a third of the way from 2 to 8; then 8 of 8.
    expected = [0.05 * (1 + math.cos(math.pi / 3)), 0.0, 0.1, 0.1]
    assert [line["learning_rate"] for line in lines(uncut)] == pytest.approx(expected, abs=1e-7)
    run = make_run(scheduled)
    check_interrupt(run, uncut, monkeypatch, 6, "epoch 2, step 2 of 4")


def test_a_schedule_that_is_too_long_stops_before_training_and_leaves_nothing(features, make_run):
    rate = {"PolynomialDecay": {"initial_learning_rate": 0.1, "decay_steps": 9}}
    features["train"]["optimizer"] = {"SGD": {"learning_rate": rate}}
    run = make_run(features)
    key = r"train\.optimizer\.SGD\.learning_rate\.PolynomialDecay\.decay_steps"
    with pytest.raises(SpecError, match=rf"{key}: 9 steps are more than the 8 of its phase, 2 epochs of 4"):
        train(run)
    assert not run.directory.exists()

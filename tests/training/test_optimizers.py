"""Every optimizer of Keras trains and resumes; learning rates by layer and what does not decay, against two by hand."""

import os
import re
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from training.test_phases import by_path
from training.test_resume import check_interrupt, lines

from mltool.errors import SpecError
from mltool.spec.catalogue import KerasObject, names
from mltool.spec.train import PhaseSpec
from mltool.training.optimizing.optimizers import build_optimizer
from mltool.training.optimizing.schedules import Span
from mltool.training.setup import build_setup
from mltool.training.train import train

SPAN = Span(epochs=2, steps=4)


ALWAYS = ("Adam", "AdamW", "Muon", "SGD")
"""The others are of the long matrix."""


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in ALWAYS else pytest.mark.slow) for name in names("optimizer")]
)
def test_every_optimizer_of_keras_learns_and_resumes_to_the_same_bits(name, features, make_run, monkeypatch):
    features["train"] |= {"optimizer": {name: {"learning_rate": 0.05}}, "epochs": 2}
    uncut = make_run(features, "uncut")
    before = build_setup(uncut)
    train(uncut)
    losses = [line["loss"] for line in lines(uncut)]
    assert losses[1] < losses[0]
    assert before.loop.optimizer.name.startswith(re.sub(r"(?<!^)(?=[A-Z][a-z])", "_", name).lower()[:4])
    run = make_run(features)
    check_interrupt(run, uncut, monkeypatch, 6, "epoch 2, step 2 of 4")


def model_of_two() -> Any:
    """Two layers of known weights, `first` and `second`."""
    import keras

    keras.utils.set_random_seed(1)
    inputs = keras.Input((2,))
    hidden = keras.layers.Dense(3, activation="tanh", name="first")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(1, name="second")(hidden))
    for variable in model.variables:
        variable.assign(np.linspace(-1, 1, int(np.prod(variable.shape))).reshape(variable.shape))
    return model


def phase_of(optimizer: KerasObject, **more: Any) -> PhaseSpec:
    return PhaseSpec(epochs=SPAN.epochs, optimizer=optimizer, **more)


def stepped(optimizer: Any, variables: list[Any]) -> None:
    """Four steps in the graph, with gradients that follow from the step and the shape of a weight alone."""
    import tensorflow as tf

    optimizer.build(variables)

    @tf.function
    def step(number: Any) -> None:
        gradients = [tf.reshape(tf.cos(number + np.arange(v.value.shape.num_elements())), v.shape) for v in variables]
        optimizer.apply(gradients, variables)

    for number in range(4):
        step(tf.constant(number, tf.float32))


OPTIMIZERS = {
    "Adam": KerasObject("Adam", {"learning_rate": 0.1}),
    "AdamW, whose decay goes by the learning rate": KerasObject("AdamW", {"learning_rate": 0.1, "weight_decay": 0.5}),
    "SGD with momentum": KerasObject("SGD", {"learning_rate": 0.1, "momentum": 0.9, "nesterov": True}),
    "Lion": KerasObject("Lion", {"learning_rate": 0.1, "weight_decay": 0.5}),
    "Muon, which decays in its own way": KerasObject("Muon", {"learning_rate": 0.1, "weight_decay": 0.5}),
    "a schedule": KerasObject(
        "AdamW", {"learning_rate": KerasObject("Cosine", {"learning_rate": 0.1}), "weight_decay": 0.5}
    ),
}


@pytest.mark.parametrize("thing", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_a_factor_is_an_optimizer_of_its_own_with_that_learning_rate(thing):
    model, by_hand = model_of_two(), model_of_two()
    phase = phase_of(thing, learning_rates={"first": 0.25})
    with_factors = build_optimizer(phase, model, SPAN, at="train")
    stepped(with_factors, model.trainable_variables)
    # JAX gives every array to a step once, and a checkpoint holds it once.
    assert not {id(variable) for variable in with_factors.variables} & {id(variable) for variable in model.variables}
    rate = thing.arguments["learning_rate"]
    slow = KerasObject("Cosine", {"learning_rate": 0.025}) if isinstance(rate, KerasObject) else 0.025
    quarter = KerasObject(thing.name, {**thing.arguments, "learning_rate": slow})
    for layer, optimizer in (("first", quarter), ("second", thing)):
        alone = build_optimizer(phase_of(optimizer), by_hand, SPAN, at="train")
        stepped(alone, by_hand.get_layer(layer).trainable_variables)
    for one, other in zip(model.variables, by_hand.variables, strict=True):
        np.testing.assert_allclose(np.asarray(one), np.asarray(other), rtol=1e-5, atol=1e-6)
    assert by_path(model_of_two()).keys() == by_path(model).keys()


def test_the_schedule_free_optimizer_of_keras_is_not_that_of_its_paper_and_that_is_said(caplog):
    """Defazio et al., "The Road Less Scheduled" (arXiv:2405.15682), algorithm 1, in numpy."""
    import tensorflow as tf

    model, thing = model_of_two(), KerasObject("ScheduleFreeAdamW", {"learning_rate": 0.1})
    optimizer = build_optimizer(phase_of(thing), model, SPAN, at="train")
    assert "departs from its paper under TensorFlow" in caplog.text
    bias = model.get_layer("second").bias
    optimizer.build([bias])
    y = x = z = 1.0
    velocity = 0.0
    bias.assign([y])
    optimizer._momentums[0].assign([z])
    found = []
    for step, gradient in enumerate((0.3, 0.6, 0.9), start=1):
        optimizer.apply([tf.constant([gradient])], [bias])
        velocity = 0.999 * velocity + 0.001 * gradient**2
        z -= 0.1 * gradient / ((velocity / (1 - 0.999**step)) ** 0.5 + 1e-8)
        x = (1 - 1 / step) * x + z / step
        y = 0.1 * z + 0.9 * x
        found.append((float(bias[0]), y))
    # The first step is the same; the day that all are, Keras has mended it and the warning goes.
    assert found[0][0] == pytest.approx(found[0][1], abs=1e-6)
    assert abs(found[2][0] - found[2][1]) > 0.005


def test_clipping_by_the_norm_of_all_gradients_and_the_rate_that_is_written_down_are_of_the_whole():
    import tensorflow as tf

    sgd = KerasObject("SGD", {"learning_rate": 1.0, "global_clipnorm": 1.0})
    model = model_of_two()
    before = by_path(model)
    optimizer = build_optimizer(phase_of(sgd, learning_rates={"first/.*": 0.5}), model, SPAN, at="train")
    optimizer.apply([tf.ones(v.shape) for v in model.trainable_variables], model.trainable_variables)
    # 13 weights with a gradient of 1 each: the norm of all is the root of 13.
    for path, value in by_path(model).items():
        factor = 0.5 if path.startswith("first") else 1.0
        np.testing.assert_allclose(before[path] - value, factor / np.sqrt(13), rtol=1e-5)
    assert float(optimizer.learning_rate) == 1.0


def test_what_is_excluded_does_not_decay():
    import tensorflow as tf

    adamw = KerasObject("AdamW", {"learning_rate": 0.1, "weight_decay": 0.5})
    model = model_of_two()
    before = by_path(model)
    phase = phase_of(adamw, no_weight_decay=[".*/bias", "second"])
    optimizer = build_optimizer(phase, model, SPAN, at="train")
    optimizer.apply([tf.zeros(v.shape) for v in model.trainable_variables], model.trainable_variables)
    after = by_path(model)
    # No gradient: nothing but the decay, 0.1 * 0.5 of the weight.
    np.testing.assert_allclose(after.pop("first/kernel"), before.pop("first/kernel") * 0.95, rtol=1e-6)
    for path, value in after.items():
        np.testing.assert_array_equal(value, before[path])


MIRRORED = """
import numpy as np
import tensorflow as tf

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from training.test_optimizers import SPAN, model_of_two, phase_of
from mltool.spec.catalogue import KerasObject
from mltool.training.optimizing.optimizers import build_optimizer

RATE = KerasObject("OneCycle", {"learning_rate": 0.1})
PHASE = phase_of(
    KerasObject("AdamW", {"learning_rate": RATE, "weight_decay": 0.5}),
    learning_rates={"first": 0.25, "second/bias": 3.0},
    no_weight_decay=["second"],
)


def trained(strategy):
    with strategy.scope():
        model = model_of_two()
        optimizer = build_optimizer(PHASE, model, SPAN, at="train")
        optimizer.build(model.trainable_variables)

    @tf.function
    def steps(number):
        def step():
            # The sum over the replicas is what one device has.
            share = 1.0 / strategy.num_replicas_in_sync
            variables = model.trainable_variables
            optimizer.apply([share * tf.cos(number) * tf.ones(v.shape) for v in variables], variables)

        def body(index):
            strategy.run(step)
            return index + 1

        tf.while_loop(lambda index: index < 2, body, [tf.constant(0)])

    steps(tf.constant(1.0))
    steps(tf.constant(2.0))
    return [np.asarray(v.numpy()) for v in model.variables]


one = trained(tf.distribute.get_strategy())
two = trained(tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]))
begun = [v.numpy() for v in model_of_two().variables]
equal = all(np.allclose(a, b, rtol=1e-6) for a, b in zip(one, two))
print("equal", equal, all((a != b).any() for a, b in zip(one, begun)))
"""


def test_factors_decay_and_schedules_on_two_replicas_are_those_of_one_device():
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", MIRRORED]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment, check=False)
    assert done.stdout.strip() == "equal True True", done.stderr[-3000:]


WRONG = {
    "a pattern of nothing": (
        {"learning_rates": {"frist": 0.1}},
        r"train\.learning_rates\.frist: no layer with weights, and no weight, matches 'frist'; did you mean 'first'",
    ),
    "two patterns of one weight": (
        {"learning_rates": {"first": 0.1, ".*/bias": 2}},
        r"train\.learning_rates: '\.\*/bias' and 'first' both match .*first/bias",
    ),
    "what does not decay is not there": (
        {"no_weight_decay": ["first", "third/.*"]},
        r"train\.no_weight_decay\.1: no layer with weights.* 'third/\.\*'",
    ),
    "what is frozen": (
        {"learning_rates": {"frozen": 0.1}},
        r"learning_rates\.frozen: 'frozen' matches only what is not trained, such as frozen/kernel; leave",
    ),
}


@pytest.mark.parametrize(("keys", "message"), WRONG.values(), ids=WRONG)
def test_patterns_that_cannot_be_meant_are_refused(keys, message):
    import keras

    base = model_of_two()
    frozen = keras.layers.Dense(1, name="frozen", trainable=False)
    model = keras.Model(base.inputs, frozen(base.output))
    adamw = KerasObject("AdamW", {})
    with pytest.raises(SpecError, match=message):
        build_optimizer(phase_of(adamw, **keys), model, SPAN, at="train")


@pytest.mark.slow
def test_factors_by_layer_resume_to_the_same_bits(hard, make_run, monkeypatch):
    hard["train"] |= {
        "epochs": 2,
        "callbacks": [],
        "optimizer": {"AdamW": {"learning_rate": {"OneCycle": {"learning_rate": 0.01}}, "weight_decay": 0.1}},
        "learning_rates": {"conv2d": 0.1, "dense/kernel": 2},
        "no_weight_decay": [".*/(bias|gamma|beta)"],
    }
    uncut, run = make_run(hard, "uncut"), make_run(hard)
    train(uncut)
    check_interrupt(run, uncut, monkeypatch, 6, "epoch 2, step 2 of 4")

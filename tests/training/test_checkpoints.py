"""Checkpoints hold all that an optimizer keeps, and only whole ones are taken up."""

import numpy as np
import pytest

from mltool.errors import ArtifactError
from mltool.models.keras_objects import build_keras
from mltool.spec.catalogue import KerasObject
from mltool.training.checkpoints import Checkpoints, State

OPTIMIZERS = {
    "SGD with momentum": KerasObject("SGD", {"learning_rate": 0.1, "momentum": 0.9, "nesterov": True}),
    "Adam with AMSGrad": KerasObject("Adam", {"learning_rate": 0.1, "amsgrad": True}),
    "Nadam": KerasObject("Nadam", {"learning_rate": 0.1}),
    "Adafactor": KerasObject("Adafactor", {"learning_rate": 0.1}),
    "Lion": KerasObject("Lion", {"learning_rate": 0.1}),
    "RMSprop, centered": KerasObject("RMSprop", {"learning_rate": 0.1, "momentum": 0.5, "centered": True}),
    "a loss scale": KerasObject("LossScaleOptimizer", {"inner_optimizer": KerasObject("Adam", {"learning_rate": 0.1})}),
    "a schedule": KerasObject(
        "SGD", {"learning_rate": KerasObject("CosineDecay", {"initial_learning_rate": 0.1, "decay_steps": 6})}
    ),
}


def model_and_optimizer(optimizer):
    import keras

    keras.utils.set_random_seed(1)
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.Dense(2, name="out")(keras.layers.Dense(3, name="hidden")(inputs)))
    built = build_keras(optimizer, "optimizers")
    built.build(model.trainable_variables)
    return model, built


def run_steps(model, optimizer, steps):
    for step in steps:
        gradients = [np.full(v.shape, np.sin(step + 1.0), np.float32) for v in model.trainable_variables]
        optimizer.apply(gradients, model.trainable_variables)


@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS.keys())
def test_an_optimizer_goes_on_from_a_checkpoint_bit_for_bit(optimizer, tmp_path):
    model, first = model_and_optimizer(optimizer)
    run_steps(model, first, range(3))
    Checkpoints(tmp_path).save(State(global_step=3), [*model.variables, *first.variables])
    run_steps(model, first, range(3, 6))
    # In one process Keras counts: `adam_1/...`, which must not matter.
    again, second = model_and_optimizer(optimizer)
    assert Checkpoints(tmp_path).load([*again.variables, *second.variables]) == State(global_step=3)
    run_steps(again, second, range(3, 6))
    for one, other in zip([*model.variables, *first.variables], [*again.variables, *second.variables], strict=True):
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))


def test_the_state_comes_back_as_it_was(tmp_path):
    model, _ = model_and_optimizer(OPTIMIZERS["Lion"])
    state = State(
        epoch=3,
        step=2,
        global_step=14,
        logs={"loss": 0.1 + 0.2},
        callbacks={"EarlyStopping": {"best": 1 / 3, "wait": 1}},
        seconds=1.5,
    )
    Checkpoints(tmp_path).save(state, model.variables)
    assert Checkpoints(tmp_path).load(model.variables) == state


def test_two_checkpoints_and_the_best_weights_that_they_name_are_kept(tmp_path):
    model, _ = model_and_optimizer(OPTIMIZERS["Lion"])
    checkpoints = Checkpoints(tmp_path)
    for epoch, best in enumerate([0, 1, 1, 3, 3, 3]):
        if best == epoch:
            checkpoints.save_best(epoch, model.variables)
        checkpoints.save(State(epoch=epoch + 1, global_step=10 * epoch, best_epoch=best), model.variables)
        found = sorted(file.name for file in tmp_path.iterdir())
        if epoch == 3:
            assert found == ["best-1.npz", "best-3.npz", "step-000000020.npz", "step-000000030.npz"]
    assert found == ["best-3.npz", "step-000000040.npz", "step-000000050.npz"]


@pytest.mark.parametrize("position", range(0, 1000, 90))
def test_a_changed_byte_anywhere_is_damage_or_of_no_consequence(position, tmp_path, caplog):
    model, _ = model_and_optimizer(OPTIMIZERS["Lion"])
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(State(global_step=1), model.variables)
    checkpoints.save(State(global_step=2), model.variables)
    newest = tmp_path / "step-000000002.npz"
    content = bytearray(newest.read_bytes())
    place = len(content) * position // 1000
    content[place] ^= 0x55
    newest.write_bytes(content)
    before = [np.asarray(v) for v in model.variables]
    state = Checkpoints(tmp_path).load(model.variables)
    assert state is not None
    assert state.global_step == (1 if "is damaged" in caplog.text else 2)
    for one, other in zip(before, model.variables, strict=True):
        np.testing.assert_array_equal(one, np.asarray(other))


def test_best_weights_that_are_gone_are_said_so(tmp_path):
    model, _ = model_and_optimizer(OPTIMIZERS["Lion"])
    with pytest.raises(ArtifactError, match=r"best-4.npz is missing or damaged: .*; train again"):
        Checkpoints(tmp_path).load_best(4, model.variables)


def test_weights_of_another_shape_are_refused(tmp_path):
    import keras

    model, _ = model_and_optimizer(OPTIMIZERS["Lion"])
    Checkpoints(tmp_path).save(State(), model.variables)
    inputs = keras.Input((4,))
    other = keras.Model(inputs, keras.layers.Dense(2, name="out")(keras.layers.Dense(5, name="hidden")(inputs)))
    message = r"belongs to another model: hidden/kernel is \(4, 3\) there, \(4, 5\) here"
    with pytest.raises(ArtifactError, match=message):
        Checkpoints(tmp_path).load(other.variables)

"""The loop against numpy, against a loop written by hand, against Keras' and scikit-learn's metrics."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mltool.data.dataset import Samples
from mltool.data.mixing import build_mixing
from mltool.data.order import epoch_order
from mltool.data.pipeline import Pipeline
from mltool.errors import SpecError
from mltool.models.keras_objects import build_keras
from mltool.spec.catalogue import KerasObject
from mltool.spec.outputs import OutputSpec
from mltool.spec.task import task_of
from mltool.training.loops.head import Head
from mltool.training.loops.loop import Loop

NUMBERS = np.random.default_rng(5)
CROSSENTROPY = KerasObject("SparseCategoricalCrossentropy", {"from_logits": True})


def loop_of(model: Any, optimizer: KerasObject, loss: KerasObject, metrics: tuple[KerasObject, ...] = ()) -> Loop:
    import tensorflow as tf

    built = build_keras(optimizer, "optimizers")
    return Loop(model, built, heads=heads_of(model, loss, metrics), strategy=tf.distribute.get_strategy())


def heads_of(model, loss, metrics):
    head = OutputSpec.model_construct(loss=loss, metrics=tuple(metrics))
    return lambda: [Head("", head, task=task_of(loss), shape=tuple(model.output_shape[1:]))]


def samples_of(inputs: np.ndarray, targets: np.ndarray) -> Samples:
    return Samples({"x": inputs.astype(np.float32)}, targets, np.arange(len(targets)))


def run_epochs(loop: Loop, pipeline: Pipeline, epochs: int) -> dict[str, float]:
    import tensorflow as tf

    for epoch in range(epochs):
        loop.reset_metrics()
        loop.train_steps(pipeline.epoch(epoch), tf.constant(pipeline.steps, tf.int64))
    return loop.results()


def evaluate(loop: Loop, samples: Samples, batch_size: int) -> dict[str, float]:
    import tensorflow as tf

    pipeline = Pipeline(samples, batch_size)
    loop.reset_metrics()
    loop.evaluate_steps(pipeline.epoch(0), tf.constant(pipeline.steps, tf.int64))
    return loop.results()


def linear(units: int, **arguments: Any) -> Any:
    import keras

    inputs = keras.Input((3,), name="x")
    return keras.Model(inputs, keras.layers.Dense(units, name="out", **arguments)(inputs))


def test_a_linear_model_learns_as_numpy_says_with_l2_and_an_uneven_last_batch():
    import keras

    x, y = NUMBERS.normal(size=(7, 3)).astype(np.float32), NUMBERS.normal(size=(7, 1)).astype(np.float32)
    model = linear(1, kernel_regularizer=keras.regularizers.L2(0.1))
    w, b = (value.astype(np.float64) for value in model.get_weights())
    loop = loop_of(model, KerasObject("SGD", {"learning_rate": 0.1}), KerasObject("MeanSquaredError"))
    losses = []
    for epoch in range(2):
        order, losses = epoch_order(3, epoch, 7), []
        for batch in (order[:3], order[3:6], order[6:]):
            error = x[batch] @ w + b - y[batch]
            losses += [float(e**2 + 0.1 * (w**2).sum()) for e in error[:, 0]]
            w, b = (
                w - 0.1 * (2 * x[batch].T @ error / len(batch) + 2 * 0.1 * w),
                b - 0.1 * 2 * error.mean(axis=0),
            )
    results = run_epochs(loop, Pipeline(samples_of(x, y), 3, seed=3), 2)
    np.testing.assert_allclose(model.get_weights()[0], w, rtol=1e-5)
    np.testing.assert_allclose(model.get_weights()[1], b, rtol=1e-5)
    assert results["loss"] == pytest.approx(np.mean(losses), rel=1e-5)
    expected = float(((x @ w + b - y) ** 2).mean() + 0.1 * (w**2).sum())
    assert evaluate(loop, samples_of(x, y), 2)["loss"] == pytest.approx(expected, rel=1e-5)


def test_a_schedule_is_applied_in_every_step():
    """With outputs far above the targets the gradient of the mean absolute error is the mean input, step after step."""
    x, y = np.abs(NUMBERS.normal(size=(8, 3))).astype(np.float32), np.full((8, 1), -1e6, np.float32)
    model = linear(1, use_bias=False)
    before = model.get_weights()[0][:, 0]
    schedule = KerasObject("CosineDecay", {"initial_learning_rate": 0.5, "decay_steps": 6})
    loop = loop_of(model, KerasObject("SGD", {"learning_rate": schedule}), KerasObject("MeanAbsoluteError"))
    run_epochs(loop, Pipeline(samples_of(x, y), 4, seed=0), 2)
    rates = [0.5 * 0.5 * (1 + np.cos(np.pi * step / 6)) for step in range(4)]
    moved, step = np.zeros(3), 0
    for epoch in range(2):
        order = epoch_order(0, epoch, 8)
        for batch in (order[:4], order[4:]):
            moved += rates[step] * x[batch].mean(axis=0)
            step += 1
    np.testing.assert_allclose(before - model.get_weights()[0][:, 0], moved, rtol=1e-5)
    assert float(loop.optimizer.learning_rate) == pytest.approx(0.25 * (1 + np.cos(np.pi * 4 / 6)))


def convolutional() -> Any:
    import keras

    keras.utils.set_random_seed(11)
    layers = keras.layers
    inputs = keras.Input((6, 6, 1), name="x")
    # No bias before the normalization: its gradient is 0 but for rounding, which Adam would blow up.
    out = layers.Conv2D(3, 3, name="conv", use_bias=False, kernel_regularizer="l2")(inputs)
    out = layers.ReLU(name="relu")(layers.BatchNormalization(name="norm")(out))
    return keras.Model(inputs, layers.Dense(4, name="out")(layers.Flatten(name="flat")(out)))


def test_a_convolutional_model_learns_as_in_a_loop_written_by_hand():
    import keras
    import tensorflow as tf

    x, y = NUMBERS.random((22, 6, 6, 1)).astype(np.float32), NUMBERS.integers(0, 4, 22)
    ours, theirs = convolutional(), convolutional()
    loop = loop_of(ours, KerasObject("Adam", {"learning_rate": 0.01}), CROSSENTROPY, (KerasObject("accuracy"),))
    results = run_epochs(loop, Pipeline(samples_of(x, y), 8, seed=9), 3)
    optimizer, loss_of = keras.optimizers.Adam(0.01), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    right = 0
    for epoch in range(3):
        order, right = epoch_order(9, epoch, 22), 0
        for batch in (order[:8], order[8:16], order[16:]):
            with tf.GradientTape() as tape:
                outputs = theirs(x[batch], training=True)
                loss = loss_of(y[batch], outputs) + tf.add_n(theirs.losses)
            gradients = tape.gradient(loss, theirs.trainable_variables)
            optimizer.apply(gradients, theirs.trainable_variables)
            right += int((outputs.numpy().argmax(axis=1) == y[batch]).sum())
    for one, other in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, atol=2e-5)
    assert results["accuracy"] == pytest.approx(right / 22)


def softmax(values: np.ndarray) -> np.ndarray:
    powers = np.exp(values - values.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def sigmoid(values: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-values))


def identity_model(values: int) -> Any:
    """Answers with its input, so that a test says what the outputs are."""
    import keras

    inputs = keras.Input((values,), name="x")
    layer = keras.layers.Dense(values, use_bias=False, kernel_initializer=keras.initializers.Identity(), name="out")
    return keras.Model(inputs, layer(inputs))


def test_metrics_of_a_classification_are_those_of_scikit_learn_on_probabilities():
    from sklearn import metrics

    logits, y = NUMBERS.normal(size=(50, 3)) * 2, NUMBERS.integers(0, 3, 50)
    wanted = (
        KerasObject("accuracy"),
        KerasObject("F1Score", {"average": "macro"}),
        KerasObject("Precision"),
        KerasObject("Recall", {"thresholds": 0.3}),
        KerasObject("AUC", {"num_thresholds": 5000}),
        KerasObject("crossentropy"),
        KerasObject("SparseTopKCategoricalAccuracy", {"k": 2}),
    )
    loop = loop_of(identity_model(3), KerasObject("SGD"), CROSSENTROPY, wanted)
    results = evaluate(loop, samples_of(logits, y), 16)
    p, one_hot = softmax(logits), np.eye(3)[y]
    expected = {
        "loss": metrics.log_loss(y, p),
        "accuracy": metrics.accuracy_score(y, p.argmax(axis=1)),
        "f1_score": metrics.f1_score(y, p.argmax(axis=1), average="macro"),
        "precision": metrics.precision_score(one_hot.ravel(), p.ravel() > 0.5),
        "recall": metrics.recall_score(one_hot.ravel(), p.ravel() > 0.3),
        "auc": metrics.roc_auc_score(one_hot.ravel(), p.ravel()),
        "crossentropy": metrics.log_loss(y, p),
        "sparse_top_k_categorical_accuracy": metrics.top_k_accuracy_score(y, p, k=2),
    }
    assert list(results) == list(expected)
    assert results == pytest.approx(expected, abs=1e-3)


def test_metrics_of_a_binary_model_are_those_of_scikit_learn_on_probabilities():
    from sklearn import metrics

    logits, y = NUMBERS.normal(size=(50, 1)) * 2, NUMBERS.integers(0, 2, 50)
    wanted = (KerasObject("accuracy"), KerasObject("Precision"), KerasObject("AUC", {"num_thresholds": 5000}))
    loss = KerasObject("BinaryCrossentropy", {"from_logits": True})
    results = evaluate(loop_of(identity_model(1), KerasObject("SGD"), loss, wanted), samples_of(logits, y), 16)
    p = sigmoid(logits[:, 0])
    expected = {
        "loss": metrics.log_loss(y, p),
        "accuracy": metrics.accuracy_score(y, p > 0.5),
        "precision": metrics.precision_score(y, p > 0.5),
        "auc": metrics.roc_auc_score(y, p),
    }
    assert results == pytest.approx(expected, abs=1e-3)


def test_metrics_of_a_regression_are_those_of_scikit_learn():
    from sklearn import metrics

    outputs, y = NUMBERS.normal(size=(50, 2)), NUMBERS.normal(size=(50, 2)).astype(np.float32)
    wanted = (KerasObject("MeanAbsoluteError"), KerasObject("RootMeanSquaredError"), KerasObject("R2Score"))
    loop = loop_of(identity_model(2), KerasObject("SGD"), KerasObject("MeanSquaredError"), wanted)
    assert evaluate(loop, samples_of(outputs, y), 16) == pytest.approx(
        {
            "loss": metrics.mean_squared_error(y, outputs),
            "mean_absolute_error": metrics.mean_absolute_error(y, outputs),
            "root_mean_squared_error": float(np.sqrt(((y - outputs) ** 2).mean())),
            "r2_score": metrics.r2_score(y, outputs),
        },
        rel=1e-4,
    )


def test_one_hot_losses_are_those_of_class_numbers():
    logits, y = NUMBERS.normal(size=(30, 3)), NUMBERS.integers(0, 3, 30)
    losses = [
        evaluate(loop_of(identity_model(3), KerasObject("SGD"), loss), samples_of(logits, y), 8)["loss"]
        for loss in (CROSSENTROPY, KerasObject("CategoricalCrossentropy", {"from_logits": True}))
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


def test_evaluation_neither_drops_nor_learns():
    import keras

    inputs = keras.Input((3,), name="x")
    out = keras.layers.Dropout(0.9)(keras.layers.BatchNormalization(name="norm")(inputs))
    model = keras.Model(inputs, keras.layers.Dense(3, name="out")(out))
    loop = loop_of(model, KerasObject("SGD"), CROSSENTROPY)
    x, y = NUMBERS.normal(size=(20, 3)).astype(np.float32) + 5, NUMBERS.integers(0, 3, 20)
    before = [np.asarray(v) for v in loop.variables()[: len(model.variables)]]
    loss = evaluate(loop, samples_of(x, y), 6)["loss"]
    w, b = model.layers[-1].get_weights()
    logits = x / np.sqrt(1.001) @ w + b  # the statistics of the beginning: mean 0, variance 1
    assert loss == pytest.approx(-np.log(softmax(logits)[np.arange(20), y]).mean(), rel=1e-5)
    for one, other in zip(before, model.variables, strict=True):
        np.testing.assert_array_equal(one, np.asarray(other))


def test_the_length_of_chunks_changes_nothing():
    import tensorflow as tf

    x, y = NUMBERS.random((22, 6, 6, 1)).astype(np.float32), NUMBERS.integers(0, 4, 22)
    ends = []
    for lengths in ([3], [1, 2], [1, 1, 1]):
        loop = loop_of(convolutional(), KerasObject("Adam"), CROSSENTROPY)
        batches = Pipeline(samples_of(x, y), 8, seed=9).epoch(0)
        for length in lengths:
            loop.train_steps(batches, tf.constant(length, tf.int64))
        assert loop.train_steps.experimental_get_tracing_count() == 1
        ends.append([np.asarray(variable) for variable in loop.variables()])
    for other in ends[1:]:
        for one, two in zip(ends[0], other, strict=True):
            np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize(
    ("loss", "metrics", "message"),
    [
        (
            CROSSENTROPY,
            (KerasObject("F1Score"),),
            r"train\.metrics\.0\.F1Score: gives 3 values, one is expected; write average",
        ),
        (
            CROSSENTROPY,
            (KerasObject("accuracy"), KerasObject("MeanIoU", {"num_classes": -1})),
            r"train\.metrics\.1\.MeanIoU: ",
        ),
        (
            KerasObject("MeanSquaredError"),
            (KerasObject("crossentropy"),),
            "crossentropy has no meaning for a regression",
        ),
        (
            CROSSENTROPY,
            (KerasObject("OneHotMeanIoU", {"num_classes": 2}),),
            r"train\.metrics\.0\.OneHotMeanIoU\.num_classes: counts 2 classes, and the model tells 3 apart; write",
        ),
    ],
    ids=["a value for every class", "an argument out of range", "a metric of another task", "fewer classes"],
)
def test_a_metric_that_cannot_be_measured_is_refused_before_training(loss, metrics, message):
    with pytest.raises(SpecError, match=message):
        loop_of(linear(3), KerasObject("SGD"), loss, metrics)


def test_directions_come_from_keras_and_not_from_names():
    metrics = (
        KerasObject("accuracy"),
        KerasObject("CosineSimilarity", {"name": "loss_like"}),
        KerasObject("MeanAbsoluteError", {"name": "my_accuracy"}),
        KerasObject("TruePositives"),
    )
    loop = loop_of(linear(3), KerasObject("SGD"), CROSSENTROPY, metrics)
    assert loop.greater_is_better() == {
        "loss": False,
        "accuracy": True,
        "loss_like": True,
        "my_accuracy": False,
        "true_positives": None,
    }


def test_a_mixed_batch_of_classes_is_learned_as_from_soft_labels_with_weights_that_stay_with_their_targets():
    import keras
    import tensorflow as tf

    x, y = NUMBERS.random((22, 3)).astype(np.float32), NUMBERS.integers(0, 4, 22)
    class_weights = np.asarray([0.5, 1, 2, 4], np.float32)
    mix = build_mixing([keras.layers.MixUp(alpha=1.0)], 5, {"x": x})
    ours, theirs = linear(4), linear(4)
    theirs.set_weights(ours.get_weights())
    loop = loop_of(ours, KerasObject("SGD", {"learning_rate": 0.1}), CROSSENTROPY, (KerasObject("accuracy"),))
    results = run_epochs(loop, Pipeline(samples_of(x, y), 8, seed=9, mix=mix, class_weights=class_weights), 1)
    optimizer, right, losses = keras.optimizers.SGD(0.1), 0, []
    for inputs, own, weights, mixed in Pipeline(
        samples_of(x, y), 8, seed=9, mix=mix, class_weights=class_weights
    ).epoch(0):
        share = weights / class_weights[own.numpy()]
        np.testing.assert_allclose(mixed["weights"], (1 - share) * class_weights[mixed["targets"].numpy()], atol=1e-5)
        soft = tf.one_hot(own, 4) * weights[:, None] + tf.one_hot(mixed["targets"], 4) * mixed["weights"][:, None]
        with tf.GradientTape() as tape:
            outputs = theirs(inputs["x"])
            loss = -tf.reduce_sum(soft * tf.nn.log_softmax(outputs), axis=1)
            mean = tf.reduce_mean(loss)
        optimizer.apply(tape.gradient(mean, theirs.trainable_variables), theirs.trainable_variables)
        losses += loss.numpy().tolist()
        # Of the greater share, whatever the weights say.
        right += int(np.sum(np.argmax(outputs, axis=1) == np.where(share >= 0.5, own, mixed["targets"])))
    for one, other in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
    assert results == {"loss": pytest.approx(np.mean(losses), rel=1e-5), "accuracy": pytest.approx(right / 22)}


MIRRORED = """
import numpy as np
from mltool import extras
tf = extras.tensorflow()
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
keras = extras.keras()
from pathlib import Path
from mltool.data.dataset import Samples
from mltool.data.mixing import build_mixing
from mltool.data.pipeline import Pipeline, Shares
from mltool.models.keras_objects import build_keras
from mltool.spec.catalogue import KerasObject
from mltool.training.devices.strategy import distribution_of
from mltool.training.checkpoints import Checkpoints, State
from mltool.spec.outputs import OutputSpec
from mltool.spec.task import task_of
from mltool.training.loops.head import Head
from mltool.training.loops.loop import Loop

numbers = np.random.default_rng(0)
x, y = numbers.random((33, 4)).astype(np.float32), numbers.integers(0, 3, 33)  # 16 + 16 + 1: a replica without a sample
samples = Samples({"x": x}, y, np.arange(33))

def train(strategy, folder):
    keras.utils.set_random_seed(1)
    with strategy.scope():
        inputs = keras.Input((4,), name="x")
        hidden = keras.layers.Dense(8, activation="relu", name="hidden", kernel_regularizer="l2")(inputs)
        model = keras.Model(inputs, keras.layers.Dense(3, name="out")(hidden))
        optimizer = build_keras(KerasObject("Adam", {"learning_rate": 0.05}), "optimizers")
    loss = KerasObject("SparseCategoricalCrossentropy", {"from_logits": True})
    metrics = [KerasObject("accuracy"), KerasObject("F1Score", {"average": "macro"})]
    head = OutputSpec.model_construct(loss=loss, metrics=tuple(metrics))
    heads = lambda: [Head("", head, task=task_of(loss), shape=(3,))]
    loop = Loop(model, optimizer, heads=heads, strategy=strategy)
    replicas, distribute = strategy.num_replicas_in_sync, distribution_of(strategy)
    mix = build_mixing([keras.layers.MixUp(alpha=1.0)], 4, samples.inputs)
    shares = Shares(replicas, 0, replicas)
    pipeline = Pipeline(samples, 16, seed=2, mix=mix, shares=shares, distribute=distribute)
    validation = Pipeline(samples, 10, shares=shares, distribute=distribute)
    results = []
    for epoch in range(3):
        loop.reset_metrics()
        loop.train_steps(pipeline.epoch(epoch), tf.constant(3, tf.int64))
        results.append(loop.results())
        if epoch == 1:  # and what is not saved is lost
            Checkpoints(folder).save(State(epoch=2), loop.variables())
            for variable in loop.variables():
                variable.assign(np.zeros_like(np.asarray(variable)))
            assert Checkpoints(folder).load(loop.variables()) == State(epoch=2)
    loop.reset_metrics()
    loop.evaluate_steps(validation.epoch(0), tf.constant(4, tf.int64))
    return [loop.results(), *results], [np.asarray(v) for v in model.variables]

import sys
one, weights = train(tf.distribute.get_strategy(), Path(sys.argv[1]) / "one")
two, mirrored = train(tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]), Path(sys.argv[1]) / "two")
for a, b in zip(one, two, strict=True):
    assert a.keys() == b.keys() == {"loss", "accuracy", "f1_score"}
    np.testing.assert_allclose(list(a.values()), list(b.values()), atol=1e-6)
for a, b in zip(weights, mirrored, strict=True):
    np.testing.assert_allclose(a, b, atol=1e-6)
print("equal", one[0]["loss"] > 0)
"""


def test_two_replicas_learn_as_one_device_also_from_an_uneven_last_batch(tmp_path):
    command = [sys.executable, "-c", MIRRORED, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=os.environ, check=False)
    assert done.stdout.strip() == "equal True", done.stderr[-3000:]
    assert Path(tmp_path / "two").is_dir()


def test_metrics_of_mixed_labels_see_those_of_the_greater_share():
    import tensorflow as tf

    loss = KerasObject("BinaryCrossentropy", {"from_logits": True})
    output = OutputSpec.model_construct(loss=loss, metrics=(KerasObject("accuracy", {}),))
    head = Head("", output, task="multi_label", shape=(4,))
    shares, logits = tf.constant([[0.7, 0.3, 1.0, 0.0]]), tf.constant([[2.0, -2.0, -2.0, -2.0]])
    head.update(shares, logits, head.sample_losses(shares, logits))
    assert float(head.metrics[0].result()) == 0.75

"""A training step of the user's: the plain program's weights, one trace, several devices, resuming, and mistakes."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cuts import interrupt_at

from mltool.data.order import epoch_order
from mltool.errors import Interrupted, SpecError, TrainingError
from mltool.runs.run import Run
from mltool.spec.load import load_spec
from mltool.training.records import read_lines
from mltool.training.train import train

CONFIG = Path(__file__).parents[2] / "configs" / "mnist_step.yaml"

LIMIT, ROUNDS = 1.2, 12

STEPS = '''
import tensorflow as tf

TRACED = []


def plain(model, optimizer, loss, batch):
    x, y = batch
    with tf.GradientTape() as tape:
        outputs = model(x, training=True)
        value = loss(y, outputs)
    gradients = tape.gradient(value, model.trainable_variables)
    optimizer.apply_gradients(zip(gradients, model.trainable_variables))
    return {"loss": value, "outputs": outputs}


@tf.function
def decorated(model, optimizer, loss, batch):
    return plain(model, optimizer, loss, batch)


def softened(value, limit):
    if value > limit:
        value = value / 2.0
    return value


def branching(model, optimizer, loss, batch, limit, rounds):
    """Halves a loss above the limit, and adds the squared first weights once a round: all of it tensors."""
    TRACED.append(model.name)
    x, y = batch
    with tf.GradientTape() as tape:
        outputs = model(x, training=True)
        value = loss(y, outputs)
        total = softened(value, limit)
        for index in tf.range(tf.shape(x)[0] // rounds):
            total += tf.cast(index, tf.float32) * tf.reduce_sum(model.trainable_variables[0] ** 2)
    gradients = tape.gradient(total, model.trainable_variables)
    optimizer.apply(gradients, model.trainable_variables)
    return value


def raising(model, optimizer, loss, batch):
    return undefined_name


def still(model, optimizer, loss, batch):
    x, y = batch
    return loss(y, model(x))


def without_gradient(model, optimizer, loss, batch):
    with tf.GradientTape() as tape:
        value = tf.constant(1.0)
    optimizer.apply(tape.gradient(value, model.trainable_variables), model.trainable_variables)
    return value


def no_scalar(model, optimizer, loss, batch):
    plain(model, optimizer, loss, batch)
    return batch[0]


def no_tensor(model, optimizer, loss, batch):
    plain(model, optimizer, loss, batch)


def other_keys(model, optimizer, loss, batch):
    return {**plain(model, optimizer, loss, batch), "logits": 1}


def other_outputs(model, optimizer, loss, batch):
    return {**plain(model, optimizer, loss, batch), "outputs": batch[0]}


def loss_alone(model, optimizer, loss, batch):
    return plain(model, optimizer, loss, batch)["loss"]


def infinite(model, optimizer, loss, batch):
    return {**plain(model, optimizer, loss, batch), "loss": loss.weights[0] / 0.0}


def asserting(model, optimizer, loss, batch):
    tf.debugging.assert_less(tf.cast(optimizer.iterations, tf.int32), 5)
    return plain(model, optimizer, loss, batch)


def two(model, batch):
    return 0.0


class Step:
    pass
'''


@pytest.fixture
def steps(tmp_path: Path) -> Path:
    path = tmp_path / "my_step.py"
    path.write_text(STEPS, encoding="utf-8")
    return path


def with_step(spec: dict[str, Any], name: str, arguments: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    step = {"python": f"my_step:{name}", **({"arguments": arguments} if arguments else {})}
    return spec | {"train": spec["train"] | {"step": step, **more}}


def weights_of(run: Run) -> list[np.ndarray]:
    import keras

    return keras.models.load_model(run.keras_file, compile=False).get_weights()


def assert_close(ones: list[np.ndarray], others: list[np.ndarray], atol: float) -> None:
    for one, other in zip(ones, others, strict=True):
        np.testing.assert_allclose(one, other, atol=atol)


def drawn_digits(samples: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Squares of ten sizes on noise."""
    numbers = np.random.default_rng(seed)
    images, labels = numbers.integers(0, 60, (samples, 28, 28)).astype(np.uint8), np.arange(samples) % 10
    for image, label in zip(images, labels, strict=True):
        image[4 : 6 + 2 * label, 4 : 6 + 2 * label] += 120
    return images, labels.astype(np.int64)


def plain_program(images: np.ndarray, labels: np.ndarray) -> list[np.ndarray]:
    """What mnist_step.yaml says, in TensorFlow and Keras alone, but for the order of the samples."""
    import keras
    import tensorflow as tf

    keras.utils.set_random_seed(42)
    model = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Reshape((28, 28, 1)),
            keras.layers.Conv2D(32, 3, activation="relu"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(10),
        ]
    )
    optimizer, loss_of = keras.optimizers.Adam(), keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    @tf.function(reduce_retracing=True)
    def step(x: Any, y: Any) -> None:
        with tf.GradientTape() as tape:
            loss = loss_of(y, model(x, training=True))
        optimizer.apply_gradients(
            zip(tape.gradient(loss, model.trainable_variables), model.trainable_variables, strict=True)
        )

    for epoch in range(5):
        order = epoch_order(42, epoch, len(images))
        ordered = tf.data.Dataset.from_tensor_slices((images[order][..., None].astype(np.float32), labels[order]))
        for x, y in ordered.batch(128).prefetch(1):
            step(x, y)
    return [np.asarray(weight) for weight in model.weights]


def shipped_and_plain(folder: Path) -> tuple[Run, list[np.ndarray]]:
    """A run of the shipped step on few samples, and the weights of the plain program on the same."""
    (x_train, y_train), (x_test, y_test) = drawn_digits(600, 1), drawn_digits(50, 2)
    np.savez(folder / "small.npz", x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)
    overrides = [f"data.source.path={folder / 'small.npz'}", "train.keep=last"]
    run = Run.create(load_spec(CONFIG, overrides), folder / "run")
    train(run)
    ids = run.load_splits()["train_ids"]
    assert len(ids) == 540  # 4 steps of 128, and one of 28
    return run, plain_program(x_train[ids], y_train[ids])


IN_A_PROCESS = """
import sys
from pathlib import Path
from test_own_step import assert_close, shipped_and_plain, weights_of
run, expected = shipped_and_plain(Path(sys.argv[1]))
assert_close(weights_of(run), expected, atol=1e-6)
assert run.manifest["step"]["traces"] == 1
"""


@pytest.mark.parametrize(
    ("onednn", "atol"),
    [
        pytest.param("1", "1e-6", id="with oneDNN"),
        # TensorFlow's own kernels add up in another order inside of a compiled loop, and Adam divides by what is small.
        pytest.param("0", "1e-5", id="without"),
    ],
)
def test_the_shipped_step_ends_with_the_weights_of_the_plain_program(onednn, atol, tmp_path):
    paths = os.pathsep.join(str(path) for path in (Path(__file__).parent, Path(__file__).parents[1]))
    done = subprocess.run(
        [sys.executable, "-c", IN_A_PROCESS.replace("1e-6", atol), str(tmp_path)],
        env={**os.environ, "TF_ENABLE_ONEDNN_OPTS": onednn, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_a_step_of_tensors_that_decide_is_traced_once_over_steps_epochs_and_sizes_of_batches(
    steps, features, make_run, caplog
):
    features["train"] |= {"epochs": 3, "metrics": [], "keep": "last", "optimizer": {"SGD": {"learning_rate": 0.1}}}
    run = make_run(with_step(features, "branching", {"limit": LIMIT, "rounds": ROUNDS}))
    with caplog.at_level("INFO", "mltool"):
        train(run)
    # 4 steps an epoch, the last of 12 samples; the user's own list says what run.json does.
    assert run.manifest["step"] == {"python": f"{steps}:branching", "traces": 1}
    assert sys.modules["mltool_user_my_step"].TRACED == ["features"]
    assert "the step was traced 1 time" in caplog.messages

    samples = load_samples(features, run)
    w, b = first_weights()
    halved = []
    for epoch in range(3):
        order = epoch_order(42, epoch, len(samples[0]))
        for begin in range(0, len(order), 32):
            batch = order[begin : begin + 32]
            w, b, is_halved = one_step(w, b, samples[0][batch], samples[1][batch])
            halved.append(is_halved)
    assert {True, False} == set(halved)
    assert_close(weights_of(run), [w, b], atol=1e-5)


def load_samples(spec: dict[str, Any], run: Run) -> tuple[np.ndarray, np.ndarray]:
    ids = run.load_splits()["train_ids"]
    with np.load(spec["data"]["source"]["path"]) as arrays:
        return arrays["f"][ids].astype(np.float64), arrays["y"][ids]


def first_weights() -> tuple[np.ndarray, np.ndarray]:
    import keras

    keras.utils.set_random_seed(42)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    w, b = (weight.astype(np.float64) for weight in model.get_weights())
    return w, b


def one_step(w: np.ndarray, b: np.ndarray, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, bool]:
    """What `branching` says, in numpy: a softmax regression, its gradients halved above the limit, and the squares."""
    shares = np.exp(x @ w + b)
    shares /= shares.sum(axis=1, keepdims=True)
    loss = -np.log(shares[np.arange(len(y)), y]).mean()
    factor, of_squares = (0.5 if loss > LIMIT else 1.0), sum(range(len(y) // ROUNDS))
    error = factor * (shares - np.eye(3)[y]) / len(y)
    return w - 0.1 * (x.T @ error + 2 * of_squares * w), b - 0.1 * error.sum(axis=0), factor < 1


REPLICAS = {
    "several devices": {"mirrored": {"devices": ["CPU:0", "CPU:1", "CPU:2"]}},
    "weights in one place": {"central_storage": {"devices": ["CPU:0", "CPU:1"]}},
}


@pytest.mark.slow
@pytest.mark.parametrize("strategy", REPLICAS.values(), ids=REPLICAS.keys())
def test_replicas_that_run_a_step_of_the_users_end_as_one_device_without_it(
    steps, features, make_run, tmp_path, strategy
):
    """Clipping binds, samples have weights, layers a penalty; most replicas have none of a last batch of one sample."""
    layers = [{"Dense": {"units": 3, "kernel_regularizer": {"L2": {"l2": 0.1}}}}]
    features |= {"model": {"layers": layers}, "data": features["data"] | {"batch_size": 107}}
    features["train"] |= {
        **{"class_weights": {"0": 3.0}, "keep": "last", "epochs": 3},
        "optimizer": {"SGD": {"learning_rate": 0.5, "global_clipnorm": 0.2}},
    }
    one = make_run(features, "one")
    train(one)
    spec = with_step(features, "plain", strategy=strategy)
    (tmp_path / "several.json").write_text(json.dumps(spec), encoding="utf-8")
    (tmp_path / "several.json").rename(tmp_path / "several.yaml")
    command = [sys.executable, "-c", "from mltool.cli.main import main; main()", "train", "several.yaml"]
    done = subprocess.run(
        [*command, "--run-dir", "several"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    several = Run.open(tmp_path / "several")
    assert several.manifest["environment"]["replicas"] == len(next(iter(strategy.values()))["devices"])
    assert several.manifest["step"]["traces"] == 1
    assert_close(weights_of(several), weights_of(one), atol=1e-6)
    for line, other in zip(metrics_of(several), metrics_of(one), strict=True):
        assert line == pytest.approx(other, abs=1e-5)


def metrics_of(run: Run) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in run.metrics_file.read_text().splitlines()]
    times = ("seconds", "samples_per_second")
    return [{name: value for name, value in line.items() if name not in times} for line in lines]


@pytest.mark.parametrize("name", ["plain", "decorated"])
def test_a_step_that_says_what_ours_does_ends_as_ours_of_mixed_samples_too(steps, hard, make_run, name):
    hard["train"] |= {"epochs": 2, "callbacks": []}
    ours, theirs = make_run(hard, "ours"), make_run(with_step(hard, name), "theirs")
    train(ours)
    train(theirs)
    assert_close(weights_of(theirs), weights_of(ours), atol=1e-6)
    for line, other in zip(metrics_of(theirs), metrics_of(ours), strict=True):
        assert line == pytest.approx(other, abs=1e-6)


def test_a_step_of_several_inputs_and_outputs_gets_maps(steps, arrays, make_run):
    layers = [
        {"Dense": {"units": 4, "inputs": ["f"], "name": "body"}},
        {"Flatten": {"inputs": ["x"], "name": "pixels"}},
        {"Concatenate": {"inputs": ["body", "pixels"], "name": "both"}},
        {"Dense": {"units": 3, "name": "kind"}},
        {"Dense": {"units": 2, "inputs": ["both"], "name": "size"}},
    ]
    spec = {
        "name": "several",
        "data": {
            "source": {"path": str(arrays), "target": {"kind": "y", "size": "value"}},
            "inputs": {"f": {"array": "f"}, "x": {"array": "x"}},
        },
        "model": {"layers": layers},
        "train": {
            "epochs": 2,
            "outputs": {
                "kind": {"loss": {"SparseCategoricalCrossentropy": {"from_logits": True}}, "metrics": ["accuracy"]},
                "size": {"loss": "MeanSquaredError", "weight": 0.5, "metrics": []},
            },
        },
    }
    ours, theirs = make_run(spec, "ours"), make_run(with_step(spec, "plain"), "theirs")
    train(ours)
    train(theirs)
    assert_close(weights_of(theirs), weights_of(ours), atol=1e-6)
    for line, other in zip(metrics_of(theirs), metrics_of(ours), strict=True):
        assert line == pytest.approx(other, abs=1e-6)


def test_a_cut_training_with_a_step_of_the_users_ends_as_the_uncut_one(steps, hard, make_run, monkeypatch):
    spec = with_step(hard, "plain", epochs=2, callbacks=[])
    uncut, run = make_run(spec, "uncut"), make_run(spec, "cut")
    train(uncut)
    with monkeypatch.context() as patched:
        interrupt_at(patched, 6)
        with pytest.raises(Interrupted, match="stopped at epoch 2, step 2 of 4"):
            train(run)
    train(run)
    for one, other in zip(weights_of(run), weights_of(uncut), strict=True):
        np.testing.assert_array_equal(one, other)
    assert metrics_of(run) == metrics_of(uncut)


MISTAKES = {
    "a name that is none": (
        "raising",
        r"raised NameError: name 'undefined_name' is not defined; see line 44 of",
    ),
    "no call of the optimizer": ("still", "changes no weight: it does not call the optimizer; call optimizer.apply_gr"),
    "no gradient": ("without_gradient", "raised ValueError: No gradients provided for any variable"),
    "a batch as the loss": ("no_scalar", r"returned a tensor of float32 \(None, 4\); a loss of shape \(\) is expected"),
    "nothing": ("no_tensor", r"returned NoneType; a loss of shape \(\) is expected; return the loss, or"),
    "other keys": ("other_keys", "returned a map of loss, outputs, logits; return the loss, or"),
    "other outputs": ("other_outputs", r"returned outputs of \(4,\) a sample, the model gives \(3,\)"),
    "metrics of no outputs": (
        "loss_alone",
        r"returned no outputs, of which training metrics are counted; \{\"loss\"",
    ),
    "two arguments": ("two", r"too many positional arguments; a step takes \(model, optimizer, loss, batch\)"),
    "a class": ("Step", r"is no function; write def Step\(model, optimizer, loss, batch\)"),
}


@pytest.mark.parametrize(("name", "message"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_in_a_step_is_told_before_anything_is_recorded(steps, features, make_run, name, message):
    run = make_run(with_step(features, name))
    with pytest.raises(SpecError, match=rf"^train\.step\.python: .*my_step\.py:{name}.*{message}") as found:
        train(run)
    assert found.value.exit_code == 3
    assert not run.directory.exists()


def test_a_step_whose_loss_is_not_finite_fails_the_run(steps, features, make_run):
    run = make_run(with_step(features, "infinite"))
    with pytest.raises(TrainingError, match="the loss, or a gradient, is not finite in step 1 of epoch 1") as found:
        train(run)
    assert "on_nan" not in str(found.value), "which is refused beside a step of the user's"
    assert not run.keras_file.exists()


def test_an_assertion_that_fails_in_a_later_step_is_told_with_its_line(steps, features, make_run):
    """In the second epoch of four steps each: that is no flaw of ours, and the epoch before stays."""
    run = make_run(with_step(features, "asserting"))
    line = 1 + STEPS.splitlines().index("    tf.debugging.assert_less(tf.cast(optimizer.iterations, tf.int32), 5)")
    message = rf"my_step\.py:{line}: asserting raised assertion failed: .*, in epoch 2; mend it, and train again"
    with pytest.raises(TrainingError, match=message):
        train(run)
    assert run.status == "failed"
    assert len(read_lines(run.metrics_file)) == 1

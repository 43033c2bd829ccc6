"""One step: in parts, filled up, in half precision, compiled, or not finite; each against what it must equal."""

from typing import Any

import numpy as np
import pytest
from training.test_loop import CROSSENTROPY, convolutional, heads_of, run_epochs, samples_of

from mltool.data.pipeline import Pipeline, Shares
from mltool.errors import SpecError
from mltool.models.keras_objects import build_keras
from mltool.runs.run import Run
from mltool.spec.catalogue import KerasObject
from mltool.training.loops.loop import Loop, LoopOptions
from mltool.training.train import train

NUMBERS = np.random.default_rng(8)
X, Y = NUMBERS.random((22, 6, 6, 1)).astype(np.float32), NUMBERS.integers(0, 4, 22)
ADAM = KerasObject("Adam", {"learning_rate": 0.01})
METRICS = (KerasObject("accuracy"), KerasObject("F1Score", {"average": "macro"}), KerasObject("AUC", {}))


def plain() -> Any:
    import keras

    keras.utils.set_random_seed(11)
    inputs = keras.Input((6, 6, 1), name="x")
    out = keras.layers.Conv2D(3, 3, activation="relu", kernel_regularizer="l2", name="conv")(inputs)
    return keras.Model(inputs, keras.layers.Dense(4, name="out")(keras.layers.Flatten(name="flat")(out)))


def loop_with(options: LoopOptions, model: Any, optimizer: KerasObject = ADAM) -> Loop:
    import tensorflow as tf

    built = build_keras(optimizer, "optimizers")
    heads = heads_of(model, CROSSENTROPY, METRICS)
    return Loop(model, built, heads=heads, strategy=tf.distribute.get_strategy(), options=options)


def evaluated(loop: Loop, shares: Shares) -> dict[str, float]:
    import tensorflow as tf

    pipeline = Pipeline(samples_of(X, Y), 8, shares=shares)
    loop.reset_metrics()
    assert int(loop.evaluate_steps(pipeline.epoch(0), tf.constant(pipeline.steps, tf.int64))) == 3
    return loop.results()


def ends(options: LoopOptions, shares: Shares, *, samples: int = 22) -> tuple[list[np.ndarray], dict[str, float]]:
    model = plain()
    loop = loop_with(options, model)
    results = run_epochs(loop, Pipeline(samples_of(X[:samples], Y[:samples]), 8, seed=2, shares=shares), 3)
    return [*model.get_weights(), *map(np.asarray, loop.optimizer.variables)], results | {
        f"val_{name}": value for name, value in evaluated(loop, shares).items()
    }


@pytest.fixture(scope="module")
def whole() -> tuple[list[np.ndarray], dict[str, float]]:
    return ends(LoopOptions(), Shares())


def assert_equal_ends(one: Any, other: Any, atol: float = 1e-6) -> None:
    for mine, theirs in zip(one[0], other[0], strict=True):
        np.testing.assert_allclose(mine, theirs, atol=atol)
    assert one[1] == pytest.approx(other[1], abs=1e-5)
    assert one[1].keys() >= {"loss", "accuracy", "f1_score", "auc", "val_loss"}


@pytest.mark.parametrize("parts", [2, 3, 6], ids=["2 parts", "3 parts", "as many as the last batch has samples"])
def test_a_batch_in_parts_changes_the_weights_as_the_whole(whole, parts):
    assert_equal_ends(ends(LoopOptions(accumulate=parts), Shares(least=parts)), whole)


def test_a_last_batch_with_fewer_samples_than_parts_is_filled_up_with_what_counts_nothing():
    """17 samples in batches of 8: the last has one, in 4 parts."""
    parts = ends(LoopOptions(accumulate=4), Shares(least=4), samples=17)
    assert_equal_ends(parts, ends(LoopOptions(), Shares(), samples=17))


def test_batches_filled_up_to_one_size_count_what_is_real(whole):
    """As a TPU takes them."""
    assert_equal_ends(ends(LoopOptions(), Shares(fill=True)), whole)
    (shape,) = {
        tuple(batch[0]["x"].shape) for batch in Pipeline(samples_of(X, Y), 8, shares=Shares(fill=True)).epoch(0)
    }
    assert shape == (8, 6, 6, 1)


def test_xla_changes_nothing_but_the_last_digits(whole):
    assert_equal_ends(ends(LoopOptions(jit_compile=True), Shares()), whole, atol=1e-5)


@pytest.mark.parametrize("total", [2, 3, 5])
def test_shares_are_the_batch_in_its_order(total):
    samples = samples_of(np.arange(23)[:, None], np.arange(23))
    batches = [batch[1].numpy() for batch in Pipeline(samples, 8, seed=4).epoch(1)]
    for here in (1, total):  # a process each, or one for all
        processes = [
            [share[1].numpy() for share in Pipeline(samples, 8, seed=4, shares=Shares(total, first, here)).epoch(1)]
            for first in range(0, total, here)
        ]
        by_step = [np.concatenate([p[s * here + r] for p in processes for r in range(here)]) for s in range(3)]
        for one, other in zip(by_step, batches, strict=True):
            np.testing.assert_array_equal(one, other)
        sizes = [len(share) for process in processes for share in process]
        assert max(sizes) - min(sizes) <= 2  # 8 and 7 samples, spread evenly


def rooted() -> Any:
    """The root of a weighted sum: of 0 it is finite, and its gradient is not."""
    import keras

    inputs = keras.Input((6, 6, 1), name="x")
    flat = keras.layers.Flatten(name="flat")(inputs)
    return keras.Model(inputs, keras.ops.sqrt(keras.layers.Dense(4, kernel_initializer="ones", name="out")(flat)))


@pytest.mark.parametrize(("model_of", "value"), [(plain, np.nan), (rooted, 0.0)], ids=["loss", "gradient"])
def test_a_step_that_is_not_finite_changes_nothing_and_is_the_last(model_of, value):
    import tensorflow as tf

    loop = loop_with(LoopOptions(), model_of(), KerasObject("SGD", {"learning_rate": 1e-5}))
    x = X.copy()
    x[9] = value
    batches = Pipeline(samples_of(x, Y), 8).epoch(0)  # in order: step 2 has sample 9
    done, _ = loop.train_steps(batches, tf.constant(1, tf.int64))
    before, results = [np.asarray(v).copy() for v in loop.variables()], loop.results()
    assert int(done) == 1
    done, _ = loop.train_steps(batches, tf.constant(2, tf.int64))
    assert int(done) == 0
    for one, other in zip(loop.variables(), before, strict=True):
        np.testing.assert_array_equal(np.asarray(one), other)
    assert loop.results() == results


def scaled(model: Any, **sgd: Any) -> Loop:
    import keras
    import tensorflow as tf

    optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(1e-5, **sgd))
    return Loop(model, optimizer, heads=heads_of(model, CROSSENTROPY, ()), strategy=tf.distribute.get_strategy())


def test_gradients_that_no_scale_of_the_loss_makes_finite_are_told():
    """From 2 ** 15 on, 29 halvings lead below 1e-4."""
    import tensorflow as tf

    model = rooted()
    loop, before = scaled(model), model.get_weights()
    pipeline = Pipeline(samples_of(np.zeros((240, 6, 6, 1)), np.zeros(240, np.int64)), 8)
    done, _ = loop.train_steps(pipeline.epoch(0), tf.constant(29, tf.int64))
    assert (int(done), float(loop.optimizer.dynamic_scale)) == (29, 2.0**-14)
    done, _ = loop.train_steps(pipeline.epoch(0), tf.constant(29, tf.int64))
    assert (int(done), float(loop.optimizer.dynamic_scale)) == (0, 2.0**-14)
    for one, other in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(one, other)
    loop.model.get_layer("out").bias.assign(np.ones(4))  # from here on, its root has a gradient
    done, _ = loop.train_steps(pipeline.epoch(0), tf.constant(29, tf.int64))
    assert (int(done), float(loop.optimizer.dynamic_scale)) == (29, 2.0**-14)


def test_there_are_no_averaged_weights_before_a_step_changed_any():
    import tensorflow as tf

    model = rooted()
    loop, before = scaled(model, use_ema=True), model.get_weights()
    pipeline = Pipeline(samples_of(np.zeros((16, 6, 6, 1)), np.zeros(16, np.int64)), 8)
    loop.train_steps(pipeline.epoch(0), tf.constant(2, tf.int64))
    with loop.averaged():
        for one, other in zip(model.get_weights(), before, strict=True):
            np.testing.assert_array_equal(one, other)


def test_averaged_weights_are_what_is_validated():
    """Keras' own formula: average = m * average + (1 - m) * weight, the first average being the weight after step 1."""
    model = plain()
    loop = loop_with(
        LoopOptions(), model, KerasObject("SGD", {"learning_rate": 0.1, "use_ema": True, "ema_momentum": 0.5})
    )
    import tensorflow as tf

    batches, history = Pipeline(samples_of(X, Y), 8, seed=2).epoch(0), []
    for _ in range(3):
        loop.train_steps(batches, tf.constant(1, tf.int64))
        history.append(model.get_weights())
    average = history[0]
    for weights in history[1:]:
        average = [0.5 * mean + 0.5 * weight for mean, weight in zip(average, weights, strict=True)]
    with loop.averaged():
        for one, other in zip(model.get_weights(), average, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-6)
    for one, other in zip(model.get_weights(), history[-1], strict=True):
        np.testing.assert_array_equal(one, other)


def test_averages_of_no_step_are_not_taken_for_weights():
    """A scale that is too high leaves every step out; the averages are zeros then."""
    import tensorflow as tf

    model = plain()
    average = KerasObject("SGD", {"learning_rate": 0.1, "use_ema": True})
    loop = loop_with(LoopOptions(), model, KerasObject("LossScaleOptimizer", {"inner_optimizer": average}))
    before = model.get_weights()
    loop.optimizer.dynamic_scale.assign(np.inf)
    batches = Pipeline(samples_of(X, Y), 8).epoch(0)
    loop.train_steps(batches, tf.constant(2, tf.int64))
    with loop.averaged():
        for one, other in zip(model.get_weights(), before, strict=True):
            np.testing.assert_array_equal(one, other)
    loop.take_averages()
    for one, other in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(one, other)


def test_gradients_are_clipped_by_the_norm_of_all():
    model = plain()
    loop = loop_with(
        LoopOptions(accumulate=2), model, KerasObject("SGD", {"learning_rate": 1.0, "global_clipnorm": 1e-3})
    )
    before = model.get_weights()
    run_epochs(loop, Pipeline(samples_of(X[:8], Y[:8]), 8, shares=Shares(least=2)), 1)
    moved = [one - other for one, other in zip(model.get_weights(), before, strict=True)]
    assert np.sqrt(sum(float((part**2).sum()) for part in moved)) == pytest.approx(1e-3, rel=1e-3)


@pytest.mark.parametrize("precision", ["mixed_float16", "mixed_bfloat16"])
def test_half_precision_trains_and_leaves_a_model_in_float32(hard, make_run, precision):
    import keras

    hard["train"] |= {"precision": precision, "epochs": 1, "callbacks": []}
    run = make_run(hard)
    result = train(run)
    assert np.isfinite(result.metrics["loss"])
    model = keras.models.load_model(run.keras_file, compile=False)
    assert {layer.dtype_policy.name for layer in model.layers} == {"float32"}
    assert model.output.dtype == "float32"
    assert {variable.dtype for variable in model.weights} == {"float32"}


def test_the_threshold_of_anomalies_is_of_scores_in_float32(features, make_run, arrays):
    import keras

    features["model"]["layers"] = [{"Dense": {"units": 2}}, {"Dense": {"units": 4}}]
    anomaly = {"normal": "0", "quantile": 0.9}
    features["train"] |= {"loss": "MeanSquaredError", "anomaly": anomaly, "precision": "mixed_bfloat16"}
    del features["train"]["metrics"]
    run = make_run(features)
    train(run)
    inputs = np.load(arrays)["f"][run.load_splits()["train_ids"]]
    outputs = np.asarray(keras.models.load_model(run.keras_file, compile=False)(inputs))
    ((output,), scores) = run.manifest["input"]["outputs"], (outputs**2).mean(axis=1)  # the differences
    assert output["threshold"] == pytest.approx(np.quantile(scores, 0.9), rel=1e-5)


def test_layers_of_half_precision_compute_in_it_but_for_preprocessing_and_the_last(hard, make_run):
    from mltool.data.dataset import open_dataset
    from mltool.models.for_data import build_model_for

    hard["model"]["preprocess"] = [{"Rescaling": {"scale": 0.5}}]
    hard["train"]["precision"] = "mixed_bfloat16"
    spec = make_run(hard).spec
    model, _ = build_model_for(open_dataset(spec), spec)
    types = {type(layer).__name__: layer.compute_dtype for layer in model.layers}
    assert types == {
        "InputLayer": "float32",
        "Rescaling": "float32",
        **dict.fromkeys(("Conv2D", "BatchNormalization", "ReLU", "Flatten", "Dropout"), "bfloat16"),
        "Dense": "float32",
    }


def test_xla_is_refused_for_text(make_run):
    spec = {
        "name": "text",
        "data": {"source": {"path": "t.csv", "target": "y"}},
        "model": {
            "layers": [
                {"Embedding": {"input_dim": 20, "output_dim": 4}},
                "GlobalAveragePooling1D",
                {"Dense": {"units": 1}},
            ],
            "preprocess": {"text": [{"TextVectorization": {"max_tokens": 20, "output_sequence_length": 4}}]},
        },
        "train": {"epochs": 1, "jit_compile": True, "loss": {"BinaryCrossentropy": {"from_logits": True}}},
    }
    from pathlib import Path

    run_folder = Path(make_run.__closure__[0].cell_contents)
    (run_folder / "t.csv").write_text(
        "text,y\n" + "\n".join(f"{w} {i},{w}" for i in range(20) for w in ("good", "bad"))
    )
    run: Run = make_run(spec)
    with pytest.raises(
        SpecError, match=r"train\.jit_compile: XLA cannot compile this model: the input 'text' is text; write auto"
    ):
        train(run)


def test_convolutional_models_normalize_each_part(whole):
    """What accumulation cannot keep: the statistics are those of a part, so that the weights differ."""
    ends_of = []
    for parts in (1, 2):
        model = convolutional()
        loop = loop_with(LoopOptions(accumulate=parts), model)
        run_epochs(loop, Pipeline(samples_of(X, Y), 8, seed=2, shares=Shares(least=parts)), 1)
        ends_of.append(model.get_weights())
    assert max(float(np.abs(a - b).max()) for a, b in zip(*ends_of, strict=True)) > 1e-4

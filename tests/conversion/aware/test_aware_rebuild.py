"""A model rebuilt in tf_keras answers as it did; what cannot be rebuilt is named."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from mltool.conversion.aware.fold import unfold
from mltool.conversion.aware.rebuild import Rebuilt, rebuild, require_equal
from mltool.conversion.aware.written import weights_of
from mltool.errors import ConversionError

SAMPLES = 16


def _randomized(model: Any) -> Any:
    """Weights that no two layers share: trained biases are not 0, trained variances not 1."""
    numbers = np.random.default_rng(3)
    for weight in model.weights:
        values = numbers.normal(0, 0.3, weight.shape)
        weight.assign(np.abs(values) + 0.5 if "variance" in weight.path else values)
    return model


def _cnn(keras: Any) -> Any:
    layers = keras.layers
    x = keras.Input((8, 8, 3), name="image")
    t = layers.Rescaling([0.5, 0.25, 2.0], offset=[-1.0, 0.0, 1.0], name="scaled")(x)
    t = layers.Conv2D(8, 3, strides=2, padding="same", use_bias=False, kernel_regularizer="l2", name="conv")(t)
    t = layers.BatchNormalization(name="norm")(t)
    t = layers.ReLU(max_value=6, name="six")(t)
    t = layers.DepthwiseConv2D(3, padding="same", name="depthwise")(t)
    t = layers.BatchNormalization(name="norm_2", epsilon=0.01)(t)
    t = layers.Activation("silu", name="silu")(t)
    return keras.Model(x, layers.Dense(3, activation="softmax", name="out")(layers.GlobalAveragePooling2D()(t)))


def _residual_inside(keras: Any) -> Any:
    """A block as ours are: a model inside of the model, called twice, with a sequential one in it."""
    layers = keras.layers
    inner = keras.Input((6,))
    two = keras.Sequential([keras.Input((6,)), layers.Dense(6, activation="gelu", name="conv"), layers.Dropout(0.5)])
    block = keras.Model(inner, layers.Add(name="add")([inner, two(inner)]), name="block")
    x = keras.Input((6,), name="x")
    return keras.Model(x, layers.Dense(2, name="conv")(block(block(x))))


def _two_ends(keras: Any) -> Any:
    layers = keras.layers
    left, right = keras.Input((3,), name="left"), keras.Input((2,), name="right")
    shared = layers.Dense(4, name="shared")
    joined = layers.Concatenate()([shared(left), shared(layers.Dense(3)(right)), left])
    ends = {"kind": layers.Dense(3, name="kind")(joined), "size": layers.Dense(1, name="size")(joined)}
    return keras.Model({"right": right, "left": left}, ends)


def _series(keras: Any) -> Any:
    layers = keras.layers
    x = keras.Input((10, 4), name="x")
    t = layers.Normalization(mean=[1.0, 2.0, 3.0, 4.0], variance=[1.0, 4.0, 9.0, 16.0])(x)
    t = layers.Conv1D(6, 3, padding="causal")(t)
    t = layers.LayerNormalization()(t)
    t = layers.MultiHeadAttention(2, 3)(t, t)
    t = layers.Bidirectional(layers.LSTM(3, return_sequences=True))(t)
    return keras.Model(x, layers.Dense(2)(layers.GRU(4)(t)))


def _rebuilt(model: Any, **options: Any) -> Rebuilt:
    outputs = model.output if isinstance(model.output, dict) else {"answer": model.outputs[0]}
    return rebuild(model, outputs, **options)


def _samples(model: Any) -> dict[str, np.ndarray]:
    numbers = np.random.default_rng(0)
    return {t.name: numbers.normal(size=(SAMPLES, *t.shape[1:])).astype(np.float32) for t in model.inputs}


@pytest.mark.parametrize("build", [_cnn, _residual_inside, _two_ends, _series], ids=lambda build: build.__name__[1:])
def test_a_rebuilt_model_answers_as_the_model(build: Callable[[Any], Any]) -> None:
    import keras

    model = _randomized(build(keras))
    rebuilt, samples = _rebuilt(model), _samples(model)
    assert require_equal(model, rebuilt, samples) <= 1e-5

    wanted = model(samples if isinstance(model.input, dict) else samples[model.inputs[0].name], training=False)
    found = rebuilt.call(samples, training=False)
    for name, values in (wanted if isinstance(wanted, dict) else {"answer": wanted}).items():
        np.testing.assert_allclose(found[name], values, rtol=1e-4, atol=1e-5)


def test_layers_inside_of_a_model_have_the_names_of_both() -> None:
    import keras

    names = list(_rebuilt(_residual_inside(keras)).origins)
    assert {"block/sequential/conv", "block/add", "conv"} <= {re.sub(r"_\d+", "", name) for name in names}


def test_the_first_layer_that_differs_is_named() -> None:
    import keras

    model = _randomized(_cnn(keras))
    rebuilt = _rebuilt(model)
    layer = rebuilt.model.get_layer("depthwise")
    layer.set_weights([values * 1.01 for values in layer.get_weights()])
    with pytest.raises(ConversionError, match="first layer that differs is 'depthwise'"):
        require_equal(model, rebuilt, _samples(model))


def test_normalization_folded_before_training_and_taken_apart_after_it_computes_the_same() -> None:
    import keras

    model = _randomized(_cnn(keras))
    samples = _samples(model)
    before = np.asarray(model(samples["image"], training=False))
    rebuilt = _rebuilt(model, folded={"norm": "conv", "norm_2": "depthwise"})
    assert not any("norm" in layer.name for layer in rebuilt.model.layers)
    assert require_equal(model, rebuilt, samples) <= 1e-5

    for name, norm in rebuilt.folds.items():
        unfold(rebuilt.origins[name], norm, weights_of(rebuilt.model.get_layer(name), rebuilt.weights[name]))
    np.testing.assert_allclose(model(samples["image"], training=False), before, atol=1e-5)
    assert np.asarray(model.get_layer("norm").beta).any()


def _with(keras: Any, layer: Any) -> Any:
    x = keras.Input((4,), name="x")
    return keras.Model(x, layer(x))


def _refusals() -> list[Any]:
    return [
        pytest.param(lambda k: k.layers.RMSNormalization(name="rms"), "'rms' is a RMSNormalization, which", id="class"),
        pytest.param(lambda k: k.layers.Dense(3, activation="glu", name="d"), "'d' has the activation 'glu'", id="glu"),
        pytest.param(lambda k: k.ops.square, "is the operation Square, and no layer", id="operation"),
        pytest.param(lambda k: _own(k)(name="mine"), "'mine' is a Mine, and no layer of Keras' own", id="own layer"),
    ]


def _own(keras: Any) -> Any:
    class Mine(keras.layers.Layer):
        def call(self, inputs: Any) -> Any:
            return inputs

    return Mine


@pytest.mark.parametrize(("layer", "message"), _refusals())
def test_a_layer_that_tf_keras_cannot_have_is_named(layer: Any, message: str) -> None:
    import keras

    with pytest.raises(ConversionError, match=message):
        _rebuilt(_with(keras, layer(keras)))


def test_text_is_refused() -> None:
    import keras

    x = keras.Input((1,), dtype="string", name="word")
    model = keras.Model(x, keras.layers.StringLookup(vocabulary=["a"], output_mode="one_hot")(x))
    with pytest.raises(ConversionError, match="the input 'word' is text"):
        _rebuilt(model)

"""Regularizers, initializers, constraints and dtypes among a layer's arguments: what they do, worked out by hand."""

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import yaml

from mltool.data.dataset import Dataset
from mltool.models.build import call_model
from mltool.models.for_data import build_model_for
from mltool.runs.run import Run
from mltool.spec.load import load_spec
from mltool.training.train import train

X = np.random.default_rng(4).normal(size=(90, 3)).astype(np.float32)
Y = (X @ np.asarray([[2.0, -1.0], [0.5, 3.0], [-2.0, 1.0]]) + 1).astype(np.float32)


def spec_of(folder: Path, layers: str, batch_size: int = 10, **train_section: Any) -> Any:
    """A regression of two values from three."""
    np.savez(folder / "data.npz", x=X, y=Y)
    settings = {"loss": "MeanSquaredError", "metrics": [], "scale_target": "none", "epochs": 1, **train_section}
    data = {"source": {"path": str(folder / "data.npz")}, "batch_size": batch_size}
    section = {"name": "net", "data": data, "model": {"layers": yaml.safe_load(layers)}, "train": settings}
    (folder / "spec.yaml").write_text(yaml.safe_dump(section), encoding="utf-8")
    return load_spec(folder / "spec.yaml")


def built(folder: Path, layers: str) -> Any:
    spec = spec_of(folder, layers)
    return build_model_for(Dataset(spec), spec)[0]


def trained(folder: Path, layers: str, learning_rate: float, batch_size: int = 10) -> Run:
    spec = spec_of(folder, layers, batch_size, optimizer={"SGD": {"learning_rate": learning_rate}}, keep="last")
    run = Run.create(spec, folder / "run")
    train(run)
    return run


def test_regularizers_add_what_the_formula_says(tmp_path: Path):
    model = built(
        tmp_path,
        "[{Dense: {units: 4, kernel_regularizer: {L2: {l2: 1e-2}}, bias_regularizer: {L1: {l1: 0.5}}, name: a}},"
        " {Dense: {units: 2, kernel_regularizer: {L1L2: {l1: 0.1, l2: 0.2}}, activity_regularizer: l2, name: b}}]",
    )
    (w1, _), (w2, _) = (model.get_layer(name).get_weights() for name in "ab")
    model.get_layer("a").set_weights([w1, np.asarray([1, -2, 3, -4])])
    outputs = np.asarray(call_model(model, {"x": X[:5]}, training=True))
    # Keras divides what the outputs add by the number of samples; `l2` alone is 0.01.
    by_hand = [
        *(1e-2 * (w1**2).sum(), 0.5 * 10, 0.1 * np.abs(w2).sum() + 0.2 * (w2**2).sum()),
        0.01 * (outputs**2).sum() / 5,
    ]
    assert float(sum(model.losses)) == pytest.approx(sum(by_hand), rel=1e-5)


def test_training_pays_the_regularizer_and_says_so(tmp_path: Path):
    """One step of SGD on all samples: what a penalty of 0.5 w^2 for 6 weights of 2 adds to the loss and the step."""
    layers = "[{Dense: {units: 2, use_bias: false, kernel_initializer: {Constant: {value: 2}}, name: out, KEY}}]"
    losses, kernels = {}, {}
    for name, key in (("plain", "kernel_regularizer: null"), ("regular", "kernel_regularizer: {L2: {l2: 0.5}}")):
        (tmp_path / name).mkdir()
        run = trained(tmp_path / name, layers.replace("KEY", key), learning_rate=0.1, batch_size=90)
        [line] = [json.loads(text) for text in run.metrics_file.read_text().splitlines()]
        losses[name] = line["loss"]
        kernels[name] = keras.models.load_model(run.keras_file).get_layer("out").get_weights()[0]
    assert losses["regular"] - losses["plain"] == pytest.approx(0.5 * 6 * 2**2, rel=1e-5)
    np.testing.assert_allclose(kernels["regular"] - kernels["plain"], np.full((3, 2), -0.1 * 0.5 * 2 * 2), rtol=1e-5)


def test_constraints_hold_after_training(tmp_path: Path):
    layers = (
        "[{Dense: {units: 8, kernel_constraint: NonNeg, name: a}},"
        " {Dense: {units: 2, kernel_constraint: {MaxNorm: {max_value: 0.3}}, name: out}}]"
    )
    run = trained(tmp_path, layers, learning_rate=0.05)
    model = keras.models.load_model(run.keras_file)
    kernel, _ = model.get_layer("a").get_weights()
    assert kernel.min() == 0.0
    assert kernel.max() > 0
    norms = np.sqrt((model.get_layer("out").get_weights()[0] ** 2).sum(axis=0))
    np.testing.assert_allclose(norms, 0.3, rtol=1e-4)  # the targets ask for more than it allows


def test_initializers_give_what_they_are_called_for(tmp_path: Path):
    model = built(
        tmp_path,
        "[{Dense: {units: 3, kernel_initializer: Identity, bias_initializer: {Constant: {value: 0.25}}, name: a}},"
        " {Dense: {units: 3, kernel_initializer: {Orthogonal: {gain: 2, seed: 1}}, name: b}},"
        " {Dense: {units: 400, kernel_initializer: {RandomUniform: {minval: -1, maxval: 3}}, name: c}},"
        " {Dense: {units: 2}}]",
    )
    kernel, bias = model.get_layer("a").get_weights()
    np.testing.assert_array_equal(kernel, np.eye(3))
    np.testing.assert_array_equal(bias, [0.25] * 3)
    kernel = model.get_layer("b").get_weights()[0]
    np.testing.assert_allclose(kernel.T @ kernel, 4 * np.eye(3), atol=1e-5)
    kernel = model.get_layer("c").get_weights()[0]
    assert -1 <= kernel.min() < -0.9
    assert 2.9 < kernel.max() <= 3


def test_a_dtype_is_what_a_layer_computes_in_and_a_policy_what_it_keeps(tmp_path: Path):
    model = built(
        tmp_path,
        "[{Dense: {units: 4, dtype: float16, name: a}}, {Dense: {units: 4, dtype: mixed_bfloat16, name: b}},"
        " {Dense: {units: 2, dtype: float64, name: c}}]",
    )
    a, b, c = (model.get_layer(name) for name in "abc")
    assert [layer.compute_dtype for layer in (a, b, c)] == ["float16", "bfloat16", "float64"]
    assert [layer.kernel.dtype for layer in (a, b, c)] == ["float16", "float32", "float64"]
    kernel, bias = (np.asarray(weight) for weight in a.get_weights())
    answers = np.asarray(keras.Model(model.input, a.output)(X))
    assert answers.dtype == np.float16
    np.testing.assert_allclose(answers, X.astype(np.float16) @ kernel + bias, atol=5e-3)


def test_a_layer_that_is_not_trainable_keeps_its_weights(tmp_path: Path):
    layers = (
        "[{Dense: {units: 3, trainable: false, kernel_initializer: Identity, name: a}}, {Dense: {units: 2, name: b}}]"
    )
    model = keras.models.load_model(trained(tmp_path, layers, learning_rate=0.05).keras_file)
    np.testing.assert_array_equal(model.get_layer("a").get_weights()[0], np.eye(3))
    assert np.abs(model.get_layer("b").get_weights()[1]).min() > 0

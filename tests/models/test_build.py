"""From the `model` section to a keras.Model that computes what numpy computes."""

import functools
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from mltool.errors import SpecError
from mltool.models.build import build_model, call_model, require_output
from mltool.models.keras_objects import build_keras
from mltool.models.preprocess import ModelInput
from mltool.spec.catalogue import KerasObject
from mltool.spec.model import ModelSpec

NUMBERS = np.random.default_rng(2)


def built(text: str, **data: np.ndarray) -> Any:
    """The model of a section in YAML, on inputs of these training samples."""
    spec = ModelSpec.model_validate(yaml.safe_load(text))
    inputs = {
        name: ModelInput(
            array.shape[1:], "string" if array.dtype.kind == "U" else "float32", "", functools.partial(in_two, array)
        )
        for name, array in data.items()
    }
    return build_model(spec, inputs, name="net")


def in_two(array: np.ndarray) -> Iterator[np.ndarray]:
    """Batches of different sizes, as a source gives them."""
    yield array[:3]
    yield array[3:]


def answer(model: Any, **inputs: np.ndarray) -> np.ndarray:
    return np.asarray(call_model(model, {k: v.astype(np.float32) for k, v in inputs.items()}, training=False))


def weights(model: Any, layer: str) -> list[np.ndarray]:
    return model.get_layer(layer).get_weights()


def test_a_list_of_layers_is_a_chain():
    x = NUMBERS.normal(size=(5, 3))
    model = built("layers: [{Dense: {units: 4, activation: relu, name: a}}, {Dense: {units: 2, name: b}}]", x=x)
    (w1, b1), (w2, b2) = weights(model, "a"), weights(model, "b")
    np.testing.assert_allclose(answer(model, x=x), np.maximum(x @ w1 + b1, 0) @ w2 + b2, atol=1e-5)
    assert [layer.name for layer in model.layers] == ["x", "a", "b"]
    assert model.name == "net"


def test_a_block_that_repeats_is_the_loop_of_plain_keras():
    keras = pytest.importorskip("keras")
    x = NUMBERS.normal(size=(5, 8, 8, 3))
    model = built(
        """
layers:
  - Conv2D: {filters: 4, kernel_size: 3, padding: same, name: stem}
  - Block:
      name: stage
      repeat: 3
      layers:
        - Conv2D: {filters: 4, kernel_size: 3, padding: same, activation: relu}
        - Conv2D: {filters: 4, kernel_size: 3, padding: same, name: last}
        - Add: {inputs: [last, input]}
        - ReLU
  - GlobalAveragePooling2D
  - Dense: {units: 2, name: scores}
""",
        image=x,
    )

    def conv(**more):
        return keras.layers.Conv2D(4, 3, padding="same", **more)

    image = keras.Input((8, 8, 3))
    tensor = conv()(image)
    for _ in range(3):
        body = conv()(conv(activation="relu")(tensor))
        tensor = keras.layers.ReLU()(keras.layers.Add()([body, tensor]))
    by_hand = keras.Model(image, keras.layers.Dense(2)(keras.layers.GlobalAveragePooling2D()(tensor)))
    assert by_hand.count_params() == model.count_params()
    by_hand.set_weights(model.get_weights())
    np.testing.assert_allclose(answer(model, image=x), by_hand(x.astype(np.float32)), atol=1e-6)


def test_a_shared_block_has_its_weights_once():
    left, right = NUMBERS.normal(size=(5, 3)), NUMBERS.normal(size=(5, 3))
    model = built(
        """
layers:
  - Block:
      name: tower
      inputs: [left]
      layers:
        - Dense: {units: 4, activation: relu, name: a}
        - Dense: {units: 3, name: b}
        - Add: {inputs: [b, input]}
  - Shared: {layer: tower, inputs: [right], name: other}
  - Subtract: {inputs: [tower, other]}
  - Shared: {layer: tower_b, inputs: [other_tower_a], name: twice}
  - Concatenate: {inputs: [subtract, twice]}
""",
        left=left,
        right=right,
    )
    assert model.count_params() == 3 * 4 + 4 + 4 * 3 + 3
    (w1, b1), (w2, b2) = weights(model, "tower_a"), weights(model, "tower_b")

    def inner(x):
        return np.maximum(x @ w1 + b1, 0) @ w2 + b2

    expected = np.concatenate([inner(left) + left - inner(right) - right, inner(right)], axis=-1)
    np.testing.assert_allclose(answer(model, left=left, right=right), expected, atol=1e-5)


def test_a_layer_of_a_block_that_does_not_fit_is_named_with_its_place():
    with pytest.raises(SpecError, match=r"layers\.0\.Block\.layers\.1\.Conv2D: the layer 'block_1_conv2d' does not"):
        built(
            "layers: [{Block: {repeat: 2, layers: [Flatten, {Conv2D: {filters: 2, kernel_size: 3}}]}}]",
            image=NUMBERS.normal(size=(5, 8, 8, 3)),
        )


def test_inputs_make_residuals_and_branches():
    x = NUMBERS.normal(size=(5, 3))
    model = built(
        """
layers:
  - Dense: {units: 3, name: stem, use_bias: false}
  - Dense: {units: 3, name: body, use_bias: false}
  - Add: {inputs: [stem, body], name: sum}
  - Dense: {units: 2, name: side, inputs: [x], use_bias: false}
  - Concatenate: {inputs: [sum, side], name: both}
""",
        x=x,
    )
    (stem,), (body,), (side,) = (weights(model, name) for name in ("stem", "body", "side"))
    expected = np.concatenate([x @ stem + x @ stem @ body, x @ side], axis=1)
    np.testing.assert_allclose(answer(model, x=x), expected, atol=1e-5)


TWO_INPUTS = """
preprocess: {image: [{Rescaling: {scale: 0.00392157}}], meta: [Normalization]}
layers:
  - Conv2D: {filters: 8, kernel_size: 3, padding: same, name: stem, inputs: [image]}
  - Conv2D: {filters: 8, kernel_size: 3, padding: same, name: body}
  - Add: {inputs: [stem, body]}
  - GlobalAveragePooling2D: {name: pooled}
  - Dense: {units: 8, name: side, inputs: [meta]}
  - Concatenate: {inputs: [pooled, side]}
  - Dense: {units: 10}
"""


def test_two_inputs_are_named_and_preprocessed_on_their_own():
    image, meta = NUMBERS.integers(0, 256, (6, 5, 5, 3)), NUMBERS.normal(3, 2, (6, 4))
    model = built(TWO_INPUTS, image=image, meta=meta)
    assert {name: tensor.shape for name, tensor in model.input.items()} == {"image": (None, 5, 5, 3), "meta": (None, 4)}
    assert answer(model, image=image, meta=meta).shape == (6, 10)
    kernel, bias = weights(model, "side")
    keras_side = type(model)(model.input["meta"], model.get_layer("side").output)
    normalized = (meta - meta.mean(axis=0)) / meta.std(axis=0)
    np.testing.assert_allclose(np.asarray(keras_side(meta.astype(np.float32))), normalized @ kernel + bias, atol=1e-4)


def test_attention_takes_its_tensors_by_position():
    x = NUMBERS.normal(size=(2, 4, 6))
    model = built(
        """
layers:
  - Dense: {units: 6, name: query}
  - Dense: {units: 6, name: value, inputs: [x]}
  - MultiHeadAttention: {num_heads: 2, key_dim: 3, inputs: [query, value], name: attention}
""",
        x=x,
    )
    query, value = (x @ w + b for w, b in (weights(model, "query"), weights(model, "value")))
    wq, bq, wk, bk, wv, bv, wo, bo = weights(model, "attention")
    q, k, v = (
        np.einsum("btf,fhd->bhtd", t, w) + b[:, np.newaxis]
        for t, w, b in ((query, wq, bq), (value, wk, bk), (value, wv, bv))
    )
    scores = np.exp(q @ k.transpose(0, 1, 3, 2) / np.sqrt(3))
    mixed = scores / scores.sum(axis=-1, keepdims=True) @ v
    np.testing.assert_allclose(answer(model, x=x), np.einsum("bhtd,hdo->bto", mixed, wo) + bo, atol=1e-4)


def test_preprocessing_adapts_on_what_the_layers_before_leave():
    x = NUMBERS.normal(5, 3, (40, 2))
    model = built(
        """
preprocess: [{Rescaling: {scale: 0.5, offset: -1.0}}, {Normalization: {name: norm}}]
layers: [{Dense: {units: 2, name: out}}]
""",
        x=x,
    )
    rescaled = x * 0.5 - 1
    np.testing.assert_allclose(model.get_layer("norm").mean, rescaled.mean(axis=0)[np.newaxis], rtol=1e-5)
    np.testing.assert_allclose(model.get_layer("norm").variance, rescaled.var(axis=0)[np.newaxis], rtol=1e-5)
    kernel, bias = weights(model, "out")
    expected = (rescaled - rescaled.mean(axis=0)) / rescaled.std(axis=0) @ kernel + bias
    np.testing.assert_allclose(answer(model, x=x), expected, atol=1e-5)


def test_a_normalization_with_given_numbers_adapts_to_nothing():
    x = NUMBERS.normal(5, 3, (40, 2))
    section = "preprocess: [{Normalization: {mean: 1.0, variance: 4.0}}]\nlayers: [{Dense: {units: 2, name: out}}]"
    model = built(section, x=x)
    kernel, bias = weights(model, "out")
    np.testing.assert_allclose(answer(model, x=x), (x - 1) / 2 @ kernel + bias, atol=1e-5)


REFUSED = {
    "a layer that does not fit": (
        "layers: [{Conv2D: {filters: 2, kernel_size: 3, name: first}}]",
        r"model\.layers\.0\.Conv2D: the layer 'first' does not fit its input of shape \(None, 3\); .*ndim",
    ),
    "layers of different shapes added": (
        "layers: [{Dense: {units: 4, name: a}}, {Dense: {units: 5, name: b}}, {Add: {inputs: [a, b], name: sum}}]",
        r"model\.layers\.2\.Add: the layer 'sum' does not fit its input of shape \(None, 4\), \(None, 5\)",
    ),
    "arguments that Keras refuses": (
        "layers: [Flatten, {Conv2D: {filters: 3, kernel_size: 1, groups: 2}}]",
        r"model\.layers\.1\.Conv2D: Keras refuses Conv2D: .*groups.*; arguments: \{'filters': 3,",
    ),
    "preprocessing that does not fit": (
        "preprocess: [{Normalization: {axis: 7}}]\nlayers: [{Dense: {units: 2}}]",
        r"model\.preprocess\.0\.Normalization: the layer 'normalization' does not fit its input of shape \(None, 3\)",
    ),
    "a layer that would learn from data among the layers": (
        "layers: [Normalization, {Dense: {units: 2}}]",
        r"model\.layers\.0\.Normalization: .* learns from data before training; put it under model\.preprocess",
    ),
    "attention with one tensor": (
        "layers: [{Reshape: {target_shape: [3, 1]}}, {MultiHeadAttention: {num_heads: 1, key_dim: 2}}]",
        r"layers\.1\.MultiHeadAttention: .* takes 2 tensors, query and value \(got 1\); .*, the same name again",
    ),
    "a layer that gives its state too": (
        "layers: [{Reshape: {target_shape: [3, 1]}}, {LSTM: {units: 2, return_state: true}}]",
        r"model\.layers\.1\.LSTM: LSTM gives 3 tensors, and other layers take one; leave return_state out",
    ),
    "a dtype that nothing computes in": (
        "layers: [{Dense: {units: 2, dtype: string}}]",
        r"model\.layers\.0\.Dense: the layer 'dense' does not fit .*Cast float to string is not supported",
    ),
    "a crossing of numbers": (
        "layers: [{HashedCrossing: {num_bins: 4, inputs: [x, x]}}]",
        r"model\.layers\.0\.HashedCrossing: .* takes text or whole numbers, and 'x' is float32; put an IntegerLookup",
    ),
}


@pytest.mark.parametrize(("section", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_what_does_not_fit_is_refused_with_layer_and_shapes(section, message):
    with pytest.raises(SpecError, match=message):
        built(section, x=NUMBERS.normal(size=(5, 3)))


def test_a_crossing_takes_text_and_ids():
    keras = pytest.importorskip("keras")
    layers = "layers: [{HashedCrossing: {num_bins: 1000, inputs: [a, b]}}]"
    colors, sizes = np.asarray([["red"], ["blue"], ["red"], ["blue"]]), np.asarray([["s"], ["s"], ["l"], ["s"]])
    of_text = built(layers, a=colors, b=sizes)
    tensors = {"a": keras.ops.convert_to_tensor(colors), "b": keras.ops.convert_to_tensor(sizes)}
    found = np.asarray(call_model(of_text, tensors, training=False)).ravel()
    assert found[1] == found[3]
    assert len({*found}) == 3
    a, b = np.asarray([[1], [2], [1], [1]]), np.asarray([[5], [5], [6], [5]])
    of_ids = answer(built(f"preprocess: {{a: [IntegerLookup], b: [IntegerLookup]}}\n{layers}", a=a, b=b), a=a, b=b)
    numbers = np.asarray([[1], [2], [1], [1]]), np.asarray([[1], [1], [2], [1]])  # the most frequent is 1
    np.testing.assert_array_equal(of_ids, keras.layers.HashedCrossing(1000)(numbers))


def test_text_that_nothing_made_numbers_of_is_refused():
    inputs = {"n": NUMBERS.normal(size=(5, 3)), "color": np.asarray([["red"], ["blue"]] * 2 + [["red"]])}
    message = r"model\.layers\.0\.Concatenate: takes numbers, and 'color' is text; put a StringLookup or .* preprocess"
    with pytest.raises(SpecError, match=message):
        built("layers: [{Concatenate: {inputs: [n, color]}}, {Dense: {units: 2}}]", **inputs)


def test_a_layer_that_is_called_like_the_input_is_refused():
    with pytest.raises(SpecError, match="'x' is the name of an input too; give the layer another name:"):
        built("layers: [{Dense: {units: 2, name: x}}]", x=NUMBERS.normal(size=(5, 3)))


def test_an_input_that_nobody_uses_is_refused():
    a = NUMBERS.normal(size=(5, 3))
    with pytest.raises(
        SpecError, match=r"model\.layers: nothing uses the input 'b'; write - Concatenate: \{inputs: \[a, b\]"
    ):
        built("layers: [{Dense: {units: 2, inputs: [a]}}]", a=a, b=a)
    with pytest.raises(SpecError, match="nothing uses the input 'a'"):
        built("preprocess: {a: [Normalization]}\nlayers: [{Dense: {units: 2, inputs: [b]}}]", a=a, b=a)
    assert built("layers: [{Dense: {units: 2, inputs: [x]}}, {Dense: {units: 1}}]", x=a).count_params() == 11


def test_two_inputs_need_to_be_named():
    a = NUMBERS.normal(size=(5, 3))
    with pytest.raises(
        SpecError, match=r"model\.layers\.0\.Dense: the model has the inputs a, b; begin with a.*\[a, b\]"
    ):
        built("layers: [{Dense: {units: 2}}]", a=a, b=a)
    with pytest.raises(
        SpecError, match=r"model\.preprocess must make numbers of b; then begin with a layer that joins"
    ):
        built("layers: [{Dense: {units: 2}}]", a=a, b=np.asarray([["x"]] * 5))


def test_a_name_that_nothing_has_is_refused():
    with pytest.raises(SpecError, match="no layer or input is called 'y'; known: x"):
        built("layers: [{Dense: {units: 2, inputs: [y]}}]", x=NUMBERS.normal(size=(5, 3)))


def test_an_output_that_is_not_what_the_data_have_is_refused():
    spec = ModelSpec.model_validate({"layers": [{"Dense": {"units": 4, "name": "out"}}]})
    require_output((4,), spec, "out", wanted=(4,), what="4 classes")
    with pytest.raises(SpecError, match=r"'out' gives \(4,\) a sample, the data have 10 classes; make it give \(10,\)"):
        require_output((4,), spec, "out", wanted=(10,), what="10 classes")


def test_identity_is_the_initializer_where_an_initializer_stands():
    layer = build_keras(KerasObject("Dense", {"units": 3, "kernel_initializer": KerasObject("Identity")}), "layers")
    layer.build((None, 3))
    np.testing.assert_array_equal(layer.get_weights()[0], np.eye(3))


def test_things_in_lists_and_in_things_are_built():
    wrapped = KerasObject("Bidirectional", {"layer": KerasObject("LSTM", {"units": 2})})
    assert type(build_keras(wrapped, "layers").forward_layer).__name__ == "LSTM"
    schedule = KerasObject("ExponentialDecay", {"initial_learning_rate": 0.5, "decay_steps": 1, "decay_rate": 0.5})
    optimizer = build_keras(KerasObject("SGD", {"learning_rate": schedule}), "optimizers")
    assert float(optimizer.learning_rate) == 0.5


LOAD = """
import os, sys
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["TF_ENABLE_ONEDNN_OPTS"] = "0"
import keras, numpy as np
model = keras.models.load_model(sys.argv[1])
assert not [name for name in sys.modules if name.startswith("mltool")]
np.save(sys.argv[3], model.predict(np.load(sys.argv[2]), verbose=0))
"""


def test_the_kept_model_loads_in_plain_keras_and_answers_the_same(trained_run, tmp_path: Path):
    import keras

    x = NUMBERS.integers(0, 17, (20, 8, 8, 1)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    command = [
        sys.executable,
        "-c",
        LOAD,
        str(trained_run.keras_file),
        str(tmp_path / "x.npy"),
        str(tmp_path / "y.npy"),
    ]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=120, cwd=tmp_path, env=os.environ, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    expected = keras.models.load_model(trained_run.keras_file).predict(x, verbose=0)
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), expected, atol=1e-5)


def test_normalization_of_a_run_has_seen_training_data_only(tmp_path: Path):
    import keras

    from mltool.runs.run import Run
    from mltool.spec.load import load_spec
    from mltool.training.train import train

    meta = NUMBERS.normal(10, 4, (120, 3)).astype(np.float32)
    image = NUMBERS.integers(0, 256, (120, 6, 6, 1)).astype(np.uint8)
    np.savez(tmp_path / "pair.npz", x1=image, x2=meta, y=NUMBERS.integers(0, 10, 120))
    spec = {
        "name": "pair",
        "data": {
            "source": {"path": "pair.npz", "target": "y"},
            "inputs": {"image": {"array": "x1"}, "meta": {"array": "x2"}},
            "split": {"test": 0.3},
        },
        "model": yaml.safe_load(TWO_INPUTS),
        "train": {"epochs": 1, "loss": {"SparseCategoricalCrossentropy": {"from_logits": True}}},
    }
    (tmp_path / "pair.yaml").write_text(yaml.safe_dump(spec, sort_keys=False))
    run = Run.create(load_spec(tmp_path / "pair.yaml"), tmp_path / "run")
    train(run)
    mean = np.asarray(keras.models.load_model(run.keras_file).get_layer("normalization").mean)[0]
    seen = meta[run.load_splits()["train_ids"]]
    np.testing.assert_allclose(mean, seen.mean(axis=0), rtol=1e-5)
    assert np.abs(mean - meta.mean(axis=0)).max() > 1e-3


def test_what_keras_says_is_one_plain_line():
    with pytest.raises(SpecError) as found:
        built("layers: [{Reshape: {target_shape: [7]}}]", x=NUMBERS.normal(size=(5, 3)))
    assert "\x1b" not in str(found.value)
    assert "Arguments received" not in str(found.value)

"""The same model in plain Keras and in YAML: parameters, initial weights of one seed, and answers of equal weights."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import yaml
from keras import layers

from mltool.data.dataset import Dataset
from mltool.models.build import call_model
from mltool.models.for_data import build_model_for
from mltool.spec.load import load_spec

SEED = 123
NUMBERS = np.random.default_rng(8)
CLASSES = NUMBERS.integers(0, 3, 60)
WORDS = ["the", "cat", "sat", "on", "a", "mat", "and", "saw", "an", "old", "dog", "run", "home"]
LOGITS = {"SparseCategoricalCrossentropy": {"from_logits": True}}

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Twin:
    """One model, twice.

    Attributes:
        yaml: the `model` section.
        plain: builds it in plain Keras; is given the training samples of every input, for what adapts.
        arrays: what the .npz holds beside `y`; or the columns of a table beside `label`.
        target: `y`; three classes when left out.
        train: keys of the `train` section.
    """

    yaml: str
    plain: Callable[[Arrays], Any]
    arrays: Arrays
    target: np.ndarray = field(default_factory=lambda: CLASSES)
    train: dict[str, Any] = field(default_factory=lambda: {"loss": LOGITS})
    is_table: bool = False


def normal(*shape: int) -> np.ndarray:
    return NUMBERS.normal(size=(60, *shape)).astype(np.float32)


def mlp(train: Arrays) -> Any:
    age, height = keras.Input((1,), name="age"), keras.Input((1,), name="height")
    color = keras.Input((1,), name="color", dtype="string")
    normalization = layers.Normalization()
    normalization.adapt(np.concatenate([train["age"], train["height"]], axis=-1).astype(np.float32))
    lookup = layers.StringLookup(output_mode="one_hot")
    lookup.adapt(train["color"])
    numbers = normalization(layers.Concatenate()([age, height]))
    x = layers.Concatenate()([numbers, lookup(color)])
    x = layers.Dense(8, activation="relu")(x)
    x = layers.Dropout(0.3)(x)
    return keras.Model([age, height, color], layers.Dense(3)(x))


def cnn(train: Arrays) -> Any:
    image = keras.Input((8, 8, 2))
    x = layers.Rescaling(0.5, offset=-1)(image)
    x = layers.Conv2D(4, 3, activation="relu", kernel_initializer=keras.initializers.HeNormal())(x)
    x = layers.MaxPooling2D()(x)
    x = layers.Conv2D(6, 2, strides=2, padding="same", activation="gelu")(x)
    return keras.Model(image, layers.Dense(3)(layers.Flatten()(x)))


def residual(train: Arrays) -> Any:
    image = keras.Input((8, 8, 2))
    stem = layers.Conv2D(4, 3, padding="same")(image)
    x = layers.Conv2D(4, 3, padding="same", activation="relu")(stem)
    x = layers.Conv2D(4, 3, padding="same")(x)
    x = layers.ReLU()(layers.Add()([x, stem]))
    return keras.Model(image, layers.Dense(3)(layers.GlobalAveragePooling2D()(x)))


def siamese(train: Arrays) -> Any:
    left, right = keras.Input((5,), name="left"), keras.Input((5,), name="right")
    hidden, code = layers.Dense(6, activation="tanh"), layers.Dense(4)
    one = code(hidden(left))
    x = layers.Subtract()([one, code(hidden(right))])
    return keras.Model([left, right], layers.Dense(3)(x))


def nested_blocks(train: Arrays) -> Any:
    x = vector = keras.Input((6,))
    for _ in range(2):
        for _ in range(3):
            body = layers.Dense(6, activation="relu")(x)
            x = layers.Add()([layers.Dense(6)(body), x])
        x = layers.LayerNormalization()(x)
    return keras.Model(vector, layers.Dense(3)(x))


def recurrent(train: Arrays) -> Any:
    series = keras.Input((7, 3))
    x = layers.Bidirectional(layers.LSTM(4, return_sequences=True))(series)
    x = layers.GRU(5, return_sequences=True)(x)
    x = layers.TimeDistributed(layers.Dense(4, activation="relu"))(x)
    x = layers.RNN(layers.StackedRNNCells([layers.LSTMCell(3), layers.SimpleRNNCell(2)]))(x)
    return keras.Model(series, layers.Dense(3)(x))


def conv1d(train: Arrays) -> Any:
    series = keras.Input((16, 2))
    x = layers.Conv1D(4, 3, padding="causal", dilation_rate=2)(series)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.SpatialDropout1D(0.2)(x)
    x = layers.Conv1D(6, 3, strides=2, groups=2, activation="relu")(x)
    return keras.Model(series, layers.Dense(3)(layers.GlobalMaxPooling1D()(x)))


def transformer(train: Arrays) -> Any:
    text = keras.Input((1,), dtype="string")
    vectorization = layers.TextVectorization(output_sequence_length=6)
    vectorization.adapt(train["text"])
    x = layers.Embedding(20, 8)(vectorization(text))
    attended = layers.MultiHeadAttention(2, 4, dropout=0.1)(x, x)
    x = layers.LayerNormalization()(layers.Add()([x, attended]))
    hidden = layers.Dense(12, activation="gelu")(x)
    x = layers.LayerNormalization()(layers.Add()([x, layers.Dense(8)(hidden)]))
    return keras.Model(text, layers.Dense(3)(layers.GlobalAveragePooling1D()(x)))


def u_net(train: Arrays) -> Any:
    image = keras.Input((8, 8, 2))
    down = layers.Conv2D(4, 3, padding="same", activation="relu")(image)
    x = layers.Conv2D(6, 3, padding="same", activation="relu")(layers.MaxPooling2D()(down))
    x = layers.Conv2DTranspose(4, 2, strides=2)(x)
    x = layers.Concatenate()([down, x])
    return keras.Model(image, layers.Flatten()(layers.Conv2D(1, 1)(x)))


def separable(train: Arrays) -> Any:
    image = keras.Input((8, 8, 2))
    x = layers.DepthwiseConv2D(3, depth_multiplier=2, use_bias=False)(image)
    x = layers.ReLU(max_value=6)(layers.BatchNormalization(momentum=0.9)(x))
    x = layers.SeparableConv2D(5, 3, padding="same")(x)
    x = layers.PReLU(shared_axes=[1, 2])(layers.BatchNormalization()(x))
    return keras.Model(image, layers.Dense(3)(layers.GlobalAveragePooling2D()(x)))


def normalized(train: Arrays) -> Any:
    vector = keras.Input((4,))
    normalization = layers.Normalization()
    normalization.adapt(train["x"])
    x = layers.Dense(6, activation="selu", kernel_initializer="lecun_normal")(normalization(vector))
    return keras.Model(vector, layers.Dense(3)(x))


TWINS: dict[str, Twin] = {
    "an MLP of a table with several inputs": Twin(
        """
preprocess: {numbers: [Normalization], categories: [{StringLookup: {output_mode: one_hot}}]}
layers:
  - Concatenate: {inputs: [numbers, categories]}
  - Dense: {units: 8, activation: relu}
  - Dropout: {rate: 0.3}
  - Dense: {units: 3}
""",
        mlp,
        {
            "age": NUMBERS.uniform(18, 80, 60).round(3),
            "height": NUMBERS.normal(170, 9, 60).round(3),
            "color": NUMBERS.choice(["red", "green", "blue"], 60),
        },
        is_table=True,
    ),
    "a CNN": Twin(
        """
preprocess: [{Rescaling: {scale: 0.5, offset: -1}}]
layers:
  - Conv2D: {filters: 4, kernel_size: 3, activation: relu, kernel_initializer: he_normal}
  - MaxPooling2D
  - Conv2D: {filters: 6, kernel_size: 2, strides: 2, padding: same, activation: gelu}
  - Flatten
  - Dense: {units: 3}
""",
        cnn,
        {"x": normal(8, 8, 2)},
    ),
    "a residual": Twin(
        """
layers:
  - Conv2D: {filters: 4, kernel_size: 3, padding: same, name: stem}
  - Conv2D: {filters: 4, kernel_size: 3, padding: same, activation: relu}
  - Conv2D: {filters: 4, kernel_size: 3, padding: same, name: body}
  - Add: {inputs: [body, stem]}
  - ReLU
  - GlobalAveragePooling2D
  - Dense: {units: 3}
""",
        residual,
        {"x": normal(8, 8, 2)},
    ),
    "shared layers of two inputs": Twin(
        """
layers:
  - Block:
      name: tower
      inputs: [left]
      layers: [{Dense: {units: 6, activation: tanh}}, {Dense: {units: 4}}]
  - Shared: {layer: tower, inputs: [right], name: other}
  - Subtract: {inputs: [tower, other]}
  - Dense: {units: 3}
""",
        siamese,
        {"left": normal(5), "right": normal(5)},
    ),
    "blocks in blocks": Twin(
        """
blocks:
  residual:
    - Dense: {units: 6, activation: relu}
    - Dense: {units: 6, name: body}
    - Add: {inputs: [body, input]}
layers:
  - Block:
      repeat: 2
      inputs: [x]
      layers: [{Block: {use: residual, repeat: 3}}, LayerNormalization]
  - Dense: {units: 3}
""",
        nested_blocks,
        {"x": normal(6)},
    ),
    "recurrent layers, cells and wrappers": Twin(
        """
layers:
  - Bidirectional: {layer: {LSTM: {units: 4, return_sequences: true}}}
  - GRU: {units: 5, return_sequences: true}
  - TimeDistributed: {layer: {Dense: {units: 4, activation: relu}}}
  - RNN: {cell: {StackedRNNCells: {cells: [{LSTMCell: {units: 3}}, {SimpleRNNCell: {units: 2}}]}}}
  - Dense: {units: 3}
""",
        recurrent,
        {"x": normal(7, 3)},
    ),
    "a convolution of series": Twin(
        """
layers:
  - Conv1D: {filters: 4, kernel_size: 3, padding: causal, dilation_rate: 2}
  - BatchNormalization
  - ReLU
  - SpatialDropout1D: {rate: 0.2}
  - Conv1D: {filters: 6, kernel_size: 3, strides: 2, groups: 2, activation: relu}
  - GlobalMaxPooling1D
  - Dense: {units: 3}
""",
        conv1d,
        {"x": normal(16, 2)},
    ),
    "a transformer of text": Twin(
        """
preprocess: [{TextVectorization: {output_sequence_length: 6}}]
layers:
  - Embedding: {input_dim: 20, output_dim: 8, name: words}
  - MultiHeadAttention: {num_heads: 2, key_dim: 4, dropout: 0.1, inputs: [words, words], name: attended}
  - Add: {inputs: [words, attended]}
  - LayerNormalization: {name: first}
  - Dense: {units: 12, activation: gelu}
  - Dense: {units: 8, name: forward}
  - Add: {inputs: [first, forward]}
  - LayerNormalization
  - GlobalAveragePooling1D
  - Dense: {units: 3}
""",
        transformer,
        {"text": np.asarray([" ".join(NUMBERS.choice(WORDS, 6)) for _ in range(60)])},
        is_table=True,
    ),
    "a U-Net": Twin(
        """
layers:
  - Conv2D: {filters: 4, kernel_size: 3, padding: same, activation: relu, name: down}
  - MaxPooling2D
  - Conv2D: {filters: 6, kernel_size: 3, padding: same, activation: relu}
  - Conv2DTranspose: {filters: 4, kernel_size: 2, strides: 2, name: up}
  - Concatenate: {inputs: [down, up]}
  - Conv2D: {filters: 1, kernel_size: 1}
  - Flatten
""",
        u_net,
        {"x": normal(8, 8, 2)},
        target=normal(64),
        train={"loss": "MeanSquaredError", "metrics": [], "scale_target": "none"},
    ),
    "separable convolutions": Twin(
        """
layers:
  - DepthwiseConv2D: {kernel_size: 3, depth_multiplier: 2, use_bias: false}
  - BatchNormalization: {momentum: 0.9}
  - ReLU: {max_value: 6}
  - SeparableConv2D: {filters: 5, kernel_size: 3, padding: same}
  - BatchNormalization
  - PReLU: {shared_axes: [1, 2]}
  - GlobalAveragePooling2D
  - Dense: {units: 3}
""",
        separable,
        {"x": normal(8, 8, 2)},
    ),
    "a normalization of raw numbers": Twin(
        """
preprocess: [Normalization]
layers:
  - Dense: {units: 6, activation: selu, kernel_initializer: lecun_normal}
  - Dense: {units: 3}
""",
        normalized,
        {"x": normal(4) * [1, 10, 100, 1000] + 50},
    ),
}


def spec_of(twin: Twin, folder: Path) -> Any:
    """Writes data and spec, and reads the spec as a command does."""
    source: dict[str, Any] = {"path": str(folder / "data.npz"), "target": "y"}
    data: dict[str, Any] = {"source": source}
    if twin.is_table:
        source.update(path=str(folder / "data.csv"), target="label")
        rows = [[*twin.arrays, "label"], *zip(*twin.arrays.values(), [f"c{one}" for one in twin.target], strict=True)]
        (folder / "data.csv").write_text("".join(f"{','.join(map(str, row))}\n" for row in rows), encoding="utf-8")
    else:
        np.savez(folder / "data.npz", y=twin.target, **twin.arrays)
    if len(twin.arrays) > 1 and not twin.is_table:
        data["inputs"] = {name: {"array": name} for name in twin.arrays}
    section = yaml.safe_dump({"name": "twin", "data": data, "train": {"metrics": ["accuracy"], **twin.train}})
    model = "".join(f"  {line}\n" for line in twin.yaml.strip().splitlines())
    (folder / "spec.yaml").write_text(f"{section}model:\n{model}", encoding="utf-8")
    return load_spec(folder / "spec.yaml")


@pytest.mark.parametrize("twin", TWINS.values(), ids=TWINS)
def test_a_model_of_yaml_is_the_model_of_plain_keras(twin: Twin, tmp_path: Path):
    spec = spec_of(twin, tmp_path)
    data = Dataset(spec)
    train = {name: np.asarray(values[:]) for name, values in data.split("train").inputs.items()}
    keras.utils.set_random_seed(SEED)
    ours, _ = build_model_for(data, spec)
    keras.utils.set_random_seed(SEED)
    plain = twin.plain(train)

    assert ours.count_params() == plain.count_params()
    first, second = ours.get_weights(), plain.get_weights()
    assert [value.shape for value in first] == [value.shape for value in second]
    for weight, one, other in zip(ours.weights, first, second, strict=True):
        # What adapts adds up batch by batch in one of the two.
        np.testing.assert_allclose(one, other, rtol=0 if weight.trainable else 1e-6)
    for weight in ours.weights:
        if weight.trainable or "moving" in weight.path:  # as after training: biases are not 0, variances not 1
            weight.assign(weight + NUMBERS.uniform(0 if "variance" in weight.path else -0.4, 0.4, weight.shape))
    plain.set_weights(ours.get_weights())
    for layer in plain.layers:
        if isinstance(layer, layers.Normalization):
            layer.finalize_state()  # it computes with copies of its weights

    test = {name: np.asarray(values[:]) for name, values in data.split("test").inputs.items()}
    tensors = {
        name: keras.ops.convert_to_tensor(array if array.dtype.kind == "U" else array.astype(np.float32))
        for name, array in test.items()
    }
    expected = plain(list(tensors.values()) if len(tensors) > 1 else next(iter(tensors.values())), training=False)
    answers = np.asarray(call_model(ours, tensors, training=False))
    assert np.ptp(answers) > 0.01
    np.testing.assert_allclose(answers, np.asarray(expected), rtol=0, atol=1e-6)

"""Named architectures: published counts, the same networks by hand, plain Keras files, int8 with builtin operators."""

import dataclasses
import itertools
import os
import subprocess
import sys

import numpy as np
import pytest
import yaml

from mltool import extras
from mltool.conversion.engines.converter import convert_saved_model
from mltool.errors import SpecError
from mltool.inspection.flatbuffer import read_flatbuffer
from mltool.models.architectures import ARCHITECTURES
from mltool.models.blocks import BLOCKS, OURS
from mltool.models.build import build_model
from mltool.models.preprocess import ModelInput
from mltool.spec.architectures import ARCHITECTURES as IN_THE_SPEC
from mltool.spec.model import ModelSpec

RANDOM = np.random.default_rng(0)


def built(layers, shape):
    """A model of nothing but `layers`, in YAML."""
    values = np.zeros((2, *(size or 1 for size in shape)), np.float32)
    inputs = {"x": ModelInput(shape, "float32", "", lambda: iter([values]))}
    return build_model(ModelSpec.model_validate({"layers": yaml.safe_load(layers)}), inputs, name="net")


def network(layer, shape):
    """The nested model of one architecture, with random weights."""
    inner = built(f"[{layer}]", shape).layers[-1]
    randomize(inner)
    return inner


def randomize(model):
    """Random weights everywhere, also where Keras begins with 0 or 1; variances stay above zero."""
    for weight in model.weights:
        low = 0.1 if weight.path.endswith("moving_variance") else -0.5
        weight.assign(RANDOM.uniform(low, 0.5, weight.shape))


def samples(layer, shape, number=3):
    if layer.startswith("{TextTransformer"):
        return RANDOM.integers(0, 50, (number, *shape)).astype(np.float32)
    return RANDOM.normal(size=(number, *shape)).astype(np.float32)


PUBLISHED = {
    "ResNet8": ("{ResNet8: {units: 10}}", (32, 32, 3), 78_666),
    "DSCNN": ("{DSCNN: {units: 12}}", (49, 10, 1), 24_908),
    "MobileNetV1": ("{MobileNetV1: {units: 2}}", (96, 96, 3), 221_794),
    "Autoencoder": ("{Autoencoder: }", (640,), 269_992),
}


@pytest.mark.parametrize(("layer", "shape", "count"), PUBLISHED.values(), ids=PUBLISHED)
def test_a_network_of_mlperf_tiny_has_the_published_number_of_parameters(layer, shape, count):
    assert built(f"[{layer}]", shape).count_params() == count


INCEPTION_OF_ONE_CHANNEL = (
    32 * (10 + 20 + 40) + 32 + 4 * 128  # the first module: no bottleneck
    + 5 * (128 * 32 + 32 * 32 * (10 + 20 + 40) + 128 * 32 + 4 * 128)  # the others: bottleneck, convolutions, pooled
    + 1 * 128 + 4 * 128 + 128 * 128 + 4 * 128  # two shortcuts
    + 128 * 5 + 5
)  # fmt: skip
TRANSFORMER = (
    (1000 + 64) * 32  # tokens and positions
    + 2 * (4 * (32 * 32 + 32) + 32 * 48 + 48 + 48 * 32 + 32 + 2 * 2 * 32)  # attention, feed-forward, normalization
    + 32 * 3 + 3
)  # fmt: skip


def u_net(filters, channels, units, values_a_filter):
    """Parameters, level by level; `values_a_filter` beside the kernels: 1 for a bias, 4 for normalization."""
    twice = [9 * (n + m) * m + 2 * values_a_filter * m for n, m in itertools.pairwise([channels, *filters])]
    larger = [4 * n * m + m for m, n in itertools.pairwise(filters)]
    joined = [9 * (2 * m + m) * m + 2 * values_a_filter * m for m in filters[:-1]]
    return sum(twice) + sum(larger) + sum(joined) + filters[0] * units + units


COUNTED = {
    "InceptionTime": ("{InceptionTime: {units: 5}}", (60, 1), INCEPTION_OF_ONE_CHANNEL),
    "InceptionTime of three channels": (
        "{InceptionTime: {depth: 1, filters: 8, kernel_sizes: [3, 5], bottleneck: 4, residual_every: 1}}",
        (60, 3),
        3 * 4 + 4 * 8 * (3 + 5) + 3 * 8 + 4 * 24 + 3 * 24 + 4 * 24,
    ),
    "InceptionTime without bottleneck or shortcuts": (
        "{InceptionTime: {depth: 2, filters: 8, kernel_sizes: [3], bottleneck: null, residual_every: null}}",
        (60, 3),
        3 * 8 * 3 + 3 * 8 + 4 * 16 + 16 * 8 * 3 + 16 * 8 + 4 * 16,
    ),
    "TextTransformer": (
        "{TextTransformer: {vocabulary_size: 1000, ff_dim: 48, num_blocks: 2, units: 3}}",
        (64,),
        TRANSFORMER,
    ),
    "UNet": ("{UNet: {units: 3}}", (16, 24, 1), u_net([16, 32, 64], 1, 3, 4)),
    "the U-Net of the paper": (
        "{UNet: {filters: [64, 128, 256, 512, 1024], units: 2, batch_normalization: false}}",
        (16, 16, 1),
        u_net([64, 128, 256, 512, 1024], 1, 2, 1),
    ),
    "features of a MobileNetV1 of half the width": (
        "{MobileNetV1: {alpha: 0.5}}",
        (32, 32, 1),
        9 * 16 + 16 + 4 * 16
        + sum(10 * n + 4 * n + n * m + m + 4 * m for n, m in zip(
            (16, 32, 64, 64, 128, 128, *[256] * 6, 512), (32, 64, 64, 128, 128, *[256] * 6, 512, 512), strict=True)),
    ),
    "a bottleneck of 3": (
        "{Autoencoder: {hidden: 5, bottleneck: 3, depth: 1, decoder: false}}",
        (7,),
        7 * 5 + 5 + 4 * 5 + 5 * 3 + 3 + 4 * 3,
    ),
}  # fmt: skip


@pytest.mark.parametrize(("layer", "shape", "count"), COUNTED.values(), ids=COUNTED)
def test_the_number_of_parameters_is_what_the_layers_add_up_to(layer, shape, count):
    assert built(f"[{layer}]", shape).count_params() == count


def test_the_numbers_in_the_docstrings_hold():
    assert INCEPTION_OF_ONE_CHANNEL == 422_240 + 129 * 5
    assert u_net([64, 128, 256, 512, 1024], 1, 2, 1) == 31_030_658
    resnet8 = built("[{ResNet8: {units: 10}}]", (32, 32, 3))
    assert sum(int(np.prod(weight.shape)) for weight in resnet8.trainable_weights) == 78_186


class ByHand:
    """The networks as one would write them in plain Keras."""

    def __init__(self):
        self.layers = extras.keras().layers
        self.l2 = extras.keras().regularizers.L2(1e-4)

    def conv(self, tensor, filters, size, strides=1, *, relu=True, **options):
        tensor = self.layers.Conv2D(filters, size, strides=strides, padding="same", **options)(tensor)
        tensor = self.layers.BatchNormalization()(tensor)
        return self.layers.Activation("relu")(tensor) if relu else tensor

    def depthwise(self, tensor, strides=1):
        tensor = self.layers.DepthwiseConv2D(3, strides=strides, padding="same")(tensor)
        return self.layers.Activation("relu")(self.layers.BatchNormalization()(tensor))

    def dense(self, tensor, units):
        tensor = self.layers.BatchNormalization()(self.layers.Dense(units)(tensor))
        return self.layers.Activation("relu")(tensor)

    def resnet8(self, x):
        options = {"kernel_initializer": "he_normal", "kernel_regularizer": self.l2}
        x = self.conv(x, 16, 3, **options)
        y = self.conv(x, 16, 3, **options)
        y = self.conv(y, 16, 3, relu=False, **options)
        x = self.layers.Activation("relu")(self.layers.add([x, y]))
        y = self.conv(x, 32, 3, 2, **options)
        y = self.conv(y, 32, 3, relu=False, **options)
        x = self.layers.Conv2D(32, 1, strides=2, padding="same", **options)(x)
        x = self.layers.Activation("relu")(self.layers.add([x, y]))
        y = self.conv(x, 64, 3, 2, **options)
        y = self.conv(y, 64, 3, relu=False, **options)
        x = self.layers.Conv2D(64, 1, strides=2, padding="same", **options)(x)
        x = self.layers.Activation("relu")(self.layers.add([x, y]))
        return self.layers.Dense(10, activation="softmax")(self.layers.GlobalAveragePooling2D()(x))

    def dscnn(self, x):
        x = self.conv(x, 64, (10, 4), (2, 2), kernel_regularizer=self.l2)
        for _ in range(4):
            x = self.conv(self.depthwise(x), 64, 1, kernel_regularizer=self.l2)
        return self.layers.Dense(12)(self.layers.GlobalAveragePooling2D()(x))

    def mobilenet_v1(self, x):
        x = self.conv(x, 8, 3, 2, kernel_regularizer=self.l2)
        x = self.conv(self.depthwise(x), 16, 1, kernel_regularizer=self.l2)
        x = self.conv(self.depthwise(x, 2), 32, 1, kernel_regularizer=self.l2)
        x = self.conv(self.depthwise(x), 32, 1, kernel_regularizer=self.l2)
        x = self.conv(self.depthwise(x, 2), 64, 1, kernel_regularizer=self.l2)
        x = self.conv(self.depthwise(x), 64, 1, kernel_regularizer=self.l2)
        x = self.conv(self.depthwise(x, 2), 128, 1, kernel_regularizer=self.l2)
        for _ in range(5):
            x = self.conv(self.depthwise(x), 128, 1, kernel_regularizer=self.l2)
        x = self.conv(self.depthwise(x, 2), 256, 1, kernel_regularizer=self.l2)
        x = self.conv(self.depthwise(x), 256, 1, kernel_regularizer=self.l2)
        return self.layers.Dense(2)(self.layers.GlobalAveragePooling2D()(x))

    def autoencoder(self, x):
        for units in (128, 128, 128, 128, 8, 128, 128, 128, 128):
            x = self.dense(x, units)
        return self.layers.Dense(640)(x)

    def mlp(self, x):
        x = self.layers.Dense(7, activation="relu")(x)
        x = self.layers.Dropout(0.5)(self.layers.Dense(5, activation="relu")(x))
        return self.layers.Dense(3, activation="sigmoid")(x)

    def cnn(self, x):
        for filters in (4, 6):
            x = self.layers.MaxPooling2D(padding="same")(self.conv(x, filters, 5, use_bias=False))
        return self.layers.Dense(3)(self.layers.GlobalAveragePooling2D()(x))

    def cnn1d(self, x):
        for filters in (4, 6):
            x = self.layers.Conv1D(filters, 5, padding="same", use_bias=False)(x)
            x = self.layers.Activation("relu")(self.layers.BatchNormalization()(x))
            x = self.layers.MaxPooling1D(padding="same")(x)
        return self.layers.GlobalAveragePooling1D()(x)


BY_HAND = {
    "resnet8": ("{ResNet8: {units: 10, activation: softmax}}", (32, 32, 3)),
    "dscnn": ("{DSCNN: {units: 12}}", (49, 10, 1)),
    "mobilenet_v1": ("{MobileNetV1: {units: 2}}", (96, 96, 3)),
    "autoencoder": ("{Autoencoder: }", (640,)),
    "mlp": ("{MLP: {hidden: [7, 5], dropout: 0.5, units: 3, activation: sigmoid}}", (4,)),
    "cnn": ("{CNN: {filters: [4, 6], kernel_size: 5, units: 3}}", (9, 7, 2)),
    "cnn1d": ("{CNN1D: {filters: [4, 6]}}", (21, 2)),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_it_computes_what_the_same_network_by_hand_does(name):
    keras = extras.keras()
    layer, shape = BY_HAND[name]
    inner = network(layer, shape)
    takes = keras.Input(shape)
    by_hand = keras.Model(takes, getattr(ByHand(), name)(takes))
    by_hand.set_weights(inner.get_weights())
    values = samples(layer, shape)
    expected = np.asarray(by_hand(values))
    assert np.ptp(expected) > 0
    np.testing.assert_allclose(np.asarray(inner(values)), expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())
    penalty, expected_penalty = (float(sum(model.losses, start=0.0)) for model in (inner, by_hand))
    assert penalty == pytest.approx(expected_penalty)
    assert (penalty > 0) == (name in ("resnet8", "dscnn", "mobilenet_v1"))


def softmax(scores):
    scores = np.exp(scores - scores.max(-1, keepdims=True))
    return scores / scores.sum(-1, keepdims=True)


def test_a_transformer_computes_what_the_paper_says():
    layer = "{TextTransformer: {vocabulary_size: 50, embed_dim: 12, num_heads: 3, ff_dim: 7, num_blocks: 2}}"
    inner = network(layer, (9,))
    ids = samples(layer, (9,))

    def weights(name):
        return [weight.astype(np.float64) for weight in inner.get_layer(name).get_weights()]

    def normalized(values, name):
        scale, shift = weights(name)
        centred = values - values.mean(-1, keepdims=True)
        return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6) * scale + shift

    found = weights("tokens")[0][ids.astype(int)] + weights("positions")[0]
    for name in ("block_1", "block_2"):
        query, query_bias, key, key_bias, value, value_bias, out, out_bias = weights(f"{name}_attention")
        q, k, v = (
            np.einsum("bnd,dhk->bhnk", found, kernel) + bias[:, None]
            for kernel, bias in ((query, query_bias), (key, key_bias), (value, value_bias))
        )
        seen = softmax(q @ k.swapaxes(-1, -2) / np.sqrt(12 / 3)) @ v
        found = normalized(found + np.einsum("bhnk,hkd->bnd", seen, out) + out_bias, f"{name}_attention_norm")
        (inner_kernel, inner_bias), (kernel, bias) = weights(f"{name}_ff_inner"), weights(f"{name}_ff_outer")
        found = normalized(found + np.maximum(found @ inner_kernel + inner_bias, 0) @ kernel + bias, f"{name}_ff_norm")
    np.testing.assert_allclose(np.asarray(inner(ids)), found.mean(1), atol=1e-4)


SMALL = {
    "Autoencoder": ("{Autoencoder: {hidden: 16, depth: 2, bottleneck: 4}}", (12,), (12,)),
    "CNN": ("{CNN: {filters: [4, 8], dropout: 0.2, units: 3}}", (12, 10, 1), (3,)),
    "CNN1D": ("{CNN1D: {filters: [4, 8], dropout: 0.2, units: 3}}", (20, 2), (3,)),
    "DSCNN": ("{DSCNN: {filters: 8, blocks: 2, units: 4}}", (21, 10, 1), (4,)),
    "InceptionTime": ("{InceptionTime: {depth: 3, filters: 4, bottleneck: 4, units: 3}}", (24, 2), (3,)),
    "MLP": ("{MLP: {hidden: [16, 8], dropout: 0.1, units: 3, activation: softmax}}", (5,), (3,)),
    "MobileNetV1": ("{MobileNetV1: {alpha: 0.125, units: 2}}", (32, 32, 3), (2,)),
    "ResNet8": ("{ResNet8: {filters: 4, units: 10}}", (16, 16, 3), (10,)),
    "TextTransformer": ("{TextTransformer: {vocabulary_size: 50, embed_dim: 8, units: 2}}", (10,), (2,)),
    "UNet": ("{UNet: {filters: [4, 8], units: 2, activation: softmax}}", (8, 12, 1), (8, 12, 2)),
}


def test_every_architecture_is_tried():
    assert set(SMALL) == set(ARCHITECTURES) == set(IN_THE_SPEC)
    assert set(OURS) == set(BLOCKS) | set(ARCHITECTURES)


@pytest.mark.parametrize("name", SMALL)
def test_the_spec_and_the_class_have_the_same_arguments_and_defaults(name):
    entries = {key: rest for key, (_, *rest) in IN_THE_SPEC[name]["arguments"].items() if key != "name"}
    fields = {field.name: field for field in dataclasses.fields(ARCHITECTURES[name])}
    assert set(entries) == set(fields)
    required = {key: 8 for key, rest in entries.items() if not rest}
    given = {key: default for key, rest in entries.items() for default in rest} | required
    assert dataclasses.asdict(ARCHITECTURES[name](**required)) == given


@pytest.mark.parametrize("name", SMALL)
def test_its_graph_is_one_layer_of_the_name_in_the_spec_and_every_weight_trains(name):
    import tensorflow as tf

    layer, shape, answer = SMALL[name]
    spec = ModelSpec.model_validate({"layers": [yaml.safe_load(layer)]})
    model = built(f"[{layer}]", shape)
    assert model.output_shape == (None, *answer)
    first, inner = model.layers
    assert (first.name, inner.name) == ("x", spec.layers[0].name)
    assert len({part.name for part in inner.layers}) == len(inner.layers)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(tf.square(model(samples(layer, shape), training=True)))
    gradients = tape.gradient(loss, model.trainable_variables)
    assert len(gradients) == len(inner.trainable_variables) > 0
    assert all(gradient is not None for gradient in gradients)


@pytest.mark.parametrize("name", [name for name in SMALL if name != "Autoencoder"])
def test_without_units_it_gives_features_that_a_layer_of_the_spec_can_take(name):
    layer, shape, answer = SMALL[name]
    text = yaml.safe_load(layer)
    del text[name]["units"]
    text[name].pop("activation", None)
    model = built(f"[{yaml.safe_dump(text, default_flow_style=True)}, {{Dense: {{units: 5}}}}]", shape)
    assert model.output_shape == (None, *answer[:-1], 5)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """All small networks with random weights as `.keras` files, and their answers."""
    folder = tmp_path_factory.mktemp("saved")
    answers = {}
    for name, (layer, shape, _) in SMALL.items():
        model = built(f"[{layer}]", shape)
        randomize(model)
        model.save(folder / f"{name}.keras")
        values = samples(layer, shape)
        np.save(folder / f"{name}.npy", values)
        answers[name] = np.asarray(model(values))
    return folder, answers


@pytest.mark.slow
def test_plain_keras_loads_them_all(saved):
    folder, answers = saved
    program = (
        "import sys, pathlib, numpy, keras\n"
        "for file in sorted(pathlib.Path('.').glob('*.keras')):\n"
        "    model = keras.models.load_model(file, safe_mode=True)\n"
        "    numpy.save(f'{file.stem}.found.npy', model(numpy.load(f'{file.stem}.npy')))\n"
        "assert not any(name.startswith('mltool') for name in sys.modules)\n"
    )
    elsewhere = {**os.environ, "PYTHONPATH": ""}
    subprocess.run([sys.executable, "-c", program], check=True, cwd=folder, env=elsewhere, capture_output=True)
    assert len(answers) == len(SMALL)
    for name, expected in answers.items():
        assert np.isfinite(expected).all()
        np.testing.assert_array_equal(np.load(folder / f"{name}.found.npy"), expected, err_msg=name)


def test_two_of_a_kind_have_weights_of_their_own(tmp_path):
    keras = extras.keras()
    model = built("[{MLP: {name: first}}, {MLP: {name: second, units: 2}}]", (64,))
    randomize(model)
    model.save(tmp_path / "two.keras")
    values = samples("", (64,))
    np.testing.assert_array_equal(keras.models.load_model(tmp_path / "two.keras")(values), model(values))


def normalize_by(model, values):
    """Gives BatchNormalization the statistics of some values at once: with those it begins with, signals vanish."""
    keras = extras.keras()
    for part in model.layers[-1].layers:
        if isinstance(part, keras.layers.BatchNormalization):
            part.momentum = 0.0
    model(values, training=True)


@pytest.mark.slow  # 45 s in all
@pytest.mark.parametrize("name", SMALL)
def test_it_converts_to_int8_with_builtin_operators(name, tmp_path):
    from ai_edge_litert.interpreter import Interpreter

    layer, shape, _ = SMALL[name]
    extras.keras().utils.set_random_seed(3)
    model = built(f"[{layer}]", shape)
    values = samples(layer, shape, 32)
    normalize_by(model, values)
    model.export(tmp_path / "saved_model", verbose=False)
    np.savez(tmp_path / "representative.npz", x=values)
    file = tmp_path / "x.tflite"
    convert_saved_model(
        saved_model=str(tmp_path / "saved_model"),
        signature="serving_default",
        output=str(file),
        quantize="int8",
        io="float32",
        batch=1,
        representative=str(tmp_path / "representative.npz"),
        keep_float=(),
        layer_names=[layer.name for layer in model.layers],
    )
    operators = read_flatbuffer(file, [layer.name for layer in model.layers]).operators
    assert not [op.op for op in operators if op.op.startswith(("Flex", "CUSTOM"))]
    assert "int8" in {op.compute_dtype for op in operators}
    runner = Interpreter(model_path=str(file)).get_signature_runner("serving_default")
    found = np.concatenate([next(iter(runner(x=one[np.newaxis]).values())) for one in values])
    expected = np.asarray(model(values))
    error = np.abs(found - expected) / np.ptp(expected)
    # 27 convolutions of random weights multiply what is rounded, so that single values of MobileNetV1 tell nothing.
    assert error.mean() < 0.2 if name == "MobileNetV1" else error.max() < 0.1


MISFITS = {
    "a gray image without a channel": ("ResNet8: ", (8, 6), r"\[8, 6\]\): put Reshape: {target_shape: \[8, 6, 1\]}"),
    "features for an image": ("UNet: ", (8,), r"it takes an image, \[height, width, channels\] .*got \[8\]\)"),
    "an image for features": ("MLP: ", (8, 8, 1), r"it takes \[features\] .*got \[8, 8, 1\]\): put Flatten before it"),
    "an image for an autoencoder": ("Autoencoder: ", (8, 8, 1), "put Flatten before it"),
    "a series without a channel": ("InceptionTime: ", (50,), r"put Reshape: {target_shape: \[50, 1\]} before it"),
    "a spectrogram for a series": ("CNN1D: ", (49, 10, 2), r"put Reshape: {target_shape: \[49, 20\]} before it"),
    "an image for tokens": ("TextTransformer: {vocabulary_size: 9}", (8, 8), "put TextVectorization: {output_sequence"),
    "sides that cannot be halved": (
        "UNet: ",
        (10, 13, 1),
        r"multiples of 4 with 3 levels \(got \[10, 13\]\): make the images 12 by 16, or give fewer filters",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("layer", "shape", "message"), MISFITS.values(), ids=MISFITS)
def test_an_input_of_another_form_is_refused_at_the_layer_with_a_cure(layer, shape, message):
    name = layer.partition(":")[0]
    with pytest.raises(SpecError, match=rf"model\.layers\.1\.{name}.* does not fit its input of shape.*{message}"):
        built(f"[{{Activation: {{activation: linear}}}}, {{{layer}}}]", shape)


TEXTS = np.array([["a b c"], ["b c d"]])
TEXT_LAYERS = {
    "TextTransformer": "TextTransformer: {vocabulary_size: %d, units: 2}",
    "Embedding": "Embedding: {input_dim: %d, output_dim: 2}",
}


@pytest.mark.parametrize("name", TEXT_LAYERS)
def test_more_ids_than_a_layer_knows_are_refused_before_training(name):
    def with_ids(number):
        section = {
            "preprocess": [{"TextVectorization": {"output_sequence_length": 4}}],
            "layers": [yaml.safe_load(TEXT_LAYERS[name] % number)],
        }
        inputs = {"text": ModelInput((1,), "string", "text", lambda: iter([TEXTS]))}
        return build_model(ModelSpec.model_validate(section), inputs, name="net")

    with pytest.raises(SpecError, match=rf"{name}: knows 5 ids, and 'text_vectorization' gives 6; write \w+: 6"):
        with_ids(5)
    assert with_ids(6).output_shape[-1] == 2


def test_tokens_of_no_fixed_length_are_refused():
    with pytest.raises(SpecError, match=r"got \[any\]\): put TextVectorization: {output_sequence_length: 64}"):
        built("[{TextTransformer: {vocabulary_size: 9}}]", (None,))


def test_the_gradient_of_a_strided_convolution_of_few_channels_is_the_same_every_time():
    """With oneDNN on, TensorFlow 2.21 ended here, or gave other gradients."""
    import tensorflow as tf

    images = tf.constant(RANDOM.random((33, 32, 32, 3)), tf.float32)
    kernel = tf.Variable(RANDOM.random((1, 1, 3, 16)), dtype=tf.float32)

    def gradient():
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.nn.conv2d(images, kernel, 2, "SAME"))
        return tape.gradient(loss, kernel)

    # The loss is linear: the gradient of every weight is the sum of what its channel sees.
    expected = images.numpy()[:, ::2, ::2].sum(axis=(0, 1, 2))[None, None, :, None]
    for _ in range(40):
        np.testing.assert_allclose(gradient(), np.broadcast_to(expected, (1, 1, 3, 16)), rtol=1e-4)

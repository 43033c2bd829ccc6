"""Multiply-accumulates, worked out by hand, and counted by TensorFlow where it counts them."""

import json
from pathlib import Path

import pytest

from mltool import extras
from mltool.inspection.graph import calls_of
from mltool.inspection.macs import LAYERS, NO_PRODUCTS, NotCountedError, count_macs
from mltool.models.blocks import build_block

keras = extras.keras()
layers = keras.layers


def macs_of(output, *inputs):
    """Of the last layer of a graph."""
    calls, _ = calls_of(keras.Model(list(inputs), output))
    return count_macs(calls[-1])


@pytest.mark.parametrize(
    ("shape", "layer", "by_hand"),
    [
        pytest.param((7,), layers.Dense(3), 7 * 3, id="Dense"),
        pytest.param((5, 7), layers.Dense(3, use_bias=False), 5 * 7 * 3, id="Dense on every step"),
        pytest.param((5, 7), layers.EinsumDense("abc,cd->abd", (5, 3)), 5 * 7 * 3, id="EinsumDense as Dense"),
        pytest.param((5, 7), layers.EinsumDense("...x,xyz->...yz", (2, 3)), 5 * 7 * 6, id="EinsumDense with dots"),
        pytest.param((5, 7), layers.EinsumDense("abc,bcd->ad", 3), 5 * 7 * 3, id="EinsumDense over two axes"),
        pytest.param((9, 4), layers.Conv1D(6, 3), 7 * 6 * 3 * 4, id="Conv1D"),
        pytest.param((9, 4), layers.Conv1D(6, 3, padding="causal", dilation_rate=2), 9 * 6 * 3 * 4, id="dilated"),
        pytest.param((8, 8, 4), layers.Conv2D(6, (3, 5)), 6 * 4 * 6 * 15 * 4, id="Conv2D"),
        pytest.param((8, 8, 4), layers.Conv2D(6, 3, strides=2, padding="same"), 16 * 6 * 9 * 4, id="Conv2D of strides"),
        pytest.param((8, 8, 4), layers.Conv2D(6, 3, groups=2), 36 * 6 * 9 * 2, id="Conv2D of groups"),
        pytest.param((4, 4, 4, 2), layers.Conv3D(3, 2), 27 * 3 * 8 * 2, id="Conv3D"),
        pytest.param((9, 4), layers.DepthwiseConv1D(3, depth_multiplier=2), 7 * 8 * 3, id="DepthwiseConv1D"),
        pytest.param((8, 8, 4), layers.DepthwiseConv2D(3), 36 * 4 * 9, id="DepthwiseConv2D"),
        pytest.param((9, 4), layers.SeparableConv1D(6, 3), 7 * (4 * 3 + 4 * 6), id="SeparableConv1D"),
        pytest.param(
            (8, 8, 4), layers.SeparableConv2D(6, 3, depth_multiplier=2), 36 * (8 * 9 + 8 * 6), id="SeparableConv2D"
        ),
        pytest.param((9, 4), layers.Conv1DTranspose(6, 3, strides=2), 9 * 4 * 3 * 6, id="Conv1DTranspose"),
        pytest.param((5, 5, 4), layers.Conv2DTranspose(6, 3, strides=2), 25 * 4 * 9 * 6, id="Conv2DTranspose"),
        pytest.param((3, 3, 3, 2), layers.Conv3DTranspose(4, 2), 27 * 2 * 8 * 4, id="Conv3DTranspose"),
        pytest.param((5, 3), layers.SimpleRNN(4), 5 * (3 * 4 + 4 * 4), id="SimpleRNN"),
        pytest.param((5, 3), layers.LSTM(4), 5 * 4 * (3 * 4 + 4 * 4), id="LSTM"),
        pytest.param((5, 3), layers.GRU(4, return_sequences=True), 5 * 3 * (3 * 4 + 4 * 4), id="GRU"),
        pytest.param((5, 3), layers.Bidirectional(layers.LSTM(4)), 2 * 5 * 4 * (3 * 4 + 4 * 4), id="Bidirectional"),
        pytest.param(
            (5, 3),
            layers.Bidirectional(layers.GRU(4, return_sequences=True), merge_mode="mul"),
            2 * 5 * 3 * (3 * 4 + 4 * 4) + 5 * 4,
            id="Bidirectional, multiplied",
        ),
        pytest.param(
            (5, 8, 8, 2), layers.ConvLSTM2D(3, 3), 5 * 36 * (9 * 2 * 12 + 9 * 3 * 12), id="ConvLSTM2D, its last step"
        ),
        pytest.param(
            (5, 8, 2),
            layers.ConvLSTM1D(3, 3, padding="same", return_sequences=True),
            5 * 8 * (3 * 2 * 12 + 3 * 3 * 12),
            id="ConvLSTM1D, all steps",
        ),
        pytest.param(
            (5, 8, 2),
            layers.Bidirectional(layers.ConvLSTM1D(3, 3)),
            2 * 5 * 6 * (3 * 2 * 12 + 3 * 3 * 12),
            id="Bidirectional ConvLSTM1D",
        ),
        pytest.param(
            (5, 6, 6, 2), layers.TimeDistributed(layers.Conv2D(3, 3)), 5 * 16 * 3 * 9 * 2, id="TimeDistributed"
        ),
        pytest.param((5, 6), layers.TimeDistributed(layers.Dropout(0.5)), 0, id="TimeDistributed of no products"),
        pytest.param((7,), layers.SpectralNormalization(layers.Dense(3)), 7 * 3, id="SpectralNormalization"),
        pytest.param((6, 6, 4), layers.BatchNormalization(), 144, id="BatchNormalization"),
        pytest.param((6, 4), layers.LayerNormalization(), 2 * 24, id="LayerNormalization"),
        pytest.param((6, 6, 3), layers.Rescaling(1 / 255), 108, id="Rescaling"),
        pytest.param((6, 6, 3), layers.Resizing(4, 4), 4 * 48, id="Resizing"),
        pytest.param((6, 6, 3), layers.UpSampling2D(2), 0, id="UpSampling2D"),
        pytest.param((6, 6, 3), layers.MaxPooling2D(2), 0, id="MaxPooling2D"),
        pytest.param((6, 3), layers.PReLU(), 0, id="PReLU, which has weights"),
        pytest.param((6,), layers.Embedding(10, 4), 0, id="Embedding, which has weights"),
    ],
)
def test_a_layer_is_counted_as_by_hand(shape, layer, by_hand):
    tensor = keras.Input(shape)
    assert macs_of(layer(tensor), tensor) == by_hand


@pytest.mark.parametrize(
    ("layer", "columns", "by_hand"),
    [
        pytest.param(
            layers.MultiHeadAttention(num_heads=2, key_dim=3, value_dim=8),
            4,
            # Projections of query, key and value, scores, weighted sums, and back.
            5 * 6 * 6 + 7 * 4 * 6 + 7 * 4 * 16 + 2 * 5 * 7 * 3 + 2 * 5 * 7 * 8 + 5 * 16 * 6,
            id="MultiHeadAttention",
        ),
        pytest.param(
            layers.GroupQueryAttention(head_dim=3, num_query_heads=4, num_key_value_heads=2),
            6,
            5 * 6 * 12 + 2 * 7 * 6 * 6 + 2 * 4 * 5 * 7 * 3 + 5 * 12 * 6,
            id="GroupQueryAttention",
        ),
    ],
)
def test_attention_is_counted_as_by_hand(layer, columns, by_hand):
    query, value = keras.Input((5, 6)), keras.Input((7, columns))
    assert macs_of(layer(query, value), query, value) == by_hand


def test_attention_over_one_of_two_axes_takes_the_other_as_samples():
    tensor = keras.Input((3, 5, 4))
    layer = layers.MultiHeadAttention(num_heads=2, key_dim=3, attention_axes=2)
    by_hand = 3 * (4 * 5 * 4 * 6 + 2 * 2 * 5 * 5 * 3)
    assert macs_of(layer(tensor, tensor), tensor) == by_hand


@pytest.mark.parametrize("layer", [layers.Attention(), layers.AdditiveAttention()], ids=["dot", "additive"])
def test_attention_without_projections(layer):
    query, value = keras.Input((5, 4)), keras.Input((7, 4))
    assert macs_of(layer([query, value]), query, value) == 5 * 7 * 4 + 5 * 7 * 4


def test_merging_layers_that_multiply():
    left, right = keras.Input((5, 4)), keras.Input((7, 4))
    assert macs_of(layers.Dot(axes=2)([left, right]), left, right) == 5 * 7 * 4
    assert macs_of(layers.Dot(axes=-1)([left, right]), left, right) == 5 * 7 * 4
    three = [keras.Input((4,)) for _ in range(3)]
    assert macs_of(layers.Multiply()(three), *three) == 2 * 4
    assert macs_of(layers.Add()(three), *three) == 0


def test_a_block_is_counted_by_its_operations():
    sound = keras.Input((1024,))
    block = build_block("MFCC", {"fft_length": 256, "sample_rate": 8000, "num_mel_bins": 20, "num_mfcc": 10}, "mfcc")
    calls, _ = calls_of(keras.Model(sound, block(sound)))
    frames, bins = 1 + (1024 - 256) // 128, 129
    counted = [(call.path, count_macs(call)) for call in calls]
    assert [item for item in counted if item[1]] == [
        ("mfcc/multiply", frames * 256),
        ("mfcc/rfft", frames * 256 * 8),
        ("mfcc/square", frames * bins),
        ("mfcc/square_1", frames * bins),
        ("mfcc/matmul", 20 * bins * frames),
        ("mfcc/matmul_1", 10 * 20 * frames),
    ]


class Dense(layers.Dense):
    """Of somebody else, with the name of a layer of Keras."""


def test_what_has_no_formula_is_told():
    tensor = keras.Input((5, 5, 3))
    with pytest.raises(NotCountedError, match="no formula for RNN"):
        row = keras.Input((5, 3))
        macs_of(layers.RNN(layers.LSTMCell(2))(row), row)
    with pytest.raises(NotCountedError, match="no formula for Dense"):
        macs_of(Dense(3)(tensor), tensor)
    with pytest.raises(NotCountedError, match="no formula for the interpolation 'lanczos5'"):
        macs_of(layers.Resizing(4, 4, interpolation="lanczos5")(tensor), tensor)
    with pytest.raises(NotCountedError, match="no formula for Sin"):
        macs_of(keras.ops.sin(tensor), tensor)


def test_a_length_that_only_the_data_tell_is_told():
    steps = keras.Input((None, 3))
    with pytest.raises(NotCountedError, match="a length of its input or output is not known"):
        macs_of(layers.LSTM(4)(steps), steps)


NOT_LAYERS_OF_A_MODEL = {"CutMix", "MixUp", "RandAugment", "Solarization", "Pipeline"}
CELLS = {"GRUCell", "LSTMCell", "SimpleRNNCell", "StackedRNNCells", "RNN"}
TOLD_NOT = {
    *("AugMix", "AutoContrast", "CenterCrop", "ContrastLimitedAdaptiveHistogramEqualization"),
    *("MelSpectrogram", "STFTSpectrogram"),
    *(f"Random{name}" for name in ("ColorDegeneration", "ColorJitter", "Crop", "ElasticTransform", "Erasing")),
    *(f"Random{name}" for name in ("GaussianBlur", "Grayscale", "Hue", "Invert", "Perspective", "Posterization")),
    *(f"Random{name}" for name in ("Saturation", "Sharpness", "Shear")),
}


def test_every_layer_of_the_catalogue_is_counted_or_known_to_be_told_as_not_counted():
    catalogue = json.loads((Path(extras.__file__).parent / "spec/catalogue.json").read_text(encoding="utf-8"))
    names = {getattr(layers, name).__name__ for name in catalogue["layer"]}
    assert len(names) > 100
    assert set(LAYERS) | NO_PRODUCTS == names - NOT_LAYERS_OF_A_MODEL - CELLS - TOLD_NOT | {"InputLayer"}
    assert not set(LAYERS) & NO_PRODUCTS


def counted_by_tensorflow(model, *operations):
    """Multiply-accumulates of these operations of the frozen graph, for one sample: TensorFlow counts two for each."""
    tf = extras.tensorflow()
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    takes = [tf.TensorSpec((1, *tensor.shape[1:]), tensor.dtype) for tensor in model.inputs]
    traced = tf.function(lambda *tensors: model(tensors if len(tensors) > 1 else tensors[0], training=False))
    frozen = convert_variables_to_constants_v2(traced.get_concrete_function(*takes))
    builder = tf.compat.v1.profiler.ProfileOptionBuilder
    options = builder(builder.float_operation()).with_empty_output().with_accounted_types(list(operations)).build()
    with tf.Graph().as_default() as graph:
        tf.graph_util.import_graph_def(frozen.graph.as_graph_def(), name="")
        return tf.compat.v1.profiler.profile(graph=graph, cmd="op", options=options).total_float_ops // 2


PRODUCTS = ("Conv2D", "DepthwiseConv2dNative", "MatMul", "BatchMatMulV2")


def test_tensorflow_counts_as_many_in_a_cnn():
    inputs = keras.Input((32, 32, 3))
    x = layers.Conv2D(8, 3, strides=2, padding="same", activation="relu")(inputs)
    x = layers.DepthwiseConv2D(3)(x)
    x = layers.SeparableConv2D(12, 3, padding="valid")(x)
    x = layers.Conv2D(16, 1)(layers.MaxPooling2D()(x))
    model = keras.Model(inputs, layers.Dense(10)(layers.Flatten()(x)))
    ours = sum(count_macs(call) for call in calls_of(model)[0])
    assert ours == counted_by_tensorflow(model, *PRODUCTS) > 100_000


def test_tensorflow_counts_as_many_in_an_mlp_of_two_inputs():
    left, right = keras.Input((20,)), keras.Input((30,))
    joined = layers.Concatenate()([layers.Dense(16)(left), layers.Dense(8, activation="relu")(right)])
    model = keras.Model([left, right], layers.Dense(4, activation="softmax")(layers.Dropout(0.5)(joined)))
    ours = sum(count_macs(call) for call in calls_of(model)[0])
    assert ours == counted_by_tensorflow(model, *PRODUCTS) == 20 * 16 + 30 * 8 + 24 * 4


def test_a_transform_is_counted_as_a_complex_one_of_half_the_length_and_putting_the_halves_together():
    # (N / 4) log2(N / 2) butterflies of four products, and N products to put the halves together.
    tensor = keras.Input((1024,))
    block = build_block("LogMel", {"fft_length": 1024, "sample_rate": 16000, "num_mel_bins": 40}, "mel")
    found = next(count_macs(call) for call in calls_of(keras.Model(tensor, block(tensor)))[0] if "rfft" in call.path)
    assert found == 1024 * 9 + 1024

"""What a model costs: worked out by hand, and held against Keras."""

import dataclasses
import json

import pytest

from mltool import extras
from mltool.errors import ArtifactError
from mltool.inspection.inspect_model import inspect_run
from mltool.inspection.model_summary import Bytes, ModelSummary, load_summary, summarize
from mltool.inspection.model_text import shown_layer, shown_totals
from mltool.models.blocks import build_block

keras = extras.keras()
layers = keras.layers


def small_cnn():
    """8x8x1 -> 6x6x4 -> (frozen) 6x6x4 -> 3x3x4 -> 36 -> 10."""
    image = keras.Input((8, 8, 1), name="image")
    x = layers.Conv2D(4, 3, name="conv")(image)
    x = layers.BatchNormalization(name="norm")(x)
    x = layers.MaxPooling2D(2, name="pool")(x)
    x = layers.Flatten(name="flat")(x)
    return keras.Model(image, layers.Dense(10, name="scores")(x), name="cnn")


def test_a_small_cnn_is_as_worked_out_by_hand():
    summary = summarize(small_cnn())
    rows = [
        (layer.layer, layer.output_shapes[0], layer.parameters, layer.trainable_parameters, layer.macs)
        for layer in summary.layers
    ]
    assert rows == [
        ("image", (8, 8, 1), 0, 0, 0),
        ("conv", (6, 6, 4), 3 * 3 * 4 + 4, 40, 6 * 6 * 4 * 9),
        ("norm", (6, 6, 4), 4 * 4, 2 * 4, 144),
        ("pool", (3, 3, 4), 0, 0, 0),
        ("flat", (36,), 0, 0, 0),
        ("scores", (10,), 36 * 10 + 10, 370, 360),
    ]
    assert [layer.activation_bytes.int8 for layer in summary.layers] == [64, 144, 144, 36, 36, 10]
    assert [layer.activation_bytes.float32 for layer in summary.layers] == [256, 576, 576, 144, 144, 40]
    assert (summary.parameters, summary.trainable_parameters) == (40 + 16 + 370, 40 + 8 + 370)
    assert summary.macs == 1296 + 144 + 360
    assert summary.weight_bytes == Bytes(4 * 426, 36 + 360 + 4 * (4 + 16 + 10))
    # The normalization takes the convolution's output and gives its own; the image is gone by then.
    assert (summary.peak_activation_bytes, summary.peak_layer) == (Bytes(4 * 288, 288), "norm")
    assert summary.all_activation_bytes == Bytes(4 * 434, 434)


def test_a_tensor_that_is_taken_again_later_stays_alive():
    start = keras.Input((10,), name="start")
    x = layers.Dense(100, name="wide")(start)
    x = layers.Dense(10, name="narrow")(x)
    model = keras.Model(start, layers.Add(name="sum")([start, x]))
    # start (10) while wide (100) is made and read: 10 + 100 + 10.
    assert summarize(model).peak_activation_bytes.int8 == 120
    assert summarize(model).peak_layer == "narrow"


def test_inputs_are_alive_from_the_beginning_and_outputs_to_the_end():
    left, right = keras.Input((50,), name="left"), keras.Input((60,), name="right")
    one = layers.Dense(5, name="one")(left)
    two = layers.Dense(7, name="two")(one)
    model = keras.Model([left, right], [one, layers.Concatenate(name="both")([two, right])])
    summary = summarize(model)
    assert summary.peak_activation_bytes.int8 == 5 + 7 + 60 + 67
    assert summary.peak_layer == "both"


def test_a_model_inside_is_told_layer_by_layer_with_its_path():
    inner_input = keras.Input((6,))
    inner = keras.Model(inner_input, layers.Dense(4, name="deep")(layers.ReLU(name="cut")(inner_input)), name="inside")
    start = keras.Input((6,), name="start")
    model = keras.Model(start, layers.Dense(2, name="last")(inner(start)))
    summary = summarize(model)
    assert [layer.layer for layer in summary.layers] == ["start", "inside/cut", "inside/deep", "last"]
    assert summary.parameters == model.count_params() == 28 + 10
    assert summary.macs == 24 + 8
    assert summary.peak_activation_bytes.int8 == 12


def test_a_block_of_sound_is_told_by_operations():
    sound = keras.Input((1024,), name="sound")
    arguments = {"fft_length": 256, "sample_rate": 8000, "num_mel_bins": 20}
    # Keras numbers the operations of a second one on; the names here say nothing of what was built before.
    first, second = (summarize(keras.Model(sound, build_block("LogMel", arguments, "mel")(sound))) for _ in range(2))
    assert first.layers == second.layers
    found = {layer.layer: layer for layer in second.layers}
    assert found["mel/rfft"].output_shapes == ((7, 129), (7, 129))
    assert found["mel/rfft"].activation_bytes == Bytes(4 * 2 * 7 * 129, 2 * 7 * 129)
    assert not any(layer.not_counted for layer in found.values())


def test_weights_of_a_layer_that_is_called_twice_count_once_and_its_products_twice():
    left, right = keras.Input((6,)), keras.Input((6,))
    shared = layers.Dense(4)
    model = keras.Model([left, right], layers.Add()([shared(left), shared(right)]))
    summary = summarize(model)
    assert sum(layer.parameters for layer in summary.layers) == summary.parameters == 28
    assert summary.macs == 2 * 24


class Mixes(layers.Layer):
    """With a weight, and no formula."""

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], 3))

    def call(self, inputs):
        return inputs @ self.kernel


def test_a_layer_without_a_formula_is_told_and_never_counted_as_nothing():
    start = keras.Input((6,), name="start")
    summary = summarize(keras.Model(start, layers.Dense(2)(Mixes(name="mixes")(start))))
    row = summary.layers[1]
    assert (row.parameters, row.macs, row.not_counted) == (18, None, "no formula for Mixes")
    assert summary.macs == 6
    assert shown_layer(row)[5] == "not counted"
    totals = dict(shown_totals(summary))
    assert totals["MACs"] == "6 a sample, and what was not counted"
    assert totals["not counted"] == "mixes (no formula for Mixes)"
    assert [layer.layer for layer in summary.sorted_by("macs").layers][-1] == "mixes"


def test_a_length_that_is_not_known_is_a_question_mark():
    words = keras.Input((None,), name="words")
    model = keras.Model(words, layers.LSTM(3)(layers.Embedding(10, 4, name="vectors")(words)))
    summary = summarize(model)
    assert summary.peak_activation_bytes == summary.all_activation_bytes == Bytes(None, None)
    assert shown_layer(summary.layers[1])[2:] == ("?x4", "40", "40", "0", "?", "?")
    assert "a length is told only when the model runs" in dict(shown_totals(summary))["peak activations"]


@pytest.mark.parametrize(
    ("key", "first"), [("parameters", "scores"), ("macs", "conv"), ("activations", "conv")], ids=str
)
def test_the_largest_come_first_and_equal_ones_as_they_run(key, first):
    found = summarize(small_cnn()).sorted_by(key).layers
    assert found[0].layer == first
    if key == "activations":
        assert [layer.layer for layer in found] == ["conv", "norm", "image", "pool", "flat", "scores"]


def test_a_summary_is_read_back_as_it_was_written(tmp_path):
    summary = summarize(small_cnn())
    file = tmp_path / "model.json"
    file.write_text(json.dumps(summary.to_json()))
    assert load_summary(file) == summary
    assert ModelSummary.from_json(dataclasses.asdict(summary)) == summary


def test_training_writes_what_the_kept_model_costs(run):
    summary = inspect_run(run)
    run.model_summary_file.unlink()
    loaded = inspect_run(run)
    assert loaded == summary
    assert summary.parameters == keras.models.load_model(run.keras_file).count_params()
    run.keras_file.unlink()
    with pytest.raises(ArtifactError, match=r"model\.keras is missing"):
        inspect_run(run)

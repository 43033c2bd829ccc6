"""Reading a converted file back: right ones are described, and every way not to be what was asked for is caught."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mltool.conversion.read_back import _CHECKS, Island, read_back
from mltool.conversion.schemes import SCHEMES
from mltool.errors import ArtifactError, ConversionError
from mltool.exporting.export import write_saved_model

Convert = Callable[..., Path]


def test_every_scheme_has_its_check():
    assert set(_CHECKS) == set(SCHEMES)


@pytest.mark.parametrize(
    ("quantize", "shares"),
    [
        # MUL and ADD of the Rescaling, CONV_2D, RESHAPE, two FULLY_CONNECTED; in float16, 8 constants to unpack: the
        # scalars of MUL and ADD, weights and biases of three layers
        pytest.param("none", {"float32": 1.0}, id="none"),
        pytest.param("float16", {"edge": 8 / 14, "float32": 6 / 14}, id="float16"),
        pytest.param("dynamic", {"float32": 5 / 6, "hybrid": 1 / 6}, id="dynamic"),
        pytest.param("int8", {"edge": 2 / 8, "int8": 6 / 8}, id="int8"),
    ],
)
def test_what_was_asked_for_is_described(digits: Any, convert: Convert, quantize: str, shares: dict[str, float]):
    path = convert(digits, quantize)

    result = read_back(path, quantize=quantize, io="float32", layer_names=digits.layers)

    assert result.quantize == quantize
    assert result.operator_share_by_dtype == pytest.approx(shares)
    assert (result.inputs, result.outputs) == ({"image": "float32"}, {"scores": "float32"})
    assert result.float_islands == ()
    assert result.layers_without_operator == ()
    assert result.bytes == path.stat().st_size


def test_the_facts_of_an_int8_file_are_told(digits: Any, convert: Convert):
    result = read_back(convert(digits, "int8"), quantize="int8", io="float32", layer_names=digits.layers)

    assert result.operators == {
        "ADD": 1, "CONV_2D": 1, "DEQUANTIZE": 1, "FULLY_CONNECTED": 2, "MUL": 1, "QUANTIZE": 1, "RESHAPE": 1
    }  # fmt: skip
    assert result.operator_versions["CONV_2D"] == 3  # int8 per channel, as TensorFlow Lite counts
    # int8: 2 scalars, 4*9 + 64*40 + 40*10 weights; int32: 4 + 40 + 10 biases and the RESHAPE's 2 sizes
    assert result.weight_bytes_by_dtype == {"int8": 2 + 36 + 2560 + 400, "int32": 4 * 56}
    assert result.per_channel
    assert result.min_runtime_version
    assert json.loads(json.dumps(result.to_json()))["operators"]["CONV_2D"] == 1


@pytest.mark.parametrize("io", ["int8", "uint8"])
def test_integer_inputs_and_outputs_leave_no_float(digits: Any, convert: Convert, io: str):
    result = read_back(convert(digits, "int8", io=io), quantize="int8", io=io, layer_names=digits.layers)

    assert (result.inputs, result.outputs) == ({"image": io}, {"scores": io})
    assert "float32" not in result.operator_share_by_dtype


def test_a_kept_layer_is_listed_as_an_island(table: Any, convert: Convert):
    path = convert(table, "int8", keep_float=["normalization"])

    by_name = read_back(path, quantize="int8", io="float32", layer_names=table.layers, keep_float=["normalization"])
    as_preprocessing = read_back(
        path, quantize="int8", io="float32", layer_names=table.layers, preprocess_layers=["normalization"]
    )

    layer = ("normalization",)
    assert by_name.float_islands == (Island("SUB", layer, "keep_float"), Island("MUL", layer, "keep_float"))
    assert [island.reason for island in as_preprocessing.float_islands] == ["preprocessing"] * 2


def test_an_operator_without_an_int8_kernel_is_listed_as_an_island(normed: Any, convert: Convert):
    result = read_back(convert(normed, "int8"), quantize="int8", io="float32", layer_names=normed.layers)

    assert result.float_islands == (Island("NEG", ("ln",), "no int8 kernel"),)


@pytest.mark.parametrize(
    ("made", "asked", "text"),
    [
        pytest.param(
            "none",
            "int8",
            r"asked for int8, the file is float32: 6 of 6 operators compute in float32 "
            r"\(first: MUL of layer 'rescaling'\); the converter did not quantize: is the representative dataset empty",
            id="float for int8",
        ),
        pytest.param("float16", "int8", "asked for int8, the file is float32: 6 of 6", id="float16 for int8"),
        pytest.param("dynamic", "int8", "asked for int8, the file is float32: 6 of 6", id="dynamic for int8"),
        pytest.param("none", "float16", "asked for float16, but 8 of 8 float weights are not", id="float for float16"),
        pytest.param("int8", "float16", "asked for float16, but the file holds no float weight", id="int8 for float16"),
        pytest.param(
            "none",
            "dynamic",
            r"1 of 3 weights are not int8 \(first: 2560 elements of float32 in FULLY_CONNECTED of layer 'wide'\)",
            id="float for dynamic",
        ),
        pytest.param(
            "int8", "dynamic", "activations are quantized too .*CONV_2D of layer 'first'", id="int8 for dynamic"
        ),
        pytest.param("int8", "none", "asked for float32, .* tensors are not", id="int8 for none"),
        pytest.param("float16", "none", "of float16", id="float16 for none"),
    ],
)
def test_a_file_of_another_scheme_is_refused(digits: Any, convert: Convert, made: str, asked: str, text: str):
    path = convert(digits, made)

    with pytest.raises(ConversionError, match=text):
        read_back(path, quantize=asked, io="float32", layer_names=digits.layers)


def test_a_converter_that_answers_with_a_float_file_is_caught(
    digits: Any, convert: Convert, monkeypatch: pytest.MonkeyPatch
):
    import tensorflow as tf

    original = tf.lite.TFLiteConverter.from_saved_model

    def careless(folder: str, signature_keys: list[str]) -> Any:
        converter = original(folder, signature_keys=signature_keys)
        answer = converter.convert()
        converter.convert = lambda: answer
        return converter

    monkeypatch.setattr(tf.lite.TFLiteConverter, "from_saved_model", careless)
    path = convert(digits, "int8")

    with pytest.raises(ConversionError, match="asked for int8, the file is float32"):
        read_back(path, quantize="int8", io="float32", layer_names=digits.layers)


@pytest.mark.parametrize(
    ("made", "asked", "text"),
    [
        pytest.param("float32", "int8", "asked for io: int8, but input 'image' is float32", id="float"),
        pytest.param("uint8", "int8", "asked for io: int8, but input 'image' is uint8", id="other integer"),
        pytest.param("int8", "float32", "asked for io: float32, but output 'scores' is int8", id="integer"),
    ],
)
def test_other_inputs_and_outputs_are_refused(digits: Any, convert: Convert, made: str, asked: str, text: str):
    path = convert(digits, "int8", io=made)

    with pytest.raises(ConversionError, match=text):
        read_back(path, quantize="int8", io=asked, layer_names=digits.layers)


def test_integer_inputs_and_outputs_forbid_even_what_has_no_int8_kernel(normed: Any, convert: Convert):
    path = convert(normed, "int8", io="int8")

    with pytest.raises(ConversionError, match=r"first: NEG of layer 'ln'.; NEG has no int8 kernel: use io: float32"):
        read_back(path, quantize="int8", io="int8", layer_names=normed.layers)


def test_an_island_that_nobody_asked_for_is_refused(table: Any, convert: Convert):
    path = convert(table, "int8", keep_float=["hidden"])

    with pytest.raises(ConversionError, match=r"the file is int8 in part: 1 of 4 .*FULLY_CONNECTED of layer 'hidden'"):
        read_back(path, quantize="int8", io="float32", layer_names=table.layers)


def test_a_layer_that_should_have_stayed_float_is_missed(table: Any, convert: Convert):
    path = convert(table, "int8")

    with pytest.raises(ConversionError, match=r"keep \['normalization'\] in float, but SUB of layer 'normalization'"):
        read_back(path, quantize="int8", io="float32", layer_names=table.layers, keep_float=["normalization"])


def test_dynamic_without_a_large_weight_says_so(table: Any, convert: Convert):
    path = convert(table, "dynamic")

    # 4 * 16 and 16 * 3 elements
    with pytest.raises(ConversionError, match="fewer than 1,024 elements alone, and the largest here has 64"):
        read_back(path, quantize="dynamic", io="float32", layer_names=table.layers)


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [pytest.param((31, 33), "float32", id="1,023 elements"), pytest.param((32, 32), "int8", id="1,024 elements")],
)
def test_the_threshold_of_dynamic_is_where_the_table_says(
    export_model: Any, convert: Convert, shape: tuple[int, int], dtype: str
):
    import keras

    from mltool.inspection.flatbuffer import read_flatbuffer

    stack = [keras.Input((shape[0],), name="x"), keras.layers.Dense(shape[1], name="dense")]
    file = read_flatbuffer(convert(export_model(f"threshold{shape[0]}", keras.Sequential(stack)), "dynamic"))

    assert file.operators[0].inputs[1].dtype == dtype


def test_constants_beyond_float16_are_refused(export_model: Any, convert: Convert):
    import keras

    normalization = keras.layers.Normalization(mean=[1e6, 0.0], variance=[1.0, 1.0], name="normalization")
    stack = [keras.Input((2,), name="x"), normalization, keras.layers.Dense(3, name="out")]
    path = convert(export_model("large", keras.Sequential(stack)), "float16")

    with pytest.raises(ConversionError, match="layer 'normalization' reads, does not fit into float16, which ends"):
        read_back(path, quantize="float16", io="float32", layer_names=["normalization", "out"])


def test_a_scale_that_is_not_a_number_is_refused(digits: Any, convert: Convert):
    path = convert(digits, "int8")
    data = path.read_bytes()
    from mltool.inspection.flatbuffer import read_flatbuffer

    image = read_flatbuffer(path).operators[0].outputs[0]
    scale = np.float32(image.scales[0]).tobytes()
    path.write_bytes(data.replace(scale, np.float32("nan").tobytes()))

    with pytest.raises(ConversionError, match=r"tensor 'tfl\.quantize' has scale nan"):
        read_back(path, quantize="int8", io="float32", layer_names=digits.layers)


def test_an_embedding_in_dynamic_and_int8_is_what_it_says(export_model: Any, convert: Convert):
    import keras

    layers = keras.layers
    stack = [keras.Input((4,), dtype="int32", name="x"), layers.Embedding(100, 16, name="ids")]
    stack += [layers.Flatten(name="flat"), layers.Dense(3, name="out")]
    exported = export_model("embedding", keras.Sequential(stack))
    names = ["ids", "flat", "out"]

    assert read_back(convert(exported, "dynamic"), quantize="dynamic", io="float32", layer_names=names).operators
    with_ids = read_back(convert(exported, "int8", io="int8"), quantize="int8", io="int8", layer_names=names)
    assert (with_ids.inputs, with_ids.outputs) == ({"x": "int32"}, {"scores": "int8"})  # ids stay ids


def test_a_recurrent_layer_in_int8_keeps_its_loop_as_an_island(export_model: Any, convert: Convert):
    import keras

    stack = [keras.Input((6, 4), name="x"), keras.layers.LSTM(8, name="lstm"), keras.layers.Dense(3, name="out")]
    path = convert(export_model("loop", keras.Sequential(stack)), "int8", batch=None)

    result = read_back(path, quantize="int8", io="float32", layer_names=["lstm", "out"])

    assert result.float_islands == (Island("WHILE", ("lstm",), "no int8 kernel"),)


def test_a_damaged_file_is_another_kind_of_error(tmp_path: Path):
    (tmp_path / "x.tflite").write_bytes(b"no flatbuffer at all")

    with pytest.raises(ArtifactError, match=r"is not a \.tflite file"):
        read_back(tmp_path / "x.tflite", quantize="int8", io="float32")


def test_all_that_is_wrong_is_said_at_once(digits: Any, convert: Convert):
    with pytest.raises(ConversionError, match="asked for io: int8") as caught:
        read_back(convert(digits, "none"), quantize="int8", io="int8", layer_names=digits.layers)

    assert len(caught.value.messages) == 3  # the input, the output, the operators


def test_a_layer_that_draws_at_rest_is_told_where_it_belongs(digits: Any, convert: Convert, tmp_path: Path):
    import keras

    image = keras.Input((8, 8, 3), name="image")
    model = keras.Model(image, keras.layers.RandomHue(0.2, name="hue")(image))
    write_saved_model(model, ["scores"], tmp_path / "hue")
    path = convert(replace(digits, folder=tmp_path / "hue", layers=["hue"]), "none")
    with pytest.raises(ConversionError, match=r"keeps variables .*seed_generator.*; .*write it under data\.augment"):
        read_back(path, quantize="none", io="float32", layer_names=["hue"])

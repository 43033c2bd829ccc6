"""Files of the quantizer read back: every layer in its scheme, and what is not is named."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mltool.conversion.engines.recipe import read_recipe, write_recipe
from mltool.conversion.precision import Precision
from mltool.conversion.read_back import Island, ReadBack, read_back
from mltool.errors import ArtifactError, ConversionError
from mltool.inspection.flatbuffer import read_flatbuffer

Quantize = Callable[..., Path]


def _read(path: Path, exported: Any, precision: Precision, **changed: Any) -> ReadBack:
    scheme = "mixed" if precision.layers or precision.default in ("dynamic", "float32") else precision.default
    arguments: dict[str, Any] = {"quantize": scheme, "io": precision.io, "precision": precision, **changed}
    return read_back(path, layer_names=exported.layers, **arguments)


@pytest.mark.parametrize(
    ("precision", "shares"),
    [
        # CONV_2D, DEPTHWISE_CONV_2D, CONV_2D, MEAN, two FULLY_CONNECTED
        pytest.param(Precision("int16x8"), {"edge": 2, "int16": 6}, id="int16x8"),
        pytest.param(Precision("int4"), {"float32": 1, "hybrid": 5}, id="int4"),
        pytest.param(Precision("weight-only"), {"edge": 5, "float32": 6}, id="weight-only"),
        pytest.param(Precision("int8", {".*": "dynamic"}), {"float32": 1, "hybrid": 5}, id="mixed"),
    ],
)
def test_what_was_asked_for_is_described(
    convnet: Any, quantize: Quantize, precision: Precision, shares: dict[str, int]
):
    found = _read(quantize(convnet, precision), convnet, precision)

    count = sum(shares.values())
    assert found.operator_share_by_dtype == pytest.approx({dtype: n / count for dtype, n in shares.items()})
    assert found.granularity == "channel"
    assert found.layers_without_operator == ()


MIXED = Precision("int8", {"stem": "float32", "depth": "int16x8", "hidden": "int4", "last": "weight-only"})


def test_a_mixture_is_what_each_layer_was_to_be(convnet: Any, quantize: Quantize):
    found = _read(quantize(convnet, MIXED), convnet, MIXED)

    assert found.float_islands == (
        Island("CONV_2D", ("stem", "norm", "act"), "mixture"),
        Island("FULLY_CONNECTED", ("hidden",), "mixture"),
        Island("FULLY_CONNECTED", ("last",), "mixture"),
    )


def test_a_layer_of_16_bits_makes_no_int8_file(convnet: Any, quantize: Quantize):
    path = quantize(convnet, Precision("int8", {"depth": "int16x8"}))

    with pytest.raises(ConversionError, match=r"asked for int8, but 1 of 6 operators compute in int16 .*'depth'"):
        read_back(path, quantize="int8", io="float32", layer_names=convnet.layers)


@pytest.mark.parametrize(
    ("layer", "scheme", "text"),
    [
        pytest.param("stem", "int8", "CONV_2D of layer 'stem' .* computes in float32", id="float for int8"),
        pytest.param("depth", "float32", "DEPTHWISE_CONV_2D of layer 'depth' computes in int16", id="int16 for float"),
        pytest.param("depth", "int8", "DEPTHWISE_CONV_2D of layer 'depth' computes in int16", id="int16 for int8"),
        pytest.param("hidden", "dynamic", "of layer 'hidden' has weights in int4", id="4 bits for 8"),
        pytest.param("last", "int4", "of layer 'last' has weights in int8", id="8 bits for 4"),
        pytest.param("last", "dynamic", "of layer 'last' unpacks its weights", id="unpacked"),
        pytest.param("last", "float32", "of layer 'last' has weights in int8", id="8 bits for float"),
        pytest.param("point", "int16x8", "CONV_2D of layer 'point' computes in int8", id="int8 for int16"),
        pytest.param("pool", "int4", "MEAN of layer 'pool' computes in int8", id="int8 for float activations"),
    ],
)
def test_a_layer_in_another_scheme_is_named(convnet: Any, quantize: Quantize, layer: str, scheme: str, text: str):
    asked = Precision("int8", {**MIXED.layers, layer: scheme})

    with pytest.raises(ConversionError, match=f"asked for {scheme}, but .*{text}"):
        _read(quantize(convnet, MIXED), convnet, asked)


@pytest.mark.parametrize(
    ("made", "asked", "text"),
    [
        ("weight-only", "int4", "5 of 6 operators are not .*has weights in int8"),
        ("int4", "weight-only", "4 of 6 operators are not|5 of 6 operators are not"),
        ("dynamic", "weight-only", "5 of 6 operators are not .*computes with packed weights"),
        ("weight-only", "dynamic", "unpacks its weights"),
        ("int8", "int16x8", "6 of 6 operators are not .*computes in int8"),
        ("int16x8", "int4", "computes in int16"),
        ("float32", "int4", "5 of 6 operators are not .*has weights in float32"),
        ("float32", "int16x8", "6 of 6 operators are not .*computes in float32"),
    ],
)
def test_a_file_of_another_scheme_is_refused(
    convnet: Any, quantize: Quantize, float_file: Callable[[Any], Path], made: str, asked: str, text: str
):
    path = float_file(convnet) if made == "float32" else quantize(convnet, Precision(made))

    with pytest.raises(ConversionError, match=text):
        _read(path, convnet, Precision(asked))


@pytest.mark.parametrize("scheme", ["int8", "int4", "weight-only", "int16x8"])
@pytest.mark.parametrize(("made", "asked"), [("channel", "tensor"), ("tensor", "channel")])
def test_scales_shared_otherwise_are_refused(convnet: Any, quantize: Quantize, scheme: str, made: str, asked: str):
    path = quantize(convnet, Precision(scheme, granularity=made))
    wanted = Precision(scheme, granularity=asked)

    text = f"asked for one scale per {asked}, but 5 of 5 weights have one per {made} .*CONV_2D of layer 'stem'"
    with pytest.raises(ConversionError, match=text):
        _read(path, convnet, wanted)
    assert _read(path, convnet, Precision(scheme, granularity=made)).granularity == made


def test_an_int8_file_of_the_converter_is_per_channel(convnet: Any, convert: Quantize):
    path = convert(convnet, "int8")
    arguments: dict[str, Any] = {"quantize": "int8", "io": "float32", "layer_names": convnet.layers}

    assert read_back(path, **arguments).granularity == "channel"
    with pytest.raises(
        ConversionError, match="asked for one scale per tensor, but 5 of 5 weights have one per channel"
    ):
        read_back(path, granularity="tensor", **arguments)


def test_blocks_are_where_they_divide(convnet: Any, quantize: Quantize):
    precision = Precision("int4", granularity="block", block_size=32)
    path = quantize(convnet, precision)

    assert _read(path, convnet, precision).granularity == "block"
    with pytest.raises(ConversionError, match=r"per channel, but 1 of 5 weights have one per block of 32 .*'hidden'"):
        _read(path, convnet, Precision("int4"))
    with pytest.raises(ConversionError, match=r"one scale per block of 32, but 1 of 5 weights have one per channel"):
        _read(quantize(convnet, Precision("int4")), convnet, precision)


def test_the_scales_of_blocks_are_read(convnet: Any, quantize: Quantize):
    path = quantize(convnet, Precision("int4", granularity="block", block_size=32))

    (weight,) = (tensor for tensor in read_flatbuffer(path).tensors if tensor.block_size)
    kernel = convnet.model.get_layer("hidden").kernel.numpy().T  # 40 outputs of 32 inputs: one block each
    assert (weight.shape, weight.block_size, weight.dtype, weight.quantized_dimension) == ((40, 32), 32, "int4", 1)
    assert weight.scales == pytest.approx(
        np.abs(kernel).max(axis=1) / 7, rel=4e-3
    )  # kept in float16, with 7 bits of its mantissa
    assert weight.bytes == 40 * 32 // 2


def test_damage_to_blocks_is_answered_with_an_artifact_error_or_a_reading(
    convnet: Any, quantize: Quantize, tmp_path: Path
):
    data = quantize(convnet, Precision("int4", granularity="block", block_size=32)).read_bytes()
    numbers, refused = np.random.default_rng(5), 0
    for _ in range(150):
        broken = bytearray(data)
        for place in numbers.integers(0, len(data), 30):
            broken[place] = numbers.integers(0, 256)
        (tmp_path / "broken.tflite").write_bytes(broken)
        try:
            read_flatbuffer(tmp_path / "broken.tflite")
        except ArtifactError:
            refused += 1
    assert refused > 0


def test_what_int16_has_no_kernel_for_is_listed(normed: Any, quantize: Quantize):
    precision = Precision("int16x8")

    found = _read(quantize(normed, precision), normed, precision)

    assert found.float_islands == (
        Island("NEG", ("ln",), "no int16 kernel"),
        Island("SQUARED_DIFFERENCE", ("ln",), "no int16 kernel"),
    )


def test_integer_inputs_forbid_what_has_no_int16_kernel(normed: Any, quantize: Quantize):
    precision = Precision("int16x8", io="int16")

    with pytest.raises(ConversionError, match=r"first: NEG of layer 'ln' computes in float32\); io: float32 allows"):
        _read(quantize(normed, precision), normed, precision)


def test_a_layer_kept_float_is_an_island_of_its_own(table: Any, quantize: Quantize):
    precision = Precision("int16x8")
    kept = precision.keeping_float(["normalization"])

    found = _read(quantize(table, kept), table, precision, keep_float=["normalization"])

    assert {island.reason for island in found.float_islands} == {"keep_float"}
    with pytest.raises(ConversionError, match=r"asked for int16x8, .*of layer 'normalization' computes in float32"):
        _read(quantize(table, kept), table, precision)
    with pytest.raises(ConversionError, match=r"asked for float32, .*of layer 'normalization' computes in int16"):
        _read(quantize(table, precision), table, precision, keep_float=["normalization"])


def test_a_scheme_that_shows_nowhere_is_refused(convnet: Any, quantize: Quantize):
    precision = Precision("float32", {"pool": "int4"})

    with pytest.raises(ConversionError, match=r"no operator has weights that could .*MEAN of layer"):
        _read(quantize(convnet, precision), convnet, precision)


def test_a_recipe_that_fits_nothing_is_refused(
    convnet: Any, quantize: Quantize, float_file: Callable[[Any], Path], tmp_path: Path
):
    write_recipe(tmp_path / "recipe.json", [_rule("hidden")])
    path = quantize(convnet, Precision(), recipe=read_recipe(tmp_path / "recipe.json"))
    arguments: dict[str, Any] = {"quantize": "recipe", "io": "float32", "layer_names": convnet.layers}

    assert read_back(path, **arguments).weight_bytes_by_dtype["int8"] == 32 * 40  # the one layer whose tensor fits
    with pytest.raises(ConversionError, match="asked for a recipe, but nothing in the file is quantized"):
        read_back(float_file(convnet), **arguments)


def _rule(regex: str) -> dict[str, Any]:
    config = {"weight_tensor_config": {"num_bits": 8, "granularity": "CHANNELWISE"}, "compute_precision": "INTEGER"}
    rule = {"regex": regex, "operation": "FULLY_CONNECTED", "algorithm_key": "min_max_uniform_quantize"}
    return {**rule, "op_config": config}


@pytest.mark.parametrize("bad", ["nan", "inf", "0"])
def test_a_scale_of_a_block_that_is_no_number_is_refused(convnet: Any, quantize: Quantize, bad: str):
    precision = Precision("int4", granularity="block", block_size=32)
    path = quantize(convnet, precision)
    weight = next(tensor for tensor in read_flatbuffer(path).tensors if tensor.block_size)
    scales = np.array(weight.scales, np.float16)
    broken = scales.copy()
    broken[7] = np.float16(bad)
    data = path.read_bytes()
    assert data.count(scales.tobytes()) == 1
    path.write_bytes(data.replace(scales.tobytes(), broken.tobytes()))

    with pytest.raises(ConversionError, match=rf"has scale {float(bad)}"):
        _read(path, convnet, precision)


def test_mixed_must_know_the_mixture(convnet: Any, quantize: Quantize):
    with pytest.raises(ValueError, match="what each layer was to be"):
        read_back(quantize(convnet, MIXED), quantize="mixed", io="float32", layer_names=convnet.layers)

"""What is said of layers whose errors are given: every cause, its numbers, and what to try."""

from typing import Any

import pytest

from mltool.conversion.explain.advice import explanation, find, number, share
from mltool.conversion.explain.records import LayerError
from mltool.conversion.explain.rows import rows


def layer(name: str, reads: tuple[str, ...] = (), **known: Any) -> LayerError:
    """A layer of int8 that is as it should be, but for what is known of it."""
    whole = {
        "op": "CONV_2D",
        "dtype": "int8",
        "scale": 0.02,
        "snr_db": 40.0,
        "varying_snr_db": 35.0,
        "input_snr_db": 36.0,
        "own_noise": 1e-4,
        "range_use": 1.0,
        "range_needed": 1.0,
    }
    return LayerError(layer=name, layers=tuple(name.split(" + ")), reads=reads, **{**whole, **known})


LOST = {"own_noise": 0.5, "varying_snr_db": 3.0, "rounding_noise": 0.3}
CHANNELS = {"channels": 8, "dead_channels": 3, "channel_ranges": (0.002, 40.0), "channels_scale": 0.16}


@pytest.mark.parametrize(
    ("known", "cause", "message", "advice"),
    [
        (
            LOST | CHANNELS | {"channels_op": "SUB"},
            "channels",
            "SUB of layer 'a': 3 of 8 channels have less than 2 bits left; ranges of 0.002 to 40 share one scale of "
            "0.16 a step (the least of them uses 0.005 % of the greatest)",
            "keep it in float: keep_float: [a]",
        ),
        (
            LOST | CHANNELS | {"channels_op": "INPUT"},
            "channels",
            "the input of layer 'a': 3 of 8 channels",
            "keep_float: [a], with io: float32; or bring the raw values to one scale before the model",
        ),
        (
            {"saturation": 0.034, "varying_snr_db": 18.0},
            "saturation",
            "CONV_2D of layer 'a': 3.4 % of its values lie outside of what its scale holds, and are cut off there",
            "calibrate with more or other samples: raise representative",
        ),
        (
            LOST | {"range_needed": 0.02},
            "range",
            "CONV_2D of layer 'a' needs 2 % of what its scale holds (0.02 a step): values far from all others set it",
            "look for outliers in the training data, or calibrate with others",
        ),
        (
            LOST | {"weight_dtype": "int8", "weight_ratio": 1234.0, "weight_snr_db": 40.0},
            "weights",
            "the weights of layer 'a' have channels that differ 1,234 times in size and share one scale",
            "use a scale per channel, or quantize: qat",
        ),
        (
            LOST | {"op": "MUL", "weight_dtype": "int8", "weight_ratio": 1234.0},
            "weights",
            "the weights of layer 'a' have channels that differ 1,234 times",
            "keep it in float: keep_float: [a]",
        ),
        (
            LOST
            | {
                "dtype": "float32",
                "scale": None,
                "weight_dtype": "int4",
                "weight_snr_db": 12.6,
                "rounding_noise": None,
            },
            "weights",
            "the weights of layer 'a' keep 13 dB in int4",
            "give it 8 bits: layers: {a: int8}",
        ),
        (
            LOST | {"op": "DEPTHWISE_CONV_2D"},
            "resolution",
            "DEPTHWISE_CONV_2D of layer 'a' adds noise of 50 % of what varies in it (3 dB are left): "
            "8 bits are too coarse for its values",
            "try layers: {a: int16x8}, or keep_float: [a]",
        ),
        (
            LOST | {"dtype": "int16", "range_needed": 0.8},
            "resolution",
            "adds noise of 50 % of what varies in it (3 dB are left): 16 bits are too coarse",
            "try keep_float: [a]",
        ),
    ],
    ids=[
        "channels",
        "an input",
        "saturation",
        "outliers",
        "a scale for all channels",
        "a constant",
        "int4",
        "resolution",
        "resolution of 16 bits",
    ],
)
def test_every_cause_is_told_with_its_numbers_and_what_to_try(known: Any, cause: str, message: str, advice: str):
    (found,) = find([layer("a", **known), layer("b", ("a",))])
    assert (found.layer, found.cause) == ("a", cause)
    assert message in found.message
    assert advice in found.advice


@pytest.mark.parametrize(
    "known",
    [
        CHANNELS | {"channels_op": "MUL"},
        LOST | {"op": "SOFTMAX", "range_needed": 0.02, "own_noise": 0.01},
        {"weight_dtype": "int8", "weight_ratio": 5000.0},
        {"saturation": 0.005, "varying_snr_db": 18.0},
        {"saturation": 0.034},
        {"range_needed": 0.02},
    ],
    ids=[
        "dead channels",
        "a scale that is fixed",
        "weights",
        "a few values cut off",
        "values cut off by little",
        "a wide scale",
    ],
)
def test_what_costs_nothing_is_not_told(known: Any):
    assert find([layer("a", **known), layer("b", ("a",))]) == ()


def test_a_layer_that_computes_in_float_is_not_to_blame():
    mean = layer(
        "a",
        op="MEAN",
        dtype="float32",
        scale=None,
        range_use=None,
        range_needed=None,
        **(LOST | {"rounding_noise": None}),
    )
    assert find([mean, layer("b", ("a",))]) == ()


def test_a_layer_that_only_lifts_what_it_was_given_is_not_to_blame():
    """A mean over an image takes what varies away, and keeps the noise: 16 bits round none of it."""
    mean = layer("a", op="MEAN", dtype="int16", **(LOST | {"rounding_noise": 1e-6, "weight_snr_db": 45.0}))
    assert find([mean, layer("b", ("a",))]) == ()


def test_a_layer_that_was_given_more_noise_than_it_adds_is_not_to_blame():
    found = explanation(
        "int8",
        64,
        [
            layer("a", **LOST),
            layer("b", ("a",), own_noise=0.3, rounding_noise=0.3, input_snr_db=3.0, varying_snr_db=1.0),
        ],
    )
    assert [one.layer for one in found.findings] == ["a"]
    assert found.causes == {"a": "resolution", "b": "inherited"}


def test_channels_that_are_lost_before_a_layer_are_told_with_it():
    """Columns side by side share a scale, and what they lost shows where they are brought to one size."""
    lost = {**CHANNELS, "channels_op": "CONCATENATION"}
    (found,) = find([layer("side", **lost), layer("normal", ("side",), **LOST), layer("out", ("normal",))])
    assert found.layer == "normal"
    assert found.message.startswith("CONCATENATION of layer 'side': 3 of 8 channels")
    assert found.keep_float == ("side", "normal")


def test_the_layer_that_adds_the_most_comes_first():
    layers = [
        layer("a", **LOST),
        layer("b", ("a",), **(LOST | {"own_noise": 9.0, "rounding_noise": 2.0})),
        layer("c", ("b",)),
    ]
    found = explanation("int8", 64, layers)
    assert [one.layer for one in found.findings] == ["b", "a"]
    assert [row[0] for row in rows(found)] == ["b", "a", "c"]
    assert [row[0] for row in rows(found, most=1)] == ["b"]
    assert "9 times of what varies" in found.findings[0].message


def test_noise_that_adds_up_is_nobodys_fault():
    layers = [layer("a", own_noise=0.03), layer("b", ("a",), own_noise=0.04, varying_snr_db=11.0)]
    (found,) = find(layers)
    assert "no single layer rounds too much" in found.message
    assert "11 dB are left in layer 'b'; the most is added in 'b' 4 %, 'a' 3 %" in found.message
    assert found.advice == "try int16x8, or quantize: qat"


def test_noise_that_adds_up_in_weights_of_4_bits_is_mended_by_some_of_8():
    known = {"dtype": "float32", "scale": None, "weight_dtype": "int4"}
    layers = [layer("a", own_noise=0.03, **known), layer("b", ("a",), own_noise=0.04, varying_snr_db=11.0, **known)]
    (found,) = find(layers)
    assert found.advice == "give some of them 8 bits: layers: {b: int8, a: int8}"


@pytest.mark.parametrize(
    ("known", "verdict"),
    [
        ({}, "nothing is wrong: of what varies in the answers 35 dB are left, and no layer adds more noise than 'a'"),
        (
            {"saturation": 0.02, "varying_snr_db": 18.0},
            "the answers hold, but layer 'b' could lose less: of what varies in the answers 18 dB are left",
        ),
        (LOST, "the answers are lost, the most in layer 'b': of what varies in the answers 3 dB are left"),
        (LOST | {"varying_snr_db": -2.0}, "of what varies in the answers nothing is left (-2 dB)"),
        ({"snr_db": None, "varying_snr_db": None}, "nothing can be said: no operator that gives the answers"),
    ],
    ids=["good", "good enough", "lost", "all lost", "not measured"],
)  # fmt: skip
def test_one_sentence_says_it_all(known: Any, verdict: str):
    found = explanation("int8", 64, [layer("a", own_noise=0.01), layer("b", ("a",), **known)])
    assert verdict in found.verdict


def test_a_layer_that_was_not_found_says_so():
    found = explanation("int8", 64, [LayerError("a", ("a",), (), "CONV_2D"), layer("b")])
    assert found.causes["a"] == "unknown"
    assert rows(found)[-1] == ["a", *["-"] * 7, "not found in the file"]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.0, "0 %"),
        (9e-6, "< 0.001 %"),
        (1e-5, "0.001 %"),
        (0.0324, "3.2 %"),
        (0.41, "41 %"),
        (1.5, "150 %"),
        (14.2, "14 times"),
    ],
)
def test_shares_have_two_digits(value: float, shown: str):
    assert share(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"), [(98239.4, "98,239"), (0.97254, "0.973"), (387.9, "388"), (-2000, "-2,000")]
)
def test_numbers_have_three_digits(value: float, shown: str):
    assert number(value) == shown

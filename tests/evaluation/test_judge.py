"""Limits against measurements: what is kept, what is broken, and on which side of the edge."""

import math
from dataclasses import replace

import numpy as np
import pytest

from mltool.evaluation.agreement import Agreement, compare
from mltool.evaluation.judge import Measurements, Tolerance, judge
from mltool.runs.input_schema import OutputInfo
from mltool.spec.limits import LimitsSpec

TOLERANCE = Tolerance(max_error=0.1, mean_error=0.02, same_answer=0.95)
AGREES = Agreement(1000, 0.01, 0.01, 0.001, 10.0, 1.0, has_nan=False, is_constant=False)
FOUND = Measurements("accuracy", False, True, 0.975, 0.98, 1000, 9_000, 2.0, {"out": AGREES})


def output_of(task, activation="values"):
    return OutputInfo("out", (2,), task, activation)


def broken(limits, found=FOUND, tolerance=TOLERANCE):
    checks = judge(LimitsSpec.model_validate({"max_drop": None, **limits}), tolerance, found)
    return [check.limit for check in checks if not check.kept]


def verdict(limits, found=FOUND):
    checks = judge(LimitsSpec.model_validate(limits), TOLERANCE, found)
    return next(check for check in checks if check.limit == "max_drop")


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        pytest.param({"min": 0.975}, [], id="min on the edge"),
        pytest.param({"min": 0.9751}, ["min"], id="min above"),
        pytest.param({"max": 0.975}, [], id="max on the edge"),
        pytest.param({"max": 0.97}, ["max"], id="max below"),
        pytest.param({"max_size": 9000}, [], id="size on the edge"),
        pytest.param({"max_size": 8999}, ["max_size"], id="a byte too large"),
        pytest.param({"max_p90_latency": 2.0}, [], id="latency on the edge"),
        pytest.param({"max_p90_latency": 1.999}, ["max_p90_latency"], id="too slow"),
        pytest.param({"max_drop": 0.005}, [], id="drop on the edge, where floats are a hair above"),
        pytest.param({"max_drop": 0.0049}, ["max_drop"], id="drop too large"),
        pytest.param({"max_drop": "0.52%"}, [], id="0.52 % of 0.98 is 0.0051"),
        pytest.param({"max_drop": "0.5%"}, ["max_drop"], id="0.5 % of 0.98 is 0.0049"),
        pytest.param({"min": 0.99, "max_size": 1}, ["min", "max_size"], id="every broken limit is told"),
    ],
)
def test_a_limit_is_kept_up_to_its_edge(limits, expected):
    assert broken(limits) == expected


@pytest.mark.parametrize(
    ("value", "reference", "drop", "kept"),
    [
        pytest.param(0.52, 0.50, 0.0201, True, id="a larger error within"),
        pytest.param(0.53, 0.50, 0.02, False, id="a larger error is a drop"),
        pytest.param(0.40, 0.50, 0.0, True, id="a smaller error is none"),
        pytest.param(0.506, 0.50, "1%", False, id="relative: 1 % of 0.5 is 0.005"),
        pytest.param(0.504, 0.50, "1%", True, id="relative within"),
    ],
)
def test_the_drop_of_an_error_is_how_much_it_grows(value, reference, drop, kept):
    found = replace(
        FOUND, metric="distance", lower_is_better=True, counts_samples=False, value=value, reference=reference
    )
    assert verdict({"max_drop": drop}, found).kept is kept


@pytest.mark.parametrize(("value", "kept"), [(-2.0, True), (-2.01, True), (-2.03, False)])
def test_a_relative_drop_of_a_negative_reference_is_a_share_of_its_size(value, kept):
    found = replace(FOUND, metric="r2_score", counts_samples=False, value=value, reference=-2.0)
    assert verdict({"max_drop": "1%"}, found).kept is kept


@pytest.mark.parametrize(
    ("wrong", "kept"),
    [pytest.param(1, True, id="one"), pytest.param(2, True, id="two"), pytest.param(3, False, id="three")],
)
def test_a_change_of_at_most_two_samples_never_breaks_max_drop_and_the_verdict_says_what_one_is_worth(wrong, kept):
    found = replace(FOUND, value=(330 - wrong) / 359, reference=330 / 359, samples=359)
    check = verdict({"max_drop": 0}, found)
    assert check.kept is kept
    assert "one sample is worth 0.0028" in check.message
    assert ("at most 2 samples of 359, which never break it" in check.message) is kept


def test_two_samples_do_count_for_a_metric_that_does_not_count_samples():
    found = replace(FOUND, metric="auc", counts_samples=False, value=0.978, samples=1000)
    assert not verdict({"max_drop": 0.001}, found).kept


def test_what_is_not_a_number_keeps_no_limit():
    found = replace(FOUND, value=math.nan)
    assert broken({"min": 0.1, "max": 1.0, "max_drop": 0.5}, found) == ["min", "max", "max_drop"]
    assert broken({"max_p90_latency": 5}, replace(FOUND, p90_latency_ms=None)) == ["max_p90_latency"]
    assert broken({}, replace(FOUND, agreements={"out": replace(AGREES, common_error=math.nan)})) == ["max_error"]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param({"common_error": 1.0}, [], id="max error on the edge of 10 % of 10"),
        pytest.param({"common_error": 1.01}, ["max_error"], id="max error"),
        pytest.param({"mean_error": 0.21}, ["mean_error"], id="mean error"),
        pytest.param({"same_answer": 0.95}, [], id="answers on the edge"),
        pytest.param({"same_answer": 0.949}, ["same_answer"], id="other answers"),
        pytest.param({"same_answer": 0.9, "samples": 20}, [], id="two other answers of few"),
        pytest.param({"same_answer": 0.85, "samples": 20}, ["same_answer"], id="three other answers of few"),
        pytest.param({"has_nan": True}, ["finite"], id="NaN"),
        pytest.param({"is_constant": True}, ["constant"], id="constant"),
        pytest.param(
            {"reference_range": 0.0, "common_error": 0.1, "mean_error": 0}, [], id="a reference without range"
        ),
    ],
)
def test_outputs_are_held_against_the_tolerance_of_the_scheme(changes, expected):
    assert broken({}, replace(FOUND, agreements={"out": replace(AGREES, **changes)})) == expected


def test_two_outputs_are_compared_by_hand():
    reference = np.float32([[0, 4], [2, 1], [3, 0], [-1, 1]])
    found = compare(reference, np.float32([[0, 3], [2, 3], [3, 0], [-1, 1]]), output_of("classification"))
    assert (found.samples, found.max_error, found.mean_error, found.reference_range) == (4, 2.0, 3 / 8, 5.0)
    assert (found.common_error, found.same_answer) == (2.0, 0.75)
    assert not found.has_nan
    assert not found.is_constant
    assert str(found) == "max error 2, mean error 0.375, same answer 0.7500 on 4 samples"


def test_one_outlier_of_a_thousand_is_not_common():
    reference = np.zeros((1000, 2), np.float32)
    outputs = reference.copy()
    outputs[3, 0], outputs[5, 1] = 9, 2
    found = compare(reference, outputs, output_of("regression"))
    assert (found.max_error, found.common_error) == (9.0, 2.0)
    assert compare(reference[:999], outputs[:999], output_of("regression")).common_error == 9.0


def test_binary_answers_are_the_same_on_the_same_side_of_the_threshold():
    reference, outputs = np.float32([[0.1], [0.4], [0.6], [0.9]]), np.float32([[0.2], [0.6], [0.7], [0.8]])
    assert compare(reference, outputs, output_of("binary", "probabilities")).same_answer == 0.75
    assert compare(reference, outputs, output_of("binary", "logits")).same_answer == 1.0
    assert compare(reference, outputs, output_of("regression")).same_answer is None


def test_nan_and_constant_outputs_are_noticed():
    reference = np.float32([[1, 2], [3, 4]])
    assert compare(reference, np.float32([[1, np.nan], [3, 4]]), output_of("regression")).has_nan
    assert compare(reference, np.float32([[1, np.inf], [3, 4]]), output_of("regression")).has_nan
    assert compare(reference, np.float32([[1, 2], [1, 2]]), output_of("regression")).is_constant
    constant = np.float32([[1, 2], [1, 2]])
    assert not compare(constant, constant, output_of("regression")).is_constant
    assert not compare(reference[:1], reference[:1], output_of("regression")).is_constant


def test_a_tolerance_is_told_in_percent_as_the_error_is():
    checks = {check.limit: check.message for check in judge(LimitsSpec(), TOLERANCE, FOUND)}
    assert checks["max_error"] == "0.10% of the output range, at most 10%"
    assert checks["mean_error"] == "0.01% of the output range, at most 2%"


@pytest.mark.parametrize(
    ("wrong", "kept"), [pytest.param(2, True, id="two pixels"), pytest.param(60, False, id="a tenth of them")]
)
def test_two_answers_never_count_and_of_masks_every_pixel_is_an_answer(wrong, kept):
    """Twenty masks of 30 pixels: two samples would be a tenth of them."""
    reference = np.zeros((20, 5, 6, 2))
    reference[..., 0] = 1
    outputs = reference.copy()
    outputs.reshape(-1, 2)[:wrong] = [0.99, 1]
    found = compare(reference, outputs, output_of("segmentation"))
    assert (found.samples, found.answers_a_sample) == (20, 30)
    tolerance = Tolerance(max_error=2, mean_error=2, same_answer=0.999)
    assert ("same_answer" not in broken({}, replace(FOUND, agreements={"out": found}), tolerance)) == kept


def test_of_pixels_two_are_free_and_not_the_share_of_two_samples():
    """2 % of the answers: of 100 samples two, of their 6,400 pixels 128."""
    strict = replace(TOLERANCE, same_answer=0.99)
    differs = replace(AGREES, samples=100, same_answer=0.98)
    assert broken({}, replace(FOUND, agreements={"out": differs}), strict) == []
    pixels = replace(differs, answers_a_sample=64)
    assert broken({}, replace(FOUND, agreements={"out": pixels}), strict) == ["same_answer"]

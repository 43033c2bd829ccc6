"""Sums over samples: every ratio and share against values worked out by hand."""

import math

import numpy as np
import pytest

from mltool.conversion.explain.statistics import LEAST_SNR, MOST_SNR, Statistics, dequantized, snr_db


def added(wanted, codes, dtype="int8", scale=1.0, zero_point=0):
    found = Statistics(dtype, scale, zero_point)
    for x, q in zip(np.asarray(wanted, np.float32), np.asarray(codes), strict=True):
        found.add(x[None], q[None])
    return found


def test_the_ratio_of_signal_to_noise_is_that_of_its_formula():
    found = added([[3.0], [4.0]], [[3], [5]])
    assert found.snr_db == pytest.approx(10 * math.log10(25 / 1))
    # Of what varies: the mean is 3.5, so the signal is 2 * 0.25.
    assert found.varying_snr_db == pytest.approx(10 * math.log10(0.5 / 1))
    assert (found.mean_error, found.max_error) == (0.5, 1.0)  # the range is 1, the errors are 0 and 1


def test_the_mean_that_is_taken_off_is_that_of_every_channel():
    found = added([[100.0, 1.0], [102.0, 3.0]], [[100, 1], [102, 4]])
    assert found.varying_snr_db == pytest.approx(10 * math.log10(4 / 1))
    assert found.snr_db == pytest.approx(10 * math.log10((100**2 + 102**2 + 1 + 9) / 1))


@pytest.mark.parametrize(
    ("signal", "noise", "expected"),
    [(4.0, 0.0, MOST_SNR), (0.0, 4.0, LEAST_SNR), (0.0, 0.0, MOST_SNR), (100.0, 1.0, 20.0), (1.0, 2.0, -3.0103)],
    ids=["no noise", "no signal", "nothing", "20 dB", "more noise than signal"],
)
def test_a_ratio_has_ends(signal, noise, expected):
    assert snr_db(signal, noise) == pytest.approx(expected, abs=1e-4)


def test_what_does_not_vary_has_the_ratio_of_its_size():
    found = added([[0.1], [0.1], [0.1]], [[1], [1], [1]], scale=0.11)
    assert found.varying_snr_db == found.snr_db == pytest.approx(20.0, abs=0.01)


def test_range_use_counts_codes_and_range_needed_the_float_values():
    found = added([[0.0, 10.0], [5.0, 51.0]], [[-128, -108], [-118, -77]], scale=0.5, zero_point=-128)
    assert found.range_use == pytest.approx(51 / 255)
    assert found.range_needed == pytest.approx(51 / (255 * 0.5))


def test_values_beyond_the_scale_are_cut_off_and_those_at_its_edge_are_not():
    # Holds 0 to 127.5; half a step beyond is what rounding takes.
    wanted = [[0.0, 127.5, 127.7, 128.0], [-0.2, -0.3, 5.0, 200.0]]
    codes = [[-128, 127, 127, 127], [-128, -128, -118, 127]]
    assert added(wanted, codes, scale=0.5, zero_point=-128).saturation == 3 / 8


def test_a_relu_that_rests_at_zero_is_not_saturated():
    assert added(np.zeros((4, 3)), np.full((4, 3), -128), zero_point=-128).saturation == 0


def test_channels_that_vary_by_fewer_than_four_steps_are_dead_and_constants_are_none():
    found = added([[0.0, 0.0, 7.0, 0.0], [10.0, 3.0, 7.0, 4.0]], np.zeros((2, 4), int))
    assert found.channel_ranges.tolist() == [10, 3, 4]
    assert found.dead_channels == 1


@pytest.mark.parametrize(
    ("dtype", "scale", "wanted"), [("float32", None, [[0.0, 1e-3], [1.0, 1e-3]]), ("int8", 1.0, [[0.0], [0.1]])]
)
def test_float_values_and_single_channels_have_no_dead_ones(dtype, scale, wanted):
    found = Statistics(dtype, scale)
    found.add(np.asarray(wanted), np.zeros_like(wanted))
    assert found.dead_channels == 0


def test_values_that_are_not_finite_are_left_out():
    found = Statistics("float32")
    found.add(np.array([[1.0, -np.inf, 2.0]]), np.array([[1.5, 3.0, np.nan]]))
    assert (found.signal, found.noise, found.count) == (1.0, 0.25, 1)


def test_a_scale_per_channel_goes_along_its_axis():
    codes = np.array([[1, 2], [3, 4]], np.int8)
    assert dequantized(codes, (0.5, 2.0), (0, 1), 0).tolist() == [[0.5, 1.0], [4.0, 6.0]]
    assert dequantized(codes, (0.5, 2.0), (0, 1), 1).tolist() == [[0.5, 2.0], [1.5, 6.0]]
    assert dequantized(codes, (0.5,), (1,)).tolist() == [[0.0, 0.5], [1.0, 1.5]]


def test_the_noise_of_rounding_is_a_twelfth_of_the_square_of_a_step():
    found = added([[0.0], [4.0]], [[0], [4]], scale=1.0)
    assert found.rounding_noise == pytest.approx(1 / 12 * 2 / 8)  # of what varies: twice 2 squared
    assert Statistics("float32").rounding_noise is None
    assert added([[3.0], [3.0]], [[3], [3]]).rounding_noise is None

"""How far quantized values are from the float ones that they stand for: sums over samples, and what follows from them.

Sums alone are kept, sample by sample: all the tensors of a network for 128 samples would fill the memory.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

LEAST_SNR, MOST_SNR = -100.0, 200.0
"""Ends of the scale in dB; float32 itself holds about 150, so 200 says that there is no difference."""

LIVE_STEPS = 4.0
"""A channel that varies by fewer steps of its scale than this has less than 2 bits left, and counts as dead."""

_VARIES = 1e-6
"""Share of its greatest value by which a channel must vary to be no constant: float32 rounds at 6e-8."""

CODES = {"int8": (-128, 127), "uint8": (0, 255), "int16": (-32768, 32767), "int4": (-8, 7)}
"""Least and greatest code of every quantized type."""


def snr_db(signal: float, noise: float) -> float:
    """Signal to noise ratio in dB, 10 log10(signal / noise), held between -100 and 200.

    The measure of Sheng et al., "A Quantization-Friendly Separable Convolution for MobileNets", 2018
    (arXiv:1803.08607), section 2, where `signal` is the sum of squares of the float values and `noise` that of the
    differences.
    """
    if noise <= 0:
        return MOST_SNR
    if signal <= 0:
        return LEAST_SNR
    return float(np.clip(10 * math.log10(signal / noise), LEAST_SNR, MOST_SNR))


def noise_share(snr: float) -> float:
    """Noise over signal power of a ratio in dB; 0 at the upper end."""
    return 0.0 if snr >= MOST_SNR else float(10 ** (-snr / 10))


def dequantized(codes: Array, scales: Sequence[float], zero_points: Sequence[int], axis: int | None = None) -> Array:
    """Real values, scale * (code - zero_point) (LiteRT 8-bit quantization specification); float32.

    Args:
        codes: integers.
        scales: one, or one per entry of `axis`; none for values that are float already.
        zero_points: as many.
        axis: along which scales run, where there are several.
    """
    if not scales:
        return codes.astype(np.float32)
    shape = [1] * codes.ndim
    if axis is not None and len(scales) > 1:
        shape[axis] = len(scales)
    scale = np.asarray(scales, np.float32).reshape(shape)
    return (codes.astype(np.float32) - np.asarray(zero_points, np.float32).reshape(shape)) * scale


@dataclass
class Statistics:
    """Sums over all that was added of one tensor.

    Attributes:
        dtype: of the quantized tensor.
        scale: of it; None where it is float.
        zero_point: of it.
    """

    dtype: str
    scale: float | None = None
    zero_point: int = 0
    signal: float = 0.0
    noise: float = 0.0
    absolute: float = 0.0
    largest: float = 0.0
    count: int = 0
    cut_off: int = 0
    codes: tuple[int, int] | None = None
    _rows: int = 0
    _low: Array | None = field(default=None, repr=False)
    _high: Array | None = field(default=None, repr=False)
    _sums: Array | None = field(default=None, repr=False)

    def add(self, wanted: Array, got: Array) -> None:
        """Adds the values of one call.

        Args:
            wanted: of the float file, `[..., channels]`; values that are not finite are left out.
            got: of the quantized file, as they are stored, of the same size.
        """
        wanted = np.atleast_1d(wanted).astype(np.float64)
        wanted = wanted.reshape(-1, wanted.shape[-1])
        stored = got.reshape(wanted.shape)
        values = stored.astype(np.float64)
        if self.scale is not None:
            values = (values - self.zero_point) * self.scale
            self._add_codes(wanted, stored)
        finite = np.isfinite(wanted) & np.isfinite(values)
        wanted, values = np.where(finite, wanted, 0.0), np.where(finite, values, 0.0)
        errors = np.abs(values - wanted)
        self.signal += float(np.square(wanted).sum())
        self.noise += float(np.square(errors).sum())
        self.absolute += float(errors.sum())
        self.largest = max(self.largest, float(errors.max(initial=0.0)))
        self.count += int(finite.sum())
        low, high = wanted.min(axis=0), wanted.max(axis=0)
        self._low = low if self._low is None else np.minimum(self._low, low)
        self._high = high if self._high is None else np.maximum(self._high, high)
        sums = wanted.sum(axis=0)
        self._sums = sums if self._sums is None else self._sums + sums
        self._rows += len(wanted)

    def _add_codes(self, wanted: Array, stored: Array) -> None:
        least, greatest = int(stored.min()), int(stored.max())
        if self.codes is not None:
            least, greatest = min(least, self.codes[0]), max(greatest, self.codes[1])
        self.codes = least, greatest
        # An edge code alone says nothing: it is where a ReLU ends. Half a step is what rounding takes there.
        scale, (first, last) = self.scale or 1.0, CODES[self.dtype]
        least_value, greatest_value = ((code - self.zero_point) * scale for code in (first, last))
        outside = (wanted < least_value - 0.5 * scale) | (wanted > greatest_value + 0.5 * scale)
        self.cut_off += int(outside.sum())

    @property
    def snr_db(self) -> float:
        """See the function of this name."""
        return snr_db(self.signal, self.noise)

    @property
    def varying_snr_db(self) -> float:
        """As `snr_db`, but of what varies: the mean of every channel is no signal.

        A temperature of 290 K that varies by 5 keeps 59 dB in int8, and 24 dB of what it tells. Where nothing varies
        it is `snr_db`.
        """
        return snr_db(self._varying or self.signal, self.noise)

    @property
    def _varying(self) -> float:
        """Sum of squares without the mean of every channel; 0 where nothing varies."""
        if self._sums is None:
            return 0.0
        varying = self.signal - float(np.square(self._sums).sum()) / self._rows
        # float64 leaves a share of 1e-16 of the square of a constant.
        return varying if varying > 1e-12 * self.signal else 0.0

    @property
    def rounding_noise(self) -> float | None:
        """Noise of rounding to the scale, as a share of what varies: scale^2 / 12 for every value.

        Widrow, Kollar, "Quantization Noise", 2008, chapter 4: an error that is uniform over a step. None where there is
        no scale, or nothing varies.
        """
        if self.scale is None or not self._varying:
            return None
        return self.scale**2 / 12 * self.count / self._varying

    @property
    def range_needed(self) -> float | None:
        """Range of the float values as a share of what the scale can hold; None where there is no scale."""
        if self.scale is None:
            return None
        first, last = CODES[self.dtype]
        return self.span / (self.scale * (last - first))

    @property
    def span(self) -> float:
        """Maximum minus minimum of the float values; where they do not vary their size, and 1 of zeros."""
        if self._low is None or self._high is None:
            return 1.0
        low, high = float(self._low.min()), float(self._high.max())
        return high - low or max(abs(low), abs(high)) or 1.0

    @property
    def mean_error(self) -> float:
        """Mean absolute error as a share of `span`."""
        return self.absolute / max(self.count, 1) / self.span

    @property
    def max_error(self) -> float:
        """Largest absolute error as a share of `span`."""
        return self.largest / self.span

    @property
    def range_use(self) -> float | None:
        """Share of the codes of the type that lie between the least and the greatest that occurred."""
        if self.codes is None:
            return None
        first, last = CODES[self.dtype]
        return (self.codes[1] - self.codes[0]) / (last - first)

    @property
    def saturation(self) -> float:
        """Share of values whose float value the scale cannot hold."""
        return self.cut_off / max(self.count, 1)

    @property
    def channel_ranges(self) -> Array:
        """Maximum minus minimum of the float values of every channel that varies; float64."""
        if self._low is None or self._high is None:
            return np.empty(0)
        ranges = self._high - self._low
        sizes = np.maximum(np.abs(self._low), np.abs(self._high))
        found: Array = ranges[ranges > _VARIES * sizes]
        return found

    @property
    def dead_channels(self) -> int:
        """How many channels vary by less than `LIVE_STEPS` of the scale; 0 of float and of a single channel."""
        if self.scale is None or self._low is None or len(self._low) < 2:
            return 0
        return int((self.channel_ranges < LIVE_STEPS * self.scale).sum())

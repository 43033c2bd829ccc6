"""Blocks that turn raw sound into pictures of it: the log-mel spectrogram, and its cepstral coefficients.

The numbers are those of librosa 0.11: `melspectrogram(center=False, htk=True, norm=None, power=2)`.
"""

import math
from typing import Any

import numpy as np

from mltool import extras
from mltool.spec.blocks import MAX_FFT_LENGTH, MIN_WINDOW

Array = np.ndarray[Any, Any]


class LogMel:
    """Logarithm of the energy in bands of the mel scale: [samples] or [samples, 1] to [frames, num_mel_bins, 1].

    A frame is `fft_length` samples under a window; there are 1 + (samples - fft_length) // sequence_stride. The energy
    of band b is sum_k W[b, k] |X[k]|^2, with X the discrete Fourier transform of the windowed frame and W the
    triangles of `mel_filters`; the output is ln(energy + log_offset).

    Args:
        fft_length: a power of two, as LiteRT's FFT needs.
        sequence_length: of the window, in the middle of the frame; fft_length when None.
        sequence_stride: samples from one frame to the next; half of the window when None.
        num_mel_bins: bands.
        min_freq: where the first band begins, in Hz.
        max_freq: where the last band ends, in Hz; half of the sample rate when None.
        log_offset: keeps the logarithm of silence finite.
        window: `hann` or `hamming`.
        sample_rate: of the sound, per second.

    Raises:
        ValueError: if the arguments do not fit one another.
    """

    def __init__(
        self,
        *,
        fft_length: int,
        sequence_length: int | None = None,
        sequence_stride: int | None = None,
        num_mel_bins: int = 40,
        min_freq: float = 0.0,
        max_freq: float | None = None,
        log_offset: float = 1e-6,
        window: str = "hann",
        sample_rate: int | None = None,
    ) -> None:
        if sample_rate is None:
            raise ValueError("the data tell no sample rate: write sample_rate, such as 16000")
        if fft_length & (fft_length - 1):
            near = 1 << fft_length.bit_length()
            raise ValueError(
                f"fft_length must be a power of two (got {fft_length}): "
                f"write fft_length: {near}, sequence_length: {fft_length}"
            )
        if fft_length > MAX_FFT_LENGTH:
            raise ValueError(f"fft_length ({fft_length}) is more than {MAX_FFT_LENGTH}")
        self.fft_length = fft_length
        self.sequence_length = sequence_length or fft_length
        self.sequence_stride = sequence_stride or max(1, self.sequence_length // 2)
        if self.sequence_length > fft_length:
            raise ValueError(f"sequence_length ({sequence_length}) is more than fft_length ({fft_length})")
        if self.sequence_length < MIN_WINDOW:
            raise ValueError(f"sequence_length ({sequence_length}) is less than {MIN_WINDOW}: no window is so short")
        self.window, self.log_offset = window, log_offset
        self.num_mel_bins, self.sample_rate = num_mel_bins, sample_rate
        self.min_freq, self.max_freq = min_freq, sample_rate / 2 if max_freq is None else max_freq
        self._filters = mel_filters(sample_rate, fft_length, num_mel_bins, self.min_freq, self.max_freq)

    def arguments(self) -> dict[str, Any]:
        """All arguments, with what was left out filled in."""
        names = ("fft_length", "sequence_length", "sequence_stride", "num_mel_bins", "min_freq", "max_freq")
        return {name: getattr(self, name) for name in (*names, "log_offset", "window", "sample_rate")}

    def graph(self, inputs: Any) -> Any:
        """See `Block`.

        Raises:
            ValueError: if the inputs are no sound, or shorter than a frame.
        """
        ops = extras.keras().ops
        return ops.expand_dims(ops.transpose(self._bands(inputs), (0, 2, 1)), -1)

    def _bands(self, inputs: Any) -> Any:
        """[batch, num_mel_bins, frames]."""
        ops = extras.keras().ops
        shape = tuple(inputs.shape[1:])
        if len(shape) != 1 and (len(shape) != 2 or shape[1] != 1):
            raise ValueError(f"it takes sound, [samples] or [samples, 1] (got {list(shape)})")
        if shape[0] < self.fft_length:
            raise ValueError(f"{shape[0]} samples are less than one frame (fft_length: {self.fft_length})")
        frames = self._frames(inputs, shape[0]) * window_of(self.window, self.sequence_length, self.fft_length)
        real, imaginary = ops.rfft(frames, self.fft_length)
        power = ops.square(real) + ops.square(imaginary)
        # The filters come first: a constant on the right would become a fully connected layer, whose weights and
        # inputs `dynamic` quantizes. Measured on noise and silence: outputs were off by 0.3 then, and by 1e-6 so.
        energy = ops.matmul(self._filters, ops.transpose(power, (0, 2, 1)))
        return ops.log(energy + self.log_offset)

    def _frames(self, sound: Any, length: int) -> Any:
        """[batch, frames, fft_length]: pieces as long as frame and stride allow, of which each frame takes its own.

        `keras.ops.stft` cuts off what fills no piece, and a cut right behind the input of an int8 file is quantized,
        float or not: the sound would have 8 bits. Silence is put behind it instead, which no frame reaches.
        """
        ops = extras.keras().ops
        piece = math.gcd(self.fft_length, self.sequence_stride)
        pieces = -(-length // piece)
        sound = ops.reshape(sound, (-1, length))
        if pieces * piece > length:
            sound = ops.pad(sound, ((0, 0), (0, pieces * piece - length)))
        count = 1 + (length - self.fft_length) // self.sequence_stride
        first = np.arange(count)[:, np.newaxis] * (self.sequence_stride // piece)
        taken = (first + np.arange(self.fft_length // piece)).astype(np.int32)
        frames = ops.take(ops.reshape(sound, (-1, pieces, piece)), taken, axis=1)
        return ops.reshape(frames, (-1, count, self.fft_length))


class MFCC(LogMel):
    """Mel-frequency cepstral coefficients: [samples] or [samples, 1] to [frames, num_mfcc, 1].

    The first coefficients of the orthonormal discrete cosine transform (DCT-II) of `LogMel` over its bands, after Davis
    and Mermelstein, "Comparison of parametric representations for monosyllabic word recognition in continuously spoken
    sentences", IEEE Trans. ASSP 28(4), 1980. The logarithm is natural and there is no lifter.

    Args:
        num_mfcc: coefficients, at most num_mel_bins.
        more: arguments of `LogMel`.

    Raises:
        ValueError: if the arguments do not fit one another.
    """

    def __init__(self, *, num_mfcc: int = 13, **more: Any) -> None:
        super().__init__(**more)
        if num_mfcc > self.num_mel_bins:
            raise ValueError(f"num_mfcc ({num_mfcc}) is more than num_mel_bins ({self.num_mel_bins})")
        self.num_mfcc = num_mfcc

    def arguments(self) -> dict[str, Any]:
        """See `LogMel`."""
        return {"num_mfcc": self.num_mfcc, **super().arguments()}

    def _bands(self, inputs: Any) -> Any:
        """[batch, num_mfcc, frames]."""
        return extras.keras().ops.matmul(dct_matrix(self.num_mfcc, self.num_mel_bins), super()._bands(inputs))


def window_of(name: str, length: int, fft_length: int) -> Array:
    """A periodic window, with zeros on both sides: a - (1 - a) cos(2 pi n / length), a = 0.5 (Hann), 0.54 (Hamming).

    Harris, "On the use of windows for harmonic analysis with the discrete Fourier transform", Proc. IEEE 66(1), 1978.

    Args:
        name: `hann` or `hamming`.
        length: of the window.
        fft_length: with the zeros.

    Returns:
        float32 [fft_length].
    """
    share = {"hann": 0.5, "hamming": 0.54}[name]
    window = share - (1 - share) * np.cos(2 * np.pi * np.arange(length) / length)
    before = (fft_length - length) // 2
    return np.pad(window, (before, fft_length - length - before)).astype(np.float32)


def mel_filters(sample_rate: int, fft_length: int, num_mel_bins: int, min_freq: float, max_freq: float) -> Array:
    """Triangles over the bins of a Fourier transform, evenly spaced on the mel scale, each 1 at its peak.

    mel(f) = 2595 log10(1 + f / 700), with f in Hz: O'Shaughnessy, "Speech Communication: Human and Machine", 1987.

    Args:
        sample_rate: per second.
        fft_length: of the transform.
        num_mel_bins: triangles.
        min_freq: where the first begins, in Hz.
        max_freq: where the last ends, in Hz.

    Returns:
        float32 [num_mel_bins, fft_length // 2 + 1].

    Raises:
        ValueError: if the range is empty or beyond half of the rate, or a triangle is so narrow that it covers no bin.
    """
    if not 0 <= min_freq < max_freq <= sample_rate / 2:
        text = f"min_freq ({min_freq:g}) and max_freq ({max_freq:g}) must ascend from 0 to half of the sample rate"
        raise ValueError(f"{text} ({sample_rate / 2:g})")
    low, high = (2595 * np.log10(1 + edge / 700) for edge in (min_freq, max_freq))
    edges = 700 * (10 ** (np.linspace(low, high, num_mel_bins + 2) / 2595) - 1)
    bins = np.linspace(0, sample_rate / 2, fft_length // 2 + 1)
    left, middle, right = (edges[start : start + num_mel_bins, np.newaxis] for start in range(3))
    filters = np.minimum((bins - left) / (middle - left), (right - bins) / (right - middle)).clip(min=0)
    empty = int((filters.sum(axis=1) == 0).sum())
    if empty:
        raise ValueError(
            f"{empty} of {num_mel_bins} mel bands are narrower than a bin of the FFT "
            f"({sample_rate / fft_length:g} Hz): "
            "take fewer num_mel_bins, or a longer fft_length"
        )
    return filters.astype(np.float32)


def dct_matrix(count: int, length: int) -> Array:
    """The first rows of the orthonormal DCT-II, after Ahmed, Natarajan and Rao, "Discrete cosine transform", 1974.

    Row k holds s[k] cos(pi k (2n + 1) / 2N), with s[0] = sqrt(1 / N) and s[k] = sqrt(2 / N).

    Args:
        count: rows.
        length: N, of what is transformed.

    Returns:
        float32 [count, length].
    """
    k, n = np.arange(count)[:, np.newaxis], np.arange(length)
    scale = np.where(k == 0, np.sqrt(1 / length), np.sqrt(2 / length))
    angles = np.pi * k * (2 * n + 1) / (2 * length)
    return np.asarray(scale * np.cos(angles), dtype=np.float32)

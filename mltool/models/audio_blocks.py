"""Blocks of audio: from a waveform to the logarithm of its mel spectrogram, and to cepstral coefficients.

Built of a convolution, products and a logarithm with fixed weights, so that LiteRT runs them with builtin operators and
microcontrollers without a Fourier transform of their own.
"""

from typing import Any

import numpy as np

from mltool import extras
from mltool.errors import Message, SpecError

Array = np.ndarray[Any, Any]


def mel_matrix(num_mel_bins: int, fft_length: int, sample_rate: int, low: float, high: float) -> Array:
    """Weights from linear frequencies to mel bands: triangles of height 1 that are linear in mel.

    mel = 1127 ln(1 + f / 700) (O'Shaughnessy, "Speech Communication", 1987; as in HTK); the bands as in TensorFlow's
    `tf.signal.linear_to_mel_weight_matrix`, the zero frequency left out.

    Args:
        num_mel_bins: bands.
        fft_length: samples of a transform.
        sample_rate: per second.
        low: lower edge of the first band, in hertz.
        high: upper edge of the last band, in hertz.

    Returns:
        float32 [fft_length // 2 + 1, num_mel_bins].
    """

    def mel(frequency: Any) -> Any:
        return 1127.0 * np.log1p(np.asarray(frequency, np.float64) / 700.0)

    frequencies = mel(np.linspace(0.0, sample_rate / 2, fft_length // 2 + 1)[1:])[:, np.newaxis]
    edges = np.linspace(mel(low), mel(high), num_mel_bins + 2)
    lower, center, upper = edges[:-2], edges[1:-1], edges[2:]
    rising, falling = (frequencies - lower) / (center - lower), (upper - frequencies) / (upper - center)
    weights: Array = np.pad(np.maximum(0.0, np.minimum(rising, falling)), ((1, 0), (0, 0)))
    return weights.astype(np.float32)


def fourier_kernel(sequence_length: int, fft_length: int) -> Array:
    """The real and the imaginary part of a windowed discrete Fourier transform, as the kernel of a convolution.

    Window: Hann, periodic (Harris, "On the use of windows for harmonic analysis", Proc. IEEE 66, 1978).

    Returns:
        float32 [sequence_length, 1, 2 * (fft_length // 2 + 1)]: real parts first.
    """
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(sequence_length) / sequence_length)
    angles = 2 * np.pi * np.outer(np.arange(sequence_length), np.arange(fft_length // 2 + 1)) / fft_length
    kernel: Array = np.concatenate([np.cos(angles), -np.sin(angles)], axis=1) * window[:, np.newaxis]
    return kernel[:, np.newaxis, :].astype(np.float32)


def dct_matrix(num_mel_bins: int, num_mfcc: int) -> Array:
    """The orthonormal discrete cosine transform of type II (Ahmed, Natarajan, Rao, IEEE Trans. Computers C-23, 1974).

    Returns:
        float32 [num_mel_bins, num_mfcc].
    """
    places = np.pi * (np.arange(num_mel_bins)[:, np.newaxis] + 0.5) * np.arange(num_mfcc) / num_mel_bins
    matrix: Array = np.cos(places) * np.sqrt(2.0 / num_mel_bins)
    matrix[:, 0] /= np.sqrt(2.0)
    return matrix.astype(np.float32)


class LogMel:
    """ln(mel power spectrogram + offset) of a waveform.

    Args:
        fft_length: samples of a transform.
        sequence_length: samples of a frame; fft_length when None; shorter ones are padded with zeros.
        sequence_stride: samples from one frame to the next.
        num_mel_bins: bands.
        min_freq: lower edge of the first band, in hertz.
        max_freq: upper edge of the last band, in hertz; half of the sample rate when None.
        offset: added to the power, so that silence has a logarithm.
        sample_rate: of the waveform; that of the data when None.

    Raises:
        SpecError: if the sample rate is not known, or the numbers do not fit together.
    """

    def __init__(
        self,
        *,
        fft_length: int = 256,
        sequence_length: int | None = None,
        sequence_stride: int = 128,
        num_mel_bins: int = 40,
        min_freq: float = 20.0,
        max_freq: float | None = None,
        offset: float = 1e-6,
        sample_rate: int | None = None,
    ) -> None:
        if sample_rate is None:
            raise SpecError(
                Message("the sample rate of the data is not known", "set sample_rate: 16000, or what it is")
            )
        self.frame = sequence_length or fft_length
        top = max_freq or sample_rate / 2
        if self.frame > fft_length:
            message = f"sequence_length {self.frame} is longer than fft_length {fft_length}"
            raise SpecError(Message(message, "make fft_length the next power of two"))
        if not 0 <= min_freq < top <= sample_rate / 2:
            message = f"the bands go from {min_freq:g} to {top:g} Hz, the sample rate is {sample_rate}"
            raise SpecError(Message(message, "max_freq is at most half of the sample rate"))
        self._stride, self._offset = sequence_stride, offset
        self._kernel = fourier_kernel(self.frame, fft_length)
        self._mel = mel_matrix(num_mel_bins, fft_length, sample_rate, min_freq, top)

    def graph(self, inputs: Any) -> Any:
        """float32 [samples, time] to [samples, frames, bands, 1]; frames lie within the waveform, none is padded.

        Raises:
            SpecError: if the waveform is shorter than a frame.
        """
        bands = self.bands(inputs)
        return extras.keras().ops.expand_dims(bands, -1)

    def bands(self, inputs: Any) -> Any:
        """float32 [samples, time] to [samples, frames, bands]."""
        keras = extras.keras()
        if len(inputs.shape) != 2 or inputs.shape[1] < self.frame:
            message = f"takes waveforms of {self.frame} samples or more, [samples, time] (got {tuple(inputs.shape)})"
            raise SpecError(Message(message, "make data.source.seconds longer, or the frames shorter"))
        bins = self._mel.shape[0]
        fourier = keras.layers.Conv1D(
            2 * bins, self.frame, strides=self._stride, use_bias=False, trainable=False, name="fourier"
        )
        parts = fourier(keras.ops.expand_dims(inputs, -1))
        fourier.set_weights([self._kernel])
        power = keras.ops.square(parts[..., :bins]) + keras.ops.square(parts[..., bins:])
        return keras.ops.log(_fixed(self._mel, "mel")(power) + self._offset)


class MFCC(LogMel):
    """Mel-frequency cepstral coefficients: the cosine transform of LogMel (Davis, Mermelstein, IEEE ASSP-28, 1980).

    Args:
        num_mfcc: coefficients, the first of which is the mean.
        log_mel: arguments of LogMel.
    """

    def __init__(self, num_mfcc: int = 13, **log_mel: Any) -> None:
        super().__init__(**log_mel)
        bands = self._mel.shape[1]
        if num_mfcc > bands:
            raise SpecError(Message(f"num_mfcc {num_mfcc} is more than the {bands} bands", "raise num_mel_bins"))
        self._cosines = dct_matrix(bands, num_mfcc)

    def graph(self, inputs: Any) -> Any:
        """float32 [samples, time] to [samples, frames, coefficients, 1]."""
        return extras.keras().ops.expand_dims(_fixed(self._cosines, "cosines")(self.bands(inputs)), -1)


def _fixed(matrix: Array, name: str) -> Any:
    """A product with a matrix that does not learn."""
    keras = extras.keras()
    layer = keras.layers.Dense(matrix.shape[1], use_bias=False, trainable=False, name=name)

    def product(tensor: Any) -> Any:
        found = layer(tensor)
        layer.set_weights([matrix])
        return found

    return product

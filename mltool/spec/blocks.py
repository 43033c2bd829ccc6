"""Blocks of ours among the layers: preprocessing that Keras has no layer for, built of Keras' own operations.

Each is a plain Keras graph in the model, so that every artifact holds it and plain Keras loads it. The form is that of
`catalogue.json`; `models/blocks.py` builds them, and a test holds the two tables equal.
"""

from typing import Any, Final

_LOG_MEL: Final[dict[str, list[Any]]] = {
    "fft_length": ["int>0", 256],
    "sequence_length": ["int>0|null", None],
    "sequence_stride": ["int>0", 128],
    "num_mel_bins": ["int>0", 40],
    "min_freq": ["number>=0", 20.0],
    "max_freq": ["number>0|null", None],
    "offset": ["number>0", 1e-6],
    "sample_rate": ["int>0|null", None],
    "name": ["name|null", None],
}
_LOG_MEL_DOCS: Final[dict[str, str]] = {
    "fft_length": "Samples of a Fourier transform.",
    "sequence_length": "Samples of a frame; fft_length when left out.",
    "sequence_stride": "Samples from one frame to the next.",
    "num_mel_bins": "Mel bands.",
    "min_freq": "Lower edge of the first band, in hertz.",
    "max_freq": "Upper edge of the last band, in hertz; half of the sample rate when left out.",
    "offset": "Added to the power before the logarithm.",
    "sample_rate": "Samples per second; that of the data when left out.",
}

BLOCKS: Final[dict[str, dict[str, Any]]] = {
    "LogMel": {"arguments": _LOG_MEL, "call": ["inputs"]},
    "MFCC": {"arguments": {"num_mfcc": ["int>0", 13], **_LOG_MEL}, "call": ["inputs"]},
    "FillMissing": {
        "arguments": {"value": ["'mean'|number", "mean"], "name": ["name|null", None]},
        "call": ["inputs"],
    },
}
"""By name: arguments with their types and defaults, in the language of `argument_types`."""

BLOCK_DOCS: Final[dict[str, dict[str, str]]] = {
    "LogMel": {
        "": "Natural logarithm of the mel power spectrogram of a waveform: [frames, bands, 1].",
        **_LOG_MEL_DOCS,
    },
    "MFCC": {
        "": "Mel-frequency cepstral coefficients of a waveform: [frames, coefficients, 1].",
        "num_mfcc": "Coefficients.",
        **_LOG_MEL_DOCS,
    },
    "FillMissing": {
        "": "Puts a value where a number is missing (NaN).",
        "value": "The mean of the column in the training data, or a number.",
    },
}
"""By name and argument ("" is the block itself): the description in the JSON Schema."""

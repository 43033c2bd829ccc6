"""Blocks of ours among the layers: preprocessing that Keras has no layer for, built of Keras' own operations.

Each is a plain Keras graph in the model, so that every artifact holds it and plain Keras loads it. The form is that of
`catalogue.json`; `models/blocks.py` builds them, and a test holds the two tables equal.
"""

from typing import Any, Final

MAX_FFT_LENGTH: Final = 2**20
"""A frame of 20 s at 48 kHz: more is a mistake, and would fill the memory with its filters."""

MIN_WINDOW: Final = 4
"""A periodic Hann window of 1 is zero, of 2 a single sample."""

_MEL: Final[dict[str, Any]] = {
    "fft_length": ["int>=8"],
    "sequence_length": ["int>0|null", None],
    "sequence_stride": ["int>0|null", None],
    "num_mel_bins": ["int>0", 40],
    "min_freq": ["number>=0", 0.0],
    "max_freq": ["number>0|null", None],
    "log_offset": ["number>0", 1e-6],
    "window": ["'hann'|'hamming'", "hann"],
    "sample_rate": ["int>0|null", None],
}
_MEL_DOCS: Final = {
    "fft_length": "Samples of a frame; a power of two.",
    "sequence_length": "Samples under the window, in the middle of the frame; fft_length when left out.",
    "sequence_stride": "Samples from one frame to the next; half of sequence_length when left out.",
    "num_mel_bins": "Bands on the mel scale.",
    "min_freq": "Where the first band begins, in Hz.",
    "max_freq": "Where the last band ends, in Hz; half of the sample rate when left out.",
    "log_offset": "Added to the energy before the logarithm.",
    "window": "Laid over every frame; periodic.",
    "sample_rate": "Of the sound, per second; that of the data when left out.",
}

BLOCKS: Final[dict[str, dict[str, Any]]] = {
    "FillMissing": {
        "arguments": {"value": ["'mean'|number", "mean"], "name": ["name|null", None]},
        "call": ["inputs"],
    },
    "LogMel": {"arguments": {**_MEL, "name": ["name|null", None]}, "call": ["inputs"]},
    "MFCC": {"arguments": {"num_mfcc": ["int>0", 13], **_MEL, "name": ["name|null", None]}, "call": ["inputs"]},
}
"""By name: arguments with their types and defaults, in the language of `argument_types`."""

GRAPH: Final[dict[str, dict[str, Any]]] = {
    "Block": {
        "arguments": {
            "layers": ["list[layer]|null", None],
            "use": ["name|null", None],
            "repeat": ["int>0<=1000", 1],
            "name": ["name|null", None],
        },
        "call": ["inputs"],
    },
    "Shared": {"arguments": {"layer": ["name"], "name": ["name|null", None]}, "call": ["inputs"]},
}
"""Entries of a list of layers that stand for others, in the same form; `graph.py` reads them."""

AUGMENTATIONS: Final[dict[str, dict[str, Any]]] = {
    "RandomNoise": {"arguments": {"factor": ["number>0"]}, "call": ["inputs"]},
    "RandomShift": {
        "arguments": {"factor": ["number>0<=1"], "fill_mode": ["'constant'|'nearest'|'wrap'", "constant"]},
        "call": ["inputs"],
    },
    "SpecAugment": {
        "arguments": {
            "num_time_masks": ["int>=0", 2],
            "time_factor": ["number>0<=1", 0.1],
            "num_frequency_masks": ["int>=0", 2],
            "frequency_factor": ["number>0<=1", 0.1],
        },
        "call": ["inputs"],
    },
}
"""Augmentations of ours beside Keras' random layers, in the same form; `data/random_layers.py` builds them."""

KERAS_AUGMENTATIONS: Final = ("RandAugment", "Solarization")
"""Those of Keras that are not called Random..., and draw for every sample."""

MIXERS: Final = ("CutMix", "MixUp")
"""Those of Keras that see batches, and mix the targets too; `data/mixing.py` runs them."""

BLOCK_DOCS: Final[dict[str, dict[str, str]]] = {
    "FillMissing": {
        "": "Puts a value where a number is missing (NaN).",
        "value": "The mean of the column in the training data, or a number.",
    },
    "Block": {
        "": "Layers one after the other, as often as repeat says; `input` is what they take. Under model.layers only.",
        "layers": "The layers; their names begin with that of the block.",
        "use": "Instead of layers: those that model.blocks has under this name.",
        "repeat": "How often they stand one after the other, each time with weights of their own.",
        "name": "Of the block's output, for the inputs of later layers.",
    },
    "Shared": {
        "": "A layer, or all layers of a block, once more, with the same weights. Under model.layers only.",
        "layer": "The name of a layer or a block that comes before.",
        "name": "Of the output, for the inputs of later layers.",
    },
    "LogMel": {"": "Log-mel spectrogram of sound: [frames, num_mel_bins, 1], as a gray image.", **_MEL_DOCS},
    "MFCC": {
        "": "Mel-frequency cepstral coefficients of sound: [frames, num_mfcc, 1].",
        "num_mfcc": "Coefficients, at most num_mel_bins.",
        **_MEL_DOCS,
    },
    "RandomNoise": {
        "": "Augmentation of sound and series: adds white noise. Under data.augment only.",
        "factor": "The greatest standard deviation, in the units of the samples; drawn anew for every sample.",
    },
    "RandomShift": {
        "": "Augmentation of sound and series: moves them in time. Under data.augment only.",
        "factor": "The farthest, as a share of the length.",
        "fill_mode": "What comes in where it moved away: zeros (constant), the last value, or the other end.",
    },
    "SpecAugment": {
        "": "Augmentation of sound and series: silences stretches of time and bands of frequencies. Under data.augment"
        " only.",
        "num_time_masks": "Stretches of time.",
        "time_factor": "The longest, as a share of the length; drawn anew for every mask.",
        "num_frequency_masks": "Bands of frequencies.",
        "frequency_factor": "The widest, as a share of all frequencies; drawn anew for every mask.",
    },
}
"""By name and argument ("" is the block itself): the description in the JSON Schema."""

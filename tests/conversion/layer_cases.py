"""For every layer of Keras the spec and the inputs that `layer_table.py` tries it with."""

from dataclasses import dataclass
from typing import Literal

AT_REST = "Rescaling: {scale: 2}"

Values = Literal["normal", "ids", "pixels", "sound", "words", "bits"]


@dataclass(frozen=True)
class Case:
    """One layer in a model of its own.

    Attributes:
        entry: the layer, as an item of a spec's list.
        shapes: of a sample of each input, which are called a, b, c.
        values: what the inputs hold: normal numbers, ids 0 to 3, pixels 0 to 255, a waveform, words, zeros and ones.
        place: the key of `model` that the layer stands under.
        at_rest: whether it leaves no operator in a `.tflite` file, because it acts while training only, or is done
            outside: then `AT_REST` stands behind it, for a file without an operator is none.
    """

    entry: str
    shapes: tuple[tuple[int, ...], ...]
    values: Values = "normal"
    place: Literal["layers", "preprocess"] = "layers"
    at_rest: bool = False


def _case(entry: str, *shapes: tuple[int, ...], values: Values = "normal", preprocess: bool = False) -> Case:
    return Case(entry, shapes, values, "preprocess" if preprocess else "layers")


def _photo(entry: str, *, at_rest: bool = False) -> Case:
    """A layer that takes pixels."""
    return Case(entry, ((8, 8, 3),), "pixels", at_rest=at_rest)


def _rest(entry: str, *shapes: tuple[int, ...]) -> Case:
    """A layer that acts while training only."""
    return Case(entry, shapes, at_rest=True)


_VECTOR, _SERIES, _IMAGE, _VOLUME = (4,), (6, 4), (6, 6, 4), (4, 4, 4, 2)

CASES: dict[str, Case] = {
    "Activation": _case("Activation: {activation: tanh}", _VECTOR),
    "ActivityRegularization": _rest("ActivityRegularization: {l2: 0.01}", _VECTOR),
    "AdaptiveAveragePooling1D": _case("AdaptiveAveragePooling1D: {output_size: 2}", _SERIES),
    "AdaptiveAveragePooling2D": _case("AdaptiveAveragePooling2D: {output_size: 2}", _IMAGE),
    "AdaptiveAveragePooling3D": _case("AdaptiveAveragePooling3D: {output_size: 2}", _VOLUME),
    "AdaptiveMaxPooling1D": _case("AdaptiveMaxPooling1D: {output_size: 2}", _SERIES),
    "AdaptiveMaxPooling2D": _case("AdaptiveMaxPooling2D: {output_size: 2}", _IMAGE),
    "AdaptiveMaxPooling3D": _case("AdaptiveMaxPooling3D: {output_size: 2}", _VOLUME),
    "Add": _case("Add: {inputs: [a, b]}", _VECTOR, _VECTOR),
    "AdditiveAttention": _case("AdditiveAttention: {inputs: [a, b]}", _SERIES, (5, 4)),
    "AlphaDropout": _rest("AlphaDropout: {rate: 0.5}", _VECTOR),
    "Attention": _case("Attention: {inputs: [a, b]}", _SERIES, (5, 4)),
    "AugMix": _photo("AugMix: {}"),
    "AutoContrast": _photo("AutoContrast: {}"),
    "Average": _case("Average: {inputs: [a, b]}", _VECTOR, _VECTOR),
    "AveragePooling1D": _case("AveragePooling1D: {pool_size: 2}", _SERIES),
    "AveragePooling2D": _case("AveragePooling2D: {pool_size: 2}", _IMAGE),
    "AveragePooling3D": _case("AveragePooling3D: {pool_size: 2}", _VOLUME),
    "BatchNormalization": _case("BatchNormalization: {}", _IMAGE),
    "Bidirectional": _case("Bidirectional: {layer: {LSTM: {units: 3}}}", _SERIES),
    "CategoryEncoding": _case("CategoryEncoding: {num_tokens: 4, output_mode: one_hot}", (1,), values="ids"),
    "CenterCrop": _photo("CenterCrop: {height: 4, width: 4}"),
    "Concatenate": _case("Concatenate: {inputs: [a, b]}", _VECTOR, (3,)),
    "ContrastLimitedAdaptiveHistogramEqualization": _photo(
        "ContrastLimitedAdaptiveHistogramEqualization: {tile_grid_size: [2, 2]}"
    ),
    "Conv1D": _case("Conv1D: {filters: 3, kernel_size: 3}", _SERIES),
    "Conv1DTranspose": _case("Conv1DTranspose: {filters: 3, kernel_size: 3, strides: 2}", _SERIES),
    "Conv2D": _case("Conv2D: {filters: 3, kernel_size: 3}", _IMAGE),
    "Conv2DTranspose": _case("Conv2DTranspose: {filters: 3, kernel_size: 3, strides: 2}", _IMAGE),
    "Conv3D": _case("Conv3D: {filters: 3, kernel_size: 2}", _VOLUME),
    "Conv3DTranspose": _case("Conv3DTranspose: {filters: 3, kernel_size: 2, strides: 2}", _VOLUME),
    "ConvLSTM1D": _case("ConvLSTM1D: {filters: 2, kernel_size: 3}", (3, 6, 2)),
    "ConvLSTM2D": _case("ConvLSTM2D: {filters: 2, kernel_size: 3}", (3, 6, 6, 2)),
    "ConvLSTM3D": _case("ConvLSTM3D: {filters: 2, kernel_size: 2}", (3, 4, 4, 4, 2)),
    "Cropping1D": _case("Cropping1D: {cropping: 1}", _SERIES),
    "Cropping2D": _case("Cropping2D: {cropping: 1}", _IMAGE),
    "Cropping3D": _case("Cropping3D: {cropping: 1}", _VOLUME),
    "CutMix": _photo("CutMix: {}"),
    "Dense": _case("Dense: {units: 3, activation: relu}", _VECTOR),
    "DepthwiseConv1D": _case("DepthwiseConv1D: {kernel_size: 3}", _SERIES),
    "DepthwiseConv2D": _case("DepthwiseConv2D: {kernel_size: 3}", _IMAGE),
    "Discretization": _case("Discretization: {num_bins: 4}", _VECTOR, preprocess=True),
    "Dot": _case("Dot: {axes: 1, inputs: [a, b]}", _VECTOR, _VECTOR),
    "Dropout": _rest("Dropout: {rate: 0.5}", _VECTOR),
    "ELU": _case("ELU: {}", _VECTOR),
    "EinsumDense": _case("EinsumDense: {equation: 'abc,cd->abd', output_shape: [6, 3], bias_axes: d}", _SERIES),
    "Embedding": _case("Embedding: {input_dim: 4, output_dim: 3}", (5,), values="ids"),
    "Flatten": _case("Flatten", _IMAGE),
    "GRU": _case("GRU: {units: 3}", _SERIES),
    "GRUCell": _case("RNN: {cell: {GRUCell: {units: 3}}}", _SERIES),
    "GaussianDropout": _rest("GaussianDropout: {rate: 0.5}", _VECTOR),
    "GaussianNoise": _rest("GaussianNoise: {stddev: 0.5}", _VECTOR),
    "GlobalAveragePooling1D": _case("GlobalAveragePooling1D", _SERIES),
    "GlobalAveragePooling2D": _case("GlobalAveragePooling2D", _IMAGE),
    "GlobalAveragePooling3D": _case("GlobalAveragePooling3D", _VOLUME),
    "GlobalMaxPooling1D": _case("GlobalMaxPooling1D", _SERIES),
    "GlobalMaxPooling2D": _case("GlobalMaxPooling2D", _IMAGE),
    "GlobalMaxPooling3D": _case("GlobalMaxPooling3D", _VOLUME),
    "GroupNormalization": _case("GroupNormalization: {groups: 2}", _IMAGE),
    "GroupQueryAttention": _case(
        "GroupQueryAttention: {head_dim: 2, num_query_heads: 2, num_key_value_heads: 1, inputs: [a, b]}",
        _SERIES,
        (5, 4),
    ),
    "HashedCrossing": _case("HashedCrossing: {num_bins: 8, inputs: [a, b]}", (1,), (1,), values="words"),
    "Hashing": _case("Hashing: {num_bins: 8}", (1,), values="words"),
    "Identity": _rest("Identity", _VECTOR),
    "IntegerLookup": _case("IntegerLookup: {output_mode: one_hot}", (1,), values="ids", preprocess=True),
    "LSTM": _case("LSTM: {units: 3}", _SERIES),
    "LSTMCell": _case("RNN: {cell: {LSTMCell: {units: 3}}}", _SERIES),
    "LayerNormalization": _case("LayerNormalization: {}", _SERIES),
    "LeakyReLU": _case("LeakyReLU: {negative_slope: 0.2}", _VECTOR),
    "Masking": _case("Masking: {mask_value: 1}", _SERIES, values="bits"),
    "MaxPooling1D": _case("MaxPooling1D: {pool_size: 2}", _SERIES),
    "MaxPooling2D": _case("MaxPooling2D: {pool_size: 2}", _IMAGE),
    "MaxPooling3D": _case("MaxPooling3D: {pool_size: 2}", _VOLUME),
    "Maximum": _case("Maximum: {inputs: [a, b]}", _VECTOR, _VECTOR),
    "MelSpectrogram": _case(
        "MelSpectrogram: {fft_length: 64, sequence_stride: 32, sampling_rate: 8000, num_mel_bins: 8}",
        (256,),
        values="sound",
    ),
    "Minimum": _case("Minimum: {inputs: [a, b]}", _VECTOR, _VECTOR),
    "MixUp": _photo("MixUp: {}"),
    "MultiHeadAttention": _case("MultiHeadAttention: {num_heads: 2, key_dim: 2, inputs: [a, b]}", _SERIES, (5, 4)),
    "Multiply": _case("Multiply: {inputs: [a, b]}", _VECTOR, _VECTOR),
    "Normalization": _case("Normalization", _VECTOR, preprocess=True),
    "PReLU": _case("PReLU: {}", _VECTOR),
    "Permute": _case("Permute: {dims: [2, 1]}", _SERIES),
    "Pipeline": _case("Pipeline: {layers: [{Rescaling: {scale: 0.5}}, {CenterCrop: {height: 4, width: 4}}]}", _IMAGE),
    "RMSNormalization": _case("RMSNormalization: {}", _SERIES),
    "RNN": _case("RNN: {cell: {SimpleRNNCell: {units: 3}}, return_sequences: true}", _SERIES),
    "RandAugment": _photo("RandAugment: {}", at_rest=True),
    "RandomBrightness": _photo("RandomBrightness: {factor: 0.2}", at_rest=True),
    "RandomColorDegeneration": _photo("RandomColorDegeneration: {factor: 0.2}", at_rest=True),
    "RandomColorJitter": _photo("RandomColorJitter: {brightness_factor: 0.2}", at_rest=True),
    "RandomContrast": _photo("RandomContrast: {factor: 0.2}", at_rest=True),
    "RandomCrop": _photo("RandomCrop: {height: 4, width: 4}"),
    "RandomElasticTransform": _photo("RandomElasticTransform: {}", at_rest=True),
    "RandomErasing": _photo("RandomErasing: {}", at_rest=True),
    "RandomFlip": _photo("RandomFlip: {mode: horizontal}", at_rest=True),
    "RandomGaussianBlur": _photo("RandomGaussianBlur: {}", at_rest=True),
    "RandomGrayscale": _photo("RandomGrayscale: {}", at_rest=True),
    "RandomHue": _photo("RandomHue: {factor: 0.2}", at_rest=True),
    "RandomInvert": _photo("RandomInvert: {}", at_rest=True),
    "RandomPerspective": _photo("RandomPerspective: {}", at_rest=True),
    "RandomPosterization": _photo("RandomPosterization: {factor: 4}", at_rest=True),
    "RandomRotation": _photo("RandomRotation: {factor: 0.1}", at_rest=True),
    "RandomSaturation": _photo("RandomSaturation: {factor: 0.2}", at_rest=True),
    "RandomSharpness": _photo("RandomSharpness: {factor: 0.2}", at_rest=True),
    "RandomShear": _photo("RandomShear: {x_factor: 0.1}", at_rest=True),
    "RandomTranslation": _photo("RandomTranslation: {height_factor: 0.1, width_factor: 0.1}", at_rest=True),
    "RandomZoom": _photo("RandomZoom: {height_factor: 0.1}", at_rest=True),
    "ReLU": _case("ReLU: {max_value: 6}", _VECTOR),
    "RepeatVector": _case("RepeatVector: {n: 3}", _VECTOR),
    "Rescaling": _case("Rescaling: {scale: 0.5, offset: -1}", _VECTOR),
    "Reshape": _case("Reshape: {target_shape: [2, 2]}", _VECTOR),
    "Resizing": _photo("Resizing: {height: 5, width: 5}"),
    "ReversibleEmbedding": _case("ReversibleEmbedding: {input_dim: 4, output_dim: 3}", (5,), values="ids"),
    "STFTSpectrogram": _case(
        "STFTSpectrogram: {frame_length: 64, frame_step: 32, fft_length: 64}", (256, 1), values="sound"
    ),
    "SeparableConv1D": _case("SeparableConv1D: {filters: 3, kernel_size: 3}", _SERIES),
    "SeparableConv2D": _case("SeparableConv2D: {filters: 3, kernel_size: 3}", _IMAGE),
    "SimpleRNN": _case("SimpleRNN: {units: 3}", _SERIES),
    "SimpleRNNCell": _case("RNN: {cell: {SimpleRNNCell: {units: 3}}}", _SERIES),
    "Softmax": _case("Softmax: {}", _VECTOR),
    "Solarization": _photo("Solarization: {}", at_rest=True),
    "SpatialDropout1D": _rest("SpatialDropout1D: {rate: 0.5}", _SERIES),
    "SpatialDropout2D": _rest("SpatialDropout2D: {rate: 0.5}", _IMAGE),
    "SpatialDropout3D": _rest("SpatialDropout3D: {rate: 0.5}", _VOLUME),
    "SpectralNormalization": _case("SpectralNormalization: {layer: {Dense: {units: 3}}}", _VECTOR),
    "StackedRNNCells": _case(
        "RNN: {cell: {StackedRNNCells: {cells: [{LSTMCell: {units: 3}}, {GRUCell: {units: 2}}]}}}", _SERIES
    ),
    "StringLookup": Case("StringLookup: {output_mode: one_hot}", ((1,),), "words", "preprocess", at_rest=True),
    "Subtract": _case("Subtract: {inputs: [a, b]}", _VECTOR, _VECTOR),
    "TextVectorization": _case("TextVectorization: {output_sequence_length: 3}", (), values="words", preprocess=True),
    "TimeDistributed": _case("TimeDistributed: {layer: {Dense: {units: 3}}}", _SERIES),
    "UnitNormalization": _case("UnitNormalization: {}", _VECTOR),
    "UpSampling1D": _case("UpSampling1D: {size: 2}", _SERIES),
    "UpSampling2D": _case("UpSampling2D: {size: 2, interpolation: bilinear}", _IMAGE),
    "UpSampling3D": _case("UpSampling3D: {size: 2}", _VOLUME),
    "ZeroPadding1D": _case("ZeroPadding1D: {padding: 1}", _SERIES),
    "ZeroPadding2D": _case("ZeroPadding2D: {padding: 1}", _IMAGE),
    "ZeroPadding3D": _case("ZeroPadding3D: {padding: 1}", _VOLUME),
}
"""By the canonical name of the layer."""

"""What each quantization scheme demands of the file that is called by its name, and how close its answers must stay."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from mltool.conversion.support import FLOAT, table

DYNAMIC_MIN_ELEMENTS = 1024
"""Smallest weight that the converter quantizes under `dynamic`: 1,023 elements stay float, 1,024 become int8.

Measured on Dense (31x33 and 32x32) and Conv2D layers with TensorFlow 2.21.
"""

DYNAMIC_OPS: Mapping[str, int] = MappingProxyType(
    {"BATCH_MATMUL": 1, "CONV_2D": 1, "DEPTHWISE_CONV_2D": 1, "FULLY_CONNECTED": 1, "GATHER": 0, "TRANSPOSE_CONV": 1}
)
"""Operators whose weights `dynamic` quantizes, with the position of the weight among the inputs.

Measured with TensorFlow 2.21; CONV_3D and the constants of ADD, SUB and MUL stay float.
"""

NO_INT8_KERNEL = frozenset(
    {op for op, verdict in table("int8").items() if verdict == FLOAT} | {"IMAG", "REAL", "RFFT2D"}
)
"""Operators that stay float in an int8 file: no int8 kernel exists, or the converter does not use it.

Measured, see `support.py`; those of spectra stand in no row, because no model of theirs alone can be made. WHILE hands
the state of a recurrent layer round in float; what its body computes is int8.
"""

_STATIC_OPS = frozenset(
    {"ADD", "AVERAGE_POOL_2D", "BATCH_MATMUL", "BROADCAST_TO", "CONCATENATION", "CONV_2D", "DEPTHWISE_CONV_2D", "DIV"}
    | {"DYNAMIC_UPDATE_SLICE", "EQUAL", "FULLY_CONNECTED", "GATHER", "GATHER_ND", "GELU", "LOGISTIC", "MAXIMUM"}
    | {"MAX_POOL_2D", "MEAN", "MIRROR_PAD", "MUL", "NOT_EQUAL", "PACK", "PAD", "PADV2", "REDUCE_MIN", "RELU", "RESHAPE"}
    | {"RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR", "RSQRT", "SELECT", "SELECT_V2", "SLICE", "SOFTMAX", "SPLIT"}
    | {"SQRT", "STABLEHLO_COMPOSITE", "STRIDED_SLICE", "SUB", "SUM", "TANH", "TRANSPOSE", "TRANSPOSE_CONV", "UNPACK"}
)
STATIC_OPS: Mapping[str, frozenset[str]] = MappingProxyType(
    {"int8": _STATIC_OPS | {"HARD_SWISH", "SPACE_TO_DEPTH", "SQUARED_DIFFERENCE"}, "int16x8": _STATIC_OPS}
)
"""Operators that litert-quantizer 0.11 gives integer activations, by scheme; all others stay float."""

WEIGHT_OPS: Mapping[str, int] = MappingProxyType(
    {"BATCH_MATMUL": 1, "CONV_2D": 1, "DEPTHWISE_CONV_2D": 1, "EMBEDDING_LOOKUP": 1, "FULLY_CONNECTED": 1}
    | {"TRANSPOSE_CONV": 1}
)
"""Operators whose weights litert-quantizer 0.11 quantizes under float activations, with the position of the weight: as
`DYNAMIC_OPS`, but for GATHER, whose table stays float."""

CHANNEL_AXIS: Mapping[str, int] = MappingProxyType(
    {"CONV_2D": 0, "DEPTHWISE_CONV_2D": 3, "EMBEDDING_LOOKUP": 0, "FULLY_CONNECTED": 0, "TRANSPOSE_CONV": 0}
)
"""Operators whose weights have a scale per channel, with the axis of the channels."""

INT4_OPS = frozenset({"CONV_2D", "EMBEDDING_LOOKUP", "FULLY_CONNECTED"})
"""Operators with kernels for 4-bit weights and float activations; the weights of all others are stored in int8."""

BLOCK_OPS = frozenset({"FULLY_CONNECTED"})
"""Operators whose 4-bit weights may have a scale per block of inputs."""

BLOCK_SIZES = (32, 64, 128, 256)
"""Inputs that share a scale: those that litert-quantizer writes; all four were run in LiteRT 2.3.

Right with XNNPACK, its default on phones and computers. Its plain kernels forget a fused ReLU after blocks, without a
word (Dense of 64 by 64 with 4-bit weights: off by .09 of the range with XNNPACK, by 1.09 without)."""

INTEGER_IO = frozenset({"int8", "uint8", "int16"})
"""Input and output types that leave no float tensor in the file."""


@dataclass(frozen=True, slots=True)
class Scheme:
    """One row of the table.

    Attributes:
        name: as the spec writes it.
        summary: for `--help` and reports.
        io: input and output types that it can have.
        calibrated: whether it needs a representative dataset.
        weight_dtypes: element types that its quantized weights may have.
        compute_dtypes: types that its operators may compute in outside islands (see `Operator.compute_dtype`).
        max_error: largest allowed difference of an output from the float model's, as a share of the range (maximum
            minus minimum over the samples compared) of the float model's outputs.
        mean_error: the same for the mean of the absolute differences.
        min_agreement: smallest allowed share of samples, in [0, 1], on which the largest output is at the same place.
        engine: what makes it: `converter` (from a SavedModel) or `quantizer` (from a float `.tflite` file).
    """

    name: str
    summary: str
    io: tuple[str, ...]
    calibrated: bool
    weight_dtypes: frozenset[str]
    compute_dtypes: frozenset[str]
    max_error: float
    mean_error: float
    min_agreement: float
    engine: str = "converter"


_FLOAT = frozenset({"float32"})
_INT8 = frozenset({"int8"})
_HYBRID = frozenset({"float32", "hybrid"})

# The tolerances are meant to catch a file that is wrong, not to grade one: `limits` of the spec does that. Errors are
# of probabilities where the outputs are logits. On the small models of the tests the largest error is 1.3e-7 (none),
# 2.3e-4 (float16), 2.6e-3 (dynamic) and 8.2e-3 (int8) of the range. A small CNN that knows CIFAR-10 to 57 % gives, in
# int8, the same answer on 94 % with probabilities off by up to 0.29 and its accuracy half a point lower, while an int8
# Normalization of raw features that collapsed gave the same answer on 57 %. A MobileNetV1 that had learned too little
# to be sure (80 % of two classes) was off by 1.1 % in float16 and by 5.5 % in the mean in int8, and lost nothing.
# Five small models of random weights (a CNN, a transformer block, an embedding, dense layers, two inputs; 64 samples)
# were off by at most 7.3e-3 (int16x8 and weight-only) and .14 (int4, with the same answer on .75 to 1 of the samples:
# random weights leave close ones). A MobileNetV2 of two classes in int4 lost one of 120 samples, with one probability
# off by 0.64. One probability is a poor witness: a ResNet8 that lost nothing was off by 0.4 once in 2,000 samples, an
# LSTM of 150 whose weights alone were int8 by 0.25. What collapsed (raw features in int8, an LSTM of few samples) was
# off by 9 % and more in the mean.
SCHEMES: dict[str, Scheme] = {
    scheme.name: scheme
    for scheme in (
        Scheme("none", "float32 throughout", ("float32",), False, _FLOAT, _FLOAT, 1e-4, 1e-5, 0.999),
        Scheme(
            "float16",
            "weights stored in 16 bits, computed in float32: half the size",
            ("float32",),
            False,
            frozenset({"float16"}),
            _FLOAT,
            0.03,
            0.005,
            0.99,
        ),
        Scheme(
            "dynamic",
            "weights of 1,024 elements and more in int8, activations in float32: a quarter of the size",
            ("float32",),
            False,
            _INT8,
            _HYBRID,
            0.40,
            0.04,
            0.95,
        ),
        Scheme(
            "int8",
            "weights and activations in int8, calibrated: a quarter of the size, for integer hardware",
            ("float32", "int8", "uint8"),
            True,
            _INT8,
            _INT8,
            0.60,
            0.06,
            0.90,
        ),
        Scheme(
            "int16x8",
            "weights in int8, activations in int16, calibrated: a quarter of the size, nearly as exact as float",
            ("float32", "int16"),
            True,
            _INT8,
            frozenset({"int16"}),
            0.60,
            0.06,
            0.90,
            "quantizer",
        ),
        Scheme(
            "int4",
            "weights in 4 bits where there are kernels, else in 8, activations in float32: an eighth of the size",
            ("float32",),
            False,
            frozenset({"int4", "int8"}),
            _HYBRID,
            0.90,
            0.15,
            0.70,
            "quantizer",
        ),
        Scheme(
            "weight-only",
            "weights stored in int8, computed in float32: a quarter of the size, exact activations",
            ("float32",),
            False,
            _INT8,
            _FLOAT,
            0.40,
            0.04,
            0.95,
            "quantizer",
        ),
        Scheme(
            "mixed",
            "every layer in a scheme of its own",
            ("float32", "int8", "uint8", "int16"),
            True,
            frozenset({"float32", "int4", "int8"}),
            _HYBRID | _INT8 | {"int16"},
            0.90,
            0.15,
            0.70,
            "quantizer",
        ),
        Scheme(
            "recipe",
            "what a recipe of litert-quantizer says",
            ("float32", "int8", "uint8", "int16"),
            True,
            frozenset({"float16", "float32", "int4", "int8"}),
            _HYBRID | _INT8 | {"int16"},
            0.90,
            0.15,
            0.70,
            "quantizer",
        ),
    )
}
"""Every scheme of this version, by name."""

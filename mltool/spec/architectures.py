"""Networks of the field by name, among the layers of a spec: `ResNet8: {units: 10}`.

Each becomes a plain Keras graph inside of the model, so that every artifact holds it and plain Keras loads it. The form
is that of `blocks.py`; `models/architectures` builds them, and a test holds the two tables equal.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

_EVERY: Final[dict[str, Any]] = {
    "units": ["int>0|null", None],
    "activation": ["'softmax'|'sigmoid'|null", None],
    "name": ["name|null", None],
}
_EVERY_DOCS: Final = {
    "units": "Outputs of the last layer, such as one a class; null leaves the head away and gives the features.",
    "activation": "Of the last layer; null gives logits.",
}
_L2_DOC: Final = (
    "Penalty on the kernels of the convolutions but depthwise ones: l2 * sum of their squares; 1e-4 in the reference."
)
_L2: Final[list[Any]] = ["number>=0", 1e-4]
_MOMENTUM: Final[list[Any]] = ["number>=0<1", 0.9]
_MOMENTUM_DOC: Final = (
    "Share of BatchNormalization's moving statistics that a step keeps; 0.99 suits trainings of thousands of steps."
)
_RATE: Final[list[Any]] = ["number>=0<1", 0.0]


def _entry(**arguments: list[Any]) -> dict[str, Any]:
    return {"arguments": {**arguments, **_EVERY}, "call": ["inputs"]}


ARCHITECTURES: Final[dict[str, dict[str, Any]]] = {
    "Autoencoder": {
        "arguments": {
            "hidden": ["int>0", 128],
            "bottleneck": ["int>0", 8],
            "depth": ["int>0", 4],
            "decoder": ["bool", True],
            "momentum": _MOMENTUM,
            "activation": _EVERY["activation"],
            "name": _EVERY["name"],
        },
        "call": ["inputs"],
    },
    "CNN": _entry(filters=["list[int>0]", [16, 32, 64]], kernel_size=["int>0", 3], dropout=_RATE, momentum=_MOMENTUM),
    "CNN1D": _entry(
        filters=["list[int>0]", [32, 64, 128]], kernel_size=["int>0", 5], dropout=_RATE, momentum=_MOMENTUM
    ),
    "DSCNN": _entry(
        filters=["int>0", 64],
        blocks=["int>0", 4],
        kernel_size=["list2[int>0]", [10, 4]],
        strides=["list2[int>0]", [2, 2]],
        stem_dropout=["number>=0<1", 0.2],
        dropout=["number>=0<1", 0.4],
        l2=_L2,
        momentum=_MOMENTUM,
    ),
    "InceptionTime": _entry(
        depth=["int>0", 6],
        filters=["int>0", 32],
        kernel_sizes=["list[int>0]", [10, 20, 40]],
        bottleneck=["int>0|null", 32],
        residual_every=["int>0|null", 3],
        momentum=_MOMENTUM,
    ),
    "MLP": _entry(hidden=["list[int>0]", [64, 64]], dropout=_RATE),
    "MobileNetV1": _entry(alpha=["number>0", 0.25], l2=_L2, momentum=_MOMENTUM),
    "ResNet8": _entry(filters=["int>0", 16], l2=_L2, momentum=_MOMENTUM),
    "TextTransformer": _entry(
        vocabulary_size=["int>0"],
        embed_dim=["int>0", 32],
        num_heads=["int>0", 2],
        ff_dim=["int>0", 32],
        num_blocks=["int>0", 1],
        dropout=["number>=0<1", 0.1],
    ),
    "UNet": _entry(
        filters=["list[int>0]", [16, 32, 64]], batch_normalization=["bool", True], dropout=_RATE, momentum=_MOMENTUM
    ),
}
"""By name: arguments with their types and defaults, in the language of `argument_types`."""

ARCHITECTURE_DOCS: Final[dict[str, dict[str, str]]] = {
    "Autoencoder": {
        "": "Fully connected autoencoder of MLPerf Tiny (anomaly detection): gives its input back. Takes [features].",
        "hidden": "Units of every hidden layer.",
        "bottleneck": "Units of the layer in the middle.",
        "depth": "Hidden layers before the bottleneck, and again after it.",
        "decoder": "Whether the input is given back; false gives the bottleneck, as features.",
        "momentum": _MOMENTUM_DOC,
        "activation": "Of the last layer of the decoder; null for values of any size.",
    },
    "CNN": {
        "": "Plain convolutional network: a convolution, normalization and pooling a stage. Takes images.",
        "filters": "Of every stage; each halves height and width.",
        "kernel_size": "Height and width of the convolutions.",
        "dropout": "Share of the features left out in training, before the head.",
        "momentum": _MOMENTUM_DOC,
        **_EVERY_DOCS,
    },
    "CNN1D": {
        "": "Plain convolutional network: a convolution, normalization and pooling a stage. Takes series.",
        "filters": "Of every stage; each halves the number of steps.",
        "kernel_size": "Steps that a convolution sees.",
        "dropout": "Share of the features left out in training, before the head.",
        "momentum": _MOMENTUM_DOC,
        **_EVERY_DOCS,
    },
    "DSCNN": {
        "": "DS-CNN of MLPerf Tiny (keyword spotting): depthwise separable convolutions. Takes spectrograms.",
        "filters": "Of every convolution.",
        "blocks": "Depthwise separable convolutions.",
        "kernel_size": "Frames and bands that the first convolution sees.",
        "strides": "Of the first convolution, in frames and bands.",
        "stem_dropout": "Share left out in training, after the first convolution.",
        "dropout": "Share left out in training, before the pooling.",
        "l2": _L2_DOC,
        "momentum": _MOMENTUM_DOC,
        **_EVERY_DOCS,
    },
    "InceptionTime": {
        "": "One network of InceptionTime (Ismail Fawaz et al. 2020): convolutions of several lengths. Takes series.",
        "depth": "Inception modules.",
        "filters": "Of each of a module's convolutions.",
        "kernel_sizes": "Steps that a module's convolutions see.",
        "bottleneck": "Channels that a module's long convolutions work on; null: all.",
        "residual_every": "Modules that a shortcut leads around; null: no shortcuts.",
        "momentum": _MOMENTUM_DOC,
        **_EVERY_DOCS,
    },
    "MLP": {
        "": "Multilayer perceptron. Takes [features].",
        "hidden": "Units of every hidden layer.",
        "dropout": "Share left out in training, after every hidden layer.",
        **_EVERY_DOCS,
    },
    "MobileNetV1": {
        "": "MobileNetV1 as in MLPerf Tiny (visual wake words). Takes images.",
        "alpha": "Width: the share of the paper's filters.",
        "l2": _L2_DOC,
        "momentum": _MOMENTUM_DOC,
        **_EVERY_DOCS,
    },
    "ResNet8": {
        "": "ResNet8 of MLPerf Tiny (image classification): three residual blocks. Takes images.",
        "filters": "Of the first block; twice and four times as many in the others.",
        "l2": _L2_DOC,
        "momentum": _MOMENTUM_DOC,
        **_EVERY_DOCS,
    },
    "TextTransformer": {
        "": "Small transformer encoder for text. Takes token ids, [length], as TextVectorization gives them.",
        "vocabulary_size": "Number of ids; max_tokens of the TextVectorization before it.",
        "embed_dim": "Values a token; a multiple of num_heads.",
        "num_heads": "Of the attention.",
        "ff_dim": "Units between the two layers of a block's feed-forward network.",
        "num_blocks": "Encoder blocks.",
        "dropout": "Share left out in training: of embeddings, attention, residuals and features.",
        **_EVERY_DOCS,
    },
    "UNet": {
        "": "Small U-Net for segmentation: an answer for every pixel. Takes images.",
        "filters": "Of every level; each but the last halves height and width, and doubles them again.",
        "batch_normalization": "Whether every convolution is normalized; false in the paper.",
        "dropout": "Share left out in training, at the lowest level.",
        "momentum": _MOMENTUM_DOC,
        **_EVERY_DOCS,
        "units": "Outputs a pixel; null leaves the head away and gives the features.",
    },
}
"""By name and argument ("" is the network itself): the description in the JSON Schema."""


def architecture_problems(name: str, arguments: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Arguments that do not fit one another, as (argument, message, hint).

    Args:
        name: of any layer; others than named architectures have no such problems.
        arguments: that the spec gives, each of the right type.
    """
    if name not in ARCHITECTURES:
        return
    defaults = {key: default for key, (_, *rest) in ARCHITECTURES[name]["arguments"].items() for default in rest}
    given = {**defaults, **arguments}
    for key, value in given.items():
        if value == []:
            yield key, "must have at least one number (got [])", f"write {key}: {defaults[key]}"
    if given["activation"] and not has_head(name, arguments):
        cause, cure = ("decoder: false", "decoder: true") if "decoder" in given else ("units: null", "units: NUMBER")
        yield "activation", f"has no effect with {cause}", f"write {cure}, or leave activation out"
    if name == "TextTransformer" and given["embed_dim"] % given["num_heads"]:
        message = f"must be a multiple of num_heads, {given['num_heads']} (got {given['embed_dim']})"
        near = -(-given["embed_dim"] // given["num_heads"]) * given["num_heads"]
        yield "embed_dim", message, f"write embed_dim: {near}"


def has_head(name: str, arguments: Mapping[str, Any]) -> bool:
    """Whether a named architecture answers; else it gives features, whose activation is its own."""
    if "decoder" in ARCHITECTURES[name]["arguments"]:
        return arguments.get("decoder", True) is True
    return arguments.get("units") is not None

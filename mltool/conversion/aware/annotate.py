"""Which layers of a rebuilt model get fake quantization, and why the others do not.

What has none is no float layer yet: the converter gives it ranges by calibration, as it does in every int8 file.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

from mltool import extras
from mltool.conversion.aware.rebuild import GUARD
from mltool.errors import ConversionError

REASONS = {
    "BatchNormalization": "follows no convolution or Dense layer that it could be folded into",
    "Rescaling": "scales raw inputs",
    "Normalization": "scales raw inputs",
    "Embedding": "takes ids",
    "LSTM": "keeps a state, which fake quantization does not know",
    "GRU": "keeps a state, which fake quantization does not know",
    "SimpleRNN": "keeps a state, which fake quantization does not know",
    "Bidirectional": "keeps a state, which fake quantization does not know",
    "SeparableConv1D": "is two layers in the file",
    "SeparableConv2D": "is two layers in the file",
}
"""Why layers of a class have no fake quantization; others are just not known to the toolkit."""

_ACTIVATIONS = frozenset({"softmax", "sigmoid", "tanh", "gelu", "linear", "relu", "swish", "silu"})
"""Of a layer with weights, those that the toolkit knows (`QuantizeAwareActivation`)."""

_OF_ACTIVATION_LAYERS = frozenset({"relu", "swish", "silu", "gelu", "relu6", "linear", "softmax", "sigmoid", "tanh"})
"""Likewise of `Activation` (`Default8BitActivationQuantizeConfig`)."""

_FOLDING = ("Conv2D", "DepthwiseConv2D", "Dense")
"""Layers that a BatchNormalization behind them is folded into."""


@dataclass(frozen=True)
class Plan:
    """What is done with the layers.

    Attributes:
        quantized: names of those with fake quantization.
        left: by name why a layer has none.
        guarded: names of those of `quantized` that take what a layer without it gives.
        folded: names of BatchNormalization layers, and of those of `quantized` that they are folded into at once.
    """

    quantized: tuple[str, ...]
    left: dict[str, str]
    guarded: tuple[str, ...]
    folded: dict[str, str]


def plan_of(model: Any, keep_float: Collection[str], *, fold: bool) -> Plan:
    """Decides for every layer.

    Args:
        model: of tf_keras.
        keep_float: names of layers that stay float, or of models whose layers all do.
        fold: whether BatchNormalization is folded before training, see `fold.py`.

    Raises:
        ConversionError: if no layer is left to quantize, or `keep_float` names none.
    """
    layers = [layer for layer in model.layers if type(layer).__name__ != "InputLayer"]
    kept = {name for name in keep_float for layer in layers if _is_part(layer.name, name)}
    if unknown := sorted(set(keep_float) - kept):
        raise ConversionError(f"keep_float names no layer: {unknown}", f"the layers are {[one.name for one in layers]}")
    left: dict[str, str] = {}
    folded: dict[str, str] = {}
    for layer in layers:
        if any(_is_part(layer.name, name) for name in keep_float):
            left[layer.name] = "keep_float"
        elif (reason := _reason(layer)) is not None:
            left[layer.name] = reason
    # A BatchNormalization is quantized as a part of the layer before it.
    for layer in layers:
        if type(layer).__name__ == "BatchNormalization" and layer.name not in left:
            before = next(_sources(layer))
            if before.name in left:
                left[layer.name] = f"follows {before.name!r}, which has no fake quantization"
            elif fold and not (layer.scale and layer.center):
                left[layer.name] = "has no gamma or no beta, and cannot be folded"
                left[before.name] = f"has {layer.name!r} behind it, which cannot be folded"
            elif fold:
                folded[layer.name] = before.name
    quantized = [layer for layer in layers if layer.name not in left and layer.name not in folded]
    if not any(layer.weights for layer in quantized):
        reasons = "; ".join(f"{name}: {reason}" for name, reason in left.items())
        message = f"no layer with weights can have fake quantization ({reasons})"
        raise ConversionError(message, "take quantize: int8, which needs no training")
    guarded = [layer.name for layer in quantized if any(source.name in left for source in _sources(layer))]
    return Plan(tuple(layer.name for layer in quantized), left, tuple(guarded), folded)


def _is_part(layer: str, name: str) -> bool:
    """Whether a layer is that of a name, or lies in the model of that name."""
    return layer == name or layer.startswith(f"{name}/")


def _sources(layer: Any) -> Iterator[Any]:
    """The layers that a layer takes from."""
    for node in layer._inbound_nodes:
        yield from extras.tensorflow().nest.flatten(node.inbound_layers)


def _reason(layer: Any) -> str | None:
    """Why a layer has no fake quantization; None where it has."""
    kind = type(layer).__name__
    if len(layer._inbound_nodes) > 1:
        return "is called more than once"
    if kind == "BatchNormalization":
        return None if _is_folded(layer) else REASONS[kind]
    activation = getattr(getattr(layer, "activation", None), "__name__", None)
    if activation is not None:
        known = _OF_ACTIVATION_LAYERS if kind == "Activation" else _ACTIVATIONS
        if activation not in known:
            return f"has the activation {activation}, which fake quantization does not know"
    if kind in REASONS or not _registry().supports(layer):
        return REASONS.get(kind, f"the toolkit has no fake quantization for {kind}")
    return None


def _registry() -> Any:
    extras.require("tensorflow_model_optimization")
    base = "tensorflow_model_optimization.python.core.quantization.keras.default_8bit"
    return extras.require(f"{base}.default_8bit_quantize_registry").Default8BitQuantizeRegistry()


def _is_folded(layer: Any) -> bool:
    """Whether the converter folds a BatchNormalization into the layer before it, as the toolkit's patterns have it."""
    before = next(_sources(layer))
    is_linear = getattr(getattr(before, "activation", None), "__name__", "") == "linear"
    return type(before).__name__ in _FOLDING and is_linear and len(before._outbound_nodes) == 1


def annotate(model: Any, plan: Plan) -> Any:
    """A copy of a model whose layers are marked for fake quantization as planned; those of `GUARD` too."""
    tf_keras, toolkit = extras.require("tf_keras"), extras.require("tensorflow_model_optimization")
    base = "tensorflow_model_optimization.python.core.quantization.keras.default_8bit"
    configs = extras.require(f"{base}.default_8bit_quantize_configs")
    mark = toolkit.quantization.keras.quantize_annotate_layer

    def marked(layer: Any) -> Any:
        if GUARD in layer.name:
            return mark(layer, configs.Default8BitOutputQuantizeConfig())
        return mark(layer) if layer.name in plan.quantized else layer

    return tf_keras.models.clone_model(model, clone_function=marked)

"""How fine the scales of weights are under fake quantization: one a channel, or one a layer.

The quantizers of weights are set after the toolkit's graph transformations, because of what these do (0.8.1): a
convolution with a ReLU layer behind it loses the fake quantization of its weights, not only that of its output
(`LayerReLUQuantize` gives it a `NoOpQuantizeConfig`); and scales by channel follow the last axis of a kernel, which is
1 long in a depthwise one: it gets a scale a channel here, as it has in the file.
"""

from typing import Any, Literal

from mltool import extras

Granularity = Literal["channel", "tensor"]

_BASE = "tensorflow_model_optimization.python.core.quantization.keras"


def scheme_of(granularity: Granularity) -> Any:
    """The toolkit's 8-bit scheme with weights of a granularity."""
    extras.require("tensorflow_model_optimization")
    base = extras.require(f"{_BASE}.default_8bit.default_8bit_quantize_scheme").Default8BitQuantizeScheme

    class Transformer:
        """The toolkit's changes of the graph, and then ours of the quantizers."""

        def __init__(self, inner: Any) -> None:
            self._inner = inner

        def apply(self, model: Any, layer_quantize_map: Any) -> Any:
            model, changed = self._inner.apply(model, layer_quantize_map)
            kinds = {layer.name: type(layer).__name__ for layer in model.layers}
            for name, entry in changed.items():
                if kinds.get(name) in WEIGHTS:
                    entry["quantize_config"] = _config(kinds[name], entry.get("quantize_config"), granularity)
            return model, changed

    class Scheme(base):  # type: ignore[misc,valid-type]
        """The toolkit's, with another way to change the graph."""

        def get_layout_transformer(self) -> Any:
            return Transformer(super().get_layout_transformer())

    return Scheme(disable_per_axis=granularity == "tensor")


WEIGHTS = {"Conv2D": "kernel", "DepthwiseConv2D": "depthwise_kernel", "Dense": "kernel"}
"""The weight of a layer that has fake quantization, by class."""


def _config(kind: str, config: Any, granularity: Granularity) -> Any:
    """What the toolkit asks which tensors of a layer have fake quantization, with weights of the granularity.

    Args:
        kind: class of the layer.
        config: the toolkit's after its transformations; None where it has none of its own.
        granularity: of the weights.
    """
    configs = extras.require(f"{_BASE}.default_8bit.default_8bit_quantize_registry")
    build = configs.Default8BitQuantizeConfig if kind == "Dense" else configs.Default8BitConvQuantizeConfig
    if config is None:
        config = build([WEIGHTS[kind]], ["activation"], False)
    elif type(config).__name__ == "NoOpQuantizeConfig":
        config = build([WEIGHTS[kind]], [], False)  # what it gives is quantized behind the ReLU
    if granularity == "tensor":
        quantizer = extras.require(f"{_BASE}.quantizers").LastValueQuantizer
        config.weight_quantizer = quantizer(num_bits=8, per_axis=False, symmetric=True, narrow_range=True)
    elif kind == "DepthwiseConv2D":
        config.weight_quantizer = _depthwise_quantizer()
    return config


def _depthwise_quantizer() -> Any:
    """Scales by channel of a kernel [height, width, channels, multiplier]."""
    tf = extras.tensorflow()
    base = extras.require(f"{_BASE}.default_8bit.default_8bit_quantizers").Default8BitConvWeightsQuantizer

    class Depthwise(base):  # type: ignore[misc,valid-type]
        """The toolkit's quantizer, on a kernel whose last axis has all channels."""

        def build(self, tensor_shape: Any, name: str, layer: Any) -> Any:
            height, width, channels, multiplier = tensor_shape
            return super().build(tf.TensorShape([height, width, 1, channels * multiplier]), name, layer)

        def __call__(self, inputs: Any, training: bool, weights: Any, **more: Any) -> Any:
            height, width, channels, multiplier = inputs.shape
            flat = tf.reshape(inputs, [height, width, 1, channels * multiplier])
            return tf.reshape(super().__call__(flat, training, weights, **more), inputs.shape)

    return Depthwise()

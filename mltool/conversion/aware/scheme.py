"""How fine the scales of weights are under fake quantization: one a channel, or one a layer.

The toolkit's own `disable_per_axis` is undone by its graph transformations: wherever a convolution has a ReLU behind it,
they give it scales by channel again (`LayerReLUQuantize`; seen with 0.8.1). So the quantizers are set after them. And
its scales by channel follow the last axis of a kernel, which is 1 long in a depthwise one: it gets a scale a channel
here, as it has in the file.
"""

from collections.abc import Mapping
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
            registry = Scheme().get_quantize_registry()
            for name, entry in changed.items():
                _set_quantizer(name, entry, kinds, granularity, model, registry)
            return model, changed

    class Scheme(base):  # type: ignore[misc]
        """The toolkit's, with another way to change the graph."""

        def get_layout_transformer(self) -> Any:
            return Transformer(super().get_layout_transformer())

    return Scheme(disable_per_axis=granularity == "tensor")


def _set_quantizer(
    name: str, entry: dict[str, Any], kinds: Mapping[str, str], granularity: Granularity, model: Any, registry: Any
) -> None:
    """Gives the weights of a layer the quantizer of the granularity."""
    kind = kinds.get(name)
    if kind not in ("Conv2D", "DepthwiseConv2D"):
        return
    config = entry.get("quantize_config")
    if config is None:
        config = entry["quantize_config"] = registry.get_quantize_config(model.get_layer(name))
    if granularity == "tensor":
        quantizers = extras.require(f"{_BASE}.quantizers")
        config.weight_quantizer = quantizers.LastValueQuantizer(
            num_bits=8, per_axis=False, symmetric=True, narrow_range=True
        )
    elif kind == "DepthwiseConv2D":
        config.weight_quantizer = _depthwise_quantizer()


def _depthwise_quantizer() -> Any:
    """Scales by channel of a kernel [height, width, channels, multiplier]."""
    tf = extras.tensorflow()
    base = extras.require(f"{_BASE}.default_8bit.default_8bit_quantizers").Default8BitConvWeightsQuantizer

    class Depthwise(base):  # type: ignore[misc]
        """The toolkit's quantizer, on a kernel whose last axis has all channels."""

        def build(self, tensor_shape: Any, name: str, layer: Any) -> Any:
            height, width, channels, multiplier = tensor_shape
            return super().build(tf.TensorShape([height, width, 1, channels * multiplier]), name, layer)

        def __call__(self, inputs: Any, training: bool, weights: Any, **more: Any) -> Any:
            height, width, channels, multiplier = inputs.shape
            flat = tf.reshape(inputs, [height, width, 1, channels * multiplier])
            return tf.reshape(super().__call__(flat, training, weights, **more), inputs.shape)

    return Depthwise()

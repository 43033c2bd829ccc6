"""BatchNormalization folded into the layer before it, as the converter does; so that fake quantization sees the result.

Where all weights of a layer share one scale, folding afterwards would give every channel a scale of its own again:
what was trained for would not be what the file has.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def folded_weights(layer: Any, norm: Any) -> dict[str, Array]:
    """Kernel and bias of a convolution or Dense layer with the BatchNormalization behind it.

    gamma * (w x + b - mean) / sqrt(variance + epsilon) + beta (Ioffe and Szegedy, "Batch Normalization", 2015, 3.1, at
    inference), as a new kernel and bias.

    Args:
        layer: of Keras 3.
        norm: the BatchNormalization, of Keras 3.

    Returns:
        By name, in the order of the weights of a layer with a bias.
    """
    values = {weight.name: np.asarray(weight) for weight in layer.weights}
    (name,) = (name for name in values if name.endswith("kernel"))
    factor, shift = _factor_and_shift(norm)
    bias = values.get("bias", np.float32(0.0))
    return {name: _scaled(values[name], name, factor), "bias": bias * factor + shift}


def _factor_and_shift(norm: Any) -> tuple[Array, Array]:
    values = {weight.name: np.asarray(weight, np.float64) for weight in norm.weights}
    factor = values.get("gamma", np.float64(1.0)) / np.sqrt(values["moving_variance"] + norm.epsilon)
    shift = values.get("beta", np.float64(0.0)) - values["moving_mean"] * factor
    return np.asarray(factor, np.float32), np.asarray(shift, np.float32)


def _scaled(kernel: Array, name: str, factor: Array) -> Array:
    """A kernel times a factor for every output channel; a depthwise one has its channels in the last two axes."""
    if name == "depthwise_kernel":
        return kernel * factor.reshape(kernel.shape[-2:])
    return kernel * factor


def unfold(layer: Any, norm: Any, values: Mapping[str, Array]) -> None:
    """Puts a folded kernel and bias back into the two layers of Keras 3, which compute the same with them.

    The BatchNormalization has gamma and beta.

    The BatchNormalization keeps its statistics, and becomes what adds the bias where the layer has none.
    """
    names = [weight.name for weight in layer.weights]
    for weight in layer.weights:
        weight.assign(values[weight.name])
    left = 0.0 if "bias" in names else values["bias"]
    given = {weight.name: np.asarray(weight, np.float64) for weight in norm.weights}
    deviation = np.sqrt(given["moving_variance"] + norm.epsilon)
    for weight in norm.weights:
        if weight.name == "gamma":
            weight.assign(deviation.astype(np.float32))
        if weight.name == "beta":
            weight.assign((given["moving_mean"] + left).astype(np.float32))


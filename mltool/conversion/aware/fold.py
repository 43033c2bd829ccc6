"""BatchNormalization folded into the layer before it, as the converter does; so that fake quantization sees the result.

Where all weights of a layer share one scale, folding afterwards would give every channel a scale of its own again:
what was trained for would not be what the file has.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def folded_weights(layer: Any, norm: Any) -> list[Array]:
    """New kernel and bias of a convolution or Dense layer with the BatchNormalization behind it.

    gamma * (w x + b - mean) / sqrt(variance + epsilon) + beta (Ioffe and Szegedy, "Batch Normalization", 2015, 3.1, at
    inference), as a kernel and a bias.

    Args:
        layer: of Keras 3.
        norm: the BatchNormalization, of Keras 3.

    """
    kernel, *biases = (np.asarray(weight) for weight in layer.weights)
    factor, shift = _factor_and_shift(norm)
    if type(layer).__name__ == "DepthwiseConv2D":  # its channels are in the last two axes
        kernel = kernel * factor.reshape(kernel.shape[-2:])
    else:
        kernel = kernel * factor
    return [kernel, (biases[0] if biases else np.float32(0.0)) * factor + shift]


def _factor_and_shift(norm: Any) -> tuple[Array, Array]:
    values = {weight.name: np.asarray(weight, np.float64) for weight in norm.weights}
    factor = values.get("gamma", np.float64(1.0)) / np.sqrt(values["moving_variance"] + norm.epsilon)
    shift = values.get("beta", np.float64(0.0)) - values["moving_mean"] * factor
    return np.asarray(factor, np.float32), np.asarray(shift, np.float32)


def unfold(layer: Any, norm: Any, values: Sequence[Array]) -> None:
    """Puts a folded kernel and bias back into the two layers of Keras 3, which compute the same with them.

    The BatchNormalization has gamma and beta.

    The BatchNormalization keeps its statistics, and becomes what adds the bias where the layer has none.
    """
    for weight, value in zip(layer.weights, values, strict=False):
        weight.assign(value)
    left = 0.0 if len(layer.weights) == len(values) else values[-1]
    given = {weight.name: np.asarray(weight, np.float64) for weight in norm.weights}
    deviation = np.sqrt(given["moving_variance"] + norm.epsilon)
    for weight in norm.weights:
        if weight.name == "gamma":
            weight.assign(deviation.astype(np.float32))
        if weight.name == "beta":
            weight.assign((given["moving_mean"] + left).astype(np.float32))

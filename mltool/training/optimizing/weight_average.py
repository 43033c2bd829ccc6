"""Stochastic weight averaging: the model that is kept is the mean of those at the ends of the last epochs.

Izmailov, Podoprikhin, Garipov, Vetrov and Wilson, "Averaging Weights Leads to Wider Optima and Better Generalization",
UAI 2018, arXiv:1803.05407, section 3.2: the average begins at 75 % of the training, and the statistics of
BatchNormalization, which no average has, come from one more pass over the training data.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from mltool import extras
from mltool.models.build import call_model


class WeightAverage:
    """The running mean of weights.

    Args:
        weights: Keras variables: all that a training changes, in any of its phases.
    """

    def __init__(self, weights: Sequence[Any]) -> None:
        variable = extras.keras().Variable
        self._weights = list(weights)
        self._count = variable(0, dtype="int64", trainable=False, name="averaged_epochs")
        self._means = [
            variable(np.zeros(weight.shape, "float32"), dtype="float32", trainable=False, name="average")
            for weight in self._weights
        ]

    @property
    def variables(self) -> list[Any]:
        """What a checkpoint holds of it."""
        return [self._count, *self._means]

    @property
    def epochs(self) -> int:
        """How many epochs are in it."""
        return int(self._count.numpy())

    def add(self) -> None:
        """Takes in the weights as they are."""
        count = self.epochs + 1
        for mean, weight in zip(self._means, self._weights, strict=True):
            before = np.asarray(mean)
            mean.assign(before + (np.asarray(weight) - before) / np.float32(count))
        self._count.assign(count)

    def put(self) -> None:
        """Gives the weights their mean."""
        for mean, weight in zip(self._means, self._weights, strict=True):
            weight.assign(np.asarray(mean))


def renew_batch_statistics(model: Any, batches: Iterable[Any]) -> None:
    """Gives every BatchNormalization that trains the mean statistics of the batches, each counting alike.

    Args:
        model: a keras.Model, called batch by batch outside of any graph: `momentum` of a layer is part of one.
        batches: of training, whole ones: (inputs, ...).
    """
    kind = extras.keras().layers.BatchNormalization
    layers = [layer for layer in model._flatten_layers() if isinstance(layer, kind) and layer.trainable]
    momenta = [layer.momentum for layer in layers]
    try:
        for number, batch in enumerate(batches if layers else ()):
            for layer in layers:
                layer.momentum = number / (number + 1)  # a running mean
            call_model(model, batch[0], training=True)
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum

"""BatchNormalization under several replicas: one mean and variance of the whole batch, or of each replica's share."""

from typing import Any

from mltool import extras
from mltool.spec.model import LayerSpec


class BatchStatistics:
    """Synchronizes the BatchNormalization layers of a model while it trains, unless the spec says how each is.

    Args:
        model: a keras.Model.
        layers: of the spec; what they say with `synchronized` stays.
    """

    def __init__(self, model: Any, layers: tuple[LayerSpec, ...]) -> None:
        said = {layer.name for layer in layers if "synchronized" in layer.layer.arguments}
        kind = extras.keras().layers.BatchNormalization
        found = [layer for layer in model._flatten_layers() if isinstance(layer, kind) and layer.name not in said]
        self._before = [(layer, layer.synchronized) for layer in found]

    def synchronize(self) -> None:
        """Lets all of them take the mean and variance over all replicas."""
        for layer, _ in self._before:
            layer.synchronized = True

    def restore(self) -> None:
        """As they were: a saved model is the same whatever it was trained on."""
        for layer, before in self._before:
            layer.synchronized = before

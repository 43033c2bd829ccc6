"""Builds the layers of ours, blocks (`spec/blocks.py`) and named architectures: graphs of Keras' own under one name."""

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from mltool import extras
from mltool.models.architectures import ARCHITECTURES
from mltool.models.audio_blocks import MFCC, LogMel

Array = np.ndarray[Any, Any]


class Block(Protocol):
    """One block: learns from data where it must, and builds its graph for a shape."""

    def arguments(self) -> dict[str, Any]:
        """What says what it computes, by the names of the spec."""
        ...

    def graph(self, inputs: Any) -> Any:
        """The outputs, by Keras' operations."""
        ...


class BlockLayer:
    """A block as a layer: its graph is a model of its own, so that every operation of it bears its name.

    Args:
        block: what it computes.
        name: of the layer in the model.
    """

    def __init__(self, block: Block, name: str) -> None:
        self._block, self.name = block, name
        self._model: Any = None
        if hasattr(block, "adapt"):
            self.adapt = block.adapt

    def __call__(self, inputs: Any) -> Any:
        """Runs the block on a Keras tensor or on values."""
        keras = extras.keras()
        if self._model is None:
            tensor = keras.Input(tuple(inputs.shape[1:]), dtype=str(getattr(inputs.dtype, "name", inputs.dtype)))
            self._model = keras.Model(tensor, self._block.graph(tensor), name=self.name)
            # For `steps_of`; not saved with the model.
            self._model.block = getattr(self._block, "kind", type(self._block).__name__)
            self._model.block_arguments = self._block.arguments()
        return self._model(inputs)


class FillMissing:
    """Puts a value where a number is NaN.

    Args:
        value: `mean` of the training data, column by column (the last axis), or a number.
    """

    def __init__(self, value: str | float = "mean") -> None:
        self._fill: Any = np.float32(value) if not isinstance(value, str) else None
        if self._fill is None:
            self.adapt = self._adapt

    def _adapt(self, batches: Any) -> None:
        """The mean of what is not missing; 0 for a column in which everything is.

        Args:
            batches: float32 [batch, ..., columns].
        """
        total: Any = 0.0
        count: Any = 0
        for batch in batches:
            values = np.asarray(batch, dtype=np.float64)
            axes = tuple(range(values.ndim - 1))
            total = total + np.nansum(values, axis=axes)
            count = count + (~np.isnan(values)).sum(axis=axes)
        self._fill = (total / np.maximum(count, 1)).astype(np.float32)

    def arguments(self) -> dict[str, Any]:
        """The values that are filled in, once they are known."""
        return {} if self._fill is None else {"value": self._fill.tolist()}

    def graph(self, inputs: Any) -> Any:
        """See `Block`."""
        ops = extras.keras().ops
        # Comparing with itself: LiteRT has no operator for "is NaN".
        return ops.where(ops.not_equal(inputs, inputs), self._fill, inputs)


BLOCKS: dict[str, Callable[..., Block]] = {"FillMissing": FillMissing, "LogMel": LogMel, "MFCC": MFCC}
"""Name in the spec to what builds it."""

OURS: dict[str, Callable[..., Block]] = BLOCKS | ARCHITECTURES
"""All that stand among the layers of a spec and are none of Keras'."""

OF_SOUND = ("LogMel", "MFCC")
"""Blocks that must know the sample rate."""


def build_block(name: str, arguments: dict[str, Any], layer_name: str) -> BlockLayer:
    """A block, or a named architecture, of the spec as a layer.

    Raises:
        KeyError: if none has this name.
        ValueError: if the arguments do not fit one another.
    """
    return BlockLayer(OURS[name](**arguments), layer_name)

"""Batches of numpy arrays, for backends that tf.data does not feed: the same samples in the same order."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext

import numpy as np

from mltool.data.dataset import Samples, as_model_takes
from mltool.data.order import epoch_order, steps_per_epoch
from mltool.data.scratch import let_go
from mltool.data.source import Array, ArrayLike
from mltool.data.stored_rows import RowReader

Batch = tuple[dict[str, Array], Array | dict[str, Array], Array]
"""Inputs by name, float32; targets, by output where there are several; float32 weights [samples]."""


class Batches:
    """Batches of (inputs, targets, weights), as `Pipeline` has them without augmentation.

    Args:
        samples: to draw from.
        batch_size: the last batch may be smaller.
        seed: of the order; None keeps the order of the samples.
        class_weights: float32 [classes], multiplied into the samples' weights; None where all count alike.
    """

    def __init__(
        self, samples: Samples, batch_size: int, *, seed: int | None = None, class_weights: Array | None = None
    ) -> None:
        self.num_samples, self.batch_size = len(samples), batch_size
        self._samples, self._seed, self._class_weights = samples, seed, class_weights

    @property
    def steps(self) -> int:
        """Batches of an epoch."""
        return steps_per_epoch(self.num_samples, self.batch_size)

    def reading(self) -> AbstractContextManager[None]:
        """Inside, what is wrong with the data is raised as it is; here it always is."""
        return nullcontext()

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        """The batches of an epoch, from `first_step` on."""
        order = epoch_order(self._seed, epoch, self.num_samples)
        for step in range(first_step, self.steps):
            yield self._batch(order[step * self.batch_size : (step + 1) * self.batch_size])

    def _batch(self, rows: Array) -> Batch:
        samples, reader = self._samples, RowReader()
        inputs = {name: as_model_takes(reader.take(array, rows)) for name, array in samples.inputs.items()}
        found = _rows(reader, samples.targets, rows)
        weights = np.ones(len(rows), np.float32)
        if samples.weights is not None:
            weights = samples.weights[rows].astype(np.float32)
        if self._class_weights is not None and isinstance(found, np.ndarray):
            weights = weights * self._class_weights[found]
        let_go(*samples.inputs.values())
        return inputs, found, weights


def _rows(reader: RowReader, targets: ArrayLike, rows: Array) -> Array | dict[str, Array]:
    taken = reader.take(targets, rows)
    if not taken.dtype.names:
        return taken
    by_output: Mapping[str, Array] = {name: np.ascontiguousarray(taken[name]) for name in taken.dtype.names}
    return dict(by_output)

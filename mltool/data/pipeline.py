"""tf.data of samples in memory; the one place that makes it.

Indices are shuffled and batched, then one gather fetches a batch: measured as fast as decoded images in a cache, and
any step of any epoch can be reached without running the ones before.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from mltool import extras
from mltool.data.augment import Augmentation
from mltool.data.dataset import Samples
from mltool.data.order import epoch_order


class Pipeline:
    """Batches of (inputs, targets), where inputs is a map of float32 tensors.

    Args:
        samples: to draw from.
        batch_size: global; the last batch may be smaller.
        seed: of the order; None keeps the order of the samples.
        augment: a function (sample, epoch, id) of the first input, see `augment.py`.
        distribute: the strategy's `experimental_distribute_dataset`, or None on one device.
    """

    def __init__(
        self,
        samples: Samples,
        batch_size: int,
        *,
        seed: int | None = None,
        augment: Augmentation | None = None,
        distribute: Callable[[Any], Any] | None = None,
    ) -> None:
        tf = extras.tensorflow()
        self.num_samples = len(samples)
        self.batch_size = batch_size
        self.seed = seed
        self._distribute = distribute
        # tf.data runs on the CPU: what its functions capture must not lie on a GPU.
        with tf.device("CPU:0"):
            self._epoch = tf.Variable(0, dtype=tf.int64, trainable=False)
            self._order = tf.Variable(np.arange(self.num_samples), dtype=tf.int64, trainable=False)
            arrays = {name: tf.constant(np.ascontiguousarray(array)) for name, array in samples.inputs.items()}
            self._targets = tf.constant(samples.targets)
            self._ids = tf.constant(samples.ids)
        self._arrays = arrays
        self._batches = self._build(augment)
        self._datasets: dict[int, Any] = {}

    @property
    def steps(self) -> int:
        """Batches of an epoch."""
        return -(-self.num_samples // self.batch_size)

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[Any]:
        """An iterator over the batches of an epoch, from `first_step` on."""
        if self.seed is not None:
            self._order.assign(epoch_order(self.seed, epoch, self.num_samples))
        self._epoch.assign(epoch)
        if first_step not in self._datasets:
            dataset = self._batches(first_step)
            self._datasets[first_step] = self._distribute(dataset) if self._distribute else dataset
        return iter(self._datasets[first_step])

    def _build(self, augment: Augmentation | None) -> Callable[[int], Any]:
        tf = extras.tensorflow()

        def gather(positions: Any) -> Any:
            rows = tf.gather(self._order, positions)
            inputs = {name: tf.cast(tf.gather(array, rows), tf.float32) for name, array in self._arrays.items()}
            return inputs, tf.gather(self._targets, rows)

        def gather_augmented(position: Any) -> Any:
            inputs, target = gather(position)
            name = next(iter(inputs))
            sample_id = tf.gather(self._ids, tf.gather(self._order, position))
            augmented = augment(inputs[name], self._epoch, sample_id)  # type: ignore[misc]
            return {**inputs, name: tf.ensure_shape(augmented, inputs[name].shape)}, target

        def batches(first_step: int) -> Any:
            positions = tf.data.Dataset.range(first_step * self.batch_size, self.num_samples)
            if augment is None:
                dataset = positions.batch(self.batch_size).map(gather, num_parallel_calls=tf.data.AUTOTUNE)
            else:
                dataset = positions.map(gather_augmented, num_parallel_calls=tf.data.AUTOTUNE).batch(self.batch_size)
            return dataset.prefetch(tf.data.AUTOTUNE)

        return batches

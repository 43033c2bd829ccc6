"""tf.data of samples; the one place that makes it.

Indices are shuffled and batched, then one gather fetches a batch: measured as fast as decoded images in a cache, and
any step of any epoch can be reached without running the ones before. What does not lie in memory (a file of decoded
samples, files to decode) is fetched by the same indices.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from mltool import extras
from mltool.data.augment import Augmentation
from mltool.data.dataset import Samples
from mltool.data.mixing import Mixing
from mltool.data.order import epoch_order
from mltool.data.source import Array, ArrayLike


class Pipeline:
    """Batches of (inputs, targets, weights), where inputs is a map of float32 tensors, or of text.

    Mixed batches of classes have a fourth part, see `mixing.py`.

    Args:
        samples: to draw from.
        batch_size: global; the last batch may be smaller.
        seed: of the order; None keeps the order of the samples.
        augment: a function (sample, epoch, id) of the first input, see `augment.py`.
        mix: a function (batch, epoch, position) of whole batches, see `mixing.py`; the global ones.
        distribute: the strategy's `experimental_distribute_dataset`, or None on one device.
        class_weights: float32 [classes], multiplied into the samples' weights; None where all count alike.
    """

    def __init__(
        self,
        samples: Samples,
        batch_size: int,
        *,
        seed: int | None = None,
        augment: Augmentation | None = None,
        mix: Mixing | None = None,
        distribute: Callable[[Any], Any] | None = None,
        class_weights: Array | None = None,
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
            self._fetch = {name: _fetcher(array) for name, array in samples.inputs.items()}
            self._targets = tf.constant(samples.targets)
            self._weights = tf.constant(_weights_of(samples, class_weights))
            self._ids = tf.constant(samples.ids)
        self._batches = self._build(augment, mix)
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

    def _build(self, augment: Augmentation | None, mix: Mixing | None) -> Callable[[int], Any]:
        tf = extras.tensorflow()

        def gather(positions: Any) -> Any:
            rows = tf.gather(self._order, positions)
            inputs = {name: fetch(rows) for name, fetch in self._fetch.items()}
            return inputs, tf.gather(self._targets, rows), tf.gather(self._weights, rows)

        def augmented(batch: Any, positions: Any) -> Any:
            inputs, targets, weights = batch
            name = next(iter(inputs))
            ids = tf.gather(self._ids, tf.gather(self._order, positions))
            one = lambda sample: augment(sample[0], self._epoch, sample[1])  # type: ignore[misc]  # noqa: E731
            values = tf.map_fn(one, (inputs[name], ids), fn_output_signature=tf.float32)
            return {**inputs, name: tf.ensure_shape(values, inputs[name].shape)}, targets, weights

        def batches(first_step: int) -> Any:
            positions = tf.data.Dataset.range(first_step * self.batch_size, self.num_samples)

            def build(rows: Any) -> Any:
                batch = gather(rows) if augment is None else augmented(gather(rows), rows)
                return batch if mix is None else mix(batch, self._epoch, rows[0])

            dataset = positions.batch(self.batch_size).map(build, num_parallel_calls=tf.data.AUTOTUNE)
            return dataset.prefetch(tf.data.AUTOTUNE)

        return batches


def _weights_of(samples: Samples, class_weights: Array | None) -> Array:
    """How much every sample counts; float32 [samples]."""
    weights = np.ones(len(samples), np.float32) if samples.weights is None else samples.weights.astype(np.float32)
    return weights if class_weights is None else weights * class_weights[samples.targets].astype(np.float32)


def _fetcher(array: ArrayLike) -> Callable[[Any], Any]:
    """A function from positions to samples as the model takes them, for use inside tf.data."""
    tf = extras.tensorflow()
    is_text = array.dtype.kind == "U"
    if type(array) is np.ndarray:
        constant = tf.constant(np.ascontiguousarray(array))
        return lambda rows: tf.gather(constant, rows) if is_text else tf.cast(tf.gather(constant, rows), tf.float32)
    sample_shape, dtype = array.shape[1:], tf.string if is_text else tf.as_dtype(array.dtype)

    def fetch(rows: Any) -> Any:
        # No samples are held by the graph, and the function has no state: any batch can be asked for at any time.
        values = tf.numpy_function(lambda positions: array[positions], [rows], dtype, stateful=False)
        values = tf.ensure_shape(values, (None, *sample_shape))
        return values if is_text else tf.cast(values, tf.float32)

    return fetch

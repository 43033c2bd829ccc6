"""tf.data of samples; the one place that makes it.

Indices are shuffled and batched, then one gather fetches a batch: measured as fast as decoded images in a cache, and
any step of any epoch can be reached without running the ones before. What does not lie in memory (a file of decoded
samples or of rows, files to decode) is fetched by the same indices.
"""

import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from mltool import extras
from mltool.data.augment import Augmentation, MaskedAugmentation
from mltool.data.dataset import Samples
from mltool.data.mixing import Mixing
from mltool.data.order import epoch_order, order_type, steps_per_epoch
from mltool.data.scratch import is_on_disk, let_go, room_for, slices_of
from mltool.data.source import Array, ArrayLike
from mltool.data.stored_rows import RowReader
from mltool.errors import DataError


@dataclass(frozen=True)
class Shares:
    """Which parts of every global batch a process computes.

    Attributes:
        total: parts of a batch: one a replica.
        first: of this process.
        here: how many of them are this process'.
        least: samples that every share must have; a last batch that is too small for it is filled up.
        fill: whether all shares are filled up to one size, as compilers for TPUs want it.
    """

    total: int = 1
    first: int = 0
    here: int = 1
    least: int = 1
    fill: bool = False


_WHOLE = Shares()


class Pipeline:
    """Batches of (inputs, targets, weights), where inputs is a map of float32 tensors, or of text.

    The targets are a tensor, or a map of tensors where there are several outputs.

    Some batches have a fourth part, a map: mixed ones of classes their partners (`mixing.py`), and those that are
    filled up `real`, float32 [samples], 0 for every sample that stands there twice and counts nothing.

    A replica gets its share of a batch, samples n * r // replicas to n * (r + 1) // replicas of n, so that the last
    batch is spread too; a process fetches its own alone.

    Args:
        samples: to draw from.
        batch_size: global; the last batch may be smaller.
        seed: of the order; None keeps the order of the samples.
        augment: a function (sample, epoch, id) of the first input, or, where targets are masks, (sample, mask, epoch,
            id) of both, see `augment.py`.
        mix: a function (batch, epoch, position) of whole batches, see `mixing.py`; the global ones.
        shares: of this process in every batch.
        distribute: makes what a strategy runs on of a dataset of shares, one after the other; None on one device.
        class_weights: float32 [classes], multiplied into the samples' weights; None where all count alike.
    """

    def __init__(
        self,
        samples: Samples,
        batch_size: int,
        *,
        seed: int | None = None,
        augment: Augmentation | MaskedAugmentation | None = None,
        mix: Mixing | None = None,
        shares: Shares = _WHOLE,
        distribute: Callable[[Any], Any] | None = None,
        class_weights: Array | None = None,
    ) -> None:
        tf = extras.tensorflow()
        self.num_samples = len(samples)
        self.batch_size = batch_size
        self._distribute, self._shares = distribute, shares
        last = self.num_samples % batch_size or batch_size
        self._fills = shares.fill or last < shares.total * shares.least
        # tf.data runs on the CPU: what its functions capture must not lie on a GPU.
        with tf.device("CPU:0"):
            self._epoch = tf.Variable(0, dtype=tf.int64, trainable=False)
            self._order = _Order(seed, self.num_samples, on_disk=any(map(is_on_disk, samples.inputs.values())))
            self._failures: list[DataError] = []
            self._inputs = _gatherer(samples.inputs, self._failures)
            self._outputs = samples.targets.dtype.names or ()
            others: dict[str, ArrayLike] = {"targets": samples.targets}
            if self._outputs:
                whole = samples.targets[:]
                others = {_key(name): np.ascontiguousarray(whole[name]) for name in self._outputs}
            if samples.weights is not None:
                others["weights"] = samples.weights.astype(np.float32)
            if augment is not None:
                others["ids"] = samples.ids
            self._others = _gatherer(others, self._failures)
            self._class_weights = None if class_weights is None else tf.constant(class_weights, tf.float32)
        self._batches = self._build(augment, mix)
        self._datasets: dict[int, Any] = {}

    @property
    def steps(self) -> int:
        """Batches of an epoch."""
        return steps_per_epoch(self.num_samples, self.batch_size)

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Inside, what is wrong with the data is raised as it is: TensorFlow makes an error of its own of it.

        Raises:
            DataError: naming the file that can no longer be read.
        """
        tf = extras.tensorflow()
        try:
            yield
        except tf.errors.OpError:
            if self._failures:
                raise self._failures[0] from None
            raise

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[Any]:
        """An iterator over the batches of an epoch, from `first_step` on."""
        self._order.turn_to(epoch)
        self._epoch.assign(epoch)
        if first_step not in self._datasets:
            dataset = self._batches(first_step)
            self._datasets[first_step] = self._distribute(dataset) if self._distribute else dataset
        return iter(self._datasets[first_step])

    def _build(self, augment: Any, mix: Mixing | None) -> Callable[[int], Any]:
        tf = extras.tensorflow()

        def gather(positions: Any) -> Any:
            rows = self._order.rows_at(positions)
            inputs = {
                name: values if values.dtype == tf.string else tf.cast(values, tf.float32)
                for name, values in self._inputs(rows).items()
            }
            others = self._others(rows)
            weights = others.get("weights", tf.ones(tf.shape(rows), tf.float32))
            if self._class_weights is not None:
                weights *= tf.gather(self._class_weights, others["targets"])
            if augment is not None and others["targets"].shape.rank == _RANK_OF_MASKS:
                inputs, others["targets"] = augmented_with_masks(inputs, others["targets"], others["ids"])
            elif augment is not None:
                inputs = augmented(inputs, others["ids"])
            targets = {name: others[_key(name)] for name in self._outputs} if self._outputs else others["targets"]
            return inputs, targets, weights

        def augmented_with_masks(inputs: Any, masks: Any, ids: Any) -> Any:
            name = next(iter(inputs))
            one = lambda sample: augment(sample[0], sample[1], self._epoch, sample[2])  # noqa: E731
            values, moved = tf.map_fn(one, (inputs[name], masks, ids), fn_output_signature=(tf.float32, tf.uint8))
            return {**inputs, name: tf.ensure_shape(values, inputs[name].shape)}, tf.ensure_shape(moved, masks.shape)

        def augmented(inputs: Any, ids: Any) -> Any:
            name = next(iter(inputs))
            one = lambda sample: augment(sample[0], self._epoch, sample[1])  # noqa: E731
            values = tf.map_fn(one, (inputs[name], ids), fn_output_signature=tf.float32)
            return {**inputs, name: tf.ensure_shape(values, inputs[name].shape)}

        def whole(begin: Any, end: Any) -> Any:
            batch = gather(tf.range(begin, end))
            return batch if mix is None else mix(batch, self._epoch, begin)

        def build(step: Any) -> tuple[Any, ...]:
            begin = step * self.batch_size
            end = tf.minimum(begin + self.batch_size, self.num_samples)
            if self._shares == _WHOLE:
                return (whole(begin, end),)
            places = [self._places_of_share(end - begin, r) for r in range(first, first + self._shares.here)]
            if mix is None:
                # Only what this process computes is fetched.
                batch = gather(begin + tf.concat([rows for rows, _ in places], axis=0))
                sizes = [tf.size(rows) for rows, _ in places]
                parts = [tf.split(value, tf.stack(sizes), num=len(sizes)) for value in tf.nest.flatten(batch)]
                shares = [tf.nest.pack_sequence_as(batch, part) for part in zip(*parts, strict=True)]
            else:
                batch = whole(begin, end)
                shares = [
                    tf.nest.map_structure(lambda value, rows=rows: tf.gather(value, rows), batch) for rows, _ in places
                ]
            return tuple(self._with_real(share, real) for share, (_, real) in zip(shares, places, strict=True))

        def one_by_one(*shares: Any) -> Any:
            datasets = [tf.data.Dataset.from_tensors(share) for share in shares]
            return functools.reduce(lambda one, other: one.concatenate(other), datasets)

        first = self._shares.first

        def batches(first_step: int) -> Any:
            steps = tf.data.Dataset.range(first_step, self.steps)
            # Layers can need AutoGraph; without it, the first tracing of a process takes a quarter of the time.
            plain = augment is None and mix is None
            function = tf.autograph.experimental.do_not_convert(build) if plain else build
            if self._shares.here == 1:
                return steps.map(lambda step: function(step)[0], tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)
            return steps.map(function, tf.data.AUTOTUNE).flat_map(one_by_one).prefetch(tf.data.AUTOTUNE)

        return batches

    def _places_of_share(self, samples: Any, replica: int) -> tuple[Any, Any]:
        """Where the share of a replica lies in a batch of so many samples, and which places are real ones.

        Returns:
            int64 [share], and float32 [share] or None where nothing is filled up.
        """
        tf, shares = extras.tensorflow(), self._shares
        begin, end = samples * replica // shares.total, samples * (replica + 1) // shares.total
        if not self._fills:
            return tf.range(begin, end), None
        most = -(-self.batch_size // shares.total)
        size = most if shares.fill else tf.maximum(end - begin, shares.least)
        places = begin + tf.range(tf.cast(size, tf.int64))
        return places % samples, tf.cast(places < end, tf.float32)

    def _with_real(self, share: tuple[Any, ...], real: Any) -> tuple[Any, ...]:
        """A share with what of it is real; what is not has no weight."""
        if real is None:
            return share
        inputs, targets, weights, *rest = share
        more = {**(rest[0] if rest else {}), "real": real}
        if "weights" in more:
            more["weights"] *= real
        return inputs, targets, weights * real, more


def _key(output: str) -> str:
    """Of the targets of one of several outputs."""
    return f"targets of {output}"


_RANK_OF_MASKS = 3
"""A batch of them is [samples, height, width]; of values it is [samples, values], of classes [samples]."""


class _Order:
    """Which sample comes when in an epoch: in a variable, or, of samples on the disk, in a file as they are.

    Args:
        seed: None keeps the order of the samples.
        num_samples: of an epoch.
        on_disk: whether it lies there.
    """

    def __init__(self, seed: int | None, num_samples: int, *, on_disk: bool) -> None:
        self._seed, self._num_samples, self._file = seed, num_samples, None
        self._variable: Any = None
        if not on_disk:
            self._variable = extras.tensorflow().Variable(epoch_order(None, 0, num_samples), trainable=False)
        elif seed is not None:
            self._file = room_for((num_samples,), order_type(num_samples), on_disk=True)

    def turn_to(self, epoch: int) -> None:
        """Takes the order of an epoch."""
        if self._file is not None:
            epoch_order(self._seed, epoch, self._num_samples, out=self._file)
            let_go(self._file)
        elif self._seed is not None:
            self._variable.assign(epoch_order(self._seed, epoch, self._num_samples))

    def rows_at(self, positions: Any) -> Any:
        """The samples at positions of the epoch, for use inside tf.data."""
        tf = extras.tensorflow()
        if self._variable is not None:
            return tf.gather(self._variable, positions)
        file = self._file
        if file is None:
            return positions

        def read(places: Array) -> Array:
            rows = np.asarray(file[places])
            let_go(file)
            return rows

        return tf.ensure_shape(tf.numpy_function(read, [positions], file.dtype, stateful=False), (None,))


_ROWS_AT_ONCE = 128
"""Samples that are read from the disk before the pages of what is mapped are given back."""


def _gatherer(arrays: Mapping[str, ArrayLike], failures: list[DataError]) -> Callable[[Any], dict[str, Any]]:
    """A function from positions to samples, in the types of the arrays, for use inside tf.data.

    Args:
        arrays: by name.
        failures: where errors are kept that TensorFlow hands on as text.
    """
    tf = extras.tensorflow()
    # Not `tf.constant`: it copies an array twice, lest somebody changes it, and nobody does; the memory of both was
    # measured as the peak of a training.
    constants = {
        name: tf.raw_ops.Identity(input=np.ascontiguousarray(array))
        for name, array in arrays.items()
        if not is_on_disk(array)
    }
    rest = {name: array for name, array in arrays.items() if is_on_disk(array)}
    types = [tf.string if array.dtype.kind == "U" else tf.as_dtype(array.dtype) for array in rest.values()]
    names = tuple(arrays)  # and no array, which `gather` would keep in memory

    def read(positions: Array) -> list[Array]:
        try:
            return read_rows(positions)
        except DataError as error:
            failures.append(error)
            raise

    def read_rows(positions: Array) -> list[Array]:
        parts = []
        for few in slices_of(len(positions), _ROWS_AT_ONCE):
            reader = RowReader()
            parts.append([_as_bytes(reader.take(array, positions[few])) for array in rest.values()])
            let_go(*rest.values())
        return parts[0] if len(parts) == 1 else [np.concatenate(pieces) for pieces in zip(*parts, strict=True)]

    def gather(rows: Any) -> dict[str, Any]:
        found = {name: tf.gather(constant, rows) for name, constant in constants.items()}
        if rest:
            # One call for all; no samples are held by the graph, and the function has no state: any batch can be asked
            # for at any time.
            values = tf.numpy_function(read, [rows], types, stateful=False)
            for (name, array), value in zip(rest.items(), values, strict=True):
                found[name] = tf.ensure_shape(value, (None, *array.shape[1:]))
        return {name: found[name] for name in names}

    return gather


def _as_bytes(array: Array) -> Array:
    """Text as UTF-8, because `tf.numpy_function` takes ASCII only; numbers as they are."""
    return np.char.encode(array, "utf-8") if array.dtype.kind == "U" else array

"""Order is a function of (seed, epoch), never iterator state: resuming is a skip, a worker's share a slice."""

from typing import Any

import numpy as np

from mltool.data.scratch import slices_of
from mltool.data.source import Array


def order_type(num_samples: int) -> type[np.signedinteger[Any]]:
    """Of the positions of so many samples: the smaller, the less memory."""
    return np.int32 if num_samples <= 2**31 else np.int64


def steps_per_epoch(num_samples: int, batch_size: int) -> int:
    """Batches of an epoch; the last one may be smaller."""
    return -(-num_samples // batch_size)


def epoch_order(seed: int | None, epoch: int, num_samples: int, out: Array | None = None) -> Array:
    """The order of the training samples in one epoch; that of the source without a seed.

    A counter-based generator (Philox: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011) keyed by
    (seed, epoch), so that no epoch depends on the ones before.

    Args:
        seed: of the run.
        epoch: from 0.
        num_samples: of an epoch.
        out: what is filled, and returned, instead of a new array; of `order_type`.

    Returns:
        [num_samples], a permutation of 0 .. num_samples - 1.
    """
    order = np.empty(num_samples, order_type(num_samples)) if out is None else out
    for part in slices_of(num_samples):
        order[part] = np.arange(part.start, part.stop)
    if seed is not None:
        key = np.asarray([seed, epoch], dtype=np.uint64)
        # As a plain array: numpy shuffles one in a file a hundred times as slowly.
        np.random.Generator(np.random.Philox(key=key)).shuffle(np.asarray(order))
    return order


def samples_before(step: int, num_samples: int, batch_size: int) -> int:
    """Samples of an epoch that come before a step; the last batch may be smaller."""
    return min(step * batch_size, num_samples)

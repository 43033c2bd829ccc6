"""Order is a function of (seed, epoch), never iterator state: resuming is a skip, a worker's share a slice."""

import numpy as np

from mltool.data.source import Array


def epoch_order(seed: int | None, epoch: int, num_samples: int) -> Array:
    """The order of the training samples in one epoch; that of the source without a seed.

    A counter-based generator (Philox: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011) keyed by
    (seed, epoch), so that no epoch depends on the ones before.

    Returns:
        int32 [num_samples], a permutation of 0 .. num_samples - 1; int64 of more than 2**31.
    """
    order = np.arange(num_samples, dtype=np.int32 if num_samples <= 2**31 else np.int64)
    if seed is not None:
        key = np.asarray([seed, epoch], dtype=np.uint64)
        np.random.Generator(np.random.Philox(key=key)).shuffle(order)
    return order

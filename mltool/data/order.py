"""Order is a function of (seed, epoch), never iterator state: resuming is a skip, a worker's share a slice."""

import numpy as np

from mltool.data.source import Array


def epoch_order(seed: int, epoch: int, num_samples: int) -> Array:
    """The order of the training samples in one epoch.

    A counter-based generator (Philox: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011) keyed by
    (seed, epoch), so that no epoch depends on the ones before.

    Returns:
        int64 [num_samples], a permutation of 0 .. num_samples - 1.
    """
    key = np.asarray([seed, epoch], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key)).permutation(num_samples)

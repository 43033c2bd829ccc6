"""Draws a share of the samples: in proportion of every class, and no group torn apart."""

from dataclasses import dataclass

import numpy as np

from mltool.data.order import order_type
from mltool.data.scratch import is_on_disk, let_go, positions_of, room_for, slices_of
from mltool.data.source import Array


def taken_groups(pool: Array, groups: Array, classes: Array | None, share: float, seed: int) -> Array:
    """The groups of a share: from every class in proportion, whole groups, in a seeded order.

    Args:
        pool: bool [samples], those to draw from.
        groups: int64 [samples], equal for samples that must stay together: a position of one of them.
        classes: [samples] class numbers, or None when there is nothing to stratify by.
        share: of the samples of the pool, in (0, 1).
        seed: of the order.

    Returns:
        bool [samples], true at the numbers of these groups.
    """
    sizes, kinds = _sizes_and_kinds(pool, groups, classes)
    position = order_type(len(groups))
    unique = positions_of(sizes > 0, on_disk=is_on_disk(groups), dtype=position)
    order = np.arange(len(unique), dtype=position)
    np.random.default_rng([seed, 0x5B117]).shuffle(order)
    quota = _Quota.of(unique, sizes, kinds, share, keep_last=classes is not None)
    taken = np.zeros(len(groups), bool)
    for part in slices_of(len(order)):
        # At random places, so that every page is asked for: one array after the other, not all of them at once.
        numbers = unique[order[part]]
        let_go(unique)
        size = sizes[numbers]
        let_go(sizes)
        kind = kinds[numbers]
        let_go(kinds)
        taken[numbers[quota.take(size, kind)]] = True
    return taken


def _sizes_and_kinds(pool: Array, groups: Array, classes: Array | None) -> tuple[Array, Array]:
    """int32 [samples] each, at the number of a group: its samples in the pool, and the class of the first of them."""
    on_disk = is_on_disk(groups)
    sizes, kinds = (room_for((len(groups),), np.int32, on_disk=on_disk) for _ in range(2))
    sizes[:] = kinds[:] = 0
    for part in reversed(list(slices_of(len(groups)))):
        numbers = groups[part][pool[part]][::-1]
        np.add.at(sizes, numbers, 1)
        if classes is not None:
            kinds[numbers] = classes[part][pool[part]][::-1]  # backwards: the first one stays
            let_go(classes)
        let_go(groups, sizes, kinds)
    return sizes, kinds


@dataclass
class _Quota:
    """How many samples of every class are still to be taken.

    Attributes:
        wanted: int64 [classes], samples.
        left: int64 [classes], groups that were not taken.
        keep_last: whether the last group of a class stays: a class that training never sees cannot be learned.
        has_large: bool [classes], whether a group of the class has several samples.
    """

    wanted: Array
    left: Array
    keep_last: bool
    has_large: Array

    @classmethod
    def of(cls, unique: Array, sizes: Array, kinds: Array, share: float, *, keep_last: bool) -> "_Quota":
        count = 1 + max((int(kinds[unique[part]].max()) for part in slices_of(len(unique))), default=0)
        totals, left, large = np.zeros(count, np.int64), np.zeros(count, np.int64), np.zeros(count, np.int64)
        for part in slices_of(len(unique)):
            size, kind = sizes[unique[part]], kinds[unique[part]]
            left += np.bincount(kind, minlength=count)
            np.add.at(totals, kind, size)
            np.maximum.at(large, kind, size)
            let_go(unique, sizes, kinds)
        return cls(_proportional(totals, share), left, keep_last, large > 1)

    def take(self, sizes: Array, kinds: Array) -> Array:
        """Bool [groups]: which of the next groups are taken, in their order."""
        taken = np.zeros(len(sizes), bool)
        single = ~self.has_large[kinds]
        if single.any():
            taken[single] = self._take_singles(kinds[single])
        for index in np.flatnonzero(~single).tolist():
            kind, size = int(kinds[index]), int(sizes[index])
            if self.left[kind] == 1 and self.keep_last:
                continue
            # A group that would overshoot by more than it falls short stays.
            if 2 * self.wanted[kind] >= size:
                self.wanted[kind] -= size
                self.left[kind] -= 1
                taken[index] = True
        return taken

    def _take_singles(self, kinds: Array) -> Array:
        """The same for groups of one sample, all at once: the first of every class, as many as are wanted."""
        order = np.argsort(kinds, kind="stable")
        present, begins, counts = np.unique(kinds[order], return_index=True, return_counts=True)
        ranks = np.arange(len(order)) - np.repeat(begins, counts)
        most = np.minimum(self.wanted, self.left - self.keep_last).clip(min=0)
        taken = np.zeros(len(kinds), bool)
        taken[order] = ranks < np.repeat(most[present], counts)
        number = np.bincount(kinds[taken], minlength=len(self.wanted))
        self.wanted -= number
        self.left -= number
        return taken


def _proportional(totals: Array, share: float) -> Array:
    """Samples to take of every class: rounded down, the rest to the largest remainders, so that the total is right."""
    exact = totals * share
    counts = np.floor(exact).astype(np.int64)
    rest = round(float(exact.sum())) - int(counts.sum())
    counts[np.argsort(-(exact - counts), kind="stable")[:rest]] += 1
    return counts

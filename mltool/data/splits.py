"""Shares samples out between training, validation and test, and proves that no two splits share a sample."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from mltool.data.source import Array
from mltool.errors import DataError

Duplicates = Literal["drop", "error", "keep"]


@dataclass(frozen=True)
class Splits:
    """Positions of the samples of every split, int64, ascending.

    Attributes:
        dropped: copies of test or validation samples that were taken out.
        kept: copies that stayed, with `duplicates: keep`.
    """

    train: Array
    validation: Array
    test: Array
    dropped: int = 0
    kept: int = 0

    def ids(self) -> dict[str, Array]:
        """The three splits by name."""
        return {"train": self.train, "validation": self.validation, "test": self.test}


def make_splits(
    groups: Array,
    classes: Array | None,
    given: Mapping[str, Sequence[int] | Array],
    *,
    families: Array | None = None,
    by: Literal["random", "order"],
    validation: float,
    test: float,
    duplicates: Duplicates,
    seed: int,
) -> Splits:
    """Shares samples out.

    `random` is stratified by class, seeded, and keeps equal samples together; `order` takes the last samples of the
    source for test and the last of what is left for validation. A test set that the source brings stays as it is.

    Args:
        groups: [samples], equal for equal samples.
        classes: [samples], or None when there is nothing to stratify by.
        given: the splits that the source brings.
        families: [samples], equal for samples that must stay together, such as those of one speaker.
        by: what decides.
        validation: share of what is left after the test set.
        test: share of all samples, unless `given` has a test set.
        duplicates: what becomes of copies of test and validation samples.
        seed: of the random order.

    Raises:
        DataError: if a split would be empty, or copies are found with `duplicates: error`.
    """
    taken = {name: np.asarray(ids, dtype=np.int64) for name, ids in given.items()}
    elsewhere = np.concatenate([taken.get("validation", _NONE), taken.get("test", _NONE)])
    everything = np.arange(len(groups), dtype=np.int64)
    pool = taken.get("train", everything[~np.isin(everything, elsewhere)])
    together = groups
    if families is not None:
        # A family has samples of many classes: there is nothing to stratify by.
        together, classes = joined_groups(groups, families), None
    counts = _Copies(duplicates)
    if "test" in taken:
        test_ids = taken["test"]
    else:
        pool, test_ids = _take(pool, together, classes, share=test, by=by, seed=seed)
    if families is not None:
        _require_whole_families(families, {"train": pool, "test": test_ids})
    pool = counts.without(pool, groups, test_ids, "test", "training")
    if "validation" in taken:
        train_ids, validation_ids = pool, counts.without(taken["validation"], groups, test_ids, "test", "validation")
    else:
        train_ids, validation_ids = _take(pool, together, classes, share=validation, by=by, seed=seed + 1)
    train_ids = counts.without(train_ids, groups, validation_ids, "validation", "training")
    if families is not None:
        _require_whole_families(families, {"train": train_ids, "validation": validation_ids, "test": test_ids})
    splits = Splits(np.sort(train_ids), np.sort(validation_ids), np.sort(test_ids), counts.dropped, counts.kept)
    for name, ids in splits.ids().items():
        if len(ids) == 0:
            what = f"{len(groups)} samples" if families is None else f"{len(np.unique(families))} groups"
            raise DataError(f"the {name} split is empty: {what} are too few for the shares", "change data.split")
    if duplicates != "keep":
        require_disjoint({name: groups[ids] for name, ids in splits.ids().items()})
    return splits


_NONE: Array = np.empty(0, dtype=np.int64)


def joined_groups(groups: Array, families: Array) -> Array:
    """A number for every sample, the same for samples that a chain of equal samples and families connects.

    Args:
        groups: [samples], equal for equal samples.
        families: [samples], equal for samples of one speaker, patient, machine ...

    Returns:
        int64 [samples]: the position of the first sample of the chain.
    """
    joined = np.unique(groups, return_inverse=True)[1]
    _, first = np.unique(families, return_inverse=True)
    # The least number of a family, then of a group of equal samples, until nothing changes.
    while True:
        before = joined.copy()
        for numbers in (first, before):
            least = np.full(int(numbers.max()) + 1, len(groups))
            np.minimum.at(least, numbers, joined)
            joined = least[numbers]
        if np.array_equal(joined, before):
            return np.unique(joined, return_index=True)[1][np.unique(joined, return_inverse=True)[1]]


def _require_whole_families(families: Array, splits: Mapping[str, Array]) -> None:
    """Proves that no group stands on both sides of a split.

    Raises:
        DataError: naming the group and the two splits.
    """
    names = list(splits)
    for position, one in enumerate(names):
        for other in names[position + 1 :]:
            shared = np.intersect1d(families[splits[one]], families[splits[other]])
            if len(shared):
                more = f" and {len(shared) - 1} more" if len(shared) > 1 else ""
                raise DataError(
                    f"the group {shared[0].item()!r}{more} stands in {one} and in {other}",
                    "split by: random keeps groups together; or move its samples to one side",
                )


@dataclass
class _Copies:
    duplicates: Duplicates
    dropped: int = 0
    kept: int = 0

    def without(self, ids: Array, groups: Array, other: Array, other_name: str, name: str) -> Array:
        copies = np.isin(groups[ids], groups[other])
        count = int(copies.sum())
        if count and self.duplicates == "error":
            first = int(ids[copies][0])
            message = f"{count} samples of {name} are copies of {other_name} samples (first: sample {first})"
            raise DataError(message, "take them out, or set data.split.duplicates: drop")
        if self.duplicates == "keep":
            self.kept += count
            return ids
        self.dropped += count
        return ids[~copies]


def require_disjoint(identities: Mapping[str, Array]) -> None:
    """Proves that no two splits share a sample.

    Args:
        identities: split name to what identifies its samples (groups or content hashes).

    Raises:
        DataError: naming the two splits and how many samples they share.
    """
    names = list(identities)
    for position, one in enumerate(names):
        for other in names[position + 1 :]:
            shared = np.intersect1d(identities[one], identities[other])
            if len(shared):
                raise DataError(f"{len(shared)} samples stand in {one} and in {other}", "split the data again")


def _take(
    pool: Array, groups: Array, classes: Array | None, *, share: float, by: Literal["random", "order"], seed: int
) -> tuple[Array, Array]:
    """What is left of the pool, and the share that was taken."""
    if by == "order":
        edge = len(pool) - round(len(pool) * share)
        return pool[:edge], pool[edge:]
    taken = _taken_groups(pool, groups, classes, share, seed)
    chosen = np.isin(groups[pool], taken)
    return pool[~chosen], pool[chosen]


def _taken_groups(pool: Array, groups: Array, classes: Array | None, share: float, seed: int) -> Array:
    """The groups of the share: from every class in proportion, whole groups, in a seeded order."""
    random = np.random.default_rng([seed, 0x5B117])
    unique, first, sizes = np.unique(groups[pool], return_index=True, return_counts=True)
    kinds = np.zeros(len(unique), dtype=np.int64) if classes is None else classes[pool][first]
    order = random.permutation(len(unique))
    wanted = _proportional(kinds, sizes, share)
    left = {int(kind): int(count) for kind, count in zip(*np.unique(kinds, return_counts=True), strict=True)}
    taken: list[int] = []
    for index in order:
        kind = int(kinds[index])
        # The last of a class stays: a class that training never sees cannot be learned.
        if left[kind] == 1 and classes is not None:
            continue
        # A group that would overshoot by more than it falls short stays.
        if 2 * wanted[kind] >= int(sizes[index]):
            wanted[kind] -= int(sizes[index])
            left[kind] -= 1
            taken.append(int(unique[index]))
    return np.asarray(taken, dtype=np.int64)


def _proportional(kinds: Array, sizes: Array, share: float) -> dict[int, int]:
    """Samples to take of every class: rounded down, the rest to the largest remainders, so that the total is right."""
    present = np.unique(kinds)
    exact = np.asarray([sizes[kinds == kind].sum() * share for kind in present])
    counts = np.floor(exact).astype(np.int64)
    rest = round(float(exact.sum())) - int(counts.sum())
    for index in np.argsort(-(exact - counts), kind="stable")[:rest]:
        counts[index] += 1
    return {int(kind): int(count) for kind, count in zip(present, counts, strict=True)}

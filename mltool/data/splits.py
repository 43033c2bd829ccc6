"""Shares samples out between training, validation and test, and proves that no two splits share a sample."""

import itertools
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from mltool.data.scratch import PARTS, as_index, is_on_disk, let_go, positions_of, slices_of, taken_from, with_last_bits
from mltool.data.shares import taken_groups
from mltool.data.source import Array, Windows
from mltool.errors import DataError

logger = logging.getLogger("mltool")

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
    join_copies: bool = True,
    by: Literal["random", "order"],
    validation: float,
    test: float,
    duplicates: Duplicates,
    seed: int,
    name_of: Callable[[int], str] = "sample {}".format,
) -> Splits:
    """Shares samples out.

    `random` is stratified by class, seeded, and keeps equal samples together; `order` takes the last samples of the
    source for test and the last of what is left for validation. A test set that the source brings stays as it is.

    Args:
        groups: [samples], equal for equal samples.
        classes: [samples], or None when there is nothing to stratify by.
        given: the splits that the source brings.
        families: [samples], equal for samples that must stay together, such as those of one speaker.
        join_copies: whether families that share an equal sample stay together; else copies are treated as `duplicates`
            says. Windows of several series at rest are equal by chance, and would join all of them.
        by: what decides.
        validation: share of what is left after the test set.
        test: share of all samples, unless `given` has a test set.
        duplicates: what becomes of copies of test and validation samples.
        seed: of the random order.
        name_of: what a sample is called in messages.

    Raises:
        DataError: if a split would be empty, or copies are found with `duplicates: error`.
    """
    taken = {name: _mask(ids, len(groups)) for name, ids in given.items()}
    nothing = np.zeros(len(groups), bool)
    pool = taken.get("train", ~(taken.get("validation", nothing) | taken.get("test", nothing)))
    together = groups
    if families is not None:
        # A family has samples of many classes: there is nothing to stratify by.
        together, classes = joined_groups(groups if join_copies else np.arange(len(groups)), families), None
    counts = _Copies(duplicates, name_of)
    if "test" in taken:
        test_set = taken["test"]
    else:
        pool, test_set = _take(pool, together, classes, share=test, by=by, seed=seed)
    if families is not None:
        _require_whole_families(families, {"train": pool, "test": test_set})
    pool = counts.without(pool, groups, test_set, "test", "training")
    if "validation" in taken:
        train_set, validation_set = pool, counts.without(taken["validation"], groups, test_set, "test", "validation")
    else:
        train_set, validation_set = _take(pool, together, classes, share=validation, by=by, seed=seed + 1)
    train_set = counts.without(train_set, groups, validation_set, "validation", "training")
    if families is not None:
        _require_whole_families(families, {"train": train_set, "validation": validation_set, "test": test_set})
    splits = _splits_of(train_set, validation_set, test_set, groups, counts)
    for name, ids in splits.ids().items():
        if len(ids) == 0:
            raise _empty_split(name, groups, families, counts.dropped)
    return splits


def split_windows(
    windows: Windows,
    groups: Array,
    *,
    validation: float,
    test: float,
    duplicates: Duplicates,
    name_of: Callable[[int], str] = "sample {}".format,
) -> Splits:
    """Shares windows out by their rows: the last rows of every series are test, the last of what is left validation.

    A window belongs to a split if all its rows do, those of its target too; what lies across a boundary is left out,
    so that training sees no row of validation or test.

    Args:
        windows: that are shared out.
        groups: [samples], equal for equal samples.
        validation: share of the rows that are left after the test set.
        test: share of all rows.
        duplicates: what becomes of copies of test and validation samples.
        name_of: what a sample is called in messages.

    Raises:
        DataError: if a split would be empty, or copies are found with `duplicates: error`.
    """
    firsts, ends = windows.firsts, windows.firsts + windows.num_rows
    test_from = windows.ends - np.round((windows.ends - windows.begins) * test).astype(np.int64)
    validation_from = test_from - np.round((test_from - windows.begins) * validation).astype(np.int64)
    test_set = firsts >= test_from
    validation_set = (firsts >= validation_from) & (ends <= test_from)
    train_set = ends <= validation_from
    across = int(np.count_nonzero(~(test_set | validation_set | train_set)))
    counts = _Copies(duplicates, name_of)
    train_set = counts.without(train_set, groups, test_set, "test", "training")
    validation_set = counts.without(validation_set, groups, test_set, "test", "validation")
    train_set = counts.without(train_set, groups, validation_set, "validation", "training")
    splits = _splits_of(train_set, validation_set, test_set, groups, counts)
    for name, ids in splits.ids().items():
        if len(ids) == 0 and counts.dropped:
            raise _empty_split(name, groups, None, counts.dropped)
        if len(ids) == 0:
            message = f"the {name} split is empty: its rows are fewer than the {windows.num_rows} of a window"
            raise DataError(message, "change data.split, or take shorter windows: data.source.window")
    if across:
        logger.info("%d windows lie across a boundary between splits, and are left out", across)
    return splits


def _splits_of(train: Array, validation: Array, test: Array, groups: Array, counts: "_Copies") -> Splits:
    """The splits of bool [samples] each, proven to share no sample, unless copies are kept."""
    train, validation, test = (positions_of(each, on_disk=is_on_disk(groups)) for each in (train, validation, test))
    splits = Splits(train, validation, test, counts.dropped, counts.kept)
    if counts.duplicates != "keep":
        require_disjoint({name: taken_from(groups, ids) for name, ids in splits.ids().items()})
    return splits


def with_anomalies(
    splits: Splits,
    anomalies: Array,
    groups: Array,
    given: Mapping[str, Sequence[int] | Array],
    *,
    families: Array | None = None,
) -> Splits:
    """Puts anomalies into the test split: into all others no training of an autoencoder may look.

    Args:
        splits: of the normal samples.
        anomalies: int64, positions.
        groups: [samples], equal for equal samples; normal samples that equal an anomaly are left out.
        given: splits that the source brings; of anomalies in its test set alone, where it has one.
        families: [samples], equal for samples that must stay together; those that training or validation has cannot
            have an anomaly in the test set too.

    Raises:
        DataError: if no anomaly is left, or a family stands in the test set that the source brings and in another.
    """
    there = anomalies
    if "test" in given:
        there = np.intersect1d(anomalies, np.asarray(given["test"], np.int64))
    elif families is not None:
        elsewhere = families[np.concatenate([splits.train, splits.validation])]
        there = anomalies[~np.isin(families[anomalies], elsewhere)]
    why = "" if families is None or "test" in given else ", as normal samples of their groups stand in training"
    if not len(there):
        raise DataError(
            f"the test set has no anomaly: {len(anomalies)} are left out{why}", "add some, or leave group out"
        )
    if len(there) < len(anomalies):
        logger.info("%d anomalies outside of the test set are left out%s", len(anomalies) - len(there), why)
    test = np.union1d(splits.test, there)
    alike = np.isin(groups, groups[there])
    train, validation = splits.train[~alike[splits.train]], splits.validation[~alike[splits.validation]]
    dropped = len(splits.train) - len(train) + len(splits.validation) - len(validation)
    found = Splits(train, validation, test, splits.dropped + dropped, splits.kept)
    if families is not None:
        _require_whole_families(families, found.ids())
    return found


def _empty_split(name: str, groups: Array, families: Array | None, dropped: int) -> DataError:
    """Why a split has no samples."""
    different = len(np.unique(groups))
    if dropped and different < len(groups):
        message = f"the {name} split is empty: {dropped} samples are copies of validation or test samples"
        return DataError(message, "take the copies out, or give other data for them")
    if different < len(groups) / 2:
        message = f"the {name} split is empty: {len(groups)} samples, but only {different} different ones"
        return DataError(message, "equal samples stay together: are the data what they should be?")
    what = f"{len(groups)} samples" if families is None else f"{len(np.unique(families))} groups"
    return DataError(f"the {name} split is empty: {what} are too few for the shares", "change data.split")


def _mask(positions: Sequence[int] | Array, count: int) -> Array:
    """Bool [count], true at some positions: a byte a sample, where positions take eight."""
    mask = np.zeros(count, bool)
    mask[as_index(positions)] = True
    return mask


def _groups_in(groups: Array, mask: Array) -> Array:
    """Bool [samples], true at the numbers of the groups that have a sample in a mask."""
    found = np.zeros(len(groups), bool)
    for part in slices_of(len(groups)):
        found[groups[part][mask[part]]] = True
        let_go(groups)
    return found


def _members(groups: Array, mask: Array, marked: Array) -> Array:
    """Bool [samples], the samples of a mask whose group is marked."""
    found = np.zeros(len(groups), bool)
    for part in slices_of(len(groups)):
        found[part] = mask[part] & marked[groups[part]]
        let_go(groups)
    return found


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
    name_of: Callable[[int], str]
    dropped: int = 0
    kept: int = 0

    def without(self, mask: Array, groups: Array, other: Array, other_name: str, name: str) -> Array:
        copies = _members(groups, mask, _groups_in(groups, other))
        count = int(np.count_nonzero(copies))
        if count and self.duplicates == "error":
            first = int(np.argmax(copies))
            twin = int(np.argmax((groups == groups[first]) & other))
            pair = f"{self.name_of(first)} = {self.name_of(twin)}"
            message = f"{count} samples of {name} are copies of {other_name} samples (first: {pair})"
            raise DataError(message, "take them out, or set data.split.duplicates: drop")
        if self.duplicates == "keep":
            self.kept += count
            return mask
        self.dropped += count
        return mask & ~copies


def require_disjoint(identities: Mapping[str, Array]) -> None:
    """Proves that no two splits share a sample.

    Args:
        identities: split name to what identifies its samples (groups or content hashes).

    Raises:
        DataError: naming the two splits and how many samples they share.
    """
    names = list(identities)
    shared = dict.fromkeys(itertools.combinations(names, 2), 0)
    for bits in range(PARTS):
        there = {name: np.unique(with_last_bits(values, bits)) for name, values in identities.items()}
        for one, other in shared:
            shared[one, other] += len(np.intersect1d(there[one], there[other], assume_unique=True))
    for (one, other), count in shared.items():
        if count:
            raise DataError(f"{count} samples stand in {one} and in {other}", "split the data again")


def _take(
    pool: Array, groups: Array, classes: Array | None, *, share: float, by: Literal["random", "order"], seed: int
) -> tuple[Array, Array]:
    """What is left of the pool, and the share that was taken; bool [samples] all."""
    if by == "order":
        count = int(np.count_nonzero(pool))
        chosen = pool & (np.cumsum(pool) > count - round(count * share))
    else:
        chosen = _members(groups, pool, taken_groups(pool, groups, classes, share, seed))
    return pool & ~chosen, chosen

"""How far two samples of a quantity are apart, and how far chance alone puts them."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import log, sqrt

import numpy as np

from mltool.data.scratch import let_go, spread
from mltool.data.source import Array, ArrayLike, Source, batches_of

CHANCE = 0.01
"""Share of scans in which chance alone makes a distance larger than its noise, over all that a scan looks at."""

MOST_COMPARED = 500_000
"""Samples of a split that are compared, spread over it: more would tell nothing that these do not."""

MOST_COLUMNS = 256
"""Numbers a sample that are looked at one by one; of more, as of an image, the mean is."""


@dataclass(frozen=True)
class Distance:
    """Of the test values of an input from its training values.

    Attributes:
        value: 0 for equal distributions, 1 for disjoint ones.
        noise: what samples of one distribution of these sizes stay below.
    """

    value: float
    noise: float


def distances(source: Source, ids: Mapping[str, Array]) -> dict[str, Distance]:
    """How far test is from training, by input; inputs without a value in one of them are left out.

    Args:
        source: all samples.
        ids: positions of the samples of every split.
    """
    train, test = (spread(ids[split], MOST_COMPARED) for split in ("train", "test"))
    let_go(*ids.values())
    # Of many distances, one is large by chance: each is held to its share (Bonferroni).
    chance = CHANCE / max(1, sum(_num_columns(source, name) for name in source.inputs))
    found: dict[str, Distance] = {}
    # One input after the other: all of them at once are a copy of the data.
    for name, array in source.inputs.items():
        if _is_words(source, name):
            apart = [_word_distance(array[train].reshape(-1), array[test].reshape(-1), chance)]
            let_go(array)
        else:
            pairs = zip(_columns(array, train), _columns(array, test), strict=True)
            shared = _shared(source)
            apart = [_number_distance(*pair, chance, shared=shared) for pair in pairs]
        there = [distance for distance in apart if distance is not None]
        if there:
            found[name] = max(there, key=lambda distance: distance.value - distance.noise)
    return found


def _shared(source: Source) -> float:
    """In how many windows a row of a table stands, on average; 1 where samples share nothing."""
    found = source.windows
    if found is None:
        return 1.0
    num_rows = int(found.firsts.max()) - int(found.firsts.min()) + found.num_rows
    return max(1.0, len(found.firsts) * found.num_rows / num_rows)


def _is_words(source: Source, name: str) -> bool:
    return source.kinds.get(name) == "category" and source.inputs[name].dtype.kind == "U"


def _num_columns(source: Source, name: str) -> int:
    shape = source.inputs[name].shape
    values = int(np.prod(shape[1:], dtype=np.int64))
    return values if not _is_words(source, name) and len(shape) <= 2 and values <= MOST_COLUMNS else 1


def _columns(array: ArrayLike, positions: Array) -> list[Array]:
    """Numbers to compare: each of a few a sample; the mean of an image, a sound, a series; the length of a text."""
    parts = []
    for batch in batches_of(array, positions):
        values = np.char.str_len(batch) if batch.dtype.kind == "U" else batch
        rows = values.astype(np.float64).reshape(len(batch), -1)
        few = len(array.shape) <= 2 and rows.shape[1] <= MOST_COLUMNS
        parts.append(rows if few else rows.mean(axis=1, keepdims=True))
    return [column[~np.isnan(column)] for column in np.concatenate(parts).T]


def _number_distance(one: Array, other: Array, chance: float, *, shared: float = 1.0) -> Distance | None:
    """See `Distance`; samples of which `shared` have the same rows tell no more than one of them."""
    value = smirnov(one, other)
    if value is None:
        return None
    # The limit of the distribution of the statistic, first term of its series (Smirnov, 1948).
    return Distance(value, sqrt(-log(chance / 2) / 2 * shared * (1 / len(one) + 1 / len(other))))


def _word_distance(one: Array, other: Array, chance: float) -> Distance | None:
    value = total_variation(one, other)
    if value is None:
        return None
    spread = 1 / len(one) + 1 / len(other)
    shares = np.unique(np.concatenate([one, other]), return_counts=True)[1] / (len(one) + len(other))
    # Many rare categories differ by chance: half of the deviations of the shares bounds the expected value (Jensen),
    # and one sample more or less moves it by its share at most (McDiarmid, "On the method of bounded differences",
    # 1989, lemma 1.2).
    expected = 0.5 * float(np.sqrt(shares * (1 - shares) * spread).sum())
    return Distance(value, expected + sqrt(-log(chance) / 2 * spread))


def smirnov(one: Array, other: Array) -> float | None:
    """The two-sample Kolmogorov-Smirnov statistic: the largest distance of two empirical distributions, in [0, 1].

    Smirnov, "Table for estimating the goodness of fit of empirical distributions", Ann. Math. Statist. 19, 1948.
    """
    if not len(one) or not len(other):
        return None
    places = np.sort(np.concatenate([one, other]))
    below = [np.searchsorted(np.sort(values), places, side="right") / len(values) for values in (one, other)]
    return float(np.abs(below[0] - below[1]).max())


def total_variation(one: Array, other: Array) -> float | None:
    """Half of the sum of the differences of the shares of every category, in [0, 1]."""
    if not len(one) or not len(other):
        return None
    names = np.unique(np.concatenate([one, other]))
    shares = [
        np.bincount(np.searchsorted(names, values), minlength=len(names)) / len(values) for values in (one, other)
    ]
    return float(np.abs(shares[0] - shares[1]).sum() / 2)

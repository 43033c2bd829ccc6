"""Samples that are equal to another one: how many, and by name those that stand in two splits."""

from typing import Any

import numpy as np

from mltool.data.dataset import SPLITS, Dataset
from mltool.data.identity import content_hashes, repeated
from mltool.data.scratch import as_index, let_go, slices_of, taken_from
from mltool.data.source import Array, Subset

MOST_NAMED = 10
"""Groups of equal samples that are named."""

_LEFT_OUT = len(SPLITS)
"""Added to the number of the split that the source put a sample into, where the sample is in none any more."""


def copies(data: Dataset) -> dict[str, Any]:
    """Counts copies, from the samples and splits alone: a resumed run, whose splits are recorded, counts the same.

    Returns:
        `samples_with_a_copy`; `contradicting`: those with a copy of another class, or with another mask, in
        `contradicting_groups` groups; `contradictions`: names of the first of them, a sample of each class or mask;
        `across_splits`: groups of equal samples
        that stand in two splits, or stood in two until one was left out; `dropped`: left out; `kept`: samples of
        training with a copy in validation or test, and of validation with one in test; `first`: names of the first
        groups, a sample of each split.
    """
    places = _places(data)
    copied = repeated(data.hashes)
    order = copied[np.argsort(data.hashes[copied], kind="stable")]
    ordered = data.hashes[order]
    starts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1])[: len(order)])
    here = places[order]
    sizes = np.diff(starts, append=len(order))
    stands = [_group_has(here == place, starts, sizes) for place in range(2 * _LEFT_OUT + 1)]
    crossing = np.sum(stands, axis=0) > 1
    kept = ((here == 0) & (stands[1] | stands[2])) | ((here == 1) & stands[2])
    across = starts[crossing[starts]]
    return {
        "samples_with_a_copy": len(order),
        **_contradictions(data, order, starts, sizes),
        "across_splits": len(across),
        "dropped": int((crossing & (here >= _LEFT_OUT)).sum()),
        "kept": int(kept.sum()),
        "first": [_named(data, group, places) for group in _first_groups(order, starts, sizes, crossing[starts])],
    }


def _first_groups(order: Array, starts: Array, sizes: Array, mark: Array) -> list[Array]:
    """The groups of equal samples that are marked, those whose first sample comes first; `MOST_NAMED` of them."""
    places = np.flatnonzero(mark)
    places = places[np.argsort(order[starts[places]])[:MOST_NAMED]]
    return [order[starts[place] : starts[place] + sizes[place]] for place in places]


def _contradictions(data: Dataset, order: Array, starts: Array, sizes: Array) -> dict[str, Any]:
    """How many samples are in groups of several classes, and the first of each class of the first such groups."""
    if (data.classes is None and data.task != "segmentation") or not len(order):
        return {"contradicting": 0, "contradicting_groups": 0, "contradictions": []}
    classes = _classes(data, order)
    differ = np.maximum.reduceat(classes, starts) != np.minimum.reduceat(classes, starts)
    named = []
    for group in _first_groups(order, starts, sizes, differ):
        firsts = group[np.unique(_classes(data, group), return_index=True)[1]]
        named.append([_with_class(data, one) for one in sorted(firsts.tolist())])
    return {
        "contradicting": int(sizes[differ].sum()),
        "contradicting_groups": int(differ.sum()),
        "contradictions": named,
    }


def _classes(data: Dataset, positions: Array) -> Array:
    """What tells the classes of samples apart: their numbers; of masks, hashes of all pixels."""
    if data.classes is None:
        return content_hashes({"mask": Subset(data.targets, positions)})
    return taken_from(data.classes, positions)


def _with_class(data: Dataset, position: int) -> str:
    name = data.source.name_of(position)
    return name if data.classes is None else f"{name} ({data.labels[int(data.classes[position])]})"


def _group_has(mark: Array, starts: Array, sizes: Array) -> Array:
    """Of every sample whether one of its group is marked; groups lie one after the other."""
    marked = np.logical_or.reduceat(mark, starts) if len(starts) else mark
    found: Array = np.repeat(marked, sizes)
    return found


def _places(data: Dataset) -> Array:
    """Of every sample the number of its split; of one that is left out, that of the split it was in, and more."""
    places = np.full(len(data.hashes), 2 * _LEFT_OUT, np.int8)
    for number, split in enumerate(SPLITS):
        places[as_index(data.source.given.get(split, ()))] = number + _LEFT_OUT
    for number, positions in enumerate(data.splits.ids().values()):
        for part in slices_of(len(positions)):
            places[positions[part]] = number
            let_go(positions)
    return places


def _named(data: Dataset, group: Array, places: Array) -> list[str]:
    """The first sample of every place that the group stands in."""
    first = np.sort(group[np.unique(places[group], return_index=True)[1]])
    return [f"{data.source.name_of(int(position))} ({_place_name(int(places[position]))})" for position in first]


def _place_name(place: int) -> str:
    if place < _LEFT_OUT:
        return SPLITS[place]
    return "left out" if place == 2 * _LEFT_OUT else f"{SPLITS[place - _LEFT_OUT]}, left out"

"""Labels renamed, classes filtered, and fewer samples drawn, as the spec asks."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from mltool.data.source import Array, Source, Subset, label_of
from mltool.errors import DataError


def select(
    source: Source,
    *,
    labels: Mapping[str, str] | None = None,
    classes: Sequence[str] | None = None,
    max_samples: int | None = None,
    max_per_class: int | None = None,
    has_classes: bool = True,
    seed: int = 0,
) -> Source:
    """The samples of a source that the spec asks for.

    Args:
        source: all samples.
        labels: label to the name that it is taken as; others stay.
        classes: labels to keep; of masks, which have one a pixel, none can be.
        max_samples: at most so many, without those of a test set that the source brings.
        max_per_class: at most so many of each class, likewise.
        has_classes: whether the targets are classes, of one output.
        seed: of what is drawn.

    Raises:
        DataError: if a label or class is not in the data, or values are to be filtered by class.
    """
    has_one = has_classes and (source.targets.ndim == 1 or source.targets[:1].size <= 1)
    if not has_one and (labels or classes or max_per_class):
        hint = "leave labels, classes and max_per_class out"
        raise DataError("the targets are not one class a sample, and cannot be filtered by class", hint)
    if labels:
        source = _renamed(source, labels)
    if not (classes or max_samples or max_per_class):
        return source
    keep = np.arange(source.num_samples)
    if classes:
        names = np.asarray([label_of(value) for value in source.targets])
        unknown = [label for label in classes if label not in set(names)]
        if unknown:
            known = ", ".join(sorted(set(names))[:20])
            raise DataError(f"{source.origin} has no class {unknown[0]!r}", f"it has: {known}")
        keep = keep[np.isin(names, classes)]
    if max_samples or max_per_class:
        keep = _drawn(source, keep, max_samples, max_per_class, seed)
    return source if len(keep) == source.num_samples else taken(source, keep)


def taken(source: Source, positions: Array) -> Source:
    """The source with some of its samples, in order of their positions.

    Args:
        source: all samples.
        positions: int64, ascending.
    """
    place = np.full(source.num_samples, -1)
    place[positions] = np.arange(len(positions))
    given = {}
    for name, ids in source.given.items():
        moved = place[np.asarray(ids, dtype=np.int64)]
        given[name] = moved[moved >= 0]
    return replace(
        source,
        inputs={name: Subset.of(array, positions) for name, array in source.inputs.items()},
        targets=source.targets[positions],
        given=given,
        groups=None if source.groups is None else source.groups[positions],
        weights=None if source.weights is None else source.weights[positions],
        windows=None if source.windows is None else source.windows.taken(positions),
        names=[source.names[index] for index in positions.tolist()] if len(source.names) else (),
    )


def _renamed(source: Source, labels: Mapping[str, str]) -> Source:
    names = np.asarray([label_of(value) for value in source.targets])
    unknown = [label for label in labels if label not in set(names)]
    if unknown:
        known = ", ".join(sorted(set(names))[:20])
        raise DataError(f"{source.origin} has no label {unknown[0]!r}, which labels renames", f"it has: {known}")
    classes = tuple(dict.fromkeys(labels.get(name, name) for name in source.classes))
    return replace(source, targets=np.asarray([labels.get(name, name) for name in names]), classes=classes)


def _drawn(source: Source, keep: Array, most: int | None, most_of_class: int | None, seed: int) -> Array:
    """Positions that stay: a test set as it is, of the others a seeded draw."""
    test = np.isin(keep, np.asarray(source.given.get("test", ()), dtype=np.int64))
    pool = np.random.default_rng([seed, 0xD4A]).permutation(keep[~test])
    if most_of_class:
        targets: Any = source.targets[pool]
        rank = np.zeros(len(pool), dtype=np.int64)
        for value in np.unique(targets):
            members = np.flatnonzero(targets == value)
            rank[members] = np.arange(len(members))
        pool = pool[rank < most_of_class]
    if most:
        pool = pool[:most]
    return np.sort(np.concatenate([pool, keep[test]]))

"""The truth about data before an hour is spent on training: counts, ranges, copies, damage, drift, and what to do."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from mltool.data.dataset import SPLITS, Dataset
from mltool.data.source import Array, ArrayLike

SCHEMA_VERSION = 1

IMBALANCE = 10.0
"""The largest class may be so many times the smallest before it is worth a warning."""

DRIFT = 0.15
"""A Kolmogorov-Smirnov statistic, or a total variation distance, from which on train and test differ visibly.

Of two samples of 500 of one distribution the statistic is above 0.086 in one of twenty cases (Smirnov, Annals of
Mathematical Statistics 19, 1948), so small splits are held to their own noise as well.
"""

MOST_NAMED = 5
"""Samples that a finding names; the document has all."""

MOST_VALUES = 10
"""Categories and copies that are listed one by one."""


@dataclass(frozen=True)
class Finding:
    """Something to know or to mend.

    Attributes:
        level: `error`: training on it proves nothing; `warning`: look at it; `note`.
        message: what was found, with names of samples.
        hint: what to do.
    """

    level: Literal["error", "warning", "note"]
    message: str
    hint: str = ""


def scan(data: Dataset) -> dict[str, Any]:
    """Looks at all samples of a data set, split by split.

    Returns:
        A JSON document: `schema_version`, `source`, `task`, `splits` (samples and classes of each), `inputs` (by name:
        kind, dtype, shape, and by split what values there are), `targets` of a regression, `copies`, `skipped`, `drift`
        (train against test, 0 to 1, by input), `findings`.
    """
    ids = data.splits.ids()
    inputs = {name: _describe(data, name, ids) for name in data.source.inputs}
    drift = {name: _drift(data, name, ids) for name in data.source.inputs}
    copies = _copies(data)
    document = {
        "schema_version": SCHEMA_VERSION,
        "source": data.source.origin,
        "task": data.task,
        "splits": {name: _split(data, positions) for name, positions in ids.items()},
        "inputs": inputs,
        "targets": _numbers(data.targets[ids["train"]]) if data.task == "regression" else None,
        "copies": copies,
        "skipped": [asdict(item) for item in data.source.skipped],
        "drift": {name: value for name, value in drift.items() if value is not None},
    }
    return {**document, "findings": [asdict(finding) for finding in _findings(data, document)]}


def _split(data: Dataset, positions: Array) -> dict[str, Any]:
    found: dict[str, Any] = {"samples": len(positions)}
    if data.labels:
        counts = np.bincount(data.targets[positions], minlength=len(data.labels))
        found["classes"] = dict(zip(data.labels, counts.tolist(), strict=True))
    if data.source.groups is not None:
        found["groups"] = len(np.unique(data.source.groups[positions]))
    return found


def _describe(data: Dataset, name: str, ids: Mapping[str, Array]) -> dict[str, Any]:
    array = data.source.inputs[name]
    found: dict[str, Any] = {
        "kind": data.source.kinds.get(name, ""),
        "original": data.source.originals.get(name, name),
        "dtype": "text" if array.dtype.kind == "U" else str(array.dtype),
        "shape": list(array.shape[1:]),
        "splits": {},
    }
    for split, positions in ids.items():
        if array.dtype.kind == "U":
            found["splits"][split] = _texts(array[positions].reshape(-1), found["kind"])
        else:
            found["splits"][split] = _streamed(array, positions)
    return found


def _texts(values: Array, kind: str) -> dict[str, Any]:
    there = values[values != ""]
    found: dict[str, Any] = {"missing": int(len(values) - len(there))}
    if kind == "category":
        names, counts = np.unique(there, return_counts=True)
        order = np.argsort(-counts, kind="stable")[:MOST_VALUES]
        found["distinct"] = len(names)
        found["most_frequent"] = {str(names[index]): int(counts[index]) for index in order}
    else:
        lengths = np.char.str_len(there) if len(there) else np.zeros(1, int)
        found["characters"] = {"least": int(lengths.min()), "mean": float(lengths.mean()), "most": int(lengths.max())}
    return found


def _batches(array: ArrayLike, positions: Array) -> Iterator[Array]:
    for start in range(0, len(positions), 1024):
        yield array[positions[start : start + 1024]]


def _streamed(array: ArrayLike, positions: Array) -> dict[str, Any]:
    """Range, mean and deviation, a batch after the other: images are never copied whole."""
    least, most, total, squares, count, missing = np.inf, -np.inf, 0.0, 0.0, 0, 0
    for batch in _batches(array, positions):
        values = batch.astype(np.float64)
        holes = np.isnan(values)
        missing += int(holes.sum())
        values = values[~holes]
        if values.size:
            least, most = min(least, float(values.min())), max(most, float(values.max()))
            total, squares, count = total + float(values.sum()), squares + float((values**2).sum()), count + values.size
    if not count:
        return {"missing": missing}
    mean = total / count
    deviation = float(np.sqrt(max(squares / count - mean**2, 0.0)))
    return {"missing": missing, "least": least, "most": most, "mean": mean, "deviation": deviation}


def _numbers(values: Array) -> dict[str, Any]:
    return _streamed(values, np.arange(len(values)))


def _drift(data: Dataset, name: str, ids: Mapping[str, Array]) -> float | None:
    """How far the test values are from the training values: 0 for equal distributions, 1 for disjoint ones."""
    array = data.source.inputs[name]
    train, test = ids["train"], ids["test"]
    if array.dtype.kind == "U":
        if data.source.kinds.get(name) != "category":
            lengths = [np.char.str_len(array[part]).astype(np.float64).reshape(-1) for part in (train, test)]
            return smirnov(lengths[0], lengths[1])
        return total_variation(array[train].reshape(-1), array[test].reshape(-1))
    return smirnov(_one_number(array, train), _one_number(array, test))


def _one_number(array: ArrayLike, positions: Array) -> Array:
    """A number a sample: the value, or the mean of an image, a sound, a series."""
    parts = [batch.astype(np.float64).reshape(len(batch), -1) for batch in _batches(array, positions)]
    values: Array = np.concatenate([part[:, 0] if part.shape[1] == 1 else part.mean(axis=1) for part in parts])
    return values[~np.isnan(values)]


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


def _copies(data: Dataset) -> dict[str, Any]:
    """Samples that are equal to another one: how many, and the first across splits by name."""
    hashes = data.hashes
    _, inverse, counts = np.unique(hashes, return_inverse=True, return_counts=True)
    copied = counts[inverse] > 1
    split_of = np.full(len(hashes), "left out", dtype="<U10")
    for name, positions in data.splits.ids().items():
        split_of[positions] = name
    given = {name: np.asarray(positions, dtype=np.int64) for name, positions in data.source.given.items()}
    for name, positions in given.items():
        left_out = positions[split_of[positions] == "left out"]
        split_of[left_out] = f"{name}*"[:10]
    pairs: list[list[str]] = []
    across = 0
    for number in np.unique(inverse[copied]):
        members = np.flatnonzero(inverse == number) if copied.sum() < 50_000 else np.flatnonzero(inverse == number)[:2]
        splits = {str(split_of[member]) for member in members}
        if len(splits) > 1:
            across += 1
            if len(pairs) < MOST_VALUES:
                pairs.append([f"{data.source.name_of(int(m))} ({split_of[m]})" for m in members[:4]])
    return {
        "samples_with_a_copy": int(copied.sum()),
        "across_splits": across,
        "dropped": data.splits.dropped,
        "kept": data.splits.kept,
        "first": pairs,
    }


def _findings(data: Dataset, document: Mapping[str, Any]) -> Iterator[Finding]:
    yield from _about_classes(document)
    yield from _about_copies(document["copies"])
    if document["skipped"]:
        named = "; ".join(f"{item['name']}: {item['reason']}" for item in document["skipped"][:MOST_NAMED])
        yield Finding(
            "warning", f"{len(document['skipped'])} files cannot be read and are left out: {named}", "mend them"
        )
    yield from _about_values(document)
    sizes = [document["splits"][name]["samples"] for name in ("train", "test")]
    # 1.63: one of a hundred samples of one distribution is further apart.
    noise = 1.63 * float(np.sqrt(1 / sizes[0] + 1 / sizes[1]))
    for name, distance in document["drift"].items():
        if distance > max(DRIFT, noise):
            message = f"{name!r} is distributed otherwise in test than in training (distance {distance:.2f} of 1)"
            yield Finding("warning", message, "is the test set of another time, place or device?")
    if sizes[0] < 128:
        yield Finding("note", f"training has {sizes[0]} samples: all of them calibrate an int8 file", "")


def _about_classes(document: Mapping[str, Any]) -> Iterator[Finding]:
    classes = document["splits"]["train"].get("classes")
    if not classes:
        return
    for split in SPLITS:
        empty = [label for label, count in document["splits"][split]["classes"].items() if count == 0]
        if empty:
            level: Literal["error", "warning"] = "error" if split == "train" else "warning"
            names = ", ".join(empty[:MOST_NAMED])
            yield Finding(level, f"{split} has no sample of the class {names}", "add some, or take the class out")
    ratio = max(classes.values()) / max(min(classes.values()), 1)
    if ratio > IMBALANCE:
        rarest, commonest = min(classes, key=classes.__getitem__), max(classes, key=classes.__getitem__)
        message = f"the class {commonest!r} has {ratio:.0f} times the samples of {rarest!r}"
        yield Finding("warning", message, "train.class_weights: balanced, and a metric such as AUC beside accuracy")


def _about_copies(copies: Mapping[str, Any]) -> Iterator[Finding]:
    if not copies["across_splits"]:
        return
    named = "; ".join(" = ".join(pair) for pair in copies["first"][:MOST_NAMED])
    if copies["kept"]:
        message = f"{copies['kept']} training samples are copies of test or validation samples: {named}"
        yield Finding("error", message, "take them out, or data.split.duplicates: drop")
    else:
        message = f"{copies['dropped']} copies of test or validation samples are left out of training: {named}"
        yield Finding("warning", message, "where do they come from?")


def _about_values(document: Mapping[str, Any]) -> Iterator[Finding]:
    for name, info in document["inputs"].items():
        train, rest = info["splits"]["train"], [info["splits"][split] for split in ("validation", "test")]
        if info["dtype"] != "text" and not train["missing"] and any(part["missing"] for part in rest):
            yield Finding("error", f"{name!r} is missing in validation or test, never in training", "fill it in")
        elif train["missing"]:
            what = "values" if info["shape"] else "texts"
            yield Finding("note", f"{train['missing']} {what} of {name!r} are missing in training", "")
        if info["dtype"] != "text" and train.get("deviation") == 0.0:
            yield Finding("warning", f"{name!r} has one value in all of training", "leave it out")

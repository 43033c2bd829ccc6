"""The truth about data before an hour is spent on training: counts, ranges, copies, damage, drift, and what to do."""

import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from mltool.data.copies import copies
from mltool.data.dataset import SPLITS, Dataset, class_counts
from mltool.data.distances import Distance, distances
from mltool.data.source import Array, ArrayLike, Subset, batches_of, first_of
from mltool.data.tables.columns import doubt_about

SCHEMA_VERSION = 1

IMBALANCE = 10.0
"""The largest class may be so many times the smallest before it is worth a warning."""

DRIFT = 0.15
"""A Kolmogorov-Smirnov statistic, or a total variation distance, from which on train and test differ visibly.

Small splits differ more than that by chance: they are held to their own noise as well.
"""

MOST_NAMED = 5
"""Samples that a finding names; the document has all."""

MOST_VALUES = 10
"""Categories that are listed one by one."""


@dataclass(frozen=True)
class Finding:
    """Something to know or to mend.

    Attributes:
        level: `error`: training on it proves nothing; `warning`: look at it; `note`.
        message: what was found, with names of samples.
        hint: what to do.
        is_asked_for: whether the spec asks for it by name (`duplicates: keep`), so that training goes on.
    """

    level: Literal["error", "warning", "note"]
    message: str
    hint: str = ""
    is_asked_for: bool = False


def scan(data: Dataset) -> dict[str, Any]:
    """Looks at all samples of a data set, split by split.

    Returns:
        A JSON document: `schema_version`, `source`, `task`, `splits` (samples of each and its classes: samples, or of
        masks pixels), `inputs` (by name:
        kind, dtype, shape, and by split what values there are), `targets` of a regression, `copies`, `skipped`, `drift`
        (train against test, 0 to 1, by input), `findings`.
    """
    ids = data.splits.ids()
    inputs = {name: _describe(data, name, ids) for name in data.source.inputs}
    drift = distances(data.source, _expected_alike(data, ids))
    document = {
        "schema_version": SCHEMA_VERSION,
        "source": data.source.origin,
        "task": data.task or {name: meaning.task for name, meaning in data.meanings.items()},
        "splits": {name: _split(data, positions) for name, positions in ids.items()},
        "inputs": inputs,
        "targets": _streamed(data.targets, ids["train"]) if data.task == "regression" else None,
        "copies": copies(data),
        "skipped": [asdict(item) for item in data.source.skipped],
        "drift": {name: distance.value for name, distance in drift.items()},
    }
    return {**document, "findings": [asdict(finding) for finding in _findings(document, drift)]}


def _expected_alike(data: Dataset, ids: Mapping[str, Array]) -> Mapping[str, Array]:
    """The samples of every split that should be of one kind: anomalies are all in the test set, and are no drift."""
    if data.task != "anomaly" or data.classes is None:
        return ids
    normal = {name: positions[data.classes[positions] == 0] for name, positions in ids.items()}
    return normal if all(map(len, normal.values())) else ids


def _split(data: Dataset, positions: Array) -> dict[str, Any]:
    found: dict[str, Any] = {"samples": len(positions)}
    numbers = data.targets if data.task == "segmentation" else data.classes
    if numbers is not None:
        counts = class_counts(Subset.of(numbers, positions), len(data.labels))
        found["classes"] = dict(zip(data.labels, counts.tolist(), strict=True))
    if data.source.groups is not None:
        found["groups"] = len(np.unique(data.source.groups[positions]))
    return found


def _describe(data: Dataset, name: str, ids: Mapping[str, Array]) -> dict[str, Any]:
    array = data.source.inputs[name]
    found: dict[str, Any] = {
        "kind": data.source.kinds.get(name, ""),
        "original": data.source.originals.get(name, name),
        "declared": data.source.originals.get(name, name) in data.declared_columns,
        "dtype": "text" if array.dtype.kind == "U" else str(array.dtype),
        "shape": list(array.shape[1:]),
        "splits": {},
    }
    for split, positions in ids.items():
        if array.dtype.kind == "U":
            found["splits"][split] = _texts(found["original"], batches_of(array, positions), found["kind"])
        else:
            found["splits"][split] = _streamed(array, positions)
    return found


def _texts(name: str, batches: Iterator[Array], kind: str) -> dict[str, Any]:
    missing, total, lengths = 0, 0, [0, 0, 0]
    counts: Counter[str] = Counter()
    for batch in batches:
        texts = batch[batch != ""]
        missing += int(batch.size - texts.size)
        if kind == "category":
            counts.update(texts.tolist())
        elif texts.size:
            size = np.char.str_len(texts)
            least = int(size.min()) if not total else min(lengths[0], int(size.min()))
            total += texts.size
            lengths = [least, lengths[1] + int(size.sum()), max(lengths[2], int(size.max()))]
    found: dict[str, Any] = {"missing": missing}
    if kind == "category":
        ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        doubt = doubt_about(name, counts)
        found |= {"distinct": len(counts), "most_frequent": dict(ordered[:MOST_VALUES])}
        return {**found, "doubt": doubt} if doubt else found
    mean = lengths[1] / max(total, 1)
    return {**found, "characters": {"least": lengths[0], "mean": mean, "most": lengths[2]}}


def _streamed(array: ArrayLike, positions: Array) -> dict[str, Any]:
    """Range, mean and deviation, a batch after the other: images are never copied whole.

    Of the squares' mean less the mean's square nothing is left where numbers are large beside their deviation, so that
    the sums of squares about the means are joined: Chan, Golub, LeVeque, "Algorithms for computing the sample
    variance", The American Statistician 37, 1983, formula 2.1.
    """
    least, most, mean, squares, count, missing = np.inf, -np.inf, 0.0, 0.0, 0, 0
    for batch in batches_of(array, positions):
        values = batch.astype(np.float64)
        holes = np.isnan(values)
        missing += int(holes.sum())
        values = values[~holes]
        if values.size:
            least, most = min(least, float(values.min())), max(most, float(values.max()))
            apart, share = float(values.mean()) - mean, values.size / (count + values.size)
            squares += float(((values - values.mean()) ** 2).sum()) + apart**2 * count * share
            mean, count = mean + apart * share, count + values.size
    if not count:
        return {"missing": missing}
    deviation = float(np.sqrt(squares / count))
    return {"missing": missing, "least": least, "most": most, "mean": mean, "deviation": deviation}


def _findings(document: Mapping[str, Any], drift: Mapping[str, Distance]) -> Iterator[Finding]:
    yield from _about_classes(document)
    yield from _about_copies(document["copies"])
    yield from _about_contradictions(document)
    if document["skipped"]:
        reasons = [f"{item['name']}: {item['reason']}" for item in document["skipped"]]
        named = first_of(reasons, MOST_NAMED, len(reasons))
        yield Finding(
            "warning", f"{len(document['skipped'])} files cannot be read and are left out: {named}", "mend them"
        )
    yield from _about_values(document)
    for name, distance in drift.items():
        if distance.value > max(DRIFT, distance.noise):
            message = f"{name!r} is distributed otherwise in test than in training (distance {distance.value:.2f} of 1)"
            yield Finding("warning", message, "is the test set of another time, place or device?")
    samples = document["splits"]["train"]["samples"]
    if samples < 128:
        yield Finding("note", f"training has {samples} samples: all of them calibrate an int8 file", "")


def _about_classes(document: Mapping[str, Any]) -> Iterator[Finding]:
    classes = document["splits"]["train"].get("classes")
    if not classes:
        return
    if document["task"] == "anomaly":
        return  # which training must not have
    has_masks = document["task"] == "segmentation"
    one = "pixel" if has_masks else "sample"
    for split in SPLITS:
        empty = [label for label, count in document["splits"][split]["classes"].items() if count == 0]
        if empty:
            level: Literal["error", "warning"] = "error" if split == "train" else "warning"
            names = ", ".join(empty[:MOST_NAMED])
            hint = "add some, take the class out, or take another seed"
            yield Finding(level, f"{split} has no {one} of the class {names}", hint)
    alike = _alike(classes)
    if alike:
        named = first_of([f"{one!r} and {other!r}" for one, other in alike], MOST_NAMED, len(alike))
        yield Finding("warning", f"classes look alike: {named}", "if they are one: data.source.labels joins them")
    ratio = max(classes.values()) / max(min(classes.values()), 1)
    if has_masks:
        hint = "the background of masks is most of them: accuracy alone says little"
    else:
        hint = "train.class_weights: balanced, and a metric such as AUC beside accuracy"
    if ratio > IMBALANCE and min(classes.values()):
        rarest, commonest = min(classes, key=classes.__getitem__), max(classes, key=classes.__getitem__)
        message = f"the class {commonest!r} has {ratio:.0f} times the {one}s of {rarest!r}"
        yield Finding("note" if has_masks else "warning", message, hint)


def _alike(classes: Iterable[str]) -> list[tuple[str, str]]:
    """Names that a person takes for one; letters of both cases are classes of their own."""
    first: dict[str, str] = {}
    pairs = []
    for label in classes:
        plain = unicodedata.normalize("NFKC", label).strip()
        other = first.setdefault(plain.casefold() if len(plain) > 1 else plain, label)
        if other != label:
            pairs.append((other, label))
    return pairs


def _about_copies(found: Mapping[str, Any]) -> Iterator[Finding]:
    if not found["across_splits"]:
        return
    named = first_of([" = ".join(pair) for pair in found["first"]], MOST_NAMED, found["across_splits"])
    if found["kept"]:
        message = f"{found['kept']} samples of training or validation have a copy in another split: {named}"
        yield Finding("error", message, "take them out, or data.split.duplicates: drop", is_asked_for=True)
    else:
        message = f"{found['dropped']} copies of test or validation samples are left out of training: {named}"
        yield Finding("warning", message, "where do they come from?")


def _about_contradictions(document: Mapping[str, Any]) -> Iterator[Finding]:
    """Equal samples of different classes: rows of few values often are, pictures and sounds by mistake only."""
    found = document["copies"]
    if found["contradicting"]:
        of_rows = all(info["kind"] in ("number", "category") for info in document["inputs"].values())
        pairs = [" = ".join(pair) for pair in found["contradictions"]]
        named = first_of(pairs, MOST_NAMED, found["contradicting_groups"])
        other = "with another mask" if document["task"] == "segmentation" else "of another class"
        message = f"{found['contradicting']} samples have an equal one {other}: {named}"
        yield Finding("note" if of_rows else "warning", message, "mend the labels, or take the wrong ones out")


def _about_values(document: Mapping[str, Any]) -> Iterator[Finding]:
    for name, info in document["inputs"].items():
        train, rest = info["splits"]["train"], [info["splits"][split] for split in ("validation", "test")]
        if info["dtype"] != "text" and not train["missing"] and any(part["missing"] for part in rest):
            yield Finding("error", f"{name!r} is missing in validation or test, never in training", "fill it in")
        elif train["missing"]:
            what = "values" if info["shape"] else "texts"
            yield Finding("note", f"{train['missing']} {what} of {name!r} are missing in training", "")
        if train.get("doubt"):
            yield Finding("note" if info["declared"] else "warning", *train["doubt"])
        if info["dtype"] != "text" and "least" in train and train["least"] == train["most"]:
            yield Finding("warning", f"{name!r} has one value in all of training", "leave it out")

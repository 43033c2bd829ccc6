"""What the targets of a source mean, output by output: class numbers, masks, labels or values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mltool.data.scratch import AT_ONCE, as_index, is_on_disk, let_go, room_for, slices_of
from mltool.data.source import Array, Source, Subset, batches_of, can_be_label, label_of
from mltool.data.sources.masks import are_masks
from mltool.errors import DataError
from mltool.runs.arrays import of_output, together
from mltool.spec.argument_check import did_you_mean
from mltool.spec.task import Task


@dataclass(frozen=True)
class Meaning:
    """What the targets of an output are.

    Attributes:
        task: that they belong to.
        labels: names of the classes, in the order of the model's values; empty for values.
        columns: what the source calls the values, each; empty where it does not.
    """

    task: Task
    labels: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()


def encode(
    source: Source,
    tasks: Mapping[str, Task],
    classes: Sequence[str] | None,
    *,
    normal: Sequence[str] = (),
    known: Mapping[str, Sequence[str]] | None = None,
) -> tuple[dict[str, Meaning], Array]:
    """The meaning and the numbers of the targets.

    Args:
        source: with the targets as they were read.
        tasks: of every output, as its loss tells it; the key of the only one is "".
        classes: of the spec: labels to keep, in their order; for one output only.
        normal: labels of samples that are no anomalies, where anomalies are the task.
        known: by output the classes of a model that is there already, in the order of its values; fewer may be found.

    Returns:
        By output what its targets mean, and the targets: int64 class numbers [samples], class numbers of pixels
        [samples, height, width], or float32 [samples, values]; with a field for each of several outputs.

    Raises:
        DataError: if the targets are nothing that the loss takes.
    """
    meanings: dict[str, Meaning] = {}
    parts: dict[str, Array] = {}
    for name, task in tasks.items():
        targets = of_output(source.targets, name)
        what = f"the targets of {name!r}" if name else "the targets"
        if task == "anomaly":
            meanings[name], parts[name] = _anomalies(source, targets, normal, is_trained=known is not None)
        elif task == "regression":
            meanings[name] = Meaning(task, columns=source.value_names.get(name, ()))
            parts[name] = _values(source, targets, what)
        elif not name and are_masks(targets):
            meanings[name], parts[name] = Meaning("segmentation", source.classes), targets
        elif task == "binary" and targets.ndim == 2 and targets.shape[1] > 1:
            names = classes if len(tasks) == 1 else None
            meanings[name], parts[name] = _several_labels(source, targets, name, what, names)
        elif known is not None:
            meanings[name] = Meaning(task, tuple(known[name]))
            parts[name] = _numbers_among(source, targets, known[name], what)
        else:
            labels, parts[name] = _classes(source, targets, task, classes if len(tasks) == 1 else None, what)
            meanings[name] = Meaning(task, labels)
    for name, wanted in (known or {}).items():
        if meanings[name].labels != tuple(wanted):
            found = ", ".join(meanings[name].labels)
            message = f"{source.origin}: the classes are {found}; the model knows {', '.join(wanted)}"
            raise DataError(message, "name them as the model does")
    return meanings, together(parts)


def _values(source: Source, targets: Array, what: str) -> Array:
    """float32 [samples, values]."""
    if targets.dtype.kind not in "uifb":
        raise DataError(f"{source.origin}: a regression needs numbers, {what} are {targets.dtype}", "use another loss")
    values: Array = targets if targets.dtype == np.float32 else targets.astype(np.float32)
    return values.reshape(len(values), -1)


def _several_labels(
    source: Source, targets: Array, name: str, what: str, classes: Sequence[str] | None
) -> tuple[Meaning, Array]:
    """float32 [samples, labels] of 0 and 1."""
    count, hint = targets.shape[1], "a binary loss takes one value a sample, or a 0 or 1 for each of several labels"
    if targets.dtype.kind not in "uifb":
        raise DataError(f"{source.origin}: {what} are {targets.dtype}, and {count} a sample", hint)
    names = source.value_names.get(name, ()) if name else source.classes
    names = names if len(names) == count else ()
    if classes and (names or len(classes) != count):
        found = f"the columns name the labels: {', '.join(names)}" if names else f"{what} have {count} labels a sample"
        message = f"data.source.classes names {len(classes)} labels, and {found}"
        raise DataError(message, "leave it out" if names else "name them all")
    labels = tuple(classes or names or (str(number) for number in range(count)))
    start = 0
    for part in batches_of(targets):
        wrong = np.argwhere(~np.isin(part, (0, 1)))
        if len(wrong):
            row, place = wrong[0].tolist()
            message = (
                f"{source.origin}: label {labels[place]!r} of {source.name_of(start + row)} is {part[row, place]:g}"
            )
            raise DataError(f"{message}, 0 or 1 is expected", hint)
        start += len(part)
    return Meaning("multi_label", labels), targets.astype(np.float32)


def _anomalies(source: Source, targets: Array, normal: Sequence[str], *, is_trained: bool) -> tuple[Meaning, Array]:
    """int64 [samples]: 1 where a sample is none of the normal ones; a trained model may meet one kind alone."""
    if targets.ndim > 1 and targets.size != len(targets):
        message = f"{source.origin}: the targets have shape {targets.shape}; one class a sample is expected"
        raise DataError(message, "anomalies are told from classes")
    names = np.asarray([label_of(value) for value in targets.reshape(-1).tolist()])
    unknown = [label for label in normal if label not in set(names.tolist())]
    if unknown and not is_trained:
        known = ", ".join(sorted(set(names.tolist()))[:20])
        raise DataError(
            f"{source.origin} has no class {unknown[0]!r}, which train.anomaly.normal names", f"it has: {known}"
        )
    numbers = (~np.isin(names, list(normal))).astype(np.int64)
    if not numbers.any() and not is_trained:
        raise DataError(f"{source.origin}: all samples are normal", "an anomaly to test with has another label")
    return Meaning("anomaly", ("normal", "anomaly")), numbers


def _classes(
    source: Source, targets: Array, task: Task, classes: Sequence[str] | None, what: str
) -> tuple[tuple[str, ...], Array]:
    """Names of the classes, and int64 [samples]."""
    targets = _one_a_sample(source, targets, what)
    index = as_index(source.given.get("train", range(len(targets))))
    known = batches_of(targets[index] if isinstance(index, slice) else Subset.of(targets, index), size=AT_ONCE)
    names = np.unique(np.concatenate([np.unique(part) for part in known]))
    if len(names) < 2 and classes is None:
        message = f"{source.origin}: all samples of training are of one class, {label_of(names[0])!r}"
        raise DataError(message, "there is nothing to learn")
    for name in names:
        if not can_be_label(label_of(name)):
            message = f"{source.origin}: {label_of(name)!r} cannot be the name of a class"
            raise DataError(message, "use one line of UTF-8 text")
    if task == "binary" and classes is None and len(names) != 2:
        raise DataError(f"{source.origin}: a binary loss needs 2 classes, {what} have {len(names)}", "use another loss")
    order = _class_order(source, [label_of(name) for name in names], classes, task)
    return tuple(label_of(names[index]) for index in order), _class_numbers(source, targets, names, order)


def _numbers_among(source: Source, targets: Array, labels: Sequence[str], what: str) -> Array:
    """int64 [samples]: the place of each sample's class in `labels`.

    Raises:
        DataError: if a sample is of a class that is not among them.
    """
    targets = _one_a_sample(source, targets, what)
    names = np.unique(targets[:])
    place = {label: number for number, label in enumerate(labels)}
    unknown = [name for name in names if label_of(name) not in place]
    if unknown:
        first = source.name_of(int(np.flatnonzero(targets[:] == unknown[0])[0]))
        message = f"{source.origin}: the model knows no class {label_of(unknown[0])!r} (first: {first})"
        raise DataError(message, did_you_mean(label_of(unknown[0]), labels) or f"it knows {', '.join(labels[:10])}")
    numbers: Array = np.asarray([place[label_of(name)] for name in names], dtype=np.int64)
    return numbers[np.searchsorted(names, targets[:])]


def _class_order(source: Source, labels: Sequence[str], classes: Sequence[str] | None, task: Task) -> list[int]:
    """Places of the labels, which are sorted, in the order of the outputs: that of the spec, else of the source."""
    wanted = classes or source.classes
    if not wanted:
        return list(range(len(labels)))
    if classes is not None:
        if task == "binary" and len(classes) != 2:
            raise DataError(
                f"a binary loss needs 2 classes, data.source.classes has {len(classes)}", "use another loss"
            )
        lacking = [label for label in classes if label not in labels]
        if lacking:
            hint = "take it out of data.source.classes"
            raise DataError(f"{source.origin}: no training sample is of the class {lacking[0]!r}", hint)
    return sorted(range(len(labels)), key=lambda index: wanted.index(labels[index]))


def _class_numbers(source: Source, targets: Array, names: Array, order: Sequence[int]) -> Array:
    """int64 [samples]: the place of each sample's class in `order`.

    Raises:
        DataError: if a sample is of a class that training has not.
    """
    numbers = room_for((len(targets),), np.int64, on_disk=is_on_disk(targets))
    place = np.argsort(np.asarray(order))
    for part in slices_of(len(targets)):
        found = np.searchsorted(names, targets[part]).clip(max=len(names) - 1)
        unknown = names[found] != targets[part]
        if unknown.any():
            first = part.start + int(np.flatnonzero(unknown)[0])
            raise DataError(
                f"{source.origin}: the test set has the class {targets[first].item()!r}, training has not "
                f"(first: {source.name_of(first)})",
                "fix the labels",
            )
        numbers[part] = place[found]
        let_go(targets, numbers)
    return numbers


def _one_a_sample(source: Source, targets: Array, what: str) -> Array:
    """The classes as the source has them, [samples].

    Raises:
        DataError: if there is not one a sample.
    """
    shape = targets.shape
    if targets.ndim == 2 and targets.shape[1] > 1:
        targets = _from_one_hot(source, targets, what)
    targets = targets.reshape(-1)
    if len(targets) != source.num_samples:
        hint = "masks are for a model of one output in this version" if len(shape) > 2 else ""
        raise DataError(f"{source.origin}: {what} have shape {shape}; one class a sample is expected", hint)
    if targets.dtype.kind == "f" and any((part != np.round(part)).any() for part in batches_of(targets, size=AT_ONCE)):
        raise DataError(f"{source.origin}: {what} are not classes (first: {targets[0]})", "use a loss of regression")
    return targets


def _from_one_hot(source: Source, targets: Array, what: str) -> Array:
    """Classes of one-hot rows: what the source calls their columns, else their numbers.

    Raises:
        DataError: if the rows are anything else: the largest of several values is not a class.
    """
    is_one_hot = targets.dtype.kind in "uifb" and bool(
        np.isin(targets, (0, 1)).all() and (targets.sum(axis=1) == 1).all()
    )
    if not is_one_hot:
        wanted = "a class a sample, or one-hot rows of 0 and a single 1"
        hint = "take BinaryCrossentropy for several labels a sample, MeanSquaredError for values"
        raise DataError(f"{source.origin}: {what} have shape {targets.shape}; {wanted} is expected", hint)
    numbers: Array = targets.argmax(axis=1)
    return np.asarray(source.classes)[numbers] if len(source.classes) == targets.shape[1] else numbers

"""The samples of a spec, shared out: what training, calibration and evaluation draw from."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from mltool.data.identity import content_hashes, fingerprint, groups_of_equal_samples
from mltool.data.scratch import AT_ONCE, as_index, is_on_disk, let_go, room_for, slices_of, taken_from
from mltool.data.source import Array, ArrayLike, Source, Subset, batches_of, can_be_label, label_of
from mltool.data.sources.open import build_source
from mltool.data.splits import Splits, make_splits, require_disjoint
from mltool.errors import DataError, Message, SpecError
from mltool.spec.argument_check import did_you_mean
from mltool.spec.convert import CALIBRATED, LEAST_SAMPLES
from mltool.spec.spec import Spec, to_plain
from mltool.spec.task import Task, task_of

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Samples:
    """Some samples of one split.

    Attributes:
        inputs: by name, each [samples, ...], in the type of the source.
        targets: int64 [samples] class numbers, or float32 [samples, values]; of very many samples read from the disk
            when they are asked for, with `targets[:]`.
        ids: int64 [samples], positions in the source.
        weights: float32 [samples], how much each sample counts; None where all count alike.
    """

    inputs: Mapping[str, ArrayLike]
    targets: ArrayLike
    ids: Array
    weights: Array | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def first(self, count: int) -> dict[str, Array]:
        """The inputs of the first samples, as every artifact takes them: float32, or text."""
        return {name: as_model_takes(array[:count]) for name, array in self.inputs.items()}

    def batches(self, name: str, size: int | None = None) -> Iterator[Array]:
        """One input in batches, in the type of the source; see `batches_of`."""
        return batches_of(self.inputs[name], size=size)


def as_model_takes(array: Array) -> Array:
    """Numbers as float32, text as it is."""
    return array if array.dtype.kind == "U" else array.astype(np.float32)


def class_counts(targets: ArrayLike, num_classes: int) -> Array:
    """int64 [classes]: the samples of every class.

    Args:
        targets: class numbers.
        num_classes: in all, also those without a sample.
    """
    counts = np.zeros(num_classes, np.int64)
    for part in batches_of(targets, size=AT_ONCE):
        counts += np.bincount(part, minlength=num_classes)
    return counts


class Dataset:
    """The source of a spec with its splits.

    Args:
        spec: checked.
        labels: the classes of a model that is there, in its order: the data may have fewer. Those of training else.

    Attributes:
        source: all samples.
        task: what the targets are.
        labels: names of the classes; empty for regression.
        targets: int64 class numbers [samples], or float32 [samples, values].
        hashes: uint64 [samples], identity of the inputs.
    """

    def __init__(self, spec: Spec, labels: Sequence[str] | None = None) -> None:
        self.task: Task = task_of(spec.train.loss)
        self.source: Source = build_source(spec.data, seed=spec.seed, is_regression=self.task == "regression")
        if labels is None or self.task == "regression":
            self.labels, self.targets = _encode(self.source, self.task, spec.data.source.classes)
        else:
            self.labels, self.targets = tuple(labels), _encode_as(self.source, self.task, labels)
        _require_classes(spec.train.class_weights, self.labels)
        self.hashes = content_hashes(self.source.inputs)
        self._spec = spec

    @cached_property
    def splits(self) -> Splits:
        """The splits that the spec asks for; `Dataset.with_splits` takes those of a run instead."""
        split = self._spec.data.split
        if split.test is not None and "test" in self.source.given:
            message = Message("the data bring their own test set", "leave it out", key="data.split.test")
            raise SpecError(message)
        if split.by in ("file", "folder", "column") and not {"validation", "test"} & set(self.source.given):
            raise DataError(
                f"{self.source.origin} brings neither a validation nor a test set", "take another data.split.by"
            )
        splits = make_splits(
            groups_of_equal_samples(self.source.inputs, self.hashes),
            None if self.task == "regression" else self.targets,
            self.source.given,
            families=self.source.groups,
            by="order" if split.by == "order" else "random",
            validation=split.validation,
            test=split.test or 0.2,
            duplicates=split.duplicates,
            seed=self._spec.seed,
            name_of=self.source.name_of,
        )
        if self.source.weights is not None and not self.source.weights[splits.train].any():
            raise DataError(f"{self.source.origin}: all weights of training are 0", "nothing would be learned")
        calibrated = [entry.name for entry in self._spec.convert if entry.quantize in CALIBRATED]
        if calibrated and len(splits.train) < LEAST_SAMPLES:
            # Now, and not after an hour of training.
            few = f"training has {len(splits.train)} samples, and {calibrated[0]!r} needs {LEAST_SAMPLES} to calibrate"
            raise DataError(few, "add samples, or take another scheme in convert")
        return splits

    @property
    def declared_columns(self) -> Collection[str]:
        """The columns whose kinds the spec says."""
        return self._spec.data.source.columns or {}

    @property
    def fingerprint(self) -> str:
        """One hash of all inputs and targets, in their order, and of the names of the classes."""
        labels = content_hashes({"labels": np.asarray([*self.labels, ""])})
        return fingerprint(self.hashes, content_hashes({"targets": self.targets}), labels)

    def require_fingerprint(self, recorded: str | None) -> None:
        """Proves that no sample came, went or changed since a run recorded its data.

        Raises:
            DataError: if one did.
        """
        if recorded is not None and recorded != self.fingerprint:
            message = f"{self.source.origin} is not what the run was trained on: samples or labels came, went or moved"
            raise DataError(message, "restore the data, or train again")

    @property
    def input_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of one sample of every input."""
        return {name: tuple(array.shape[1:]) for name, array in self.source.inputs.items()}

    def take(self, ids: Array) -> Samples:
        """The samples at these positions of the source; what is not in memory is read when it is asked for."""
        positions = np.asarray(ids, dtype=np.int64)
        inputs = {name: Subset.of(array, positions) for name, array in self.source.inputs.items()}
        weights = self.source.weights[positions] if self.source.weights is not None else None
        return Samples(inputs, Subset.of(self.targets, positions), positions, weights)

    def split(self, name: str) -> Samples:
        """The samples of one split, in the order of the source."""
        return self.take(self.splits.ids()[name])

    def record(self) -> dict[str, Array]:
        """What a run records of its splits: `NAME_ids`, `NAME_hashes` of the inputs, `NAME_targets` of the targets."""
        arrays: dict[str, Array] = {}
        for name, ids in self.splits.ids().items():
            arrays[f"{name}_ids"] = ids
            arrays[f"{name}_hashes"] = taken_from(self.hashes, ids)
            arrays[f"{name}_targets"] = content_hashes({"targets": Subset.of(self.targets, ids)})
        return arrays

    def split_hashes(self) -> dict[str, Array]:
        """The content hashes of every split."""
        return {name: taken_from(self.hashes, ids) for name, ids in self.splits.ids().items()}

    def use_stored_splits(self, stored: Mapping[str, Array], inputs: Collection[str] | None = None) -> None:
        """Takes the splits that a run recorded, and proves that the data are still those.

        Args:
            stored: what `record` gave.
            inputs: that the run was trained on; None where that is not known.

        Raises:
            DataError: if samples are gone, changed, or stand in two splits, or the inputs are others.
        """
        if inputs is not None and set(inputs) != set(self.source.inputs):
            message = f"the inputs are {', '.join(self.source.inputs)}, and the run was trained on {', '.join(inputs)}"
            raise DataError(message, "another mltool took other columns: data.source.columns, or train again")
        wanted = [f"{name}_{what}" for name in SPLITS for what in ("ids", "hashes", "targets")]
        lacking = [key for key in wanted if key not in stored]
        if lacking:
            raise DataError(f"splits.npz of the run lacks {', '.join(lacking)}", "train again")
        ids = {name: stored[f"{name}_ids"] for name in SPLITS}
        for name, positions in ids.items():
            if len(positions) != len(stored[f"{name}_hashes"]) or (positions < 0).any():
                raise DataError(f"splits.npz of the run is damaged in {name}", "train again")
            if len(positions) and int(positions.max()) >= self.source.num_samples:
                raise DataError(f"{self.source.origin} has fewer samples than when the run was trained", "train again")
            targets = content_hashes({"targets": Subset.of(self.targets, positions)})
            for what, found, kept in (
                ("samples", taken_from(self.hashes, positions), stored[f"{name}_hashes"]),
                ("targets", targets, stored[f"{name}_targets"]),
            ):
                changed = int((found != kept).sum())
                if changed:
                    raise DataError(self._told_change(name, what, changed, kept), "restore the data, or train again")
        if self._spec.data.split.duplicates != "keep":
            require_disjoint({name: stored[f"{name}_hashes"] for name in SPLITS})
        self.__dict__["splits"] = Splits(ids["train"], ids["validation"], ids["test"])

    def _told_change(self, split: str, what: str, changed: int, kept: Array) -> str:
        gone = changed if what == "targets" else int((~np.isin(kept, self.hashes)).sum())
        if gone == changed:
            return f"{changed} {what} of {split} changed since the run was trained"
        moved = f"stand at other places (now {self.source.num_samples} samples; were files added or renamed?)"
        if not gone:
            return f"the samples of {split} {moved}"
        return f"{gone} samples of {split} are gone or changed since the run was trained, others {moved}"


def _require_classes(weights: Mapping[str, float] | str | None, labels: Sequence[str]) -> None:
    """Proves that `class_weights` names classes of the data.

    Raises:
        SpecError: naming the one that is none.
    """
    if weights is None:
        return
    if not labels:
        raise SpecError(Message("a regression has no classes", "leave it out", key="train.class_weights"))
    if isinstance(weights, str):
        return
    unknown = [label for label in weights if label not in labels]
    if unknown:
        hint = did_you_mean(unknown[0], labels) or f"the classes are {', '.join(labels)}"
        raise SpecError(Message(f"no class is called {unknown[0]!r}", hint, key="train.class_weights"))
    if not any(weights.get(label, 1.0) for label in labels):
        raise SpecError(Message("all classes weigh 0", "give one of them more", key="train.class_weights"))


_read: ContextVar[list[tuple[object, Dataset]] | None] = ContextVar("_read", default=None)
"""The data set that the verbs of one command share; None where every verb reads its own."""


@contextmanager
def read_once() -> Iterator[None]:
    """Inside, `open_dataset` reads the data of a spec once: the verbs of one command ask for the same samples."""
    token = _read.set([])
    try:
        yield
    finally:
        _read.reset(token)


def open_dataset(spec: Spec) -> Dataset:
    """The data of a spec.

    Raises:
        DataError: if they are missing, damaged or do not fit together.
    """
    kept = _read.get()
    if kept is None:
        return Dataset(spec)
    key = (spec.seed, spec.train.loss, to_plain(spec.data))
    if not kept or kept[0][0] != key:
        kept[:] = [(key, Dataset(spec))]
    return kept[0][1]


def _encode(source: Source, task: Task, classes: Sequence[str] | None) -> tuple[tuple[str, ...], Array]:
    """Class names and numbers, or the values of a regression."""
    targets = source.targets
    if task == "regression":
        if targets.dtype.kind not in "uifb":
            raise DataError(
                f"{source.origin}: a regression needs numbers, the targets are {targets.dtype}", "use another loss"
            )
        values: Array = targets if targets.dtype == np.float32 else targets.astype(np.float32)
        return (), values.reshape(len(values), -1)
    if targets.ndim == 2 and targets.shape[1] > 1:
        targets = _from_one_hot(source, targets, task)
    targets = targets.reshape(-1)
    if len(targets) != source.num_samples:
        raise DataError(
            f"{source.origin}: the targets have shape {source.targets.shape}; one class a sample is expected"
        )
    if targets.dtype.kind == "f" and any((part != np.round(part)).any() for part in batches_of(targets, size=AT_ONCE)):
        raise DataError(
            f"{source.origin}: the targets are not classes (first: {targets[0]})", "use a loss of regression"
        )
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
        raise DataError(
            f"{source.origin}: a binary loss needs 2 classes, the targets have {len(names)}", "use another loss"
        )
    order = _class_order(source, [label_of(name) for name in names], classes, task)
    return tuple(label_of(names[index]) for index in order), _class_numbers(source, targets, names, order)


def _encode_as(source: Source, task: Task, labels: Sequence[str]) -> Array:
    """int64 [samples]: the place of each sample's class in `labels`.

    Raises:
        DataError: if a sample is of a class that is not among them.
    """
    targets = source.targets
    if targets.ndim == 2 and targets.shape[1] > 1:
        targets = _from_one_hot(source, targets, task)
    targets = targets.reshape(-1)
    if len(targets) != source.num_samples:
        raise DataError(
            f"{source.origin}: the targets have shape {source.targets.shape}; one class a sample is expected"
        )
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


def _from_one_hot(source: Source, targets: Array, task: Task) -> Array:
    """Class numbers of one-hot rows.

    Raises:
        DataError: if the rows are anything else: the largest of several values is not a class.
    """
    is_one_hot = targets.dtype.kind in "uifb" and bool(
        np.isin(targets, (0, 1)).all() and (targets.sum(axis=1) == 1).all()
    )
    if task == "binary" or not is_one_hot:
        wanted = "one value a sample" if task == "binary" else "a class a sample, or one-hot rows of 0 and a single 1"
        raise DataError(
            f"{source.origin}: the targets have shape {targets.shape}; {wanted} is expected", "see the loss"
        )
    numbers: Array = targets.argmax(axis=1)
    return numbers

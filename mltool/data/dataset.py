"""The samples of a spec, shared out: what training, calibration and evaluation draw from."""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from mltool.data.identity import content_hashes, fingerprint, groups_of_equal_samples
from mltool.data.scratch import AT_ONCE, taken_from
from mltool.data.source import Array, ArrayLike, Source, Subset, batches_of
from mltool.data.sources.open import build_source
from mltool.data.splits import Splits, make_splits, require_disjoint, split_windows, with_anomalies
from mltool.data.targets import encode
from mltool.errors import DataError, Message, SpecError
from mltool.runs.arrays import of_output
from mltool.spec.argument_check import did_you_mean
from mltool.spec.augment import misfits_with_masks
from mltool.spec.convert import CALIBRATED, LEAST_SAMPLES
from mltool.spec.outputs import ONLY
from mltool.spec.spec import Spec, to_plain
from mltool.spec.task import Task

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Samples:
    """Some samples of one split.

    Attributes:
        inputs: by name, each [samples, ...], in the type of the source.
        targets: int64 [samples] class numbers, or float32 [samples, values], see `targets.encode`; of very many samples
            read from the disk when they are asked for, with `targets[:]`.
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
    """int64 [classes]: the samples, or the pixels of masks, of every class.

    Args:
        targets: class numbers, [samples] or [samples, height, width].
        num_classes: in all, also those without a sample.
    """
    counts = np.zeros(num_classes, np.int64)
    for part in batches_of(targets, size=max(1, AT_ONCE // math.prod(targets.shape[1:]))):
        counts += np.bincount(part.reshape(-1), minlength=num_classes)
    return counts


class Dataset:
    """The source of a spec with its splits.

    Args:
        spec: checked.
        labels: the classes of a model that is there, in its order: the data may have fewer. Those of training else.

    Attributes:
        source: all samples.
        meanings: what the targets of every output are; the key of the only one is "".
        targets: int64 class numbers [samples], or float32 [samples, values], see `targets.encode`.
        hashes: uint64 [samples], identity of the inputs.
    """

    def __init__(self, spec: Spec, labels: Mapping[str, Sequence[str]] | None = None) -> None:
        tasks = spec.train.tasks
        values = {name for name, task in tasks.items() if task == "regression"}
        self.source: Source = build_source(spec.data, seed=spec.seed, values=values)
        normal = spec.train.anomaly.normal if spec.train.anomaly else ()
        asked = spec.data.source
        self.meanings, self.targets = encode(self.source, tasks, asked.classes, normal=normal, known=labels)
        if self.task == "segmentation":
            _require_fits_masks(spec)
        _require_classes(spec.train.class_weights, () if self.classes is None else self.labels)
        self.hashes = content_hashes(self.source.inputs)
        self._spec = spec

    @property
    def task(self) -> Task | None:
        """What the targets are; None where there are several outputs."""
        return next(iter(self.meanings.values())).task if len(self.meanings) == 1 else None

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of `classes`, of the labels or of the classes of pixels; of the first output that has some."""
        return next((meaning.labels for meaning in self.meanings.values() if meaning.labels), ())

    @cached_property
    def classes(self) -> Array | None:
        """int64 [samples]: class numbers, of the first output that has one class a sample; None where none has."""
        for name, meaning in self.meanings.items():
            if meaning.task in ("classification", "binary", "anomaly"):
                return of_output(self.targets, name)
            if meaning.labels:
                break  # `labels` are of that one
        return None

    @cached_property
    def splits(self) -> Splits:
        """The splits that the spec asks for; `use_stored_splits` takes those of a run instead."""
        split = self._spec.data.split
        if split.test is not None and "test" in self.source.given:
            message = Message("the data bring their own test set", "leave it out", key="data.split.test")
            raise SpecError(message)
        if split.by in ("file", "folder", "column") and not {"validation", "test"} & set(self.source.given):
            raise DataError(
                f"{self.source.origin} brings neither a validation nor a test set", "take another data.split.by"
            )
        splits = self._shared_out()
        if self.source.weights is not None and not self.source.weights[splits.train].any():
            raise DataError(f"{self.source.origin}: all weights of training are 0", "nothing would be learned")
        calibrated = [entry.name for entry in self._spec.convert if entry.quantize in CALIBRATED]
        if calibrated and len(splits.train) < LEAST_SAMPLES:
            # Now, and not after an hour of training.
            few = f"training has {len(splits.train)} samples, and {calibrated[0]!r} needs {LEAST_SAMPLES} to calibrate"
            raise DataError(few, "add samples, or take another scheme in convert")
        return splits

    def _shared_out(self) -> Splits:
        split = self._spec.data.split
        groups = groups_of_equal_samples(self.source.inputs, self.hashes)
        windows = self.source.windows
        if windows is not None and split.by == "order":
            return split_windows(
                windows,
                groups,
                validation=split.validation,
                test=split.test or 0.2,
                duplicates=split.duplicates,
                name_of=self.source.name_of,
            )
        anomalies = np.flatnonzero(self.targets) if self.task == "anomaly" else None
        given = self.source.given
        if anomalies is not None:
            given = {name: np.setdiff1d(ids, anomalies) for name, ids in given.items()}
            for name in (name for name, ids in given.items() if not len(ids)):
                message = f"{self.source.origin}: all samples of {name} are anomalies"
                raise DataError(message, "add normal ones: training learns from them, and the test tells both apart")
            given = given if "train" in given else {"train": self._normal_pool(given, anomalies), **given}
        splits = make_splits(
            groups,
            None if anomalies is not None else self.classes,
            given,
            families=self.source.groups,
            join_copies=windows is None,
            by="order" if split.by == "order" else "random",
            validation=split.validation,
            test=split.test or 0.2,
            duplicates=split.duplicates,
            seed=self._spec.seed,
            name_of=self.source.name_of,
        )
        if anomalies is None:
            return splits
        return with_anomalies(splits, anomalies, groups, self.source.given, families=self.source.groups)

    @property
    def declared_columns(self) -> Collection[str]:
        """The columns whose kinds the spec says."""
        return self._spec.data.source.columns or {}

    @property
    def fingerprint(self) -> str:
        """One hash of all inputs and targets, in their order, and of the names of the classes."""
        names = [label for meaning in self.meanings.values() for label in meaning.labels]
        labels = content_hashes({"labels": np.asarray([*names, ""])})
        return fingerprint(self.hashes, _hashes_of_targets(self.targets), labels)

    def _normal_pool(self, given: Mapping[str, Sequence[int] | Array], anomalies: Array) -> Array:
        """Samples that are neither anomalies nor in a split that the source brings."""
        taken = np.concatenate([anomalies, *(np.asarray(ids, np.int64) for ids in given.values())])
        return np.setdiff1d(np.arange(self.source.num_samples), taken)

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
            arrays[f"{name}_targets"] = _hashes_of_targets(Subset.of(self.targets, ids))
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
            targets = _hashes_of_targets(Subset.of(self.targets, positions))
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


def _hashes_of_targets(targets: ArrayLike) -> Array:
    """uint64 [samples], over all outputs."""
    if not targets.dtype.names:
        return content_hashes({"targets": targets})
    whole = targets[:]
    return content_hashes({name: whole[name] for name in targets.dtype.names})


def _require_fits_masks(spec: Spec) -> None:
    """Proves that loss, class weights and augmentation are such as masks can have.

    Raises:
        SpecError: naming the key.
    """
    loss = spec.train.heads[ONLY].loss.name
    if loss != "SparseCategoricalCrossentropy":
        text = f"the targets are masks, a class for every pixel, and {loss} is not for those in this version"
        hint = "write SparseCategoricalCrossentropy: {from_logits: true}"
        raise SpecError(Message(text, hint, key=f"train.loss.{loss}"))
    if spec.train.class_weights is not None:
        text = "weighs samples, and a mask has pixels of several classes: not in this version"
        raise SpecError(Message(text, "leave it out", key="train.class_weights"))
    misfits = [
        Message(found.message, found.hint, key=".".join(["data.augment", *map(str, found.path)]))
        for found in misfits_with_masks(spec.data.augment)
    ]
    if misfits:
        raise SpecError(misfits)


def _require_classes(weights: Mapping[str, float] | str | None, labels: Sequence[str]) -> None:
    """Proves that `class_weights` names classes of the data.

    Raises:
        SpecError: naming the one that is none.
    """
    if weights is None:
        return
    if not labels:
        raise SpecError(Message("the targets are not one class a sample", "leave it out", key="train.class_weights"))
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
    key = (spec.seed, to_plain(spec.data), spec.train.tasks, spec.train.anomaly)
    if not kept or kept[0][0] != key:
        kept[:] = [(key, Dataset(spec))]
    return kept[0][1]

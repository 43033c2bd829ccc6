"""The samples of a spec, shared out: what training, calibration and evaluation draw from."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from mltool.data.identity import content_hashes, fingerprint, groups_of_equal_samples
from mltool.data.open import build_source
from mltool.data.source import Array, Source
from mltool.data.splits import Splits, make_splits, require_disjoint
from mltool.errors import DataError, Message, SpecError
from mltool.spec.spec import Spec
from mltool.spec.task import Task, task_of

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Samples:
    """Some samples of one split.

    Attributes:
        inputs: by name, each [samples, ...], in the type of the source.
        targets: int64 [samples] class numbers, or float32 [samples, values].
        ids: int64 [samples], positions in the source.
    """

    inputs: Mapping[str, Array]
    targets: Array
    ids: Array

    def __len__(self) -> int:
        return len(self.ids)

    def as_float(self) -> dict[str, Array]:
        """The inputs as every artifact takes them: float32."""
        return {name: array.astype(np.float32) for name, array in self.inputs.items()}


class Dataset:
    """The source of a spec with its splits.

    Attributes:
        source: all samples.
        task: what the targets are.
        labels: names of the classes; empty for regression.
        targets: int64 class numbers [samples], or float32 [samples, values].
        hashes: uint64 [samples], identity of the inputs.
    """

    def __init__(self, spec: Spec) -> None:
        self.source: Source = build_source(spec.data)
        self.task: Task = task_of(spec.train.loss)
        self.labels, self.targets = _encode(self.source, self.task)
        self.hashes = content_hashes(self.source.inputs)
        self._spec = spec

    @cached_property
    def splits(self) -> Splits:
        """The splits that the spec asks for; `Dataset.with_splits` takes those of a run instead."""
        split = self._spec.data.split
        if split.test is not None and "test" in self.source.given:
            message = Message("the data bring their own test set", "leave it out", key="data.split.test")
            raise SpecError(message)
        return make_splits(
            groups_of_equal_samples(self.source.inputs, self.hashes),
            None if self.task == "regression" else self.targets,
            self.source.given,
            by=split.by,
            validation=split.validation,
            test=split.test or 0.2,
            duplicates=split.duplicates,
            seed=self._spec.seed,
        )

    @property
    def fingerprint(self) -> str:
        """One hash of all inputs and targets, in their order."""
        return fingerprint(np.concatenate([self.hashes, content_hashes({"targets": self.targets})]))

    @property
    def input_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of one sample of every input."""
        return {name: tuple(array.shape[1:]) for name, array in self.source.inputs.items()}

    def take(self, ids: Array) -> Samples:
        """The samples at these positions of the source."""
        inputs = {name: array[ids] for name, array in self.source.inputs.items()}
        return Samples(inputs, self.targets[ids], np.asarray(ids, dtype=np.int64))

    def split(self, name: str) -> Samples:
        """The samples of one split, in the order of the source."""
        return self.take(self.splits.ids()[name])

    def record(self) -> dict[str, Array]:
        """What a run records of its splits: `NAME_ids`, `NAME_hashes` of the inputs, `NAME_targets` of the targets."""
        arrays: dict[str, Array] = {}
        for name, ids in self.splits.ids().items():
            arrays[f"{name}_ids"] = ids
            arrays[f"{name}_hashes"] = self.hashes[ids]
            arrays[f"{name}_targets"] = content_hashes({"targets": self.targets[ids]})
        return arrays

    def split_hashes(self) -> dict[str, Array]:
        """The content hashes of every split."""
        return {name: self.hashes[ids] for name, ids in self.splits.ids().items()}

    def use_stored_splits(self, stored: Mapping[str, Array]) -> None:
        """Takes the splits that a run recorded, and proves that the data are still those.

        Raises:
            DataError: if samples are gone, changed, or stand in two splits.
        """
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
            targets = content_hashes({"targets": self.targets[positions]})
            for what, found, kept in (
                ("samples", self.hashes[positions], stored[f"{name}_hashes"]),
                ("targets", targets, stored[f"{name}_targets"]),
            ):
                changed = int((found != kept).sum())
                if changed:
                    raise DataError(f"{changed} {what} of {name} changed since the run was trained", "train again")
        if self._spec.data.split.duplicates != "keep":
            require_disjoint({name: stored[f"{name}_hashes"] for name in SPLITS})
        self.__dict__["splits"] = Splits(ids["train"], ids["validation"], ids["test"])


def _encode(source: Source, task: Task) -> tuple[tuple[str, ...], Array]:
    """Class names and numbers, or the values of a regression."""
    targets = source.targets
    if task == "regression":
        if targets.dtype.kind not in "uifb":
            raise DataError(
                f"{source.origin}: a regression needs numbers, the targets are {targets.dtype}", "use another loss"
            )
        values: Array = targets.astype(np.float32)
        return (), values.reshape(len(values), -1)
    if targets.ndim == 2 and targets.shape[1] > 1 and targets.dtype.kind in "uifb":
        targets = targets.argmax(axis=1)
    targets = targets.reshape(-1)
    if len(targets) != source.num_samples:
        raise DataError(
            f"{source.origin}: the targets have shape {source.targets.shape}; one class a sample is expected"
        )
    if targets.dtype.kind == "f" and not np.array_equal(targets, np.round(targets)):
        raise DataError(
            f"{source.origin}: the targets are not classes (first: {targets[0]})", "use a loss of regression"
        )
    known = targets[np.asarray(source.given.get("train", range(len(targets))))]
    names = np.unique(known)
    if task == "binary" and len(names) != 2:
        raise DataError(
            f"{source.origin}: a binary loss needs 2 classes, the targets have {len(names)}", "use another loss"
        )
    numbers = np.searchsorted(names, targets).clip(max=len(names) - 1)
    unknown = names[numbers] != targets
    if unknown.any():
        raise DataError(
            f"{source.origin}: the test set has the class {targets[unknown][0].item()!r}, training has not",
            "fix the labels",
        )
    return tuple(_label(name) for name in names), numbers.astype(np.int64)


def _label(name: Any) -> str:
    return str(int(name)) if isinstance(name, int | float | np.integer | np.floating) else str(name)

"""The model of a spec for its data: the one that training trains and inspection shows."""

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np

from mltool.data.dataset import Dataset, Samples
from mltool.data.describe import describe_input
from mltool.data.scratch import AT_ONCE
from mltool.data.source import batches_of
from mltool.errors import DataError, Message, SpecError
from mltool.models.build import TargetScale, build_model, require_output
from mltool.models.preprocess import ModelInput
from mltool.runs.input_schema import InputInfo
from mltool.spec.spec import Spec


def build_model_for(data: Dataset, spec: Spec) -> tuple[Any, TargetScale | None]:
    """Builds the model that `spec` describes, with preprocessing that has learned from the training split.

    Nothing is skipped where only shapes are asked for: vocabularies, bins and what `auto` chooses are shapes too.

    Args:
        data: of the spec, with its splits.
        spec: checked.

    Returns:
        A keras.Model with weights as before training, and what the targets of a regression are scaled by; None where
        the loss sees them as they are.

    Raises:
        DataError: if numbers are missing in other splits than training, or nothing fills them.
        SpecError: if the layers do not fit the data, or one another.
    """
    train = data.split("train")
    infos = {name: describe_input(name, train, data.source) for name in train.inputs}
    _require_no_new_holes(data, infos)
    scale = _target_scale(spec, data, train)
    model = build_model(spec.model, _model_inputs(data, train, infos), name=spec.name, target_scale=scale)
    _require_output(model, spec, data)
    return model, scale


def _require_output(model: Any, spec: Spec, data: Dataset) -> None:
    count, what = len(data.labels), f"{len(data.labels)} classes"
    if data.task == "binary":
        count = 1
    elif data.task == "regression":
        count = int(np.prod(data.targets.shape[1:]))
        what = f"{count} values a sample as target"
    require_output(model, spec.model, num_outputs=count, what=what)


_EQUIVARIANT = ("MeanSquaredError", "MeanAbsoluteError")
"""Losses whose best model is the same, but for the units, when targets are shifted and scaled."""


def _target_scale(spec: Spec, data: Dataset, train: Samples) -> TargetScale | None:
    """Mean and deviation of the training targets; None where the loss sees them as they are."""
    asked = spec.train.scale_target
    if data.task != "regression" or asked == "none" or (asked == "auto" and spec.train.loss.name not in _EQUIVARIANT):
        if asked == "standard" and data.task != "regression":
            raise SpecError(Message("classes have no scale", "leave it out", key="train.scale_target"))
        return None
    parts = functools.partial(batches_of, train.targets, size=AT_ONCE)
    mean = sum(part.astype(np.float64).sum(axis=0) for part in parts()) / len(train)
    deviation = np.sqrt(sum(((part - mean) ** 2).sum(axis=0) for part in parts()) / len(train))
    return TargetScale(tuple(mean.tolist()), tuple(np.where(deviation > 0, deviation, 1.0).tolist()))


def _require_no_new_holes(data: Dataset, infos: Mapping[str, InputInfo]) -> None:
    """Numbers may be missing in validation and test only where they are in training: nothing else learned to fill them.

    Raises:
        DataError: naming the input, the split and the first sample.
    """
    for split in ("validation", "test"):
        samples = data.split(split)
        for name, info in infos.items():
            if info.missing or info.dtype == "string" or samples.inputs[name].dtype.kind != "f":
                continue
            start = 0
            for batch in samples.batches(name):
                holes = np.isnan(batch).reshape(len(batch), -1).any(axis=1)
                if holes.any():
                    first = data.source.name_of(int(samples.ids[start + int(np.flatnonzero(holes)[0])]))
                    message = f"{info.original or name!r} is missing in the {split} split ({first}), never in training"
                    raise DataError(message, "fill it in, or take the sample out")
                start += len(batch)


def _model_inputs(data: Dataset, train: Samples, infos: Mapping[str, InputInfo]) -> dict[str, ModelInput]:
    return {
        name: ModelInput(
            shape=shape,
            dtype="string" if data.source.inputs[name].dtype.kind == "U" else "float32",
            kind=data.source.kinds.get(name, ""),
            batches=functools.partial(train.batches, name),
            missing=infos[name].missing and infos[name].dtype != "string",
            sample_rate=infos[name].sample_rate,
        )
        for name, shape in data.input_shapes.items()
    }

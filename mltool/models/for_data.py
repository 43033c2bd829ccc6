"""The model of a spec for its data: the one that training trains and inspection shows."""

import functools
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from mltool.data.dataset import Dataset, Samples
from mltool.data.describe import describe_input
from mltool.data.scratch import AT_ONCE
from mltool.data.source import Array, ArrayLike, batches_of
from mltool.data.targets import Meaning
from mltool.errors import DataError, Message, SpecError
from mltool.models.build import build_model, require_output
from mltool.models.outputs import TargetScale
from mltool.models.preprocess import ModelInput
from mltool.runs.arrays import of_output
from mltool.runs.input_schema import InputInfo
from mltool.spec.spec import Spec


def build_model_for(data: Dataset, spec: Spec) -> tuple[Any, dict[str, TargetScale]]:
    """Builds the model that `spec` describes, with preprocessing that has learned from the training split.

    Nothing is skipped where only shapes are asked for: vocabularies, bins and what `auto` chooses are shapes too.

    Args:
        data: of the spec, with its splits.
        spec: checked.

    Returns:
        A keras.Model with weights as before training, and by output what the targets of a regression are scaled by, for
        those whose loss does not see them as they are.

    Raises:
        DataError: if numbers are missing in other splits than training, or nothing fills them.
        SpecError: if the layers do not fit the data, or one another.
    """
    train = data.split("train")
    infos = {name: describe_input(name, train, data.source) for name in train.inputs}
    _require_no_new_holes(data, infos)
    scales = _target_scales(spec, data, train)
    model = build_model(
        spec.model,
        _model_inputs(data, train, infos),
        name=spec.name,
        outputs=spec.output_names,
        target_scales=scales,
        gives_difference=data.task == "anomaly",
        precision=spec.train.precision,
    )
    for key, meaning in data.meanings.items():
        if meaning.task != "anomaly":
            shape, what = _expected(meaning, of_output(data.targets, key))
            found = tuple(output_of_model(model, key).shape[1:])
            require_output(found, spec.model, spec.output_names[key], wanted=shape, what=what)
    return model, scales


def output_of_model(model: Any, key: str) -> Any:
    """The tensor of an output, by its key; "" for the only one."""
    return model.output[key] if isinstance(model.output, dict) else model.output


def _expected(meaning: Meaning, targets: ArrayLike) -> tuple[tuple[int, ...], str]:
    """Shape of a sample that the targets ask for, and why."""
    count = len(meaning.labels)
    match meaning.task:
        case "segmentation":
            height, width = targets.shape[1:]
            return (height, width, count), f"masks of {height}x{width} pixels and {count} classes"
        case "multi_label":
            return (count,), f"{count} labels a sample"
        case "binary":
            return (1,), f"{count} classes"
        case "regression":
            values = int(np.prod(targets.shape[1:]))
            return (values,), f"{values} values a sample as target"
    return (count,), f"{count} classes"


_EQUIVARIANT = ("MeanSquaredError", "MeanAbsoluteError")
"""Losses whose best model is the same, but for the units, when targets are shifted and scaled."""


def _target_scales(spec: Spec, data: Dataset, train: Samples) -> dict[str, TargetScale]:
    """Mean and deviation of the training targets, of outputs whose loss does not see them as they are."""
    asked = spec.train.scale_target
    values = [name for name, meaning in data.meanings.items() if meaning.task == "regression"]
    if asked == "standard" and not values:
        raise SpecError(Message("classes have no scale", "leave it out", key="train.scale_target"))
    heads = spec.train.heads
    scaled = [name for name in values if asked == "standard" or heads[name].loss.name in _EQUIVARIANT]
    return {name: _target_scale(train, name) for name in scaled} if asked != "none" else {}


def _target_scale(train: Samples, name: str) -> TargetScale:
    def parts() -> Iterator[Array]:
        return (of_output(part, name).astype(np.float64) for part in batches_of(train.targets, size=AT_ONCE))

    mean = sum(part.sum(axis=0) for part in parts()) / len(train)
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

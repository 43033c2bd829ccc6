"""What a model of somebody else's takes and answers, as a record: told by data, else by its signature alone."""

import logging
import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from mltool.conversion.sources.fixed_shapes import fits
from mltool.conversion.sources.foreign import Foreign
from mltool.conversion.sources.generated import Draw, sample_shape
from mltool.data.dataset import Dataset, Samples
from mltool.data.describe import describe_input
from mltool.data.targets import Meaning
from mltool.errors import DataError
from mltool.inference.predictor import Array, TensorInfo
from mltool.runs.arrays import of_output
from mltool.runs.input_schema import InputInfo, InputSchema, OutputInfo
from mltool.spec.spec import Spec
from mltool.spec.task import output_kind

logger = logging.getLogger("mltool")

LOOKED_AT = 1024
"""Training samples that show whether an input holds whole numbers."""

NEAR = 1e-3
"""How far off 0, 1 and a sum of 1 probabilities may be: those that were computed in float16 are."""


def names_of(foreign: Foreign, given: Mapping[str, object]) -> dict[str, str]:
    """Which input of the data is which of the model's: alike by name; of one each there is no doubt.

    Returns:
        The name in the data, by the model's, in the order of the model.

    Raises:
        DataError: if they are not the same.
    """
    ours, theirs = list(given), [info.name for info in foreign.inputs]
    if len(ours) == len(theirs) == 1:
        return {theirs[0]: ours[0]}
    if set(ours) != set(theirs):
        message = f"{foreign.name} takes {', '.join(theirs)}; the data give {', '.join(ours)}"
        hint = "name them so under data.inputs"
        if len(theirs) == 1:
            hint = "it takes one array: give an .npz that has it, or a function that puts columns side by side"
        raise DataError(message, hint)
    return {name: name for name in theirs}


def schema_of_signature(foreign: Foreign, draw: Draw, outputs: Mapping[str, Array]) -> InputSchema:
    """What the signature says; the answers mean nothing that is known.

    Args:
        foreign: the model.
        draw: says how long free axes are.
        outputs: that it gave for samples that were made up: shapes that the signature leaves open.
    """
    return InputSchema(
        tuple(InputInfo(info.name, info.dtype, sample_shape(info, draw), None, None) for info in foreign.inputs),
        tuple(
            OutputInfo(info.name, tuple(outputs[info.name].shape[1:]), "regression", "values")
            for info in foreign.outputs
        ),
    )


def schema_of_data(foreign: Foreign, data: Dataset, spec: Spec) -> InputSchema:
    """What the data say of inputs and outputs, held against the signature.

    Raises:
        DataError: if the data are not what the model takes, or its outputs not what they are said to be.
    """
    names, train = names_of(foreign, data.source.inputs), data.split("train")
    inputs = []
    for theirs, ours in names.items():
        info = describe_input(ours, train, data.source)
        # What the data call it: a table that is given to `predict` has that for the head of its column.
        inputs.append(replace(info, name=theirs, original=info.original or (ours if ours != theirs else None)))
    for info, end in zip(inputs, foreign.inputs, strict=True):
        _require_taken(foreign.name, info, end)
        if np.dtype(_numpy_name(end)).kind in "iub":
            _require_whole(foreign.name, info, end, train, names[end.name])
    return InputSchema(tuple(inputs), _outputs(foreign, data, spec))


def _numpy_name(end: TensorInfo) -> str:
    return {"bfloat16": "float32", "string": "str"}.get(end.dtype, end.dtype)


def _require_taken(name: str, info: InputInfo, end: TensorInfo) -> None:
    if fits(end.shape, info.shape) and (info.dtype == "string") == (end.dtype == "string"):
        return
    given = "text" if info.dtype == "string" else "numbers"
    message = f"{name} takes {end.dtype} of shape {_shown(end.shape)} as {end.name!r}; the data give {given}"
    hint = "data.source says how samples are read (image_size, columns, ...); the model is not changed"
    raise DataError(f"{message} of shape {info.shape}", hint)


def _require_whole(name: str, info: InputInfo, end: TensorInfo, train: Samples, ours: str) -> None:
    """A model of integers would cut fractions off, and numbers that its type cannot hold, without a word."""
    seen = train.inputs[ours][:LOOKED_AT]
    if seen.dtype.kind == "f" and (seen != np.round(seen)).any():
        message = f"{name} takes {end.dtype} as {end.name!r}; the data give numbers with fractions"
        raise DataError(message, "give whole numbers, as the model was trained on")
    held = np.iinfo(end.dtype) if end.dtype != "bool" else None
    low, high = (held.min, held.max) if held else (0, 1)
    if info.minimum is not None and info.maximum is not None and not low <= info.minimum <= info.maximum <= high:
        message = f"{name} takes {end.dtype} as {end.name!r}; the data go from {info.minimum:g} to {info.maximum:g}"
        raise DataError(message, f"it holds {low} to {high}")


def _outputs(foreign: Foreign, data: Dataset, spec: Spec) -> tuple[OutputInfo, ...]:
    found = {info.name: info for info in foreign.outputs}
    single = set(data.meanings) == {""}
    if len(data.meanings) != len(found) or not (single or set(data.meanings) == set(found)):
        told = "one that has no name" if single else ", ".join(data.meanings)
        several = ", ".join(f"{name}: {{loss: ...}}" for name in found)
        hint = f"write train.outputs: {{{several}}}" if len(found) > 1 else "write train.loss, without outputs"
        raise DataError(f"{foreign.name} has the outputs {', '.join(found)}; the spec describes {told}", hint)
    outputs = []
    for key, meaning in data.meanings.items():
        end = found[key] if key else foreign.outputs[0]
        targets = of_output(data.targets, key)
        shape = _answered(foreign.name, end, meaning, tuple(targets.shape[1:]))
        kind = output_kind(spec.train.heads[key].loss)
        outputs.append(OutputInfo(end.name, shape, meaning.task, kind, meaning.labels, columns=meaning.columns))
    return tuple(outputs)


def _answered(name: str, end: TensorInfo, meaning: Meaning, targets: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of one answer, as the task wants it; without this arrays of other shapes would be compared anyhow.

    Raises:
        DataError: if the model answers in another shape.
    """
    wanted: tuple[int, ...]
    match meaning.task:
        case "classification":
            wanted, what = (len(meaning.labels),), f"{len(meaning.labels)} classes"
        case "segmentation":
            wanted, what = (*targets, len(meaning.labels)), f"masks of {len(meaning.labels)} classes"
        case "binary":
            wanted, what = (1,), "2 classes, which a binary loss tells by one value"
        case "multi_label":
            wanted, what = (len(meaning.labels),), f"{len(meaning.labels)} labels a sample"
        case "regression":
            wanted, what = targets, f"{math.prod(targets)} values a sample"
        case "anomaly":
            hint = "convert the run that trained it, or describe it by a loss without anomaly"
            raise DataError(f"{name}: an anomaly is told by a threshold, which only training finds", hint)
    if not fits(end.shape, wanted):
        message = f"{name} answers {end.name!r} in shape {_shown(end.shape)}; the data have {what}: {wanted}"
        hint = "the targets must be what the model answers: data.source.target"
        if not end.shape:
            hint = "give it an axis of values: a last layer Reshape((1,))"
        elif meaning.labels:
            hint = f"data.source.classes names all that the model knows, in its order (read: {_some(meaning.labels)})"
        raise DataError(message, hint)
    return wanted


def _some(labels: tuple[str, ...]) -> str:
    return ", ".join(labels[:5]) + (", ..." if len(labels) > 5 else "")


def _shown(shape: tuple[int | None, ...]) -> str:
    return str(tuple("any" if size is None else size for size in shape)).replace("'", "")


def require_meaning(name: str, outputs: Array, schema: InputSchema) -> None:
    """Holds the answers of a model against what its spec says they are.

    A loss from logits on probabilities, or the other way round, leaves the greatest of several as it is and shows in no
    accuracy; what `predict` tells as probabilities, and how far off files may be, would be wrong.

    Args:
        name: of the model.
        outputs: [samples, ...], with a field for each of several outputs.
        schema: what they are said to be.

    Raises:
        DataError: if they are something else.
    """
    for info in schema.outputs:
        values = of_output(outputs, info.name)
        inside = bool((values >= -NEAR).all() and (values <= 1 + NEAR).all())
        if info.activation == "probabilities" and not inside:
            span = f"{values.min():.4g} to {values.max():.4g}"
            message = f"the loss says that {name} answers {info.name!r} with probabilities, and they go from {span}"
            raise DataError(message, "write from_logits: true in the loss")
        if info.activation == "logits" and inside:
            message = f"the loss says that {name} answers {info.name!r} with logits, and all are from 0 to 1"
            if values.shape[-1] > 1 and bool((np.abs(values.sum(axis=-1) - 1) <= NEAR).all()):
                message += " and add up to 1 in every sample: probabilities"
                raise DataError(message, "write from_logits: false in the loss")
            logger.warning("%s; are they probabilities? Then write from_logits: false", message)

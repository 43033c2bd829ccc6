"""What a converted file really is, read from the file itself and held against what was asked for."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mltool.conversion.asked import Asked, Problems
from mltool.conversion.layer_checks import (
    check_granularity,
    check_layers,
    check_recipe,
    granularity_of,
    reason_for_float,
)
from mltool.conversion.precision import LAYER_SCHEMES, Precision
from mltool.conversion.schemes import DYNAMIC_MIN_ELEMENTS, DYNAMIC_OPS, INTEGER_IO, NO_INT8_KERNEL, SCHEMES
from mltool.conversion.support import row_text
from mltool.errors import ConversionError, Message
from mltool.inspection.flatbuffer import read_flatbuffer
from mltool.inspection.model_file import FLOAT_TYPES, SMALL_INTEGER_TYPES, ModelFile, Operator, Tensor


@dataclass(frozen=True, slots=True)
class Island:
    """An operator that computes in floating point inside an integer file.

    Attributes:
        op: builtin name.
        layers: the Keras layers that it came from.
        reason: why it may: `preprocessing`, `keep_float`, `mixture`, `unread output`, `no int8 kernel`,
            `no int16 kernel` or `next to WHILE`.
    """

    op: str
    layers: tuple[str, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class ReadBack:
    """What the file is.

    Attributes:
        quantize: the scheme that it was found to keep.
        bytes: size of the file.
        inputs: element type by input name, of the first signature.
        outputs: element type by output name.
        operators: how often each operator occurs.
        operator_versions: the highest version of each operator.
        operator_share_by_dtype: share of operators, in [0, 1], by the type that they compute in; QUANTIZE and
            DEQUANTIZE are `edge`.
        weight_bytes_by_dtype: bytes of stored values by element type, biases (int32) and shapes among them.
        float_islands: every operator that computes in float in a file with integer activations.
        layers_without_operator: layers that left no trace: folded into others, or without effect at inference.
        per_channel: whether any weight has a scale per channel.
        granularity: the finest among quantized weights: `block`, `channel` or `tensor`; `None` where there are none.
        min_runtime_version: of TensorFlow Lite, as the converter recorded it.
        variables: names of what keeps its value between two runs.
    """

    quantize: str
    bytes: int
    inputs: dict[str, str]
    outputs: dict[str, str]
    operators: dict[str, int]
    operator_versions: dict[str, int]
    operator_share_by_dtype: dict[str, float]
    weight_bytes_by_dtype: dict[str, int]
    float_islands: tuple[Island, ...]
    layers_without_operator: tuple[str, ...]
    per_channel: bool
    granularity: str | None
    min_runtime_version: str | None
    variables: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """As it stands in the artifact's JSON file."""
        return asdict(self)


def read_back(
    path: Path,
    *,
    quantize: str,
    io: str,
    layer_names: Sequence[str] = (),
    preprocess_layers: Sequence[str] = (),
    keep_float: Sequence[str] = (),
    granularity: str = "channel",
    precision: Precision | None = None,
    free_granularity: Sequence[str] = (),
) -> ReadBack:
    """Reads a `.tflite` file and makes sure that it is of the scheme that was asked for.

    Args:
        path: the file.
        quantize: a name in `SCHEMES`.
        io: `float32`, `int8` or `uint8`: the type that its quantizable inputs and outputs must have.
        layer_names: the Keras layers in the order of the model.
        preprocess_layers: those of them that prepare raw inputs; they may stay float in an int8 file with float inputs.
        keep_float: those that had to stay float.
        granularity: `channel` or `tensor`: what had to share a scale; `precision.granularity` comes first.
        free_granularity: operators whose weights may have a scale per channel or one, as they were trained.
        precision: what each layer was to be, for schemes of the quantizer; `mixed` needs it.

    Raises:
        ArtifactError: the file is missing or damaged.
        ConversionError: it is not what was asked for; one message for each way in which it is not.
        ValueError: `mixed` without `precision`.
    """
    if quantize == "mixed" and precision is None:
        raise ValueError("mixed needs to know what each layer was to be")
    file = read_flatbuffer(path, layer_names)
    if SCHEMES[quantize].engine == "quantizer" and quantize in LAYER_SCHEMES and precision is None:
        precision = Precision(quantize, granularity=granularity, io=io)
    if precision is not None:
        precision, granularity = precision.keeping_float(keep_float), precision.granularity
    asker = Asked(
        file,
        quantize,
        io,
        frozenset(preprocess_layers),
        frozenset(keep_float),
        precision,
        granularity,
        frozenset(free_granularity),
    )
    problems = [*_check_any(asker), *_CHECKS[quantize](asker)]
    if problems:
        raise ConversionError(Message(text, hint, file=str(path)) for text, hint in problems)
    return _describe(asker, layer_names)


def _check_any(asked: Asked) -> Problems:
    """What no file may be, whatever its scheme."""
    file = asked.file
    if not file.operators:
        yield "the file holds no operator", "does the model do anything?"
    if file.custom_ops:
        hint = "use layers that TensorFlow Lite has operators for: no Flex delegate comes with the runtime"
        yield f"the file needs operators that are not builtin: {', '.join(file.custom_ops)}", hint
    if file.variables and not any(op.op == "WHILE" or "LSTM" in op.op or "RNN" in op.op for op in file.operators):
        hint = "export the model again"
        if any("seed_generator" in name for name in file.variables):
            hint = "a layer draws random numbers at rest too, as RandomHue does: write it under data.augment"
        yield f"the file keeps variables between two runs: {', '.join(file.variables)}", hint
    yield from _check_scales(asked)
    yield from _check_io(asked)


def _check_scales(asked: Asked) -> Problems:
    for tensor in asked.file.tensors:
        if not all(0 < scale < float("inf") for scale in tensor.scales):
            bad = next(scale for scale in tensor.scales if not 0 < scale < float("inf"))
            yield f"tensor {tensor.name!r} has scale {bad}", "look for NaN or constant features in the calibration data"
        if not tensor.finite:
            text = f"constant {tensor.name!r} of {tensor.dtype}{asked.place_of(tensor)} is not finite"
            yield text, "did training diverge?"
        if tensor.saturated:  # the converter clamps in silence: a feature's mean of a million becomes 65,504
            what = f"constant {tensor.name!r}{asked.place_of(tensor)}"
            text = f"{what} does not fit into float16, which ends at 65,504, and was cut off there"
            yield text, "use another scheme, or bring the raw values into range outside the model"


def _check_io(asked: Asked) -> Problems:
    """Inputs and outputs have the type that was asked for; ids, flags and text keep their own."""
    file = asked.file
    kinds = (("input", _io(file, outputs=False)), ("output", _io(file, outputs=True)))
    for kind, tensors in kinds:
        for name, tensor in tensors.items():
            if tensor.dtype != asked.io and tensor.dtype in FLOAT_TYPES | SMALL_INTEGER_TYPES:
                yield f"asked for io: {asked.io}, but {kind} {name!r} is {tensor.dtype}", ""


def _check_none(asked: Asked) -> Problems:
    quantized = [tensor for tensor in asked.file.tensors if tensor.dtype in SMALL_INTEGER_TYPES | {"float16"}]
    if quantized:
        what = f"{len(quantized)} of {len(asked.file.tensors)} tensors are not"
        yield f"asked for float32, {what} (first: {quantized[0].name!r} of {quantized[0].dtype})", ""


def _check_float16(asked: Asked) -> Problems:
    weights = [tensor for tensor in asked.file.constants if tensor.dtype in FLOAT_TYPES]
    wrong = [tensor for tensor in weights if tensor.dtype != "float16"]
    if wrong:
        first = f"{wrong[0].name!r} of {wrong[0].dtype}"
        yield f"asked for float16, but {len(wrong)} of {len(weights)} float weights are not (first: {first})", ""
    if not weights:
        yield "asked for float16, but the file holds no float weight", "use quantize: none"
    small = [tensor for tensor in asked.file.tensors if tensor.dtype in SMALL_INTEGER_TYPES]
    if small:
        yield f"asked for float16, but tensor {small[0].name!r} is {small[0].dtype}", ""


def _check_dynamic(asked: Asked) -> Problems:
    weights = [(op, tensor) for op in asked.computing if (tensor := _weight(op)) is not None]
    wrong = [(op, t) for op, t in weights if t.dtype != "int8" and t.elements >= DYNAMIC_MIN_ELEMENTS]
    if wrong:
        op, tensor = wrong[0]
        first = f"{tensor.elements} elements of {tensor.dtype} in {op}"
        yield f"asked for dynamic, but {len(wrong)} of {len(weights)} weights are not int8 (first: {first})", ""
    elif not any(tensor.dtype == "int8" for _, tensor in weights):
        largest = max((tensor.elements for _, tensor in weights), default=0)
        yield (
            f"asked for dynamic, but no weight is int8: the converter leaves weights of fewer than "
            f"{DYNAMIC_MIN_ELEMENTS:,} elements alone, and the largest here has {largest:,}",
            "use quantize: int8, float16 or none",
        )
    # GATHER is let off: an embedding looked up in int8 stays so until the first operator that computes with it.
    integer = [op for op in asked.computing if op.op in DYNAMIC_OPS and op.op != "GATHER"]
    integer = [op for op in integer if op.compute_dtype in SMALL_INTEGER_TYPES]
    if integer:
        yield f"asked for dynamic, but activations are quantized too (first: {integer[0]})", "use quantize: int8"


def _check_int8(asked: Asked) -> Problems:
    in_float = asked.in_float()
    refused = [op for op in in_float if asked.reason(op) is None]
    if refused:
        total = len(asked.computing)
        fact = f"the file is {'float32' if len(in_float) == total else 'int8 in part'}"
        text = f"asked for int8, {fact}: {len(refused)} of {total} operators compute in {refused[0].compute_dtype}"
        yield f"{text} (first: {refused[0]})", _float_hint(asked, refused)
    elif not any(op.compute_dtype == "int8" for op in asked.computing):
        yield "asked for int8, but no operator computes in int8", "nothing is left to quantize: use quantize: none"
    wide = [op for op in asked.computing if any(out.scales and out.dtype == "int16" for out in op.outputs)]
    if wide:
        count = f"{len(wide)} of {len(asked.computing)} operators compute in int16"
        yield f"asked for int8, but {count} (first: {wide[0]})", "use quantize: int16x8, or layers: {NAME: int16x8}"
    lost = [op for op in asked.computing if asked.keep_float & set(op.layers) and op not in in_float]
    lost = [op for op in lost if op.compute_dtype in SMALL_INTEGER_TYPES]
    if lost:
        yield f"asked to keep {sorted(asked.keep_float)} in float, but {lost[0]} computes in int8", ""
    if asked.io in INTEGER_IO and not refused:
        yield from _check_no_float(asked.file)


def _check_no_float(file: ModelFile) -> Problems:
    floats = [tensor for tensor in file.tensors if tensor.dtype in FLOAT_TYPES]
    if floats:
        first = f"{floats[0].name!r} of {floats[0].dtype}"
        yield f"asked for integer inputs and outputs, but {len(floats)} tensors are float (first: {first})", ""


def _float_hint(asked: Asked, refused: Sequence[Operator]) -> str:
    without = sorted({op.op for op in refused if op.op in NO_INT8_KERNEL})
    if without and asked.io in INTEGER_IO:
        rows = "; ".join(filter(None, map(row_text, without)))
        return (
            f"{', '.join(without)} has no int8 kernel: use io: float32, or another layer{f' ({rows})' if rows else ''}"
        )
    if any(op.compute_dtype == "int8" for op in asked.computing):
        return "name the layer under keep_float, or use another one"
    return "the converter did not quantize: is the representative dataset empty?"


def _with_granularity(check: Callable[[Asked], Problems]) -> Callable[[Asked], Problems]:
    def both(asked: Asked) -> Problems:
        yield from check(asked)
        yield from check_granularity(asked)

    return both


_CHECKS: dict[str, Callable[[Asked], Problems]] = {
    "none": _check_none,
    "float16": _check_float16,
    "dynamic": _with_granularity(_check_dynamic),
    "int8": _with_granularity(_check_int8),
    **dict.fromkeys(("int16x8", "int4", "weight-only", "mixed"), _with_granularity(check_layers)),
    "recipe": check_recipe,
}


def _weight(op: Operator) -> Tensor | None:
    """The weight that `dynamic` quantizes in this operator, if it has one."""
    position = DYNAMIC_OPS.get(op.op)
    if position is None or position >= len(op.inputs):
        return None
    tensor = op.inputs[position]
    if tensor is None or not tensor.constant or tensor.dtype not in FLOAT_TYPES | SMALL_INTEGER_TYPES:
        return None
    return tensor


def _io(file: ModelFile, *, outputs: bool) -> dict[str, Tensor]:
    """Inputs or outputs by the names of the first signature, else by their own."""
    if file.signatures:
        signature = file.signatures[0]
        return dict(signature.outputs if outputs else signature.inputs)
    return {tensor.name: tensor for tensor in (file.outputs if outputs else file.inputs)}


def _describe(asked: Asked, layer_names: Sequence[str]) -> ReadBack:
    file = asked.file
    versions: dict[str, int] = {}
    for op in file.operators:
        versions[op.op] = max(op.version, versions.get(op.op, 0))
    seen = {layer for op in file.operators for layer in op.layers}
    return ReadBack(
        quantize=asked.quantize,
        bytes=file.total_bytes,
        inputs={name: tensor.dtype for name, tensor in _io(file, outputs=False).items()},
        outputs={name: tensor.dtype for name, tensor in _io(file, outputs=True).items()},
        operators=file.op_counts,
        operator_versions=dict(sorted(versions.items())),
        operator_share_by_dtype={key: count / len(file.operators) for key, count in file.ops_by_dtype.items()},
        weight_bytes_by_dtype=file.weight_bytes_by_dtype,
        float_islands=_islands(asked),
        layers_without_operator=tuple(name for name in layer_names if name not in seen),
        per_channel=any(len(tensor.scales) > 1 for tensor in file.constants),
        granularity=granularity_of(asked),
        min_runtime_version=file.min_runtime_version,
        variables=file.variables,
    )


def _islands(asked: Asked) -> tuple[Island, ...]:
    """The operators in float, where others have integer activations."""
    if asked.quantize == "int8":
        return tuple(Island(op.op, op.layers, asked.reason(op) or "") for op in asked.in_float())
    if asked.precision is None or not asked.precision.calibrated:
        return ()
    return tuple(Island(op.op, op.layers, reason_for_float(asked, op)) for op in asked.in_float())

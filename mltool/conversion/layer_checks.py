"""Whether every layer of a file of the quantizer is what it was to be, and whether weights share scales as asked."""

from collections.abc import Mapping
from types import MappingProxyType

from mltool.conversion.asked import Asked, Problems, in_float
from mltool.conversion.precision import FLOAT_ACTIVATIONS, Precision
from mltool.conversion.schemes import BLOCK_OPS, CHANNEL_AXIS, INT4_OPS, INTEGER_IO, STATIC_OPS, WEIGHT_OPS
from mltool.inspection.model_file import FLOAT_TYPES, SMALL_INTEGER_TYPES, Operator, Tensor

_COMPUTED_IN: Mapping[str, str] = MappingProxyType({"int8": "int8", "int16x8": "int16"})
"""Element type of integer activations, by the scheme of a layer."""


def check_layers(asked: Asked) -> Problems:
    """Every operator is in the scheme of its layers, or float for a reason; every scheme is there at all."""
    precision = asked.precision or Precision(asked.quantize)
    groups: dict[str, list[Operator]] = {}
    for op in asked.computing:
        if in_float(op) or op.compute_dtype in SMALL_INTEGER_TYPES:  # others compute with ids, flags and shapes
            groups.setdefault(precision.scheme_of(op.layers), []).append(op)
    for scheme, operators in groups.items():
        wrong = [(op, text) for op in operators if (text := _wrong(asked, op, scheme)) is not None]
        if wrong:
            count = f"{len(wrong)} of {len(operators)} operators {'is' if len(wrong) == 1 else 'are'} not"
            yield f"asked for {scheme}, but {count} (first: {wrong[0][0]} {wrong[0][1]})", _hint(asked, wrong[0][0])
        elif scheme != "float32" and not any(_shows(asked, op, scheme) for op in operators):
            what = "computes in it" if scheme in _COMPUTED_IN else "has weights that could be stored in it"
            yield f"asked for {scheme}, but no operator {what} (among them: {operators[0]})", "leave these layers float"


def check_recipe(asked: Asked) -> Problems:
    """Of a user's recipe no more is known than that it was to quantize something."""
    if not any(tensor.scales or tensor.dtype == "float16" for tensor in asked.file.tensors):
        yield (
            "asked for a recipe, but nothing in the file is quantized",
            "does a regex fit an operator's output tensor?",
        )


def reason_for_float(asked: Asked, op: Operator) -> str:
    """Why an operator of a file of the quantizer may compute in float; empty when it may not."""
    precision = asked.precision or Precision(asked.quantize)
    scheme = precision.scheme_of(op.layers)
    if asked.keep_float & set(op.layers):
        return "keep_float"
    if scheme in FLOAT_ACTIVATIONS:
        return "mixture"
    if asked.io in INTEGER_IO:
        return ""
    if op in asked.file.half_read and all(tensor.dtype in FLOAT_TYPES for tensor in op.outputs):
        return "unread output"
    return "" if op.op in STATIC_OPS[scheme] else f"no {_COMPUTED_IN[scheme]} kernel"


def _wrong(asked: Asked, op: Operator, scheme: str) -> str | None:
    """What is wrong with an operator that was to be in a scheme."""
    float_allowed = scheme in FLOAT_ACTIVATIONS or bool(reason_for_float(asked, op))
    fits = float_allowed if in_float(op) else op.compute_dtype == _COMPUTED_IN.get(scheme)
    if not fits:
        return f"computes in {op.compute_dtype}"
    left_float = scheme in _COMPUTED_IN and in_float(op)
    return None if left_float else _wrong_weight(asked, op, scheme)


def _wrong_weight(asked: Asked, op: Operator, scheme: str) -> str | None:
    weight, wanted = _weight(asked, op), _weight_type(op, scheme)
    if weight is None:
        return None
    if weight.dtype != wanted:
        return f"has weights in {weight.dtype}"
    unpacked = wanted != "float32" and op.compute_dtype in FLOAT_TYPES
    if unpacked != (scheme == "weight-only"):
        return "unpacks its weights" if unpacked else "computes with packed weights"
    return None


def _shows(asked: Asked, op: Operator, scheme: str) -> bool:
    """Whether an operator shows that a scheme was applied."""
    if scheme in _COMPUTED_IN:
        return op.compute_dtype == _COMPUTED_IN[scheme]
    weight = _weight(asked, op)
    return weight is not None and weight.dtype == ("int4" if scheme == "int4" else "int8")


def _weight_type(op: Operator, scheme: str) -> str:
    """Element type of the weights of an operator in a scheme."""
    if scheme == "float32":
        return "float32"
    return "int4" if scheme == "int4" and op.op in INT4_OPS else "int8"


def _weight(asked: Asked, op: Operator) -> Tensor | None:
    position = WEIGHT_OPS.get(op.op)
    return None if position is None else asked.weight(op, position)


def _hint(asked: Asked, op: Operator) -> str:
    if asked.io in INTEGER_IO and in_float(op):
        return "io: float32 allows layers in float, or use another layer"
    return ""


def check_granularity(asked: Asked) -> Problems:
    """Quantized weights have one scale, one per channel, or one per block, as asked."""
    weights = [(op, w) for op in asked.computing if op.op in CHANNEL_AXIS and (w := _weight(asked, op)) is not None]
    wrong: dict[str, list[Operator]] = {}
    for op, weight in weights:
        if weight.dtype in SMALL_INTEGER_TYPES and op.op not in asked.free_granularity:
            found, wanted = _granularity(op, weight), _wanted(asked, op, weight)
            if found != wanted and not (weight.shape[CHANNEL_AXIS[op.op]] == 1 and "block" not in found + wanted):
                wrong.setdefault(f"asked for one scale per {wanted}, but {{}} one per {found}", []).append(op)
    for text, operators in wrong.items():
        count = f"{len(operators)} of {len(weights)} weights have"
        yield f"{text.format(count)} (first: {operators[0]})", ""


def granularity_of(asked: Asked) -> str | None:
    """The finest among quantized weights: `block`, `channel` or `tensor`; `None` where there are none."""
    found = set()
    for op in asked.computing:
        weight = _weight(asked, op) if op.op in CHANNEL_AXIS else None
        if weight is not None and weight.dtype in SMALL_INTEGER_TYPES:
            found.add(_granularity(op, weight).split(" of ")[0])
    return next((name for name in ("block", "channel", "tensor") if name in found), None)


def _granularity(op: Operator, weight: Tensor) -> str:
    if weight.block_size:
        return f"block of {weight.block_size}"
    if len(weight.scales) == 1:
        return "tensor"
    channels = weight.shape[CHANNEL_AXIS[op.op]]
    return (
        "channel" if weight.quantized_dimension == CHANNEL_AXIS[op.op] and len(weight.scales) == channels else "other"
    )


def _wanted(asked: Asked, op: Operator, weight: Tensor) -> str:
    size = asked.precision.block_size if asked.precision else None
    if asked.granularity == "block" and size is not None:
        divided = op.op in BLOCK_OPS and weight.dtype == "int4" and weight.shape[-1] % size == 0
        return f"block of {size}" if divided else "channel"
    return asked.granularity

"""Which operator of a quantized file does what which operator of the float file does."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from mltool.inspection.layers import EDGE_OPS
from mltool.inspection.model_file import FLOAT_TYPES, ModelFile, Operator, Tensor

_DIGITS = re.compile(r"\d+$")


@dataclass(frozen=True, slots=True)
class Pair:
    """One operator in both files.

    Attributes:
        wanted: of the float file.
        got: of the quantized file; None where nothing matches.
    """

    wanted: Operator
    got: Operator | None


def pair_operators(float_file: ModelFile, quantized_file: ModelFile) -> list[Pair]:
    """The operators of the main graph that give float values, with their counterparts.

    First by the name of the output, which both the converter and litert-quantizer keep, then by the order in which
    operators of one kind and layer run: what feeds an output of the model is renamed when a DEQUANTIZE follows it.

    Args:
        float_file: what the quantized file was made of, or should answer as.
        quantized_file: likewise read with the names of the layers.

    Returns:
        In the order of the float file.
    """
    left = [op for op in _computing(float_file) if op.outputs[0].dtype in FLOAT_TYPES]
    right = _computing(quantized_file)
    found: dict[int, Operator] = {}
    for key in (_by_name, _by_name_without_digits, _by_layer):
        _match(left, right, found, key)
    return [Pair(op, found.get(op.index)) for op in left]


def _computing(file: ModelFile) -> list[Operator]:
    return [op for op in file.operators if op.subgraph == 0 and op.op not in EDGE_OPS and op.outputs]


_Key = tuple[object, ...]


def _by_name(op: Operator) -> _Key:
    return op.op, op.outputs[0].name


def _by_name_without_digits(op: Operator) -> _Key:
    """The converter appends a digit where a name would come twice."""
    return op.op, _DIGITS.sub("", op.outputs[0].name)


def _by_layer(op: Operator) -> _Key:
    return op.op, op.layers


def _match(
    left: Sequence[Operator], right: Sequence[Operator], found: dict[int, Operator], key: Callable[[Operator], _Key]
) -> None:
    """Pairs what is left over and has equal keys, in order, where both files have as many of them."""
    taken = {op.index for op in found.values()}
    theirs_by_key = _grouped(_without(right, taken), key)
    for name, ours in _grouped(_without(left, found), key).items():
        theirs = theirs_by_key.get(name, [])
        if len(ours) == len(theirs):
            found |= {one.index: other for one, other in zip(ours, theirs, strict=True) if _alike(one, other)}


def _grouped(ops: Iterable[Operator], key: Callable[[Operator], _Key]) -> dict[_Key, list[Operator]]:
    groups: dict[_Key, list[Operator]] = defaultdict(list)
    for op in ops:
        groups[key(op)].append(op)
    return groups


def _without(ops: Iterable[Operator], known: Iterable[int]) -> list[Operator]:
    indices = set(known)
    return [op for op in ops if op.index not in indices]


def _alike(one: Operator, other: Operator) -> bool:
    return one.outputs[0].elements == other.outputs[0].elements


def constant_pairs(pair: Pair, unpacked: dict[int, Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Stored values that both operators read at the same place: float, and quantized or of 16 bits.

    Args:
        pair: of operators.
        unpacked: constants of the quantized file by the index of the tensor that a DEQUANTIZE makes of them.
    """
    if pair.got is None:
        return []
    found = []
    for wanted, read in zip(pair.wanted.inputs, pair.got.inputs, strict=False):
        got = unpacked.get(read.index, read) if read is not None else None
        if wanted is None or got is None or not (wanted.constant and got.constant):
            continue
        if wanted.dtype in FLOAT_TYPES and wanted.elements == got.elements and got.dtype != "int32":
            found.append((wanted, got))  # a bias of 32 bits loses nothing
    return found


def unpacked_constants(file: ModelFile) -> dict[int, Tensor]:
    """The constants that DEQUANTIZE operators unpack, by the index of what they make."""
    return {
        op.outputs[0].index: op.inputs[0]
        for op in file.operators
        if op.subgraph == 0
        and op.op == "DEQUANTIZE"
        and op.inputs
        and op.inputs[0] is not None
        and op.inputs[0].constant
    }

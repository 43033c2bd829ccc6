"""What the search tries, in the order in which it is worth its time; pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from mltool.spec.convert import ConvertSpec
from mltool.spec.spec import to_plain

STEPS = ("schemes", "mixtures", "training")
"""From cheap to dear: the whole file in one scheme, some layers in another, the model trained on."""


@dataclass(frozen=True)
class Candidate:
    """One file to try.

    Attributes:
        name: in tables; says what it is.
        step: of the search that brought it up; a name in `STEPS`.
        entry: that makes it, and makes it again.
    """

    name: str
    step: str
    entry: ConvertSpec


def whole_schemes(asked: ConvertSpec, *, converter: bool) -> list[Candidate]:
    """The whole file in one scheme, those first that are most often enough.

    Args:
        asked: the entry of the search; what it says of batch, calibration, ends and scales holds for all, and of
            floating layers for those with integer activations. Integer ends leave int8 alone.
        converter: whether TensorFlow's converter can read the model; float files know the quantizer alone.
    """
    int8 = {"quantize": "int8", "keep_float": asked.keep_float, "preprocess": asked.preprocess, "io": asked.io}
    by_tensor = {**int8, "granularity": "tensor"}
    entries: list[dict[str, Any]] = [by_tensor] if asked.granularity == "tensor" else [int8]
    if converter and asked.granularity != "tensor":
        entries.append(by_tensor)
    if asked.io == "float32" and asked.granularity != "tensor":
        entries += [
            {"quantize": "dynamic"},
            {"quantize": "int4"},
            {"quantize": "int4", "block_size": 32},
            {"quantize": "weight-only"},
            {"quantize": "int16x8", "keep_float": asked.keep_float},
        ]
        if converter:  # the quantizer does not make it
            entries.append({"quantize": "float16"})
    return [_candidate("schemes", {**_common(asked), **entry}) for entry in entries]


def keeping(asked: ConvertSpec, worst: Sequence[str], scheme: str, count: int) -> Candidate:
    """int8 with the `count` worst layers in a scheme of more precision.

    Args:
        asked: the entry of the search.
        worst: names of layers, the one that loses most first.
        scheme: of these layers: `int16x8` or `float32`.
        count: of them.
    """
    layers = {_escaped(name): scheme for name in worst[:count]}
    entry = {
        **_common(asked),
        "quantize": "int8",
        "granularity": asked.granularity,
        "keep_float": asked.keep_float,
        "preprocess": asked.preprocess,
        "layers": layers,
    }
    return _candidate("mixtures", entry, f"int8, {count} {scheme}")


def narrowing(asked: ConvertSpec, best: Sequence[str], count: int) -> Candidate:
    """int8 weights, and 4 bits for the `count` layers that lose least by them; activations stay float.

    Args:
        asked: the entry of the search.
        best: names of layers, the one that loses least first.
        count: of them.
    """
    layers = {_escaped(name): "int4" for name in best[:count]}
    entry = {**_common(asked), "quantize": "dynamic", "layers": layers}
    return _candidate("mixtures", entry, f"dynamic, {count} int4")


def trained(asked: ConvertSpec) -> list[Candidate]:
    """The model trained on with quantization in it: a scale per channel, and one per tensor, which is smaller."""
    entry = {**_common(asked), "quantize": "qat", "io": asked.io, "keep_float": asked.keep_float}
    if asked.qat is not None:
        entry["qat"] = to_plain(asked.qat)
    by_channel = [] if asked.granularity == "tensor" else [_candidate("training", entry)]
    return [*by_channel, _candidate("training", {**entry, "granularity": "tensor"})]


def doubling(count: int) -> Iterator[int]:
    """1, 2, 4 ... and `count` itself: how many layers to keep, until it is enough."""
    number = 1
    while number < count:
        yield number
        number *= 2
    if count > 0:
        yield count


def _common(asked: ConvertSpec) -> dict[str, Any]:
    return {"batch": asked.batch, "representative": asked.representative}


def _candidate(step: str, entry: dict[str, Any], name: str = "") -> Candidate:
    made = ConvertSpec.model_validate({key: value for key, value in entry.items() if value not in ((), None)})
    return Candidate(name or made.name, step, made)


def _escaped(name: str) -> str:
    """A pattern that matches this name alone; most names are their own."""
    import re

    return name if re.fullmatch(r"[A-Za-z0-9_/-]+", name) else re.escape(name)

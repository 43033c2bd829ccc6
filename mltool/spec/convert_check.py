"""What must hold between the conversion, its limits, and the rest of a spec."""

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from mltool.spec.catalogue import Problem
from mltool.spec.convert import ConvertSpec
from mltool.spec.limits import LimitsSpec
from mltool.spec.own_things import OwnThing
from mltool.spec.train import close_hint

if TYPE_CHECKING:
    from mltool.spec.spec import Spec

_NO_TRAINING_ON = ("LogMel", "MFCC", "StringLookup", "TextVectorization")
"""Layers that take text or are made of bare operations: the rebuilt model of `quantize: qat` has none of them."""


def convert_problems(spec: "Spec") -> Iterable[Problem]:
    """Names that are used twice, layers that are not there or not reached, and models that cannot be trained on."""
    seen: set[str] = set()
    for index, entry in enumerate(spec.convert):
        # One file on a disk that does not tell capital letters.
        if entry.name.lower() in seen:
            message = f"the name {entry.name!r} is used twice"
            yield Problem(("convert", index, "name"), False, message, "give one a name: of its own")
        seen.add(entry.name.lower())
        if spec.names_are_known:
            yield from _unknown_layers(spec.model.layer_names, index, entry)
            yield from _shadowed_layers(spec.model.layer_names, index, entry)
        if entry.quantize == "qat":
            yield from _training_on_problems(spec, index)


def _unknown_layers(names: Iterable[str], index: int, entry: ConvertSpec) -> Iterable[Problem]:
    for position, name in enumerate(entry.keep_float):
        if name not in names:
            message, hint = f"no layer is called {name!r}", close_hint(name, names)
            yield Problem(("convert", index, "keep_float", position), False, message, hint)
    for pattern in entry.layers:
        begin = pattern.partition("/")[0]  # what lies inside of a model is not known before it is built
        if not matches_one(begin, names):
            message, hint = f"no layer matches {pattern!r}", close_hint(begin, names)
            yield Problem(("convert", index, "layers", pattern), True, message, hint)


def _shadowed_layers(names: Iterable[str], index: int, entry: ConvertSpec) -> Iterable[Problem]:
    """The first pattern that matches a layer counts, and keep_float before all: what comes too late does nothing.

    Told of names alone: what else a pattern matches inside of layers is not known before they are built.
    """
    patterns = list(entry.layers)
    for position, pattern in enumerate(patterns):
        place, scheme = ("convert", index, "layers", pattern), entry.layers[pattern]
        earlier = [one for one in patterns[:position] if matches_one(one, [pattern])]
        if pattern not in names:
            continue
        if scheme != "float32" and pattern in entry.keep_float:
            yield Problem(place, True, "does nothing: keep_float keeps the layer in float", "leave one of the two out")
        elif earlier and entry.layers[earlier[0]] != scheme:
            message = f"does nothing: {earlier[0]!r} before it matches first"
            yield Problem(place, True, message, f"write it above {earlier[0]!r}")


def _training_on_problems(spec: "Spec", index: int) -> Iterable[Problem]:
    """The first layer that the model cannot be trained on with, see `mltool.conversion.aware`."""
    for layer in (*spec.model.preprocess_layers, *spec.model.layers):
        if not isinstance(layer.layer, OwnThing) and layer.layer.name in _NO_TRAINING_ON:
            message = f"qat cannot rebuild {layer.layer.name} ({layer.name!r})"
            yield Problem(("convert", index, "quantize"), False, message, "take another scheme")
            return


def limit_problems(spec: "Spec") -> Iterable[Problem]:
    """Limits of a metric that is not measured, or of which nobody said what is better."""
    if not spec.train.measures_are_known:
        return
    metrics = [measure.name for measure in spec.train.measures]
    entries: list[tuple[tuple[str | int, ...], LimitsSpec]] = [(("limits",), spec.limits)]
    entries += [(("convert", i, "limits"), entry.limits) for i, entry in enumerate(spec.convert) if entry.limits]
    for path, limits in entries:
        if limits.metric is not None and limits.metric not in metrics:
            message = f"train.metrics has no {limits.metric!r}"
            yield Problem((*path, "metric"), False, message, close_hint(limits.metric, metrics))
        yield from _drop_problems(spec, path, limits)
        if limits.metric is None and not metrics:
            for key in ("min", "max"):
                if getattr(limits, key) is not None:
                    yield Problem((*path, key), True, "there is no metric to hold", "add one to train.metrics")


def _drop_problems(spec: "Spec", path: tuple[str | int, ...], limits: LimitsSpec) -> Iterable[Problem]:
    """A drop is told of a metric of which it is known what is better; of one's own the spec must say it."""
    held = [measure for measure in spec.train.measures if limits.metric in (None, measure.name)][:1]
    # What every entry has in its place holds for none.
    holds = any(entry.limits is None for entry in spec.convert) if path == ("limits",) else True
    if limits.max_drop is None or not holds or not held:
        return
    metric = held[0].metric
    if isinstance(metric, OwnThing) and metric.better is None:
        message = f"limits.max_drop must know whether more of {held[0].name} is better"
        yield Problem(held[0].path, True, message, "add better: greater, or better: lower; or write max_drop: null")


def matches_one(pattern: str, names: Iterable[str]) -> bool:
    """Whether a name matches; so does what is no pattern by itself, the half of `(a/b|c)`: only the whole can tell."""
    try:
        return any(re.fullmatch(pattern, name) for name in names)
    except re.error:
        return True

"""Layers and weights of a model by regular expressions of their whole paths."""

import re
from collections.abc import Iterator
from typing import Any

from mltool import extras
from mltool.errors import Message, SpecError
from mltool.spec.argument_check import did_you_mean


def layers_of(model: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """All layers of a model with their paths, `backbone/block_1_expand`; those inside of a layer after it."""
    own = model.layers if isinstance(model, extras.keras().Model) else _inner_layers(model)
    for layer in own:
        path = f"{prefix}{layer.name}"
        yield path, layer
        yield from layers_of(layer, f"{path}/")


def _inner_layers(layer: Any) -> list[Any]:
    """The layers that a layer such as Bidirectional holds."""
    return list(layer._flatten_layers(include_self=False, recursive=False))


def _things_of(model: Any) -> Iterator[tuple[str, Any]]:
    """Layers with weights, and variables, with their paths."""
    for path, layer in layers_of(model):
        if layer.weights:
            yield path, layer
        for variable in (*layer._trainable_variables, *layer._non_trainable_variables):
            yield f"{path}/{variable.name}", variable


def path_of(variable: Any, model: Any) -> str:
    """The path of a variable as patterns see it: without what Keras puts before it, such as `sequential_2`."""
    return next(path for path, thing in _things_of(model) if thing is variable)


def matches(pattern: str, model: Any, key: str) -> list[Any]:
    """Layers and variables with weights whose whole path matches.

    Raises:
        SpecError: if there are none.
    """
    expression, known = re.compile(pattern), dict(_things_of(model))
    found = [thing for path, thing in known.items() if expression.fullmatch(path)]
    if not found:
        hint = did_you_mean(pattern, list(known)) or _within(pattern, list(known))
        raise SpecError(Message(f"no layer with weights, and no weight, matches {pattern!r}", hint, key=key))
    return found


def matching_weights(pattern: str, model: Any, key: str) -> list[Any]:
    """The trainable variables whose whole path, or that of a layer that they are in, matches; each once.

    Raises:
        SpecError: if nothing matches, or nothing that is trained.
    """
    trained = {id(variable) for variable in model.trainable_variables}
    held: dict[int, Any] = {}
    for thing in matches(pattern, model, key):
        for variable in getattr(thing, "weights", (thing,)):
            held[id(variable)] = variable
    found = [variable for number, variable in held.items() if number in trained]
    if not found:
        message = f"{pattern!r} matches only what is not trained, such as {path_of(next(iter(held.values())), model)}"
        raise SpecError(Message(message, "leave it out, or freeze less", key=key))
    return found


def _within(pattern: str, paths: list[str]) -> str:
    """A hint with paths that begin like the pattern, else with the outer layers."""
    begin = pattern.partition("/")[0]
    inside = [path for path in paths if path.startswith(f"{begin}/")]
    shown = inside or [path for path in paths if "/" not in path]
    return f"the whole path must match; there are: {', '.join(shown[:5])}{', ...' if len(shown) > 5 else ''}"

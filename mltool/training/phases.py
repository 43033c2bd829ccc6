"""Phases of a training: each has its own optimizer, and leaves the weights alone that it freezes."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from mltool import extras
from mltool.errors import Message, SpecError
from mltool.models.keras_objects import build_keras
from mltool.spec.argument_check import did_you_mean
from mltool.spec.train import TrainSpec
from mltool.training.step import scales_loss


@dataclass(frozen=True)
class Phase:
    """One phase, ready to run.

    Attributes:
        epochs: at most.
        optimizer: of Keras, not built for any weights yet.
        frozen: layers and variables that it leaves as they are.
    """

    epochs: int
    optimizer: Any
    frozen: tuple[Any, ...] = ()


class Trainability:
    """What of a model is trainable without any freezing, and so what to come back to.

    Args:
        model: a keras.Model.
    """

    def __init__(self, model: Any) -> None:
        self._layers = [(layer, layer.trainable) for _, layer in layers_of(model)]
        self._variables = [(variable, variable.trainable) for variable in model.variables]
        self._is_changed = False

    def restore(self) -> None:
        """Makes trainable what the model has as such."""
        # Outer layers first: setting one sets all that is in it.
        for thing, trainable in (*self._layers, *self._variables) if self._is_changed else ():
            thing.trainable = trainable
        self._is_changed = False

    def freeze(self, frozen: tuple[Any, ...]) -> None:
        """Makes these layers and variables, and no others, not trainable."""
        self.restore()
        for thing in frozen:
            thing.trainable = False
            self._is_changed = True


def build_phases(spec: TrainSpec, model: Any) -> tuple[Phase, ...]:
    """The phases of a training; to be called in the strategy's scope.

    Args:
        spec: checked.
        model: that they train; as it was before.

    Raises:
        SpecError: if Keras refuses an optimizer, if a pattern matches nothing, or a phase leaves nothing to train.
    """
    trainability = Trainability(model)
    phases = []
    for place, phase in spec.placed_phases:
        at = ".".join(map(str, ("train", *place)))
        patterns = [(pattern, f"{at}.freeze.{index}") for index, pattern in enumerate(phase.freeze)]
        frozen = tuple(thing for pattern, key in patterns for thing in _matches(pattern, model, key))
        if frozen:
            trainability.freeze(frozen)
            left = len(model.trainable_variables)
            trainability.restore()
            if not left:
                message = "freezes every weight of the model: nothing is left to train"
                raise SpecError(Message(message, "leave out a layer, such as the last one", key=f"{at}.freeze"))
        optimizer = build_keras(phase.optimizer, "optimizers", at=f"{at}.optimizer.{phase.optimizer.name}")
        if spec.precision == "mixed_float16" and not scales_loss(optimizer):
            optimizer = extras.keras().optimizers.LossScaleOptimizer(optimizer)
        phases.append(Phase(phase.epochs, optimizer, frozen))
    return tuple(phases)


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


def _matches(pattern: str, model: Any, key: str) -> list[Any]:
    """Layers and variables with weights whose whole path matches.

    Raises:
        SpecError: if there are none.
    """
    expression = re.compile(pattern)
    known: dict[str, Any] = {}
    for path, layer in layers_of(model):
        if layer.weights:
            known[path] = layer
        own = (*layer._trainable_variables, *layer._non_trainable_variables)
        known |= {f"{path}/{variable.name}": variable for variable in own}
    found = [thing for path, thing in known.items() if expression.fullmatch(path)]
    if not found:
        hint = did_you_mean(pattern, list(known)) or _within(pattern, list(known))
        raise SpecError(Message(f"no layer with weights, and no weight, matches {pattern!r}", hint, key=key))
    return found


def _within(pattern: str, paths: list[str]) -> str:
    """A hint with paths that begin like the pattern, else with the outer layers."""
    begin = pattern.partition("/")[0]
    inside = [path for path in paths if path.startswith(f"{begin}/")]
    shown = inside or [path for path in paths if "/" not in path]
    return f"the whole path must match; there are: {', '.join(shown[:5])}{', ...' if len(shown) > 5 else ''}"

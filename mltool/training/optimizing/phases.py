"""Phases of a training: each has its own optimizer, and leaves the weights alone that it freezes."""

from dataclasses import dataclass
from typing import Any

from mltool import extras
from mltool.errors import Message, SpecError
from mltool.spec.train import TrainSpec
from mltool.training.loops.step import scales_loss
from mltool.training.optimizing.optimizers import build_optimizer
from mltool.training.optimizing.patterns import layers_of, matches
from mltool.training.optimizing.schedules import Span


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


def build_phases(spec: TrainSpec, model: Any, steps: int) -> tuple[Phase, ...]:
    """The phases of a training; to be called in the strategy's scope.

    Args:
        spec: checked.
        model: that they train; as it was before.
        steps: of an epoch.

    Raises:
        SpecError: if Keras refuses an optimizer, a schedule does not fit its phase, if a pattern matches nothing, or a
            phase leaves nothing to train.
    """
    trainability = Trainability(model)
    phases = []
    for place, phase in spec.placed_phases:
        at = ".".join(map(str, ("train", *place)))
        patterns = [(pattern, f"{at}.freeze.{index}") for index, pattern in enumerate(phase.freeze)]
        frozen = tuple(thing for pattern, key in patterns for thing in matches(pattern, model, key))
        trainability.freeze(frozen)
        if frozen and not model.trainable_variables:
            trainability.restore()
            message = "freezes every weight of the model: nothing is left to train"
            raise SpecError(Message(message, "leave out a layer, such as the last one", key=f"{at}.freeze"))
        optimizer = build_optimizer(phase, model, Span(phase.epochs, steps), at=at)
        if spec.precision == "mixed_float16" and not scales_loss(optimizer):
            optimizer = extras.keras().optimizers.LossScaleOptimizer(optimizer)
        trainability.restore()
        phases.append(Phase(phase.epochs, optimizer, frozen))
    return tuple(phases)

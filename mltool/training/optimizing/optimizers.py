"""The optimizer of a phase: Keras', with a schedule, learning rates by layer, and weights that do not decay."""

import logging
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

from mltool.errors import Message, SpecError
from mltool.models.keras_objects import build_keras
from mltool.spec.catalogue import KerasObject
from mltool.spec.train import PhaseSpec
from mltool.training.optimizing.patterns import matching_weights, path_of
from mltool.training.optimizing.schedules import Span, build_schedule

logger = logging.getLogger("mltool")

_DEPARTS = {
    "ScheduleFreeAdamW": "Keras' ScheduleFreeAdamW departs from its paper under TensorFlow (Keras 3.15 reads its"
    " momentum after changing it): AdamW with a Cosine schedule does what it says",
}
"""Optimizers that learn, but not as they say; a test holds that it is still so."""


def build_optimizer(phase: PhaseSpec, model: Any, span: Span, *, at: str) -> Any:
    """A Keras optimizer, not built for any weights yet; to be called in the strategy's scope.

    Args:
        phase: checked.
        model: whose weights it will be built for; trainable as it is in this phase.
        span: of the phase.
        at: dotted key of the phase, for messages.

    Raises:
        SpecError: if Keras refuses arguments, the schedule does not fit the phase, or patterns match nothing or twice.
    """
    if phase.optimizer.name in _DEPARTS:
        logger.warning("%s", _DEPARTS[phase.optimizer.name])
    thing, place = phase.optimizer, f"{at}.optimizer.{phase.optimizer.name}"
    schedule = thing.arguments.get("learning_rate")
    if isinstance(schedule, KerasObject):
        built = build_schedule(schedule, span, at=f"{place}.learning_rate.{schedule.name}")
        thing = replace(thing, arguments={**thing.arguments, "learning_rate": built})
    factors = _factors(phase.learning_rates, model, at=f"{at}.learning_rates")
    subclass = partial(_with_factors, list(factors.values())) if factors else None
    optimizer = build_keras(thing, "optimizers", at=place, subclass=subclass)
    kept = [
        variable
        for index, pattern in enumerate(phase.no_weight_decay)
        for variable in matching_weights(pattern, model, f"{at}.no_weight_decay.{index}")
    ]
    if kept:
        optimizer.exclude_from_weight_decay(kept)
    return optimizer


def _factors(asked: Mapping[str, float], model: Any, *, at: str) -> dict[int, tuple[Any, float]]:
    """Variables with what their learning rates are multiplied by, by their Python ids.

    Raises:
        SpecError: if a pattern matches nothing, or two match the same variable.
    """
    found: dict[int, tuple[Any, float]] = {}
    owners: dict[int, str] = {}
    for pattern, factor in asked.items():
        for variable in matching_weights(pattern, model, f"{at}.{pattern}"):
            owner = owners.setdefault(id(variable), pattern)
            if owner != pattern:
                message = f"{pattern!r} and {owner!r} both match {path_of(variable, model)}"
                raise SpecError(Message(message, "write patterns of which one alone does", key=at))
            found[id(variable)] = (variable, factor)
    return found


def _with_factors(factors: Sequence[tuple[Any, float]], optimizer: type) -> type:
    """The class with factors, under the same name: Keras' calls its variables after it.

    They are the class's, as Keras would take weights in an attribute of the optimizer for variables of its own.
    """
    return type(optimizer.__name__, (_WithFactors, optimizer), {"factors": factors})


class _WithFactors:
    """Stands before a class of Keras: every variable is updated as by an optimizer with its own learning rate.

    The learning rate is multiplied, not the gradient, which Adam would undo; decay of weights goes by the same rate.
    One optimizer holds all, so clipping by the norm of all gradients and the count of steps stay what they are.
    """

    factors: Sequence[tuple[Any, float]]
    """Pairs of a variable and its factor; 1 where there is none."""

    _rate_factor = 1.0

    def build(self: Any, variables: Any) -> None:
        """Looks the factors up under Keras' keys, which are the same for a variable on every replica."""
        self._factor_of = {self._var_key(variable): factor for variable, factor in self.factors}
        super().build(variables)  # type: ignore[misc]

    def update_step(self: Any, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """One variable's step."""
        factor = self._factor_of.get(self._var_key(variable), 1.0)
        super().update_step(gradient, variable, learning_rate * factor)  # type: ignore[misc]

    def _apply_weight_decay(self: Any, variables: Any) -> None:
        groups: dict[float, list[Any]] = {}
        for variable in variables:
            groups.setdefault(self._factor_of.get(self._var_key(variable), 1.0), []).append(variable)
        for factor, group in groups.items():
            with self._at(factor):
                super()._apply_weight_decay(group)  # type: ignore[misc]

    @contextmanager
    def _at(self: Any, factor: float) -> Any:
        self._rate_factor = factor
        try:
            yield
        finally:
            self._rate_factor = 1.0

    def _get_current_learning_rate(self: Any) -> Any:
        rate = super()._get_current_learning_rate()  # type: ignore[misc]
        return rate if self._rate_factor == 1.0 else rate * self._rate_factor

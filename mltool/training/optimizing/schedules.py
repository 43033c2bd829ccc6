"""Learning rates as functions of the step: what `spec/schedules.py` names, and how long Keras' own schedules take.

A schedule has no state but the optimizer's count of steps, so a training that is resumed goes on exactly. Epochs become
steps here, in Python; in the graph there are steps alone, exact in float32 up to 2 ** 24.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from mltool import extras
from mltool.errors import Message, SpecError
from mltool.models.keras_objects import build_keras
from mltool.spec.catalogue import KerasObject
from mltool.spec.schedule_check import with_defaults

Rate = Callable[[Any], Any]
"""From the step, a float32 scalar, to the learning rate."""


@dataclass(frozen=True)
class Span:
    """How long a phase is.

    Attributes:
        epochs: of the phase, at most.
        steps: of an epoch.
    """

    epochs: int
    steps: int

    @property
    def total(self) -> int:
        """Steps of the phase."""
        return self.epochs * self.steps


def build_schedule(schedule: KerasObject, span: Span, *, at: str) -> Any:
    """A keras.optimizers.schedules.LearningRateSchedule.

    Args:
        schedule: of the spec, one of ours or of Keras.
        span: of its phase.
        at: dotted key of it, for messages.

    Raises:
        SpecError: if it takes longer than the phase, repeats itself within a step, or Keras refuses its arguments.
    """
    if schedule.name not in RATES:
        built = build_keras(schedule, "optimizers.schedules", at=at)
        _require_that_it_ends(schedule, built, span, at=at)
        return built
    given = with_defaults(schedule)
    for key in ("cycle_epochs", "step_epochs"):
        if given.get(key) is not None and given[key] * span.steps < 1:
            message = f"is less than a step: an epoch has {span.steps} (got {given[key]:g})"
            raise SpecError(Message(message, "write more", key=f"{at}.{key}"))
    return _schedule_class()(RATES[schedule.name](given, span))


@cache
def _schedule_class() -> Any:
    """Made here, as its base is Keras'."""

    class InSteps(extras.keras().optimizers.schedules.LearningRateSchedule):  # type: ignore[misc]
        """A schedule that a function gives."""

        def __init__(self, rate: Rate) -> None:
            self._rate = rate

        def __call__(self, step: Any) -> Any:
            return self._rate(extras.keras().ops.cast(step, "float32"))

    return InSteps


def _constant(given: Mapping[str, Any], span: Span) -> Rate:
    return _warmed(given, span, lambda step: extras.keras().ops.full((), given["learning_rate"], "float32"))


def _polynomial(given: Mapping[str, Any], span: Span) -> Rate:
    """`final + (rate - final) * (1 - progress) ** power`.

    The "poly" policy of Chen et al., "Encoder-Decoder with Atrous Separable Convolution", 2018 (arXiv:1802.02611), with
    a floor.
    """
    rate, final, begin = given["learning_rate"], given["final_learning_rate"], _begin(given, span)

    def polynomial(step: Any) -> Any:
        return final + (rate - final) * (1 - _progress(step, begin, span.total)) ** given["power"]

    return _warmed(given, span, polynomial)


def _exponential(given: Mapping[str, Any], span: Span) -> Rate:
    """`rate * factor ** (epochs since the warm-up / decay_epochs)`.

    As the 0.94 every two epochs of Szegedy et al., "Inception-v4", 2016 (arXiv:1602.07261).
    """
    begin, every = _begin(given, span), given["decay_epochs"] * span.steps
    return _warmed(given, span, lambda step: given["learning_rate"] * given["factor"] ** ((step - begin) / every))


def _step(given: Mapping[str, Any], span: Span) -> Rate:
    """`rate * factor ** (milestones that were reached)`.

    As He et al., "Deep Residual Learning", 2015 (arXiv:1512.03385, section 4.2), divide by 10 after 32k and 48k steps.
    """
    milestones = given["milestones"]
    if milestones is None:
        count = math.ceil(span.epochs / given["step_epochs"])
        milestones = [given["step_epochs"] * number for number in range(1, count)]
    places = [milestone * span.steps for milestone in milestones]
    return _warmed(given, span, lambda step: given["learning_rate"] * given["factor"] ** _passed(step, places))


def _cosine(given: Mapping[str, Any], span: Span) -> Rate:
    """`final + (rate - final) * decay ** cycle * (1 + cos(pi * progress within the cycle)) / 2`.

    Loshchilov and Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", 2016 (arXiv:1608.03983), equation 5;
    cycle_factor is its T_mult.
    """
    rate, final = given["learning_rate"], given["final_learning_rate"]
    edges = list(_edges_of_cycles(given, span))
    begins, ends = np.asarray(edges[:-1], np.float32), np.asarray(edges[1:], np.float32)

    def cosine(step: Any) -> Any:
        ops = extras.keras().ops
        cycle = _passed(step, edges[1:-1])
        number = ops.cast(cycle, "int32")
        progress = _progress(step, ops.take(begins, number), ops.take(ends, number))
        return final + (rate - final) * given["cycle_decay"] ** cycle * _half_cosine(progress)

    return _warmed(given, span, cosine)


def _edges_of_cycles(given: Mapping[str, Any], span: Span) -> Iterator[float]:
    """Where the cycles begin, in steps, and where the last one would end: it may be cut off by the phase's end."""
    edge = _begin(given, span)
    yield edge
    if given["cycle_epochs"] is None:
        yield span.total
        return
    length = given["cycle_epochs"] * span.steps
    while edge < span.total:
        edge, length = edge + length, length * given["cycle_factor"]
        yield edge


def _one_cycle(given: Mapping[str, Any], span: Span) -> Rate:
    """Half a cosine from rate / div_factor to rate, then half a cosine to rate / div_factor / final_div_factor.

    Smith and Topin, "Super-Convergence", 2017 (arXiv:1708.07120), with cosines for straight lines and the defaults of
    PyTorch's OneCycleLR, which has them of fast.ai.
    """
    highest, warmup = given["learning_rate"], given["warmup_epochs"]
    top = (0.3 * span.epochs if warmup is None else warmup) * span.steps
    first = highest / given["div_factor"]
    last = first / given["final_div_factor"]

    def one_cycle(step: Any) -> Any:
        up = first + (highest - first) * (1 - _half_cosine(_progress(step, 0, top)))
        down = last + (highest - last) * _half_cosine(_progress(step, top, span.total))
        return extras.keras().ops.where(step < top, up, down)

    return one_cycle


RATES: Mapping[str, Callable[[Mapping[str, Any], Span], Rate]] = {
    "Constant": _constant,
    "Cosine": _cosine,
    "Exponential": _exponential,
    "OneCycle": _one_cycle,
    "Polynomial": _polynomial,
    "Step": _step,
}
"""By the name in the spec: from its arguments and the phase to the learning rate."""


def _begin(given: Mapping[str, Any], span: Span) -> float:
    """The step after the warm-up."""
    return float(given["warmup_epochs"] * span.steps)


def _warmed(given: Mapping[str, Any], span: Span, rate: Rate) -> Rate:
    """The same with a straight line before it.

    Goyal et al., "Accurate, Large Minibatch SGD", 2017 (arXiv:1706.02677, section 2.2), "gradual warmup".
    """
    end, first = _begin(given, span), given["warmup_learning_rate"]
    if not end:
        return rate

    def warmed(step: Any) -> Any:
        rising = first + (given["learning_rate"] - first) * (step / end)
        # What is not taken is computed too: a power of a negative number of steps might be none.
        ops = extras.keras().ops
        return ops.where(step < end, rising, rate(ops.maximum(step, np.float32(end))))

    return warmed


def _progress(step: Any, begin: Any, end: Any) -> Any:
    """From 0 at `begin` to 1 at `end` and after."""
    return extras.keras().ops.clip((step - begin) / (end - begin), 0.0, 1.0)


def _half_cosine(progress: Any) -> Any:
    """From 1 to 0."""
    return 0.5 * (1 + extras.keras().ops.cos(math.pi * progress))


def _passed(step: Any, places: Sequence[float]) -> Any:
    """How many of these steps were reached, float32."""
    ops = extras.keras().ops
    return ops.sum(ops.cast(ops.greater_equal(step, np.asarray(places, np.float32)), "float32"))


def _require_that_it_ends(schedule: KerasObject, built: Any, span: Span, *, at: str) -> None:
    """Holds a schedule of Keras, which counts in steps, against the steps of its phase.

    Raises:
        SpecError: if there are too few for it to do what it says.
    """
    for key, length in _lengths(schedule):
        if length <= span.total:
            continue
        ops = extras.keras().ops
        end = float(ops.convert_to_numpy(built(ops.convert_to_tensor(span.total, "int32"))))
        message = (
            f"{length:g} steps are more than the {span.total} of its phase, {span.epochs} epochs of {span.steps}:"
            f" it would end at a learning rate of {end:.3g}"
        )
        hint = f"write at most {span.total} in all, or {_IN_EPOCHS[schedule.name]}, which counts in epochs"
        raise SpecError(Message(message, hint, key=f"{at}.{key}"))


_IN_EPOCHS = {
    "CosineDecay": "Cosine: {learning_rate: ...}",
    "CosineDecayRestarts": "Cosine: {learning_rate: ..., cycle_epochs: ...}",
    "ExponentialDecay": "Exponential: {learning_rate: ...}",
    "InverseTimeDecay": "Polynomial: {learning_rate: ...}",
    "PiecewiseConstantDecay": "Step: {learning_rate: ..., milestones: [...]}",
    "PolynomialDecay": "Polynomial: {learning_rate: ...}",
}
"""What takes the place of Keras' schedules; by their names."""


def _lengths(schedule: KerasObject) -> Iterator[tuple[str, float]]:
    """Arguments that say how many steps a schedule of Keras needs, with that number."""
    given = schedule.arguments
    match schedule.name:
        case "CosineDecay":
            warmup = given.get("warmup_steps", 0)
            yield ("warmup_steps" if warmup >= given["decay_steps"] else "decay_steps"), warmup + given["decay_steps"]
        case "PolynomialDecay":
            yield "decay_steps", given["decay_steps"]
        case "CosineDecayRestarts":
            yield "first_decay_steps", given["first_decay_steps"]
        case "ExponentialDecay" | "InverseTimeDecay" if given.get("staircase"):
            yield "decay_steps", given["decay_steps"] + 1  # the first stair must come
        case "PiecewiseConstantDecay":
            yield from (("boundaries", boundary + 1) for boundary in itertools.islice(reversed(given["boundaries"]), 1))

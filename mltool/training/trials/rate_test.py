"""A test of learning rates: they rise from step to step, and the loss tells which of them the model learns at.

Smith, "Cyclical Learning Rates for Training Neural Networks", 2015 (arXiv:1506.01186, section 3.3), with a rise by a
factor instead of an amount, a smoothed loss, and the end when it diverges, as fast.ai's `lr_find` has them.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from mltool import console, extras
from mltool.data.batches import Batches
from mltool.data.pipeline import Pipeline
from mltool.errors import TrainingError
from mltool.runs.atomic import write_json
from mltool.runs.rate_test import RateTestFolder
from mltool.spec.catalogue import KerasObject
from mltool.spec.spec import Spec
from mltool.training.memory import must_fit
from mltool.training.setup import Setup, build_setup
from mltool.training.trials.temporary import IF_IT_DOES_NOT_FIT, temporary_run

LOWEST, HIGHEST = 1e-6, 10.0
"""Learning rates of the first and the last step."""

STEPS = 200
"""Of which some 30 are for every factor of 10. For Adam on the digits, from 1e-7 on, a tenth of the lowest was 0.014 to
0.035 with 100 steps, by the smoothing from 0.9 to 0.98, and 0.013 to 0.014 with 200 (measured)."""

SMOOTHING = 0.95
"""What is kept of the mean at every step."""


@dataclass(frozen=True)
class RateTest:
    """What a test of learning rates found.

    Attributes:
        learning_rates: of every step.
        losses: of every step's batch, before its weights changed.
        smoothed: exponential means of the losses, without the bias of their beginning.
        lowest: the learning rate at the lowest of these.
        suggestion: a tenth of it, as fast.ai's rule `minimum` has it.
        diverged: whether the loss rose too far before the last step.
    """

    learning_rates: Sequence[float]
    losses: Sequence[float]
    smoothed: Sequence[float]
    lowest: float
    suggestion: float
    diverged: bool


def find_learning_rate(spec: Spec, folder: RateTestFolder) -> RateTest:
    """Tests the learning rates of the first phase's optimizer, and writes the curve; no run and no model are left.

    Args:
        spec: checked; the learning rate that it has, or its schedule, plays no part.
        folder: to write to.

    Raises:
        TrainingError: if the loss fell at none of them; the curve is written all the same.
        DataError: if the data are missing or damaged.
        SpecError: if the model does not fit the data, or the spec trains with another backend.
        UsageError: if the spec is for several processes.
    """
    with must_fit("it", IF_IT_DOES_NOT_FIT), temporary_run(_with_rate(spec), "--find-lr") as run:
        rates, losses = _raise_rates(build_setup(run))
    result = judge_rates(rates, losses)
    write_json(folder.curve_file, asdict(result))
    if result.suggestion < LOWEST:
        message = f"the loss fell at no learning rate from {LOWEST:g} to {HIGHEST:g}"
        raise TrainingError(message, f"look at the data and the model; the curve is in {folder.curve_file}")
    return result


def judge_rates(rates: Sequence[float], losses: Sequence[float]) -> RateTest:
    """Where the loss is lowest, and what learning rate follows from it.

    Args:
        rates: rising.
        losses: at each; the last one may be no number.
    """
    smoothed = list(_smoothed(losses))
    diverged = _has_diverged(smoothed)
    counted = smoothed[:-1] if diverged and len(smoothed) > 1 else smoothed
    lowest = rates[min(range(len(counted)), key=counted.__getitem__)]
    return RateTest(rates, losses, smoothed, lowest, lowest / 10, diverged)


def _with_rate(spec: Spec) -> Spec:
    """The spec with the first phase alone, at a learning rate that can be set."""
    ((place, phase), *_) = spec.train.placed_phases
    arguments = {**phase.optimizer.arguments, "learning_rate": LOWEST}
    optimizer = KerasObject(phase.optimizer.name, arguments)
    first: dict[str, Any] = {"optimizer": optimizer}
    if place:
        first = {"phases": (phase.model_copy(update=first),)}
    # Nothing is kept; a mean of weights may begin in a later phase.
    kept_none: dict[str, Any] = {"callbacks": (), "keep": "last", "average_from": None}
    return spec.model_copy(update={"train": spec.train.model_copy(update={**first, **kept_none})})


def _raise_rates(setup: Setup) -> tuple[list[float], list[float]]:
    """Trains, a step at a learning rate, until the loss diverges."""
    tf, loop = extras.tensorflow(), setup.loop
    rates: list[float] = []
    losses: list[float] = []
    with console.progress("learning rates", STEPS) as bar:
        for number, batches in enumerate(_batches(setup.pipeline, STEPS)):
            rates.append(LOWEST * (HIGHEST / LOWEST) ** (number / (STEPS - 1)))
            loop.optimizer.learning_rate = rates[-1]
            loop.reset_metrics()
            with setup.pipeline.reading():
                # A step that is not finite changes nothing, and does not count.
                done, _ = loop.train_steps(batches, tf.constant(1, tf.int64))
                losses.append(loop.running_loss() if int(done) else math.nan)
            bar.update(number + 1, f"{rates[-1]:.1e} loss {losses[-1]:.4f}")
            if _has_diverged(list(_smoothed(losses))):
                break
    return rates, losses


def _batches(pipeline: Pipeline | Batches, steps: int) -> Iterator[Iterator[Any]]:
    """The batches of an epoch, again for each of them; as many epochs as are needed."""
    for step in range(steps):
        epoch, place = divmod(step, pipeline.steps)
        if place == 0:
            batches = pipeline.epoch(epoch)
        yield batches


def _smoothed(losses: Sequence[float]) -> Iterator[float]:
    mean = 0.0
    for count, loss in enumerate(losses, start=1):
        mean = SMOOTHING * mean + (1 - SMOOTHING) * loss
        yield mean / (1 - SMOOTHING**count)


def _has_diverged(smoothed: Sequence[float]) -> bool:
    """Whether the last is four times the lowest, or no number; a loss may be below zero."""
    lowest = min(smoothed)
    return not math.isfinite(smoothed[-1]) or smoothed[-1] > lowest + 3 * abs(lowest)

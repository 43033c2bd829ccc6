"""What a training loop tells and keeps, whatever runs its steps: metrics, averages, the variables of a checkpoint."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from mltool import extras
from mltool.models.metrics import result_of
from mltool.training.loops.head import Head
from mltool.training.loops.own_step import StepFunction
from mltool.training.loops.step import scales_loss
from mltool.training.optimizing.scaled_schedule import scaled_schedule


@dataclass(frozen=True)
class LoopOptions:
    """How steps are computed; nothing but a step of the user's changes what they compute but for rounding.

    Attributes:
        accumulate: parts in which a replica computes its share of a batch, one after the other.
        jit_compile: whether XLA compiles forward and backward pass.
        own: a step of the user's, which the two above are not for; None for mltool's.
    """

    accumulate: int = 1
    jit_compile: bool = False
    own: StepFunction | None = None


PLAIN = LoopOptions()


class Measures:
    """A model in training, with its optimizer, losses and metrics.

    Attributes:
        model: a keras.Model.
        optimizer: a Keras optimizer, built for the weights that are trainable now.
        heads: losses and metrics of every output.
        mean_loss: of all of them, a Keras metric.
        metrics: of all heads.
    """

    model: Any
    optimizer: Any
    heads: Sequence[Head]
    mean_loss: Any
    metrics: Sequence[Any]

    def variables(self) -> list[Any]:
        """Everything that a checkpoint must hold: weights, seeds, optimizer, metrics of the running epoch."""
        return [*self.model.variables, *self.optimizer.variables, *self._of_metrics()]

    def reset_metrics(self) -> None:
        """Starts the metrics of an epoch or an evaluation."""
        for metric in (self.mean_loss, *self.metrics):
            metric.reset_state()

    def results(self) -> dict[str, float]:
        """The metrics since the last reset, `loss` first."""
        return {metric.name: result_of(metric) for metric in (self.mean_loss, *self.metrics)}

    def running_loss(self) -> float:
        """The mean loss since the last reset; cheaper than all `results`."""
        return result_of(self.mean_loss)

    def greater_is_better(self) -> dict[str, bool | None]:
        """For every name in `results`, whether more of it is better; None where that is not known."""
        found: dict[str, bool | None] = {"loss": False}
        for head in self.heads:
            found |= head.greater_is_better()
        return found

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Inside, the model has the averaged weights, if the optimizer keeps an average (`use_ema`).

        What is validated, kept and deployed are they: an exponential moving average over the steps, after Polyak and
        Juditsky, "Acceleration of stochastic approximation by averaging", SIAM J. Control Optim. 30(4), 1992.
        """
        before = [np.asarray(variable) for variable in self.model.trainable_variables] if self._averages else []
        self.take_averages()
        try:
            yield
        finally:
            _assign_all(self.model.trainable_variables, before)

    def take_averages(self) -> None:
        """Puts the averaged weights into the model, if there are any."""
        _assign_all(self.model.trainable_variables, [np.asarray(average) for average in self._averages])

    def _of_metrics(self) -> list[Any]:
        return [variable for metric in (self.mean_loss, *self.metrics) for variable in metric.variables]

    @property
    def _averages(self) -> list[Any]:
        """The variables that hold the averages of the trainable weights; none before a step changed the weights.

        Until then they are zeros: where a loss is scaled, all steps so far may have been left out.
        """
        own = self._own_optimizer
        return own._model_variables_moving_average if own.use_ema and int(np.asarray(own.iterations)) > 0 else []

    @property
    def _own_optimizer(self) -> Any:
        return self.optimizer.inner_optimizer if scales_loss(self.optimizer) else self.optimizer

    def take(self, optimizer: Any) -> None:
        """Goes on with another optimizer, and with the weights that are trainable now."""
        raise NotImplementedError

    def scale_rate(self, factor: float) -> None:
        """Lets a schedule give `factor` times as much; a learning rate that is a number is a variable, and stays."""
        own = self._own_optimizer
        if not isinstance(own._learning_rate, extras.keras().optimizers.schedules.LearningRateSchedule):
            return
        plain = getattr(own._learning_rate, "plain", own._learning_rate)
        before = getattr(own._learning_rate, "factor", 1.0)
        if factor != before:
            own.learning_rate = scaled_schedule(plain, factor) if factor != 1 else plain
            self.take(self.optimizer)  # a schedule is part of the compiled steps

    def halve_rate(self, factor: float) -> None:
        """Halves the learning rate; of a schedule, which then gives `factor` of what it was written to give."""
        if isinstance(self._own_optimizer._learning_rate, extras.keras().optimizers.schedules.LearningRateSchedule):
            self.scale_rate(factor)
        else:
            self._own_optimizer.learning_rate.assign(self._own_optimizer.learning_rate / 2)

    def taken(self, done: int, steps: int) -> int:
        """Batches that a chunk of `steps` took, of which `done` changed the weights: it ends with one that did not."""
        return min(done + 1, steps)


def _assign_all(variables: Sequence[Any], values: Sequence[Any]) -> None:
    """Assigns all values, or none where there are none."""
    for variable, value in zip(variables if values else (), values, strict=True):
        variable.assign(value)

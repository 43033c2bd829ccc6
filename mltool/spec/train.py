"""The `train` section: optimizer, loss, metrics, callbacks, and how long."""

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from mltool.spec.argument_check import did_you_mean, shown
from mltool.spec.catalogue import UNREADABLE, KerasObject, Problem
from mltool.spec.catalogue_entries import known_names
from mltool.spec.keras_object import Callbacks, Loss, Metrics, Optimizer
from mltool.spec.model import snake_case
from mltool.spec.own_things import OwnThing
from mltool.spec.section import Checked, Later, Section, raise_problem, raise_problems
from mltool.spec.task import LATER_LOSSES, WRONG_METRICS, task_of

CALLBACKS = ("EarlyStopping", "ReduceLROnPlateau")
"""Callbacks of this version: ours, under Keras' names, with their state in the checkpoint."""

_MEAN = "sum_over_batch_size"
"""Keras' name for the mean over samples; the training loop divides by the global batch size itself."""


def _check_class_weights(value: Any) -> Any:
    if value is None or value == "balanced":
        return value
    numbers = (
        isinstance(value, dict)
        and value
        and all(
            isinstance(weight, int | float) and not isinstance(weight, bool) and 0 <= weight < float("inf")
            for weight in value.values()
        )
    )
    if not numbers:
        message = f"must be balanced, or a map from label to a weight of 0 or more (got {shown(value)})"
        raise_problem(message, "write class_weights: {spam: 5}")
    return {str(label): float(weight) for label, weight in value.items()}


class TrainSpec(Section):
    """Optimizer, loss, metrics, callbacks, and how long."""

    epochs: Annotated[int, Field(gt=0)] = 10
    """Passes over the training data, at most."""
    keep: Literal["best", "last"] = "best"
    """Which weights become model.keras: the best by EarlyStopping's monitor (else val_loss), or the last."""
    optimizer: Optimizer = KerasObject("Adam", {})
    """Keras' optimizer; `learning_rate` takes a number or a schedule."""
    loss: Loss
    """Keras' loss, or `python: "module:Name"` of yours, with its `task`."""
    metrics: Metrics = ()
    """Keras' metrics; `accuracy` becomes the one that fits the loss; or `python: "module:Name"` of yours."""
    callbacks: Callbacks = ()
    """EarlyStopping, ReduceLROnPlateau."""
    class_weights: Annotated[
        Literal["balanced"] | dict[str, float] | None,
        Checked(
            _check_class_weights,
            lambda: {
                "anyOf": [
                    {"const": "balanced"},
                    {"type": "object", "additionalProperties": {"type": "number", "minimum": 0}},
                    {"type": "null"},
                ]
            },
        ),
    ] = None
    """How much a training sample of each class counts: a map from label to weight (1 where left out), or balanced:
    the rarer a class, the more."""
    scale_target: Literal["auto", "standard", "none"] = "auto"
    """How a regression learns its targets: `standard` brings them to mean 0 and deviation 1 for the loss, and the model
    gives original units all the same; `auto` does so for MeanSquaredError and MeanAbsoluteError."""
    strategy: Annotated[Any, Later("auto")] = "auto"
    """How training is distributed; `auto` takes all GPUs of the machine, else the CPU."""
    precision: Annotated[Any, Later("float32")] = "float32"
    """Type of the computation."""
    jit_compile: Annotated[Any, Later("auto")] = "auto"
    """Whether XLA compiles the step; `auto` is off on CPU, where it was measured 1.7 to 2.7 times slower."""
    backend: Annotated[Any, Later("tensorflow")] = "tensorflow"
    """Keras' backend."""
    phases: Annotated[Any, Later()] = None
    """A list of phases instead of epochs and optimizer."""
    outputs: Annotated[Any, Later()] = None
    """Loss and metrics of each output."""
    step: Annotated[Any, Later()] = None
    """A training step of yours."""

    @model_validator(mode="after")
    def _keys_fit(self) -> "TrainSpec":
        problems = (
            *self._optimizer_problems(),
            *self._loss_problems(),
            *self._metric_problems(),
            *self._callback_problems(),
            *self._keep_problems(),
        )
        raise_problems(problems, None)
        return self

    def _optimizer_problems(self) -> Iterable[Problem]:
        if self.optimizer.arguments.get("use_ema"):
            path = ("optimizer", self.optimizer.name, "use_ema")
            yield Problem(path, False, "not in this version (got true)", "leave it out")

    def _loss_problems(self) -> Iterable[Problem]:
        if self.loss.name in LATER_LOSSES:
            hint = "take a crossentropy for classes, MeanSquaredError for values"
            yield Problem(("loss",), True, f"{self.loss.name!r} is not in this version", hint)
        if self.loss.arguments.get("reduction", _MEAN) != _MEAN:
            message = f"must be {_MEAN!r} (got {shown(self.loss.arguments['reduction'])})"
            hint = "leave it out: the loss is a mean over the global batch"
            yield Problem(("loss", *self.loss.path_of("reduction")), False, message, hint)

    def _metric_problems(self) -> Iterable[Problem]:
        seen: set[str] = set()
        for index, metric in enumerate(self.metrics):
            name = metric_name(metric)
            if metric != UNREADABLE and (name in seen or name == "loss"):
                message = f"the name {name!r} is used twice" if name in seen else "'loss' is the name of the loss"
                yield Problem(("metrics", index, *metric.path_of("name")), True, message, "give it a name: of its own")
            meant = WRONG_METRICS[task_of(self.loss)].get(metric.name)
            if meant:
                message = f"{metric.name} compares class numbers, and the model gives probabilities"
                yield Problem(("metrics", index), True, message, f"take {meant}")
            seen.add(name)

    def _callback_problems(self) -> Iterable[Problem]:
        known = self.monitors
        seen: set[str] = set()
        for index, callback in enumerate(self.callbacks):
            place = ("callbacks", index, callback.name)
            if callback == UNREADABLE:
                continue
            if callback.name not in CALLBACKS:
                yield Problem(
                    place, True, f"{callback.name!r} is not in this version", f"known: {', '.join(CALLBACKS)}"
                )
                continue
            if callback.name in seen:
                yield Problem(place, True, f"{callback.name} stands twice", "keep one of them")
            seen.add(callback.name)
            monitor = str(callback.arguments.get("monitor", "val_loss"))
            if monitor not in known and UNREADABLE not in self.metrics:
                yield Problem((*place, "monitor"), False, f"nothing is called {monitor!r}", close_hint(monitor, known))
            yield from self._direction_problems(place, callback, monitor)
            if callback.name == "ReduceLROnPlateau" and isinstance(
                self.optimizer.arguments.get("learning_rate"), KerasObject
            ):
                message = "changes a learning rate that the optimizer's schedule sets in every step"
                yield Problem(place, True, message, "keep either this callback or the schedule")

    def _direction_problems(
        self, place: tuple[str | int, ...], callback: KerasObject, monitor: str
    ) -> Iterable[Problem]:
        """A monitor of one's own must say whether more of it is better, or the callback must."""
        watched = [metric for metric in self.metrics if metric_name(metric) == monitor.removeprefix("val_")]
        undecided = any(isinstance(metric, OwnThing) and metric.better is None for metric in watched)
        if undecided and callback.arguments.get("mode", "auto") == "auto":
            message = f"whether more of {monitor} is better is not known"
            yield Problem(place, True, message, "write mode: max, or mode: min; or better: greater under the metric")

    def _keep_problems(self) -> Iterable[Problem]:
        restores = [callback for callback in self.callbacks if callback.arguments.get("restore_best_weights")]
        if self.keep == "last" and restores:
            message = f"contradicts restore_best_weights: true of {restores[0].name} (got 'last')"
            yield Problem(("keep",), False, message, "write keep: best, or restore_best_weights: false")

    @property
    def monitors(self) -> tuple[str, ...]:
        """What is measured in every epoch, on training data and, with `val_` before it, on validation data."""
        names = ("loss", *(metric_name(metric) for metric in self.metrics))
        return (*names, *(f"val_{name}" for name in names))


def metric_name(metric: KerasObject) -> str:
    """A metric's name in results: the one that the spec gives, else its own in Keras' snake case."""
    own = metric.own_name if isinstance(metric, OwnThing) else metric.name
    return str(metric.given_name or snake_case(own))


def close_hint(name: str, known: Iterable[str]) -> str:
    """What was meant by a name that is not known, or all that are."""
    known = list(known)
    prefix = "val_" if name.startswith("val_") else ""
    # Keras' short names (`acc`, `mae`) are no names of results.
    long = prefix + snake_case(known_names("metric").get(name.removeprefix(prefix), ""))
    if long in known:
        return f"did you mean {long!r}?"
    return did_you_mean(name, known) or f"known: {', '.join(known) or 'none'}"

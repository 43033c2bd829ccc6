"""What training minimizes and measures, output by output: `train.loss` and `train.metrics`, or `train.outputs`."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Annotated

from pydantic import Field

from mltool.spec.argument_check import shown
from mltool.spec.catalogue import UNREADABLE, KerasObject, Problem
from mltool.spec.keras_object import Loss, Metrics
from mltool.spec.model import snake_case
from mltool.spec.own_things import OwnThing
from mltool.spec.section import Section
from mltool.spec.task import LATER_LOSSES, WRONG_METRICS, Task, task_of

_MEAN = "sum_over_batch_size"
"""Keras' name for the mean over samples; the training loop divides by the global batch size itself."""

ONLY = ""
"""Key of the only output, which the spec need not name."""


NO_RESULTS = ("epoch", "phase", "step", "seconds", "samples_per_second", "learning_rate")
"""Keys of a line of metrics.jsonl beside the results."""

OF_VALIDATION = "val_"
"""What the names of results on validation data begin with."""


class OutputSpec(Section):
    """Loss and metrics of one output."""

    loss: Loss
    """Keras' loss, or `python: "module:Name"` of yours, with its `task`."""
    metrics: Metrics = None
    """Keras' metrics, or `python: "module:Name"` of yours; `accuracy` becomes the one that fits the loss. Left out:
    accuracy, of values their mean error."""
    weight: Annotated[float, Field(gt=0)] = 1.0
    """How much this loss counts in the sum that training minimizes."""

    def measures(self, key: str) -> tuple["Measure", ...]:
        """The metrics, as those of an output.

        Args:
            key: of the output, see `TrainSpec.heads`.
        """
        place = ("train", "outputs", key) if key else ("train",)
        return tuple(
            Measure(metric, key, (*place, "metrics", index, metric.name)) for index, metric in enumerate(self.measured)
        )

    @property
    def measured(self) -> tuple[KerasObject, ...]:
        """The metrics, or that of the task where none are named."""
        if self.metrics is not None:
            return self.metrics
        return (KerasObject("MeanAbsoluteError" if task_of(self.loss) == "regression" else "accuracy", {}),)


@dataclass(frozen=True)
class Measure:
    """A metric of one output.

    Attributes:
        metric: of Keras.
        output: whose it is; "" for the only one.
        path: of it in the spec; () where the spec has not named it.
    """

    metric: KerasObject
    output: str = ONLY
    path: tuple[str | int, ...] = field(default=(), compare=False)

    @property
    def at(self) -> str:
        """Its dotted key, for messages."""
        return ".".join(map(str, self.path))

    @property
    def name(self) -> str:
        """In results: the metric's, after the output's where there are several, as Keras has it."""
        name = metric_name(self.metric)
        return f"{self.output}_{name}" if self.output else name


DEFAULT_METRICS: dict[Task, tuple[KerasObject, ...]] = {
    "classification": (
        KerasObject("accuracy", {}),
        KerasObject("SparseTopKCategoricalAccuracy", {"k": 5, "name": "top_5_accuracy"}),
        KerasObject("F1Score", {"average": "macro", "name": "f1_score"}),
    ),
    "binary": (KerasObject("accuracy", {}), KerasObject("AUC", {}), KerasObject("F1Score", {"threshold": 0.5})),
    "multi_label": (
        KerasObject("accuracy", {}),
        KerasObject("AUC", {"multi_label": True}),
        KerasObject("F1Score", {"average": "macro", "threshold": 0.5}),
    ),
    "segmentation": (KerasObject("accuracy", {}), KerasObject("OneHotMeanIoU", {"name": "mean_iou"})),
    "regression": (
        KerasObject("MeanAbsoluteError", {}),
        KerasObject("RootMeanSquaredError", {}),
        KerasObject("R2Score", {}),
    ),
    "anomaly": (KerasObject("AUC", {}), KerasObject("accuracy", {}), KerasObject("F1Score", {})),
}
"""What `evaluate` tells of every task, beside the metrics of the spec."""


def measures_of_task(task: Task, output: str, num_values: int, asked: Sequence[Measure]) -> list[Measure]:
    """The metrics that belong to a task, without those that are asked for already.

    Args:
        task: of the output.
        output: its key.
        num_values: of a sample; among five classes or fewer the right one is always one of the best five.
        asked: metrics of the spec.
    """
    found = [Measure(metric, output) for metric in DEFAULT_METRICS[task]]
    there = {measure.name for measure in asked}
    too_few = num_values <= 5
    return [m for m in found if m.name not in there and not (too_few and "k" in m.metric.arguments)]


def metric_name(metric: KerasObject) -> str:
    """A metric's name in results: the one that the spec gives, else its own in Keras' snake case."""
    own = metric.own_name if isinstance(metric, OwnThing) else metric.name
    return str(metric.given_name or snake_case(own))


def _told_if_taken(name: str, *, is_only: bool) -> str:
    """Why a metric cannot be called so; "" if it can."""
    if name == "loss":
        return "'loss' is the name of the loss"
    if is_only and (name in NO_RESULTS or name.startswith(OF_VALIDATION)):
        return f"{name!r} means something else among the results"
    return ""


def output_problems(output: OutputSpec, place: tuple[str, ...]) -> Iterable[Problem]:
    """What is wrong with a loss and its metrics.

    Args:
        output: checked but for what must hold between its keys.
        place: of it, from the `train` section.
    """
    loss = output.loss
    if loss.name in LATER_LOSSES:
        hint = "take a crossentropy for classes, MeanSquaredError for values"
        yield Problem((*place, "loss"), True, f"{loss.name!r} is not in this version", hint)
    if loss.arguments.get("reduction", _MEAN) != _MEAN:
        message = f"must be {_MEAN!r} (got {shown(loss.arguments['reduction'])})"
        hint = "leave it out: the loss is a mean over the global batch"
        yield Problem((*place, "loss", *loss.path_of("reduction")), False, message, hint)
    wrong = {} if loss == UNREADABLE or loss.name in LATER_LOSSES else WRONG_METRICS.get(task_of(loss), {})
    seen: set[str] = set()
    for index, metric in enumerate(output.metrics or ()):
        name = metric_name(metric)
        message = f"the name {name!r} is used twice" if name in seen else _told_if_taken(name, is_only=not place)
        if metric != UNREADABLE and message:
            path: tuple[str | int, ...] = (*place, "metrics", index, *metric.path_of("name"))
            yield Problem(path, True, message, "give it a name: of its own")
        meant = wrong.get(metric.name)
        if meant:
            message = f"{metric.name} compares class numbers, and the model gives probabilities"
            if task_of(loss) == "regression":
                message = f"{metric.name} counts the values that are right to the last bit"
            yield Problem((*place, "metrics", index), True, message, f"take {meant}")
        seen.add(name)

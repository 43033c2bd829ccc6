"""Keras' metrics of a spec, and the targets and outputs that each of them takes."""

from typing import Any

from mltool import extras
from mltool.errors import Message, SpecError
from mltool.models.keras_objects import build_keras
from mltool.spec.catalogue import KerasObject
from mltool.spec.outputs import metric_name
from mltool.spec.task import Task

_BY_TASK: dict[str, dict[Task, str]] = {
    "accuracy": {
        **{"classification": "SparseCategoricalAccuracy", "segmentation": "SparseCategoricalAccuracy"},
        **{"binary": "BinaryAccuracy", "multi_label": "BinaryAccuracy", "regression": "Accuracy"},
    },
    "crossentropy": {
        **{"classification": "SparseCategoricalCrossentropy", "segmentation": "SparseCategoricalCrossentropy"},
        **{"binary": "BinaryCrossentropy", "multi_label": "BinaryCrossentropy"},
    },
}
"""The class behind a name that Keras resolves by the loss; its targets are class numbers."""


def build_metric(metric: KerasObject, task: Task, *, num_classes: int, name: str | None = None, at: str = "") -> Any:
    """One Keras metric, called as in results.

    Args:
        metric: of the spec.
        task: decides what `accuracy` and `crossentropy` mean.
        num_classes: of the output, for metrics that must be told, where the spec does not.
        name: in results, where there are several outputs.
        at: dotted key of the spec, for messages.

    Raises:
        SpecError: if it has no meaning for the task, or Keras refuses its arguments.
    """
    class_name = _BY_TASK[metric.name].get(task) if metric.name in _BY_TASK else metric.name
    if class_name is None:
        raise SpecError(Message(f"{metric.name} has no meaning for a {task}", "take another metric", key=at))
    arguments = {**metric.arguments, "name": name or metric_name(metric)}
    if class_name == "OneHotMeanIoU":
        arguments = {"num_classes": num_classes, **arguments}
    return build_keras(KerasObject(class_name, arguments), "metrics", at=at)


def greater_is_better(metric: Any) -> bool | None:
    """Whether more of a Keras metric is better; None where Keras does not say (counts of errors, sums).

    `_direction` is what Keras' own callbacks go by in mode `auto`.
    """
    direction = getattr(metric, "_direction", None)
    return None if direction is None else bool(direction == "up")


def takes_one_hot_targets(metric: KerasObject, task: Task) -> bool:
    """Whether a metric of classes compares with one-hot targets instead of class numbers."""
    return (
        task in ("classification", "segmentation")
        and metric.name not in _BY_TASK
        and not metric.name.startswith("Sparse")
    )


def targets_for(metric: KerasObject, targets: Any, num_classes: int, task: Task) -> Any:
    """Targets as the metric takes them: [samples] class numbers, one-hot, or a column for a binary output."""
    tf = extras.tensorflow()
    if takes_one_hot_targets(metric, task):
        return tf.one_hot(targets, num_classes)
    return tf.cast(targets[:, tf.newaxis], tf.float32) if task == "binary" else targets


def wants_logits(metric: KerasObject) -> bool:
    """Whether a metric takes the outputs as they are; all others see probabilities.

    Keras hands logits to every metric, where thresholds at 0.5 and areas under curves are then wrong in silence.
    """
    return bool(metric.arguments.get("from_logits"))

"""Keras' metrics of a spec, and the targets and outputs that each of them takes."""

import inspect
from typing import Any

import numpy as np

from mltool import extras
from mltool.errors import Message, SpecError
from mltool.models.keras_objects import build_keras
from mltool.models.losses import per_sample
from mltool.models.user_call import call_user, calling, load_user, refusal
from mltool.spec.catalogue import KerasObject
from mltool.spec.outputs import metric_name
from mltool.spec.own_things import OwnThing
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
        SpecError: if it has no meaning for the task, or Keras refuses its arguments; if code of the user's fails.
    """
    if isinstance(metric, OwnThing):
        return _own_metric(metric, name or metric_name(metric), at=at)
    class_name = _BY_TASK[metric.name].get(task) if metric.name in _BY_TASK else metric.name
    if class_name is None:
        raise SpecError(Message(f"{metric.name} has no meaning for a {task}", "take another metric", key=at))
    arguments = {**metric.arguments, "name": name or metric_name(metric)}
    asked = arguments.get("num_classes")
    if class_name.startswith("OneHot") and asked not in (None, num_classes):
        message = f"counts {asked} classes, and the model tells {num_classes} apart"
        raise SpecError(Message(message, f"write num_classes: {num_classes}", key=f"{at}.num_classes"))
    if class_name == "OneHotMeanIoU":
        arguments = {"num_classes": num_classes, **arguments}
    return build_keras(KerasObject(class_name, arguments), "metrics", at=at)


def _own_metric(metric: OwnThing, name: str, *, at: str) -> Any:
    """A metric of the user's; of a function, the mean over the samples."""
    keras = extras.keras()
    found = load_user(metric.reference, key=at)
    if not isinstance(found, type):

        def values(targets: Any, outputs: Any) -> Any:
            given = found(targets, outputs, **metric.arguments)
            return per_sample(given, outputs, metric.reference, key=at)

        return keras.metrics.MeanMetricWrapper(values, name=name)
    if not issubclass(found, keras.metrics.Metric):
        hint = "name a keras.metrics.Metric, or a function of (y_true, y_pred)"
        raise refusal(f"{metric.reference} is a class, and no metric of Keras", hint, key=at)
    built = call_user(metric.reference, metric.arguments, key=at)
    if not _takes_weights(built.update_state):
        hint = "write update_state(self, y_true, y_pred, sample_weight=None): samples that fill a batch up weigh 0"
        raise refusal(f"{metric.reference} takes no sample_weight in update_state", hint, key=at)
    built.name = name
    return built


def _takes_weights(update_state: Any) -> bool:
    """Whether a metric can leave samples out: batches are filled up on a TPU, and in parts, also without memory."""
    try:
        inspect.signature(update_state).bind(None, None, sample_weight=None)
    except TypeError:
        return False
    return True


def update_metric(
    built: Any, metric: KerasObject, targets: Any, outputs: Any, *, real: Any = None, at: str = ""
) -> None:
    """Shows samples to a metric.

    Args:
        built: by `build_metric`.
        metric: of the spec.
        targets: of `targets_for`.
        outputs: logits if it `wants_logits`, else probabilities or values.
        real: float32 [samples], 0 for those that only fill a batch up; None where there are none.
        at: dotted key of the spec, for messages.

    Raises:
        SpecError: if code of the user's raises.
    """
    counted = {} if real is None else {"sample_weight": _weights_for(built, metric, targets, real)}
    if not isinstance(metric, OwnThing):
        built.update_state(targets, outputs, **counted)
        return

    def update() -> None:
        with calling(metric.reference, metric.reference, key=at):
            built.update_state(targets, outputs, **counted)

    # Not converted by AutoGraph, as Keras' own metrics are not.
    extras.tensorflow().autograph.experimental.do_not_convert(update)()


def _weights_for(built: Any, metric: KerasObject, targets: Any, real: Any) -> Any:
    """Weights as a metric takes them: those that count places (pixels) want one for each of them."""
    keras = extras.keras()
    axes = len(targets.shape) - 1
    if isinstance(built, keras.metrics.IoU):
        classes = targets if built.sparse_y_true else keras.ops.argmax(targets, axis=built.axis)
        weights = keras.ops.reshape(real, (-1, *[1] * (len(classes.shape) - 1)))
        # Whole numbers, as they count: Keras warns of others.
        return keras.ops.cast(keras.ops.broadcast_to(weights, keras.ops.shape(classes)), "int32")
    if axes > 1 and not isinstance(metric, OwnThing) and not isinstance(built, keras.metrics.Mean):
        return keras.ops.broadcast_to(keras.ops.reshape(real, (-1, *[1] * axes)), keras.ops.shape(targets))
    return real


def result_of(built: Any) -> float:
    """What a metric says; F1 of a single output is a list of one."""
    return float(np.reshape(extras.keras().ops.convert_to_numpy(built.result()), ()))


def greater_is_better(built: Any, metric: KerasObject) -> bool | None:
    """Whether more of a metric is better; None where Keras, or the spec of the user's own, does not say.

    `_direction` is what Keras' own callbacks go by in mode `auto`.
    """
    if isinstance(metric, OwnThing):
        return None if metric.better is None else metric.better == "greater"
    direction = getattr(built, "_direction", None)
    return None if direction is None else bool(direction == "up")


def takes_one_hot_targets(metric: KerasObject, task: Task) -> bool:
    """Whether a metric of classes compares with one-hot targets instead of class numbers."""
    of_keras = not isinstance(metric, OwnThing) and metric.name not in _BY_TASK
    return task in ("classification", "segmentation") and of_keras and not metric.name.startswith("Sparse")


def targets_for(metric: KerasObject, targets: Any, num_classes: int, task: Task) -> Any:
    """Targets as the metric takes them: [samples] class numbers, one-hot, or a column for a binary output."""
    ops = extras.keras().ops
    if takes_one_hot_targets(metric, task):
        return ops.one_hot(targets, num_classes)
    return ops.cast(targets[:, None], "float32") if task == "binary" else targets


def wants_logits(metric: KerasObject, task: Task) -> bool:
    """Whether a metric takes the outputs as they are; all others see probabilities.

    Keras hands logits to every metric, where thresholds at 0.5 and areas under curves are then wrong in silence. What
    only asks which class has more is right on logits too, and spares a softmax: a fifth of the step of a small model.
    """
    if metric.from_logits:
        return True
    if isinstance(metric, OwnThing) or task not in ("classification", "segmentation"):
        return False
    return _BY_TASK.get(metric.name, {}).get(task, metric.name) in _GO_BY_ORDER


_GO_BY_ORDER = {
    *("SparseCategoricalAccuracy", "CategoricalAccuracy"),
    *("SparseTopKCategoricalAccuracy", "TopKCategoricalAccuracy"),
}
"""Metrics to which the order of a sample's classes is all."""

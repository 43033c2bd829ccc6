"""Metrics from outputs and targets, the same code for every artifact; numpy where it has them, else Keras.

The numpy table lets a device without TensorFlow measure; a test holds it equal to Keras.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mltool import extras
from mltool.inference.answers import answer_indices, probabilities
from mltool.runs.input_schema import InputSchema
from mltool.runs.run import Run
from mltool.spec.catalogue import KerasObject
from mltool.spec.own_things import OwnThing
from mltool.spec.spec import metric_name

Array = np.ndarray[Any, Any]


def _accuracy(outputs: Array, targets: Array, schema: InputSchema, arguments: dict[str, Any]) -> float:
    """Share of right answers."""
    return float((answer_indices(outputs, schema) == targets.reshape(-1)).mean())


def _top_k(outputs: Array, targets: Array, schema: InputSchema, arguments: dict[str, Any]) -> float:
    """Share of samples whose class is among the k largest outputs; k is 5 as in Keras."""
    k = int(arguments.get("k", 5))
    of_class = np.take_along_axis(outputs, targets[:, np.newaxis], axis=1)
    return float(((outputs > of_class).sum(axis=1) < k).mean())


def _absolute(outputs: Array, targets: Array, schema: InputSchema, arguments: dict[str, Any]) -> float:
    return float(np.abs(outputs.astype(np.float64) - targets).mean())


def _squared(outputs: Array, targets: Array, schema: InputSchema, arguments: dict[str, Any]) -> float:
    return float(np.square(outputs.astype(np.float64) - targets).mean())


def _root(outputs: Array, targets: Array, schema: InputSchema, arguments: dict[str, Any]) -> float:
    return float(np.sqrt(_squared(outputs, targets, schema, arguments)))


_Measure = Callable[[Array, Array, InputSchema, dict[str, Any]], float]

_ANSWERS: dict[str, _Measure] = {
    "accuracy": _accuracy,
    "SparseCategoricalAccuracy": _accuracy,
    "CategoricalAccuracy": _accuracy,
    "SparseTopKCategoricalAccuracy": _top_k,
    "TopKCategoricalAccuracy": _top_k,
}
_VALUES: dict[str, _Measure] = {
    "MeanAbsoluteError": _absolute,
    "MeanSquaredError": _squared,
    "RootMeanSquaredError": _root,
}

_ERRORS = ("Error", "rossentropy", "Divergence", "Hinge", "Poisson", "FalsePositives", "FalseNegatives")
"""What the names of Keras' classes hold where greater is worse; all its other metrics are better when greater."""


def lower_is_better(metric: KerasObject) -> bool | None:
    """Whether a metric is an error, told by its class: its name in results is the user's choice.

    Of a metric of the user's the spec says it; None where it does not.
    """
    if isinstance(metric, OwnThing):
        return None if metric.better is None else metric.better == "lower"
    return any(word in metric.name for word in _ERRORS)


def counts_samples(metric: KerasObject) -> bool:
    """Whether a metric is the share of samples that were answered right, so that one sample is worth 1/n."""
    return metric.name.lower().endswith("accuracy")


def require_same_metrics(run: Run) -> None:
    """Proves that the metrics of the user's are those of the training, before they are run.

    Raises:
        ArtifactError: if the file of one was changed.
    """
    own = [metric.reference for metric in run.spec.train.metrics if isinstance(metric, OwnThing)]
    if own:
        from mltool.inference.keras_predictor import require_same_code

        require_same_code(run, *own)


def measure(metrics: Sequence[KerasObject], outputs: Array, targets: Array, schema: InputSchema) -> dict[str, float]:
    """Every metric of the spec, by its name.

    Args:
        metrics: of the spec.
        outputs: float32 [samples, values], as the artifact returns them.
        targets: int64 [samples] class numbers, or float32 [samples, values].
        schema: what the outputs mean.

    Raises:
        MissingExtraError: for a metric that only Keras has, or the user's own, where Keras is not installed.
        SpecError: if code of the user's raises.
    """
    return {
        metric_name(metric): _measured(metric, outputs, targets, schema, at=f"train.metrics.{index}.{metric.name}")
        for index, metric in enumerate(metrics)
    }


def _measured(metric: KerasObject, outputs: Array, targets: Array, schema: InputSchema, *, at: str) -> float:
    table = _VALUES if schema.task == "regression" else _ANSWERS
    known = table.get(metric.name)
    if known is not None:
        return known(outputs, targets, schema, dict(metric.arguments))
    return _by_keras(metric, outputs, targets, schema, at=at)


def _by_keras(metric: KerasObject, outputs: Array, targets: Array, schema: InputSchema, *, at: str) -> float:
    from mltool.models.metrics import build_metric, targets_for, update_metric, wants_logits

    tf = extras.tensorflow()
    built = build_metric(metric, schema.task, at=at)
    seen = outputs if wants_logits(metric) else probabilities(outputs, schema)
    ready = targets_for(metric, tf.constant(targets), outputs.shape[-1], schema.task)
    update_metric(built, metric, ready, tf.constant(seen.astype(np.float32)), at=at)
    return float(built.result())

"""Metrics from outputs and targets, the same code for every artifact; numpy where it has them, else Keras.

The numpy table lets a device without TensorFlow measure; tests hold it equal to Keras and to scikit-learn. The area
under a curve is exact here; Keras' own is a sum over 200 thresholds, and near it.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from mltool import extras
from mltool.inference.answers import anomaly_scores, answer_indices, probabilities
from mltool.runs.arrays import of_output
from mltool.runs.input_schema import InputSchema, OutputInfo
from mltool.runs.run import Run
from mltool.spec.catalogue import KerasObject
from mltool.spec.outputs import Measure
from mltool.spec.own_things import OwnThing
from mltool.spec.task import Task

Array = np.ndarray[Any, Any]
_Measure = Callable[[Array, Array, OutputInfo, Mapping[str, Any]], float]


def _accuracy(values: Array, targets: Array, output: OutputInfo, arguments: Mapping[str, Any]) -> float:
    """Share of right answers; of pixels or of labels, where a sample has several."""
    answers = answer_indices(values, output)
    return float((answers == targets.reshape(answers.shape)).mean())


def _top_k(values: Array, targets: Array, output: OutputInfo, arguments: Mapping[str, Any]) -> float:
    """Share of samples whose class is among the k largest values; k is 5 as in Keras."""
    k = int(arguments.get("k", 5))
    of_class = np.take_along_axis(values, targets[..., np.newaxis].astype(np.int64), axis=-1)
    return float(((values > of_class).sum(axis=-1) < k).mean())


def confusion_matrix(truth: Array, answers: Array, num_classes: int) -> Array:
    """How often each class was answered for each, of samples or pixels: int64 [classes, classes], rows the truth."""
    pairs = truth.reshape(-1).astype(np.int64) * num_classes + answers.reshape(-1).astype(np.int64)
    counts: Array = np.bincount(pairs, minlength=num_classes**2)
    return counts.reshape(num_classes, num_classes)


def _confusion(values: Array, targets: Array, output: OutputInfo) -> Array:
    return confusion_matrix(targets, answer_indices(values, output), len(output.labels)).astype(np.float64)


def _hits(values: Array, targets: Array, output: OutputInfo) -> tuple[Array, Array, Array]:
    """Right answers, answers and samples, each float64 [classes]; of two classes those of the second alone."""
    if output.task == "multi_label":
        answers = answer_indices(values, output).astype(bool)
        truth = targets.astype(bool)
        return (answers & truth).sum(0) * 1.0, answers.sum(0) * 1.0, truth.sum(0) * 1.0
    counts = _confusion(values, targets, output)
    right, answered, there = np.diag(counts), counts.sum(axis=0), counts.sum(axis=1)
    return (right[1:], answered[1:], there[1:]) if output.task in ("binary", "anomaly") else (right, answered, there)


def _f1(values: Array, targets: Array, output: OutputInfo, arguments: Mapping[str, Any]) -> float:
    """Harmonic mean of precision and recall; 0 for a class without samples and answers, as in Keras."""
    right, answered, there = _hits(values, targets, output)
    if arguments.get("average") == "micro":
        right, answered, there = right.sum(keepdims=True), answered.sum(keepdims=True), there.sum(keepdims=True)
    both = answered + there
    scores = np.divide(2 * right, both, out=np.zeros_like(both), where=both > 0)
    if arguments.get("average") == "weighted":
        return float((scores * there).sum() / max(there.sum(), 1.0))
    return float(scores.mean())


def _precision(values: Array, targets: Array, output: OutputInfo, arguments: Mapping[str, Any]) -> float:
    """Share of what was answered that is right, over all labels; 0 where nothing was answered."""
    right, answered, _ = _hits(values, targets, output)
    return float(right.sum() / answered.sum()) if answered.sum() else 0.0


def _recall(values: Array, targets: Array, output: OutputInfo, arguments: Mapping[str, Any]) -> float:
    """Share of what there is that was answered, over all labels; 0 where there is nothing."""
    right, _, there = _hits(values, targets, output)
    return float(right.sum() / there.sum()) if there.sum() else 0.0


def _auc(values: Array, targets: Array, output: OutputInfo, arguments: Mapping[str, Any]) -> float:
    """Area under the ROC curve; with `multi_label` the mean over the labels; NaN where one side has no sample."""
    scores = anomaly_scores(values) if output.task == "anomaly" else values.astype(np.float64)
    scores, truth = scores.reshape(len(scores), -1), targets.reshape(len(targets), -1) > 0
    if not arguments.get("multi_label"):
        return _area(scores.reshape(-1), truth.reshape(-1))
    return float(np.mean([_area(scores[:, place], truth[:, place]) for place in range(scores.shape[1])]))


def _area(scores: Array, truth: Array) -> float:
    """Share of pairs of a true and a false sample whose scores are in this order; half a pair where they are equal.

    Hanley, McNeil, "The meaning and use of the area under a ROC curve", Radiology 143, 1982.
    """
    _, place, sizes = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(sizes) - (sizes - 1) / 2)[place]
    count = int(truth.sum())
    others = len(truth) - count
    if not count or not others:
        return float("nan")
    return float((ranks[truth].sum() - count * (count + 1) / 2) / (count * others))


def _mean_iou(values: Array, targets: Array, output: OutputInfo, arguments: Mapping[str, Any]) -> float:
    """Mean over the classes, without those that neither truth nor answers have, of intersection over union."""
    counts = _confusion(values, targets, output)
    union = counts.sum(axis=0) + counts.sum(axis=1) - np.diag(counts)
    return float((np.diag(counts)[union > 0] / union[union > 0]).mean())


def _absolute(values: Array, targets: Array, output: OutputInfo, arguments: Mapping[str, Any]) -> float:
    return float(np.abs(values.astype(np.float64) - targets).mean())


def _squared(values: Array, targets: Array, output: OutputInfo, arguments: Mapping[str, Any]) -> float:
    return float(np.square(values.astype(np.float64) - targets).mean())


def _root(values: Array, targets: Array, output: OutputInfo, arguments: Mapping[str, Any]) -> float:
    return float(np.sqrt(_squared(values, targets, output, arguments)))


def _r2(values: Array, targets: Array, output: OutputInfo, arguments: Mapping[str, Any]) -> float:
    """1 less the squared error over that of the mean, the mean over all values of a sample; NaN for a constant one."""
    truth = targets.reshape(len(targets), -1).astype(np.float64)
    error = np.square(values.reshape(truth.shape) - truth).sum(axis=0)
    spread = np.square(truth - truth.mean(axis=0)).sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.where(spread > 0, 1 - error / spread, np.nan).mean())


_ACCURACIES = dict.fromkeys(("accuracy", "SparseCategoricalAccuracy", "CategoricalAccuracy"), _accuracy)
_TOP_K: dict[str, _Measure] = {"SparseTopKCategoricalAccuracy": _top_k, "TopKCategoricalAccuracy": _top_k}
_TWO_SIDED: dict[str, _Measure] = {
    **dict.fromkeys(("accuracy", "BinaryAccuracy"), _accuracy),
    **{"F1Score": _f1, "Precision": _precision, "Recall": _recall, "AUC": _auc},
}
_OF_TASK: dict[str, dict[str, _Measure]] = {
    "classification": {**_ACCURACIES, **_TOP_K, "F1Score": _f1},
    "segmentation": {**_ACCURACIES, **_TOP_K, "F1Score": _f1, "OneHotMeanIoU": _mean_iou},
    "binary": _TWO_SIDED,
    "multi_label": _TWO_SIDED,
    "anomaly": _TWO_SIDED,
    "regression": {
        **{"MeanAbsoluteError": _absolute, "MeanSquaredError": _squared},
        **{"RootMeanSquaredError": _root, "R2Score": _r2},
    },
}
_KNOWN_ARGUMENTS = {"name", "dtype", "k", "average", "num_classes", "from_logits"}
"""Those that the table heeds, or that change no result of it; with others Keras measures."""

_HALF = {"threshold": 0.5, "thresholds": 0.5}
"""Arguments whose value the table has for its own."""


def _is_in_table(metric: KerasObject, output: OutputInfo) -> bool:
    if metric.name not in _OF_TASK[output.task]:
        return False
    rest = {key: value for key, value in metric.arguments.items() if key not in _KNOWN_ARGUMENTS and value is not None}
    if metric.name == "AUC":
        # A sum over so many thresholds, and the ways to make it better: the area itself needs none.
        rest = {key: value for key, value in rest.items() if key not in ("num_thresholds", "summation_method")}
        return rest.pop("curve", "ROC") == "ROC" and set(rest) <= (
            {"multi_label"} if output.task != "binary" else set()
        )
    if metric.name == "F1Score":
        # Without a threshold Keras takes the greatest of a sample's values, which of one value is always that. With one
        # it takes all that are above: of classes none, or several.
        return rest == ({"threshold": 0.5} if output.task in ("binary", "multi_label") else {})
    return all(_HALF.get(key) == value for key, value in rest.items())


_ERRORS = ("Error", "rossentropy", "Divergence", "Hinge", "Poisson", "FalsePositives", "FalseNegatives")
"""What the names of Keras' classes hold where greater is worse; all its other metrics are better when greater."""


def lower_is_better(metric: KerasObject) -> bool | None:
    """Whether a metric is an error, told by its class: its name in results is the user's choice.

    Of a metric of the user's the spec says it; None where it does not.
    """
    if isinstance(metric, OwnThing):
        return None if metric.better is None else metric.better == "lower"
    return any(word in metric.name for word in _ERRORS)


def counts_samples(metric: KerasObject, task: Task) -> bool:
    """Whether a metric is the share of samples that were answered right, so that one sample is worth 1/n.

    Of masks, and of several labels a sample, it is the share of pixels or labels.
    """
    return task not in ("segmentation", "multi_label") and metric.name.lower().endswith("accuracy")


def require_same_metrics(run: Run) -> None:
    """Proves that the metrics of the user's are those of the training, before they are run.

    Raises:
        ArtifactError: if the file of one was changed.
    """
    own = [measure.metric.reference for measure in run.spec.train.measures if isinstance(measure.metric, OwnThing)]
    if own:
        from mltool.inference.keras_predictor import require_same_code

        require_same_code(run, *own)


def measure(measures: Sequence[Measure], outputs: Array, targets: Array, schema: InputSchema) -> dict[str, float]:
    """Every metric, by its name in results.

    Args:
        measures: metrics of the spec, or of its tasks.
        outputs: float32 [samples, ...], as the artifact returns them; with a field for each of several outputs.
        targets: [samples, ...], as the data set has them, likewise.
        schema: what the outputs mean.

    Raises:
        MissingExtraError: for a metric that only Keras has, or the user's own, where Keras is not installed.
        SpecError: if code of the user's raises.
    """
    results = {}
    for one in measures:
        output = schema.output(one.output)
        values, truth = of_output(outputs, output.name), of_output(targets, output.name)
        results[one.name] = _measured(one, values, truth, output)
    return results


def _measured(one: Measure, values: Array, targets: Array, output: OutputInfo) -> float:
    if _is_in_table(one.metric, output):
        return _OF_TASK[output.task][one.metric.name](values, targets, output, one.metric.arguments)
    return _by_keras(one, values, targets, output)


def _by_keras(one: Measure, values: Array, targets: Array, output: OutputInfo) -> float:
    from mltool.models.metrics import build_metric, result_of, targets_for, update_metric, wants_logits

    tf, metric = extras.tensorflow(), one.metric
    built = build_metric(metric, output.task, num_classes=values.shape[-1], at=one.at)
    seen = values if wants_logits(metric, output.task) else probabilities(values, output)
    ready = targets_for(metric, tf.constant(targets), values.shape[-1], output.task)
    update_metric(built, metric, ready, tf.constant(seen.astype(np.float32)), at=one.at)
    return result_of(built)

"""The metrics that numpy has are Keras' metrics; the others are Keras' own, on probabilities."""

import keras
import numpy as np
import pytest

from mltool import extras
from mltool.errors import MissingExtraError
from mltool.evaluation import metrics as room
from mltool.evaluation.metrics import counts_samples, lower_is_better, measure
from mltool.runs.input_schema import InputSchema, OutputInfo
from mltool.spec.catalogue import KerasObject
from mltool.spec.outputs import Measure

NUMBERS = np.random.default_rng(0)
LOGITS = NUMBERS.normal(size=(500, 6)).astype(np.float32)
CLASSES = NUMBERS.integers(0, 6, 500)
ONE_HOT = np.eye(6, dtype=np.float32)[CLASSES]
TIES = NUMBERS.integers(0, 3, (500, 6)).astype(np.float32)


def schema(task, activation, labels=()):
    return InputSchema((), (OutputInfo("out", (len(labels) or 1,), task, activation, tuple(labels)),))


CLASSIFICATION = schema("classification", "logits", "abcdef")


def one(name, outputs, targets, record, **arguments):
    return measure([Measure(KerasObject(name, arguments))], outputs, targets, record).popitem()[1]


def keras_says(metric, targets, outputs):
    metric.update_state(targets, outputs)
    return float(metric.result())


@pytest.mark.parametrize("outputs", [pytest.param(LOGITS, id="logits"), pytest.param(TIES, id="ties")])
@pytest.mark.parametrize("name", ["accuracy", "SparseCategoricalAccuracy", "CategoricalAccuracy"])
def test_accuracy_of_classes_is_keras(name, outputs):
    expected = keras_says(keras.metrics.SparseCategoricalAccuracy(), CLASSES, outputs)
    assert one(name, outputs, CLASSES, CLASSIFICATION) == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize("k", [1, 2, 5])
@pytest.mark.parametrize("outputs", [pytest.param(LOGITS, id="logits"), pytest.param(TIES, id="ties")])
def test_top_k_is_keras_also_with_ties(k, outputs):
    expected = keras_says(keras.metrics.SparseTopKCategoricalAccuracy(k=k), CLASSES, outputs)
    assert one("SparseTopKCategoricalAccuracy", outputs, CLASSES, CLASSIFICATION, k=k) == pytest.approx(
        expected, abs=1e-7
    )
    assert one("TopKCategoricalAccuracy", outputs, CLASSES, CLASSIFICATION, k=k) == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize("activation", ["logits", "probabilities"])
@pytest.mark.parametrize("name", ["accuracy", "BinaryAccuracy"])
def test_accuracy_of_two_classes_is_keras(name, activation):
    logits = np.concatenate([LOGITS[:, :1], np.zeros((1, 1), np.float32)])
    targets = np.append(CLASSES % 2, 1)
    probabilities = 1 / (1 + np.exp(-logits))
    outputs = logits if activation == "logits" else probabilities
    expected = keras_says(keras.metrics.BinaryAccuracy(), targets[:, None], probabilities)
    assert one(name, outputs, targets, schema("binary", activation, "ab")) == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize("name", ["MeanAbsoluteError", "MeanSquaredError", "RootMeanSquaredError"])
def test_errors_of_values_are_keras(name):
    expected = keras_says(getattr(keras.metrics, name)(), ONE_HOT, LOGITS)
    assert one(name, LOGITS, ONE_HOT, schema("regression", "values")) == pytest.approx(expected, rel=1e-6)


def test_errors_of_values_by_hand():
    record = schema("regression", "values")
    outputs, targets = np.float32([[1], [2], [5]]), np.float32([[1], [4], [1]])
    assert one("MeanAbsoluteError", outputs, targets, record) == 2.0
    assert one("MeanSquaredError", outputs, targets, record) == pytest.approx(20 / 3)
    assert one("RootMeanSquaredError", outputs, targets, record) == pytest.approx((20 / 3) ** 0.5)


def test_metrics_that_only_keras_has_see_probabilities():
    softmax = np.exp(LOGITS) / np.exp(LOGITS).sum(axis=1, keepdims=True)
    for name in ("AUC", "F1Score", "Precision"):
        expected = np.mean(
            keras_result(getattr(keras.metrics, name)(**({"average": "macro"} if name == "F1Score" else {})), softmax)
        )
        arguments = {"average": "macro"} if name == "F1Score" else {}
        assert one(name, LOGITS, CLASSES, CLASSIFICATION, **arguments) == pytest.approx(float(expected), abs=1e-6)


def keras_result(metric, outputs):
    metric.update_state(ONE_HOT, outputs)
    return np.asarray(metric.result())


def test_metrics_are_called_as_the_spec_calls_them():
    of_two = KerasObject("SparseTopKCategoricalAccuracy", {"k": 2, "name": "of_two"})
    asked = [Measure(KerasObject("accuracy", {})), Measure(of_two)]
    assert list(measure(asked, LOGITS, CLASSES, CLASSIFICATION)) == ["accuracy", "of_two"]


def test_what_a_drop_is_counted_by_is_told_by_the_class_not_by_the_name():
    assert lower_is_better(KerasObject("MeanAbsoluteError", {"name": "distance"}))
    assert not lower_is_better(KerasObject("AUC", {"name": "no_error"}))
    assert not counts_samples(KerasObject("AUC", {"name": "accuracy"}), "binary")
    assert counts_samples(KerasObject("accuracy", {}), "classification")


@pytest.mark.parametrize("task", ["segmentation", "multi_label"])
def test_an_accuracy_of_pixels_or_of_labels_does_not_count_samples(task):
    assert not counts_samples(KerasObject("accuracy", {}), task)


@pytest.mark.parametrize("threshold", [0.5, 0.3])
def test_f1_of_classes_with_a_threshold_is_keras_which_takes_no_greatest_then(threshold):
    softmax = np.exp(LOGITS) / np.exp(LOGITS).sum(axis=1, keepdims=True)
    expected = keras_result(keras.metrics.F1Score("macro", threshold=threshold), softmax)
    found = one("F1Score", LOGITS, CLASSES, CLASSIFICATION, average="macro", threshold=threshold)
    assert found == pytest.approx(float(expected), abs=1e-6)


@pytest.mark.parametrize(
    ("name", "lower"),
    [
        ("RootMeanSquaredError", True), ("SparseCategoricalCrossentropy", True), ("KLDivergence", True),
        ("LogCoshError", True), ("CategoricalHinge", True), ("Poisson", True), ("FalsePositives", True),
        ("CosineSimilarity", False), ("R2Score", False), ("Recall", False), ("TruePositives", False),
    ],
)  # fmt: skip
def test_errors_and_losses_are_better_when_lower(name, lower):
    assert lower_is_better(KerasObject(name, {})) is lower


def test_without_keras_a_metric_of_its_own_is_refused_and_numpys_are_measured(monkeypatch):
    def missing(*_):
        raise MissingExtraError("this needs tensorflow, which is not installed")

    monkeypatch.setattr(extras, "tensorflow", missing)
    assert one("accuracy", LOGITS, CLASSES, CLASSIFICATION) > 0
    with pytest.raises(MissingExtraError, match="needs tensorflow"):
        room.measure([Measure(KerasObject("AUC", {"curve": "PR"}))], LOGITS, CLASSES, CLASSIFICATION)


SIDES = (CLASSES > 2).astype(np.int64)
SCORES = (1 / (1 + np.exp(-LOGITS))).astype(np.float32)
LABELS = NUMBERS.integers(0, 2, (500, 6)).astype(np.float32)
BINARY, LABELLED = schema("binary", "probabilities", "ab"), schema("multi_label", "probabilities", "abcdef")
FEW_CLASSES = schema("classification", "probabilities", "abc")


@pytest.mark.parametrize("average", ["macro", "micro", "weighted"])
def test_f1_of_classes_is_keras(average):
    expected = keras_says(keras.metrics.F1Score(average=average), ONE_HOT, LOGITS)
    assert one("F1Score", LOGITS, CLASSES, CLASSIFICATION, average=average) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("average", ["macro", "micro", "weighted"])
def test_f1_of_labels_is_keras(average):
    arguments = {"average": average, "threshold": 0.5}
    expected = keras_says(keras.metrics.F1Score(**arguments), LABELS, SCORES)
    assert one("F1Score", SCORES, LABELS, LABELLED, **arguments) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("name", ["Precision", "Recall"])
def test_precision_and_recall_of_two_classes_and_of_labels_are_keras(name):
    metric = getattr(keras.metrics, name)
    two = keras_says(metric(), SIDES[:, None], SCORES[:, :1])
    assert one(name, SCORES[:, :1], SIDES, BINARY) == pytest.approx(two, abs=1e-6)
    assert one(name, SCORES, LABELS, LABELLED) == pytest.approx(keras_says(metric(), LABELS, SCORES), abs=1e-6)


@pytest.mark.parametrize("shape", [pytest.param((500, 1), id="one value"), pytest.param((500, 6), id="six values")])
def test_r2_is_keras(shape):
    targets, values = (NUMBERS.normal(size=shape).astype(np.float32) for _ in range(2))
    expected = keras_says(keras.metrics.R2Score(), targets, values)
    assert one("R2Score", values, targets, schema("regression", "values")) == pytest.approx(expected, rel=1e-5)


def test_mean_iou_is_keras_also_without_the_samples_of_a_class():
    masks = NUMBERS.integers(0, 2, (20, 4, 5))  # nothing of class 3, and no answer of class 2 and 3
    outputs = NUMBERS.random((20, 4, 5, 4)).astype(np.float32) * [1, 1, 0, 0]
    one_hot = np.eye(4, dtype=np.float32)[masks]
    expected = keras_says(keras.metrics.OneHotMeanIoU(num_classes=4), one_hot, outputs)
    found = one("OneHotMeanIoU", outputs, masks, schema("segmentation", "probabilities", "abcd"))
    assert found == pytest.approx(expected, abs=1e-6)


def test_mean_iou_by_hand():
    """Class 0: 2 of 3 pixels; class 1: 1 of 2; class 2, which is nowhere, does not count."""
    masks = np.array([[[0, 0], [0, 1]]])
    answers = np.eye(3, dtype=np.float32)[np.array([[[0, 0], [1, 1]]])]
    record = schema("segmentation", "probabilities", "abc")
    assert one("OneHotMeanIoU", answers, masks, record) == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert one("accuracy", answers, masks, record) == 0.75


def test_area_under_the_curve_by_hand_ties_are_half_a_pair():
    """Pairs of a true and a false: 0.8 > 0.2, 0.8 > 0.5, 0.5 > 0.2, 0.5 = 0.5."""
    scores, truth = np.float32([[0.2], [0.5], [0.5], [0.8]]), np.array([0, 0, 1, 1])
    assert one("AUC", scores, truth, BINARY) == (3 + 0.5) / 4
    assert one("AUC", np.full((4, 1), 0.5, np.float32), truth, BINARY) == 0.5
    assert one("AUC", 1 - scores, truth, BINARY) == 0.5 / 4


def test_area_is_that_of_logits_too_and_near_keras_sum_over_200_thresholds():
    logits = schema("binary", "logits", "ab")
    exact = one("AUC", SCORES[:, :1], SIDES, BINARY)
    assert one("AUC", LOGITS[:, :1], SIDES, logits) == pytest.approx(exact, abs=1e-6)
    assert keras_says(keras.metrics.AUC(), SIDES[:, None], SCORES[:, :1]) == pytest.approx(exact, abs=5e-3)


def test_area_of_labels_is_the_mean_over_them():
    each = [one("AUC", SCORES[:, [place]], LABELS[:, place], BINARY) for place in range(6)]
    assert one("AUC", SCORES, LABELS, LABELLED, multi_label=True) == pytest.approx(np.mean(each))
    assert one("AUC", SCORES, LABELS, LABELLED) != pytest.approx(np.mean(each), abs=1e-6)  # all pairs in one pot


@pytest.mark.parametrize("side", [0, 1])
def test_area_with_one_side_alone_is_no_number(side):
    assert np.isnan(one("AUC", SCORES[:, :1], np.full(500, side), BINARY))
    assert np.isnan(one("AUC", SCORES, LABELS * [0, 1, 1, 1, 1, 1], LABELLED, multi_label=True))


def test_f1_by_hand_a_class_without_samples_and_answers_counts_zero_as_in_keras():
    outputs = np.eye(3, dtype=np.float32)[[0, 0, 1, 1]]
    targets = np.array([0, 0, 0, 1])  # a: 2 right, 2 answered, 3 there; b: 1 right, 2 answered, 1 there; c: nothing
    expected = (2 * 2 / 5 + 2 * 1 / 3 + 0) / 3
    assert one("F1Score", outputs, targets, FEW_CLASSES, average="macro") == pytest.approx(expected)
    in_keras = keras_says(keras.metrics.F1Score(average="macro"), np.eye(3, dtype=np.float32)[targets], outputs)
    assert in_keras == pytest.approx(expected, abs=1e-6)
    assert one("F1Score", outputs, targets, FEW_CLASSES, average="micro") == pytest.approx(3 / 4)
    assert one("F1Score", outputs, targets, FEW_CLASSES, average="weighted") == pytest.approx(
        (2 * 2 / 5 * 3 + 2 * 1 / 3 * 1) / 4
    )


def test_precision_without_answers_and_recall_without_samples_are_zero():
    nothing, anything = np.zeros((4, 1), np.float32), np.ones((4, 1), np.float32)
    for metric, outputs, targets in (
        ("Precision", nothing, np.array([0, 1, 1, 0])),
        ("Recall", anything, np.zeros(4, np.int64)),
        ("F1Score", nothing, np.zeros(4, np.int64)),
    ):
        arguments = {"threshold": 0.5} if metric == "F1Score" else {}
        assert one(metric, outputs, targets, BINARY, **arguments) == 0


def test_r2_by_hand_and_of_targets_that_are_all_the_same():
    record = schema("regression", "values")
    values, targets = np.float32([[1], [2], [6]]), np.float32([[1], [3], [5]])
    assert one("R2Score", values, targets, record) == pytest.approx(1 - 2 / 8)
    assert np.isnan(one("R2Score", values, np.float32([[4], [4], [4]]), record))
    two = np.concatenate([targets, targets * 2], axis=1)
    assert one("R2Score", np.concatenate([values, values * 2], axis=1), two, record) == pytest.approx(1 - 2 / 8)


ANOMALY = InputSchema(
    (), (OutputInfo("back", (2,), "anomaly", "values", ("normal", "anomaly"), threshold=1.0),)
)  # fmt: skip


def test_anomalies_by_hand_the_score_is_the_mean_square_and_an_anomaly_is_above_the_threshold():
    differences = np.float32([[0, 0], [1, 1], [-2, 0], [0, 1]])  # scores 0, 1, 2, 0.5; above 1 is the third alone
    truth = np.array([0, 1, 1, 0])
    assert one("accuracy", differences, truth, ANOMALY) == 3 / 4
    assert one("F1Score", differences, truth, ANOMALY) == pytest.approx(2 / 3)
    assert one("Precision", differences, truth, ANOMALY) == 1.0
    assert one("Recall", differences, truth, ANOMALY) == 0.5
    assert one("AUC", differences, truth, ANOMALY) == 1.0


BY_KERAS = {
    "the curve of precision and recall": ("AUC", {"curve": "PR"}),
    "another threshold": ("Precision", {"thresholds": 0.7}),
    "two thresholds would be two values": ("BinaryAccuracy", {"threshold": 0.3}),
    "the least of the greatest": ("F1Score", {"threshold": 0.6}),
    "recall at a precision": ("RecallAtPrecision", {"precision": 0.4}),
    "weights of labels": ("AUC", {"multi_label": True, "label_weights": [0.5], "num_labels": 1}),
}


@pytest.mark.parametrize("name", list(BY_KERAS))
def test_what_the_table_does_not_know_keras_measures_on_probabilities(name):
    metric, arguments = BY_KERAS[name]
    expected = np.ravel(keras_result_of(getattr(keras.metrics, metric)(**arguments), SIDES[:, None], SCORES[:, :1]))
    logits = np.log(SCORES[:, :1] / (1 - SCORES[:, :1]))
    found = one(metric, logits, SIDES, schema("binary", "logits", "ab"), **arguments)
    assert found == pytest.approx(float(expected[0]), abs=1e-5)


def keras_result_of(metric, targets, outputs):
    metric.update_state(targets.astype(np.float32), outputs)
    return np.asarray(metric.result())


def test_top_k_of_a_tie_counts_the_class_as_one_of_the_best():
    outputs = np.float32([[1, 1, 1, 0], [3, 2, 1, 0], [0, 0, 0, 0]])
    targets = np.array([2, 2, 3])
    record = schema("classification", "logits", "abcd")
    assert one("SparseTopKCategoricalAccuracy", outputs, targets, record, k=1) == pytest.approx(2 / 3)
    assert one("SparseTopKCategoricalAccuracy", outputs, targets, record, k=3) == 1.0

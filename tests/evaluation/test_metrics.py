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

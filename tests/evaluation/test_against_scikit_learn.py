"""Every metric of every task, measured again by scikit-learn from the predictions that were kept: the same to 1e-6."""

import json
from pathlib import Path

import numpy as np
import pytest
import tasks
from sklearn import metrics as sk

from mltool.conversion.convert import convert
from mltool.evaluation.evaluate import evaluate
from mltool.exporting.export import export
from mltool.inference.keras_predictor import load_keras_model
from mltool.runs.run import Run
from mltool.training.train import train


def sigmoid(logits):
    return 1 / (1 + np.exp(-logits.astype(np.float64)))


def of_classes(outputs, targets, output):
    answers, numbers = outputs.argmax(axis=1), range(len(output["labels"]))
    return {
        "accuracy": sk.accuracy_score(targets, answers),
        "top_5_accuracy": sk.top_k_accuracy_score(targets, outputs, k=5, labels=numbers),
        "f1_score": sk.f1_score(targets, answers, average="macro", labels=numbers, zero_division=0),
    }


def of_two_classes(outputs, targets, output):
    scores = sigmoid(outputs)[:, 0]
    answers = scores > 0.5
    return {
        "precision": sk.precision_score(targets, answers),
        "recall": sk.recall_score(targets, answers),
        "accuracy": sk.accuracy_score(targets, answers),
        "auc": sk.roc_auc_score(targets, scores),
        "f1_score": sk.f1_score(targets, answers),
    }


def of_labels(outputs, targets, output):
    answers = sigmoid(outputs) > 0.5
    return {
        "accuracy": 1 - sk.hamming_loss(targets, answers),
        "recall": sk.recall_score(targets, answers, average="micro"),
        "auc": sk.roc_auc_score(targets, outputs, average="macro"),
        "f1_score": sk.f1_score(targets, answers, average="macro"),
    }


def of_pixels(outputs, targets, output):
    answers, truth = outputs.argmax(axis=-1).reshape(-1), targets.reshape(-1)
    return {
        "accuracy": sk.accuracy_score(truth, answers),
        "mean_iou": sk.jaccard_score(truth, answers, average="macro"),
    }


def of_values(outputs, targets, output):
    return {
        "mean_squared_error": sk.mean_squared_error(targets, outputs),
        "mean_absolute_error": sk.mean_absolute_error(targets, outputs),
        "root_mean_squared_error": sk.mean_squared_error(targets, outputs) ** 0.5,
        "r2_score": sk.r2_score(targets, outputs),
    }


def of_anomalies(outputs, targets, output):
    scores = (outputs.astype(np.float64) ** 2).mean(axis=1)
    answers = scores > output["threshold"]
    return {
        "auc": sk.roc_auc_score(targets, scores),
        "accuracy": sk.accuracy_score(targets, answers),
        "f1_score": sk.f1_score(targets, answers),
    }


MEASURED = {
    "classification": of_classes,
    "binary": of_two_classes,
    "multi_label": of_labels,
    "segmentation": of_pixels,
    "regression": of_values,
    "anomaly": of_anomalies,
}

NAMES = {
    "classification": ["accuracy", "top_5_accuracy", "f1_score"],
    "binary": ["precision", "recall", "accuracy", "f1_score", "auc"],
    "multi_label": ["accuracy", "recall", "auc", "f1_score"],
    "regression": ["mean_absolute_error", "root_mean_squared_error", "r2_score"],
    "regression of several values": [
        "mean_squared_error", "mean_absolute_error", "root_mean_squared_error", "r2_score",
    ],
    "segmentation": ["accuracy", "mean_iou"],
    "anomaly": ["auc", "accuracy", "f1_score"],
    "several outputs": [
        "kind_accuracy", "side_accuracy", "size_mean_absolute_error", "kind_top_5_accuracy", "kind_f1_score",
        "side_auc", "side_f1_score", "size_root_mean_squared_error", "size_r2_score",
    ],
}  # fmt: skip


def measured_again(run: Run, outputs: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    """All metrics of all outputs by scikit-learn, under mltool's names."""
    found = {}
    described = run.manifest["input"]["outputs"]
    for output in described:
        fields = outputs.dtype.names is not None
        values, truth = (array[output["name"]] if fields else array for array in (outputs, targets))
        again = MEASURED[output["task"]](values, truth, output)
        found |= {f"{output['name']}_{name}" if fields else name: value for name, value in again.items()}
    return found


def assert_same(run: Run, metrics: dict[str, float], outputs: np.ndarray, targets: np.ndarray, task: str) -> None:
    again = measured_again(run, outputs, targets)
    assert list(metrics) == NAMES[task]
    assert metrics == pytest.approx({name: again[name] for name in metrics}, rel=1e-6, abs=1e-6)


@pytest.fixture(scope="module")
def arrays(tmp_path_factory) -> Path:
    return tasks.write_arrays(tmp_path_factory.mktemp("arrays") / "arrays.npz")


@pytest.fixture(scope="module")
def run_of(arrays, tmp_path_factory):
    """A trained and evaluated run of a task, made once."""
    made: dict[str, Run] = {}

    def run(task: str) -> Run:
        if task not in made:
            made[task] = tasks.new_run(tasks.spec_of(task, arrays), tmp_path_factory.mktemp("run"))
            train(made[task])
            evaluate(made[task])
        return made[task]

    return run


@pytest.mark.parametrize("task", list(tasks.TASKS))
def test_what_evaluation_json_says_is_what_scikit_learn_makes_of_the_kept_predictions(task, run_of, arrays):
    run = run_of(task)
    document = json.loads(run.evaluation_file.read_text(encoding="utf-8"))
    with np.load(run.predictions_file) as kept:
        ids, outputs, targets = kept["ids"], kept["outputs"], kept["targets"]
    assert document["samples"] == len(ids) > 40
    assert_same(run, document["metrics"], outputs, targets, task)
    assert 0 < sum(document["metrics"].values()) < 1000
    with np.load(arrays) as data:
        for output in run.manifest["input"]["outputs"]:
            where = output["name"] if targets.dtype.names else tasks.TASKS[task]["target"]
            truth = targets[output["name"]] if targets.dtype.names else targets
            raw = data[where][ids]
            raw = raw == "odd" if where == "odd" else raw
            np.testing.assert_array_equal(truth.reshape(raw.shape), raw)


@pytest.mark.parametrize(
    "task",
    [
        task if task in ("several outputs", "anomaly") else pytest.param(task, marks=pytest.mark.slow)
        for task in tasks.TASKS
    ],
)
def test_a_saved_model_and_an_int8_file_are_measured_by_the_same_numbers(task, run_of):
    run = run_of(task)
    export(run)
    convert(run)
    kept = json.loads(run.evaluation_file.read_text(encoding="utf-8"))["metrics"]
    for artifact in (run.saved_model_folder, run.lite_folder / "int8.tflite"):
        found = evaluate(run, artifact)
        assert_same(run, dict(found.metrics), found.outputs, found.targets, task)
        assert found.samples > 40
        if artifact == run.saved_model_folder:
            assert dict(found.metrics) == pytest.approx(kept, abs=1e-3)


def test_the_threshold_of_anomalies_is_the_quantile_of_the_training_scores(run_of, arrays):
    run = run_of("anomaly")
    train_ids = run.load_splits()["train_ids"]
    with np.load(arrays) as data:
        x, odd = data["x"], data["odd"]
    assert set(odd[train_ids]) == {"good"}
    outputs = np.asarray(load_keras_model(run.keras_file)(x[train_ids]))
    (output,) = run.manifest["input"]["outputs"]
    assert output["threshold"] == pytest.approx(np.quantile((outputs**2).mean(axis=1), 0.9), rel=1e-6)
    assert (output["name"], output["labels"], output["shape"]) == ("answer", ["normal", "anomaly"], [5])

"""What an output answers, told by its loss and its targets: one decision for data, metrics, agreement and predict."""

from typing import Literal

from mltool.spec.catalogue import KerasObject
from mltool.spec.own_things import OwnThing

Task = Literal["classification", "binary", "multi_label", "segmentation", "regression", "anomaly"]
"""A class a sample; one of two; any number of labels; a class a pixel; values; or whether a sample is unlike training.

A loss tells classification, binary and regression; the targets make `multi_label` of binary (several values a sample)
and `segmentation` of classification (masks), and data.normal makes `anomaly` of regression.
"""

OutputKind = Literal["logits", "probabilities", "values"]
"""What the values of an output are."""

_TASK_OF_LOSS: dict[str, Task] = {
    "SparseCategoricalCrossentropy": "classification",
    "CategoricalCrossentropy": "classification",
    "CategoricalFocalCrossentropy": "classification",
    "CategoricalHinge": "classification",
    "BinaryCrossentropy": "binary",
    "BinaryFocalCrossentropy": "binary",
    "CosineSimilarity": "regression",
    "Huber": "regression",
    "KLDivergence": "regression",
    "LogCosh": "regression",
    "MeanAbsoluteError": "regression",
    "MeanAbsolutePercentageError": "regression",
    "MeanSquaredError": "regression",
    "MeanSquaredLogarithmicError": "regression",
    "Poisson": "regression",
}

LATER_LOSSES = (
    *("CTC", "CategoricalGeneralizedCrossEntropy", "Circle", "Dice", "Hinge", "SquaredHinge", "Tversky"),
)  # fmt: skip
"""Losses of Keras whose targets (sequences, embeddings, masks, -1 and 1) belong to tasks of a later version."""

WRONG_METRICS: dict[Task, dict[str, str]] = {
    "classification": {"Accuracy": "accuracy", "IoU": "OneHotIoU", "MeanIoU": "OneHotMeanIoU"},
    "binary": {"Accuracy": "accuracy", "IoU": "BinaryIoU", "MeanIoU": "BinaryIoU"},
    "segmentation": {"Accuracy": "accuracy"},
    "regression": dict.fromkeys(("Accuracy", "accuracy"), "MeanAbsoluteError"),
}
"""Metrics that compare class numbers, and would see probabilities: Keras counts them wrong without a word."""


ANOMALY_METRICS = ("AUC", "accuracy", "F1Score", "Precision", "Recall")
"""Metrics of anomalies: of scores of any size, and of the answers that a threshold makes of them."""


def task_of(loss: KerasObject) -> Task:
    """The task that a loss belongs to, as far as the loss alone tells, see `Task`; one of the user's says it."""
    if isinstance(loss, OwnThing):
        return loss.task
    return _TASK_OF_LOSS.get(loss.name, "regression")


def takes_one_hot(loss: KerasObject) -> bool:
    """Whether the loss wants one-hot targets instead of class numbers."""
    return loss.name.startswith("Categorical")


def output_kind(loss: KerasObject) -> OutputKind:
    """What the model's outputs are, told by the loss."""
    if task_of(loss) == "regression" or loss.name == "CategoricalHinge":
        return "values"
    return "logits" if loss.from_logits else "probabilities"


def takes_logits(loss: KerasObject) -> bool:
    """Whether the loss asks with `from_logits` what the outputs are."""
    return task_of(loss) != "regression" and loss.name != "CategoricalHinge"

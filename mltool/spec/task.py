"""What a model answers, told by its loss: one decision for data, metrics, agreement and predict."""

from typing import Literal

from mltool.spec.catalogue import KerasObject
from mltool.spec.own_things import OwnThing

Task = Literal["classification", "binary", "regression"]

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
    "regression": {},
}
"""Metrics that compare class numbers, and would see probabilities: Keras counts them wrong without a word."""


def task_of(loss: KerasObject) -> Task:
    """The task that a loss belongs to; one of the user's says it."""
    if isinstance(loss, OwnThing):
        return loss.task
    return _TASK_OF_LOSS.get(loss.name, "regression")


def takes_one_hot(loss: KerasObject) -> bool:
    """Whether the loss wants one-hot targets instead of class numbers."""
    return loss.name.startswith("Categorical")


def output_kind(loss: KerasObject) -> Literal["logits", "probabilities", "values"]:
    """What the model's outputs are, told by the loss."""
    if task_of(loss) == "regression" or loss.name == "CategoricalHinge":
        return "values"
    return "logits" if loss.from_logits else "probabilities"


def takes_logits(loss: KerasObject) -> bool:
    """Whether the loss asks with `from_logits` what the outputs are."""
    return task_of(loss) != "regression" and loss.name != "CategoricalHinge"

"""What a model answers, told by its loss: one decision for data, metrics, agreement and predict."""

from typing import Literal

from mltool.spec.catalogue import KerasObject

Task = Literal["classification", "binary", "regression"]

_TASK_OF_LOSS: dict[str, Task] = {
    "SparseCategoricalCrossentropy": "classification",
    "CategoricalCrossentropy": "classification",
    "CategoricalFocalCrossentropy": "classification",
    "CategoricalHinge": "classification",
    "BinaryCrossentropy": "binary",
    "BinaryFocalCrossentropy": "binary",
}


def task_of(loss: KerasObject) -> Task:
    """The task that a loss belongs to; losses of no classification are regression."""
    return _TASK_OF_LOSS.get(loss.name, "regression")


def takes_one_hot(loss: KerasObject) -> bool:
    """Whether the loss wants one-hot targets instead of class numbers."""
    return loss.name.startswith("Categorical")


def output_kind(loss: KerasObject) -> Literal["logits", "probabilities", "values"]:
    """What the model's outputs are, told by the loss."""
    if task_of(loss) == "regression" or loss.name == "CategoricalHinge":
        return "values"
    return "logits" if loss.arguments.get("from_logits") else "probabilities"


def takes_logits(loss: KerasObject) -> bool:
    """Whether the loss asks with `from_logits` what the outputs are."""
    return loss.name in _TASK_OF_LOSS and loss.name != "CategoricalHinge"

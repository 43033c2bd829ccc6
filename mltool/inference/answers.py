"""The one decision function: from a model's outputs to probabilities and an answer."""

from typing import Any

import numpy as np

from mltool.runs.input_schema import InputSchema

Array = np.ndarray[Any, Any]


def threshold_of(schema: InputSchema) -> float:
    """Where a binary output changes sides: 0 for logits, 0.5 for probabilities."""
    return 0.0 if schema.activation == "logits" else 0.5


def probabilities(outputs: Array, schema: InputSchema) -> Array:
    """Outputs as probabilities: softmax or sigmoid of logits, everything else as it is; float64 [samples, values]."""
    values = outputs.astype(np.float64)
    if schema.activation != "logits":
        return values
    if schema.task == "binary":
        # Two forms, so that no exponential overflows.
        return np.where(
            values >= 0, 1 / (1 + np.exp(-np.abs(values))), np.exp(-np.abs(values)) / (1 + np.exp(-np.abs(values)))
        )
    shifted = np.exp(values - values.max(axis=-1, keepdims=True))
    softmax: Array = shifted / shifted.sum(axis=-1, keepdims=True)
    return softmax


def answer_indices(outputs: Array, schema: InputSchema) -> Array:
    """The class number that a classification answers for every sample; int64 [samples]. Ties go to the first."""
    if schema.task == "binary":
        return (outputs.reshape(len(outputs), -1)[:, 0] > threshold_of(schema)).astype(np.int64)
    indices: Array = outputs.argmax(axis=-1)
    return indices


def decide(outputs: Array, schema: InputSchema) -> list[Any]:
    """The answer for every sample: a label, or the values of a regression."""
    if schema.task != "regression":
        return [schema.labels[index] for index in answer_indices(outputs, schema).tolist()]
    values: list[Any] = outputs.reshape(len(outputs), -1).astype(np.float64).tolist()
    return [value[0] if len(value) == 1 else value for value in values]

"""The one decision function: from the values of an output to probabilities, a score and an answer."""

from typing import Any

import numpy as np

from mltool.runs.arrays import of_output
from mltool.runs.input_schema import InputSchema, OutputInfo

Array = np.ndarray[Any, Any]


def threshold_of(output: OutputInfo) -> float:
    """Where a value changes sides: 0 for logits, 0.5 for probabilities; of an anomaly the score that is one."""
    if output.threshold is not None:
        return float(output.threshold)
    return 0.0 if output.activation == "logits" else 0.5


def probabilities(values: Array, output: OutputInfo) -> Array:
    """Values as probabilities: softmax or sigmoid of logits, everything else as it is; float64, of the same shape."""
    values = values.astype(np.float64)
    if output.activation != "logits":
        return values
    if output.task in ("binary", "multi_label"):
        # Two forms, so that no exponential overflows.
        small = np.exp(-np.abs(values))
        sigmoid: Array = np.where(values >= 0, 1 / (1 + small), small / (1 + small))
        return sigmoid
    shifted = np.exp(values - values.max(axis=-1, keepdims=True))
    softmax: Array = shifted / shifted.sum(axis=-1, keepdims=True)
    return softmax


def anomaly_scores(values: Array) -> Array:
    """Mean square of what an autoencoder does not give back; float64 [samples].

    Args:
        values: its output: what it was given less what it gave back, [samples, ...].
    """
    scores: Array = np.square(values.reshape(len(values), -1).astype(np.float64)).mean(axis=1)
    return scores


def answer_indices(values: Array, output: OutputInfo) -> Array:
    """Class numbers: int64 [samples], a class a pixel [samples, height, width], or 0 and 1 for each of several labels.

    Ties go to the first class.
    """
    if output.task in ("anomaly", "multi_label", "binary"):
        sides = anomaly_scores(values) if output.task == "anomaly" else values
        sides = sides.reshape(len(values), -1)[:, 0] if output.task == "binary" else sides
        above: Array = (sides > threshold_of(output)).astype(np.int64)
        return above
    indices: Array = values.argmax(axis=-1)
    return indices


def decide(values: Array, output: OutputInfo) -> list[Any]:
    """The answer of one output for every sample.

    A label; of several labels those that hold; of masks the share of the pixels of every class; of a regression its
    values.
    """
    if output.task == "regression":
        found: list[Any] = values.reshape(len(values), -1).astype(np.float64).tolist()
        return [value[0] if len(value) == 1 else value for value in found]
    return named(answer_indices(values, output), output)


def told(values: Array, output: OutputInfo) -> tuple[str, Array]:
    """What is told of an output beside its answer, and what that is called: [samples, ...]."""
    match output.task:
        case "regression":
            return "outputs", values.astype(np.float64)
        case "anomaly":
            return "score", anomaly_scores(values)
        case "segmentation":
            return "mask", answer_indices(values, output)
    return "probabilities", probabilities(values, output)


def named(indices: Array, output: OutputInfo) -> list[Any]:
    """Class numbers, of answers or of targets, as `decide` tells them."""
    if output.task == "multi_label":
        return [[output.labels[place] for place in np.flatnonzero(row)] for row in indices]
    if output.task == "segmentation":
        shares = [np.bincount(mask.reshape(-1), minlength=len(output.labels)) / mask.size for mask in indices]
        return [dict(zip(output.labels, share.tolist(), strict=True)) for share in shares]
    return [output.labels[index] for index in indices.tolist()]


def by_output(array: Array, schema: InputSchema) -> dict[str, Array]:
    """An array of targets or of outputs, output by output."""
    return {output.name: of_output(array, output.name) for output in schema.outputs}

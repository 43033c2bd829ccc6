"""How far two predictors agree on the same samples, output by output."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from mltool.inference.answers import answer_indices, probabilities
from mltool.runs.arrays import of_output
from mltool.runs.input_schema import InputSchema, OutputInfo

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Agreement:
    """The outputs of an artifact beside those of the model that it came from.

    Attributes:
        samples: compared.
        max_error: largest absolute difference, in the outputs' units.
        common_error: largest absolute difference of all samples but one in a thousand: what tolerances hold. An outlier
            among 16,000 census rows, far outside of what calibrates, says nothing of a file.
        mean_error: mean absolute difference.
        reference_range: maximum minus minimum of the reference's outputs over the samples; tolerances are shares of it.
        same_answer: share of samples (of their pixels or labels, where they have several), in [0, 1], with the same
            answer (largest output, or side of the threshold); None for regression.
        has_nan: whether the artifact gave NaN or infinity.
        is_constant: whether the artifact gave the same output for every sample, and the reference did not.
        answers_a_sample: pixels of a mask or labels, that are answered apart; 1 for all else.
    """

    samples: int
    max_error: float
    common_error: float
    mean_error: float
    reference_range: float
    same_answer: float | None
    has_nan: bool
    is_constant: bool
    answers_a_sample: int = 1

    def to_json(self) -> dict[str, Any]:
        """As it stands in JSON files."""
        return asdict(self)

    def __str__(self) -> str:
        same = "" if self.same_answer is None else f", same answer {self.same_answer:.4f}"
        return f"max error {self.max_error:.3g}, mean error {self.mean_error:.3g}{same} on {self.samples} samples"


def compare_answers(reference: Array, outputs: Array, schema: InputSchema) -> dict[str, Agreement]:
    """Compares what two outputs mean: probabilities where they are logits, else the values.

    An int8 file cuts logits off at the edge of its calibrated range: on text messages one of a thousand was measured to
    be off by 30 % of that range, and no probability by more than 1.1 points.

    Args:
        reference: float32 [samples, ...], as the model returns them; with a field for each of several outputs.
        outputs: likewise.
        schema: what they mean.

    Returns:
        By the name of the output.
    """
    return {
        output.name: compare(
            probabilities(of_output(reference, output.name), output),
            probabilities(of_output(outputs, output.name), output),
            replace(output, activation="probabilities" if output.activation == "logits" else output.activation),
        )
        for output in schema.outputs
    }


def compare_values(reference: Array, outputs: Array, schema: InputSchema) -> dict[str, Agreement]:
    """Compares two outputs as they are; see `compare_answers`."""
    return {
        output.name: compare(of_output(reference, output.name), of_output(outputs, output.name), output)
        for output in schema.outputs
    }


def compare(reference: Array, outputs: Array, info: OutputInfo) -> Agreement:
    """Compares one output on the same samples.

    Args:
        reference: [samples, ...].
        outputs: the same shape.
        info: what an answer is.
    """
    finite = bool(np.isfinite(outputs).all())
    error = np.abs(reference.astype(np.float64) - np.where(np.isfinite(outputs), outputs, 0.0))
    same, each = None, 1
    if info.task != "regression":
        equal = answer_indices(reference, info) == answer_indices(outputs, info)
        same, each = float(equal.mean()), math.prod(equal.shape[1:])
    constant = (
        len(outputs) > 1 and bool((outputs == outputs[:1]).all()) and not bool((reference == reference[:1]).all())
    )
    return Agreement(
        samples=len(reference),
        max_error=float(error.max()),
        common_error=float(np.sort(error.reshape(len(error), -1).max(axis=1))[-1 - len(error) // 1000]),
        mean_error=float(error.mean()),
        reference_range=float(np.ptp(reference)),
        same_answer=same,
        has_nan=not finite,
        is_constant=constant,
        answers_a_sample=each,
    )


def worst_of(agreements: Mapping[str, Agreement]) -> Agreement:
    """The agreement of all outputs, as one: the errors of the output that is furthest off in its own range.

    Of the answers the least share that is the same.
    """
    worst = max(agreements.values(), key=lambda a: a.common_error / (a.reference_range or 1.0))
    shares = [a.same_answer for a in agreements.values() if a.same_answer is not None]
    return replace(
        worst,
        same_answer=min(shares) if shares else None,
        has_nan=any(a.has_nan for a in agreements.values()),
        is_constant=any(a.is_constant for a in agreements.values()),
    )

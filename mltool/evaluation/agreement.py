"""How far two predictors agree on the same samples."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from mltool.inference.answers import probabilities
from mltool.runs.input_schema import InputSchema, Task

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
        same_answer: share of samples, in [0, 1], with the same answer (largest output, or side of the threshold); None
            for regression.
        has_nan: whether the artifact gave NaN or infinity.
        is_constant: whether the artifact gave the same output for every sample, and the reference did not.
    """

    samples: int
    max_error: float
    common_error: float
    mean_error: float
    reference_range: float
    same_answer: float | None
    has_nan: bool
    is_constant: bool

    def to_json(self) -> dict[str, Any]:
        """As it stands in JSON files."""
        return asdict(self)

    def __str__(self) -> str:
        same = "" if self.same_answer is None else f", same answer {self.same_answer:.4f}"
        return f"max error {self.max_error:.3g}, mean error {self.mean_error:.3g}{same} on {self.samples} samples"


def compare_answers(reference: Array, outputs: Array, schema: InputSchema) -> Agreement:
    """Compares what two outputs mean: probabilities where they are logits, else the values.

    An int8 file cuts logits off at the edge of its calibrated range: on text messages one of a thousand was measured to
    be off by 30 % of that range, and no probability by more than 1.1 points.

    Args:
        reference: float32 [samples, values], as the model returns them.
        outputs: the same shape.
        schema: what they mean.
    """
    return compare(probabilities(reference, schema), probabilities(outputs, schema), schema.task, threshold=0.5)


def compare(reference: Array, outputs: Array, task: Task, *, threshold: float = 0.0) -> Agreement:
    """Compares two outputs on the same samples.

    Args:
        reference: float32 [samples, values].
        outputs: the same shape.
        task: decides what an answer is.
        threshold: of a binary answer: 0 for logits, 0.5 for probabilities.
    """
    finite = bool(np.isfinite(outputs).all())
    error = np.abs(reference.astype(np.float64) - np.where(np.isfinite(outputs), outputs, 0.0))
    same = None
    if task == "classification":
        same = float((reference.argmax(axis=-1) == outputs.argmax(axis=-1)).mean())
    elif task == "binary":
        same = float(((reference > threshold) == (outputs > threshold)).mean())
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
    )

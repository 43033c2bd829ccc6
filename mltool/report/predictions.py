"""What the Keras model of a run answered on its test split, as `evaluate` left it."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from mltool.errors import ArtifactError
from mltool.inference.answers import answer_indices
from mltool.runs.arrays import UNREADABLE_NPZ, read_npz
from mltool.runs.run import Run

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Predictions:
    """Answers and truth.

    Attributes:
        ids: int64 [samples], positions in the source.
        targets: int64 [samples] class numbers, or float32 [samples, values].
        outputs: float32 [samples, values].
        answers: int64 [samples] class numbers; for a regression the outputs.
    """

    ids: Array
    targets: Array
    outputs: Array
    answers: Array


def load_predictions(run: Run) -> Predictions | None:
    """Reads `predictions.npz`; None where the run was not evaluated.

    Raises:
        ArtifactError: if it is damaged.
    """
    if not run.predictions_file.is_file():
        return None
    try:
        arrays = read_npz(run.predictions_file)
        ids, targets, outputs = arrays["ids"], arrays["targets"], arrays["outputs"]
    except (*UNREADABLE_NPZ, KeyError) as error:
        raise ArtifactError(f"{run.predictions_file} is damaged: {error}", "mltool evaluate writes it") from error
    schema = run.input_schema
    answers = outputs if schema.task == "regression" else answer_indices(outputs, schema)
    return Predictions(ids, targets, outputs, answers)

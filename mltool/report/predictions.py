"""What the Keras model of a run answered on its test split, as `evaluate` left it."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from mltool.errors import ArtifactError
from mltool.inference.answers import answer_indices
from mltool.runs.arrays import UNREADABLE_NPZ, of_output, read_npz
from mltool.runs.input_schema import OutputInfo
from mltool.runs.run import Run

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Predictions:
    """Answers of one output, and the truth.

    Attributes:
        output: what it answers.
        ids: int64 [samples], positions in the source.
        targets: int64 [samples] class numbers, or float32 [samples, values], see `data/targets.py: encode`.
        outputs: float32 [samples, ...].
        answers: int64 class numbers, of the axes of the targets; for a regression the outputs.
    """

    output: OutputInfo
    ids: Array
    targets: Array
    outputs: Array
    answers: Array


def load_predictions(run: Run) -> dict[str, Predictions]:
    """Reads `predictions.npz`, output by output; nothing where the run was not evaluated.

    Raises:
        ArtifactError: if it is damaged.
    """
    if not run.predictions_file.is_file():
        return {}
    try:
        arrays = read_npz(run.predictions_file)
        ids, targets, outputs = arrays["ids"], arrays["targets"], arrays["outputs"]
        found = {}
        for output in run.input_schema.outputs:
            truth, values = of_output(targets, output.name), of_output(outputs, output.name)
            answers = values if output.task == "regression" else answer_indices(values, output)
            found[output.name] = Predictions(output, ids, truth, values, answers)
    except (*UNREADABLE_NPZ, KeyError, IndexError) as error:
        raise ArtifactError(f"{run.predictions_file} is damaged: {error}", "mltool evaluate writes it") from error
    return found

"""Answers samples with an artifact."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mltool.errors import ArtifactError, DataError
from mltool.inference.answers import decide, probabilities
from mltool.inference.fit import require_fit, sample_name
from mltool.inference.open import open_predictor
from mltool.inference.predictor import Array, Batch
from mltool.runs.input_schema import InputSchema


@dataclass(frozen=True)
class Prediction:
    """The answers of an artifact.

    Attributes:
        artifact: that answered.
        outputs: float32 [samples, values], as the artifact returns them.
        probabilities: float64 [samples, values]; for a regression the values themselves.
        answers: a label for every sample, or the values of a regression.
    """

    artifact: Path | str
    outputs: Array
    probabilities: Array
    answers: list[Any]


def predict(
    artifact: Path | str,
    batch: Batch,
    schema: InputSchema | None,
    *,
    allow_unseen: bool = False,
    name_of: Callable[[int], str] = sample_name,
) -> Prediction:
    """Runs an artifact on samples.

    Args:
        artifact: a `.keras` file, a SavedModel folder, a `.tflite` file; as text, the address of an endpoint.
        batch: every input by name, [samples, ...], as the user has them: preprocessing is inside of the artifact.
        schema: what the artifact takes and answers; without it the answers are the outputs themselves.
        allow_unseen: categories that training had not are told, not refused.
        name_of: what a sample is called in messages.

    Raises:
        ArtifactError: if the artifact is missing or damaged, or does not answer with numbers.
        DataError: if the samples do not fit the inputs and what training had there: see `fit.require_fit`.
    """
    arrays = {name: np.asarray(array) for name, array in batch.items()}
    if schema is not None:
        require_fit(arrays, schema, allow_unseen=allow_unseen, name_of=name_of)
    for name, array in arrays.items() if schema is None else ():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise DataError(f"input {name!r} holds NaN or infinity", "clean the samples")
    with open_predictor(artifact) as predictor:
        named = predictor.predict(arrays)
    outputs = named.get(schema.output if schema else "", next(iter(named.values())))
    if not np.isfinite(outputs).all():
        raise ArtifactError(
            f"{artifact} answers with NaN or infinity", "train it again, or bring its inputs into range"
        )
    if schema is None:
        return Prediction(artifact, outputs, outputs.astype(np.float64), outputs.tolist())
    return Prediction(artifact, outputs, probabilities(outputs, schema), decide(outputs, schema))

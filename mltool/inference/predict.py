"""Answers samples with an artifact."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mltool.errors import ArtifactError, DataError
from mltool.inference.answers import decide, told
from mltool.inference.fit import require_fit, sample_name
from mltool.inference.open import open_predictor
from mltool.inference.predictor import Array, Batch
from mltool.runs.input_schema import InputSchema


@dataclass(frozen=True)
class OutputAnswers:
    """What one output answered.

    Attributes:
        outputs: float32 [samples, ...], as the artifact returns them.
        answers: for every sample, see `decide`.
        key: what `values` are: `probabilities`, `outputs`, `score` (of an anomaly), `mask` (class numbers of pixels).
        values: [samples, ...], what is told beside the answer.
    """

    outputs: Array
    answers: list[Any]
    key: str
    values: Array


@dataclass(frozen=True)
class Prediction:
    """The answers of an artifact.

    Attributes:
        artifact: that answered.
        by_output: what every output answered.
    """

    artifact: Path | str
    by_output: Mapping[str, OutputAnswers]

    @property
    def only(self) -> OutputAnswers:
        """What the only output answered, or the first of several."""
        return next(iter(self.by_output.values()))

    def records(self) -> list[dict[str, Any]]:
        """For every sample `answer` and what is told beside it, as `--json` prints it; maps where there are several."""
        found: list[dict[str, Any]] = []
        for place in range(len(self.only.answers)):
            record: dict[str, Any] = {}
            for name, output in self.by_output.items():
                for key, value in (("answer", output.answers[place]), (output.key, output.values[place].tolist())):
                    if len(self.by_output) == 1:
                        record[key] = value
                    else:
                        record.setdefault(key, {})[name] = value
            found.append(record)
        return found


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
        artifact: a `.keras`, `.tflite` or `.onnx` file, a SavedModel folder; as text, the address of an endpoint.
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
    for values in named.values():
        if not np.isfinite(values).all():
            raise ArtifactError(
                f"{artifact} answers with NaN or infinity", "train it again, or bring its inputs into range"
            )
    missing = [info.name for info in schema.outputs if info.name not in named] if schema is not None else []
    if missing:
        message = f"{artifact} gives {', '.join(named)}; {', '.join(missing)} is expected"
        raise ArtifactError(message, "is it of this run?")
    if schema is None:
        return Prediction(
            artifact,
            {
                name: OutputAnswers(values, values.tolist(), "outputs", values.astype(np.float64))
                for name, values in named.items()
            },
        )
    return Prediction(
        artifact,
        {
            info.name: OutputAnswers(named[info.name], decide(named[info.name], info), *told(named[info.name], info))
            for info in schema.outputs
        },
    )

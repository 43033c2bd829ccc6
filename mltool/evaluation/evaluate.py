"""Measures a run or an artifact on the test split of its run."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from mltool.data.dataset import Dataset, Samples, open_dataset
from mltool.errors import ArtifactError
from mltool.evaluation.metrics import measure, require_same_metrics
from mltool.evaluation.slices import RESAMPLES, Slice, confidence_intervals, sliced
from mltool.inference.fit import require_fit
from mltool.inference.open import open_predictor
from mltool.inference.predictor import Array, Batch, Predictor
from mltool.runs.atomic import finite, write_json, writing
from mltool.runs.find import require_sound
from mltool.runs.input_schema import InputSchema
from mltool.runs.run import Run
from mltool.spec.spec import Spec


@dataclass(frozen=True)
class Evaluation:
    """Metrics of one artifact on one split.

    Attributes:
        run: whose data were used.
        artifact: that was run.
        split: of the data.
        samples: in it.
        metrics: by name, in the target's original units.
        runtime: what ran the artifact.
        outputs: float32 [samples, values].
        ids: int64 [samples], positions in the source.
        targets: as the data set has them.
        sliced_by: the column of `slices`; None where none was asked for.
        slices: metrics of every value of the column.
        confidence: level of `intervals`; None where none were asked for.
        intervals: of every metric the ends of its confidence interval.
    """

    run: Run
    artifact: Path
    split: str
    samples: int
    metrics: Mapping[str, float]
    runtime: str
    outputs: Array
    ids: Array
    targets: Array
    sliced_by: str | None = None
    slices: Sequence[Slice] = ()
    confidence: float | None = None
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As `--json` prints it; a metric that is not a number is null."""
        document = {
            "run": str(self.run.directory),
            "artifact": str(self.artifact),
            "split": self.split,
            "samples": self.samples,
            "metrics": dict(self.metrics),
        }
        if self.confidence is not None:
            ends = {name: list(interval) for name, interval in self.intervals.items()}
            document["confidence"] = {"level": self.confidence, "resamples": RESAMPLES, "intervals": ends}
        if self.sliced_by is not None:
            document["slices"] = {"by": self.sliced_by, "values": [part.to_json() for part in self.slices]}
        return {key: finite(value) for key, value in document.items()}


def evaluate(
    run: Run, artifact: Path | None = None, *, by: str | None = None, confidence: float | None = None
) -> Evaluation:
    """Runs an artifact on the whole test split and measures the metrics of the spec.

    For the run's own Keras model the result is kept in `evaluation.json`: what every later drop is held against.

    Args:
        run: whose test split it is.
        artifact: the run's `model.keras` when left out.
        by: a column whose values are measured apart, too.
        confidence: level of the intervals that are told beside the metrics, such as 0.95.

    Raises:
        UsageError: if there is no such column.
        ArtifactError: if the artifact is missing, damaged or changed.
        DataError: if the data changed since the run was trained.
        MachineError: if another process writes the run.
    """
    artifact = artifact or run.keras_file
    require_sound(run, artifact)
    data = run_data(run)
    samples = data.split("test")
    require_fit(samples.inputs, run.input_schema, allow_unseen=True)
    with open_predictor(artifact) as predictor:
        result = evaluate_predictor(run, predictor, samples, artifact)
    metrics, schema = run.spec.train.metrics, run.input_schema
    if by is not None:
        slices = sliced(by, data, samples.ids, result.outputs, metrics=metrics, schema=schema)
        result = replace(result, sliced_by=by, slices=slices)
    if confidence is not None:
        seed = run.spec.seed
        intervals = confidence_intervals(confidence, result.outputs, result.targets, metrics, schema, seed=seed)
        result = replace(result, confidence=confidence, intervals=intervals)
    if artifact.resolve() == run.keras_file.resolve():
        with run.locked():
            keep_evaluation(result)
    return result


def run_data(run: Run) -> Dataset:
    """The data of a run with the splits that it recorded.

    Raises:
        DataError: if they changed since.
    """
    data = open_dataset(run.spec)
    data.use_stored_splits(run.load_splits(), [info.name for info in run.input_schema.inputs])
    data.require_fingerprint(run.manifest.get("data", {}).get("fingerprint"))
    return data


def evaluate_predictor(run: Run, predictor: Predictor, samples: Samples, artifact: Path) -> Evaluation:
    """Measures an open predictor on samples of the test split."""
    spec: Spec = run.spec
    schema = run.input_schema
    require_same_metrics(run)
    outputs = output_of(predictor, samples.inputs, schema, artifact)
    metrics = measure(spec.train.metrics, outputs, samples.targets[:], schema)
    return Evaluation(
        run, artifact, "test", len(samples), metrics, predictor.runtime, outputs, samples.ids, samples.targets[:]
    )


def output_of(predictor: Predictor, inputs: Batch, schema: InputSchema, artifact: Path) -> Array:
    """The one output of a predictor; float32 [samples, values].

    Raises:
        ArtifactError: if the artifact has other inputs or outputs than the model of the run.
    """
    expected = ({info.name for info in schema.inputs}, {schema.output: schema.output_shape})
    found = (set(predictor.inputs), {name: info.shape for name, info in predictor.outputs.items()})
    if found != expected:
        raise ArtifactError(
            f"{artifact} takes and gives {_ends(*found)}; {_ends(*expected)} is expected", "is it of this run?"
        )
    return predictor.predict(inputs)[schema.output]


def _ends(inputs: Iterable[str], outputs: Mapping[str, tuple[int | None, ...]]) -> str:
    shown = ", ".join(f"{name} {list(shape)}" for name, shape in outputs.items())
    return f"{', '.join(sorted(inputs))} -> {shown}"


def keep_evaluation(result: Evaluation) -> None:
    """Writes evaluation.json, with the hash of the model that it is of, and predictions.npz for the report.

    Call with the run's lock held.
    """
    run = result.run
    origin = {"runtime": result.runtime, "sha256": run.artifact_hash(run.keras_file)}
    write_json(run.evaluation_file, {**result.to_json(), **origin})
    with writing(run.predictions_file) as temporary, temporary.open("wb") as opened:
        np.savez_compressed(opened, ids=result.ids, targets=result.targets, outputs=result.outputs)


def kept_metrics(run: Run) -> dict[str, float]:
    """The metrics of the run's Keras model, from evaluation.json.

    Raises:
        ArtifactError: if the file is missing, damaged, or of another model than the run's.
    """
    file = run.evaluation_file
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
        of, metrics = document["sha256"], dict(document["metrics"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{file} is missing or damaged: {error}", "mltool evaluate writes it") from error
    if of != run.artifact_hash(run.keras_file):
        raise ArtifactError(f"{file} is of another model than {run.keras_file.name}", "mltool evaluate writes it anew")
    return {name: float("nan") if value is None else float(value) for name, value in metrics.items()}

"""Measures a run, an artifact or an endpoint on a split of the run, or on other data."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from mltool.data.dataset import Dataset, Samples, open_dataset
from mltool.errors import ArtifactError, UsageError
from mltool.evaluation.elsewhere import EvaluatedSplit, other_data
from mltool.evaluation.metrics import measure, require_same_metrics
from mltool.evaluation.slices import RESAMPLES, Slice, confidence_intervals, sliced
from mltool.inference.answers import by_output
from mltool.inference.fit import require_fit
from mltool.inference.open import open_predictor
from mltool.inference.predictor import Array, Batch, Predictor
from mltool.runs.arrays import together, write_npz
from mltool.runs.atomic import finite, write_json, writing
from mltool.runs.find import require_sound
from mltool.runs.input_schema import InputSchema
from mltool.runs.run import Run
from mltool.spec.outputs import Measure, measures_of_task
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
        outputs: float32 [samples, ...]; with a field for each of several outputs.
        ids: int64 [samples], positions in the source.
        targets: as the data set has them.
        sliced_by: the column of `slices`; None where none was asked for.
        slices: metrics of every value of the column.
        confidence: level of `intervals`; None where none were asked for.
        intervals: of every metric the ends of its confidence interval.
        data: the spec whose data were used instead of the run's; None for those.
        seen_in_training: samples of such data that the run was trained on.
    """

    run: Run
    artifact: Path | str
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
    data: Path | None = None
    seen_in_training: int = 0

    def to_json(self) -> dict[str, Any]:
        """As `--json` prints it; a metric that is not a number is null."""
        document: dict[str, Any] = {
            "run": str(self.run.directory),
            "artifact": str(self.artifact),
            "split": self.split,
            "samples": self.samples,
            "metrics": dict(self.metrics),
        }
        if self.data is not None:
            document |= {"data": str(self.data), "seen_in_training": self.seen_in_training}
        if self.confidence is not None:
            ends = {name: list(interval) for name, interval in self.intervals.items()}
            document["confidence"] = {"level": self.confidence, "resamples": RESAMPLES, "intervals": ends}
        if self.sliced_by is not None:
            document["slices"] = {"by": self.sliced_by, "values": [part.to_json() for part in self.slices]}
        return {key: finite(value) for key, value in document.items()}


def evaluate(
    run: Run,
    artifact: Path | str | None = None,
    *,
    by: str | None = None,
    confidence: float | None = None,
    data_spec: Path | None = None,
    split: EvaluatedSplit = "test",
) -> Evaluation:
    """Runs an artifact on a whole split and measures the metrics of the spec.

    For the run's own Keras model on its own test split the result is kept in `evaluation.json`: what every later drop
    is held against.

    Args:
        run: whose samples and metrics they are.
        artifact: the run's `model.keras` when left out; as text, the address of an endpoint.
        by: a column whose values are measured apart, too.
        confidence: level of the intervals that are told beside the metrics, such as 0.95.
        data_spec: a spec whose data are taken instead of the run's; see `elsewhere.py`.
        split: of the data; `all` is for data that are not the run's.

    Raises:
        UsageError: if there is no such column, or all samples of the run itself are asked for.
        ArtifactError: if the artifact is missing, damaged or changed, or an endpoint serves another model.
        DataError: if the data changed since the run was trained, or others do not fit the model.
        MachineError: if another process writes the run, or an endpoint cannot be reached.
    """
    artifact = artifact or run.keras_file
    if isinstance(artifact, Path):
        require_sound(run, artifact)
    if data_spec is not None:
        data, samples, seen = other_data(run, data_spec, split)
    elif split == "all":
        raise UsageError("all samples of a run are those that it learned from, too", "name other data: --data SPEC")
    else:
        data, seen = run_data(run), 0
        samples = data.split(split)
    require_fit(samples.inputs, run.input_schema, allow_unseen=True, name_of=_names(data, samples))
    with open_predictor(artifact) as predictor:
        result = evaluate_predictor(run, predictor, samples, artifact)
    result = replace(result, split=split, data=data_spec, seen_in_training=seen)
    schema = run.input_schema
    measures = measures_of(run.spec, schema)
    if by is not None:
        slices = sliced(by, data, samples.ids, result.outputs, measures=measures, schema=schema)
        result = replace(result, sliced_by=by, slices=slices)
    if confidence is not None:
        seed = run.spec.seed
        intervals = confidence_intervals(confidence, result.outputs, result.targets, measures, schema, seed=seed)
        result = replace(result, confidence=confidence, intervals=intervals)
    is_reference = isinstance(artifact, Path) and artifact.resolve() == run.keras_file.resolve()
    if is_reference and data_spec is None and split == "test":
        with run.locked():
            keep_evaluation(result)
    return result


def _names(data: Dataset, samples: Samples) -> Callable[[int], str]:
    """What the samples of a split are called in messages."""
    return lambda position: data.source.name_of(int(samples.ids[position]))


def run_data(run: Run) -> Dataset:
    """The data of a run with the splits that it recorded.

    Raises:
        DataError: if they changed since.
    """
    data = open_dataset(run.spec)
    data.use_stored_splits(run.load_splits(), [info.name for info in run.input_schema.inputs])
    data.require_fingerprint(run.manifest.get("data", {}).get("fingerprint"))
    return data


def evaluate_predictor(run: Run, predictor: Predictor, samples: Samples, artifact: Path | str) -> Evaluation:
    """Measures an open predictor on samples of the test split."""
    spec: Spec = run.spec
    schema = run.input_schema
    require_same_metrics(run)
    outputs = output_of(predictor, samples.inputs, schema, artifact)
    for name, values in by_output(outputs, schema).items():
        if not np.isfinite(values).all():
            which = f" in {name!r}" if len(schema.outputs) > 1 else ""
            # The greatest of them is no answer, and NumPy takes the first all the same.
            message = f"{artifact} answers with NaN or infinity{which}"
            raise ArtifactError(message, "train it again, or bring its inputs into range")
    metrics = measure(measures_of(spec, schema), outputs, samples.targets[:], schema)
    return Evaluation(
        run, artifact, "test", len(samples), metrics, predictor.runtime, outputs, samples.ids, samples.targets[:]
    )


def measures_of(spec: Spec, schema: InputSchema) -> list[Measure]:
    """The metrics of the spec, and behind them those that belong to its tasks."""
    asked = list(spec.train.measures)
    keys = {name: key for key, name in spec.output_names.items()}
    for output in schema.outputs:
        asked += measures_of_task(output.task, keys[output.name], output.shape[-1], asked)
    return asked


def output_of(predictor: Predictor, inputs: Batch, schema: InputSchema, artifact: Path | str) -> Array:
    """What a predictor answers; float32 [samples, ...], with a field for each of several outputs.

    Raises:
        ArtifactError: if the artifact has other inputs or outputs than the model of the run.
    """
    expected = ({info.name for info in schema.inputs}, {info.name: info.shape for info in schema.outputs})
    found = (set(predictor.inputs), {name: info.shape for name, info in predictor.outputs.items()})
    same = found[1].keys() == expected[1].keys() and all(
        _same_shape(found[1][name], shape) for name, shape in expected[1].items()
    )
    if found[0] != expected[0] or not same:
        raise ArtifactError(
            f"{artifact} takes and gives {_ends(*found)}; {_ends(*expected)} is expected", "is it of this run?"
        )
    for info in schema.inputs if isinstance(artifact, str) else ():
        served = predictor.inputs[info.name]
        if (served.dtype == "string") != (info.dtype == "string") or not _same_shape(served.shape, info.shape):
            message = f"{artifact} takes {info.name!r} as {served.dtype} {list(served.shape)}"
            raise ArtifactError(f"{message}; {info.dtype} {list(info.shape)} is expected", "is it of this run?")
    answers = predictor.predict(inputs)
    return together({info.name: answers[info.name] for info in schema.outputs})


def _same_shape(served: Sequence[int | None], wanted: Sequence[int]) -> bool:
    return len(served) == len(wanted) and all(s in (None, w) for s, w in zip(served, wanted, strict=True))


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
        write_npz(opened, {"ids": result.ids, "targets": result.targets, "outputs": result.outputs}, small=True)


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

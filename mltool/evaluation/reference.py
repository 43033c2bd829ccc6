"""What an artifact is held against: the float Keras model of its run on the held-out samples."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mltool import extras
from mltool.child import Child
from mltool.data.dataset import Dataset, Samples
from mltool.errors import ArtifactError, MissingExtraError
from mltool.evaluation.agreement import compare_answers
from mltool.evaluation.evaluate import evaluate_predictor, keep_evaluation, kept_metrics, output_of
from mltool.evaluation.judge import Measurements
from mltool.evaluation.metrics import counts_samples, lower_is_better, measure
from mltool.inference.open import open_predictor
from mltool.inference.outside import open_lite
from mltool.inference.predictor import Array
from mltool.inference.text_steps import TextStep
from mltool.runs.atomic import sha256_of
from mltool.runs.input_schema import InputSchema
from mltool.runs.lite import REFERENCE_KEY, LiteFolder, LiteRecord, artifact_key, input_key, trained_key
from mltool.runs.run import Run
from mltool.spec.outputs import Measure

logger = logging.getLogger("mltool")

NUM_VECTORS = 32
"""Test samples in vectors.npz."""


@dataclass(frozen=True)
class Reference:
    """The float Keras model on held-out samples.

    Attributes:
        samples: the whole test split.
        outputs: of the Keras model, float32 [n, ...], for the first n of the samples: all of them, or those of
            vectors.npz where the model cannot be run.
        metrics: of the Keras model on all samples, by name.
        schema: what the outputs mean.
        asked: the metrics of the spec.
    """

    samples: Samples
    outputs: Array
    metrics: Mapping[str, float]
    schema: InputSchema
    asked: Sequence[Measure]

    @property
    def first_inputs(self) -> dict[str, Array]:
        """The inputs in vectors.npz, by name; float32, or text."""
        return self.samples.first(NUM_VECTORS)

    def metric(self, name: str | None) -> Measure | None:
        """The metric that limits hold: the one of that name, or the first of the spec; None where it has none."""
        if name is None:
            return self.asked[0] if self.asked else None
        return next((measure for measure in self.asked if measure.name == name), None)


def reference_of(run: Run, data: Dataset, *, keep: bool = False) -> Reference:
    """Runs the Keras model of a run on its test split.

    Args:
        run: whose model it is.
        data: of the run.
        keep: write evaluation.json; the caller holds the run's lock.

    Raises:
        ArtifactError: if model.keras is missing or changed.
    """
    return reference_on(run, data.split("test"), keep=keep)


def reference_on(run: Run, samples: Samples, *, keep: bool = False) -> Reference:
    """As `reference_of`, on any samples; only of the test split may `keep` write evaluation.json."""
    with open_predictor(run.require_unchanged(run.keras_file)) as predictor:
        found = evaluate_predictor(run, predictor, samples, run.keras_file)
    if keep:
        keep_evaluation(found)
    return Reference(samples, found.outputs, found.metrics, run.input_schema, run.spec.train.measures)


def recorded_reference(run: Run, data: Dataset, lite: LiteFolder) -> Reference:
    """What the Keras model was found to answer when it could be run: its metrics and its outputs in vectors.npz.

    Raises:
        ArtifactError: if evaluation.json or vectors.npz is missing, damaged, or not of this model and these samples.
    """
    samples, vectors = data.split("test"), lite.load_vectors()
    outputs = vectors.get(REFERENCE_KEY)
    if outputs is None or not np.array_equal(vectors.get("ids", ()), samples.ids[: len(outputs)]):
        raise ArtifactError(
            f"{lite.vectors_file} is not of the first test samples", "mltool convert --force writes it anew"
        )
    return Reference(samples, outputs, kept_metrics(run), run.input_schema, run.spec.train.measures)


def measure_file(
    path: Path,
    reference: Reference,
    *,
    child: Child,
    metric: str | None,
    latency: Mapping[str, float] | None,
    steps: Sequence[TextStep] | None = None,
) -> tuple[Measurements, Array]:
    """Runs a `.tflite` file on the samples of the reference.

    Args:
        path: the file.
        reference: what it is held against.
        child: to run it in.
        metric: that limits hold, or None for the first of the spec.
        latency: percentiles in milliseconds, if they were measured.
        steps: that lie outside of the file; those of the record beside it when None.

    Returns:
        What was measured, and the file's outputs for the samples of vectors.npz.

    Raises:
        ArtifactError: if the file cannot be run, or has other inputs or outputs than the model.
    """
    schema, samples = reference.schema, reference.samples
    with open_lite(path, child=child, steps=steps) as predictor:
        outputs = output_of(predictor, samples.inputs, schema, path)
        # Apart, as a replay runs them: with a free batch the last bits may depend on its size.
        answers = output_of(predictor, reference.first_inputs, schema, path)
    asked = reference.metric(metric)
    compared = outputs[: len(reference.outputs)]
    found = Measurements(
        metric=asked.name if asked else None,
        lower_is_better=lower_is_better(asked.metric) if asked else False,
        counts_samples=asked is not None and counts_samples(asked.metric, schema.output(asked.output).task),
        value=_value(asked, outputs, reference) if asked else None,
        reference=reference.metrics.get(asked.name) if asked else None,
        samples=len(samples),
        size_bytes=path.stat().st_size,
        p90_latency_ms=latency["p90"] if latency else None,
        agreements=compare_answers(reference.outputs, compared, schema),
    )
    return found, answers


def _value(asked: Measure, outputs: Array, reference: Reference) -> float | None:
    """The metric; None, said, for one that only Keras has where there is no Keras."""
    try:
        return measure([asked], outputs, reference.samples.targets[:], reference.schema)[asked.name]
    except MissingExtraError:
        logger.warning("%s is a metric that only Keras measures, and it is not installed", asked.name)
        return None


def trained_reference(reference: Reference, keras: Path) -> Reference:
    """What a file is held against whose model was trained on for it: the answers of that model, all else as it was.

    Its metric is still held against the model of the run: that is what every drop is measured against.

    Args:
        reference: of the run.
        keras: the model that was trained on.

    Raises:
        ArtifactError: if it is missing or damaged.
    """
    with open_predictor(keras) as predictor:
        outputs = output_of(predictor, reference.samples.inputs, reference.schema, keras)
    return replace(reference, outputs=outputs)


def reference_for(lite: LiteFolder, record: LiteRecord, reference: Reference) -> Reference:
    """The reference of a file: the run's, or where its model was trained on that model's, run or as recorded.

    Raises:
        ArtifactError: if vectors.npz lacks what was recorded, or that model was changed since.
    """
    if not record.training:
        return reference
    keras = lite.keras_file(record.name)
    if extras.has("tensorflow") and keras.is_file():
        recorded = record.training.get("keras_sha256")
        if recorded is not None and sha256_of(keras) != recorded:
            message = f"{keras} was changed since {record.name} was made of it"
            raise ArtifactError(message, "convert it again with --force, or restore it")
        return trained_reference(reference, keras)
    outputs = lite.load_vectors().get(trained_key(record.name))
    if outputs is None:
        message = f"{lite.vectors_file} lacks the answers of the model that {record.name} was made of"
        raise ArtifactError(message, "mltool convert --force writes it anew")
    return replace(reference, outputs=outputs)


def add_answers(lite: LiteFolder, reference: Reference, answers: Mapping[str, Array]) -> None:
    """Writes an artifact's answers to the first test samples into vectors.npz, beside the Keras model's.

    Args:
        lite: the folder; answers of files that are no longer in it are left out.
        reference: of the run, whose samples they are.
        answers: by key, float32 [NUM_VECTORS or fewer, ...]: the artifact's, and of the model that was trained on.
    """
    fresh = {
        "ids": reference.samples.ids[:NUM_VECTORS],
        # Samples that were made up have none.
        **({"targets": reference.samples.targets[:NUM_VECTORS]} if len(reference.samples.targets) else {}),
        REFERENCE_KEY: reference.outputs[:NUM_VECTORS],
        **{input_key(key): array for key, array in reference.first_inputs.items()},
    }
    present = {key(other) for other in lite.names() for key in (artifact_key, trained_key)}
    others = {key: array for key, array in _vectors_so_far(lite).items() if key in present}
    lite.save_vectors({**fresh, **others, **answers})


def forget_answers(lite: LiteFolder, name: str) -> None:
    """Takes the answers of an older file of this name out of vectors.npz."""
    vectors = _vectors_so_far(lite)
    found = [vectors.pop(key(name), None) for key in (artifact_key, trained_key)]
    if any(answers is not None for answers in found):
        lite.save_vectors(vectors)


def _vectors_so_far(lite: LiteFolder) -> dict[str, Array]:
    if not lite.vectors_file.is_file():
        return {}
    try:
        return lite.load_vectors()
    except ArtifactError as error:
        logger.warning("%s; it is written anew, without the answers of other files", error.messages[0].message)
        return {}

"""Exports a trained run to a SavedModel that bare TensorFlow loads, and proves that it answers as the Keras model."""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mltool import extras
from mltool.errors import VerificationError
from mltool.evaluation.agreement import Agreement, compare_values, worst_of
from mltool.evaluation.evaluate import output_of, run_data
from mltool.evaluation.other_backend import check_under_tensorflow
from mltool.inference.answers import by_output
from mltool.inference.keras_predictor import KerasPredictor, load_keras_model
from mltool.inference.predictor import Predictor
from mltool.inference.saved_model import SavedModelPredictor
from mltool.runs.atomic import writing_folder
from mltool.runs.run import Run

logger = logging.getLogger("mltool")

SIGNATURE = "serving_default"

NUM_SAMPLES = 256
"""Test samples that what was exported is held against the Keras model on."""

TOLERANCE = 1e-5
"""Largest difference from the Keras model, as a share of its largest output: the order of float32 sums differs."""


@dataclass(frozen=True)
class ExportResult:
    """What an export left.

    Attributes:
        run: of the model.
        path: the SavedModel, or the `.onnx` file.
        agreement: with the Keras model, on test samples; None where nothing had to be done.
    """

    run: Run
    path: Path
    agreement: Agreement | None


def export(run: Run, *, force: bool = False) -> ExportResult:
    """Writes `saved_model/1` with the signature `serving_default`, raw input names and dtypes kept.

    Args:
        run: trained.
        force: also when equal inputs were exported before.

    Raises:
        ArtifactError: if the run was not trained, or its model changed since.
        VerificationError: if the SavedModel does not answer as the Keras model.
    """
    with run.locked():
        result = export_locked(run, force=force)
    if result.agreement is None:
        logger.info("%s is there already, from equal inputs; nothing to do (--force makes it again)", result.path)
    return result


def export_locked(run: Run, *, force: bool = False) -> ExportResult:
    """As `export`, for a caller that holds the run's lock."""
    run.clear_partial_files()
    run.require_unchanged(run.keras_file)
    folder = run.saved_model_folder
    inputs = {
        "model": run.artifact_hash(run.keras_file),
        "tensorflow": extras.version_of("tensorflow"),
        "mltool": extras.version_of("mltool-tf"),
    }
    if not force and folder.is_dir() and run.stage_is_fresh("export", inputs):
        run.require_unchanged(folder)
        return ExportResult(run, folder, None)
    started = time.perf_counter()
    check_under_tensorflow(run)
    model = load_keras_model(run.keras_file)
    with writing_folder(folder) as temporary:
        write_saved_model(model, run.input_schema.output_names, temporary)
        agreement = _verify(run, model, temporary)
    run.record_artifact(folder)
    run.record_stage("export", inputs, time.perf_counter() - started)
    return ExportResult(run, folder, agreement)


def write_saved_model(model: Any, outputs: Sequence[str], folder: Path, names: Sequence[str] | None = None) -> None:
    """Writes a signature with keywords named as the inputs, and a map with the outputs' names.

    Args:
        model: functional.
        outputs: their names.
        folder: where; must not be there.
        names: of the inputs, in the order of `model.inputs`; their own when left out.
    """
    tf, keras = extras.tensorflow(), extras.keras()
    tensors = dict(zip(names or [tensor.name for tensor in model.inputs], model.inputs, strict=True))
    place = {id(tensor): name for name, tensor in tensors.items()}
    # Numbers of words are int32 outside, whatever Keras counts in: that is what devices have.
    specs = {
        name: tf.TensorSpec(tensor.shape, "int32" if tensor.dtype == "int64" else tensor.dtype, name=name)
        for name, tensor in tensors.items()
    }

    def serve(inputs: Any) -> Any:
        taken = keras.tree.map_structure(lambda t: _as_taken(inputs[place[id(t)]], t.dtype), model.input)
        answers = model(taken, training=False)
        return answers if isinstance(answers, dict) else {outputs[0]: answers}

    archive = keras.export.ExportArchive()
    archive.track(model)
    archive.add_endpoint(SIGNATURE, serve, [specs])
    archive.write_out(str(folder), verbose=False)


def _as_taken(value: Any, dtype: str) -> Any:
    return value if dtype == "string" else extras.tensorflow().cast(value, dtype)


def _verify(run: Run, model: Any, folder: Path) -> Agreement:
    return require_same_answers(run, model, SavedModelPredictor(folder), folder, "the SavedModel")


def require_same_answers(run: Run, model: Any, predictor: Predictor, artifact: Path, what: str) -> Agreement:
    """Holds an artifact of floats against the Keras model on test samples.

    Args:
        run: of both.
        model: the Keras model.
        predictor: of the artifact.
        artifact: its path.
        what: it is, for the message.

    Raises:
        VerificationError: if a value is off by more than `TOLERANCE` of the largest.
    """
    data, schema = run_data(run), run.input_schema
    inputs = data.take(data.splits.test[:NUM_SAMPLES]).inputs
    expected = output_of(KerasPredictor(model, schema.output_names), inputs, schema, run.keras_file)
    outputs = output_of(predictor, inputs, schema, artifact)
    agreements = compare_values(expected, outputs, schema)
    for name, values in by_output(expected, schema).items():
        agreement = agreements[name]
        if agreement.has_nan or not agreement.max_error <= TOLERANCE * (float(np.abs(values).max()) or 1.0):
            which = f"{name}: " if len(schema.outputs) > 1 else ""
            message = f"{what} does not answer as the Keras model: {which}{agreement}"
            raise VerificationError(message, "this is a flaw of the export; please report it")
    return worst_of(agreements)

"""Exports a trained run to an `.onnx` file, and proves in ONNX Runtime that it answers as the Keras model."""

import logging
import time
from pathlib import Path
from typing import Any

from mltool import extras
from mltool.child import Child, ChildCrashed, ChildTimedOut
from mltool.errors import ConversionError
from mltool.evaluation.agreement import Agreement
from mltool.exporting.export import SIGNATURE, ExportResult, export_locked, require_same_answers
from mltool.exporting.onnx_converter import OPSET
from mltool.inference.keras_predictor import load_keras_model
from mltool.inference.onnx_predictor import OnnxPredictor
from mltool.inspection.onnx_file import OnnxFile, read_onnx
from mltool.runs.atomic import sha256_of, writing
from mltool.runs.onnx import OnnxFolder, OnnxRecord
from mltool.runs.run import Run

logger = logging.getLogger("mltool")

CONVERTER = "mltool.exporting.onnx_converter:convert_to_onnx"
"""What the child is asked to call."""

CONVERT_TIMEOUT_SECONDS = 1800.0
"""A conversion that takes longer is taken for hung."""

STAGE = "export/onnx"

PACKAGES = ("tf2onnx", "onnx", "onnxruntime")


def require_onnx() -> None:
    """Proves that what makes and runs `.onnx` files is installed, before anything is trained for one.

    Raises:
        MissingExtraError: if it is not, with the line that installs it.
    """
    for package in PACKAGES:
        extras.require_installed(package)


def export_onnx(run: Run, *, force: bool = False) -> ExportResult:
    """Writes `onnx/<name>.onnx` with the names of inputs and outputs kept and the batch free.

    A run without a SavedModel is exported to one first: the file is made of it. Made again it is another file of the
    same operators and weights: tf2onnx walks sets of objects, and names what it merges after the one that came first.

    Args:
        run: trained.
        force: also when equal inputs were exported before.

    Raises:
        ArtifactError: if the run was not trained, or its model changed since.
        ConversionError: if the model takes text, or has an operator that tf2onnx does not translate.
        VerificationError: if the file does not answer as the Keras model.
        MissingExtraError: if tf2onnx or ONNX Runtime is not installed.
    """
    require_onnx()
    with run.locked():
        result = _export_locked(run, force=force)
    if result.agreement is None:
        logger.info("%s is there already, from equal inputs; nothing to do (--force makes it again)", result.path)
    return result


def _export_locked(run: Run, *, force: bool) -> ExportResult:
    _require_no_text(run)
    export_locked(run)
    folder = OnnxFolder(run.onnx_folder, run.spec.name)
    inputs = {
        "saved_model": run.artifact_hash(run.saved_model_folder),
        "opset": OPSET,
        **_versions(),
        "mltool": extras.version_of("mltool-tf"),
    }
    if not force and folder.file.is_file() and folder.record_file.is_file() and run.stage_is_fresh(STAGE, inputs):
        run.require_unchanged(folder.file)
        return ExportResult(run, folder.file, None)
    started = time.perf_counter()
    with writing(folder.file) as temporary:
        _convert(run, temporary)
        found = read_onnx(temporary)
        runtime, agreement = _verify(run, temporary)
    run.record_artifact(folder.file)
    folder.save(_record(run, folder, found, agreement, runtime), run.input_schema)
    run.record_stage(STAGE, inputs, time.perf_counter() - started)
    return ExportResult(run, folder.file, agreement)


def _versions() -> dict[str, str | None]:
    return {package: extras.version_of(package) for package in PACKAGES}


def _require_no_text(run: Run) -> None:
    """Words are looked up in a table, and neither ONNX nor tf2onnx has one that is Keras' own.

    Raises:
        ConversionError: naming the layers.
    """
    layers = [f"{step.name!r} ({step.class_name})" for step in run.input_schema.preprocessing if step.takes_text]
    if layers:
        message = f"cannot be written as ONNX: text goes into {', '.join(layers)}, which ONNX has no operator for"
        raise ConversionError(message, "take the SavedModel, or mltool convert: a .tflite has the words beside it")


def _convert(run: Run, output: Path) -> None:
    """Calls tf2onnx in a process of its own: it prints, and changes settings of TensorFlow."""
    arguments: dict[str, Any] = {
        "saved_model": str(run.saved_model_folder),
        "signature": SIGNATURE,
        "output": str(output),
        "layer_names": list(run.spec.model.layer_names),
    }
    with Child() as child:
        try:
            child.call(CONVERTER, timeout_seconds=CONVERT_TIMEOUT_SECONDS, **arguments)
        except ChildCrashed as error:
            last = next((line for line in reversed(error.output.splitlines()) if line.strip()), "nothing")
            raise ConversionError(f"tf2onnx {error.status}", f"the last it said: {last}") from error
        except ChildTimedOut as error:
            raise ConversionError(f"tf2onnx did not answer in {error.timeout_seconds:g} s") from error


def _verify(run: Run, file: Path) -> tuple[str, Agreement]:
    model = load_keras_model(run.keras_file)
    with OnnxPredictor(file) as predictor:
        return predictor.runtime, require_same_answers(run, model, predictor, file, "the .onnx file")


def _record(run: Run, folder: OnnxFolder, found: OnnxFile, agreement: Agreement, runtime: str) -> OnnxRecord:
    return OnnxRecord(
        name=folder.file.stem,
        sha256=sha256_of(folder.file),
        bytes=folder.file.stat().st_size,
        opset=found.opsets[""],
        ir_version=found.ir_version,
        source={"artifact": "saved_model/1", "sha256": run.artifact_hash(run.saved_model_folder)},
        operators=dict(found.operators),
        agreement=agreement.to_json(),
        runtime=runtime,
        versions=_versions(),
    )

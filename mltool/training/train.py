"""Trains the model of a run: from the beginning, or from its newest checkpoint."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mltool import extras
from mltool.errors import (
    ArtifactError,
    DataError,
    Interrupted,
    MachineError,
    MissingExtraError,
    MltoolError,
    SpecError,
)
from mltool.evaluation.other_backend import check_under_tensorflow
from mltool.runs.atomic import writing
from mltool.runs.run import Run
from mltool.spec.outputs import NO_RESULTS
from mltool.training.checkpoints import State
from mltool.training.elsewhere import train_elsewhere
from mltool.training.epochs import Epochs
from mltool.training.interrupts import Interrupts
from mltool.training.records import read_lines, write_events
from mltool.training.setup import Setup, build_setup, record_setup, record_threshold

logger = logging.getLogger("mltool")


@dataclass(frozen=True)
class TrainResult:
    """What training left.

    Attributes:
        run: where.
        epochs: that were run, over all resumptions.
        best_epoch: whose weights were kept (from 1), or None with `keep: last`.
        metrics: of the epoch that was kept, training and validation; those that are numbers.
        seconds: of training, over all resumptions.
    """

    run: Run
    epochs: int
    best_epoch: int | None
    metrics: Mapping[str, float]
    seconds: float


def train(run: Run) -> TrainResult:
    """Trains the model of `run`; continues from its newest checkpoint where there is one.

    The weights are bit for bit those of a training that was never cut. A finished run is left as it is.

    Raises:
        DataError: if the data are missing, damaged, or changed since the run began.
        SpecError: if the model does not fit the data, or weights do not fit the model.
        ArtifactError: if a file of weights is damaged; after these, a run that was just made is taken away.
        TrainingError: if the loss is no longer a number.
        Interrupted: after Ctrl-C or SIGTERM; the run can be resumed.
        MachineError: if another process trains this run, or the environment asks for another backend of Keras.
        MissingExtraError: if the backend of the spec is not installed.
    """
    with run.locked():
        run.clear_partial_files()
        if run.status == "trained":
            logger.info("%s is finished already", run.directory)
            return _result_of(run)
        try:
            with Interrupts() as interrupts:
                return _train(run, interrupts)
        except (Interrupted, KeyboardInterrupt):
            run.update(status="interrupted")
            raise
        except MltoolError as error:
            run.update(status="failed", error=str(error))
            if run.is_new and isinstance(error, _MENDED) and "training_sections" not in run.manifest:
                # Nothing was trained: the same command must work once the data, the spec or the weights are mended.
                run.discard()
            raise
        except Exception as error:
            run.update(status="failed", error=f"{type(error).__name__}: {error}")
            raise


_MENDED = DataError | SpecError | ArtifactError | MachineError | MissingExtraError
"""What stands in the way of a training before it begins."""


def _train(run: Run, interrupts: Interrupts) -> TrainResult:
    backend = run.spec.train.backend
    if backend == "tensorflow":
        state = fit(run, build_setup(run), interrupts)
    else:
        state = train_elsewhere(run, interrupts)
        run.update(backend={"name": backend, "difference": None})
        check_under_tensorflow(run)
        if extras.has("tensorflow"):
            write_events(run.events_folder, read_lines(run.metrics_file))
    _record_end(run, state)
    return _result_of(run)


def fit(run: Run, setup: Setup, interrupts: Interrupts) -> State:
    """Runs the epochs that are left, and writes the model with the weights that are kept.

    Raises:
        TrainingError: if the loss is no longer a number.
        Interrupted: after Ctrl-C or SIGTERM; a checkpoint of the very step is left.
    """
    epochs = Epochs(run, setup, interrupts)
    epochs.take_up()
    record_setup(run, setup)
    interrupts.note_only()
    state = epochs.run_all()
    if state.stopped:
        logger.info("stopped after epoch %d: %s", state.epoch, state.stopped)
    epochs.keep_the_best()
    record_threshold(run, setup)
    setup.trainability.restore()  # phases are of the training: who loads the file finds the model of the spec
    _save_model(setup.loop.model, run.keras_file)
    return state


def _save_model(model: Any, file: Path) -> None:
    with writing(file) as temporary:
        # Keras tells the format by the ending.
        named = temporary.with_name(f"{temporary.name}.keras")
        model.save(named)
        named.replace(temporary)


def _record_end(run: Run, state: State) -> None:
    """Makes the run a trained one; the status comes last, so that a process killed before ends it again."""
    run.record_artifact(run.keras_file)
    run.record_stage("train", run.spec_file.read_text(encoding="utf-8"), state.seconds)
    best = None if state.best_epoch is None else state.best_epoch + 1
    run.update(status="trained", epochs=state.epoch, best_epoch=best, stopped=state.stopped)


def _result_of(run: Run) -> TrainResult:
    manifest, lines = run.manifest, read_lines(run.metrics_file)
    best = manifest.get("best_epoch")
    kept = next((line for line in lines if line["epoch"] == best), lines[-1] if lines else {})
    metrics = {name: value for name, value in kept.items() if name not in NO_RESULTS and value is not None}
    return TrainResult(
        run, manifest["epochs"], manifest.get("best_epoch"), metrics, manifest["stages"]["train"]["seconds"]
    )

"""Trains the model of a run: from the beginning, or from its newest checkpoint."""

import contextlib
import gc
import logging
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mltool import extras
from mltool.cluster.join import join, place_to_write
from mltool.errors import MISTAKES, DiskError, Interrupted, MachineError, MltoolError
from mltool.evaluation.other_backend import check_under_tensorflow
from mltool.models.precision import make_float32
from mltool.runs.atomic import write_json, writing
from mltool.runs.run import Run
from mltool.spec.backend import require_tensorflow
from mltool.spec.outputs import NO_RESULTS
from mltool.spec.strategy import MultiWorkerStrategy, ParameterServerStrategy
from mltool.training.beginning import record_setup, record_threshold
from mltool.training.checkpoints import State, newest_file
from mltool.training.devices.workers import lost_worker
from mltool.training.elsewhere import train_elsewhere
from mltool.training.epochs import Epochs
from mltool.training.faults import go_on_with_less_memory
from mltool.training.interrupts import Interrupts
from mltool.training.loops.loop import Loop
from mltool.training.loops.parameter_server import serve
from mltool.training.memory import OutOfMemory, must_fit, out_of_memory
from mltool.training.records import Events, read_lines
from mltool.training.setup import Setup, build_setup
from mltool.training.trials.profile import Profile, ProfileSummary

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
        profile: where one was asked for and there were steps enough.
    """

    run: Run
    epochs: int
    best_epoch: int | None
    metrics: Mapping[str, float]
    seconds: float
    profile: ProfileSummary | None = None


def train(run: Run, *, profile: bool = False) -> TrainResult:
    """Trains the model of `run`; continues from its newest checkpoint where there is one.

    The weights are bit for bit those of a training that was never cut. A finished run is left as it is.

    Args:
        run: new, or not finished.
        profile: whether some steps are profiled: a trace in events/, and profile.json.

    Raises:
        DataError: if the data are missing, damaged, or changed since the run began.
        SpecError: if the model does not fit the data, or weights do not fit the model.
        ArtifactError: if a file of weights is damaged; after these, a run that was just made is taken away.
        TrainingError: if the loss, or a gradient, is not finite, no weight has a gradient, or a callback of the user's
            raises.
        Interrupted: after Ctrl-C or SIGTERM; the run can be resumed.
        MachineError: if another process trains this run, workers do not meet, the disk is full, a device has no memory
            left, or the environment asks for another backend of Keras.
        MissingExtraError: if the backend of the spec is not installed.
    """
    if run.status == "trained":
        logger.info("%s is finished already", run.directory)
        return _result_of(run)
    spec = run.spec
    cluster = join(spec)
    if isinstance(spec.train.strategy, ParameterServerStrategy) and cluster and not cluster.is_chief:
        serve()
    with place_to_write(run, cluster) as place:
        return replace(_train_in(place, profile), run=run)


def _train_in(run: Run, profile: bool) -> TrainResult:
    with run.locked():
        run.clear_partial_files()
        try:
            if profile:
                require_tensorflow(run.spec, "a profile is taken of TensorFlow's steps")
            with Interrupts() as interrupts:
                return _train(run, interrupts, Profile(run.events_folder) if profile else None)
        except Interrupted:
            _note(run, status="interrupted")
            raise
        except KeyboardInterrupt as error:
            _note(run, status="interrupted")
            # While data are read or steps compiled, or the second time.
            hint = f"go on with: mltool train --resume {shlex.quote(str(run.directory))}"
            raise Interrupted(f"{str(error) or 'Ctrl-C'}: stopped at once", hint) from error
        except MltoolError as error:
            failure = _with_what_is_left(run, error)
            _note(run, status="failed", error=str(failure))
            if isinstance(error, MISTAKES):
                run.discard_unless_begun()
            if failure is error:
                raise
            raise failure from error
        except Exception as error:
            of_several = isinstance(run.spec.train.strategy, MultiWorkerStrategy | ParameterServerStrategy)
            lost = lost_worker(error) if of_several else None
            _note(run, status="failed", error=str(lost or f"{type(error).__name__}: {error}"))
            if lost is not None:
                raise lost from error
            raise


def _note(run: Run, **how_it_ended: str) -> None:
    """Writes down how a training ended, unless that fails too: a full disk takes no note, and the reason is told."""
    with contextlib.suppress(MachineError):  # `training`, which it says then, can be resumed too
        run.update(**how_it_ended)


def _with_what_is_left(run: Run, error: MltoolError) -> MltoolError:
    """Of an error of the disk: the same with the last whole checkpoint and the command to go on with."""
    newest = newest_file(run.checkpoints_folder)
    if newest is None or not isinstance(error, DiskError):
        return error
    (told,) = error.messages
    command = f"mltool train --resume {shlex.quote(str(run.directory))}"
    return DiskError(told.message, f"{told.hint}; {newest.name} is whole: go on from it with: {command}")


def _train(run: Run, interrupts: Interrupts, profile: Profile | None) -> TrainResult:
    if run.spec.train.backend == "tensorflow":
        state = _train_within_memory(run, interrupts, profile)
    else:
        state = _train_elsewhere(run, interrupts)
    summary = None if profile is None else _record_profile(run, profile)
    _record_end(run, state)
    return replace(_result_of(run), profile=summary)


def _train_within_memory(run: Run, interrupts: Interrupts, profile: Profile | None) -> State:
    while True:
        try:
            return fit(run, _fitting_setup(run), interrupts, profile)
        except OutOfMemory as error:
            go_on_with_less_memory(run, error)
        gc.collect()  # the model, its optimizer and compiled steps refer to each other


def _fitting_setup(run: Run) -> Setup:
    hint = "take a smaller model, or see who else holds the device's memory"
    with must_fit("the model", hint), out_of_memory(1):
        return build_setup(run)


def _train_elsewhere(run: Run, interrupts: Interrupts) -> State:
    state = train_elsewhere(run, interrupts)
    run.update(backend={"name": run.spec.train.backend, "difference": None})
    check_under_tensorflow(run)
    if extras.has("tensorflow"):  # where another backend trains it may be missing: the events come last
        Events(run.events_folder).begin(read_lines(run.metrics_file))
    return state


def fit(run: Run, setup: Setup, interrupts: Interrupts, profile: Profile | None = None) -> State:
    """Runs the epochs that are left, and writes the model with the weights that are kept.

    Raises:
        TrainingError: if the loss is no longer a number.
        Interrupted: after Ctrl-C or SIGTERM; a checkpoint of the very step is left.
    """
    epochs = Epochs(run, setup, interrupts, profile)
    epochs.take_up()
    record_setup(run, setup)
    interrupts.note_only()
    try:
        state = epochs.run_all()
    finally:
        if profile is not None:
            profile.stop()
    if state.stopped:
        logger.info("stopped after epoch %d: %s", state.epoch, state.stopped)
    if (step := setup.spec.train.step) is not None and isinstance(setup.loop, Loop):
        _record_traces(run, step.python, setup.loop.traces)
    epochs.keep_the_best()
    epochs.end_callbacks()
    make_float32(setup.loop.model)
    record_threshold(run, setup)  # of scores as the model that is kept gives them
    setup.statistics.restore()
    setup.trainability.restore()  # phases are of the training: who loads the file finds the model of the spec
    _save_model(setup.loop.model, run.keras_file)
    return state


def _record_profile(run: Run, profile: Profile) -> ProfileSummary | None:
    summary = profile.summary()
    if summary is None:
        logger.warning("training was over before a profile could begin; it needs more steps or epochs")
    else:
        write_json(run.profile_file, summary.to_json())
    return summary


def _record_traces(run: Run, step: str, traces: int) -> None:
    """Writes down how often a step of the user's became a graph: more than once a phase is a flaw, and slow."""
    run.update(step={"python": step, "traces": traces})
    logger.info("the step was traced %d time%s", traces, "" if traces == 1 else "s")


def _save_model(model: Any, file: Path) -> None:
    with writing(file) as temporary:
        # Keras tells the format by the ending.
        named = temporary.with_name(f"{temporary.name}.keras")
        try:
            model.save(named)
            named.replace(temporary)
        finally:
            named.unlink(missing_ok=True)


def _record_end(run: Run, state: State) -> None:
    """Makes the run a trained one; the status comes last, so that a process killed before ends it again."""
    run.record_artifact(run.keras_file)
    run.record_stage("train", run.spec_file.read_text(encoding="utf-8"), state.seconds)
    best = None if state.best_epoch is None else state.best_epoch + 1
    if state.skipped:
        logger.warning("%d of %d steps were not finite, and left out", state.skipped, state.global_step)
    faults = {"skipped_steps": state.skipped, "rollbacks": state.rollbacks}
    run.update(status="trained", epochs=state.epoch, best_epoch=best, stopped=state.stopped, **faults)


def _result_of(run: Run) -> TrainResult:
    manifest, lines = run.manifest, read_lines(run.metrics_file)
    best = manifest.get("best_epoch")
    kept = next((line for line in lines if line["epoch"] == best), lines[-1] if lines else {})
    metrics = {name: value for name, value in kept.items() if name not in NO_RESULTS and value is not None}
    # Of the mean of several epochs, which no line is of.
    metrics |= {name: value for name, value in manifest.get("average", {}).items() if name != "epochs"}
    return TrainResult(
        run, manifest["epochs"], manifest.get("best_epoch"), metrics, manifest["stages"]["train"]["seconds"]
    )

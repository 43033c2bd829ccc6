"""The epochs of one training: steps in chunks, validation, callbacks, checkpoints, and stopping when asked to."""

import logging
import shlex
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from mltool import console
from mltool.data.batches import Batches
from mltool.data.pipeline import Pipeline
from mltool.errors import Interrupted, TrainingError
from mltool.runs.run import Run
from mltool.training.callbacks import improves, learning_rate_of, restore, state_of
from mltool.training.checkpoints import Checkpoints, State
from mltool.training.chunks import Chunks
from mltool.training.interrupts import Interrupts
from mltool.training.records import Events, append_line, keep_lines
from mltool.training.setup import Setup

logger = logging.getLogger("mltool")


class Epochs:
    """Runs the epochs that are left of a run; nothing that it does depends on where a process before was cut.

    Args:
        run: locked by the caller.
        setup: with the weights of the beginning.
        interrupts: the wish to stop.

    Attributes:
        state: where training stands.
    """

    def __init__(self, run: Run, setup: Setup, interrupts: Interrupts) -> None:
        self.state = State()
        self._run, self._setup, self._interrupts = run, setup, interrupts
        self._loop = setup.loop
        self._checkpoints = Checkpoints(run.checkpoints_folder)
        self._events = Events(run.events_folder)
        self._train_chunks, self._validation_chunks = Chunks(), Chunks()
        self._callbacks = setup.build_callbacks()

    def take_up(self) -> None:
        """Puts the newest checkpoint back, where there is one."""
        found = self._checkpoints.load(self._variables_of)
        if found is None:
            self._run.metrics_file.unlink(missing_ok=True)
            return
        self.state = found
        for name, callback in self._callbacks.items():
            restore(callback, found.callbacks[name])
        keep_lines(self._run.metrics_file, found.epoch)
        logger.info("resuming %s at epoch %d, step %d", self._run.id, found.epoch + 1, found.step)

    def run_all(self) -> State:
        """Runs until the last epoch of the last phase; a callback may stop any phase before.

        Raises:
            TrainingError: if the loss is no longer a number.
            Interrupted: after Ctrl-C or SIGTERM; a checkpoint of the very step is left.
        """
        state, phases = self.state, self._setup.phases
        total = sum(phase.epochs for phase in phases) * self._setup.pipeline.steps
        with console.progress("training", total, completed=self._steps_done()) as bar:
            while not self._phase_is_over() or state.phase + 1 < len(phases):
                if self._phase_is_over():
                    self._begin_next_phase()
                self._stop_if_asked()
                if state.logs is None:
                    state.logs = self._train_epoch(bar)
                self._end_epoch(state.logs | self._validate(), bar)
        return state

    def keep_the_best(self) -> None:
        """Puts the weights that `keep` asks for into the model."""
        if self.state.best_epoch is not None:
            self._checkpoints.load_best(self.state.best_epoch, self._loop.model.variables)

    def _variables_of(self, state: State) -> list[Any]:
        """The variables of a checkpoint, with the model and the optimizer as its phase has them."""
        if state.phase != self.state.phase:
            self._take_phase(state.phase)
        return self._loop.variables()

    def _take_phase(self, number: int) -> None:
        phase = self._setup.phases[number]
        self._setup.trainability.freeze(phase.frozen)
        self._loop.take(phase.optimizer)

    def _phase_is_over(self) -> bool:
        return self.state.stopped is not None or self.state.phase_epoch >= self._setup.phases[self.state.phase].epochs

    def _begin_next_phase(self) -> None:
        """Goes on with the next phase: no checkpoint is needed, as one of the last epoch leads here again."""
        state = self.state
        if state.stopped:
            logger.info("phase %d ended after epoch %d: %s", state.phase + 1, state.epoch, state.stopped)
        if self._setup.restores_best:
            self.keep_the_best()
        state.phase, state.phase_epoch, state.stopped = state.phase + 1, 0, None
        self._take_phase(state.phase)
        self._callbacks = self._setup.build_callbacks()

    def _steps_done(self) -> int:
        """Of all steps of all phases; those of a phase that was stopped count as done."""
        state = self.state
        epochs = sum(phase.epochs for phase in self._setup.phases[: state.phase]) + state.phase_epoch
        return epochs * self._setup.pipeline.steps + state.step

    def _train_epoch(self, bar: console.Progress) -> dict[str, float]:
        """The steps of an epoch that did not run yet; gives the results of all its steps."""
        state, pipeline = self.state, self._setup.pipeline
        if state.step == 0:
            self._loop.reset_metrics()
        batches = pipeline.epoch(state.epoch, state.step)
        left = pipeline.steps - state.step
        for count in self._in_chunks(self._loop.train_steps, pipeline, batches, self._train_chunks, left):
            state.step += count
            state.global_step += count
            loss = self._loop.running_loss()
            bar.update(self._steps_done(), f"epoch {state.epoch + 1} loss {loss:.4f}")
            if not np.isfinite(loss):
                raise TrainingError(
                    f"the loss is {loss} after step {state.step} of epoch {state.epoch + 1}",
                    "lower the learning rate, or look at the data",
                )
            if state.step < pipeline.steps:
                self._stop_if_asked()
        return self._loop.results()

    def _validate(self) -> dict[str, float]:
        self._loop.reset_metrics()
        validation = self._setup.validation
        batches = validation.epoch(0)
        chunks = self._validation_chunks
        for _ in self._in_chunks(self._loop.evaluate_steps, validation, batches, chunks, validation.steps):
            self._stop_if_asked()  # and validate this epoch again
        return {f"val_{name}": value for name, value in self._loop.results().items()}

    def _in_chunks(
        self,
        run_steps: Callable[..., None],
        pipeline: Pipeline | Batches,
        batches: Iterator[Any],
        chunks: Chunks,
        left: int,
    ) -> Iterator[int]:
        """Runs `left` steps; yields after every chunk how many steps it had."""
        while left:
            count = chunks.next_length(left)
            started = time.perf_counter()
            with pipeline.reading():
                run_steps(batches, np.asarray(count, np.int64))  # an array, lest a number be traced anew each time
                self._loop.running_loss()  # waits for the device
            seconds = time.perf_counter() - started
            chunks.took(count, seconds)
            self.state.seconds += seconds
            left -= count
            yield count

    def _end_epoch(self, results: dict[str, float], bar: console.Progress) -> None:
        """Writes the results down, asks the callbacks, and leaves a checkpoint."""
        state, optimizer = self.state, self._loop.optimizer
        scalars = results | {"learning_rate": learning_rate_of(optimizer)}
        seconds = round(state.seconds, 3)
        phase = {"phase": state.phase + 1} if self._setup.named_phases else {}
        line = {"epoch": state.epoch + 1, **phase, "step": state.global_step, **scalars, "seconds": seconds}
        append_line(self._run.metrics_file, line)
        self._events.write(state.epoch + 1, scalars)
        shown = "  ".join(f"{name} {value:.4f}" for name, value in results.items())
        of_all = sum(each.epochs for each in self._setup.phases)
        bar.line(f"{f'phase {state.phase + 1}  ' if phase else ''}epoch {state.epoch + 1}/{of_all}  {shown}")
        self._note_best(results)
        for callback in self._callbacks.values():
            state.stopped = callback.on_epoch_end(state.phase_epoch, results, optimizer) or state.stopped
        state.epoch, state.phase_epoch = state.epoch + 1, state.phase_epoch + 1
        state.step, state.logs = 0, None
        self._save()

    def _note_best(self, results: dict[str, float]) -> None:
        monitor, state = self._setup.monitor, self.state
        value = results[monitor.monitor]
        if self._setup.keep_best and improves(monitor.mode, value, state.best_value):
            state.best_epoch, state.best_value = state.epoch, value
            self._checkpoints.save_best(state.epoch, self._loop.model.variables)

    def _stop_if_asked(self) -> None:
        if not self._interrupts.asked:
            return
        self._save()
        raise Interrupted(
            f"{self._interrupts.name}: stopped at epoch {self.state.epoch + 1}, step {self.state.step}"
            f" of {self._setup.pipeline.steps}",
            f"go on with: mltool train --resume {shlex.quote(str(self._run.directory))}",
        )

    def _save(self) -> None:
        self.state.callbacks = {name: state_of(callback) for name, callback in self._callbacks.items()}
        self._checkpoints.save(self.state, self._loop.variables())

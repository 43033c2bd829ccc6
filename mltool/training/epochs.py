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
from mltool.training.profile import Profile
from mltool.training.records import Events, append_line, keep_lines, read_lines
from mltool.training.setup import Setup
from mltool.training.watching import Waits, Watch, remark_of

logger = logging.getLogger("mltool")


class Epochs:
    """Runs the epochs that are left of a run; nothing that it does depends on where a process before was cut.

    Args:
        run: locked by the caller.
        setup: with the weights of the beginning.
        interrupts: the wish to stop.
        profile: of some steps, where one is asked for.

    Attributes:
        state: where training stands.
    """

    def __init__(self, run: Run, setup: Setup, interrupts: Interrupts, profile: Profile | None = None) -> None:
        self.state = State()
        self._run, self._setup, self._interrupts = run, setup, interrupts
        self._loop = setup.loop
        self._checkpoints = Checkpoints(run.checkpoints_folder, setup.workers)
        self._events = Events(run.events_folder)
        self._train_chunks, self._validation_chunks = Chunks(), Chunks()
        self._callbacks = setup.build_callbacks()
        self._stops = False
        self._watch, self._profile = Watch(setup.pipeline), profile
        self._seconds_told = 0.0

    def take_up(self) -> None:
        """Puts the newest checkpoint back, where there is one."""
        found = self._checkpoints.load(self._variables_of)
        if found is None:
            self._run.metrics_file.unlink(missing_ok=True)
            self._events.begin([])
            return
        self.state = found
        self._seconds_told = found.seconds
        for name, callback in self._callbacks.items():
            restore(callback, found.callbacks[name])
        keep_lines(self._run.metrics_file, found.epoch)
        self._events.begin(read_lines(self._run.metrics_file))
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
        else:
            self._loop.take_averages()

    def _variables_of(self, state: State) -> list[Any]:
        """The variables of a checkpoint, with the model and the optimizer as its phase has them."""
        if state.phase != self.state.phase:
            self._take_phase(state.phase)
        return self._loop.variables()

    def _take_phase(self, number: int) -> None:
        phase = self._setup.phases[number]
        self._setup.trainability.freeze(phase.frozen)
        self._loop.take(phase.optimizer)
        self._watch.trace_anew()

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
        self._watch.begin_epoch()
        batches = pipeline.epoch(state.epoch, state.step)
        left = pipeline.steps - state.step
        for count, is_fine in self._in_chunks(self._train_chunk, pipeline, batches, self._train_chunks, left):
            state.step += count
            state.global_step += count
            self._show(bar)
            if not is_fine:
                raise TrainingError(
                    f"the loss, or a gradient, is not finite in step {state.step + 1} of epoch {state.epoch + 1}",
                    "lower the learning rate, or look at the data",
                )
            if state.step < pipeline.steps:
                self._stop_if_asked()
        self._say_what_holds_up()
        return self._loop.results()

    def _train_chunk(self, batches: Iterator[Any], count: Any) -> int:
        step = self.state.step
        if self._profile:
            self._profile.begin_chunk()
        started = time.perf_counter()
        answer, times = self._loop.train_steps(batches, count)
        done = int(answer)  # waits for the device
        waits, seconds = Waits.of(times), time.perf_counter() - started
        self._watch.took(step, done, seconds, waits)
        if self._profile:
            self._profile.end_chunk(done, seconds, waits, ends_epoch=step + done == self._setup.pipeline.steps)
        return done

    def _show(self, bar: console.Progress) -> None:
        # Reading a metric is a step of all workers, whoever has the bar.
        if bar.is_shown or self._setup.workers.count > 1:
            figures = self._watch.figures(self._loop.results(), learning_rate_of(self._loop.optimizer))
            bar.update(self._steps_done(), f"epoch {self.state.epoch + 1}  {figures}", self._watch.rate())

    def _say_what_holds_up(self) -> None:
        """At the end of the first epoch: the others go as it does."""
        bound = self._watch.bound()
        if self.state.epoch == 0 and bound is not None:
            self._run.update(bound=bound.to_json())
            if self._watch.is_worth_saying:
                logger.info("%s", remark_of(bound, self._run.spec.data))

    def _validate(self) -> dict[str, float]:
        self._loop.reset_metrics()
        validation = self._setup.validation
        batches = validation.epoch(0)
        chunks = self._validation_chunks
        with self._loop.averaged():
            for _ in self._in_chunks(self._loop.evaluate_steps, validation, batches, chunks, validation.steps):
                if self._is_asked_to_stop():
                    break
        self._stop_if_asked()  # and validate this epoch again
        return {f"val_{name}": value for name, value in self._loop.results().items()}

    def _in_chunks(
        self,
        run_steps: Callable[..., Any],
        pipeline: Pipeline | Batches,
        batches: Iterator[Any],
        chunks: Chunks,
        left: int,
    ) -> Iterator[tuple[int, bool]]:
        """Runs `left` steps; yields after every chunk how many steps ran, and whether all that should."""
        while left:
            # By the clock of one process: all must run as many.
            count = self._setup.workers.of_chief(chunks.next_length(left))
            started = time.perf_counter()
            with pipeline.reading():
                # An array, lest a number be traced anew each time.
                done = int(run_steps(batches, np.asarray(count, np.int64)))  # waits for the device
            seconds = time.perf_counter() - started
            chunks.took(count, seconds)
            self.state.seconds += seconds
            left -= done
            yield done, done == count

    def _end_epoch(self, results: dict[str, float], bar: console.Progress) -> None:
        """Writes the results down, asks the callbacks, and leaves a checkpoint."""
        state, optimizer = self.state, self._loop.optimizer
        scalars = results | {"learning_rate": learning_rate_of(optimizer)}
        seconds, rate = round(state.seconds, 3), self._watch.samples_per_second
        phase = {"phase": state.phase + 1} if self._setup.named_phases else {}
        times = {"seconds": seconds, "samples_per_second": None if rate is None else round(rate, 1)}
        line = {"epoch": state.epoch + 1, **phase, "step": state.global_step, **scalars, **times}
        append_line(self._run.metrics_file, line)
        self._events.write(line)
        shown = "  ".join(f"{name} {value:.4f}" for name, value in results.items())
        of_all = sum(each.epochs for each in self._setup.phases)
        which = f"{f'phase {state.phase + 1}  ' if phase else ''}epoch {state.epoch + 1}/{of_all}"
        bar.line(f"{which}  {shown}  {self._speed()}")
        self._note_best(results)
        for callback in self._callbacks.values():
            state.stopped = callback.on_epoch_end(state.phase_epoch, results, optimizer) or state.stopped
        state.epoch, state.phase_epoch = state.epoch + 1, state.phase_epoch + 1
        state.step, state.logs = 0, None
        self._save()

    def _speed(self) -> str:
        """Of the epoch, as far as this process ran it."""
        seconds, self._seconds_told = self.state.seconds - self._seconds_told, self.state.seconds
        return "  ".join(filter(None, [f"{seconds:.1f} s", self._watch.rate()]))

    def _note_best(self, results: dict[str, float]) -> None:
        monitor, state = self._setup.monitor, self.state
        value = results[monitor.monitor]
        if self._setup.keep_best and improves(monitor.mode, value, state.best_value):
            state.best_epoch, state.best_value = state.epoch, value
            with self._loop.averaged():
                self._checkpoints.save_best(state.epoch, self._loop.model.variables)

    def _is_asked_to_stop(self) -> bool:
        """Whether a signal came; to any of the processes, so that all stop at the same step."""
        if not self._stops:
            self._stops = self._setup.workers.any(self._interrupts.asked)
        return self._stops

    def _stop_if_asked(self) -> None:
        if not self._is_asked_to_stop():
            return
        self._save()
        state, by = self.state, self._interrupts.name or "another process"
        raise Interrupted(
            f"{by}: stopped at epoch {state.epoch + 1}, step {state.step} of {self._setup.pipeline.steps}",
            f"go on with: mltool train --resume {shlex.quote(str(self._run.directory))}",
        )

    def _save(self) -> None:
        self.state.callbacks = {name: state_of(callback) for name, callback in self._callbacks.items()}
        self._checkpoints.save(self.state, self._loop.variables())

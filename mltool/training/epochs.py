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
from mltool.errors import ArtifactError, Interrupted, TrainingError
from mltool.runs.run import Run
from mltool.training.callbacks import improves, learning_rate_of, restore, state_of
from mltool.training.checkpoints import Checkpoints, State, newest_file
from mltool.training.due import Due
from mltool.training.faults import Faults, GoBack
from mltool.training.interrupts import Interrupts
from mltool.training.loops.chunks import Chunks
from mltool.training.optimizing.weight_average import WeightAverage, renew_batch_statistics
from mltool.training.records import Events, append_line, keep_lines, read_lines
from mltool.training.setup import Setup
from mltool.training.trials.profile import Profile
from mltool.training.user_callbacks import UserCallbacks, has_user_callbacks
from mltool.training.watching import Waits, Watch, remark_of, shown_result

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
        self._spec, self._loop = setup.spec.train, setup.loop
        self._checkpoints = Checkpoints(run.checkpoints_folder, setup.workers)
        self._due = Due(self._spec.checkpoint.interval, setup.workers)
        self._faults = Faults(setup)
        self._events = Events(run.events_folder)
        self._callbacks = setup.build_callbacks()
        of_all, steps = self._spec.all_epochs, setup.pipeline.steps
        self._user = UserCallbacks(setup.user_callbacks, self._loop.model, epochs=of_all, steps=steps)
        # By the spec, not by what this process has: not all build all of them, and asking is a step of all.
        self._asks_callbacks = has_user_callbacks(self._spec.callbacks)
        self._train_chunks, self._validation_chunks = (Chunks(self._user.longest(kind)) for kind in ("train", "test"))
        self._is_resumed = False
        self._stops = self._shows = False
        self._watch, self._profile = Watch(setup.pipeline), profile
        self._seconds_told = 0.0

    def take_up(self) -> None:
        """Puts the newest checkpoint back, where there is one."""
        found = self._checkpoints.load(self._variables_of)
        if found is None:
            if read_lines(self._run.metrics_file) and newest_file(self._run.checkpoints_folder) is None:
                logger.warning("%s has no checkpoint: training starts from the beginning", self._run.id)
            self._run.metrics_file.unlink(missing_ok=True)
            self._events.begin([])
            return
        self._go_on_from(found)
        logger.info("resuming %s at epoch %d, step %d", self._run.id, found.epoch + 1, found.step)

    def _go_on_from(self, found: State) -> None:
        """Goes on from the state of a checkpoint whose variables are in their places."""
        self._is_resumed = True
        self.state, self._callbacks = found, self._setup.build_callbacks()
        self._seconds_told = found.seconds
        for name, callback in self._callbacks.items():
            restore(callback, found.callbacks[name])
        self._loop.scale_rate(found.rate_factor)
        keep_lines(self._run.metrics_file, found.epoch)
        self._events.begin(read_lines(self._run.metrics_file))

    def run_all(self) -> State:
        """Runs until the last epoch of the last phase; a callback may stop any phase before.

        Raises:
            TrainingError: if the loss, or a gradient, is not finite, no weight has a gradient, or a callback of the
                user's raises.
            OutOfMemory: if a device has none left.
            Interrupted: after Ctrl-C or SIGTERM; a checkpoint of the very step is left.
        """
        phases = self._setup.phases
        self._user.begin(self._loop.optimizer, self.state.callbacks if self._is_resumed else None)
        total = self._spec.all_epochs * self._setup.pipeline.steps
        if self._faults.may_go_back and self.state.global_step == 0:
            self._save()
        with console.progress("training", total, completed=self._steps_done()) as bar:
            # Reading a metric is a step of all workers, and the chief has the bar.
            self._shows = bool(self._setup.workers.of_chief(int(bar.is_shown)))
            while not self._phase_is_over() or self.state.phase + 1 < len(phases):
                if self._phase_is_over():
                    self._begin_next_phase()
                self._stop_if_asked()
                try:
                    self._run_epoch(bar)
                except GoBack as reason:
                    self._go_back(str(reason))
        return self.state

    def _run_epoch(self, bar: console.Progress) -> None:
        with self._faults.watching_memory(), self._faults.watching_code(self.state):
            if self.state.logs is None:
                self.state.logs = self._train_epoch(bar)
            results = self.state.logs | self._validate()
        self._end_epoch(results, bar)

    def _go_back(self, reason: str) -> None:
        """Goes back to the newest checkpoint with half the learning rate, and leaves one that says so."""
        before = self.state
        found = self._checkpoints.load(self._variables_of)
        if found is None:
            raise ArtifactError(f"{reason}, and there is no checkpoint to go back to", "train again")
        found.seconds = before.seconds
        self._go_on_from(found)
        self._user.go_back(found.callbacks)
        self._watch.trace_anew()
        self._faults.went_back(found, before.rollbacks, reason)
        self._save()

    def keep_the_best(self) -> None:
        """Puts the weights that `keep` asks for into the model.

        Raises:
            TrainingError: if the best are asked for, and the monitor was NaN after every epoch.
        """
        if self.state.best_epoch is not None:
            self._checkpoints.load_best(self.state.best_epoch, self._loop.model.variables)
        elif self._spec.keep == "best":
            monitor = self._setup.monitor.monitor
            message = f"{monitor} was NaN after every epoch: no weights are the best"
            raise TrainingError(message, f"mend what makes {monitor} NaN, or write keep: last")
        elif self._setup.average is not None:
            self._keep_average(self._setup.average)
        else:
            self._loop.take_averages()

    def _keep_average(self, average: WeightAverage) -> None:
        """Puts the mean of the weights into the model, with batch statistics of its own, and tells what it does."""
        if not average.epochs:
            first = self._spec.first_averaged or 0
            logger.warning(
                "training stopped before epoch %d, where the mean of weights begins: kept the last", first + 1
            )
            return
        average.put()
        self._setup.statistics.restore()  # no replica is asked: all of them see whole batches
        renew_batch_statistics(self._loop.model, self._setup.whole_batches(self.state.epoch))
        results = self._results_of_validation(lambda: False)
        self._run.update(average={"epochs": average.epochs, **results})
        shown = "  ".join(f"{name} {shown_result(value)}" for name, value in results.items())
        logger.info("kept the mean of the weights of %s: %s", console.counted(average.epochs, "epoch"), shown)

    def end_callbacks(self) -> None:
        """Ends the user's callbacks: what they change of the weights now is kept."""
        self._user.end()

    def _variables_of(self, state: State) -> list[Any]:
        """The variables of a checkpoint, with the model and the optimizer as its phase has them."""
        if state.phase != self.state.phase:
            self._take_phase(state.phase)
        return self._variables()

    def _variables(self) -> list[Any]:
        average = self._setup.average
        return [*self._loop.variables(), *(average.variables if average is not None else ())]

    def _take_phase(self, number: int) -> None:
        phase = self._setup.phases[number]
        self._setup.trainability.freeze(phase.frozen)
        self._loop.take(phase.optimizer)
        self._user.take(phase.optimizer)
        self._watch.trace_anew()

    def _phase_is_over(self) -> bool:
        return self.state.stopped is not None or self.state.phase_epoch >= self._setup.phases[self.state.phase].epochs

    def _begin_next_phase(self) -> None:
        """Goes on with the next phase: to resume, the checkpoint of the last epoch leads here again."""
        state = self.state
        if state.stopped:
            logger.info("phase %d ended after epoch %d: %s", state.phase + 1, state.epoch, state.stopped)
        if self._spec.restores_best:
            self.keep_the_best()
        state.phase, state.phase_epoch, state.stopped = state.phase + 1, 0, None
        state.rate_factor = 1.0  # another optimizer
        self._take_phase(state.phase)
        self._callbacks = self._setup.build_callbacks()
        if self._faults.may_go_back:  # never into the phase before: its learning rate is none of this one's
            self._save()

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
            self._user.call("on_epoch_begin", state.epoch)
        self._watch.begin_epoch()
        batches = pipeline.epoch(state.epoch, state.step)
        # As in `fit`, one step runs where `on_epoch_begin` asks to stop; never as many as a clock lets into a chunk.
        left = 1 if self._user_stops() else pipeline.steps - state.step
        run_steps = self._user.around("train", self._train_chunk, first=state.step, results=self._loop.results)
        chunks = self._in_chunks(run_steps, pipeline, batches, self._train_chunks, left)
        for taken, done in chunks:
            self._faults.look_at_gradients()
            state.step += done
            state.global_step += done
            self._show(bar)
            if done < taken:
                self._faults.not_finite(state, taken - done)
                state.step += taken - done
                state.global_step += taken - done
            if self._user_stops():
                break
            if state.step < pipeline.steps:
                self._stop_if_asked()
            if self._due.after_step(state.global_step):
                self._save()
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
        if self._shows:
            figures = self._watch.figures(self._loop.results(), learning_rate_of(self._loop.optimizer))
            bar.update(self._steps_done(), f"epoch {self.state.epoch + 1}  {figures}", self._watch.rate())

    def _say_what_holds_up(self) -> None:
        """At the end of the first epoch: the others go as it does."""
        bound = self._watch.bound()
        if self.state.epoch == 0 and bound is not None:
            self._run.update(bound=bound.to_json())
            if self._watch.is_worth_saying:
                logger.info("%s", remark_of(bound, self._setup.spec.data))

    def _validate(self) -> dict[str, float]:
        self._user.call("on_test_begin")
        results = self._results_of_validation(self._is_asked_to_stop)
        self._stop_if_asked()  # and validate this epoch again
        self._user.call("on_test_end", {name.removeprefix("val_"): value for name, value in results.items()})
        return results

    def _results_of_validation(self, stops: Callable[[], bool]) -> dict[str, float]:
        self._loop.reset_metrics()
        validation, chunks = self._setup.validation, self._validation_chunks
        run_steps = self._user.around("test", self._loop.evaluate_steps, first=0, results=self._loop.results)
        with self._loop.averaged():
            for _ in self._in_chunks(run_steps, validation, validation.epoch(0), chunks, validation.steps):
                if stops():
                    break
        return {f"val_{name}": value for name, value in self._loop.results().items()}

    def _user_stops(self) -> bool:
        """Whether a callback of the user's asks to stop; in any of the processes, so that all do."""
        return self._asks_callbacks and self._setup.workers.any(self._user.stop)

    def _in_chunks(
        self,
        run_steps: Callable[..., Any],
        pipeline: Pipeline | Batches,
        batches: Iterator[Any],
        chunks: Chunks,
        left: int,
    ) -> Iterator[tuple[int, int]]:
        """Runs `left` steps; yields after every chunk how many it took, and how many of them were done."""
        while left:
            most = self._due.steps_before_next(self.state.global_step) if pipeline is self._setup.pipeline else None
            # By the clock of one process: all must run as many.
            count = self._setup.workers.of_chief(chunks.next_length(left if most is None else min(left, most)))
            started = time.perf_counter()
            with pipeline.reading():
                # An array, lest a number be traced anew each time.
                done = int(run_steps(batches, np.asarray(count, np.int64)))  # waits for the device
            seconds = time.perf_counter() - started
            chunks.took(count, seconds)
            self.state.seconds += seconds
            taken = done if done == count else self._loop.taken(done, count)
            left -= taken
            yield taken, done

    def _end_epoch(self, results: dict[str, float], bar: console.Progress) -> None:
        """Writes the results down, asks the callbacks, and leaves a checkpoint."""
        state, optimizer = self.state, self._loop.optimizer
        scalars = results | {"learning_rate": learning_rate_of(optimizer)}
        seconds, rate = round(state.seconds, 3), self._watch.samples_per_second
        phase = {"phase": state.phase + 1} if self._spec.phases is not None else {}
        left_out = {"skipped": state.skipped_in_epoch} if self._faults.may_skip else {}
        times = {"seconds": seconds, "samples_per_second": None if rate is None else round(rate, 1)}
        line = {"epoch": state.epoch + 1, **phase, "step": state.global_step, **scalars, **left_out, **times}
        append_line(self._run.metrics_file, line)
        self._events.write(line)
        shown = "  ".join(f"{name} {shown_result(value)}" for name, value in results.items())
        which = f"{f'phase {state.phase + 1}  ' if phase else ''}epoch {state.epoch + 1}/{self._spec.all_epochs}"
        bar.line(f"{which}  {shown}  {self._speed()}")
        self._note_best(results)
        first = self._spec.first_averaged
        if self._setup.average is not None and first is not None and state.epoch >= first:
            self._setup.average.add()
        for callback in self._callbacks.values():
            state.stopped = callback.on_epoch_end(state.phase_epoch, results, optimizer) or state.stopped
        self._user.call("on_epoch_end", state.epoch, results)
        if self._user_stops():
            state.stopped = state.stopped or "a callback set model.stop_training"
            self._user.go_on()
        state.epoch, state.phase_epoch = state.epoch + 1, state.phase_epoch + 1
        state.step, state.logs, state.skipped_in_epoch = 0, None, 0
        if self._phase_is_over() or self._due.after_epoch(state.epoch) or self._due.after_step(state.global_step):
            self._save()

    def _speed(self) -> str:
        """Of the epoch, as far as this process ran it."""
        seconds, self._seconds_told = self.state.seconds - self._seconds_told, self.state.seconds
        return "  ".join(filter(None, [f"{seconds:.1f} s", self._watch.rate()]))

    def _note_best(self, results: dict[str, float]) -> None:
        monitor, state = self._setup.monitor, self.state
        value = results[monitor.monitor]
        if self._spec.keep == "best" and improves(monitor.mode, value, state.best_value):
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
        self._setup.workers.wait()  # who ends before the chief has written may take the chief along
        state, by = self.state, self._interrupts.name or "another process"
        raise Interrupted(
            f"{by}: stopped at epoch {state.epoch + 1}, step {state.step} of {self._setup.pipeline.steps}",
            f"go on with: mltool train --resume {shlex.quote(str(self._run.directory))}",
        )

    def _save(self) -> None:
        ours = {name: state_of(callback) for name, callback in self._callbacks.items()}
        self.state.callbacks = ours | self._user.states()
        self._checkpoints.save(self.state, self._variables())
        self._due.saved()

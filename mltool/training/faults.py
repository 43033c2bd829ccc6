"""What a training does about a step that is not finite, about weights that no gradient reaches, and without memory."""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager

from mltool import extras
from mltool.errors import MachineError, TrainingError
from mltool.runs.run import Run
from mltool.spec.strategy import MultiWorkerStrategy
from mltool.training.callbacks import learning_rate_of
from mltool.training.checkpoints import State
from mltool.training.diagnosis import find_cause
from mltool.training.loops.loop import Loop
from mltool.training.memory import OutOfMemory, out_of_memory
from mltool.training.setup import Setup, accumulate_of

logger = logging.getLogger("mltool")

MOST_SKIPPED_IN_A_ROW = 10
"""More than these are no accident of some batches: the weights, or the data, are of no use any more."""

MOST_ROLLBACKS = 3
"""An eighth of a learning rate that is still too high was not the reason."""


_FRAME = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+), in (?P<function>\S+)')
"""As TensorFlow's messages say where an operation of a graph was made."""


class GoBack(Exception):  # noqa: N818  no error, and caught by `Epochs`
    """Leads out of an epoch, back to the newest checkpoint."""


class Faults:
    """Decides about what goes wrong in steps.

    Args:
        setup: whose spec says what to do.
    """

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._on_nan = setup.spec.train.on_nan
        self._looked_at: object = None

    @property
    def may_go_back(self) -> bool:
        """Whether there must be a checkpoint to go back to, from the beginning on."""
        return self._on_nan == "rollback"

    @property
    def may_skip(self) -> bool:
        """Whether steps can be left out."""
        return self._on_nan == "skip"

    @contextmanager
    def watching_memory(self) -> Iterator[None]:
        """Inside, a device without memory leads out of the training.

        Raises:
            OutOfMemory: if that happens.
        """
        if extras.backend() != "tensorflow":
            yield
            return
        with out_of_memory(self._setup.workers.replicas):
            yield

    @contextmanager
    def watching_code(self, state: State) -> Iterator[None]:
        """Inside, what TensorFlow raises of a line of the user's (an assertion, an index) is said of that line.

        Raises:
            TrainingError: if that happens.
        """
        try:
            yield
        except Exception as error:
            told = self._told_of_code(error)
            if told is None:
                raise
            raise TrainingError(f"{told}, in epoch {state.epoch + 1}", "mend it, and train again") from error

    def _told_of_code(self, error: Exception) -> str | None:
        if extras.backend() != "tensorflow" or not isinstance(error, extras.tensorflow().errors.InvalidArgumentError):
            return None
        files = {reference.rpartition(":")[0] for reference in self._setup.spec.code}
        message = str(error)
        frames = [found for found in _FRAME.finditer(message) if found["file"] in files]
        if not frames:
            return None
        *_, last = _FRAME.finditer(message)
        reason = next((line.strip() for line in message[last.end() :].splitlines() if line.strip()), "it failed")
        return f"{frames[-1]['file']}:{frames[-1]['line']}: {frames[-1]['function']} raised {reason[:300]}"

    def look_at_gradients(self) -> None:
        """Holds the first steps of every optimizer against the weights that they should change.

        Raises:
            TrainingError: if the loss has a gradient for none of them; none was changed.
        """
        loop = self._setup.loop
        if not isinstance(loop, Loop) or loop.step is self._looked_at:
            return
        step = loop.step
        self._looked_at = step
        names = [variable.path for variable in step.unreached]
        shown = f"{', '.join(names[:8])}{', ...' if len(names) > 8 else ''}"
        if names and not any(step.reached):
            raise TrainingError(
                f"the loss has no gradient for any weight: {shown}",
                "let it depend on them: tf.stop_gradient, argmax, rounding and casts to integers cut it off",
            )
        if names:
            logger.warning("the loss has no gradient for %d weights, which stay as they are: %s", len(names), shown)

    def not_finite(self, state: State, steps: int) -> None:
        """Decides about a step that was not finite, and changed nothing.

        Args:
            state: at that step.
            steps: that were not; several only of workers that do not wait for each other.

        Raises:
            GoBack: to the newest checkpoint.
            TrainingError: if there is nothing left to do.
        """
        if self.may_skip and self._skips(state, steps):
            return
        if self.may_go_back and state.rollbacks < MOST_ROLLBACKS:
            raise GoBack(f"not finite in {_place(state)}")
        cause, hint = find_cause(self._setup, state)
        raise TrainingError(
            f"the loss, or a gradient, is not finite in {_place(state)}{self._tried(state)}{cause}", hint
        )

    def _skips(self, state: State, steps: int) -> bool:
        """Counts steps that are left out; False if there are too many, or all of an epoch."""
        is_next = state.last_skipped is not None and state.last_skipped + 1 == state.global_step
        in_a_row = steps + (state.skipped_in_a_row if is_next else 0)
        of_epoch = steps + state.skipped_in_epoch
        if in_a_row > MOST_SKIPPED_IN_A_ROW or of_epoch >= self._setup.pipeline.steps:
            return False
        state.skipped_in_a_row, state.last_skipped = in_a_row, state.global_step + steps - 1
        state.skipped += steps
        state.skipped_in_epoch = of_epoch
        logger.warning("%s is not finite and was left out: %d so far", _place(state), state.skipped)
        return True

    def _tried(self, state: State) -> str:
        if self.may_skip:
            return f", after {state.skipped_in_a_row} in a row that were left out"
        if self.may_go_back:
            rate = learning_rate_of(self._setup.loop.optimizer)
            return f", after {MOST_ROLLBACKS} rollbacks and with a learning rate of {rate:.3g}"
        return ""

    def went_back(self, state: State, rollbacks: int, reason: str) -> None:
        """Halves the learning rate of a state that was just taken up, and counts.

        Args:
            state: of the checkpoint.
            rollbacks: up to now.
            reason: of this one.
        """
        loop = self._setup.loop
        state.rollbacks, state.rate_factor = rollbacks + 1, state.rate_factor / 2
        loop.halve_rate(state.rate_factor)
        logger.warning(
            "%s: back to epoch %d, step %d, with a learning rate of %.3g (rollback %d of %d)",
            reason,
            state.epoch + 1,
            state.step,
            learning_rate_of(loop.optimizer),
            state.rollbacks,
            MOST_ROLLBACKS,
        )


def go_on_with_less_memory(run: Run, memory: OutOfMemory) -> None:
    """Writes into the run that every batch is computed in twice as many parts from now on.

    Raises:
        MachineError: if that was done before, cannot be done, or is not wanted.
    """
    spec = run.spec
    now = accumulate_of(run, spec)
    hint = "make data.batch_size smaller, or take a smaller model"
    if now != spec.train.accumulate:
        raise MachineError(f"out of memory again, with batches in {now} parts: {memory}", hint)
    if isinstance(spec.train.strategy, MultiWorkerStrategy):
        # The others wait in the step that this process has left: all must begin anew.
        raise MachineError(f"out of memory: {memory}", f"write train.accumulate: {2 * now}, and launch it anew")
    if spec.train.step is not None:
        raise MachineError(f"out of memory: {memory}", f"{hint}: a step of yours cannot be computed in parts")
    if spec.train.on_oom == "stop":
        raise MachineError(f"out of memory: {memory}", "write train.accumulate: 2 or more, or on_oom: halve")
    if spec.data.batch_size < 2 * now * memory.replicas:
        raise MachineError(f"out of memory, and a batch cannot be in more than {now} parts: {memory}", hint)
    run.update(accumulate=2 * now)
    logger.warning(
        "out of memory (%s): going on from the newest checkpoint with every batch of %d in %d parts; the next time "
        "write train.accumulate: %d",
        memory,
        spec.data.batch_size,
        2 * now,
        2 * now,
    )


def _place(state: State) -> str:
    return f"step {state.step + 1} of epoch {state.epoch + 1}"

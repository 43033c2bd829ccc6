"""When the next checkpoint is due: after so many epochs, steps or seconds."""

import time

from mltool.spec.checkpoint import Interval
from mltool.training.devices.workers import Workers


class Due:
    """Tells when a checkpoint is due; of several processes at the same step in all.

    Args:
        interval: from one to the next.
        workers: the processes of the training.
    """

    def __init__(self, interval: Interval, workers: Workers) -> None:
        self._count, self._unit = interval.count, interval.unit
        self._workers = workers
        self._saved_at = time.monotonic()

    def saved(self) -> None:
        """Notes that there is one now."""
        self._saved_at = time.monotonic()

    def steps_before_next(self, global_step: int) -> int | None:
        """Steps that may run before the next one; None where it does not depend on steps."""
        return self._count - global_step % self._count if self._unit == "steps" else None

    def after_step(self, global_step: int) -> bool:
        """Whether one is due in an epoch."""
        if self._unit == "seconds":
            # By the clock of one process: writing is a matter of all.
            return bool(self._workers.of_chief(int(time.monotonic() - self._saved_at >= self._count)))
        return self._unit == "steps" and global_step % self._count == 0

    def after_epoch(self, epochs: int) -> bool:
        """Whether one is due when so many epochs are done."""
        return self._unit == "epochs" and epochs % self._count == 0

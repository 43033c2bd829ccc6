"""What the processes of one training must agree on: they compute the same, and each takes every step with the others.

All of it are sums over the processes, because reading a synchronized variable is one already: whoever leaves the common
path lets the others wait until they die.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from mltool import extras
from mltool.errors import LOST_WORKER, TrainingError


def lost_worker(error: Exception) -> TrainingError | None:
    """What is raised for a TensorFlow error that tells of another process; None for any other.

    A worker that is killed shows in the others as a collective that fails, after about 4 s (measured, RING).
    """
    errors = extras.tensorflow().errors
    if not isinstance(error, errors.UnavailableError | errors.AbortedError | errors.DeadlineExceededError):
        return None
    reason = " ".join(str(error).split())[:200]
    return TrainingError(f"{LOST_WORKER}: {reason}", "start all again: they go on from the last checkpoint")


class Workers:
    """The processes of a training; alone, everything is what it was.

    Args:
        strategy: of tf.distribute.

    Attributes:
        count: how many there are.
        is_chief: whether this is the one that writes.
        replicas: of all of them, `replicas_here` of this one, `first_replica` the number of its first.
    """

    def __init__(self, strategy: Any) -> None:
        self._strategy = strategy
        self.replicas = self.replicas_here = int(strategy.num_replicas_in_sync)
        self.count, index = 1, 0
        # One replica is one process, on any backend: only several of them need TensorFlow.
        if self.replicas > 1 and isinstance(strategy, extras.tensorflow().distribute.MultiWorkerMirroredStrategy):
            self.replicas_here = len(strategy.extended.worker_devices)
            self.count = self.replicas // self.replicas_here
            index = _place_in_cluster(strategy.cluster_resolver)
        self.is_chief = index == 0
        self.first_replica = index * self.replicas_here
        self._sums: dict[Any, Any] = {}

    def of_chief(self, number: int) -> int:
        """The number that the chief has."""
        return self.sum([number if self.is_chief else 0])[0] if self.count > 1 else number

    def any(self, flag: bool) -> bool:
        """Whether any process says so."""
        return self.sum([int(flag)])[0] > 0 if self.count > 1 else flag

    def wait(self) -> None:
        """Waits until all processes are here."""
        if self.count > 1:
            self.sum([0])

    def sum(self, numbers: Sequence[int]) -> list[int]:
        """The sums over the processes."""
        found: list[int] = self._sum_of(np.asarray(numbers, np.int64)).tolist()
        return found

    def bytes_of_chief(self, content: bytes | None) -> bytes | None:
        """What the chief has, None included; what the others pass counts nothing."""
        if self.count == 1:
            return content
        own = content if self.is_chief else None
        size = self.sum([-1 if own is None and self.is_chief else len(own or b"")])[0]
        if size < 0:
            return None
        padded = np.zeros(-(-size // 4) * 4, np.uint8)
        if own is not None:
            padded[:size] = np.frombuffer(own, np.uint8)
        # Whole numbers and zeros: their sum is the chief's to the bit.
        return bytes(self._sum_of(padded.view(np.int32)).view(np.uint8)[:size].tobytes())

    def _sum_of(self, values: "np.ndarray[Any, Any]") -> "np.ndarray[Any, Any]":
        tf = extras.tensorflow()

        def on_replica(value: Any) -> Any:
            context = tf.distribute.get_replica_context()
            # A process counts once, however many replicas it has.
            mine = tf.cast(tf.equal(context.replica_id_in_sync_group, self.first_replica), value.dtype)
            return context.all_reduce(tf.distribute.ReduceOp.SUM, value * mine)

        def on_all(value: Any) -> Any:
            return self._strategy.experimental_local_results(self._strategy.run(on_replica, args=(value,)))[0]

        if values.dtype not in self._sums:
            signature = [tf.TensorSpec((None,), tf.as_dtype(values.dtype))]
            self._sums[values.dtype] = tf.function(on_all, input_signature=signature, autograph=False)
        found: np.ndarray[Any, Any] = self._sums[values.dtype](tf.constant(values)).numpy()
        return found


def _place_in_cluster(resolver: Any) -> int:
    """The number of this process; a task that is called chief comes before the workers, which count by themselves."""
    chiefs = len(resolver.cluster_spec().as_dict().get("chief", ()))
    return int(resolver.task_id or 0) + (chiefs if resolver.task_type == "worker" else 0)

"""Parameter servers: workers take a batch each, and change the weights whenever they are done.

Asynchronous by design (Dean et al., "Large Scale Distributed Deep Networks", NIPS 2012): the same bits never come
twice, and a worker that is lost costs a batch, not the training.
"""

from collections.abc import Callable, Iterator
from typing import Any

from mltool import extras
from mltool.training.loop import Loop


def serve() -> None:
    """Works for the chief, as TF_CONFIG says, until the process is ended."""
    tf = extras.tensorflow()
    resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
    server = tf.distribute.Server(
        resolver.cluster_spec(), job_name=resolver.task_type, task_index=resolver.task_id, protocol="grpc"
    )
    server.join()


class CoordinatedLoop(Loop):
    """The loop of the chief, which hands batches out and waits at the end of a chunk."""

    def _compiled(self) -> tuple[Callable[..., Any], Callable[..., Any]]:
        tf = extras.tensorflow()
        self._coordinator = tf.distribute.coordinator.ClusterCoordinator(self.strategy)
        train = tf.function(self._train_batch, reduce_retracing=True)
        evaluate = tf.function(self._evaluate_batch, reduce_retracing=True)
        return (lambda batches, steps: self._hand_out(train, batches, steps)), (
            lambda batches, steps: self._hand_out(evaluate, batches, steps)
        )

    def taken(self, done: int, steps: int) -> int:
        """All: workers that are not done yet do not know of one that failed."""
        return steps

    def _hand_out(self, function: Callable[..., Any], batches: Iterator[Any], steps: Any) -> int:
        """Gives how many steps were fine."""
        results = [self._coordinator.schedule(function, args=(next(batches),)) for _ in range(int(steps))]
        self._coordinator.join()
        return sum(fine is None or bool(fine) for fine in self._coordinator.fetch(results))

"""Parameter servers: workers take a batch each, and change the weights whenever they are done.

Asynchronous by design (Dean et al., "Large Scale Distributed Deep Networks", NIPS 2012): the same bits never come
twice, and a worker that is lost costs a batch, not the training.
"""

import time
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
            lambda batches, steps: self._hand_out(evaluate, batches, steps)[0]
        )

    def _hand_out(self, function: Callable[..., Any], batches: Iterator[Any], steps: Any) -> tuple[int, list[float]]:
        """Gives how many steps were fine, and how the chief waited for batches; see `Loop`."""
        results, waited, arrived = [], 0.0, time.time()
        for _ in range(int(steps)):
            asked = time.time()
            batch = next(batches)
            arrived = time.time()
            waited += arrived - asked
            results.append(self._coordinator.schedule(function, args=(batch,)))
        self._coordinator.join()
        fine = sum(answer is None or bool(answer) for answer in self._coordinator.fetch(results))
        return fine, [waited, arrived]

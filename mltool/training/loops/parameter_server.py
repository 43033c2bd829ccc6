"""Parameter servers: workers take a batch each, and change the weights whenever they are done.

Asynchronous by design (Dean et al., "Large Scale Distributed Deep Networks", NIPS 2012): the same bits never come
twice, and a worker that is lost costs a batch, not the training.
"""

import logging
import os
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from mltool import extras
from mltool.training.loops.loop import Loop

logger = logging.getLogger("mltool")

_LOOK_SECONDS, _ANSWER_SECONDS = 2.0, 10.0
"""How often a server looks for the chief, and how long that may take."""

_MISSED = 3
"""So often in a row nobody must be there: a network may be away for a moment."""


def serve() -> NoReturn:
    """Works for the chief, as TF_CONFIG says, until that one has come and gone, or the process is ended."""
    tf = extras.tensorflow()
    resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
    server = tf.distribute.Server(
        resolver.cluster_spec(), job_name=resolver.task_type, task_index=resolver.task_id, protocol="grpc"
    )
    (chief,) = resolver.cluster_spec().job_tasks("chief")
    _wait_until_gone(chief)
    logger.info("%s %d: the chief at %s is gone, so this ends too", resolver.task_type, resolver.task_id, chief)
    del server
    os._exit(0)  # TensorFlow's servers have no end


def _wait_until_gone(address: str) -> None:
    """Returns when somebody has listened there, and nobody does any more."""
    host, _, port = address.rpartition(":")
    has_come, missed = False, 0
    while missed < _MISSED:
        time.sleep(_LOOK_SECONDS)
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWER_SECONDS).close()
        except OSError:
            missed += has_come
        else:
            has_come, missed = True, 0


class CoordinatedLoop(Loop):
    """The loop of the chief, which hands batches out and waits at the end of a chunk."""

    def trace(self, batches: Iterator[Any]) -> None:
        """Does nothing: the coordinator makes a graph before it hands the first batch out."""

    def _compiled(self) -> tuple[Any, Any]:
        tf = extras.tensorflow()
        self._coordinator = tf.distribute.coordinator.ClusterCoordinator(self.strategy)
        train = tf.function(self._train_batch, reduce_retracing=True)
        evaluate = tf.function(self._evaluate_batch, reduce_retracing=True)
        return (lambda batches, steps: self._hand_out(train, batches, steps)), (
            lambda batches, steps: self._hand_out(evaluate, batches, steps)[0]
        )

    def taken(self, done: int, steps: int) -> int:
        """All: workers that are not done yet do not know of one that failed."""
        return steps

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

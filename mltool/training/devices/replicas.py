"""What every replica has of a variable that is summed when it is read: the sum cannot be taken apart again."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from mltool import extras


class OnReplica:
    """What one replica has of a variable; for checkpoints.

    Args:
        path: of the variable.
        part: a tf.Variable.
    """

    def __init__(self, path: str, part: Any) -> None:
        self.path, self.shape, self._part = path, tuple(part.shape), part

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> "np.ndarray[Any, Any]":
        """The value."""
        return np.asarray(self._part.numpy(), dtype)

    def assign(self, value: Any) -> None:
        """Takes a value."""
        self._part.assign(value)


def parts_of(variable: Any, strategy: Any) -> Iterator[Any]:
    """A Keras variable, or what every replica of this process has of one that is summed when it is read.

    Among several processes it stays the sum: a checkpoint has what the chief sees.
    """
    tf = extras.tensorflow()
    inner = variable.value
    is_summed = getattr(inner, "synchronization", None) == tf.VariableSynchronization.ON_READ
    parts = getattr(inner, "values", ()) if is_summed else ()
    if len(parts) < 2 or isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        yield variable
        return
    yield from (OnReplica(variable.path, part) for part in parts)

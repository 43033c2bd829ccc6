"""Memory that runs out: TensorFlow's error, and what follows from it."""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from mltool.errors import MachineError


class OutOfMemory(Exception):  # noqa: N818  no error yet: who catches it decides
    """Leads out of what a device has no memory left for; the message says for what.

    Args:
        message: the line of TensorFlow's that says it.
        replicas: that share a batch.
    """

    def __init__(self, message: str, replicas: int) -> None:
        super().__init__(message)
        self.replicas = replicas


@contextmanager
def out_of_memory(replicas: int) -> Iterator[None]:
    """Inside, TensorFlow's error of a device without memory becomes ours.

    Raises:
        OutOfMemory: if that happens.
    """
    told = ""
    try:
        yield
    except Exception as error:
        if not _is_exhausted(error):
            raise
        told = _line_of(str(error))
    else:
        return
    # Out here: what the error refers to holds the memory.
    raise OutOfMemory(told, replicas)


@contextmanager
def must_fit(what: str, hint: str) -> Iterator[None]:
    """Inside, a device without memory is the machine's mistake.

    Raises:
        MachineError: if that happens.
    """
    try:
        yield
    except OutOfMemory as error:
        raise MachineError(f"{what} does not fit: out of memory: {error}", hint) from error


def _is_exhausted(error: Exception) -> bool:
    """Without an import: what fails before TensorFlow is there is told before it is."""
    tf = sys.modules.get("tensorflow")
    return tf is not None and isinstance(error, tf.errors.ResourceExhaustedError)


_SAYS_FOR_WHAT = re.compile(r"OOM when|RESOURCE_EXHAUSTED|out of memory", re.IGNORECASE)


def _line_of(message: str) -> str:
    """Of an error inside of a graph, the first line is a headline, and a place in the code follows."""
    lines = [line.strip() for line in message.strip().splitlines() if line.strip()]
    return next((line for line in lines if _SAYS_FOR_WHAT.search(line)), (lines or [""])[0])[:200]

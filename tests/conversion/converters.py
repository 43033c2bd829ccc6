"""Converters that do not come back; `mltool.child` calls them in a process of its own."""

import os
import signal
import threading
from typing import Any


def die_of_a_signal(**_: Any) -> None:
    """As TensorFlow's converter does at an infinite calibration sample."""
    os.kill(os.getpid(), signal.SIGSEGV)


def never_answer(**_: Any) -> None:
    """Waits for what does not come."""
    threading.Event().wait()


def take_memory(**_: Any) -> None:
    """Takes 100 MB after 100 MB, up to 2 GB, and then waits."""
    taken = [bytearray(os.urandom(1)) * 100_000_000 for _ in range(20)]
    threading.Event().wait()
    taken.clear()

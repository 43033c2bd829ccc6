"""Ctrl-C and SIGTERM as a wish that is granted between two chunks of steps."""

import signal
import threading
from types import FrameType
from typing import Any


class Interrupts:
    """While open, the first signal is only noted; a second one acts as it always did.

    Attributes:
        asked: whether a signal came.
        name: of the signal, such as `SIGTERM`.
    """

    def __init__(self) -> None:
        self.asked = False
        self.name = ""
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Interrupts":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                # A signal that the caller wants ignored (nohup, `&` in a script) stays ignored.
                if signal.getsignal(number) not in (signal.SIG_IGN, None):
                    self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        self.name = signal.Signals(number).name
        signal.signal(number, self._before[number])

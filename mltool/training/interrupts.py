"""Ctrl-C and SIGTERM as a wish that is granted between two chunks of steps."""

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any


class Interrupts:
    """While open, a signal ends what is going on at once; from `note_only` on, the first one is only noted.

    A second one acts as it always did.

    Attributes:
        asked: whether a signal came.
        name: of the signal, such as `SIGTERM`.
    """

    def __init__(self) -> None:
        self.asked = False
        self.name = ""
        self._before: dict[int, Any] = {}
        self._noting = False
        self._receiver: Callable[[int], None] | None = None

    def note_only(self) -> None:
        """From now on somebody looks at `asked` again and again: reading data and tracing is over."""
        self._noting = True
        if not self.asked:
            # TensorFlow takes SIGTERM for itself when it joins other workers: a notice that nothing here reads.
            for number in self._before:
                signal.signal(number, self._note)

    def hand_to(self, receiver: Callable[[int], None] | None) -> None:
        """From now on another process looks at what is asked: it gets the first signal; None ends that."""
        self._receiver = receiver

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
        if self._receiver is not None:
            self._receiver(number)
        elif not self._noting:
            raise KeyboardInterrupt(self.name)

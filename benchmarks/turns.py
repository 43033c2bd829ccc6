"""Processes that take turns: each runs an epoch when it is told to and waits then, so that no two compute at once."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO


@dataclass(frozen=True)
class Turn:
    """What a process says of one epoch.

    Attributes:
        seconds: that it took.
        loss: mean of the epoch.
        peak_bytes: the most that the process held in memory so far.
    """

    seconds: float
    loss: float
    peak_bytes: int


class Player:
    """The other end of a process that calls `take_turns`.

    Args:
        name: for messages.
        command: that starts it.
        environment: of it.
    """

    def __init__(self, name: str, command: Sequence[str], environment: dict[str, str]) -> None:
        self.name = name
        self._remarks = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115  closed in `stop`
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._remarks,
            text=True,
            env=environment,
        )

    def versions(self) -> dict[str, str]:
        """What it runs on; waits until it is ready."""
        return {str(name): str(version) for name, version in self._read().items()}

    def turn(self) -> Turn:
        """Lets it run an epoch."""
        assert self._process.stdin is not None
        self._process.stdin.write("epoch\n")
        self._process.stdin.flush()
        return Turn(**self._read())

    def stop(self) -> None:
        """Ends it."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()
        self._remarks.close()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            code = self._process.wait()
            self._remarks.seek(0)
            raise SystemExit(f"{self.name}: exit {code}\n{self._remarks.read()[-3000:]}")
        found: dict[str, Any] = json.loads(line)
        return found


def take_turns(versions: dict[str, str], run_epoch: Callable[[], float], answers: TextIO) -> None:
    """Runs an epoch, which gives its loss, for every line on stdin."""

    def say(what: dict[str, Any]) -> None:
        answers.write(json.dumps(what) + "\n")
        answers.flush()

    say(versions)
    for _ in sys.stdin:
        started = time.perf_counter()
        loss = run_epoch()
        say({"seconds": time.perf_counter() - started, "loss": loss, "peak_bytes": peak_bytes()})


def own_stdout() -> TextIO:
    """Stdout for answers alone: what libraries print, C++ too, goes to stderr from now on. Call before any import."""
    kept = os.dup(1)
    os.dup2(2, 1)
    return os.fdopen(kept, "w")


def peak_bytes() -> int:
    """The most that this process held in memory so far.

    Not `ru_maxrss`: that begins with what the parent held.
    """
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))

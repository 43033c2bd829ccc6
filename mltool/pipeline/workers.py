"""The worker processes of one machine: started together, heard, and ended together."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from threading import Thread
from typing import IO, Literal

END_SECONDS = 10.0
"""How long a worker may take to end after SIGTERM before it is killed."""

_Event = tuple[Literal["line", "exit", "signal"], int]


@dataclass
class Ending:
    """How a worker ended.

    Attributes:
        index: of the worker.
        status: its exit status; of a signal the negative number.
        output: what it wrote to stdout.
        was_ended: whether it was this side that ended it.
    """

    index: int
    status: int
    output: str
    was_ended: bool

    def __str__(self) -> str:
        how = f"was killed by {signal.Signals(-self.status).name}" if self.status < 0 else f"ended with {self.status}"
        return f"worker {self.index} {how}"


@dataclass
class WorkerProcesses:
    """Worker processes, each in a session of its own: the terminal's Ctrl-C is for the launcher, who passes it on.

    The first worker writes to this process' own stderr, so that its bar is a bar; lines of the others go to `say`.

    Args:
        commands: of the workers.
        environments: of the workers.
        say: prints a line of a worker; it is called by one thread a worker.
        stderr: descriptor that the first worker writes to.

    Attributes:
        endings: of those that have ended, in that order.
    """

    commands: Sequence[Sequence[str]]
    environments: Sequence[Mapping[str, str]]
    say: Callable[[int, str], None]
    stderr: int
    endings: list[Ending] = field(default_factory=list)
    _processes: list[subprocess.Popen[str]] = field(default_factory=list)
    _ended: SimpleQueue[Ending | None] = field(default_factory=SimpleQueue)
    _ending: bool = False

    def __enter__(self) -> "WorkerProcesses":
        try:
            for index, (command, environment) in enumerate(zip(self.commands, self.environments, strict=True)):
                self._start(index, command, environment)
        except BaseException:
            self.end_all()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.end_all()

    def _start(self, index: int, command: Sequence[str], environment: Mapping[str, str]) -> None:
        process = subprocess.Popen(  # noqa: S603  our own interpreter, our own code
            command,
            env=environment,
            stdin=subprocess.PIPE,  # nothing is written: it ends with this process, see `end_with_launcher`
            stdout=subprocess.PIPE,
            stderr=self.stderr if index == 0 else subprocess.PIPE,
            start_new_session=True,
            text=True,
            encoding="utf-8",
            errors="replace",
        )
        self._processes.append(process)
        Thread(target=self._watch, args=(index, process), daemon=True).start()

    def _watch(self, index: int, process: subprocess.Popen[str]) -> None:
        """Hears a worker until it ends, and ends what it started and left."""
        said: list[str] = []
        listeners = [
            Thread(target=self._pass_on, args=(index, process.stderr), daemon=True),
            Thread(target=lambda: said.extend(process.stdout or ()), daemon=True),
        ]
        for listener in listeners:
            listener.start()
        status = process.wait()
        if process.stdin is not None:
            process.stdin.close()
        was_ended = self._ending
        _kill_group(process)
        for listener in listeners:
            listener.join()  # what it said last comes before the word that it ended
        self._ended.put(Ending(index, status, "".join(said), was_ended))

    def _pass_on(self, index: int, stream: IO[str] | None) -> None:
        for line in stream or ():
            self.say(index, line.rstrip("\n"))

    def wake(self) -> None:
        """Lets a `next_ending` that waits return None; may be called by a signal's handler."""
        self._ended.put(None)

    def next_ending(self, timeout_seconds: float | None = None) -> Ending | None:
        """Waits for a worker to end; None after `timeout_seconds` or `wake`."""
        try:
            ending = self._ended.get(timeout=timeout_seconds)
        except Empty:
            return None
        if ending is not None:
            self.endings.append(ending)
        return ending

    @property
    def num_running(self) -> int:
        """How many have not ended, as far as `next_ending` told."""
        return len(self._processes) - len(self.endings)

    def send(self, number: int) -> None:
        """Sends a signal to every worker that runs."""
        for process in self._processes:
            if process.poll() is None:
                process.send_signal(number)

    def wait_for_all(self, seconds: float | None) -> None:
        """Waits until all have ended, at most `seconds`, or until `wake`."""
        deadline = None if seconds is None else time.monotonic() + seconds
        while self.num_running:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            if self.next_ending(left) is None:
                return

    def end_all(self, seconds: float = END_SECONDS) -> None:
        """Ends every worker with all that it started: SIGTERM, and SIGKILL for what stays longer than `seconds`."""
        self._ending = True
        self.send(signal.SIGTERM)
        deadline = time.monotonic() + seconds
        while self.num_running and (left := deadline - time.monotonic()) > 0:
            self.next_ending(left)
        for process in self._processes:
            _kill_group(process)
        while self.num_running:
            self.next_ending()


def _kill_group(process: subprocess.Popen[str]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


LAUNCHED = "MLTOOL_LAUNCHED"
"""In the environment of a worker: somebody holds the other end of its stdin."""


def end_with_launcher() -> None:
    """Lets a worker leave a checkpoint and end when its launcher is gone, killed too: nobody would end it then."""
    if os.environ.get(LAUNCHED):
        Thread(target=_wait_for_end_of_stdin, daemon=True).start()


def _wait_for_end_of_stdin() -> None:
    while os.read(0, 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def worker_command(*arguments: str) -> list[str]:
    """The command line of mltool itself, run by this interpreter."""
    return [sys.executable, "-m", "mltool.cli.main", *arguments]

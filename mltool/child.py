"""The child-process door: foreign code that can crash the process runs behind it, and a crash becomes an exception.

A fresh interpreter (no fork: TensorFlow's threads do not survive one) in a session of its own, so that Ctrl-C reaches
the parent alone. Messages travel on a private socket; whatever C++ or Python prints to descriptors 1 and 2 lands in a
file.
"""

import contextlib
import importlib
import json
import math
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping, Sequence
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from queue import SimpleQueue
from threading import Event, Thread
from types import TracebackType
from typing import IO, Any, Literal, Self

from mltool import errors

TAIL_LINES = 20
"""How many of the last printed lines a crash report shows."""

GOODBYE_SECONDS = 10.0
"""How long an idle child may take to end once its socket is closed (unloading TensorFlow takes
about 1 s) before it is killed."""

MEMORY_LOOK_SECONDS = 0.2
"""How often a child that has a bound of memory is looked at."""

_BOOT = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from mltool.child import serve; serve(int(sys.argv[2]), sys.argv[3])"
)

_Outcome = tuple[Literal["result", "refusal", "flaw"], Any]


class ChildError(Exception):
    """The child process did not answer as a function would."""


class ChildCrashed(ChildError):  # noqa: N818  said as it happened
    """The child process died before it answered.

    Attributes:
        function: what was called, as `module:function`.
        status: how it ended, in words: `was killed by SIGSEGV`, `ended with exit status 3`.
        output: the last lines that it printed, Python's fault report among them.
    """

    def __init__(self, function: str, status: str, output: str) -> None:
        self.function, self.status, self.output = function, status, output
        super().__init__(f"the process that ran {function} {status}; {_quote(output)}")


class ChildTimedOut(ChildError):  # noqa: N818
    """The child process was killed because its answer took too long.

    Attributes:
        function: what was called, as `module:function`.
        timeout_seconds: how long it was allowed to take.
        status: the same in words, as of a crash: `did not answer in 5 s`.
        output: the last lines that it printed.
    """

    def __init__(self, function: str, timeout_seconds: float, output: str) -> None:
        self.function, self.timeout_seconds, self.output = function, timeout_seconds, output
        self.status = f"did not answer in {timeout_seconds:g} s"
        super().__init__(f"{function} did not answer within {timeout_seconds:g} s and was killed; {_quote(output)}")


class ChildTooLarge(ChildError):  # noqa: N818
    """The child process was killed because it took more memory than it may.

    Attributes:
        function: what was called, as `module:function`.
        memory_bytes: how much it was allowed to take.
    """

    def __init__(self, function: str, memory_bytes: int) -> None:
        self.function, self.memory_bytes = function, memory_bytes
        super().__init__(f"{function} took more than {memory_bytes:,} bytes of memory and was killed")


class ChildFlaw(ChildError):  # noqa: N818
    """An exception in the child that is no `MltoolError`: a flaw in mltool. Its text is the child's traceback."""


class Child:
    """A process that calls functions by name; starts at the first call, stays warm, is started again after a death.

    Not for use by several threads at once.

    Args:
        package: only functions of modules inside this package may be called.
        environment: variables that differ from those of this process.
        descriptors: open files that it inherits, under the same numbers.
    """

    def __init__(
        self, package: str = "mltool", *, environment: Mapping[str, str] | None = None, descriptors: Sequence[int] = ()
    ) -> None:
        self._package, self._environment, self._descriptors = package, dict(environment or {}), tuple(descriptors)
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None
        self._captured: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  lives as long as this object

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(kill=kind is not None)

    @property
    def output(self) -> str:
        """Everything that the child printed so far (over all restarts)."""
        size = os.fstat(self._captured.fileno()).st_size
        return os.pread(self._captured.fileno(), size, 0).decode(errors="replace")

    def call(
        self,
        function: str,
        /,
        *,
        timeout_seconds: float | None = None,
        memory_bytes: int | None = None,
        **arguments: Any,
    ) -> Any:
        """Calls `function(**arguments)` in the child and returns its result; both must be picklable.

        Args:
            function: `package.module:function`, inside this child's package.
            timeout_seconds: kill the child when its answer takes longer; `None` waits for ever. The first call also
                pays for the start of the interpreter and whatever the function imports.
            memory_bytes: kill the child when it takes more beside what it holds already; `None` for no bound.
            **arguments: handed on as keywords.

        Raises:
            MltoolError: of the class and with the messages that the function raised.
            ChildFlaw: the function raised anything else.
            ChildCrashed: the process died.
            ChildTimedOut: it took longer than `timeout_seconds`.
            ChildTooLarge: it took more than `memory_bytes`.
        """
        _check_name(function, self._package)
        before = os.fstat(self._captured.fileno()).st_size
        try:
            connection = self._start()
            connection.send_bytes(pickle.dumps((function, arguments)))
            if not self._answers(connection, function, timeout_seconds, memory_bytes):
                raise ChildTimedOut(function, timeout_seconds or 0.0, self._tail(before))
            kind, value = pickle.loads(connection.recv_bytes())  # noqa: S301  our own child
        except (EOFError, ConnectionError) as error:
            raise ChildCrashed(function, self._reap(), self._tail(before)) from error
        except (
            BaseException
        ):  # Ctrl-C above all: a child that is left computing would answer the next call with this one's result
            self.close(kill=True)
            raise
        return _unwrap(kind, value)

    def signal(self, number: int) -> None:
        """Hands a signal on to the child, where it runs; a signal handler may call this while `call` waits."""
        process = self._process
        if process is not None and process.poll() is None:
            process.send_signal(number)

    def close(self, *, kill: bool = False) -> None:
        """Ends the child: politely when it is idle, else (or with `kill`) together with all that it started."""
        process, self._process = self._process, None
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
        if process is None:
            return
        if not kill:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(GOODBYE_SECONDS)
        _kill_group(process)

    def _start(self) -> Connection:
        """The socket to a living child."""
        died = self._process is not None and self._process.poll() is not None
        if died or (self._connection is not None and self._connection.poll()):  # idle, so there is only its end to read
            self.close(kill=True)
        if self._connection is None:
            ours, theirs = Pipe()
            with theirs:
                # Its own session: the terminal's Ctrl-C is for the parent. -u: a crash must not lose what was printed.
                self._process = subprocess.Popen(  # noqa: S603  our own interpreter, our own code
                    [sys.executable, "-u", "-c", _BOOT, json.dumps(sys.path), str(theirs.fileno()), self._package],
                    stdin=subprocess.DEVNULL,
                    stdout=self._captured,
                    stderr=self._captured,
                    env={**os.environ, **self._environment},
                    pass_fds=[theirs.fileno(), *self._descriptors],
                    start_new_session=True,
                )
            self._connection = ours
        return self._connection

    def _answers(
        self, connection: Connection, function: str, timeout_seconds: float | None, memory_bytes: int | None
    ) -> bool:
        """Waits for an answer; False when it takes too long.

        Raises:
            ChildTooLarge: if the child takes too much memory meanwhile.
        """
        if memory_bytes is None:
            return timeout_seconds is None or connection.poll(timeout_seconds)
        process = self._process
        held = _memory_of(process.pid) if process is not None else 0  # of what is warm from earlier calls
        end = time.monotonic() + (math.inf if timeout_seconds is None else timeout_seconds)
        while not connection.poll(max(0.0, min(MEMORY_LOOK_SECONDS, end - time.monotonic()))):
            if time.monotonic() >= end:
                return False
            if process is not None and _memory_of(process.pid) - held > memory_bytes:
                raise ChildTooLarge(function, memory_bytes)
        return True

    def _reap(self) -> str:
        """How the dead child ended, in words."""
        process = self._process
        if process is None:
            return "could not be started"
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(GOODBYE_SECONDS)  # its socket closes a moment before it can be waited for
        status = process.poll()
        self.close(kill=True)
        if status is None:
            return "closed its socket"
        return f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with exit status {status}"

    def _tail(self, before: int) -> str:
        """The last lines printed since the captured file was `before` bytes long."""
        size = os.fstat(self._captured.fileno()).st_size
        text = os.pread(self._captured.fileno(), size - before, before).decode(errors="replace")
        return "\n".join(text.strip().splitlines()[-TAIL_LINES:])


def serve(descriptor: int, package: str) -> None:
    """Answers calls until the parent closes its end; what the child process runs.

    Args:
        descriptor: an open socket, inherited from the parent.
        package: only functions of modules inside this package are called.
    """
    import faulthandler

    faulthandler.enable()  # a crash leaves its Python stack in the captured output
    connection = Connection(descriptor)
    busy = Event()
    calls: SimpleQueue[bytes | None] = SimpleQueue()
    Thread(target=_listen, args=(connection, calls, busy), daemon=True).start()
    while (call := calls.get()) is not None:
        answer = _answer(call, package)
        busy.clear()
        try:
            connection.send_bytes(answer)
        except ConnectionError:
            return  # the parent is gone


def _listen(connection: Connection, calls: "SimpleQueue[bytes | None]", busy: Event) -> None:
    """Passes calls on; when the parent is gone, ends the process even in the middle of a call."""
    while True:
        try:
            call = connection.recv_bytes()
        except (EOFError, OSError):
            if busy.is_set():
                os.killpg(0, signal.SIGKILL)  # our own session: this process and all that it started
            calls.put(None)
            return
        busy.set()
        calls.put(call)


def _answer(call: bytes, package: str) -> bytes:
    """The pickled outcome of a pickled call."""
    outcome: _Outcome
    try:
        function, arguments = pickle.loads(call)  # noqa: S301  from the parent, which runs us
        _check_name(function, package)
        module, _, name = function.partition(":")
        outcome = "result", getattr(importlib.import_module(module), name)(**arguments)
        return pickle.dumps(outcome)
    except errors.MltoolError as error:
        outcome = "refusal", (_transportable(type(error)), error.messages)
    except BaseException:  # SystemExit too: no function may end the process in silence
        outcome = "flaw", traceback.format_exc()
    return pickle.dumps(outcome)


def _transportable(kind: type[errors.MltoolError]) -> str:
    """The name of the nearest class of `errors.py`: the one that the parent is sure to have."""
    names: list[str] = [base.__name__ for base in kind.__mro__ if getattr(errors, base.__name__, None) is base]
    return names[0]


def _unwrap(kind: str, value: Any) -> Any:
    if kind == "refusal":
        name, messages = value
        raise getattr(errors, name)(messages)
    if kind == "flaw":
        raise ChildFlaw(value)
    return value


def _memory_of(pid: int) -> int:
    """Bytes of memory that a process holds; 0 when it has ended."""
    # By its name: what has no TensorFlow has no psutil either, and sets no bounds.
    psutil = importlib.import_module("psutil")
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return 0


def _check_name(function: str, package: str) -> None:
    module, _, name = function.partition(":")
    if not name.isidentifier() or not (module == package or module.startswith(f"{package}.")):
        raise ValueError(f"a child of package {package!r} calls '{package}.module:function' only (got {function!r})")


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kills the child and everything in its session, and takes its status."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _quote(output: str) -> str:
    return f"the last it printed:\n{output}" if output else "it printed nothing"

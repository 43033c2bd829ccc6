"""All workers meet before TensorFlow is imported: who does not come is named in time.

gRPC would wait for a missing worker for an hour and then say nothing of who it was. The workers meet at the chief's own
address, which is free again when TensorFlow opens it.
"""

import contextlib
import errno
import hashlib
import json
import selectors
import socket
import struct
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

from mltool.cluster.cluster import Cluster
from mltool.errors import MachineError

_RETRY_SECONDS = 0.1
_GREETING_SECONDS = 5.0
"""How long somebody who connected may take to say who it is."""
_BYTES = 65536


def wait_for_all(cluster: Cluster, timeout_seconds: float) -> None:
    """Returns when every task of the cluster has come.

    Args:
        cluster: as this process sees it; all must see the same addresses.
        timeout_seconds: from now on.

    Raises:
        MachineError: in every process that has come, with the names of those that have not; or if this one's port is
            in use.
    """
    deadline = time.monotonic() + timeout_seconds
    with _listening(cluster) as listener:
        if cluster.is_chief:
            _Meeting(cluster, timeout_seconds, deadline).hold(listener)
            return
    _go_to_meeting(cluster, timeout_seconds, deadline)


@contextlib.contextmanager
def _listening(cluster: Cluster) -> Iterator[socket.socket]:
    """This task's port, held: whoever has it would stop TensorFlow from listening there."""
    host, _, port = cluster.address.rpartition(":")
    # The name of a node or of a service need not be that of an interface here; TensorFlow listens on all of them too.
    near = host in ("localhost", "127.0.0.1")
    every = socket.has_dualstack_ipv6() and not near
    family = socket.AF_INET6 if every else socket.AF_INET
    try:
        listener = socket.create_server(
            (host if near else "", int(port)), family=family, dualstack_ipv6=every, backlog=128
        )
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise MachineError(f"{cluster.name} cannot listen at port {port}: {error.strerror}") from error
        message = f"port {port} of {cluster.name} is in use"
        raise MachineError(message, "end the process that has it, or give the workers other ports") from error
    with listener:
        yield listener


@dataclass(eq=False)
class _Visitor:
    """Somebody who connected and has not said yet who it is."""

    socket: socket.socket
    deadline: float
    said: bytes = b""


class _Meeting:
    """The chief's side: hears who has come, and tells all when they are there, or who is missing.

    It never waits for one visitor alone: anybody can open a port of this machine and say nothing.
    """

    def __init__(self, cluster: Cluster, timeout_seconds: float, deadline: float) -> None:
        self._cluster, self._timeout_seconds, self._deadline = cluster, timeout_seconds, deadline
        self._came: dict[str, socket.socket] = {}
        self._visitors: list[_Visitor] = []

    def hold(self, listener: socket.socket) -> None:
        """Waits for all, until the deadline."""
        listener.setblocking(False)
        with contextlib.ExitStack() as open_sockets, selectors.DefaultSelector() as selector:
            selector.register(listener, selectors.EVENT_READ)
            while self._missing():
                now = time.monotonic()
                if now >= self._deadline:
                    message = _missing_text(self._missing(), len(self._cluster.members), self._timeout_seconds)
                    self._tell({"missing": message})
                    raise MachineError(message, _MISSING_HINT)
                self._let_go([visitor for visitor in self._visitors if now >= visitor.deadline], selector)
                for key, _ in selector.select(self._next_deadline() - now):
                    if key.fileobj is listener:
                        self._let_in(listener, open_sockets, selector)
                    elif isinstance(key.data, _Visitor):
                        self._hear(key.data, selector)
                    elif self._came.get(key.data) is key.fileobj:
                        self._note_gone(key.data, selector)
            self._let_go(list(self._visitors), selector)
            self._tell({"all": True})
            for came in self._came.values():
                # They close first: a port that this side closed first would be kept from TensorFlow for a minute.
                came.settimeout(_GREETING_SECONDS)
                with contextlib.suppress(OSError):
                    came.recv(1)

    def _missing(self) -> list[str]:
        return [name for name in self._cluster.members if name != self._cluster.name and name not in self._came]

    def _next_deadline(self) -> float:
        return min([self._deadline, *(visitor.deadline for visitor in self._visitors)])

    def _let_in(
        self, listener: socket.socket, open_sockets: contextlib.ExitStack, selector: selectors.BaseSelector
    ) -> None:
        with contextlib.suppress(BlockingIOError, ConnectionError):  # it went away before it was let in
            visitor = _Visitor(open_sockets.enter_context(listener.accept()[0]), time.monotonic() + _GREETING_SECONDS)
            visitor.socket.setblocking(False)
            self._visitors.append(visitor)
            selector.register(visitor.socket, selectors.EVENT_READ, visitor)

    def _let_go(self, visitors: Collection[_Visitor], selector: selectors.BaseSelector) -> None:
        """Ends visits of those who did not say who they are."""
        for visitor in visitors:
            self._visitors.remove(visitor)
            selector.unregister(visitor.socket)
            # Cut off, not closed: of a port that this side closed first, see `hold`.
            visitor.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            visitor.socket.close()

    def _hear(self, visitor: _Visitor, selector: selectors.BaseSelector) -> None:
        """Takes what there is of a greeting, and the visitor for a worker once it is whole."""
        try:
            more = visitor.socket.recv(4096)
        except BlockingIOError:
            return
        except OSError:
            more = b""
        visitor.said += more
        if not more:
            self._let_go([visitor], selector)
        elif b"\n" in visitor.said or len(visitor.said) >= _BYTES:
            self._visitors.remove(visitor)
            selector.unregister(visitor.socket)
            self._take(_parsed(visitor.said), visitor.socket, selector)

    def _take(self, greeting: dict[str, Any], visitor: socket.socket, selector: selectors.BaseSelector) -> None:
        """Takes a worker in; whoever else opens a port on this machine is refused."""
        name = greeting.get("name")
        if greeting.get("cluster") != _mark(self._cluster) or name not in self._cluster.members:
            _say(visitor, {"refused": "its addresses of the workers are others than the chief's"})
        elif name == self._cluster.name or (name in self._came and not _is_closed(self._came[name])):
            _say(visitor, {"refused": f"another process calls itself {name}"})
        else:
            if name in self._came:
                self._note_gone(name, selector)
            self._came[name] = visitor
            selector.register(visitor, selectors.EVENT_READ, name)

    def _note_gone(self, name: str, selector: selectors.BaseSelector) -> None:
        """A worker that has come and has nothing to say any more has died, or was started again."""
        selector.unregister(self._came.pop(name))

    def _tell(self, message: dict[str, Any]) -> None:
        for came in self._came.values():
            _say(came, message)


def _go_to_meeting(cluster: Cluster, timeout_seconds: float, deadline: float) -> None:
    """A worker's side: greets the chief as soon as it is there, and waits for its word."""
    host, _, port = cluster.members[cluster.chief].rpartition(":")
    while (left := deadline - time.monotonic()) > 0:
        try:
            with socket.create_connection((host.strip("[]"), int(port)), timeout=left) as chief:
                _say(chief, {"name": cluster.name, "cluster": _mark(cluster)})
                # The chief came later or earlier than this one, so its deadline is another.
                chief.settimeout(timeout_seconds + _GREETING_SECONDS)
                word = _read(chief)
        except OSError:
            word = {}
        if word.get("all"):
            return
        if "missing" in word:
            raise MachineError(word["missing"], _MISSING_HINT)
        if "refused" in word:
            raise MachineError(f"the chief ({host}:{port}) refuses {cluster.name}: {word['refused']}")
        time.sleep(_RETRY_SECONDS)  # it is not there yet, or was started again
    missing = f"{cluster.chief} at {host}:{port}"
    raise MachineError(_missing_text([missing], len(cluster.members), timeout_seconds), _MISSING_HINT)


_MISSING_HINT = "look at what it says, or give the workers more time: start_timeout of train.strategy"


def _missing_text(missing: Collection[str], count: int, timeout_seconds: float) -> str:
    return f"{len(missing)} of {count} workers did not come within {timeout_seconds:g} s: {', '.join(missing)}"


def _mark(cluster: Cluster) -> str:
    """Equal in all processes of one cluster, and in no others."""
    return hashlib.sha256(json.dumps(cluster.members).encode()).hexdigest()


def _is_closed(visitor: socket.socket) -> bool:
    """Whether the other side is gone: it has nothing to say any more, so there is only its end to read."""
    visitor.setblocking(False)
    try:
        return not visitor.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return False
    except OSError:
        return True


def _say(to: socket.socket, message: dict[str, Any]) -> None:
    with contextlib.suppress(OSError):  # who is gone is noticed when it is waited for
        to.sendall(json.dumps(message).encode() + b"\n")


def _read(source: socket.socket) -> dict[str, Any]:
    """One line of JSON; an empty map of anything else."""
    text = b""
    try:
        while not text.endswith(b"\n") and len(text) < _BYTES:
            more = source.recv(4096)
            if not more:
                break
            text += more
    except OSError:
        return {}
    return _parsed(text)


def _parsed(text: bytes) -> dict[str, Any]:
    """The first line as a map; an empty one if it is something else."""
    try:
        message = json.loads(text.partition(b"\n")[0])
    except (ValueError, RecursionError):
        return {}
    return message if isinstance(message, dict) else {}

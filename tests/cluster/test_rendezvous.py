"""Workers meet, in processes of their own: all or none go on, and who is missing is named."""

import contextlib
import json
import socket
import subprocess
import sys
import time

import pytest

from mltool.cluster import rendezvous
from mltool.cluster.cluster import local_cluster
from mltool.errors import MachineError

CODE = """
import os, sys
from mltool.errors import MltoolError
from mltool.cluster.cluster import from_environment
from mltool.cluster.rendezvous import wait_for_all
try:
    wait_for_all(from_environment("auto", os.environ), float(sys.argv[1]))
except MltoolError as error:
    print(error)
    sys.exit(error.exit_code)
heavy = sorted({"numpy", "tensorflow"} & set(sys.modules))
print("all came", heavy)
"""


def ports(count):
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


@pytest.fixture
def addresses():
    return tuple(f"127.0.0.1:{port}" for port in ports(3))


@pytest.fixture
def start():
    """Starts worker `index` of a cluster as a process; what is left of them is ended."""
    started = []

    def worker(addresses, index, seconds=30.0):
        environ = {"TF_CONFIG": local_cluster(addresses, index).to_tf_config(), "PYTHONPATH": ":".join(sys.path)}
        command = [sys.executable, "-c", CODE, str(seconds)]
        started.append(subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, text=True))
        return started[-1]

    yield worker
    for process in started:
        process.kill()
        process.communicate()


def end_of(process):
    output, _ = process.communicate(timeout=60)
    return process.returncode, output.strip()


def test_all_go_on_when_all_have_come(start, addresses):
    workers = [start(addresses, index) for index in (2, 0, 1)]
    assert [end_of(worker) for worker in workers] == [(0, "all came []")] * 3


def test_the_ports_are_free_for_tensorflow_at_once(start, addresses):
    for worker in [start(addresses, index) for index in range(3)]:
        assert end_of(worker)[0] == 0
    for address in addresses:
        with socket.socket() as plain:  # without SO_REUSEADDR, which is the strictest
            plain.bind(("127.0.0.1", int(address.rpartition(":")[2])))


def test_a_worker_that_does_not_come_is_named_to_all(start, addresses):
    workers = [start(addresses, index, 2.0) for index in (0, 2)]
    expected = "1 of 3 workers did not come within 2 s: worker 1; look at what it says, or give the workers more time"
    for worker in workers:
        assert end_of(worker) == (10, f"{expected}: start_timeout of train.strategy")


def test_a_chief_that_does_not_come_is_named(start, addresses):
    code, output = end_of(start(addresses, 1, 1.0))
    assert code == 10
    assert output.startswith(f"1 of 3 workers did not come within 1 s: worker 0 at {addresses[0]}; look at")


def reach(process, address):
    """A connection to a chief as soon as it listens."""
    host, _, port = address.rpartition(":")
    while True:
        try:
            return socket.create_connection((host, int(port)), timeout=5)
        except ConnectionRefusedError:
            assert process.poll() is None


def test_a_worker_that_died_after_it_came_must_come_again(start, addresses):
    chief = start(addresses, 0)
    greeting = {"name": "worker 1", "cluster": rendezvous._mark(local_cluster(addresses, 1))}
    with reach(chief, addresses[0]) as died:
        died.sendall(json.dumps(greeting).encode() + b"\n")
    second = start(addresses, 2)
    assert chief.poll() is None
    assert [end_of(worker)[0] for worker in (start(addresses, 1), second, chief)] == [0, 0, 0]


def test_who_is_no_worker_is_let_go(start, addresses):
    chief = start(addresses, 0)
    with reach(chief, addresses[0]) as stranger:
        stranger.sendall(b"GET / HTTP/1.0\r\n\r\n" + b"\n")
        answer = json.loads(stranger.makefile().readline())
    assert answer == {"refused": "its addresses of the workers are others than the chief's"}
    others = [start(addresses, index) for index in (1, 2)]
    assert [end_of(worker)[0] for worker in (chief, *others)] == [0, 0, 0]


def test_who_says_nothing_keeps_nobody_waiting(start, addresses):
    # One after the other they would take longer than the chief waits.
    chief = start(addresses, 0, 4 * rendezvous._GREETING_SECONDS)
    with contextlib.ExitStack() as held:
        silent = [held.enter_context(reach(chief, addresses[0])) for _ in range(6)]
        silent[1].sendall(b'{"name": "worker 1"')  # and then no more
        workers = [start(addresses, index) for index in (1, 2)]
        assert [end_of(worker) for worker in (chief, *workers)] == [(0, "all came []")] * 3
        with socket.socket() as plain:  # TensorFlow finds the port free, though the visitors are still there
            plain.bind(("127.0.0.1", int(addresses[0].rpartition(":")[2])))


def test_who_says_nothing_is_let_go(addresses, monkeypatch):
    monkeypatch.setattr(rendezvous, "_GREETING_SECONDS", 0.0)
    port = int(addresses[0].rpartition(":")[2])
    chief = local_cluster(addresses, 0)
    with rendezvous._listening(chief) as listener, socket.create_connection(("127.0.0.1", port)) as silent:
        meeting = rendezvous._Meeting(chief, 0.2, time.monotonic() + 0.2)
        with pytest.raises(MachineError, match=r"2 of 3 workers did not come within 0.2 s"):
            meeting.hold(listener)
        assert meeting._visitors == []
        with pytest.raises(ConnectionResetError, match="reset by peer"):
            silent.recv(1)


def test_a_greeting_may_come_in_parts(start, addresses):
    chief = start(addresses, 0)
    greeting = json.dumps({"name": "worker 1", "cluster": rendezvous._mark(local_cluster(addresses, 1))}).encode()
    with reach(chief, addresses[0]) as worker, reach(chief, addresses[0]) as stranger:
        worker.sendall(greeting[:10])
        # Whoever comes after it is heard in between.
        stranger.sendall(b"[" * 50_000 + b"\n")
        assert "refused" in json.loads(stranger.makefile().readline())
        worker.sendall(greeting[10:] + b"\n")
        other = start(addresses, 2)
        assert json.loads(worker.makefile().readline()) == {"all": True}
    assert [end_of(one)[0] for one in (chief, other)] == [0, 0]


def test_a_worker_with_other_addresses_is_refused(start, addresses):
    chief = start(addresses, 0, 3.0)
    other = (addresses[0], addresses[2], addresses[1])
    code, output = end_of(start(other, 1))
    assert code == 10
    assert (
        output
        == f"the chief ({addresses[0]}) refuses worker 1: its addresses of the workers are others than the chief's"
    )
    assert "2 of 3 workers did not come within 3 s: worker 1, worker 2" in end_of(chief)[1]


def test_two_processes_cannot_be_one_worker(start, addresses):
    first, chief = start(addresses, 1), start(addresses, 0)
    with socket.socket() as held:
        held.bind(("127.0.0.1", int(addresses[2].rpartition(":")[2])))
        held.listen()
        code, output = end_of(start(addresses, 2))
    assert (code, output.partition(";")[0]) == (10, f"port {addresses[2].rpartition(':')[2]} of worker 2 is in use")
    assert end_of(start(addresses, 2))[0] == 0
    assert [end_of(one)[0] for one in (first, chief)] == [0, 0]

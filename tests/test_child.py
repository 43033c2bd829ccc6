"""The child-process door: what crosses it, and what becomes of crashes, hangs and Ctrl-C."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from threading import Thread

import pytest

from mltool.child import Child, ChildCrashed, ChildFlaw, ChildTimedOut
from mltool.errors import ConversionError, DataError, Message

FOREIGN = '''
import ctypes, os, subprocess, sys, time
from mltool import errors

COUNT = 0

class OwnError(errors.DataError):
    """Unknown to the parent."""

def add(left, right): return left + right
def count():
    global COUNT
    COUNT += 1
    return COUNT
def process(): return os.getpid(), os.getsid(0)
def speak():
    print("from Python"); os.write(1, b"from C\\n"); os.write(2, b"on stderr\\n")
def crash():
    print("just before"); ctypes.string_at(0)
def leave(status): os._exit(status)
def stop(): sys.exit(0)
def sleep(): time.sleep(60)
def sleep_with_grandchild(path):
    with open(path, "w") as file: file.write(str(subprocess.Popen(["sleep", "60"]).pid))
    time.sleep(60)
def refuse():
    raise errors.ConversionError([errors.Message("two", "mend it", "a.yaml", 3, 4, "k"), errors.Message("three")])
def refuse_own(): raise OwnError("nine", "do ten")
def fail(): raise ZeroDivisionError("by nought")
def unpicklable(): return lambda: 0
def environment(name): return os.environ.get(name)
def write_to(descriptor, text): os.write(descriptor, text.encode())
def wait_for_signal(path):
    import signal, threading
    came = threading.Event()
    signal.signal(signal.SIGUSR1, lambda *_: came.set())
    open(path, "w").close()
    return came.wait(60)
'''


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory):
    """A package of functions that misbehave, importable in the child as in the parent."""
    root = tmp_path_factory.mktemp("foreign")
    (root / "foreign").mkdir()
    (root / "foreign" / "__init__.py").write_text("")
    (root / "foreign" / "work.py").write_text(FOREIGN)
    sys.path.append(str(root))
    yield root
    sys.path.remove(str(root))


@pytest.fixture(scope="module")
def child(package: Path):
    with Child("foreign") as child:
        yield child


def _gone(pid: int) -> bool:
    for _ in range(100):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except FileNotFoundError:
            return True
        if state == "Z":  # dead, not yet waited for by whoever inherited it
            return True
        time.sleep(0.05)
    return False


def test_a_result_comes_back(child: Child):
    assert child.call("foreign.work:add", left=[1], right=[2]) == [1, 2]


def test_the_child_stays_warm_between_calls(child: Child):
    first = child.call("foreign.work:count")

    assert child.call("foreign.work:count") == first + 1


def test_the_child_has_a_session_of_its_own_and_so_no_ctrl_c(child: Child):
    pid, session = child.call("foreign.work:process")

    assert pid == session != os.getsid(0)


def test_the_environment_passes_through(package: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("A_SETTING", "on")
    with Child("foreign") as child:
        assert child.call("foreign.work:environment", name="A_SETTING") == "on"


def test_what_the_child_prints_is_captured_at_descriptor_level(child: Child, capfd: pytest.CaptureFixture[str]):
    child.call("foreign.work:speak")

    assert all(text in child.output for text in ("from Python\n", "from C\n", "on stderr\n"))
    assert capfd.readouterr() == ("", "")


def test_an_error_of_the_user_crosses_with_class_and_messages(child: Child):
    with pytest.raises(ConversionError, match=r"a\.yaml:3:4: k: two; mend it\nthree") as caught:
        child.call("foreign.work:refuse")

    assert caught.value.messages == (Message("two", "mend it", "a.yaml", 3, 4, "k"), Message("three"))


def test_an_error_class_of_elsewhere_arrives_as_the_nearest_known_one(child: Child):
    with pytest.raises(DataError, match="nine; do ten") as caught:
        child.call("foreign.work:refuse_own")

    assert type(caught.value) is DataError


@pytest.mark.parametrize(
    ("function", "text"),
    [
        pytest.param("fail", r"work\.py.*in fail[\s\S]*ZeroDivisionError: by nought", id="exception"),
        pytest.param("stop", "SystemExit: 0", id="sys exit"),
        pytest.param("unpicklable", "(pickle|local object).*lambda", id="result that cannot be sent"),
        pytest.param("absent", "AttributeError: .*'absent'", id="no such function"),
    ],
)
def test_any_other_exception_keeps_the_traceback_of_the_child(child: Child, function: str, text: str):
    pid = child.call("foreign.work:process")

    with pytest.raises(ChildFlaw, match=text):
        child.call(f"foreign.work:{function}")

    assert child.call("foreign.work:process") == pid  # it lives on


def test_a_segmentation_fault_becomes_an_exception_with_signal_function_and_last_lines(child: Child):
    with pytest.raises(
        ChildCrashed, match=r"ran foreign\.work:crash was killed by SIGSEGV; .*\n.*just before"
    ) as caught:
        child.call("foreign.work:crash")

    assert caught.value.status == "was killed by SIGSEGV"
    assert "in crash" in caught.value.output  # Python's stack, from faulthandler
    assert child.call("foreign.work:add", left=1, right=1) == 2  # started again


def test_leaving_without_an_answer_is_a_crash_with_its_exit_status(child: Child):
    with pytest.raises(ChildCrashed, match=r"ended with exit status 3; it printed nothing"):
        child.call("foreign.work:leave", status=3)


def test_a_child_that_died_while_idle_is_started_again(child: Child):
    pid, _ = child.call("foreign.work:process")
    os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)  # until all its threads are gone; the child's owner reaps it

    assert child.call("foreign.work:process")[0] != pid


def test_a_call_that_takes_too_long_is_killed(child: Child):
    pid, _ = child.call("foreign.work:process")
    start = time.monotonic()

    with pytest.raises(ChildTimedOut, match=r"foreign\.work:sleep did not answer within 0\.3 s"):
        child.call("foreign.work:sleep", timeout_seconds=0.3)

    assert time.monotonic() - start < 10
    assert _gone(pid)


@pytest.mark.parametrize(
    "function",
    [
        pytest.param("os:abort", id="another package"),
        pytest.param("foreigner.work:add", id="a package whose name begins alike"),
        pytest.param("foreign.work", id="no function"),
        pytest.param("foreign.work:add.__globals__", id="an attribute of a function"),
    ],
)
def test_only_functions_of_the_package_can_be_named(child: Child, function: str):
    with pytest.raises(ValueError, match=r"a child of package 'foreign' calls 'foreign\.module:function' only"):
        child.call(function)


def test_closing_ends_the_child(package: Path):
    with Child("foreign") as child:
        pid, _ = child.call("foreign.work:process")

    assert _gone(pid)


@pytest.mark.parametrize(
    "number", [pytest.param(signal.SIGINT, id="Ctrl-C"), pytest.param(signal.SIGKILL, id="kill -9 of the parent")]
)
def test_nothing_of_a_busy_child_outlives_the_parent(package: Path, tmp_path: Path, number: int):
    script = f"""
        import sys
        sys.path.append({str(package)!r})
        from mltool.child import Child
        with Child("foreign") as child:
            print(child.call("foreign.work:process")[0], flush=True)
            child.call("foreign.work:sleep_with_grandchild", path={str(tmp_path / "pid")!r})
    """
    parent = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        time.sleep(0.02)

    parent.send_signal(number)
    parent.wait(20)
    parent.stdout.close()

    assert _gone(pid)
    assert _gone(int((tmp_path / "pid").read_text()))


def test_a_child_sees_the_variables_that_differ_and_the_others(package, monkeypatch):
    monkeypatch.setenv("OF_BOTH", "one")
    with Child("foreign", environment={"OF_THE_CHILD": "two"}) as child:
        assert child.call("foreign.work:environment", name="OF_BOTH") == "one"
        assert child.call("foreign.work:environment", name="OF_THE_CHILD") == "two"
    assert "OF_THE_CHILD" not in os.environ


def test_a_child_writes_to_an_open_file_that_it_was_given(package, tmp_path):
    with (tmp_path / "words").open("w+b") as file, Child("foreign", descriptors=[file.fileno()]) as child:
        child.call("foreign.work:write_to", descriptor=file.fileno(), text="heard")
        assert (tmp_path / "words").read_bytes() == b"heard"


def test_a_signal_is_handed_on_while_the_child_works(package, tmp_path):
    started = tmp_path / "started"
    with Child("foreign") as child:

        def hand_on() -> None:
            while not started.exists():
                pass
            child.signal(signal.SIGUSR1)

        thread = Thread(target=hand_on)
        thread.start()
        assert child.call("foreign.work:wait_for_signal", path=str(started), timeout_seconds=90) is True
        thread.join()

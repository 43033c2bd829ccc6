"""Worker processes that live, die, hang and are asked to stop; small scripts in the place of a training."""

import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from mltool.errors import (
    EXIT_CODES,
    FINAL_EXIT_CODES,
    MISTAKES,
    DataError,
    Interrupted,
    MltoolError,
    SpecError,
    TrainingError,
    UsageError,
)
from mltool.pipeline import launch as launch_module
from mltool.pipeline.launch import free_ports, keep_running, launch, load_for_workers
from mltool.pipeline.workers import LAUNCHED, WorkerProcesses
from mltool.runs.run import Run
from mltool.spec.strategy import MultiWorkerStrategy

ROOT = Path(__file__).parents[2]
DONE = "print('{\"metrics\": {}}')"
HANG = "import time\ntime.sleep(600)"
KILLED = "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)"


def fail(code, message="it failed"):
    document = {"error": {"code": code, "messages": [{"message": message, "hint": "mend it", "line": None}]}}
    return f"import sys\nprint({json.dumps(document)!r})\nsys.exit({code})"


class Started:
    """Starts one list of scripts after the other, and keeps what was started and said."""

    def __init__(self, *attempts):
        self._attempts, self.workers, self.lines = list(attempts), [], []

    def __call__(self):
        scripts = self._attempts[len(self.workers)]
        commands = [[sys.executable, "-c", textwrap.dedent(script)] for script in scripts]
        self.workers.append(
            WorkerProcesses(
                commands,
                [{**os.environ, "WORKER": str(index)} for index in range(len(commands))],
                say=lambda index, line: self.lines.append(f"[worker {index}] {line}"),
                stderr=2,
            )
        )
        return self.workers[-1]


def run(started, max_restarts=3):
    return keep_running(
        started, max_restarts=max_restarts, place=lambda: "from step 5", go_on="mltool launch --resume r --workers 2"
    )


@pytest.fixture(autouse=True)
def short(monkeypatch):
    """One second is long enough for scripts of one line."""
    monkeypatch.setattr(launch_module, "SETTLE_SECONDS", 1.0)


def test_all_end_well_and_the_document_is_the_chiefs():
    started = Started([f"{DONE}", "print('{}')"])
    ending, restarts = run(started)
    assert (ending.index, json.loads(ending.output), restarts) == (0, {"metrics": {}}, 0)


def test_lines_of_the_others_are_said_with_their_number():
    started = Started([DONE, "import sys, os\nprint('hello', os.environ['WORKER'], file=sys.stderr)", DONE])
    run(started)
    assert started.lines == ["[worker 1] hello 1"]


def test_a_killed_worker_ends_all_and_all_are_started_again(caplog):
    started = Started([HANG, KILLED], [DONE, DONE])
    _, restarts = run(started)
    assert restarts == 1
    assert [ending.was_ended for ending in started.workers[0].endings] == [False, True]
    expected = "worker 1 was killed by SIGKILL; all go on from step 5 (restart 1 of 3)"
    assert [record.getMessage() for record in caplog.records] == [expected]


def test_a_worker_that_is_lost_again_and_again_is_exit_6_with_the_command_to_go_on():
    started = Started([KILLED, HANG], [KILLED, HANG], [KILLED, HANG])
    expected = "worker 0 was killed by SIGKILL, after 2 restarts; go on with: mltool launch --resume r --workers 2"
    with pytest.raises(TrainingError, match=f"^{re.escape(expected)}$") as found:
        run(started, max_restarts=2)
    assert found.value.exit_code == 6
    assert len(started.workers) == 3


def test_without_restarts_the_first_loss_ends_it():
    with pytest.raises(TrainingError, match=r"^worker 1 was killed by SIGKILL; go on with"):
        run(Started([HANG, KILLED]), max_restarts=0)


def test_every_exit_code_is_final_or_known_not_to_be():
    # A flaw may be one of the moment, 6 is also of a lost worker, and an interrupted training goes on.
    assert set(EXIT_CODES) == {*FINAL_EXIT_CODES, 0, 1, TrainingError.exit_code, Interrupted.exit_code}


def test_a_flaw_is_tried_again():
    assert run(Started([fail(1), HANG], [DONE, DONE]))[1] == 1


def test_a_worker_that_was_asked_to_stop_stops_all():
    with pytest.raises(Interrupted, match=r"^it stopped; go on with: mltool launch --resume r"):
        run(Started([HANG, fail(130, "it stopped")]))


@pytest.mark.parametrize("code", FINAL_EXIT_CODES)
def test_what_has_to_be_mended_is_not_tried_again(code):
    started = Started([HANG, fail(code, "no such column")])
    with pytest.raises(MltoolError, match=r"^no such column; mend it$") as found:
        run(started)
    assert found.value.exit_code == code
    assert len(started.workers) == 1


def test_a_training_that_diverges_in_all_workers_is_not_tried_again():
    started = Started([fail(6, "the loss is nan"), fail(6, "the loss is nan")])
    with pytest.raises(TrainingError, match=r"^the loss is nan; mend it$"):
        run(started)
    assert len(started.workers) == 1


def test_a_worker_that_lost_one_that_hangs_is_started_again_with_it(caplog):
    started = Started([fail(6, "worker 1 does not answer"), HANG], [DONE, DONE])
    assert run(started)[1] == 1
    assert caplog.records[0].getMessage().startswith("worker 0 ended with 6: worker 1 does not answer; all go on")


def test_the_cause_is_the_worker_that_failed_and_not_the_one_that_lost_it():
    started = Started([fail(6, "lost worker 1"), f"import time\ntime.sleep(0.3)\n{fail(4, 'a file is gone')}"])
    with pytest.raises(DataError, match="a file is gone"):
        run(started)


def test_what_a_worker_started_goes_with_it():
    child = "import subprocess, sys\np = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])"
    started = Started([f"{child}\nprint(p.pid, flush=True)\n{KILLED}", HANG])
    with pytest.raises(TrainingError, match="worker 0 was killed"):
        run(started, max_restarts=0)
    pid = int(next(ending.output for ending in started.workers[0].endings if ending.index == 0))
    deadline = time.monotonic() + 10  # it was sent SIGKILL; the kernel takes its moment
    while is_running(pid):
        assert time.monotonic() < deadline


def is_running(pid):
    """Whether a process lives; one that is dead may stay as a zombie until its parent looks."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


STOPS = """\
import signal, sys, threading
asked = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: asked.set())
print("ready", file=sys.stderr, flush=True)
while not asked.wait(0.05):
    pass
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_all_at_a_checkpoint(number):
    if signal.getsignal(number) is signal.SIG_IGN:
        pytest.skip("the signal is ignored here, as of all that a shell starts in the background")

    class Telling(Started):
        def __call__(self):
            workers = super().__call__()
            tell = workers.say

            def say(index, line):
                tell(index, line)
                if line == "ready":
                    os.kill(os.getpid(), number)

            workers.say = say
            return workers

    document = fail(130, "SIGTERM: stopped at epoch 2, step 3 of 8")
    # Worker 0 is deaf to nothing by the time that worker 1 is ready: it is asked again when it listens late.
    started = Telling([f"{STOPS}{document}", f"import time\ntime.sleep(1)\n{STOPS}{document}"])
    expected = "SIGTERM: stopped at epoch 2, step 3 of 8; go on with: mltool launch --resume r --workers 2"
    with pytest.raises(Interrupted, match=f"^{re.escape(expected)}$"):
        run(started)
    assert signal.getsignal(number) in (signal.default_int_handler, signal.SIG_DFL)


def test_free_ports_differ_and_are_free():
    found = free_ports(20)
    assert len(set(found)) == 20


def test_auto_becomes_multi_worker_and_its_arguments_stay(digits_spec):
    assert load_for_workers(digits_spec).train.strategy == MultiWorkerStrategy()
    given = load_for_workers(digits_spec, ["train.strategy={multi_worker: {start_timeout: 5}}"])
    assert given.train.strategy == MultiWorkerStrategy(start_timeout=5.0)


def test_a_strategy_of_one_process_is_refused(digits_spec):
    with pytest.raises(UsageError, match=r"train.strategy is one_device, and this takes multi_worker; leave it out"):
        load_for_workers(digits_spec, ["train.strategy=one_device"])


def test_gpus_are_shared_evenly(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,2,GPU-3,5,-1,7")
    assert launch_module._shared_devices(2) == {
        0: {"CUDA_VISIBLE_DEVICES": "0,2"},
        1: {"CUDA_VISIBLE_DEVICES": "GPU-3,5"},
    }
    with pytest.raises(UsageError, match=r"5 workers, and 4 GPUs; take --workers 4, or CUDA_VISIBLE_DEVICES=-1"):
        launch_module._shared_devices(5)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert launch_module._shared_devices(2) == {0: {}, 1: {}}


def test_gpus_that_no_worker_takes_are_told(monkeypatch, caplog):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,GPU-3,5")
    assert launch_module._shared_devices(2) == {
        0: {"CUDA_VISIBLE_DEVICES": "0"},
        1: {"CUDA_VISIBLE_DEVICES": "GPU-3"},
    }
    assert caplog.messages == ["3 GPUs for 2 workers: each takes 1, and GPU 5 has nothing to do"]
    assert caplog.records[0].levelname == "WARNING"


def test_a_launch_with_too_few_gpus_leaves_no_run(digits_spec, tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    spec = load_for_workers(digits_spec)
    for _ in range(2):  # what it left would refuse the second
        with pytest.raises(UsageError, match=r"2 workers, and 1 GPUs; take --workers 1"):
            launch(Run.create(spec, tmp_path / "run"), num_workers=2, max_restarts=0)
    assert not (tmp_path / "run").exists()


@pytest.fixture
def launch_that_fails(digits_spec, tmp_path, monkeypatch):
    """Launches a new run whose workers end with an error; gives the run."""

    def launched(kind):
        def fails(*_, **__):
            raise kind("it failed", "mend it")

        monkeypatch.setattr(launch_module, "keep_running", fails)
        run = Run.create(load_for_workers(digits_spec), tmp_path / "run")
        with pytest.raises(kind, match=r"^it failed; mend it$"):
            launch(run, num_workers=2, max_restarts=0)
        return run

    return launched


@pytest.mark.parametrize("kind", MISTAKES, ids=lambda kind: kind.__name__)
def test_what_has_to_be_mended_before_a_training_leaves_no_run(launch_that_fails, kind):
    assert not launch_that_fails(kind).directory.exists()


@pytest.mark.parametrize("kind", [TrainingError, Interrupted], ids=lambda kind: kind.__name__)
def test_a_run_that_was_lost_or_interrupted_stays(launch_that_fails, kind):
    assert launch_that_fails(kind).manifest_file.is_file()


def test_what_is_final_before_a_training_is_a_mistake_in_what_it_begins_with():
    # 7 and 8 come after it.
    assert sorted(kind.exit_code for kind in MISTAKES) == [code for code in FINAL_EXIT_CODES if code not in (7, 8)]


WORKER = """
import signal, threading
from mltool.pipeline.workers import end_with_launcher
told = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: told.set())
end_with_launcher()
print("ready", flush=True)
told.wait()
"""


def test_a_worker_ends_when_its_launcher_is_gone():
    """Killed with -9, a launcher ends nobody: the pipe that it held does."""
    environment = {**os.environ, LAUNCHED: "1", "PYTHONPATH": str(ROOT)}
    words = [sys.executable, "-c", WORKER]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as worker:
        assert worker.stdout.readline() == b"ready\n"
        assert worker.poll() is None
        worker.stdin.close()
        try:
            assert worker.wait(30) == 0
        finally:
            worker.kill()  # else this would wait for one that goes on


def test_more_workers_than_samples_are_refused_before_any_is_started(digits_spec, tmp_path, monkeypatch):
    monkeypatch.setattr(launch_module, "WorkerProcesses", lambda *_, **__: pytest.fail("starts"))
    spec = load_for_workers(digits_spec, ["data.batch_size=5", "train.accumulate=2"])
    made = Run.create(spec, tmp_path / "run")
    message = r"data.batch_size: 5 samples are not enough for 3 workers in 2 parts each .*; take 6 or more"
    with pytest.raises(SpecError, match=message):
        launch(made, num_workers=3, max_restarts=0)
    assert not made.directory.exists()

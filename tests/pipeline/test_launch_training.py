"""Several workers train one model: cut off anywhere, by a death or on demand, it ends as one that never was."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest

from mltool.runs.run import Run
from mltool.training.checkpoints import newest_step

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
DEADLINE_SECONDS = 240
TIMES = ("seconds", "samples_per_second")
EPOCHS = "train.epochs=40"  # so that seconds are left to be killed in


def command(*arguments):
    return [sys.executable, "-m", "mltool.cli.main", "launch", *map(str, arguments), "--workers", "2"]


def start(*arguments):
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command(*arguments), env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def end_of(process):
    out, err = process.communicate(timeout=DEADLINE_SECONDS)
    return process.returncode, out, err


def workers_of(launcher):
    """The processes that a launcher started, by their number as worker."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            parent = entry.joinpath("stat").read_text().rpartition(")")[2].split()[1]
            environ = entry.joinpath("environ").read_bytes()
        except OSError:
            continue
        index = re.search(rb'TF_CONFIG=.*"index": (\d)', environ)
        if parent == str(launcher.pid) and index:
            found[int(index[1])] = int(entry.name)
    return found


def wait_for_step(run_dir, launcher):
    """Waits for a checkpoint after the first: something is lost when a worker dies now, and something is not."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    first = None
    while launcher.poll() is None and time.monotonic() < deadline:
        step = newest_step(run_dir / "checkpoints")
        first = first or step
        if step is not None and step != first:
            return
        time.sleep(0.02)
    raise AssertionError(f"no second checkpoint: {launcher.communicate()[1]}")


def weights(directory):
    return keras.models.load_model(Run.open(directory).keras_file, compile=False).get_weights()


def lines(directory):
    found = [json.loads(line) for line in Run.open(directory).metrics_file.read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in TIMES} for line in found]


@pytest.fixture(scope="module")
def uncut(digits_spec, tmp_path_factory):
    directory = tmp_path_factory.mktemp("uncut") / "run"
    code, out, err = end_of(start(digits_spec, "--set", EPOCHS, "--run-dir", directory, "--json"))
    assert code == 0, err
    document = json.loads(out)
    assert (document["epochs"], document["workers"], document["restarts"]) == (40, 2, 0)
    assert document["run"] == str(directory)
    assert [line for line in err.splitlines() if line.startswith("[worker 1]")] == []
    assert sum(line.startswith("epoch 40/40") for line in err.splitlines()) == 1
    return directory


def assert_same_end(directory, uncut):
    for one, other in zip(weights(directory), weights(uncut), strict=True):
        np.testing.assert_array_equal(one, other)
    assert lines(directory) == lines(uncut)
    assert Run.open(directory).status == "trained"


@pytest.mark.parametrize("index", [0, 1], ids=["the chief", "another"])
def test_a_killed_worker_changes_nothing(digits_spec, uncut, tmp_path, index):
    launcher = start(digits_spec, "--set", EPOCHS, "--run-dir", tmp_path / "run", "--json")
    wait_for_step(tmp_path / "run", launcher)
    os.kill(workers_of(launcher)[index], signal.SIGKILL)
    code, out, err = end_of(launcher)
    assert code == 0, err
    assert json.loads(out)["restarts"] == 1
    assert re.search(
        rf"^warning: worker {index} was killed by SIGKILL; all go on from the checkpoint of step \d+ \(restart 1 of",
        err,
        re.MULTILINE,
    )
    assert_same_end(tmp_path / "run", uncut)


def test_a_worker_that_is_lost_without_restarts_is_exit_6_and_the_run_goes_on_later(digits_spec, uncut, tmp_path):
    directory = tmp_path / "run"
    launcher = start(digits_spec, "--set", EPOCHS, "--run-dir", directory, "--max-restarts", "0", "--json")
    wait_for_step(directory, launcher)
    os.kill(workers_of(launcher)[1], signal.SIGKILL)
    code, out, _ = end_of(launcher)
    (message,) = json.loads(out)["error"]["messages"]
    assert (code, message["message"]) == (6, "worker 1 was killed by SIGKILL")
    assert message["hint"] == f"go on with: mltool launch --resume {directory} --workers 2"
    assert end_of(start("--resume", directory))[0] == 0
    assert_same_end(directory, uncut)


def test_a_signal_stops_all_at_one_step_and_the_run_goes_on_later(digits_spec, uncut, tmp_path):
    directory = tmp_path / "run"
    launcher = start(digits_spec, "--set", EPOCHS, "--run-dir", directory)
    wait_for_step(directory, launcher)
    launcher.send_signal(signal.SIGTERM)
    code, _, err = end_of(launcher)
    assert code == 130, err
    expected = rf"stopped at epoch \d+, step \d+ of \d+; go on with: mltool launch --resume {directory} --workers 2"
    assert re.search(expected, err.splitlines()[-1])
    assert Run.open(directory).status == "interrupted"
    assert end_of(start("--resume", directory))[0] == 0
    assert_same_end(directory, uncut)


def test_a_launcher_that_is_killed_leaves_no_worker_and_the_run_goes_on_later(digits_spec, uncut, tmp_path):
    directory = tmp_path / "run"
    launcher = start(digits_spec, "--set", EPOCHS, "--run-dir", directory)
    wait_for_step(directory, launcher)
    pids = workers_of(launcher).values()
    launcher.kill()
    launcher.communicate()
    deadline = time.monotonic() + DEADLINE_SECONDS
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        assert time.monotonic() < deadline, "a worker goes on without its launcher"
        time.sleep(0.05)
    assert Run.open(directory).status == "interrupted"
    assert end_of(start("--resume", directory))[0] == 0
    assert_same_end(directory, uncut)


def test_a_mistake_in_the_data_is_told_once_and_leaves_no_run(digits_spec, tmp_path):
    (tmp_path / "labels.csv").write_text("a,label\n")
    source = f"data.source={{path: {tmp_path / 'labels.csv'}, target: label}}"
    code, _, err = end_of(start(digits_spec, "--set", source, "--run-dir", tmp_path / "run", "--set", EPOCHS))
    assert code == 4, err
    assert sum("error:" in line for line in err.splitlines() if "[worker" not in line) == 1
    assert not (tmp_path / "run").exists()

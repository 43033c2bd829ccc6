"""A training that was cut, anywhere, ends as the one that was not: bit for bit, file for file."""

import contextlib
import json
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from cuts import interrupt_at

from mltool.errors import ArtifactError, DataError, Interrupted, MachineError
from mltool.runs.run import Run
from mltool.training import epochs
from mltool.training.checkpoints import Checkpoints
from mltool.training.train import train

ROOT = Path(__file__).parents[2]
DEADLINE_SECONDS = 300
TIMES = ("seconds", "samples_per_second")
EPOCHS = "train.epochs=15"  # so that a second is left to be killed in


def weights(run: Run) -> list[np.ndarray]:
    import keras

    return keras.models.load_model(run.keras_file, compile=False).get_weights()


def lines(run: Run) -> list[dict[str, Any]]:
    """metrics.jsonl without what may differ: times."""
    found = [json.loads(line) for line in run.metrics_file.read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in TIMES} for line in found]


def assert_same_end(run: Run, uncut: Run) -> None:
    for one, other in zip(weights(run), weights(uncut), strict=True):
        np.testing.assert_array_equal(one, other)
    assert lines(run) == lines(uncut)
    for key in ("status", "epochs", "best_epoch", "stopped", "input"):
        assert run.manifest[key] == uncut.manifest[key]
    assert files(run) == files(uncut)


def files(run: Run) -> list[str]:
    """Every file by name; but for events, named after time and process, and the step that a checkpoint is of."""
    names = (path.relative_to(run.directory) for path in run.directory.rglob("*") if path.is_file())
    return sorted(re.sub(r"step-\d+", "step", str(name)) for name in names if name.parts[0] != "events")


@pytest.fixture(scope="module")
def uncut() -> dict[str, Run]:
    """The run of the hard spec that was never cut; made by the first test that needs it."""
    return {}


@pytest.fixture
def uncut_hard(uncut: dict[str, Run], hard: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Run:
    if not uncut:
        from mltool.spec.load import load_spec

        folder = tmp_path_factory.mktemp("uncut")
        (folder / "hard.yaml").write_text(json.dumps(hard), encoding="utf-8")
        uncut["hard"] = Run.create(load_spec(folder / "hard.yaml"), folder / "run")
        train(uncut["hard"])
    return uncut["hard"]


# Chunks of one step: 4 of training and 1 of validation an epoch, so 0-4 is the first epoch, 5-9 the second.
KILL_POINTS = {
    "in the second epoch": (6, "epoch 2, step 2 of 4"),
    "after the last step of an epoch": (8, "epoch 2, step 4 of 4"),
}
MORE_KILL_POINTS = {
    "in the first step": (0, "epoch 1, step 1 of 4"),
    "in the first validation": (4, "epoch 1, step 4 of 4"),
    "in the second validation": (9, "epoch 2, step 4 of 4"),
    "in the first step of an epoch": (10, "epoch 3, step 1 of 4"),
    "in the last validation": (14, "epoch 3, step 4 of 4"),
}


def check_interrupt(run: Run, uncut: Run, monkeypatch: pytest.MonkeyPatch, chunk: int, place: str) -> None:
    with monkeypatch.context() as patched:
        interrupt_at(patched, chunk)
        with pytest.raises(
            Interrupted, match=f"SIGTERM: stopped at {place}; go on with: mltool train --resume"
        ) as found:
            train(run)
    assert found.value.exit_code == 130
    assert run.status == "interrupted"
    assert not run.keras_file.exists()
    train(run)
    assert_same_end(run, uncut)


@pytest.mark.parametrize(("chunk", "place"), KILL_POINTS.values(), ids=KILL_POINTS.keys())
def test_an_interrupted_training_ends_as_the_uncut_one(hard, make_run, uncut_hard, monkeypatch, chunk, place):
    check_interrupt(make_run(hard), uncut_hard, monkeypatch, chunk, place)


@pytest.mark.slow
@pytest.mark.parametrize(("chunk", "place"), MORE_KILL_POINTS.values(), ids=MORE_KILL_POINTS.keys())
def test_an_interrupt_anywhere_ends_as_the_uncut_one(hard, make_run, uncut_hard, monkeypatch, chunk, place):
    check_interrupt(make_run(hard), uncut_hard, monkeypatch, chunk, place)


def test_the_hard_spec_uses_what_it_is_there_for(uncut_hard):
    rates = [line["learning_rate"] for line in lines(uncut_hard)]
    assert rates == pytest.approx([0.01, 0.01, 0.005])
    assert uncut_hard.manifest["stopped"] == "val_loss has not improved for 2 epochs"
    assert {"loss", "accuracy", "f1_score", "val_loss", "val_accuracy", "val_f1_score"} <= set(lines(uncut_hard)[0])


class Killed(BaseException):
    """Stands for kill -9: nothing in mltool handles it."""


def kill_in(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, call: int, *, after: bool) -> None:
    """Dies before or after call number `call` (from 0) of a function."""
    function, calls = getattr(owner, name), iter(range(10_000))

    def dying(*arguments: Any, **keywords: Any) -> Any:
        now = next(calls) == call
        if now and not after:
            raise Killed
        result = function(*arguments, **keywords)
        if now:
            raise Killed
        return result

    monkeypatch.setattr(owner, name, dying)


DEATHS = {
    "before anything was saved": (Checkpoints, "save_best", 0, False),
    "before the line of an epoch": (epochs, "append_line", 1, False),
    "between the line and the best weights": (Checkpoints, "save_best", 1, False),
    "between the best weights and the checkpoint": (Checkpoints, "save", 1, False),
    # Loading asks for the files twice, so does each save behind its checkpoint: the second save.
    "between the checkpoint and the removal of old ones": (Checkpoints, "_newest_first", 5, False),
    "after the last checkpoint": (Checkpoints, "save", 2, True),
    "before the model is recorded": (Run, "record_artifact", 0, False),
    "before the status": (Run, "record_stage", 0, True),
}


@pytest.mark.parametrize("death", DEATHS.values(), ids=DEATHS.keys())
def test_a_training_that_dies_between_two_files_ends_as_the_uncut_one(features, make_run, monkeypatch, death):
    features["train"]["epochs"] = 3
    uncut, run = make_run(features, "uncut"), make_run(features, "run")
    train(uncut)
    with monkeypatch.context() as patched:
        owner, name, call, after = death
        kill_in(patched, owner, name, call, after=after)
        with pytest.raises(Killed):
            train(run)
    assert run.status == "training"
    train(run)
    assert_same_end(run, uncut)


def test_without_a_checkpoint_training_starts_at_step_0_and_says_so(features, make_run, caplog):
    run, uncut = make_run(features, "run"), make_run(features, "uncut")
    run.metrics_file.write_text('{"epoch": 1, "loss": 0.0}\n{"epo', encoding="utf-8")  # left of a process before
    with caplog.at_level("WARNING", logger="mltool"):
        train(run)
    assert "run has no checkpoint: training starts from the beginning" in caplog.text
    caplog.clear()
    train(uncut)
    assert_same_end(run, uncut)


def test_a_finished_run_is_left_as_it_is_and_said_so(trained_run, caplog):
    before = {
        path: path.stat().st_mtime_ns for path in trained_run.directory.rglob("*") if path != trained_run.lock_file
    }
    with caplog.at_level("INFO", logger="mltool"):
        result = train(trained_run)
    assert "is finished already" in caplog.text
    assert result.epochs == 4
    assert {path: path.stat().st_mtime_ns for path in before} == before


def interrupted(run: Run, monkeypatch: pytest.MonkeyPatch, chunk: int) -> Run:
    with monkeypatch.context() as patched:
        interrupt_at(patched, chunk)
        with pytest.raises(Interrupted, match="SIGTERM"):
            train(run)
    return run


@pytest.mark.parametrize("damage", ["emptied", "cut", "a byte changed", "best weights gone"])
def test_a_damaged_checkpoint_falls_back_to_the_one_before(features, make_run, monkeypatch, caplog, damage):
    uncut, run = make_run(features, "uncut"), make_run(features, "run")
    train(uncut)
    interrupted(run, monkeypatch, 6)  # in the second epoch
    newest = sorted(run.checkpoints_folder.glob("step-*.npz"))[-1]
    content = bytearray(newest.read_bytes())
    if damage == "emptied":
        newest.write_bytes(b"")
    elif damage == "cut":
        newest.write_bytes(content[: len(content) // 2])
    elif damage == "a byte changed":
        content[200] ^= 0xFF
        newest.write_bytes(content)
    else:
        (best,) = run.checkpoints_folder.glob("best-*.npz")
        best.unlink()
    with caplog.at_level("WARNING", logger="mltool"):
        train(run)
    if damage == "best weights gone":
        assert f"the best weights of {newest.name} are damaged: {best.name} is damaged (" in caplog.text
    else:
        assert f"checkpoint {newest.name} is damaged" in caplog.text
    assert ("training starts from the beginning" in caplog.text) == (damage == "best weights gone")
    assert_same_end(run, uncut)


def test_checkpoints_of_another_model_are_refused(features, make_run, monkeypatch):
    run = interrupted(make_run(features), monkeypatch, 1)
    text = run.spec_file.read_text().replace("- Dense:", "- Dense: {units: 5, name: more}\n  - Dense:")
    run.spec_file.write_text(text)
    with pytest.raises(ArtifactError, match=r"spec\.yaml was changed since training began; train it anew"):
        train(run)
    run.update(training_sections=None)  # as if nobody had looked
    with pytest.raises(
        ArtifactError, match=r"step-0.*npz belongs to another model: more/kernel is missing there, \(4, 5\) here"
    ):
        train(run)
    assert run.status == "failed"


def test_data_whose_targets_changed_are_refused(features, make_run, monkeypatch, arrays, tmp_path):
    own = tmp_path / "own.npz"
    own.write_bytes(arrays.read_bytes())
    features["data"]["source"]["path"] = str(own)
    run = interrupted(make_run(features), monkeypatch, 1)
    changed = dict(np.load(own))
    changed["y"] = changed["y"][::-1]
    np.savez(own, **changed)
    with pytest.raises(DataError, match=r"targets of .* changed since the run was trained"):
        train(run)


def test_a_run_that_another_process_holds_is_refused(features, make_run):
    run = make_run(features)
    with run.locked(), pytest.raises(MachineError, match="is being written by another process") as found:
        train(run)
    assert found.value.exit_code == 10


# The command itself, killed and interrupted for real.


# A shell that runs the tests in the background has SIGINT ignored, and children inherit that.
COMMAND = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from mltool.cli.main import main
main()
"""


def start(*arguments: str | Path, cwd: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, *map(str, arguments)],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(condition: Callable[[], object], process: "subprocess.Popen[str]") -> None:
    """Looks until something is there; a process that ends before, or takes minutes, fails the test."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "nothing came"
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=0.005)
            raise AssertionError(process.communicate())


def has_checkpoint(run: Path) -> bool:
    return any((run / "checkpoints").glob("step-*.npz"))


@pytest.fixture(scope="module")
def uncut_digits(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("digits")
    process = start("train", ROOT / "configs/digits.yaml", "--set", EPOCHS, "--run-dir", "run", cwd=folder)
    out, err = process.communicate(timeout=DEADLINE_SECONDS)
    assert process.returncode == 0, err
    assert "trained " in out
    return Run.open(folder / "run")


def test_kill_9_of_the_command_then_resume_gives_the_same_bits(uncut_digits, tmp_path):
    spec = ROOT / "configs/digits.yaml"
    process = start("train", spec, "--set", EPOCHS, "--run-dir", "run", cwd=tmp_path)
    wait_for(lambda: has_checkpoint(tmp_path / "run"), process)
    process.kill()
    process.communicate(timeout=DEADLINE_SECONDS)
    run = Run.open(tmp_path / "run")
    assert process.returncode == -signal.SIGKILL
    assert run.status == "training"
    (run.checkpoints_folder / ".step-000000099.npz.0badcafe.part").write_bytes(b"half")  # as a kill in a write leaves
    resumed = start("train", "--resume", "run", cwd=tmp_path)
    _, err = resumed.communicate(timeout=DEADLINE_SECONDS)
    assert resumed.returncode == 0, err
    assert "resuming run at epoch" in err
    assert not list(run.directory.rglob("*.part*"))
    assert_same_end(run, uncut_digits)


def test_ctrl_c_of_the_command_exits_130_and_a_second_command_is_refused(uncut_digits, tmp_path):
    spec = ROOT / "configs/digits.yaml"
    process = start("train", spec, "--set", EPOCHS, "--run-dir", "run", cwd=tmp_path)
    wait_for(lambda: has_checkpoint(tmp_path / "run"), process)
    process.send_signal(signal.SIGSTOP)  # it holds the run as long as this test wants
    second = start("train", "--resume", "run", "--json", cwd=tmp_path)
    out, _ = second.communicate(timeout=DEADLINE_SECONDS)
    assert second.returncode == 10
    assert "is being written by another process" in json.loads(out)["error"]["messages"][0]["message"]
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGCONT)
    _, err = process.communicate(timeout=DEADLINE_SECONDS)
    assert process.returncode == 130, err
    assert "SIGINT: stopped at epoch" in err
    run = Run.open(tmp_path / "run")
    assert run.status == "interrupted"
    train(run)
    assert_same_end(run, uncut_digits)


# kill -9 of the command at random moments, whatever the training keeps between steps.

SPREAD = {
    "name": "killed",
    "data": {"source": {"dataset": "digits"}, "batch_size": 128},
    "model": {
        "preprocess": [{"Rescaling": {"scale": 0.0625}}],
        "layers": [
            {"Conv2D": {"filters": 8, "kernel_size": 3}},
            "BatchNormalization",
            "ReLU",
            "Flatten",
            {"Dropout": {"rate": 0.2}},
            {"Dense": {"units": 256, "activation": "relu"}},
            {"Dense": {"units": 10}},
        ],
    },
    "train": {
        "epochs": 8,
        "loss": {"SparseCategoricalCrossentropy": {"from_logits": True}},
        "checkpoint": {"every": "4 steps"},
    },
}
STEPS = 8 * 11
TRAININGS: dict[str, dict[str, Any]] = {
    "one device": {},
    "mirrored": {"strategy": {"mirrored": {"devices": ["CPU:0", "CPU:1"]}}},
    "accumulation": {"accumulate": 2},
    "averaged weights": {"optimizer": {"Adam": {"use_ema": True, "ema_momentum": 0.9}}},
    "a plateau": {"callbacks": [{"ReduceLROnPlateau": {"patience": 1, "min_delta": 10.0, "factor": 0.7}}]},
    "mixed_float16": {"precision": "mixed_float16"},
}
MOMENTS = ("before the first checkpoint", "early", "in the middle", "late", "in the write of a checkpoint")


def begin(spec: dict[str, Any], folder: Path) -> "subprocess.Popen[str]":
    (folder / "spec.yaml").write_text(yaml.safe_dump(spec, sort_keys=False), encoding="utf-8")
    return start("train", "spec.yaml", "--run-dir", "run", cwd=folder)


def newest_step(run: Path) -> int:
    return max((int(file.stem[5:]) for file in (run / "checkpoints").glob("step-*.npz")), default=0)


def is_training(run: Path) -> bool:
    with contextlib.suppress(OSError, ValueError):
        return bool(json.loads((run / "run.json").read_text())["status"] == "training")
    return False


def half_written(run: Path) -> list[Path]:
    return list((run / "checkpoints").glob(".*.part"))


def wait_for_moment(moment: str, run: Path, process: "subprocess.Popen[str]", chance: random.Random) -> None:
    """Returns at a random time of the kind that is asked for; there is no way to be late but to be finished."""
    if moment == "before the first checkpoint":
        wait_for(lambda: is_training(run), process)
        steps = 0
    else:
        third = MOMENTS[1:4].index(moment) if moment in MOMENTS[1:4] else chance.randrange(3)
        steps = chance.randrange(third * STEPS // 4 + 1, (third + 1) * STEPS // 4)
        wait_for(lambda: newest_step(run) >= steps, process)
    if moment == "in the write of a checkpoint":
        while not half_written(run) and process.poll() is None:
            pass
        return
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=chance.uniform(0, 0.2))


@pytest.fixture(scope="module")
def uncut_trainings() -> dict[str, Run]:
    """The runs that were never cut; each made by the first test that needs it."""
    return {}


@pytest.mark.slow
@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("training", TRAININGS)
def test_kill_9_at_a_random_moment_ends_as_the_uncut_run(
    training, moment, uncut_trainings, tmp_path, tmp_path_factory, capsys
):
    spec = {**SPREAD, "train": SPREAD["train"] | TRAININGS[training]}
    if training not in uncut_trainings:
        folder = tmp_path_factory.mktemp("uncut")
        process = begin(spec, folder)
        _, err = process.communicate(timeout=DEADLINE_SECONDS)
        assert process.returncode == 0, err
        uncut_trainings[training] = Run.open(folder / "run")
    process = begin(spec, tmp_path)
    wait_for_moment(moment, tmp_path / "run", process, random.Random(f"{training} {moment}"))
    process.kill()
    _, err = process.communicate(timeout=DEADLINE_SECONDS)
    assert process.returncode == -signal.SIGKILL, err
    run = Run.open(tmp_path / "run")
    step, half = newest_step(run.directory), len(half_written(run.directory))
    resumed = start("train", "--resume", "run", cwd=tmp_path)
    _, err = resumed.communicate(timeout=DEADLINE_SECONDS)
    assert resumed.returncode == 0, err
    assert_same_end(run, uncut_trainings[training])
    with capsys.disabled():
        left = f"checkpoint of step {step} of {STEPS}" if step else "no checkpoint"
        print(f"\n{training}, killed {moment}: {left}{', a file half written' if half else ''}: the same bits")

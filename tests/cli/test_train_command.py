"""`mltool train` beside training itself: trials, profiles, and the bar on a terminal."""

import contextlib
import fcntl
import os
import pty
import re
import struct
import termios
from pathlib import Path

import pytest

from mltool import console

ROWS, WIDTH = 30, 100


def test_a_trial_tells_and_leaves_nothing(mltool, spec):
    ran = mltool("train", "my.yaml", "--trial", "--set", "train.epochs=3")
    assert ran.code == 0, ran.err
    words = [line.split()[0] for line in ran.out.splitlines()]
    assert words == ["parameters", "memory", "peak:", "devices", "step", "to"]
    assert "650 (650 trainable)" in ran.out
    assert re.search(r"to expect    \d+ s for 3 epochs of \d+ steps and \d+ of validation", ran.out)
    assert [path.name for path in Path().iterdir()] == ["my.yaml"]


def test_a_trial_is_one_document(mltool, spec):
    document = mltool("train", "my.yaml", "--trial", "--json").document
    assert document["parameters"] == 64 * 10 + 10
    assert document["training"]["step_seconds"] > 0
    assert [path.name for path in Path().iterdir()] == ["my.yaml"]


@pytest.mark.parametrize("other", [["--profile"], ["--run-dir", "there"], ["--resume"]])
@pytest.mark.parametrize("option", ["--trial", "--find-batch-size"])
def test_what_leaves_nothing_behind_is_no_run(mltool, spec, option, other):
    ran = mltool("train", "my.yaml", option, *other)
    assert ran.code == 2
    assert f"{option} trains nothing, and {other[0]} is for a run; leave {other[0]} out" in ran.err
    assert [path.name for path in Path().iterdir()] == ["my.yaml"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--trial", "--find-lr"], "--trial and --find-lr are things of their own; run one, then the other"),
        (["--find-lr", "--find-batch-size"], "--find-lr and --find-batch-size are things of their own"),
        (["--find-lr", "--profile"], "--find-lr trains nothing, and --profile is for a run; leave --profile out"),
    ],
    ids=["trial and test of rates", "two tests", "test of rates and profile"],
)
def test_an_option_that_would_be_ignored_is_refused(mltool, spec, options, message):
    ran = mltool("train", "my.yaml", *options)
    assert ran.code == 2
    assert message in ran.err
    assert [path.name for path in Path().iterdir()] == ["my.yaml"]


@pytest.mark.parametrize("option", ["--trial", "--find-lr", "--find-batch-size"])
@pytest.mark.parametrize("strategy", ["parameter_server", "multi_worker"])
def test_what_is_for_one_process_refuses_a_strategy_of_several(mltool, spec, option, strategy):
    ran = mltool("train", "my.yaml", option, "--set", f"train.strategy={strategy}")
    assert ran.code == 2
    told = f"is for one process, and train.strategy is {strategy}; add --set train.strategy=one_device"
    assert told in ran.err


def test_a_mistake_in_the_spec_of_a_trial_is_one_of_the_spec(mltool, spec):
    ran = mltool("train", "my.yaml", "--trial", "--set", "train.epochs=0")
    assert ran.code == 3
    assert "train.epochs" in ran.err


def test_a_profile_is_a_page_before_the_result_and_a_part_of_the_document(mltool, spec):
    ran = mltool("train", "my.yaml", "--profile", "--set", "train.epochs=2", "--run-dir", "run")
    assert ran.code == 0, ran.err
    assert re.match(r"profile of \d+ steps: [\d.]+ ms a step, of which \d+% is waiting for data", ran.out)
    assert ran.out.rstrip().endswith("run/model.keras")
    again = ["train", "my.yaml", "--profile", "--set", "train.epochs=2", "--run-dir", "other", "--json"]
    document = mltool(*again).document
    assert document["profile"]["operations"]
    assert Path("other/profile.json").is_file()


def test_a_training_of_one_epoch_is_told_as_one(mltool, spec):
    ran = mltool("train", "my.yaml", "--set", "train.epochs=1", "--run-dir", "run")
    assert ran.code == 0, ran.err
    assert ran.out.startswith("trained 1 epoch in ")


@pytest.fixture
def terminal(monkeypatch):
    """A terminal of 100 columns as stderr; closes it and gives what was shown."""
    leader, follower = pty.openpty()
    fcntl.ioctl(leader, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, WIDTH, 0, 0))
    stream = os.fdopen(follower, "w", encoding="utf-8")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(console, "_settings", console._Settings(configured=True, saved_err=stream))

    def shown() -> str:
        stream.close()
        found = b""
        with contextlib.suppress(OSError):  # EIO: the other end is closed
            while block := os.read(leader, 4096):
                found += block
        return found.decode()

    yield shown
    os.close(leader)


FIGURES = "epoch 2  loss 0.1442  accuracy 0.9531  lr 0.001  853 MB  CPU"


def bar_of(note: str) -> None:
    with console.progress("training", 12_000) as bar:
        assert bar.is_shown
        bar.update(6_000, note, "12,345 samples/s")
        bar._bar.refresh()  # which it does ten times a second
        bar.line("epoch 1/20  loss 0.2")


def test_the_bar_fits_100_columns_with_the_figures_below_it(terminal):
    bar_of(FIGURES)
    lines = [re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line) for line in re.split(r"\r?\n|\r", terminal())]
    assert any(re.fullmatch(r"training \S+ +6000/12000 12,345 samples/s ETA \S+ *", line) for line in lines), lines
    assert FIGURES in lines
    assert "epoch 1/20  loss 0.2" in lines
    assert max(map(len, lines)) <= WIDTH


def test_figures_that_are_too_many_for_a_line_go_on_in_the_next(terminal):
    bar_of("  ".join(f"metric_{number} 0.1234" for number in range(9)))
    lines = [re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line) for line in re.split(r"\r?\n|\r", terminal())]
    assert any("metric_0 0.1234" in line and "metric_8" not in line for line in lines)
    assert any("metric_8 0.1234" in line for line in lines)
    assert max(map(len, lines)) <= WIDTH


def test_the_bar_has_no_colors_where_they_are_not_wanted(terminal, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    bar_of(FIGURES)
    assert not re.search(r"\x1b\[[0-9;]*[34]\d[0-9;]*m", terminal())


def test_in_a_pipe_there_are_whole_lines_and_nothing_else(mltool, spec):
    ran = mltool("train", "my.yaml", "--set", "train.epochs=2", "--run-dir", "run")
    assert "\x1b" not in ran.err
    assert "\r" not in ran.err
    said = [line for line in ran.err.splitlines() if line.startswith("epoch ")]
    assert len(said) == 2
    assert all(re.search(r"  val_accuracy 0\.\d+  [\d.]+ s  [\d,]+ samples/s$", line) for line in said), said

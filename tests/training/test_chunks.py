"""How long a chunk of steps is, and how a signal is noted between two of them."""

import signal
import subprocess
import sys

import pytest

from mltool.training.interrupts import Interrupts
from mltool.training.loops.chunks import Chunks


def lengths(seconds_a_step: float, *, first: float = 5.0, left: int = 10**6) -> list[int]:
    chunks, found = Chunks(), []
    for number in range(8):
        found.append(chunks.next_length(left))
        chunks.took(found[-1], first if number == 0 else found[-1] * seconds_a_step)
    return found


@pytest.mark.parametrize(
    ("seconds_a_step", "expected"),
    [(0.01, [1, 1, 16, 30, 30, 30, 30, 30]), (1.0, [1] * 8), (0.0, [1, 1, 16, 64, 256, 1024, 4096, 16384])],
    ids=["of 10 ms: 0.3 s", "of 1 s: one by one", "too short to measure: four times as many"],
)
def test_chunks_last_a_third_of_a_second(seconds_a_step, expected):
    assert lengths(seconds_a_step) == expected


def test_a_chunk_is_never_longer_than_what_is_left():
    assert lengths(0.01, left=7) == [1, 1, 7, 7, 7, 7, 7, 7]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_the_first_signal_is_noted_and_the_handlers_come_back(number):
    before = signal.getsignal(number)
    with Interrupts() as interrupts:
        interrupts.note_only()
        assert not interrupts.asked
        signal.raise_signal(number)
        assert (interrupts.asked, interrupts.name) == (True, number.name)
        assert signal.getsignal(number) == before
    assert signal.getsignal(number) == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_while_data_are_read_a_signal_ends_at_once(number):
    """Nobody looks at a wish there; a file that never comes would be waited for without end."""
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt, match=number.name), Interrupts():
        signal.raise_signal(number)
    assert signal.getsignal(number) == before


def test_a_second_ctrl_c_acts_as_it_always_did():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with Interrupts() as interrupts:
            interrupts.note_only()
            signal.raise_signal(signal.SIGINT)
            with pytest.raises(KeyboardInterrupt, match=""):
                signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_signal_that_the_caller_ignores_stays_ignored():
    code = """
import signal
signal.signal(signal.SIGINT, signal.SIG_IGN)
from mltool.training.interrupts import Interrupts
with Interrupts() as interrupts:
    signal.raise_signal(signal.SIGINT)
    print(interrupts.asked)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"

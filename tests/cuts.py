"""Trainings that are cut at a known step, by tests of several rooms."""

import itertools
import signal
from collections.abc import Callable

import pytest

from mltool.training.loops.chunks import Chunks


def one_step_chunks(
    monkeypatch: pytest.MonkeyPatch, at: int | None = None, act: Callable[[], None] = lambda: None
) -> None:
    """Chunks of one step, in training and validation; before number `at` (from 0) something happens."""
    calls = itertools.count()

    def next_length(self: Chunks, left: int) -> int:
        if next(calls) == at:
            act()
        return 1

    monkeypatch.setattr(Chunks, "next_length", next_length)


def interrupt_at(monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    """SIGTERM comes while chunk number `chunk` (from 0) runs; every chunk is one step."""
    one_step_chunks(monkeypatch, chunk, lambda: signal.raise_signal(signal.SIGTERM))

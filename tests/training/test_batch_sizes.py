"""The largest batch that fits: what is tried, where it ends, and that nothing is left."""

import tempfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from mltool import extras
from mltool.child import Child, ChildCrashed
from mltool.errors import MachineError, SpecError
from mltool.spec.load import load_spec
from mltool.spec.spec import Spec
from mltool.training.loops.loop import Loop
from mltool.training.trials import batch_sizes
from mltool.training.trials.batch_sizes import BatchSizes, TriedSize, find_batch_size, try_size
from mltool.training.trials.trial import Pace, Trial

GB = 10**9


@pytest.fixture
def spec(features: dict[str, Any], tmp_path: Path) -> Spec:
    file = tmp_path / "s.yaml"
    file.write_text(yaml.safe_dump(features, sort_keys=False), encoding="utf-8")
    return load_spec(file)


def trial_of(size: int, *, samples: int = 100_000, peak_bytes: int = GB, step_seconds: float = 0.01) -> Trial:
    pace = Pace(-(-samples // size), 1.0, step_seconds, size / step_seconds, chunk=10)
    return Trial(15, 15, 60, 132, 1, peak_bytes, {"GPU:0": {"current": 1, "peak": 7}}, [], size, 2, pace, pace, 1.0)


@pytest.fixture
def tries(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes that were tried, of which up to 64 fit."""
    tried: list[int] = []

    def one(file: Path, size: int) -> Trial | str:
        tried.append(size)
        return trial_of(size) if size <= 64 else "out of memory: OOM when allocating a tensor"

    monkeypatch.setattr(batch_sizes, "_in_a_child", one)
    return tried


def test_sizes_are_doubled_until_one_does_not_fit(spec, tries):
    found = find_batch_size(spec)
    assert tries == [16, 32, 64, 128]
    assert found.largest == 64
    assert found.reason == "128: out of memory: OOM when allocating a tensor"
    assert found.tried[-1] == TriedSize(64, 6400.0, GB, {"GPU:0": 7})


def test_every_part_of_an_accumulated_batch_begins_at_the_first_size(spec, tries):
    more = spec.model_copy(update={"train": spec.train.model_copy(update={"accumulate": 3})})
    assert find_batch_size(more).largest == 48
    assert tries == [48, 96]


def test_where_the_first_does_not_fit_smaller_ones_are_tried(spec, monkeypatch):
    tried = []

    def one(file: Path, size: int) -> Trial | str:
        tried.append(size)
        return trial_of(size) if size <= 4 else "out of memory: OOM"

    monkeypatch.setattr(batch_sizes, "_in_a_child", one)
    found = find_batch_size(spec)
    assert tried == [16, 8, 4]
    assert (found.largest, found.reason) == (4, "8: out of memory: OOM")


def test_where_not_one_sample_fits_the_machine_is_too_small(spec, monkeypatch):
    monkeypatch.setattr(batch_sizes, "_in_a_child", lambda file, size: "out of memory: OOM")
    with pytest.raises(MachineError, match="a batch of 1 does not fit: out of memory: OOM; take a smaller model"):
        find_batch_size(spec)


def test_main_memory_is_left_before_it_ends(spec, monkeypatch):
    """1, 1.5, 2.5 GB: the next would take 4.5 of the 5 that are free, more than four fifths."""
    peaks = {16: GB, 32: 3 * GB // 2, 64: 5 * GB // 2}
    monkeypatch.setattr(batch_sizes, "_in_a_child", lambda file, size: trial_of(size, peak_bytes=peaks[size]))
    monkeypatch.setattr(batch_sizes, "free_memory_bytes", lambda: 5 * GB)
    found = find_batch_size(spec)
    assert (found.largest, found.reason) == (64, "128: would take some 4.5 GB of main memory, and 5.0 GB are free")


def test_a_smaller_batch_that_is_as_fast_is_told():
    rates = {16: 100.0, 32: 190.0, 64: 200.0, 128: 199.0}
    found = BatchSizes([TriedSize(size, rate, GB, {}) for size, rate in rates.items()], "256: out of memory")
    assert (found.largest, found.fast) == (128, 32)
    first, second = found.text().splitlines()
    assert first == "data.batch_size: 128 is the largest that fits; 32 is about as fast as any (256: out of memory)"
    assert "--find-lr" in second
    assert found.to_json()["tried"][1] == {
        **{"batch_size": 32, "samples_per_second": 190.0, "peak_bytes": GB, "gpu_peak_bytes": {}}
    }


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of temporary files, which must be empty at the end."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder


def test_a_size_is_tried_in_a_process_of_its_own_and_leaves_nothing(spec, temporary, monkeypatch):
    """108 training samples: of 64 there are two batches, and the next would hold all."""
    monkeypatch.setattr(batch_sizes, "FIRST", 64)
    found = find_batch_size(spec)
    assert [(one.batch_size, one.gpu_peak_bytes) for one in found.tried] == [(64, {})]
    assert found.tried[0].samples_per_second > 0
    assert found.tried[0].peak_bytes > 100e6, "TensorFlow alone takes more"
    assert found.reason == "128: one batch would hold all training samples"
    assert list(temporary.iterdir()) == []


def test_a_device_without_memory_is_an_answer(spec, tmp_path, monkeypatch):
    def exhausted(*_: Any) -> None:
        message = "Graph execution error:\n\nDetected at node relu\nOOM when allocating a tensor\n\t [[{{node relu}}]]"
        raise extras.tensorflow().errors.ResourceExhaustedError(None, None, message)

    monkeypatch.setattr(Loop, "_compiled", lambda self: (exhausted, exhausted))
    answer = try_size(spec_file=str(tmp_path / "s.yaml"), batch_size=32)
    assert answer == "out of memory: OOM when allocating a tensor"


def test_what_crashed_is_a_flaw(spec, monkeypatch):
    def crash(self: Child, function: str, **_: Any) -> None:
        raise ChildCrashed(function, "was killed by SIGSEGV", "")

    monkeypatch.setattr(Child, "call", crash)
    with pytest.raises(ChildCrashed, match="SIGSEGV"):
        find_batch_size(spec)


KILLED = """
import os, signal
import keras


class Killed(keras.layers.Layer):
    def call(self, inputs):
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_the_kernel_killed_did_not_fit_and_its_files_go(features, tmp_path, temporary, monkeypatch):
    """Killed in the middle of a trial, as by a kernel without memory: nobody in that process clears up."""
    (tmp_path / "killer.py").write_text(KILLED, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    features["model"]["layers"].insert(0, {"python": "killer:Killed"})
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(features, sort_keys=False), encoding="utf-8")
    monkeypatch.setattr(batch_sizes, "FIRST", 1)
    with pytest.raises(MachineError, match="a batch of 1 does not fit: out of main memory: the kernel killed it"):
        find_batch_size(load_spec(tmp_path / "s.yaml"))
    assert list(temporary.iterdir()) == []


def test_auto_is_no_batch_size_and_the_message_says_what_finds_one(features, tmp_path):
    features["data"]["batch_size"] = "auto"
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(features, sort_keys=False), encoding="utf-8")
    with pytest.raises(
        SpecError, match=r"must be a whole number \(got 'auto'\); write a number; mltool train SPEC --find"
    ):
        load_spec(tmp_path / "s.yaml")

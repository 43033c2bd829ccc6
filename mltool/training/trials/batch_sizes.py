"""The largest batch that fits: sizes are doubled until a device, or the machine, has no memory left.

Every size is tried in a process of its own: what TensorFlow has once taken of a GPU's memory it does not give back, and
where the main memory ends, the kernel kills.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mltool import console
from mltool.child import Child, ChildCrashed
from mltool.data.memory import free_memory_bytes
from mltool.errors import MachineError
from mltool.spec.load import dump_spec, load_spec
from mltool.spec.spec import Spec
from mltool.training.interrupts import Interrupts
from mltool.training.memory import OutOfMemory
from mltool.training.trials.temporary import require_trials
from mltool.training.trials.trial import Trial, run_trial
from mltool.training.watching import shown_bytes

FIRST = 16
"""Smaller batches are tried only where this one does not fit."""

SHARE_OF_MEMORY = 0.8
"""Of what is free, a process may come to take this much: a kernel that has none left kills whom it likes."""

CLOSE_TO_FASTEST = 0.8
"""Sizes with this much of the highest rate count as fast. Medians of trials in a row were seen to vary by as much where
other work goes on; where a larger batch pays, it nearly doubles the rate."""


@dataclass(frozen=True)
class TriedSize:
    """A batch size that fits.

    Attributes:
        batch_size: global.
        samples_per_second: of training steps, compiled.
        peak_bytes: of the process, data and libraries included.
        gpu_peak_bytes: of every GPU, by name.
    """

    batch_size: int
    samples_per_second: float
    peak_bytes: int
    gpu_peak_bytes: dict[str, int]

    def text(self) -> str:
        """A line for people."""
        gpus = [f"{name} {shown_bytes(size)}" for name, size in self.gpu_peak_bytes.items()]
        peaks = ", ".join([f"process {shown_bytes(self.peak_bytes)}", *gpus])
        return f"batch size {self.batch_size:7,}: {self.samples_per_second:11,.0f} samples/s, peak: {peaks}"


@dataclass(frozen=True)
class BatchSizes:
    """What fits.

    Attributes:
        tried: rising, each twice the one before; never empty.
        reason: why no larger one was taken.
    """

    tried: Sequence[TriedSize]
    reason: str

    @property
    def largest(self) -> int:
        """The largest that fits."""
        return self.tried[-1].batch_size

    @property
    def fast(self) -> int:
        """The smallest that is about as fast as the fastest."""
        enough = CLOSE_TO_FASTEST * max(one.samples_per_second for one in self.tried)
        return next(one.batch_size for one in self.tried if one.samples_per_second >= enough)

    def to_json(self) -> dict[str, Any]:
        """As `--json` prints it."""
        return {
            "largest": self.largest,
            "fast": self.fast,
            "reason": self.reason,
            "tried": [asdict(one) for one in self.tried],
        }

    def text(self) -> str:
        """For people: what to write."""
        fast = "" if self.fast == self.largest else f"; {self.fast} is about as fast as any"
        return (
            f"data.batch_size: {self.largest} is the largest that fits{fast} ({self.reason})\n"
            "another batch size wants another learning rate: --find-lr suggests one"
        )


def find_batch_size(spec: Spec) -> BatchSizes:
    """Doubles the batch until there is no memory for it, or no sample; leaves nothing behind.

    Args:
        spec: checked; its batch size plays no part.

    Raises:
        MachineError: if not even one sample fits, or one for every part of an accumulated batch.
        UsageError: if the spec is for several processes.
        MltoolError: whatever would stop the training before its first step.
    """
    require_trials(spec, "--find-batch-size")
    # SIGTERM as Ctrl-C; and what a process leaves that is killed lies in the folder, which goes.
    with Interrupts(), tempfile.TemporaryDirectory(prefix="mltool-batch-") as folder:
        file = Path(folder) / "spec.yaml"
        file.write_text(dump_spec(spec), encoding="utf-8")
        parts = spec.train.accumulate
        first = _in_a_child(file, FIRST * parts)
        if isinstance(first, str):
            return _halve(file, FIRST * parts, least=parts, reason=first)
        return _double(file, first)


def _double(spec_file: Path, trial: Trial) -> BatchSizes:
    """Goes up from a size that fits."""
    tried: list[TriedSize] = []
    while True:
        tried.append(_told(trial))
        size = 2 * trial.batch_size
        found = _reason_to_stop(trial, tried) or _in_a_child(spec_file, size)
        if isinstance(found, str):
            return BatchSizes(tried, f"{size}: {found}")
        trial = found


def _halve(spec_file: Path, size: int, *, least: int, reason: str) -> BatchSizes:
    """Goes down from a size that does not fit."""
    while size > least:
        found = _in_a_child(spec_file, size // 2)
        if not isinstance(found, str):
            return BatchSizes([_told(found)], f"{size}: {reason}")
        size, reason = size // 2, found
    raise MachineError(f"a batch of {size} does not fit: {reason}", "take a smaller model, or smaller samples")


def _in_a_child(spec_file: Path, batch_size: int) -> Trial | str:
    """A trial of one size, or what there was too little of."""
    with Child(environment={"TMPDIR": str(spec_file.parent)}) as child:
        try:
            found: Trial | str = child.call(f"{__name__}:try_size", spec_file=str(spec_file), batch_size=batch_size)
        except ChildCrashed as error:
            if "SIGKILL" not in error.status:
                raise
            return "out of main memory: the kernel killed it"
    return found


def try_size(*, spec_file: str, batch_size: int) -> Trial | str:
    """What the child runs."""
    spec = load_spec(Path(spec_file), [f"data.batch_size={batch_size}"], needs_files=False)
    try:
        return run_trial(spec)
    except OutOfMemory as error:
        return f"out of memory: {error}"


def _told(trial: Trial) -> TriedSize:
    found = TriedSize(
        batch_size=trial.batch_size,
        samples_per_second=trial.training.samples_per_second,
        peak_bytes=trial.peak_bytes,
        gpu_peak_bytes={name: sizes["peak"] for name, sizes in trial.gpu_bytes.items()},
    )
    console.remark(found.text())
    return found


def _reason_to_stop(last: Trial, tried: Sequence[TriedSize]) -> str:
    """Why twice the last size is not tried; "" if it is."""
    if last.training.steps <= 2:  # a batch twice as large is all of them
        return "one batch would hold all training samples"
    growth = last.peak_bytes - tried[-2].peak_bytes if len(tried) > 1 else 0
    # What a batch takes doubles with it; what data and libraries take stays.
    expected, free = last.peak_bytes + 2 * max(growth, 0), free_memory_bytes()
    if expected > SHARE_OF_MEMORY * free:
        return f"would take some {shown_bytes(expected)} of main memory, and {shown_bytes(free)} are free"
    return ""

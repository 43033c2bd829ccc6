"""Checkpoints: every variable and the state of the run in one .npz, written whole or not at all.

One file of plain arrays instead of tf.train.Checkpoint's three: one rename makes it exist, its CRCs tell damage, and it
can be read without TensorFlow.
"""

import io
import json
import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mltool.errors import ArtifactError
from mltool.runs.arrays import write_npz
from mltool.runs.atomic import writing
from mltool.training.devices.workers import Workers

logger = logging.getLogger("mltool")

Array = np.ndarray[Any, Any]

KEPT = 2
"""Checkpoints that stay beside the best weights: a damaged one leaves the one before."""


VERSION = 2
"""Of the state in a checkpoint; without one it is 1, before steps could be left out."""


@dataclass
class State:
    """Where training stands.

    Attributes:
        phase: of the spec's phases, from 0.
        phase_epoch: that is running, from 0 at the beginning of the phase.
        epoch: likewise, over all phases.
        step: of that epoch that comes next.
        global_step: steps since the beginning.
        best_epoch: whose weights are the best so far, and `best_value` of the monitor; None before the first.
        logs: results of the epoch's training steps, once all of them ran; None before.
        callbacks: state of every callback, by its name.
        stopped: why the phase ended before its last epoch.
        seconds: spent in steps of training and validation so far.
        skipped: steps that were left out because they were not finite; also of the epoch, and in a row up to
            `last_skipped`, a global step.
        rollbacks: how often training went back to a checkpoint because a step was not finite.
        rate_factor: by which that has made the schedule of the phase smaller.
    """

    phase: int = 0
    phase_epoch: int = 0
    epoch: int = 0
    step: int = 0
    global_step: int = 0
    best_epoch: int | None = None
    best_value: float | None = None
    logs: dict[str, float] | None = None
    callbacks: dict[str, dict[str, Any]] = field(default_factory=dict)
    stopped: str | None = None
    seconds: float = 0.0
    skipped: int = 0
    skipped_in_epoch: int = 0
    skipped_in_a_row: int = 0
    last_skipped: int | None = None
    rollbacks: int = 0
    rate_factor: float = 1.0


class Checkpoints:
    """The checkpoints of a run.

    Several processes load what the chief has: the others need no folder that they share.

    Args:
        folder: `checkpoints/` of the run.
        workers: the processes of the training; None where there is one.
    """

    def __init__(self, folder: Path, workers: Workers | None = None) -> None:
        self.folder, self._workers = folder, workers
        self._writes = workers is None or workers.is_chief
        self._damaged: set[Path] = set()

    def save(self, state: State, variables: Sequence[Any]) -> None:
        """Writes a checkpoint, then removes those that are no longer needed.

        In this order, so that a process killed at any point leaves at least one that is whole, with its best weights.
        """
        arrays = _arrays(variables)
        if not self._writes:  # what the arrays were read for: that takes all workers
            return
        arrays["state"] = np.frombuffer(json.dumps({"version": VERSION, **asdict(state)}).encode(), dtype=np.uint8)
        newest = self._step_file(state.global_step)
        _save(newest, arrays)
        self._damaged.discard(newest)
        kept = [file for file in self._newest_first() if file not in self._damaged][:KEPT]
        for file in self._newest_first():
            if file not in kept:
                file.unlink()
        # The checkpoint before may still name the second best weights: they go when it goes.
        self._remove_best_but(set(map(_best_epoch_of, kept)))

    def save_best(self, epoch: int, variables: Sequence[Any]) -> None:
        """Writes the best weights so far; call before `save`, which makes them count."""
        arrays = _arrays(variables)
        if not self._writes:
            return
        _save(self._best_file(epoch), arrays)
        self._remove_best_but({epoch, *map(_best_epoch_of, self._newest_first())})

    def _remove_best_but(self, epochs: set[int | None]) -> None:
        needed = {self._best_file(epoch) for epoch in epochs if epoch is not None}
        for best in self.folder.glob("best-*.npz"):
            if best not in needed:
                best.unlink()

    def load(self, variables: Sequence[Any] | Callable[[State], Sequence[Any]]) -> State | None:
        """Puts the newest whole checkpoint into the variables; None when there is none.

        Args:
            variables: or what gives them: those of an optimizer depend on the phase.

        Raises:
            ArtifactError: if it belongs to another model, or was written by a newer mltool.
        """
        found = self._of_chief(self._newest_whole())
        if found is None:
            if self._newest_first():
                logger.warning("no checkpoint is whole: training starts from the beginning")
            return None
        arrays = _read(found)
        state = _state(arrays.pop("state"))
        _assign(arrays, variables(state) if callable(variables) else variables, self._step_file(state.global_step))
        return state

    def _newest_whole(self) -> bytes | None:
        """The newest checkpoint of which everything can be read, its best weights too."""
        for file in self._newest_first():
            read = file
            try:
                content = read.read_bytes()
                best = _state(_read(content)["state"]).best_epoch
                if best is not None:
                    read = self._best_file(best)
                    _read(read.read_bytes())
            except ArtifactError as error:
                raise ArtifactError(f"{file} {error}", "update mltool, or train again") from error
            # A damaged file raises whatever the readers of zip, numpy and JSON meet first.
            except Exception as error:
                what = "checkpoint" if read == file else f"the best weights of {file.name} are damaged:"
                logger.warning("%s %s is damaged (%s); going back to the one before", what, read.name, error)
                self._damaged.add(file)  # and removed when a whole one is there
                continue
            return content
        return None

    def _of_chief(self, content: bytes | None) -> bytes | None:
        return content if self._workers is None else self._workers.bytes_of_chief(content)

    def load_best(self, epoch: int, variables: Sequence[Any]) -> None:
        """Puts the best weights into the variables.

        Raises:
            ArtifactError: if they are missing or damaged.
        """
        file = self._best_file(epoch)
        try:
            arrays = _read(self._of_chief(file.read_bytes() if self._writes else None) or b"")
        except Exception as error:  # as in `_newest_whole`
            raise ArtifactError(f"{file} is missing or damaged: {error}", "train again") from error
        _assign(arrays, variables, file)

    def _best_file(self, epoch: int) -> Path:
        return self.folder / f"best-{epoch}.npz"

    def _step_file(self, global_step: int) -> Path:
        return self.folder / f"step-{global_step:09d}.npz"

    def _newest_first(self) -> list[Path]:
        return sorted(self.folder.glob("step-*.npz"), reverse=True)


def newest_file(folder: Path) -> Path | None:
    """The newest checkpoint in `checkpoints/` of a run: as files are renamed when they are whole, it is."""
    return max(folder.glob("step-*.npz"), default=None)


def newest_step(folder: Path) -> int | None:
    """The step of the newest checkpoint in `checkpoints/`, by its name; None when there is none."""
    file = newest_file(folder)
    return None if file is None else int(file.stem.removeprefix("step-"))


def _save(file: Path, arrays: dict[str, Array]) -> None:
    with writing(file) as temporary, temporary.open("wb") as opened:
        write_npz(opened, arrays)


def _read(content: bytes) -> dict[str, Array]:
    with np.load(io.BytesIO(content), allow_pickle=False) as stored:
        return dict(stored)


def _state(stored: Array) -> State:
    values = json.loads(stored.tobytes().decode())
    version = values.pop("version", 1)
    if version > VERSION:
        raise ArtifactError(f"is of version {version} of checkpoints, this mltool reads up to {VERSION}")
    return State(**{"phase_epoch": values["epoch"], **values})  # before there were phases, there was one


def _best_epoch_of(file: Path) -> int | None:
    try:
        with np.load(file, allow_pickle=False) as stored:
            return _state(stored["state"]).best_epoch
    except Exception:  # as in `load`, which will tell
        return None


def _arrays(variables: Sequence[Any]) -> dict[str, Array]:
    return dict(zip(_names(variables), map(np.asarray, variables), strict=True))


def _names(variables: Sequence[Any]) -> list[str]:
    """A name for every variable that is the same in every process.

    Keras counts its objects: `adam_1/iteration`, and in an own model `adam/sequential_2_dense_4_kernel_momentum`.
    """
    return [f"{index:05d}:{re.sub(r'_[0-9]+(?=[/_]|$)', '', v.path)}" for index, v in enumerate(variables)]


def _assign(arrays: dict[str, Array], variables: Sequence[Any], file: Path) -> None:
    expected = {name: tuple(variable.shape) for name, variable in zip(_names(variables), variables, strict=True)}
    found = {name: array.shape for name, array in arrays.items()}
    if found != expected:
        name = next(name for name in (*expected, *found) if found.get(name) != expected.get(name))
        message = f"{file} belongs to another model: {name.partition(':')[2]} is {found.get(name, 'missing')} there"
        raise ArtifactError(f"{message}, {expected.get(name, 'missing')} here", "train again")
    for variable, array in zip(variables, arrays.values(), strict=True):
        variable.assign(array)

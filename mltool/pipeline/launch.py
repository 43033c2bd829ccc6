"""`mltool launch`: several worker processes of this machine train one model; a lost one makes all go on again."""

import contextlib
import json
import logging
import os
import shlex
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from mltool import console
from mltool.cluster.cluster import local_cluster
from mltool.errors import (
    FINAL_EXIT_CODES,
    MISTAKES,
    Interrupted,
    Message,
    MltoolError,
    SpecError,
    TrainingError,
    UsageError,
)
from mltool.pipeline.workers import LAUNCHED, Ending, WorkerProcesses, worker_command
from mltool.runs.run import Run
from mltool.spec.load import load_spec
from mltool.spec.spec import Spec
from mltool.spec.strategy import AutoStrategy, MultiWorkerStrategy, StrategySpec, TpuStrategy
from mltool.training.checkpoints import newest_step

logger = logging.getLogger("mltool")

SETTLE_SECONDS = 5.0
"""How long the others may take to end by themselves once one has failed: of several causes the first counts, and a
worker that lost another ends later than that one, after 4 s as it was measured."""

STOP_SECONDS = 60.0
"""How long all may take, once they are asked to stop, to finish a chunk of steps and to write a checkpoint."""


@dataclass(frozen=True)
class LaunchResult:
    """What the workers left.

    Attributes:
        training: the document of `mltool train --json`, as the chief gave it.
        workers: how many.
        restarts: how often all were started again.
    """

    training: dict[str, Any]
    workers: int
    restarts: int


def load_for_workers(file: Path, overrides: Sequence[str] = (), *, on_tpu: bool = False) -> Spec:
    """Loads a spec for several workers: its `strategy: auto` becomes `multi_worker`, or `tpu` of one on a TPU.

    Raises:
        SpecError: if the spec has mistakes.
        UsageError: if its strategy is for one process.
    """
    spec = load_spec(file, overrides)
    wanted = TpuStrategy if on_tpu else MultiWorkerStrategy
    if isinstance(spec.train.strategy, AutoStrategy):
        spec = load_spec(file, [*overrides, f"train.strategy={wanted.NAME}"])
    require_workers(spec, wanted)
    return spec


def require_workers(spec: Spec, wanted: type[StrategySpec] = MultiWorkerStrategy) -> None:
    """Holds a spec against the strategy that a launch needs.

    Raises:
        UsageError: if it has another.
    """
    found = spec.train.strategy
    if not isinstance(found, wanted):
        message = f"train.strategy is {found.NAME}, and this takes {wanted.NAME}"
        raise UsageError(message, "leave it out of the spec, or change it")


def launch(run: Run, *, num_workers: int, max_restarts: int, options: Sequence[str] = ()) -> LaunchResult:
    """Trains `run` with workers of this machine.

    Args:
        run: made by this process or to go on with; its spec has `strategy: multi_worker`.
        num_workers: how many.
        max_restarts: how often they may be started again after one was lost.
        options: `--quiet` or `--verbose`, for the chief; the others say warnings alone, or all with `--verbose`.

    Raises:
        SpecError: if a batch has fewer samples than there are workers.
        UsageError: if there are GPUs, and fewer than workers.
        TrainingError: if a worker was lost once more than `max_restarts`.
        Interrupted: after Ctrl-C or SIGTERM; the run can be resumed.
        MltoolError: what the workers failed with, where starting them again would not help.
    """

    def start(scratch: str, devices: Mapping[int, Mapping[str, str]]) -> WorkerProcesses:
        addresses = tuple(f"127.0.0.1:{port}" for port in free_ports(num_workers))
        return WorkerProcesses(
            [worker_command("train", "--resume", str(run.directory), "--json", *_options(options, i)) for i in devices],
            [
                {
                    **os.environ,
                    **devices[i],
                    **{"TMPDIR": scratch, LAUNCHED: "1", "TF_CONFIG": local_cluster(addresses, i).to_tf_config()},
                }
                for i in devices
            ],
            say=lambda index, line: console.beside_bar(f"[worker {index}] {line}"),
            stderr=console.stderr_descriptor(),
        )

    go_on = f"mltool launch --resume {shlex.quote(str(run.directory))} --workers {num_workers}"
    try:
        _require_samples_for_all(run.spec, num_workers)
        devices = _shared_devices(num_workers)
        # A worker that is killed cannot take its temporary files away.
        with tempfile.TemporaryDirectory(prefix="mltool-launch-") as scratch:
            ending, restarts = keep_running(
                lambda: start(scratch, devices), max_restarts=max_restarts, place=lambda: _place(run), go_on=go_on
            )
    except MISTAKES:
        run.discard_unless_begun()
        raise
    return LaunchResult(json.loads(ending.output), num_workers, restarts)


def _options(options: Sequence[str], index: int) -> Sequence[str]:
    return options if index == 0 or options else ("--quiet",)


def _place(run: Run) -> str:
    step = newest_step(run.checkpoints_folder)
    return "from the beginning: there is no checkpoint yet" if step is None else f"from the checkpoint of step {step}"


def keep_running(
    start: Callable[[], WorkerProcesses], *, max_restarts: int, place: Callable[[], str], go_on: str
) -> tuple[Ending, int]:
    """Starts workers until all of them end well.

    Args:
        start: makes the workers; called again for every restart.
        max_restarts: how often.
        place: from where they go on when they are started again, in words.
        go_on: the command that resumes.

    Returns:
        How worker 0 ended, and the number of restarts.

    Raises:
        TrainingError: if a worker was lost once more than `max_restarts`.
        Interrupted: after Ctrl-C or SIGTERM.
        MltoolError: what a worker failed with, where starting them again would not help.
    """
    restarts = 0
    with _Stop() as stop:
        while True:
            with start() as workers:
                failed = _first_failures(workers, stop)
            if not failed:
                return next(ending for ending in workers.endings if ending.index == 0), restarts
            if stop.asked:
                raise _interrupted(stop.asked, workers, go_on)
            lost = _culprit(failed)
            if _is_final(lost, failed, len(workers.endings)):
                raise _error_of(lost, go_on)
            if restarts == max_restarts:
                after = f", after {restarts} restarts" if restarts else ""
                raise TrainingError(f"{_told(lost)}{after}", f"go on with: {go_on}")
            restarts += 1
            logger.warning("%s; all go on %s (restart %d of %d)", _told(lost), place(), restarts, max_restarts)


class _Stop:
    """Ctrl-C and SIGTERM, passed on to the workers, who leave a checkpoint; the second one ends them at once."""

    def __init__(self) -> None:
        self.asked = ""
        self._workers: WorkerProcesses | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "_Stop":
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextlib.contextmanager
    def of(self, workers: WorkerProcesses) -> Iterator[None]:
        """While open, signals go to `workers`; one that came before goes there at once."""
        self._workers = workers
        if self.asked:
            self._pass_on()
        try:
            yield
        finally:
            self._workers = None

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt(self.asked)
        self.asked = signal.Signals(number).name
        self._pass_on()

    def _pass_on(self) -> None:
        if self._workers is not None:
            self._workers.send(signal.SIGTERM)
            self._workers.wake()


def _first_failures(workers: WorkerProcesses, stop: _Stop) -> list[Ending]:
    """Waits for the workers; of those that failed, the ones that did so before this side ended them."""
    with stop.of(workers):
        while workers.num_running:
            ending = workers.next_ending()
            if ending is None:
                workers.wait_for_all(STOP_SECONDS)
                break
            if ending.status < 0:
                break
            if ending.status > 0:
                workers.wait_for_all(SETTLE_SECONDS)
                break
        workers.end_all()
    return [ending for ending in workers.endings if ending.status != 0]


def _culprit(failed: Sequence[Ending]) -> Ending:
    """The first to fail by itself; one that lost another worker fails too, with the code of a failed training."""
    by_itself = [ending for ending in failed if not ending.was_ended] or failed
    return next((ending for ending in by_itself if ending.status != TrainingError.exit_code), by_itself[0])


def _is_final(lost: Ending, failed: Sequence[Ending], num_workers: int) -> bool:
    if lost.status == TrainingError.exit_code:
        # A worker that was lost is killed, or hangs and has to be ended; a training that diverged does so in all.
        return sum(ending.status == lost.status for ending in failed) == num_workers
    # Who asks one worker to stop means all of them.
    return lost.status == Interrupted.exit_code or lost.status in FINAL_EXIT_CODES


def _told(ending: Ending) -> str:
    """How a worker ended, with the first of what it said of it."""
    messages = _messages_of(ending)
    return f"{ending}: {messages[0].message}" if messages else str(ending)


def _messages_of(ending: Ending) -> list[Message]:
    """What a worker's --json document says of its failure."""
    try:
        said = json.loads(ending.output)["error"]["messages"]
        return [Message(**{name: value for name, value in one.items() if value is not None}) for one in said]
    except (ValueError, KeyError, TypeError):
        return []


def _error_of(ending: Ending, go_on: str) -> MltoolError:
    """A worker's failure as this process' own."""
    kinds = {kind.exit_code: kind for kind in MltoolError.__subclasses__()}
    messages = _messages_of(ending) or [Message(_told(ending))]
    if ending.status == Interrupted.exit_code:
        return Interrupted(messages[0].message, f"go on with: {go_on}")
    return kinds[ending.status](messages)


def _interrupted(signal_name: str, workers: WorkerProcesses, go_on: str) -> Interrupted:
    """Where the chief stopped, as it tells; or that it could not."""
    of_chief = next(ending for ending in workers.endings if ending.index == 0)
    messages = _messages_of(of_chief) if of_chief.status == Interrupted.exit_code else []
    return Interrupted(messages[0].message if messages else f"{signal_name}: stopped", f"go on with: {go_on}")


def free_ports(count: int) -> list[int]:
    """Ports of the loopback interface that nothing listens at now."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def _require_samples_for_all(spec: Spec, num_workers: int) -> None:
    """Every worker computes a part of every batch; told before any of them is started.

    Raises:
        SpecError: if there are too few samples.
    """
    needed = num_workers * spec.train.accumulate
    if spec.data.batch_size < needed:
        message = f"{spec.data.batch_size} samples are not enough for {num_workers} workers"
        if spec.train.accumulate > 1:
            message += f" in {spec.train.accumulate} parts each (train.accumulate)"
        raise SpecError(Message(message, f"take {needed} or more: it is the global batch", key="data.batch_size"))


def _shared_devices(num_workers: int) -> dict[int, dict[str, str]]:
    """What each worker's environment says of GPUs: an even share, as one GPU cannot be two workers'.

    Those that are left over are told in a warning.

    Raises:
        UsageError: if there are GPUs, and fewer than workers.
    """
    gpus = _gpus()
    if gpus and len(gpus) < num_workers:
        raise UsageError(
            f"{num_workers} workers, and {len(gpus)} GPUs",
            f"take --workers {len(gpus)}, or CUDA_VISIBLE_DEVICES=-1 for the CPU",
        )
    share, over = divmod(len(gpus), num_workers)
    if over:
        idle = ", ".join(gpus[share * num_workers :])
        logger.warning(
            "%d GPUs for %d workers: each takes %d, and GPU %s has nothing to do", len(gpus), num_workers, share, idle
        )
    shares = {index: gpus[index * share : (index + 1) * share] for index in range(num_workers)}
    return {index: {"CUDA_VISIBLE_DEVICES": ",".join(some)} if some else {} for index, some in shares.items()}


def _gpus() -> list[str]:
    """The GPUs that TensorFlow would see, without importing it."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        # As CUDA reads it: what follows the first that is none does not count.
        names = [name.strip() for name in chosen.split(",")]
        end = next((i for i, name in enumerate(names) if not name or name.startswith("-")), len(names))
        return names[:end]
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    listed = subprocess.run([tool, "--list-gpus"], capture_output=True, text=True, check=False)  # noqa: S603
    return [str(index) for index, line in enumerate(listed.stdout.splitlines()) if line.startswith("GPU ")]

"""A profile of some steps: the trace that TensorBoard's profile plugin opens, and one page of what took the time."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mltool import console, extras
from mltool.training.watching import Waits

WARM_UP = 2
"""Chunks before the profile: the first one compiles, the second one still fills caches."""

STEPS = 5
"""After the chunk with which so many are in it, or at the end of an epoch, the profile ends."""

SHOWN = 15
"""Operations on the page."""


@dataclass(frozen=True)
class Operation:
    """One operation of the training step, or of the input pipeline.

    Attributes:
        name: in the graph, without the loop around it.
        kind: such as `Conv2D`.
        of_data: whether the input pipeline runs it, beside the steps.
        calls: in all steps that were profiled.
        seconds: all calls together; operations run beside one another, so that sums can be more than the time passed.
    """

    name: str
    kind: str
    of_data: bool
    calls: int
    seconds: float


@dataclass(frozen=True)
class ProfileSummary:
    """What a profile says.

    Attributes:
        trace: the folder with the trace.
        device: whose time the operations are counted in, `CPU` or `GPU`.
        steps: that were profiled.
        seconds: that they took, profiling included.
        wait_share: of these seconds that steps waited for data, in [0, 1].
        operations: those that took most, longest first.
        num_operations: of all that were seen.
        operations_seconds: of all that were seen.
    """

    trace: str
    device: str
    steps: int
    seconds: float
    wait_share: float
    operations: tuple[Operation, ...]
    num_operations: int
    operations_seconds: float

    def to_json(self) -> dict[str, Any]:
        """As profile.json has it."""
        return asdict(self)

    def text(self) -> str:
        """One page."""
        rows = [
            [
                f"{_shortened(operation.name)}{' (data)' if operation.of_data else ''}",
                _shortened(operation.kind, 26),
                str(operation.calls),
                f"{1e3 * operation.seconds / self.steps:.3f}",
                f"{operation.seconds / max(self.operations_seconds, 1e-12):.1%}",
            ]
            for operation in self.operations
        ]
        title = (
            f"profile of {self.steps} steps: {1e3 * self.seconds / self.steps:.3g} ms a step, of which"
            f" {self.wait_share:.0%} is waiting for data; operations on the {self.device}:"
        )
        columns = ["operation", "kind", "calls", "ms a step", "share"]
        return f"{title}\n{console.table(columns, rows)}\n{self.trace}"


class Profile:
    """Profiles the first steps of a training that are worth it.

    Args:
        folder: `events/` of the run; the trace goes where the profile plugin looks, `plugins/profile/<time>/`.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._chunks, self._steps, self._seconds, self._waited = 0, 0, 0.0, 0.0
        self._runs, self._is_done = False, False

    def begin_chunk(self) -> None:
        """Starts the profile when it is time; call before a chunk of training steps."""
        self._chunks += 1
        if self._chunks > WARM_UP and not self._runs and not self._is_done:
            profiler = extras.tensorflow().profiler.experimental
            profiler.start(str(self._folder), profiler.ProfilerOptions(host_tracer_level=2, python_tracer_level=0))
            self._runs = True

    def end_chunk(self, steps: int, seconds: float, waits: Waits, *, ends_epoch: bool) -> None:
        """Ends the profile when it has enough.

        Args:
            steps: of the chunk.
            seconds: that it took.
            waits: for data in it.
            ends_epoch: whether validation follows, which is not to be profiled.
        """
        if self._runs:
            self._steps, self._seconds = self._steps + steps, self._seconds + seconds
            self._waited += min(waits.seconds, seconds)
            if self._steps >= STEPS or ends_epoch:
                self.stop()

    def stop(self) -> None:
        """Writes the trace; nothing happens where none runs."""
        if self._runs:
            self._runs, self._is_done = False, True
            extras.tensorflow().profiler.experimental.stop()

    def summary(self) -> ProfileSummary | None:
        """What the trace says; None where training was over before it began."""
        files = sorted(self._folder.glob("plugins/profile/*/*.xplane.pb"))
        if not self._steps or not files:
            return None
        device, operations = read_trace(files[-1])
        return ProfileSummary(
            trace=str(files[-1].parent),
            device=device,
            steps=self._steps,
            seconds=self._seconds,
            wait_share=self._waited / self._seconds,
            operations=tuple(operations[:SHOWN]),
            num_operations=len(operations),
            operations_seconds=sum(operation.seconds for operation in operations),
        )


def read_trace(file: Path) -> tuple[str, list[Operation]]:
    """The operations of a trace, longest first, and whose time it is: of GPUs where they computed, else of the CPU.

    The format is TensorFlow's `xplane.proto`, which its package can read: planes of lines of events. On the host an
    operation is an event `name:Kind` of a thread; on a GPU it is a stat of the kernels in the lines of streams.
    """
    space = extras.require("tensorflow.tsl.profiler.protobuf.xplane_pb2").XSpace()
    space.ParseFromString(file.read_bytes())
    on_gpus = [found for plane in space.planes if plane.name.startswith("/device:GPU") for found in _of_gpu(plane)]
    on_host = [found for plane in space.planes if plane.name == "/host:CPU" for found in _of_host(plane)]
    return ("GPU", _added(on_gpus)) if on_gpus else ("CPU", _added(on_host))


def _of_host(plane: Any) -> Iterator[tuple[str, float]]:
    names = {key: event.name for key, event in plane.event_metadata.items()}
    for line in plane.lines:
        for event in line.events:
            yield names[event.metadata_id], event.duration_ps / 1e12


def _of_gpu(plane: Any) -> Iterator[tuple[str, float]]:
    stats = {key: stat.name for key, stat in plane.stat_metadata.items()}
    for line in plane.lines:
        for event in line.events:
            for stat in event.stats:
                if stats[stat.metadata_id] == "tf_op":
                    yield stat.str_value or stats.get(stat.ref_value, ""), event.duration_ps / 1e12


_OPERATION = re.compile(r"(?P<name>[\w.\-/]+):_?(?P<kind>[A-Za-z]\w*)")
"""Other events of the host are of its machinery: `ExecutorState::Process`, `Iterator::Root::Prefetch`."""

_LOOP = re.compile(
    r"^(\w+Optimizer/)?while/(body|cond)/_\d+/(while/)?(cond/(then|else)/_\d+/)?(?P<tape>gradient_tape/)?(while/)?(cond/)?"
)
"""Around all that the compiled steps run (`Loop`), and around nothing of the input pipeline."""

_OF_OTHERS = frozenset({"PartitionedCall", "StatefulPartitionedCall", "While", "StatelessWhile", "If", "StatelessIf"})
"""Kinds whose time is that of operations which are counted themselves."""


def _added(events: list[tuple[str, float]]) -> list[Operation]:
    calls: Counter[str] = Counter()
    seconds: defaultdict[str, float] = defaultdict(float)
    for name, took in events:
        calls[name] += 1
        seconds[name] += took
    found = {name: _OPERATION.fullmatch(name) for name in seconds}
    operations = [
        Operation(
            name=_LOOP.sub(lambda loop: loop["tape"] or "", match["name"]),
            kind=match["kind"],
            of_data=not _LOOP.match(match["name"]),
            calls=calls[name],
            seconds=seconds[name],
        )
        for name, match in found.items()
        if match and match["kind"] not in _OF_OTHERS
    ]
    return sorted(operations, key=lambda operation: -operation.seconds)


def _shortened(name: str, most: int = 46) -> str:
    return name if len(name) <= most else f"...{name[3 - most :]}"

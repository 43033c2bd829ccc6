"""What a training is doing while it runs: its speed, its memory, and whether data or computation hold it up."""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from mltool import extras
from mltool.data.batches import Batches
from mltool.data.order import samples_before
from mltool.data.pipeline import Pipeline
from mltool.spec.data import DataSpec
from mltool.training.devices.strategy import device_names, short_name

INPUT_BOUND_SHARE = 0.2
"""From this share of the time on that steps wait for data, data are what holds a training up: where TensorFlow's
profiler says "highly input-bound" (`kHighlyInfeedBoundThresholdInPercent` in its input pipeline analysis)."""

HUGE = 1e7
"""From here on a result is shown with an exponent: float32 has no decimals of it."""

WORTH_SAYING_SECONDS = 0.5
"""Of a shorter epoch the verdict is recorded and not said: nobody waits for it."""


@dataclass(frozen=True)
class Waits:
    """How the steps of a chunk waited for their batches; see `Loop`.

    Attributes:
        seconds: from asking for a batch until it was there, over all steps.
        after_last: from the arrival of the last batch until the device was done with its step, in seconds.
        compiled: whether a step was compiled meanwhile, so that the chunk says nothing of the speed.
    """

    seconds: float
    after_last: float
    compiled: bool = False

    @classmethod
    def of(cls, answer: Any) -> "Waits":
        """Call when the device is done: from what `Loop.train_steps` gave, float64 [2], or `JaxLoop.train_steps`."""
        waited, last_arrival, *compiled = (float(value) for value in answer)
        return cls(waited, max(0.0, time.time() - last_arrival), any(compiled))


@dataclass(frozen=True)
class Bound:
    """What holds a training up.

    A step asks for its batch when the host is done with the step before, and its wait is measured there, inside the
    compiled loop, by the clock: two readings a step, which cost nothing that can be measured. On a CPU the host
    computes itself, so that waiting is time in which nothing is computed. A GPU is handed its work and computes while
    the host waits already for the batches to come; then it is still busy with several steps after the last batch of a
    chunk came, and its waits do not count. Where the data are too slow, it has one step left at most.

    Attributes:
        by: `input` where steps wait for data during `INPUT_BOUND_SHARE` of the time or more.
        wait_share: of the time of the steps that was waited for data, in [0, 1].
        samples_per_second: as they were trained on.
        model_samples_per_second: what the model could take without any waiting.
    """

    by: Literal["input", "compute"]
    wait_share: float
    samples_per_second: float
    model_samples_per_second: float

    def to_json(self) -> dict[str, Any]:
        """As run.json has it."""
        return {name: round(value, 4) if isinstance(value, float) else value for name, value in asdict(self).items()}


class Watch:
    """Measures the training steps of one process.

    Args:
        pipeline: of the training samples.
    """

    def __init__(self, pipeline: Pipeline | Batches) -> None:
        self._pipeline = pipeline
        self._devices = _shown_devices()
        # JAX hands a CPU its work and goes on, too.
        self._runs_ahead = self._devices != "CPU" or extras.backend() == "jax"
        self._warm = False
        self.begin_epoch()

    def begin_epoch(self) -> None:
        """Starts to count anew."""
        self._steps, self._samples, self._seconds, self._waited, self._computed = 0, 0, 0.0, 0.0, 0.0

    def trace_anew(self) -> None:
        """The next chunk is compiled first: it says nothing of the speed."""
        self._warm = False

    def took(self, first_step: int, count: int, seconds: float, waits: Waits) -> None:
        """Learns from a chunk of `count` steps of the epoch, from `first_step` on."""
        if not self._warm or waits.compiled or not count:
            self._warm = True
            return
        waited = min(waits.seconds, seconds)
        if self._runs_ahead and waits.after_last > 2 * seconds / count:
            waited = 0.0
        self._steps += count
        self._samples += samples_of(self._pipeline, first_step, count)
        self._seconds += seconds
        self._waited += waited
        computed = seconds - waited
        if self._runs_ahead:
            computed = min(max(computed, waits.after_last * count), seconds)
        self._computed += computed

    @property
    def samples_per_second(self) -> float | None:
        """Of the epoch's steps that this process ran; None before the first one that was not compiled too."""
        return self._samples / self._seconds if self._seconds else None

    @property
    def is_worth_saying(self) -> bool:
        """Whether the epoch takes long enough that its verdict matters."""
        return self._seconds >= WORTH_SAYING_SECONDS

    def bound(self) -> Bound | None:
        """What holds the epoch up; None where no step was measured."""
        if not self._seconds:
            return None
        share = self._waited / self._seconds
        return Bound(
            "input" if share >= INPUT_BOUND_SHARE else "compute",
            share,
            self._samples / self._seconds,
            self._samples / max(self._computed, 1e-9),
        )

    def figures(self, results: Mapping[str, float], learning_rate: float) -> str:
        """What a bar shows beside how far it is."""
        shown = [f"{name} {shown_result(value)}" for name, value in results.items()]
        on_gpus = sum(sizes["current"] for sizes in gpu_bytes().values())
        memory = [shown_bytes(resident_bytes()), self._devices, *([shown_bytes(on_gpus)] if on_gpus else [])]
        return "  ".join([*shown, f"lr {learning_rate:.3g}", *memory])

    def rate(self) -> str:
        """The speed, as a bar shows it."""
        return "" if self.samples_per_second is None else f"{self.samples_per_second:,.0f} samples/s"


def remark_of(bound: Bound, data: DataSpec) -> str:
    """What to say of a verdict, with the cure that the spec leaves."""
    rate, share = f"{bound.samples_per_second:,.0f} samples/s", f"{bound.wait_share:.0%}"
    if bound.by == "compute":
        return f"compute-bound: {rate}; steps wait for data {share} of the time"
    cures = []
    if data.cache in ("none", "disk"):
        cures.append("data.cache: memory")
    if data.augment:
        cures.append("fewer or cheaper layers in data.augment")
    cures.append("a larger data.batch_size" if not data.augment else "more processor cores")
    could = f"{bound.model_samples_per_second:,.0f}"
    return (
        f"input-bound: steps wait for data {share} of the time; the data come at {rate}, the model could take about"
        f" {could}; what helps: {', '.join(cures)}"
    )


def resident_bytes() -> int:
    """What this process holds in memory now."""
    return int(extras.require("psutil").Process().memory_info().rss)


def gpu_bytes() -> dict[str, dict[str, int]]:
    """Of every GPU that computes, what the backend holds `current`ly and at its `peak`."""
    names = [name for name in map(short_name, device_names()) if "GPU" in name]
    return {name: _gpu_memory(name) for name in names}


def _gpu_memory(name: str) -> dict[str, int]:
    backend = extras.backend()
    if backend == "jax":
        found = extras.require("jax").devices()[0].memory_stats()
        return {"current": int(found["bytes_in_use"]), "peak": int(found["peak_bytes_in_use"])}
    if backend == "torch":
        cuda = extras.require("torch").cuda
        return {"current": int(cuda.memory_allocated()), "peak": int(cuda.max_memory_allocated())}
    return dict(extras.tensorflow().config.experimental.get_memory_info(name))


def samples_of(pipeline: Pipeline | Batches, first_step: int, count: int) -> int:
    """Samples of so many steps of an epoch, over all workers."""
    sizes = pipeline.num_samples, pipeline.batch_size
    return samples_before(first_step + count, *sizes) - samples_before(first_step, *sizes)


def shown_result(value: float) -> str:
    """A loss or a metric: with four decimals, or, where they are lost among its digits, with an exponent."""
    return f"{value:.4f}" if not abs(value) >= HUGE else f"{value:.4e}"


def shown_bytes(size: float) -> str:
    """A size in KB, MB or GB."""
    if size < 1e6:
        return f"{size / 1e3:.0f} KB"
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"


def _shown_devices() -> str:
    others = [name for name in map(short_name, device_names()) if "CPU" not in name]
    kind = others[0].partition(":")[0] if others else "CPU"
    return f"{len(others)} {kind}s" if len(others) > 1 else kind

"""A trial of a training: all is built, a few steps run, the cost of the whole is told, and nothing is left behind."""

import math
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from mltool import extras
from mltool.console import counted
from mltool.data.batches import Batches
from mltool.data.pipeline import Pipeline
from mltool.spec.spec import Spec
from mltool.training.beginning import record_setup
from mltool.training.devices.strategy import device_names
from mltool.training.loops.chunks import Chunks
from mltool.training.loops.measures import Measures
from mltool.training.memory import must_fit
from mltool.training.setup import Setup, build_setup
from mltool.training.trials.temporary import IF_IT_DOES_NOT_FIT, temporary_run
from mltool.training.watching import gpu_bytes, samples_of, shown_bytes

GROWING_CHUNKS, REPEATED_CHUNKS = 3, 4
"""Timed after the one that compiles: the first ones are short, and grow; of those as long as in a training the median
counts, as machines are noisy."""


@dataclass(frozen=True)
class Pace:
    """How fast steps of one kind run.

    Attributes:
        steps: of an epoch.
        compile_seconds: of the first step, compiling included.
        step_seconds: of a step once it is compiled.
        samples_per_second: likewise; the last batch of an epoch may be smaller.
        chunk: steps that run in one call then.
    """

    steps: int
    compile_seconds: float
    step_seconds: float
    samples_per_second: float
    chunk: int


@dataclass(frozen=True)
class Trial:
    """What a training will cost.

    Attributes:
        parameters: values of all weights.
        trainable_parameters: those that the first phase changes.
        weight_bytes: of the model, float32.
        optimizer_bytes: of the optimizer's variables.
        activation_bytes: of the outputs of all layers for a batch, as the way back needs them: an estimate, without
            what operations need on the way; None where it is not known before.
        peak_bytes: the most that the process held in memory so far, data and libraries included.
        gpu_bytes: of every GPU, `current` and `peak`.
        devices: that training uses.
        batch_size: global.
        epochs: of all phases.
        training: pace of its steps.
        validation: likewise.
        expected_seconds: of the whole training, where no callback stops it; without starting and reading the data.
    """

    parameters: int
    trainable_parameters: int
    weight_bytes: int
    optimizer_bytes: int
    activation_bytes: int | None
    peak_bytes: int
    gpu_bytes: dict[str, dict[str, int]]
    devices: list[str]
    batch_size: int
    epochs: int
    training: Pace
    validation: Pace
    expected_seconds: float

    def to_json(self) -> dict[str, Any]:
        """As `--json` prints it."""
        return asdict(self)

    def text(self) -> str:
        """A few lines for people."""
        activations = "unknown" if self.activation_bytes is None else shown_bytes(self.activation_bytes)
        peaks = [f"{name} {shown_bytes(sizes['peak'])}" for name, sizes in self.gpu_bytes.items()]
        pace = self.training
        return "\n".join(
            [
                f"parameters   {self.parameters:,} ({self.trainable_parameters:,} trainable)",
                f"memory       weights {shown_bytes(self.weight_bytes)}, optimizer {shown_bytes(self.optimizer_bytes)},"
                f" activations of a batch about {activations}",
                f"             peak: process {', '.join([shown_bytes(self.peak_bytes), *peaks])}",
                f"devices      {', '.join(self.devices)}",
                f"step         {1e3 * pace.step_seconds:.3g} ms, {pace.samples_per_second:,.0f} samples/s"
                f" in batches of {self.batch_size}; {pace.chunk} steps a call; {pace.compile_seconds:.1f} s to compile",
                f"to expect    {_shown_time(self.expected_seconds)} for {counted(self.epochs, 'epoch')} of"
                f" {counted(pace.steps, 'step')} and"
                f" {self.validation.steps} of validation",
            ]
        )


def try_training(spec: Spec) -> Trial:
    """Builds what `train` builds, in a temporary run, and runs a few steps of training and validation.

    Args:
        spec: checked.

    Raises:
        UsageError: if the spec is for several processes.
        MltoolError: whatever would stop the training before its first step.
    """
    with must_fit("it", IF_IT_DOES_NOT_FIT):
        return run_trial(spec)


def run_trial(spec: Spec) -> Trial:
    """The same, for those who go on without memory.

    Raises:
        OutOfMemory: if a device has too little.
    """
    with temporary_run(spec, "a trial") as run:
        setup = build_setup(run)
        record_setup(run, setup)
        loop = setup.loop
        training = _pace(loop, setup.pipeline, loop.train_steps)
        loop.reset_metrics()
        validation = _pace(loop, setup.validation, loop.evaluate_steps)
        return _told(setup, training, validation)


def _pace(loop: Measures, pipeline: Pipeline | Batches, run_steps: Callable[..., Any]) -> Pace:
    chunks, batches, epoch = Chunks(), pipeline.epoch(0), 0
    first, took = 0, []
    for number in range(1 + GROWING_CHUNKS + REPEATED_CHUNKS):
        if first == pipeline.steps:
            epoch, first = epoch + 1, 0
            batches = pipeline.epoch(epoch)
        count = chunks.next_length(pipeline.steps - first)
        seconds = _timed(loop, pipeline, run_steps, batches, count)
        if number <= GROWING_CHUNKS:
            chunks.took(count, seconds)
        took.append(_Chunk(count, samples_of(pipeline, first, count), seconds))
        first += count
    # The longest chunks are the most like those of a training, the calls of short ones cost more than their steps.
    longest = max(chunk.count for chunk in took[1:])
    alike = [chunk for chunk in took[1:] if 2 * chunk.count >= longest]
    return Pace(
        steps=pipeline.steps,
        compile_seconds=took[0].seconds,
        step_seconds=statistics.median(chunk.seconds / chunk.count for chunk in alike),
        samples_per_second=statistics.median(chunk.samples / chunk.seconds for chunk in alike),
        chunk=chunks.next_length(pipeline.steps),
    )


@dataclass(frozen=True)
class _Chunk:
    """Steps that ran in one call."""

    count: int
    samples: int
    seconds: float


def _timed(
    loop: Measures, pipeline: Pipeline | Batches, run_steps: Callable[..., Any], batches: Any, count: int
) -> float:
    tf = extras.tensorflow()
    started = time.perf_counter()
    with pipeline.reading():
        run_steps(batches, tf.constant(count, tf.int64))
        loop.running_loss()  # waits for the device
    return time.perf_counter() - started


def _told(setup: Setup, training: Pace, validation: Pace) -> Trial:
    summary, loop = setup.summary, setup.loop
    epochs = setup.spec.train.all_epochs
    of_one, batch_size = summary.all_activation_bytes.float32, setup.pipeline.batch_size
    compiling = training.compile_seconds * len(setup.phases) + validation.compile_seconds
    an_epoch = sum(pace.steps * pace.step_seconds for pace in (training, validation))
    return Trial(
        parameters=summary.parameters,
        trainable_parameters=sum(math.prod(weight.shape) for weight in loop.model.trainable_variables),
        weight_bytes=summary.weight_bytes.float32 or 0,
        optimizer_bytes=sum(math.prod(v.shape) * _size(v.dtype) for v in loop.optimizer.variables),
        activation_bytes=None if of_one is None else of_one * batch_size,
        peak_bytes=_peak_bytes(),
        gpu_bytes=gpu_bytes(),
        devices=device_names(),
        batch_size=batch_size,
        epochs=epochs,
        training=training,
        validation=validation,
        expected_seconds=compiling + epochs * an_epoch,
    )


def _size(dtype: Any) -> int:
    return int(extras.tensorflow().as_dtype(dtype).size)


def _peak_bytes() -> int:
    if sys.platform == "win32":
        return int(extras.require("psutil").Process().memory_info().peak_wset)
    import resource  # which Windows does not have

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak  # getrusage(2): kilobytes, on macOS bytes


def _shown_time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"

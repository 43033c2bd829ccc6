"""One attempt at a file: samples that calibrate, an engine, the file read back, its answers; nothing is kept here.

The verb keeps what holds (`convert.py`), the search compares what it tried (`search/`): both make files in this way.
"""

import logging
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mltool.benchmarking.benchmark import percentiles_of
from mltool.child import Child, ChildCrashed, ChildTimedOut, ChildTooLarge
from mltool.conversion.calibration import Calibration
from mltool.conversion.entries import float_layers_of
from mltool.conversion.origin import Origin
from mltool.conversion.read_back import ReadBack, read_back
from mltool.data.memory import free_memory_bytes
from mltool.errors import ConversionError, MachineError
from mltool.evaluation.judge import Measurements
from mltool.evaluation.reference import Reference, measure_file
from mltool.inference.outside import open_lite
from mltool.inference.predictor import Array
from mltool.spec.convert import ConvertSpec

logger = logging.getLogger("mltool")

CONVERTER = "mltool.conversion.engines.converter:convert_saved_model"
"""What the child is asked to call for what TensorFlow's converter makes."""

CONVERT_TIMEOUT_SECONDS = 1800.0
"""A conversion that takes longer is taken for hung."""

MEMORY_SHARE = 0.9
"""Of the memory that is free when a conversion begins; one that takes more is ended before the machine ends others."""

WARMUP_RUNS, LATENCY_RUNS = 10, 100
"""Calls of one sample before the first that counts, and that count: p90 then hangs on ten calls, not on one."""


class Workbench:
    """Makes files of one origin, in processes that stay warm.

    Args:
        origin: what is converted.
        converter: runs the engines.
        interpreter: runs the files: a crash of the converter is none of the interpreter's, and latency is measured
            without TensorFlow.
        scratch: a folder for what is in between.
    """

    def __init__(self, origin: Origin, converter: Child, interpreter: Child, scratch: Path) -> None:
        self.origin, self.converter, self.interpreter, self.scratch = origin, converter, interpreter, scratch

    def make(self, entry: ConvertSpec, output: Path) -> Calibration | None:
        """Makes the file of an entry.

        Returns:
            What calibrated it; None for schemes without.

        Raises:
            DataError: if there are no sound samples to calibrate with.
            ConversionError: if the engine fails, dies, hangs, or takes too much memory.
        """
        calibration = self.origin.calibration(entry) if entry.calibrated else None
        with tempfile.TemporaryDirectory(dir=self.scratch) as folder:
            representative = None
            if calibration is not None:
                representative = str(Path(folder) / "representative.npz")
                np.savez(representative, **self._as_core_takes(calibration.samples.first(len(calibration.samples))))
            self._convert(entry, output, representative)
        return calibration

    def _as_core_takes(self, arrays: Mapping[str, Any]) -> Mapping[str, Any]:
        """Text as its steps outside of the file make numbers of it."""
        for step in self.origin.core.steps:
            arrays = {**arrays, step.input: step(arrays[step.input])}
        return arrays

    def _convert(self, entry: ConvertSpec, output: Path, representative: str | None) -> None:
        core = self.origin.core
        self._call(
            entry,
            CONVERTER,
            saved_model=str(core.saved_model),
            signature=core.signature,
            output=str(output),
            quantize=entry.quantize,
            io=entry.io,
            batch=None if entry.batch == "dynamic" else entry.batch,
            representative=representative,
            keep_float=list(float_layers_of(entry, self.origin.schema)),
            layer_names=list(self.origin.layer_names),
        )

    def _call(self, entry: ConvertSpec, function: str, **arguments: Any) -> dict[str, Any]:
        """Calls an engine; what becomes of its process becomes a message."""
        memory = int(free_memory_bytes() * MEMORY_SHARE)
        try:
            answer: dict[str, Any] = self.converter.call(
                function, timeout_seconds=CONVERT_TIMEOUT_SECONDS, memory_bytes=memory, **arguments
            )
        except ChildCrashed as error:
            message = f"{entry.name}: the converter {error.status}"
            raise ConversionError(message, f"the last it said: {_last_line(error.output)}") from error
        except ChildTimedOut as error:
            message = f"{entry.name}: the converter did not answer in {error.timeout_seconds:g} s"
            raise ConversionError(message) from error
        except ChildTooLarge as error:
            message = f"{entry.name}: the converter took more than {error.memory_bytes / 1e9:.1f} GB and was ended"
            raise MachineError(message, "free memory, or convert where there is more") from error
        except ConversionError as error:
            raise named(entry, error) from error
        for message in answer["messages"]:
            logger.debug("%s: %s", entry.name, message)
        return answer

    def read_back(self, entry: ConvertSpec, made: Path) -> ReadBack:
        """What a file is, proven to be what the entry asks for.

        Raises:
            ConversionError: if it is something else.
        """
        try:
            return read_back(
                made,
                quantize=entry.quantize,
                io=entry.io,
                layer_names=self.origin.layer_names,
                preprocess_layers=[step.name for step in self.origin.schema.preprocessing],
                keep_float=float_layers_of(entry, self.origin.schema),
            )
        except ConversionError as error:
            raise named(entry, error) from error

    def measure(
        self,
        made: Path,
        reference: Reference,
        *,
        metric: str | None = None,
        latency: Mapping[str, float] | None = None,
    ) -> tuple[Measurements, Array]:
        """Runs a file on the samples of a reference; see `measure_file`."""
        return measure_file(
            made, reference, child=self.interpreter, metric=metric, latency=latency, steps=self.origin.core.steps
        )

    def latency(self, made: Path, reference: Reference) -> dict[str, float]:
        """Percentiles of one call with one sample on this host, milliseconds."""
        one = reference.samples.first(1)
        with open_lite(made, child=self.interpreter, steps=self.origin.core.steps) as predictor:
            return percentiles_of(predictor.latencies_ms(one, warmup=WARMUP_RUNS, runs=LATENCY_RUNS))


def named(entry: ConvertSpec, error: ConversionError) -> ConversionError:
    """The error with the entry in front, and without the temporary name of its file."""
    return ConversionError(replace(m, message=f"{entry.name}: {m.message}", file="") for m in error.messages)


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else "nothing"

"""Converts a run to `.tflite` files, reads each back, runs it against its model, and keeps what holds."""

import logging
import tempfile
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from mltool import extras
from mltool.benchmarking.benchmark import percentiles_of
from mltool.child import Child, ChildCrashed, ChildTimedOut
from mltool.conversion.calibration import Calibration, draw_representative, require_sound
from mltool.conversion.entries import ending_layers, float_layers_of, limits_of, tolerance_of
from mltool.conversion.read_back import ReadBack, read_back
from mltool.conversion.schemes import SCHEMES
from mltool.conversion.sources.core import Core, steps_outside, write_core
from mltool.data.dataset import Dataset
from mltool.errors import ConversionError, Message, MltoolError, VerificationError
from mltool.evaluation.evaluate import run_data
from mltool.evaluation.judge import judge
from mltool.evaluation.reference import Reference, add_answers, forget_answers, measure_file, reference_of
from mltool.evaluation.verify import require_from_training
from mltool.exporting.export import SIGNATURE, export_locked
from mltool.inference.litert import runtime_name
from mltool.inference.outside import open_lite
from mltool.inference.predictor import Array
from mltool.runs.atomic import sha256_of, write_json
from mltool.runs.lite import LiteFolder, LiteRecord
from mltool.runs.run import Run
from mltool.spec.convert import ConvertSpec
from mltool.spec.limits import LimitsSpec
from mltool.spec.spec import Spec, to_plain

logger = logging.getLogger("mltool")

CONVERTER = "mltool.conversion.engines.converter:convert_saved_model"
"""What the child is asked to call."""

CONVERT_TIMEOUT_SECONDS = 1800.0
"""A conversion that takes longer is taken for hung."""

WARMUP_RUNS, LATENCY_RUNS = 10, 100
"""Calls of one sample before the first that counts, and that count: p90 then hangs on ten calls, not on one."""


@dataclass(frozen=True)
class Converted:
    """One `.tflite` file that was made, or was there already.

    Attributes:
        path: of the file.
        record: what is known of it.
        made: False where equal inputs were converted before.
    """

    path: Path
    record: LiteRecord
    made: bool


def convert(
    run: Run,
    entries: Sequence[ConvertSpec] | None = None,
    *,
    limits: Mapping[str, Any] | None = None,
    verify: bool = True,
    force: bool = False,
) -> list[Converted]:
    """Makes the `.tflite` files of a run; a run without a SavedModel is exported first.

    Args:
        run: trained.
        entries: what to make; all of the spec's when left out.
        limits: keys of the `limits` section that replace the spec's and the entries' own.
        verify: run each file against the model that it came from; without it a file is marked `verified: false`.
        force: also where equal inputs were converted before.

    Raises:
        ConversionError: if the converter fails, or its file is not the scheme that was asked for.
        VerificationError: if a file does not answer as the model, or breaks a limit.
        DataError: if calibration data are unsound or leak from the test split.
        ArtifactError: if the run was not trained, or its model changed since.
        UsageError: if a limit holds a metric that the run does not measure.
    """
    chosen = run.spec.convert if entries is None else entries
    asked = [(entry, limits_of(entry, run.spec, limits or {})) for entry in chosen]
    # Two processes: a crash of the converter is none of the interpreter's, and latency is measured without TensorFlow.
    with run.locked(), Child() as converter, Child() as interpreter, tempfile.TemporaryDirectory() as scratch:
        export_locked(run)
        work = _Work(run, converter, interpreter, Path(scratch), verify=verify, force=force)
        return work.convert_all(asked)


class _Work:
    """The conversions of one command: warm processes and one reference for all entries."""

    def __init__(
        self, run: Run, converter: Child, interpreter: Child, scratch: Path, *, verify: bool, force: bool
    ) -> None:
        self.run, self.converter, self.interpreter = run, converter, interpreter
        self.verify, self.force = verify, force
        self.spec: Spec = run.spec
        self.lite = LiteFolder(run.lite_folder)
        self.schema = run.input_schema
        self.scratch = scratch

    @cached_property
    def data(self) -> Dataset:
        return run_data(self.run)

    @cached_property
    def core(self) -> Core:
        """What is converted: the SavedModel of the run, or its part behind the steps that take text."""
        if not steps_outside(self.schema):
            return Core(self.run.saved_model_folder)
        core = write_core(self.run.keras_file, self.schema, self.scratch / "core")
        names = ", ".join(step.name for step in core.steps)
        logger.info("LiteRT takes no text: %s is done outside of the files, with the vocabulary beside them", names)
        return core

    @cached_property
    def reference(self) -> Reference:
        return reference_of(self.run, self.data, keep=True)

    def convert_all(self, asked: Sequence[tuple[ConvertSpec, LimitsSpec]]) -> list[Converted]:
        """Every entry; what fails does not keep the others from being made, and fails the command at the end."""
        done: list[Converted] = []
        failures: list[MltoolError] = []
        for entry, limits in asked:
            try:
                done.append(self._convert(entry, limits))
            except MltoolError as error:
                failures.append(error)
        if failures:
            # The exit code is the first one's. Changed data, for one, fail every entry alike: said once.
            messages = dict.fromkeys(message for failure in failures for message in failure.messages)
            raise type(failures[0])(messages) from failures[0]
        return done

    def _convert(self, entry: ConvertSpec, limits: LimitsSpec) -> Converted:
        inputs = {
            "saved_model": self.run.artifact_hash(self.run.saved_model_folder),
            "entry": to_plain(entry),
            "limits": to_plain(limits),
            "seed": self.spec.seed,
            "tensorflow": extras.version_of("tensorflow"),
            "mltool": extras.version_of("mltool-tf"),
        }
        stage = f"convert/{entry.name}"
        path = self.lite.file(entry.name)
        if not self.force and self.run.stage_is_fresh(stage, inputs):
            record = self._there_already(entry.name)
            if record is not None:
                logger.info("%s is there already, from equal inputs; nothing to do (--force makes it again)", path)
                return Converted(path, record, made=False)
        started = time.perf_counter()
        record = self._make(entry, limits)
        self.run.record_artifact(path)
        self.run.record_stage(stage, inputs, time.perf_counter() - started)
        logger.info("%s: %s bytes, %s", path, f"{record.bytes:,}", "verified" if record.verified else "not verified")
        return Converted(path, record, made=True)

    def _there_already(self, name: str) -> LiteRecord | None:
        """The record of a file that need not be made again; None where it or its verification is missing.

        Raises:
            ArtifactError: if the file was changed.
        """
        if not self.lite.file(name).is_file() or not self.lite.record_file(name).is_file():
            return None
        self.run.require_unchanged(self.lite.file(name))
        record = self.lite.require_unchanged(name)
        return record if record.verified or not self.verify else None

    def _make(self, entry: ConvertSpec, limits: LimitsSpec) -> LiteRecord:
        self.lite.folder.mkdir(parents=True, exist_ok=True)
        made = self.lite.folder / f".{entry.name}.{uuid.uuid4().hex[:8]}.part"
        calibration = self._calibration(entry)
        try:
            self._call_converter(entry, made, calibration)
            record = LiteRecord(
                name=entry.name,
                quantize=entry.quantize,
                io=entry.io,
                batch=entry.batch,
                sha256=sha256_of(made),
                bytes=made.stat().st_size,
                source={"artifact": "saved_model/1", "sha256": self.run.artifact_hash(self.run.saved_model_folder)},
                calibration=calibration.to_json() if calibration else {},
                limits=to_plain(limits),
                tolerance=asdict(tolerance_of(entry)),
                outside=[step.name for step in self.core.steps],
            )
            try:
                record = replace(record, read_back=self._read_back(entry, made).to_json())
            except ConversionError as error:
                self._reject(made, replace(record, error=str(error)))
                raise
            answers = None
            if self.verify:
                record, answers = self._verified(entry, made, record, limits)
            return self._keep(made, record, answers)
        finally:
            made.unlink(missing_ok=True)

    def _verified(
        self, entry: ConvertSpec, made: Path, record: LiteRecord, limits: LimitsSpec
    ) -> tuple[LiteRecord, Array]:
        """Runs the file against its model; its record and its answers to vectors.npz, or it goes to rejected/."""
        latency = self._latency(made)
        found, answers = measure_file(
            made,
            self.reference,
            child=self.interpreter,
            metric=limits.metric,
            latency=latency,
            steps=self.core.steps,
        )
        checks = judge(limits, tolerance_of(entry), found)
        broken = [Message(f"{entry.name}: {check.limit}: {check.message}") for check in checks if not check.kept]
        record = replace(
            record,
            metric=found.metric_json(),
            agreement=found.agreement_json(),
            latency_ms=latency,
            runtime=runtime_name(),
            checks=[check.to_json() for check in checks],
            verified=not broken,
            error="; ".join(message.message for message in broken) or None,
        )
        if broken:
            where = self._reject(made, record)
            raise VerificationError(replace(message, hint=f"the file is in {where}") for message in broken)
        return record, answers

    def _keep(self, made: Path, record: LiteRecord, answers: Array | None) -> LiteRecord:
        """Gives a file its name; its record comes last."""
        self.lite.place(made, record.name)
        self.lite.write_schema(self.schema)
        for file, vocabulary in self.core.vocabularies:
            write_json(self.lite.folder / file, vocabulary.to_json())
        if answers is None:
            forget_answers(self.lite, record.name)
        else:
            add_answers(self.lite, record.name, self.reference, answers)
        self.lite.save_record(record)
        self.lite.forget_rejected(record.name)
        return record

    def _reject(self, made: Path, record: LiteRecord) -> Path:
        """A file that broke the contract; an older one of its name would be taken for it."""
        self.lite.remove(record.name)
        self.run.forget_artifact(self.lite.file(record.name))
        return self.lite.reject(made, record)

    def _calibration(self, entry: ConvertSpec) -> Calibration | None:
        if not SCHEMES[entry.quantize].calibrated:
            return None
        calibration = draw_representative(self.data, entry.representative, self.spec.seed)
        # What was drawn is not trusted either: the promise is about samples, not about the function that draws them.
        require_from_training(calibration.samples.ids, calibration.hashes, self.run.load_splits())
        ranges = {
            info.name: (info.minimum, info.maximum)
            for info in self.schema.inputs
            if info.minimum is not None and info.maximum is not None
        }
        require_sound(calibration.samples, ranges)
        return calibration

    def _call_converter(self, entry: ConvertSpec, output: Path, calibration: Calibration | None) -> None:
        with tempfile.TemporaryDirectory() as folder:
            representative = None
            if calibration is not None:
                representative = str(Path(folder) / "representative.npz")
                arrays: Mapping[str, Any] = calibration.samples.first(len(calibration.samples))
                for step in self.core.steps:
                    arrays = {**arrays, step.input: step(arrays[step.input])}
                np.savez(representative, **arrays)
            arguments = {
                "saved_model": str(self.core.saved_model),
                "signature": SIGNATURE,
                "output": str(output),
                "quantize": entry.quantize,
                "io": entry.io,
                "batch": None if entry.batch == "dynamic" else entry.batch,
                "representative": representative,
                "keep_float": list(float_layers_of(entry, self.schema)),
                "layer_names": list(self._layer_names()),
                "scratch": str(self.scratch),
            }
            try:
                answer = self.converter.call(CONVERTER, timeout_seconds=CONVERT_TIMEOUT_SECONDS, **arguments)
            except ChildCrashed as error:
                message = f"{entry.name}: the converter {error.status}"
                raise ConversionError(message, f"the last it said: {_last_line(error.output)}") from error
            except ChildTimedOut as error:
                message = f"{entry.name}: the converter did not answer in {error.timeout_seconds:g} s"
                raise ConversionError(message) from error
            except ConversionError as error:
                raise _named(entry, error) from error
        for message in answer["messages"]:
            logger.debug("%s: %s", entry.name, message)

    def _read_back(self, entry: ConvertSpec, made: Path) -> ReadBack:
        try:
            return read_back(
                made,
                quantize=entry.quantize,
                io=entry.io,
                layer_names=self._layer_names(),
                preprocess_layers=[step.name for step in self.schema.preprocessing],
                keep_float=float_layers_of(entry, self.schema),
            )
        except ConversionError as error:
            raise _named(entry, error) from error

    def _layer_names(self) -> tuple[str, ...]:
        """The layers of the model, preprocessing first."""
        inside = [step.name for step in self.schema.preprocessing if not step.takes_text]
        return tuple(dict.fromkeys([*inside, *self.spec.model.own_names, *ending_layers(self.schema)]))

    def _latency(self, made: Path) -> dict[str, float]:
        one = self.data.take(self.data.splits.test[:1]).inputs
        with open_lite(made, child=self.interpreter, steps=self.core.steps) as predictor:
            return percentiles_of(predictor.latencies_ms(one, warmup=WARMUP_RUNS, runs=LATENCY_RUNS))


def _named(entry: ConvertSpec, error: ConversionError) -> ConversionError:
    """The error with the entry in front, and without the temporary name of its file."""
    return ConversionError(replace(m, message=f"{entry.name}: {m.message}", file="") for m in error.messages)


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else "nothing"

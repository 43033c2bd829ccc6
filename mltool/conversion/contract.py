"""The one contract of every scheme: what is made is read back, run against its model, judged; then kept or rejected."""

import uuid
from dataclasses import asdict, replace
from pathlib import Path

from mltool.conversion.calibration import Calibration
from mltool.conversion.entries import tolerance_of
from mltool.conversion.origin import Origin
from mltool.conversion.workbench import Workbench
from mltool.errors import ConversionError, Message, VerificationError
from mltool.evaluation.judge import judge
from mltool.evaluation.reference import add_answers, forget_answers
from mltool.inference.litert import runtime_name
from mltool.inference.predictor import Array
from mltool.runs.atomic import sha256_of, write_json
from mltool.runs.lite import LiteFolder, LiteRecord
from mltool.runs.run import Run
from mltool.spec.convert import ConvertSpec
from mltool.spec.limits import LimitsSpec
from mltool.spec.spec import to_plain


class Shelf:
    """Where files of an origin are kept, each with its record and all that a device needs.

    Args:
        lite: the folder.
        origin: of the files.
        run: that the folder lies in; None for a model of somebody else's.
    """

    def __init__(self, lite: LiteFolder, origin: Origin, run: Run | None = None) -> None:
        self.lite, self.origin, self.run = lite, origin, run

    def part(self, name: str) -> Path:
        """A name for a file that is being made."""
        self.lite.folder.mkdir(parents=True, exist_ok=True)
        return self.lite.folder / f".{name}.{uuid.uuid4().hex[:8]}.part"

    def keep(self, made: Path, record: LiteRecord, answers: Array | None) -> None:
        """Gives a file its name; its record comes last.

        Args:
            made: the file.
            record: of it.
            answers: to the samples of vectors.npz; None where it was not run.
        """
        core = self.origin.core
        self.lite.place(made, record.name)
        self.lite.write_schema(self.origin.schema)
        for file, vocabulary in core.vocabularies:
            write_json(self.lite.folder / file, vocabulary.to_json())
        if answers is None:
            forget_answers(self.lite, record.name)
        else:
            add_answers(self.lite, record.name, self.origin.reference, answers)
        self.lite.save_record(record)
        self.lite.forget_rejected(record.name)

    def reject(self, made: Path, record: LiteRecord) -> Path:
        """Puts a file that broke the contract aside; an older one of its name would be taken for it."""
        self.lite.remove(record.name)
        if self.run is not None:
            self.run.forget_artifact(self.lite.file(record.name))
        return self.lite.reject(made, record)


class Contract:
    """Makes files that are what was asked for, and answer as their model.

    Args:
        bench: that makes and measures.
        shelf: that keeps.
        verify: run each file against its model; without it a file is marked `verified: false`.
    """

    def __init__(self, bench: Workbench, shelf: Shelf, *, verify: bool = True) -> None:
        self.bench, self.shelf, self.verify = bench, shelf, verify

    def fulfil(self, entry: ConvertSpec, limits: LimitsSpec) -> LiteRecord:
        """Makes and keeps the file of an entry.

        Raises:
            ConversionError: if it cannot be made, or is not what was asked for; the file is in rejected/ then.
            VerificationError: if it does not answer as its model, or breaks a limit; likewise.
        """
        made = self.shelf.part(entry.name)
        try:
            record = self._described(entry, made, self.bench.make(entry, made), limits)
            try:
                record = replace(record, read_back=self.bench.read_back(entry, made).to_json())
            except ConversionError as error:
                self.shelf.reject(made, replace(record, error=str(error)))
                raise
            answers = None
            if self.verify and not record.accuracy_unknown:
                record, answers = self._verified(entry, made, record, limits)
            self.shelf.keep(made, record, answers)
            return record
        finally:
            made.unlink(missing_ok=True)

    def _described(
        self, entry: ConvertSpec, made: Path, calibration: Calibration | None, limits: LimitsSpec
    ) -> LiteRecord:
        """What is known of a file before it is read."""
        origin = self.bench.origin
        return LiteRecord(
            name=entry.name,
            quantize=entry.quantize,
            io=entry.io,
            batch=entry.batch,
            sha256=sha256_of(made),
            bytes=made.stat().st_size,
            source=origin.record,
            calibration=calibration.to_json() if calibration else {},
            accuracy_unknown=entry.calibration == "random",
            limits=to_plain(limits),
            tolerance=asdict(tolerance_of(entry)),
            outside=[step.name for step in origin.core.steps],
        )

    def _verified(
        self, entry: ConvertSpec, made: Path, record: LiteRecord, limits: LimitsSpec
    ) -> tuple[LiteRecord, Array]:
        """Runs the file against its model; its record and its answers to vectors.npz, or it goes to rejected/."""
        reference = self.bench.origin.reference
        latency = self.bench.latency(made, reference)
        found, answers = self.bench.measure(made, reference, metric=limits.metric, latency=latency)
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
            where = self.shelf.reject(made, record)
            raise VerificationError(replace(message, hint=f"the file is in {where}") for message in broken)
        return record, answers

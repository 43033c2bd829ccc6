"""The one contract of every scheme: what is made is read back, run against its model, judged; then kept or rejected."""

import contextlib
import logging
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from mltool import console
from mltool.conversion.engines.recipe import Recipe, write_recipe
from mltool.conversion.entries import scheme_of, tolerance_of
from mltool.conversion.explain.explain import SAMPLES, explain
from mltool.conversion.explain.records import Explanation
from mltool.conversion.explain.rows import COLUMNS, MOST_LAYERS, lines, rows
from mltool.conversion.origin import Origin
from mltool.conversion.search.search import search
from mltool.conversion.search.trial import SearchResult
from mltool.conversion.workbench import Made, Workbench, named
from mltool.errors import ArtifactError, ConversionError, DiskError, Message, VerificationError
from mltool.evaluation.judge import Check, Measurements, judge, range_checks, size_checks
from mltool.evaluation.reference import add_answers, forget_answers
from mltool.inference.litert import runtime_name
from mltool.inference.predictor import Array
from mltool.runs.atomic import sha256_of, write_json, writing
from mltool.runs.lite import LiteFolder, LiteRecord, artifact_key, trained_key
from mltool.runs.run import Run
from mltool.spec.convert import ConvertSpec
from mltool.spec.limits import LimitsSpec
from mltool.spec.spec import to_plain

logger = logging.getLogger("mltool")

LOST_ANSWERS = {"max_drop", "max_error", "mean_error", "same_answer", "constant", "finite"}
"""Checks that a file breaks because its layers lose the answers."""

MOST_TOLD = 3
"""Files that a message names when none keeps the limits."""


@dataclass
class Beside:
    """What lies beside a file and belongs to it; each only where there is one.

    Attributes:
        search: what was tried before it was chosen.
        recipe: that the quantizer followed.
        explanation: which of its layers lose the answers.
        keras: the model that was trained on for it.
    """

    search: dict[str, Any] | None = None
    recipe: Recipe | None = None
    explanation: Explanation | None = None
    keras: Path | None = None

    def write(self, lite: LiteFolder, name: str) -> None:
        """Writes it all into a folder."""
        if self.search is not None:
            write_json(lite.search_file(name), self.search)
        if self.recipe is not None:
            write_recipe(lite.recipe_file(name), self.recipe)
        if self.explanation is not None:
            write_json(lite.explain_file(name), self.explanation.to_json())
        if self.keras is not None:
            with writing(lite.keras_file(name)) as temporary:
                shutil.copy(self.keras, temporary)


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
        self.make_folder()
        return self.lite.folder / f".{name}.{uuid.uuid4().hex[:8]}.part"

    def keep(self, made: Path, record: LiteRecord, answers: Mapping[str, Array], beside: Beside) -> None:
        """Gives a file its name; its record comes last.

        Args:
            made: the file.
            record: of it.
            answers: to the samples of vectors.npz, by key; empty where it was not run.
            beside: what belongs to it.
        """
        core = self.origin.core
        if not record.verified:
            self._tell_of_older(record.name, "replaced by one that is not verified")
        self.lite.place(made, record.name)
        beside.write(self.lite, record.name)
        self.lite.write_schema(self.origin.schema)
        for file, vocabulary in core.vocabularies:
            write_json(self.lite.folder / file, vocabulary.to_json())
        if answers:
            add_answers(self.lite, self.origin.reference, answers)
        else:
            forget_answers(self.lite, record.name)
        self.lite.save_record(record)
        self.lite.forget_rejected(record.name)

    def forget(self, name: str) -> None:
        """Removes an older file of a name, and what belongs to it; said, where it was verified."""
        self.make_folder()
        self._tell_of_older(name, "taken away")
        self.lite.remove(name)
        if self.run is not None:
            self.run.forget_artifact(self.lite.file(name))

    def _tell_of_older(self, name: str, fate: str) -> None:
        """A file that was good must not go in silence."""
        if not (self.lite.file(name).is_file() and self.lite.record_file(name).is_file()):
            return
        with contextlib.suppress(ArtifactError):
            if self.lite.load_record(name).verified:
                logger.warning("%s, which was verified before, is %s", self.lite.file(name), fate)

    def make_folder(self) -> None:
        """Makes the folder if it is not there.

        Raises:
            ArtifactError: if a file has its name.
            DiskError: if it cannot be made there.
        """
        try:
            self.lite.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            message = f"{self.lite.folder} cannot be made a folder: {error.strerror}"
            in_the_way = isinstance(error, FileExistsError | NotADirectoryError)
            kind = ArtifactError if in_the_way else DiskError
            raise kind(message, "name another one: --output DIR") from error

    def reject(self, made: Path, record: LiteRecord, beside: Beside) -> Path:
        """Puts a file that broke the contract aside; an older one of its name would be taken for it."""
        self.forget(record.name)
        where = self.lite.reject(made, record)
        beside.write(LiteFolder(self.lite.rejected_folder), record.name)
        if beside.explanation is not None:  # that of a file that is kept is the command's result
            for text in (*lines(beside.explanation), console.table(COLUMNS, rows(beside.explanation, MOST_LAYERS))):
                logger.info("%s", text)
        return where


class Contract:
    """Makes files that are what was asked for, and answer as their model.

    Args:
        bench: that makes and measures.
        shelf: that keeps.
        verify: run each file against its model; without it a file is marked `verified: false`.
        explains: tell of each file which layers lose the answers.
    """

    def __init__(self, bench: Workbench, shelf: Shelf, *, verify: bool = True, explains: bool = False) -> None:
        self.bench, self.shelf, self.verify, self.explains = bench, shelf, verify, explains

    def fulfil(self, entry: ConvertSpec, limits: LimitsSpec) -> LiteRecord:
        """Makes and keeps the file of an entry.

        Raises:
            ConversionError: if it cannot be made, or is not what was asked for; the file is in rejected/ then.
            VerificationError: if it does not answer as its model, or breaks a limit; likewise. If a search found
                nothing that keeps the limits.
        """
        beside, again = Beside(), entry
        winner = self._winner(entry, limits, beside) if entry.quantize == "auto" else None
        part = self.shelf.part(entry.name)
        try:
            if winner is None:
                made = self.bench.make(entry, part)
            else:
                # Under its own name it is made again: `auto` is none that an entry of another scheme may have.
                again = winner.entry
                shutil.copy(winner.file, part)
                made = replace(winner, entry=again.model_copy(update={"name": entry.name}), file=part)
            beside.recipe, beside.keras = made.recipe, made.keras
            record = self._described(made, again, limits)
            if self.explains:
                beside.explanation = self._explained(made)
            try:
                record = replace(record, read_back=self.bench.read_back(made).to_json())
            except ConversionError as error:
                self.shelf.reject(part, replace(record, error=str(error)), beside)
                raise
            answers: dict[str, Array] = {}
            if self.verify and not record.accuracy_unknown:
                record, answers = self._verified(made, record, limits, beside)
            else:
                self._require_size(record, limits, beside, part)
            self.shelf.keep(part, record, answers, beside)
            return record
        finally:
            part.unlink(missing_ok=True)

    def _winner(self, asked: ConvertSpec, limits: LimitsSpec, beside: Beside) -> Made:
        """The file that a search chose, as it was made there.

        Raises:
            VerificationError: if nothing keeps the limits.
        """
        found = search(self.bench, asked, limits)
        if found.winner is None or found.winner.made is None:
            self.shelf.forget(asked.name)  # an older winner would be taken for this search's
            where = self.shelf.lite.search_file(asked.name)
            write_json(where, found.to_json())
            raise VerificationError(nothing_keeps(found, asked.name, str(where)))
        best, tried = found.winner.candidate.name, len(found.trials)
        logger.info("%s: %s is the best of %d files that were tried", asked.name, best, tried)
        beside.search = found.to_json()
        return found.winner.made

    def _described(self, made: Made, again: ConvertSpec, limits: LimitsSpec) -> LiteRecord:
        """What is known of a file before it is read; `again` is the entry that makes the same one."""
        origin, entry = self.bench.origin, made.entry
        return LiteRecord(
            name=entry.name,
            quantize=scheme_of(entry) if entry.quantize != "qat" else entry.quantize,
            io=entry.io,
            batch=entry.batch,
            sha256=sha256_of(made.file),
            bytes=made.file.stat().st_size,
            source=origin.record,
            calibration=made.calibration.to_json() if made.calibration else {},
            accuracy_unknown=entry.calibration == "random",
            limits=to_plain(limits),
            tolerance=asdict(tolerance_of(entry)),
            entry=again.written,
            recipe=list(made.recipe or ()),
            training=dict(made.training),
            outside=[step.name for step in origin.core.steps],
        )

    def _verified(
        self, made: Made, record: LiteRecord, limits: LimitsSpec, beside: Beside
    ) -> tuple[LiteRecord, dict[str, Array]]:
        """Runs the file against its model; its record and answers for vectors.npz, or it goes to rejected/."""
        reference = self.bench.held_against(made, self.bench.origin.reference)
        try:
            latency = self.bench.latency(made.file, reference)
            found, answers = self.bench.measure(made.file, reference, metric=limits.metric, latency=latency)
        except ConversionError as error:
            self.shelf.reject(made.file, replace(record, error=str(error)), beside)
            raise named(made.entry, error) from error
        checks = judge(limits, tolerance_of(made.entry), found)
        name = record.name
        broken = [Message(f"{name}: {check.limit}: {check.message}") for check in checks if not check.kept]
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
            where = self.shelf.reject(made.file, record, beside)
            hint = f"the file is in {where}"
            loses = {check.limit.rpartition(": ")[2] for check in checks if not check.kept} & LOST_ANSWERS
            if loses and not self.explains and record.quantize not in ("none", "float16"):
                hint += "; --explain says which layers lose the answers"
                hint += "" if beside.search is not None else ", --quantize auto looks for a better file"
            if loses and beside.search is not None:
                scored = beside.search["samples"]
                hint += f"; {scored} validation samples chose it: more of them, or a smaller max_drop, choose better"
            breaks_itself = {check.limit for check in _of_model(limits, found) if not check.kept}
            if breaks_itself and found.reference is not None:
                hint += f"; the model itself has {found.reference:.4f}"
            raise VerificationError(replace(message, hint=hint) for message in broken)
        vectors = {artifact_key(name): answers}
        if made.keras is not None:
            vectors[trained_key(name)] = reference.outputs[: len(answers)]
        return record, vectors

    def _require_size(self, record: LiteRecord, limits: LimitsSpec, beside: Beside, made: Path) -> None:
        """The one limit that needs no run."""
        for check in size_checks(limits, record.bytes):
            if check.kept:
                continue
            message = f"{record.name}: {check.limit}: {check.message}"
            where = self.shelf.reject(made, replace(record, error=message), beside)
            raise VerificationError(message, f"the file is in {where}")

    def _explained(self, made: Made) -> Explanation | None:
        """Which layers of a file lose the answers, said; None, said, where that cannot be measured."""
        if made.keras is not None:
            text = "%s: its layers are not measured: they learned, and the float file of the run is no yardstick"
            logger.warning(text, made.entry.name)
            return None
        reference = self.bench.origin.reference
        try:
            found = explain(
                made.entry.name,
                float_file=self.bench.float_file(made.entry),
                quantized_file=made.file,
                samples=self.bench.as_core_takes(reference.samples.first(SAMPLES)),
                layer_names=made.layer_names,
                child=self.bench.interpreter,
            )
        except ArtifactError as error:
            logger.warning("%s: its layers cannot be measured: %s", made.entry.name, error.messages[0].message)
            return None
        return found


def _of_model(limits: LimitsSpec, found: Measurements) -> list[Check]:
    """`min` and `max` for the model that the file was made of."""
    return [] if found.reference is None else range_checks(limits, str(found.metric), found.reference)


def nothing_keeps(found: SearchResult, name: str, where: str) -> list[Message]:
    """Why a search has no winner: what the nearest files break."""
    made = [trial for trial in found.trials if trial.bytes is not None]
    made.sort(key=lambda trial: (len(trial.why_not), *trial.cost(found.minimize)))
    nearest = [f"{trial.candidate.name} ({'; '.join(trial.why_not)})" for trial in made[:MOST_TOLD]]
    reasons = nearest or [f"{trial.candidate.name}: {trial.error}" for trial in found.trials[:MOST_TOLD]]
    message = f"{name}: none of {len(found.trials)} files keeps the limits on {found.samples} validation samples"
    return [Message(f"{message}: {'; '.join(reasons)}", f"ask for less, or look at {where}")]

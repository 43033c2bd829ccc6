"""Converts a run to `.tflite` files, reads each back, runs it against its model, and keeps what holds."""

import logging
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from mltool import extras
from mltool.child import Child
from mltool.conversion.contract import Contract, Shelf
from mltool.conversion.entries import limits_of
from mltool.conversion.origin import RunOrigin
from mltool.conversion.workbench import Workbench
from mltool.errors import ArtifactError, MltoolError, raise_all, tried
from mltool.exporting.export import export_locked
from mltool.runs.atomic import sha256_of
from mltool.runs.lite import LiteFolder, LiteRecord
from mltool.runs.run import Run
from mltool.spec.convert import ConvertSpec, is_recipe
from mltool.spec.limits import LimitsSpec
from mltool.spec.spec import to_plain

logger = logging.getLogger("mltool")

_T = TypeVar("_T")


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
    explain: bool = False,
) -> list[Converted]:
    """Makes the `.tflite` files of a run; a run without a SavedModel is exported first.

    Args:
        run: trained.
        entries: what to make; all of the spec's when left out.
        limits: keys of the `limits` section that replace the spec's and the entries' own.
        verify: run each file against the model that it came from; without it a file is marked `verified: false`.
        force: also where equal inputs were converted before.
        explain: tell of each file which layers lose the answers; a file that was not explained is made again.

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
        bench = Workbench(RunOrigin(run, Path(scratch)), converter, interpreter, Path(scratch))
        return each(asked, _Work(run, bench, verify=verify, force=force, explains=explain).convert)


MAKERS = (
    *("mltool-tf", "tensorflow", "ai-edge-litert", "litert-quantizer", "tf-keras"),
    "tensorflow-model-optimization",
)
"""Packages of which another version may make another file."""


def _hash_of_recipe(entry: ConvertSpec) -> str | None:
    """Of the file that an entry names.

    Raises:
        ArtifactError: if it is gone.
    """
    if not is_recipe(entry.quantize):
        return None
    if not Path(entry.quantize).is_file():
        raise ArtifactError(f"{entry.name}: the recipe {entry.quantize} is not there", "put it back, or name another")
    return sha256_of(Path(entry.quantize))


class _Work:
    """The entries of one command: what is there already, and what is made."""

    def __init__(self, run: Run, bench: Workbench, *, verify: bool, force: bool, explains: bool) -> None:
        self.run, self.verify, self.force, self.explains = run, verify, force, explains
        self.lite = LiteFolder(run.lite_folder)
        self.contract = Contract(bench, Shelf(self.lite, bench.origin, run), verify=verify, explains=explains)

    def convert(self, entry: ConvertSpec, limits: LimitsSpec) -> Converted:
        """One entry; nothing to do where equal inputs were converted before."""
        inputs = {
            "saved_model": self.run.artifact_hash(self.run.saved_model_folder),
            "entry": to_plain(entry),
            "recipe": _hash_of_recipe(entry),
            "limits": to_plain(limits),
            "seed": self.run.spec.seed,
            "versions": {name: extras.version_of(name) for name in MAKERS},
        }
        stage = f"convert/{entry.name}"
        path = self.lite.file(entry.name)
        if not self.force and self.run.stage_is_fresh(stage, inputs):
            record = self._there_already(entry.name)
            if record is not None:
                logger.info("%s is there already, from equal inputs; nothing to do (--force makes it again)", path)
                return Converted(path, record, made=False)
        started = time.perf_counter()
        record = self.contract.fulfil(entry, limits)
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
        if self.explains and not self.lite.explain_file(name).is_file():
            return None
        return record if record.verified or record.accuracy_unknown or not self.verify else None


def each(asked: Sequence[tuple[ConvertSpec, LimitsSpec]], make: Callable[[ConvertSpec, LimitsSpec], _T]) -> list[_T]:
    """Every entry; what fails does not keep the others from being made, and fails the command at the end.

    Raises:
        MltoolError: of the first that failed, with the messages of all.
    """
    failures: list[MltoolError] = []
    done = list(tried(asked, lambda one: make(*one), failures))
    raise_all(failures)
    return done

"""Proves that artifacts answer as the model that they came from: hashes, calibration, replay, metric, limits."""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mltool import extras
from mltool.child import Child
from mltool.errors import (
    ArtifactError,
    DataError,
    Message,
    MissingExtraError,
    MltoolError,
    VerificationError,
    raise_all,
    tried,
)
from mltool.evaluation.agreement import compare_answers, worst_of
from mltool.evaluation.evaluate import output_of, run_data
from mltool.evaluation.judge import Check, Tolerance, judge, range_checks, size_checks
from mltool.evaluation.reference import Reference, measure_file, recorded_reference, reference_for, reference_of
from mltool.inference.outside import open_lite
from mltool.inference.predictor import Array
from mltool.runs.find import run_of
from mltool.runs.lite import LiteFolder, LiteRecord, artifact_key, input_key
from mltool.runs.run import Run
from mltool.spec.convert import CALIBRATED
from mltool.spec.limits import LimitsSpec

logger = logging.getLogger("mltool")


@dataclass(frozen=True)
class ArtifactVerdict:
    """What verification found of one artifact.

    Attributes:
        name: of the file, without its ending.
        path: of the file.
        checks: every limit, kept or broken.
        metric_measured: whether the metric was measured again; on a device without the data it was not.
        made_up: whether the file was only ever held against its model on samples that are made up.
    """

    name: str
    path: Path
    checks: tuple[Check, ...]
    metric_measured: bool
    made_up: bool = False

    @property
    def kept(self) -> bool:
        """Whether every check was kept."""
        return all(check.kept for check in self.checks)

    def to_json(self) -> dict[str, Any]:
        """As `--json` prints it."""
        checks = [check.to_json() for check in self.checks]
        return {
            "artifact": str(self.path),
            "kept": self.kept,
            "metric_measured": self.metric_measured,
            "made_up": self.made_up,
            "checks": checks,
        }


def verify(target: Run | Path) -> list[ArtifactVerdict]:
    """Verifies every `.tflite` file of a run or a folder, or one file.

    Each file is held against its recorded hash, its calibration against the splits, its answers to the vectors against
    those that were recorded (bit for bit on the same runtime, else within the scheme's tolerance), and, where the data
    of the run are at hand, its metric on the whole test split against the Keras model's.

    Args:
        target: a run, a folder with `.tflite` files, or one such file.

    Raises:
        ArtifactError: if a file is missing, damaged or changed.
        DataError: if calibration took test samples.
        VerificationError: if a file does not answer as it did, or breaks a limit.
        MltoolError: of several that fail, the class of the first, with the messages of all.
    """
    run, lite, names = _what(target)
    if not names:
        raise ArtifactError(f"{lite.folder} holds no .tflite file", "mltool convert makes them")
    failures: list[MltoolError] = []
    records = list(tried(names, lambda name: _sound_record(run, lite, name), failures))
    references = [] if run is None or not records else list(tried([run], lambda one: _reference(one, lite), failures))
    if run is not None and not references:
        raise_all(failures)  # nothing to hold the files against
    reference = references[0] if references else None
    with Child() as child:
        verdicts = list(tried(records, lambda record: _verify_file(lite, record, reference, child), failures))
    for verdict in verdicts:
        broken = [_message(verdict, check) for check in verdict.checks if not check.kept]
        if broken:
            failures.append(VerificationError(broken))
        elif len(names) > 1:
            logger.info("%s: holds", verdict.path)
    raise_all(failures)
    return verdicts


def _sound_record(run: Run | None, lite: LiteFolder, name: str) -> LiteRecord:
    """The record of a file that is the one it is of, calibrated with training samples alone."""
    record = lite.require_unchanged(name)
    if run is not None:
        run.require_unchanged(lite.file(name))
        _require_clean_calibration(run, record)
    return record


def _message(verdict: ArtifactVerdict, check: Check) -> Message:
    hint = "convert it again"
    if check.limit == UNVERIFIED:
        hint = "mltool convert, without --no-verify and with calibration: training, makes one that is verified"
    return Message(f"{verdict.path.name}: {check.limit}: {check.message}", hint)


def _what(target: Run | Path) -> tuple[Run | None, LiteFolder, list[str]]:
    """The run, the folder, and the names of the files in it that are meant."""
    if not isinstance(target, Run) and (target / "run.json").is_file():
        target = Run.open(target)
    if isinstance(target, Run):
        lite = LiteFolder(target.lite_folder)
        return target, lite, lite.names()
    if target.is_dir():
        lite = LiteFolder(target)
        return run_of(target / "any"), lite, lite.names()
    if target.suffix != ".tflite":
        raise ArtifactError(f"{target} is no .tflite file", "verify takes a run, a lite/ folder or a .tflite file")
    lite = LiteFolder(target.parent)
    if target.absolute().parent.name == "rejected":
        raise VerificationError(f"{target} was rejected when it was made", f"see {target.with_suffix('.json')}")
    return run_of(target), lite, [target.stem]


def _require_clean_calibration(run: Run, record: LiteRecord) -> None:
    """A test sample among those that calibrated a file makes its metric worthless."""
    if record.accuracy_unknown or (not record.calibration and not _was_calibrated(record)):
        return  # random numbers are no samples; such a file is not held to be verified
    try:
        # No record is as bad as a wrong one: nothing else says what calibrated the file.
        ids = np.asarray(record.calibration["ids"], dtype=np.int64)
        hashes = np.asarray([int(text, 16) for text in record.calibration["hashes"]], dtype=np.uint64)
    except (KeyError, ValueError, TypeError, OverflowError) as error:
        raise ArtifactError(
            f"the calibration in the record of {record.name} is damaged: {error}", "convert it again"
        ) from error
    try:
        require_from_training(ids, hashes, run.load_splits())
    except DataError as error:
        messages = [replace(message, message=f"{record.name}: {message.message}") for message in error.messages]
        raise DataError(messages) from error


def _was_calibrated(record: LiteRecord) -> bool:
    """Whether samples calibrated a file, whatever its record says of them: so does every recipe, and a mixture may."""
    layers = record.entry.get("layers")
    schemes = layers.values() if isinstance(layers, dict) else ()
    return record.quantize in (*CALIBRATED, "recipe") or any(
        scheme in CALIBRATED for scheme in (record.entry.get("quantize"), *schemes)
    )


def require_from_training(ids: Array, hashes: Array, stored: Mapping[str, Array]) -> None:
    """Proves that calibration samples are training samples, and none of them a test or validation sample.

    Args:
        ids: int64, positions in the source.
        hashes: uint64, identities of their inputs.
        stored: `splits.npz` of the run.

    Raises:
        DataError: naming the split that leaked.
    """
    for split in ("test", "validation"):
        leaked = np.isin(ids, stored[f"{split}_ids"]) | np.isin(hashes, stored[f"{split}_hashes"])
        if leaked.any():
            count, first = int(leaked.sum()), int(ids[leaked][0])
            message = f"{count} of {len(ids)} calibration samples are {split} samples (first: {first})"
            raise DataError(message, "calibration takes training data only")
    unknown = ~np.isin(ids, stored["train_ids"])
    if unknown.any():
        raise DataError(f"{int(unknown.sum())} calibration samples are in no split (first: {int(ids[unknown][0])})")
    recorded = dict(zip(stored["train_ids"].tolist(), stored["train_hashes"].tolist(), strict=True))
    other = [number for number, found in zip(ids.tolist(), hashes.tolist(), strict=True) if recorded[number] != found]
    if other:
        raise DataError(
            f"{len(other)} calibration samples are not the training samples of that number (first: {other[0]})"
        )


def _reference(run: Run, lite: LiteFolder) -> Reference | None:
    """The Keras model on the test split, run or as recorded; None, said, where the data are not at hand.

    Raises:
        DataError: if the data changed since the run was trained.
    """
    path = run.spec.data.source.path
    if path is not None and not Path(path).exists():
        logger.warning("%s is not here: answers are replayed, the metric is not run again", path)
        return None
    try:
        data = run_data(run)
    except MissingExtraError as error:
        logger.warning("%s: answers are replayed, the metric is not run again", error.messages[0].message)
        return None
    if extras.has("tensorflow"):
        return reference_of(run, data)
    logger.info("TensorFlow is not installed: held against what was recorded of the Keras model")
    return recorded_reference(run, data, lite)


UNVERIFIED = "unverified"
"""The check that a file of `--no-verify` breaks."""

REJECTED = "rejected"
"""The check that a file of `rejected/` breaks, whatever it answers: it may be another scheme than was asked for."""


def _verify_file(lite: LiteFolder, record: LiteRecord, reference: Reference | None, child: Child) -> ArtifactVerdict:
    path = lite.file(record.name)
    if record.error is not None:
        check = Check(REJECTED, False, f"it was rejected when it was made: {record.error}")
        return ArtifactVerdict(record.name, path, (check,), metric_measured=False)
    if record.accuracy_unknown:
        check = Check(UNVERIFIED, False, "random numbers calibrated it: its accuracy is unknown")
        return ArtifactVerdict(record.name, path, (check,), metric_measured=False)
    if not record.verified and reference is None:
        check = Check(UNVERIFIED, False, "it was made with --no-verify, and never held against its model")
        return ArtifactVerdict(record.name, path, (check,), metric_measured=False)
    limits, tolerance = _judged_by(lite, record)
    # A file of --no-verify has no answers to replay; it is held against its model here, as conversion would have done.
    replayed = (_replay(lite, record, tolerance, child),) if record.verified else ()
    if reference is None:
        made_up = record.source.get("held_out") == "generated"
        checks = (*replayed, *_recorded_checks(record, limits, path))
        return ArtifactVerdict(record.name, path, checks, metric_measured=False, made_up=made_up)
    reference = reference_for(lite, record, reference)
    found, _ = measure_file(path, reference, child=child, metric=limits.metric, latency=None)
    return ArtifactVerdict(
        record.name, path, (*replayed, *judge(limits, tolerance, found)), metric_measured=found.value is not None
    )


def _recorded_checks(record: LiteRecord, limits: LimitsSpec, path: Path) -> Iterator[Check]:
    """Limits that can be held without the data: the size, and what was measured when the file was made."""
    yield from size_checks(limits, path.stat().st_size)
    value = record.metric.get("value")
    if isinstance(value, int | float):
        yield from range_checks(limits, str(record.metric.get("name")), float(value))


def _judged_by(lite: LiteFolder, record: LiteRecord) -> tuple[LimitsSpec, Tolerance]:
    """What a file was held against when it was made.

    Latency is left out: it is a property of the machine and the hour, not of the file.
    """
    try:
        limits = LimitsSpec.model_validate(record.limits)
        return limits.model_copy(update={"max_p90_latency": None}), Tolerance(**record.tolerance)
    except (ValueError, TypeError) as error:
        raise ArtifactError(
            f"{lite.record_file(record.name)} is damaged: {error}", "convert it again with --force"
        ) from error


def _replay(lite: LiteFolder, record: LiteRecord, tolerance: Tolerance, child: Child) -> Check:
    """Runs the samples of vectors.npz again."""
    vectors, schema, path = lite.load_vectors(), lite.load_schema(), lite.file(record.name)
    needed = [artifact_key(record.name), *(input_key(info.name) for info in schema.inputs)]
    if missing := [key for key in needed if key not in vectors]:
        hint = f"convert it again: mltool convert --quantize {record.name} --force, of a model file with its name, too"
        raise ArtifactError(f"{lite.vectors_file} lacks {', '.join(missing)}", hint)
    expected = vectors[needed[0]]
    with open_lite(path, child=child) as predictor:
        outputs = output_of(
            predictor, {info.name: vectors[input_key(info.name)] for info in schema.inputs}, schema, path
        )
        runtime = predictor.runtime
    if runtime == record.runtime and np.array_equal(expected, outputs):
        return Check("replay", True, f"bit-equal on {len(outputs)} samples ({runtime})")
    agreements = compare_answers(expected, outputs, schema)
    agreement = worst_of(agreements)
    if runtime == record.runtime:
        return Check("replay", False, f"not bit-equal on the runtime that it was verified on: {agreement}")
    kept = all(
        not one.has_nan and one.max_error <= tolerance.max_error * (one.reference_range or 1.0)
        for one in agreements.values()
    )
    allowed = tolerance.max_error * (agreement.reference_range or 1.0)
    return Check("replay", kept, f"{agreement}, at most {allowed:.3g} on another runtime ({runtime})")

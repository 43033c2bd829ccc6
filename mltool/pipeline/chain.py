"""The chain of stages: train, evaluate, export, convert every entry, verify, ONNX; one table and one report."""

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mltool.conversion.convert import convert
from mltool.errors import ConversionError, MltoolError, VerificationError
from mltool.evaluation.evaluate import Evaluation, evaluate
from mltool.evaluation.judge import metric_limit_messages
from mltool.evaluation.verify import ArtifactVerdict, verify
from mltool.exporting.export import export
from mltool.exporting.onnx_export import export_onnx
from mltool.runs.atomic import write_json
from mltool.runs.lite import LiteFolder, LiteRecord
from mltool.runs.run import Run
from mltool.training.train import TrainResult, train

logger = logging.getLogger("mltool")


@dataclass
class ChainResult:
    """What the chain left.

    Attributes:
        run: where.
        training: how it went.
        evaluation: of the Keras model.
        records: of every `.tflite` file, kept or rejected.
        verdicts: of the last verification.
        onnx: the `.onnx` file, where the spec asks for one.
        failure: the conversion that failed or the limit that broke; None where everything holds.
    """

    run: Run
    training: TrainResult
    evaluation: Evaluation
    records: list[LiteRecord] = field(default_factory=list)
    verdicts: list[ArtifactVerdict] = field(default_factory=list)
    onnx: Path | None = None
    failure: MltoolError | None = None

    def to_json(self) -> dict[str, Any]:
        """`report.json`."""
        manifest = self.run.manifest
        return {
            "schema_version": 1,
            "run": str(self.run.directory),
            "name": manifest["name"],
            "training": {
                "epochs": self.training.epochs,
                "best_epoch": self.training.best_epoch,
                "seconds": self.training.seconds,
                "metrics": dict(self.training.metrics),
            },
            "evaluation": self.evaluation.to_json(),
            "artifacts": [
                {"path": str(self.run.lite_folder / f"{record.name}.tflite"), **record.to_json()}
                for record in self.records
            ],
            "onnx": str(self.onnx) if self.onnx else None,
            "verified": [verdict.to_json() for verdict in self.verdicts],
            "failure": [message.to_json() for message in self.failure.messages] if self.failure else None,
            "environment": manifest["environment"],
        }


def run_chain(run: Run) -> ChainResult:
    """Runs every stage. A broken limit or a failed conversion ends the chain, and is told in the result.

    Args:
        run: new, or to go on with: a stage whose inputs did not change is not done again.

    Returns:
        What there is; the caller raises its `failure`, when all has been shown.

    Raises:
        MltoolError: of training, evaluation or export.
    """
    training = train(run)
    result = ChainResult(run, training, evaluate(run))
    try:
        broken = metric_limit_messages(run.spec.limits, result.evaluation.metrics)
        if broken:
            raise VerificationError(broken)
        export(run)
        convert(run)
        result.verdicts = verify(run)
        if "onnx" in run.spec.export.formats:
            # Last: where tf2onnx cannot translate the model, all else is there.
            exported = export_onnx(run)
            result.onnx = exported.path
            if exported.agreement is not None:
                logger.info("%s: %s", exported.path, exported.agreement)
    except (ConversionError, VerificationError) as error:
        result.failure = error
    result.records = _records(run)
    with run.locked():
        write_json(run.report_file, result.to_json())
    return result


def _records(run: Run) -> list[LiteRecord]:
    """Of the entries of the spec, in its order: what was kept, and what was rejected."""
    kept, rejected = LiteFolder(run.lite_folder), LiteFolder(run.lite_folder / "rejected")
    found = []
    for entry in run.spec.convert:
        folder = next((f for f in (kept, rejected) if f.record_file(entry.name).is_file()), None)
        if folder is not None:
            found.append(folder.load_record(entry.name))
    return found

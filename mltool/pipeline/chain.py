"""The chain of stages: train, evaluate, export, convert every entry, verify; one table and one report at the end."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mltool.conversion.convert import Converted, convert
from mltool.errors import VerificationError
from mltool.evaluation.evaluate import Evaluation, evaluate
from mltool.evaluation.verify import ArtifactVerdict, verify
from mltool.exporting.export import export
from mltool.runs.atomic import write_json
from mltool.runs.run import Run
from mltool.spec.limits import LimitsSpec
from mltool.training.train import TrainResult, train

logger = logging.getLogger("mltool")


@dataclass(frozen=True)
class ChainResult:
    """What the chain left.

    Attributes:
        run: where.
        training: how it went.
        evaluation: of the Keras model.
        converted: every `.tflite` file.
        verdicts: of the last verification.
    """

    run: Run
    training: TrainResult
    evaluation: Evaluation
    converted: list[Converted]
    verdicts: list[ArtifactVerdict]

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
            "artifacts": [{"path": str(item.path), **item.record.to_json()} for item in self.converted],
            "verified": [verdict.to_json() for verdict in self.verdicts],
            "environment": manifest["environment"],
        }


def run_chain(run: Run) -> ChainResult:
    """Runs every stage; the first that fails ends the chain with its own error.

    Args:
        run: new, or to go on with: a stage whose inputs did not change is not done again.

    Raises:
        MltoolError: of the stage that failed.
    """
    training = train(run)
    evaluation = evaluate(run)
    _require_limits(run.spec.limits, evaluation.metrics)
    export(run)
    converted = convert(run)
    verdicts = verify(run)
    result = ChainResult(run, training, evaluation, converted, verdicts)
    with run.locked():
        write_json(run.report_file, result.to_json())
    return result


def _require_limits(limits: LimitsSpec, metrics: Mapping[str, float]) -> None:
    """A model that breaks `min` or `max` itself needs no conversion to fail."""
    name = limits.metric or next(iter(metrics), None)
    if name is None:
        return
    value = metrics[name]
    if limits.min is not None and value < limits.min:
        raise VerificationError(
            f"the trained model has {name} {value:.4f}, limits.min is {limits.min:g}", "train it better"
        )
    if limits.max is not None and value > limits.max:
        raise VerificationError(
            f"the trained model has {name} {value:.4f}, limits.max is {limits.max:g}", "train it better"
        )

"""What every output of a model answered on the test split, as the page tells it."""

from collections.abc import Mapping
from typing import Any

from mltool import extras
from mltool.evaluation.metrics import confusion_matrix
from mltool.inference.answers import anomaly_scores, threshold_of
from mltool.report import plots
from mltool.report.examples import worst_examples
from mltool.report.predictions import Predictions
from mltool.report.tables import class_rows, label_rows, worst_mistakes
from mltool.runs.run import Run


def answer_sections(run: Run, predictions: Mapping[str, Predictions]) -> list[dict[str, Any]]:
    """A section for every output: pictures, a row for every class, and the samples that were answered worst.

    Args:
        run: whose model it is.
        predictions: by output; empty where it was not evaluated.
    """
    several = len(predictions) > 1
    return [
        {"name": name if several else "", **_section(run, found), **worst_examples(run, found)}
        for name, found in predictions.items()
    ]


def _section(run: Run, found: Predictions) -> dict[str, Any]:
    markup, output = extras.require("markupsafe").Markup, found.output
    section: dict[str, Any] = {"pictures": [], "classes": [], "mistakes": [], "unit": "samples"}
    if output.task == "regression":
        targets = run.spec.data.source.target
        unit = targets if isinstance(targets, str) else output.name if targets is not None else "the target"
        drawn = plots.scatter(found.targets.reshape(-1), found.outputs.reshape(-1), unit)
        section["pictures"] = [("answers over the truth; on the dotted line they are equal", markup(drawn))]
        return section
    if output.task == "multi_label":
        section["classes"] = label_rows(found.targets, found.answers, output.labels)
        return section
    if output.task == "anomaly":
        scores, truth = anomaly_scores(found.outputs), found.targets.reshape(-1)
        drawn = plots.scores(scores[truth == 0], scores[truth == 1], threshold_of(output))
        section["pictures"].append(("scores of the test samples", markup(drawn)))
    if len(output.labels) <= plots.MOST_CLASSES:
        counts = confusion_matrix(found.targets, found.answers, len(output.labels))
        what = ", of pixels" if output.task == "segmentation" else ""
        drawn = plots.confusion(counts, output.labels)
        section["pictures"].append((f"confusion matrix{what}, rows the truth", markup(drawn)))
        section["classes"] = class_rows(counts, output.labels)
        section["mistakes"] = worst_mistakes(counts, output.labels)
        section["unit"] = "pixels" if output.task == "segmentation" else "samples"
    return section

"""`mltool evaluate`."""

from typing import TYPE_CHECKING, Annotated

import typer

from mltool import console
from mltool.cli.options import ArtifactArgument, examples, verb
from mltool.errors import UsageError

if TYPE_CHECKING:
    from mltool.evaluation.evaluate import Evaluation

SETTINGS = examples(
    "mltool evaluate                       the newest run under ./runs",
    "mltool evaluate runs/digits/20261123-101500-k3v9/lite/int8.tflite --json",
    "mltool evaluate --by sex --confidence 0.95      every value of a column apart, and what chance may have done",
)

By = Annotated[
    str | None,
    typer.Option(
        "--by",
        metavar="COLUMN",
        help="Measure every value of a column apart, too: an input, label, or group.",
        show_default=False,
    ),
]
Confidence = Annotated[
    float | None,
    typer.Option(
        "--confidence",
        metavar="LEVEL",
        min=0.5,
        max=0.999,
        help="Tell confidence intervals, such as 0.95: 1,000 seeded draws of the test samples (bootstrap).",
        show_default=False,
    ),
]


@verb
def command(artifact: ArtifactArgument = None, by: By = None, confidence: Confidence = None) -> None:
    """Measure a run or an artifact on the test split.

    The same code measures every artifact, on the samples that the run recorded. For a run it is its Keras model, and
    the result is kept in evaluation.json.
    """
    from mltool.runs.find import find_artifact

    run, path = find_artifact(artifact)
    if run is None:
        raise UsageError(
            f"{path} lies in no run, so there is no test split to measure it on", "mltool verify replays its vectors"
        )
    from mltool.evaluation.evaluate import evaluate

    result = evaluate(run, path, by=by, confidence=confidence)
    shown = "  ".join(_with_interval(result, name) for name in result.metrics) or "the spec has no metrics"
    text = f"{path}\n{result.split}, {result.samples} samples: {shown}"
    if result.sliced_by is not None:
        rows = [
            [part.value, f"{part.samples:,}", *(f"{value:.4f}" for value in part.metrics.values())]
            for part in result.slices
        ]
        text += "\n" + console.table([result.sliced_by, "samples", *result.metrics], rows)
    console.result(result.to_json(), text)


def _with_interval(result: "Evaluation", name: str) -> str:
    """A metric, and what its confidence interval is where there is one."""
    shown = f"{name} {result.metrics[name]:.4f}"
    if name not in result.intervals:
        return shown
    low, high = result.intervals[name]
    return f"{shown} ({low:.4f} to {high:.4f})"

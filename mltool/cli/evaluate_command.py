"""`mltool evaluate`."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mltool import console
from mltool.cli.options import ModelArgument, RunOption, examples, verb
from mltool.errors import UsageError

if TYPE_CHECKING:
    from mltool.evaluation.evaluate import Evaluation

SETTINGS = examples(
    "mltool evaluate                       the newest run under ./runs",
    "mltool evaluate runs/digits/20261123-101500-k3v9/lite/int8.tflite --json",
    "mltool evaluate --data newer.yaml     the data of another spec: its test split, or --split all",
    "mltool evaluate http://127.0.0.1:8501/v1/models/digits --run latest      what TensorFlow Serving answers",
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


Data = Annotated[
    Path | None,
    typer.Option(
        "--data",
        metavar="SPEC",
        help="Measure on the data of another spec: its sections data and seed count, all else is the run's.",
        show_default=False,
    ),
]


class Split(StrEnum):
    """The words of --split."""

    test = "test"
    validation = "validation"
    train = "train"
    all = "all"


SplitOption = Annotated[
    Split, typer.Option("--split", help="Which samples; `all`, with --data: every one, nothing is shared out.")
]


@verb
def command(  # noqa: PLR0917  one parameter an option
    artifact: ModelArgument = None,
    run: RunOption = None,
    data: Data = None,
    split: SplitOption = Split.test,
    by: By = None,
    confidence: Confidence = None,
) -> None:
    """Measure a run, an artifact or an endpoint on the test split.

    The same code measures every artifact, on the samples that the run recorded. For a run it is its Keras model, and
    the result is kept in evaluation.json. Other data (--data) must have the inputs and the classes of the run; samples
    among them that it was trained on are counted and told.
    """
    from mltool.runs.find import find_model

    found, path = find_model(artifact, run)
    if found is None:
        if isinstance(path, str):
            raise UsageError(f"which run is {path} of?", "write --run RUN, or --run latest")
        hint = "--run RUN names it; mltool verify replays its vectors"
        raise UsageError(f"{path} lies in no run, so there is no test split to measure it on", hint)
    from mltool.evaluation.evaluate import evaluate

    result = evaluate(found, path, by=by, confidence=confidence, data_spec=data, split=split.value)
    shown = "  ".join(_with_interval(result, name) for name in result.metrics)
    of = "" if data is None else f" of {data}"
    text = f"{path}\n{result.split}{of}, {result.samples} samples: {shown}"
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

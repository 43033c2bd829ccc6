"""`mltool verify`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mltool import console
from mltool.cli.options import examples, verb
from mltool.errors import UsageError

if TYPE_CHECKING:
    from mltool.runs.run import Run

SETTINGS = examples(
    "mltool verify                        every .tflite file of the newest run",
    "mltool verify runs/digits/20261123-101500-k3v9/lite/int8.tflite",
    "mltool verify lite/                  a copy on a device: replays the vectors",
)

Target = Annotated[
    str | None,
    typer.Argument(
        metavar="RUN|FOLDER|FILE",
        help="A run, a lite/ folder or a .tflite file; the newest run under ./runs when left out.",
        show_default=False,
    ),
]


@verb
def command(target: Target = None) -> None:
    """Prove that artifacts answer as the model that they came from.

    Hashes (exit 5), calibration against the splits (exit 4), the answers to vectors.npz bit for bit, the metric on the
    whole test split and the limits (exit 8).
    """
    found = _find(target)
    from mltool.evaluation.verify import verify

    verdicts = verify(found)
    lines = []
    for verdict in verdicts:
        note = "" if verdict.metric_measured else " (the metric was not run again)"
        if verdict.made_up:
            note = " (against its model on made-up samples alone: no metric was ever measured)"
        lines.append(f"{verdict.path}: verified{note}")
        lines += [f"  {check.limit}: {check.message}" for check in verdict.checks]
    console.result({"artifacts": [verdict.to_json() for verdict in verdicts]}, "\n".join(lines))


def _find(target: str | None) -> "Run | Path":
    """A file or folder that is there, else the run that is called so."""
    from mltool.runs.find import find_run, is_endpoint
    from mltool.runs.lite import LiteFolder

    if is_endpoint(target):
        hint = "mltool evaluate URL --run RUN measures it"
        raise UsageError(f"verify takes files, not an endpoint (got {target})", hint)
    if target is not None and Path(target).exists():
        return Path(target)
    return find_run(target, lambda run: bool(LiteFolder(run.lite_folder).names()), "a .tflite file")

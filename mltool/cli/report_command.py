"""`mltool report`."""

from pathlib import Path
from typing import Annotated

import typer

from mltool import console
from mltool.cli.options import RunArgument, examples, verb

SETTINGS = examples("mltool report", "mltool report 20261123 --output digits.html")

Output = Annotated[
    Path | None,
    typer.Option("--output", "-o", metavar="FILE", help="Where to; report.html in the run.", show_default=False),
]


@verb
def command(run: RunArgument = None, output: Output = None) -> None:
    """Tell a run in one self-contained HTML page.

    Artifacts, limits, curves, confusion matrix, the worst answers, the data; no network, no script, light and dark.
    """
    from mltool.runs.find import find_run

    found = find_run(run)
    from mltool.report.page import report

    page = report(found, output)
    console.result({"run": str(found.directory), "report": str(page)}, str(page))

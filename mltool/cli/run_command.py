"""`mltool run`."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mltool import console
from mltool.cli.options import Overrides, RunDir, examples, verb
from mltool.errors import MltoolError, UsageError

if TYPE_CHECKING:
    from mltool.spec.spec import Spec

logger = logging.getLogger("mltool")

SETTINGS = examples(
    "mltool run configs/digits.yaml",
    "mltool run my.yaml --set train.epochs=3 --json > report.json",
    "mltool run --resume              the newest run under ./runs that is not finished",
)

Target = Annotated[
    str | None,
    typer.Argument(metavar="SPEC|RUN", help="The spec; with --resume the run.", show_default=False),
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with a run: stages that are done are not done again.")]


@verb
def command(
    target: Target = None,
    resume: Resume = False,
    overrides: Overrides = [],  # noqa: B006  typer copies it
    run_dir: RunDir = None,
) -> None:
    """The whole chain: train, evaluate, export, convert, verify.

    Leaves a run directory, prints one table, and exits 0 only if every artifact was verified and keeps every limit.
    """
    from mltool.cluster.join import require_one_process
    from mltool.runs.find import find_resumable
    from mltool.runs.run import Run
    from mltool.spec.load import load_spec

    if resume:
        if overrides or run_dir:
            raise UsageError("--resume goes on with the run's own spec; --set and --run-dir are for a new run")
        run = find_resumable(target)
        _require_packages(run.spec)
    elif target is None:
        raise UsageError("name a SPEC to run, or --resume", "mltool run configs/digits.yaml")
    else:
        spec = load_spec(Path(target), overrides)
        require_one_process(spec, "mltool run")
        _require_packages(spec)
        run = Run.create(spec, run_dir)
    console.remark(f"run: {run.directory}")
    from mltool.cli.artifact_table import artifact_table
    from mltool.data.dataset import read_once
    from mltool.pipeline.chain import run_chain
    from mltool.report.page import report

    with read_once():
        result = run_chain(run)
        failure: MltoolError | None = result.failure
        page_failure: MltoolError | None = None
        try:
            page = report(run)
        except MltoolError as error:
            page_failure = error
    # Those of the spec; `evaluate` tells the others that belong to the task.
    asked = [measure.name for measure in run.spec.train.measures] or list(result.evaluation.metrics)
    measured = "  ".join(f"{name} {result.evaluation.metrics[name]:.4f}" for name in asked)
    title = f"model.keras: {measured} on {result.evaluation.samples} test samples"
    text = f"{artifact_table(result.records, title)}\n\n{run.directory}"
    # Of two mistakes the artifacts' counts; the page can be made again.
    if page_failure is None:
        console.remark(f"report: {page}")
    elif failure is not None:
        logger.warning("%s", page_failure)
    failure = failure or page_failure
    if failure is not None:
        # With --json the error is the one document; report.json has the rest.
        console.text(text)
        raise failure
    console.result(result.to_json(), text)


def _require_packages(spec: "Spec") -> None:
    """What the last stage needs, before an hour of training."""
    if "onnx" in spec.export.formats:
        from mltool.exporting.onnx_export import require_onnx

        require_onnx()

"""`mltool launch`."""

from pathlib import Path
from typing import Annotated

import typer

from mltool import console
from mltool.cli.options import Overrides, RunDir, examples, verb
from mltool.errors import UsageError

SETTINGS = examples(
    "mltool launch my.yaml --workers 4",
    "mltool launch --resume --workers 4     the newest run under ./runs that is not finished",
    "mltool launch my.yaml --render slurm --workers 4 --output jobs/",
    "mltool launch my.yaml --render kubernetes --workers 4 --gpus 1 --image me/mltool:1 --output jobs/",
)

Target = Annotated[
    str | None,
    typer.Argument(metavar="SPEC|RUN", help="The spec; with --resume the run.", show_default=False),
]
NumWorkers = Annotated[int, typer.Option("--workers", metavar="N", min=1, help="How many worker processes.")]
MaxRestarts = Annotated[
    int,
    typer.Option(
        "--max-restarts", metavar="N", min=0, help="How often all go on from the last checkpoint when one was lost."
    ),
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with a run from its newest checkpoint.")]


@verb
def command(
    target: Target = None,
    *,
    workers: NumWorkers = 2,
    max_restarts: MaxRestarts = 3,
    resume: Resume = False,
    overrides: Overrides = [],  # noqa: B006  typer copies it
    run_dir: RunDir = None,
) -> None:
    """Train with several worker processes of this machine, each with its share of every batch and of the GPUs.

    A spec's `strategy: auto` becomes `multi_worker`. The first worker is the chief: it alone writes, and its progress
    is shown; a line of another begins with [worker 1]. When one dies, all are started again.
    """
    from mltool.pipeline.launch import launch, load_for_workers, require_workers
    from mltool.runs.find import find_resumable
    from mltool.runs.run import Run

    if resume:
        if overrides or run_dir:
            raise UsageError("--resume goes on with the run's own spec; --set and --run-dir are for a new run")
        run = find_resumable(target)
        require_workers(run.spec)
    elif target is None:
        raise UsageError("name a SPEC to train, or --resume", "mltool launch my.yaml --workers 2")
    else:
        run = Run.create(load_for_workers(Path(target), overrides), run_dir)
    console.remark(f"run: {run.directory}")
    result = launch(run, num_workers=workers, max_restarts=max_restarts, options=console.flags())
    training = result.training
    shown = "  ".join(f"{name} {value:.4g}" for name, value in training["metrics"].items())
    restarted = f", {result.restarts} restarts" if result.restarts else ""
    text = f"trained {training['epochs']} epochs with {workers} workers{restarted}: {shown}\n{run.keras_file}"
    console.result({**training, "workers": workers, "restarts": result.restarts}, text)

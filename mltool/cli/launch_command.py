"""`mltool launch`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from mltool import console
from mltool.cli.options import Overrides, RunDir, examples, verb
from mltool.errors import UsageError

if TYPE_CHECKING:
    from mltool.runs.run import Run

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
Render = Annotated[
    Literal["slurm", "kubernetes", "ray"] | None,
    typer.Option("--render", help="Write the files of a job for a cluster; nothing is run.", show_default=False),
]
Output = Annotated[
    Path | None,
    typer.Option("--output", metavar="DIR", help="With --render: where the files go.", show_default=False),
]
Cpus = Annotated[int, typer.Option("--cpus", metavar="N", min=1, help="With --render: CPUs of a worker.")]
Gpus = Annotated[int, typer.Option("--gpus", metavar="N", min=0, help="With --render: GPUs of a worker.")]
Tpu = Annotated[
    str | None,
    typer.Option(
        "--tpu",
        metavar="KIND:TOPOLOGY",
        help="With --render kubernetes: a TPU slice of one host, as tpu-v5-lite-podslice:2x4.",
        show_default=False,
    ),
]
Image = Annotated[
    str | None,
    typer.Option(
        "--image", metavar="IMAGE", help="With --render kubernetes: a container image with mltool.", show_default=False
    ),
]


@verb
def command(
    target: Target = None,
    *,
    workers: NumWorkers = 2,
    max_restarts: MaxRestarts = 3,
    resume: Resume = False,
    overrides: Overrides = [],  # noqa: B006  typer copies it
    run_dir: RunDir = None,
    render: Render = None,
    output: Output = None,
    cpus: Cpus = 1,
    gpus: Gpus = 0,
    tpu: Tpu = None,
    image: Image = None,
) -> None:
    """Train with several workers, each with its share of every batch, and of the GPUs of this machine.

    A spec's `strategy: auto` becomes `multi_worker`. The first worker is the chief: it alone writes, and its progress
    is shown; a line of another begins with [worker 1]. When one dies, all go on from the last checkpoint. With --render
    nothing runs, and the files of a job are written.
    """
    if render is None:
        if output or tpu or image or cpus != 1 or gpus:
            raise UsageError("--output, --cpus, --gpus, --tpu and --image are for the job of a cluster", "add --render")
        _launch(_run_of(target, resume, overrides, run_dir), workers, max_restarts)
        return
    if target is None or resume:
        raise UsageError("--render takes a SPEC, and a job goes on with a run that is there", "leave --resume out")
    if output is None:
        raise UsageError("name a folder for the files", "--output jobs/")
    from mltool.pipeline.launch import load_for_workers
    from mltool.pipeline.render import Job, TpuSlice, render_job

    job = Job(workers, max_restarts, cpus, gpus, TpuSlice.parse(tpu) if tpu else None, image, run_dir)
    spec = load_for_workers(Path(target), overrides, on_tpu=job.tpu is not None)
    files, checked = render_job(spec, render, job, output)
    text = "\n".join([*(f"wrote {file}" for file in files), f"checked: {checked}"])
    console.result({"scheduler": render, "files": [str(file) for file in files], "checked": checked}, text)


def _run_of(target: str | None, resume: bool, overrides: list[str], run_dir: Path | None) -> "Run":
    from mltool.pipeline.launch import load_for_workers, require_workers
    from mltool.runs.find import find_resumable
    from mltool.runs.run import Run

    if resume:
        if overrides or run_dir:
            raise UsageError("--resume goes on with the run's own spec; --set and --run-dir are for a new run")
        run = find_resumable(target)
        require_workers(run.spec)
        return run
    if target is None:
        raise UsageError("name a SPEC to train, or --resume", "mltool launch my.yaml --workers 2")
    return Run.create(load_for_workers(Path(target), overrides), run_dir)


def _launch(run: "Run", workers: int, max_restarts: int) -> None:
    from mltool.pipeline.launch import launch

    result = launch(run, num_workers=workers, max_restarts=max_restarts, options=console.flags())
    training = result.training
    shown = "  ".join(f"{name} {value:.4g}" for name, value in training["metrics"].items())
    counts = [console.counted(workers, "worker")]
    counts += [console.counted(result.restarts, "restart")] if result.restarts else []
    text = f"trained {console.counted(training['epochs'], 'epoch')} with {', '.join(counts)}: {shown}\n{run.keras_file}"
    console.result({**training, "workers": workers, "restarts": result.restarts}, text)

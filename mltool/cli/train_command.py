"""`mltool train`."""

from pathlib import Path
from typing import Annotated

import typer

from mltool import console
from mltool.cli.options import Overrides, RunDir, examples, verb
from mltool.errors import UsageError

SETTINGS = examples(
    "mltool train configs/digits.yaml",
    "mltool train my.yaml --set train.epochs=3 --set train.optimizer.Adam.learning_rate=1e-2",
    "mltool train --resume            the newest run under ./runs that is not finished",
    "mltool train --resume 20261123",
)

Target = Annotated[
    str | None,
    typer.Argument(metavar="SPEC|RUN", help="The spec; with --resume the run.", show_default=False),
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with a run from its newest checkpoint, bit for bit.")]


@verb
def command(
    target: Target = None,
    resume: Resume = False,
    overrides: Overrides = [],  # noqa: B006  typer copies it
    run_dir: RunDir = None,
) -> None:
    """Train the model that SPEC describes, or resume a run.

    Leaves a run directory: spec.yaml, run.json, splits.npz, metrics.jsonl, checkpoints/ and model.keras.
    """
    from mltool.runs.find import find_resumable
    from mltool.runs.join import make_run
    from mltool.spec.load import load_spec

    if resume:
        if overrides or run_dir:
            raise UsageError("--resume goes on with the run's own spec; --set and --run-dir are for a new run")
        run = find_resumable(target)
    elif target is None:
        raise UsageError("name a SPEC to train, or --resume", "mltool train configs/digits.yaml")
    else:
        # Before TensorFlow: a typo must not cost ten seconds.
        run = make_run(load_spec(Path(target), overrides), run_dir)
    console.remark(f"run: {run.directory}")

    from mltool.training.train import train

    result = train(run)
    shown = "  ".join(f"{name} {value:.4g}" for name, value in result.metrics.items())
    kept = f", kept epoch {result.best_epoch}" if result.best_epoch else ""
    text = f"trained {result.epochs} epochs in {result.seconds:.1f} s{kept}: {shown}\n{run.keras_file}"
    document = {
        "run": str(run.directory),
        "epochs": result.epochs,
        "best_epoch": result.best_epoch,
        "metrics": dict(result.metrics),
        "seconds": result.seconds,
    }
    console.result(document, text)

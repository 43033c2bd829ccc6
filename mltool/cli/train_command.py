"""`mltool train`."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mltool import console
from mltool.cli.options import Overrides, RunDir, examples, verb
from mltool.errors import UsageError

if TYPE_CHECKING:
    from mltool.spec.spec import Spec

SETTINGS = examples(
    "mltool train configs/digits.yaml",
    "mltool train my.yaml --set train.epochs=3 --set train.optimizer.Adam.learning_rate=1e-2",
    "mltool train --resume            the newest run under ./runs that is not finished",
    "mltool train --resume 20261123",
    "mltool train my.yaml --find-lr     what learning rate to begin with",
    "mltool train my.yaml --find-batch-size     what is the largest batch that fits?",
    "mltool train my.yaml --trial     does it build and fit, and how long will it take?",
    "mltool train my.yaml --profile   what do its steps spend their time on?",
)

Target = Annotated[
    str | None,
    typer.Argument(metavar="SPEC|RUN", help="The spec; with --resume the run.", show_default=False),
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with a run from its newest checkpoint, bit for bit.")]
Trial = Annotated[
    bool,
    typer.Option(
        "--trial",
        help="Build all, run a few steps, tell parameters, memory and the time to expect, and leave nothing behind.",
    ),
]
Profile = Annotated[
    bool,
    typer.Option(
        "--profile",
        help="Profile some steps: a trace for TensorBoard in events/, and a page of what took the time.",
    ),
]

FindRate = Annotated[
    bool,
    typer.Option("--find-lr", help="Train nothing: raise the learning rate step by step, draw the loss, suggest one."),
]
FindBatchSize = Annotated[
    bool,
    typer.Option(
        "--find-batch-size", help="Train nothing: double the batch until memory ends, tell the largest that fits."
    ),
]


@verb
def command(
    target: Target = None,
    resume: Resume = False,
    find_rate: FindRate = False,
    overrides: Overrides = [],  # noqa: B006  typer copies it
    run_dir: RunDir = None,
    *,
    find_batch_size: FindBatchSize = False,
    trial: Trial = False,
    profile: Profile = False,
) -> None:
    """Train the model that SPEC describes, or resume a run.

    Leaves a run directory: spec.yaml, run.json, splits.npz, metrics.jsonl, checkpoints/ and model.keras.
    """
    from mltool.cluster.join import make_run
    from mltool.pipeline.workers import end_with_launcher
    from mltool.runs.find import find_resumable
    from mltool.spec.load import load_spec

    _require_one_purpose(
        {"--trial": trial, "--find-lr": find_rate, "--find-batch-size": find_batch_size},
        {"--resume": resume, "--run-dir": run_dir is not None, "--profile": profile},
    )
    if resume:
        if overrides or run_dir:
            raise UsageError("--resume goes on with the run's own spec; --set and --run-dir are for a new run")
        run = find_resumable(target)
    elif target is None:
        raise UsageError("name a SPEC to train, or --resume", "mltool train configs/digits.yaml")
    else:
        # Before TensorFlow: a typo must not cost ten seconds.
        spec = load_spec(Path(target), overrides)
        if trial:
            _tell_trial(spec)
            return
        if find_rate:
            _find_rate(spec, run_dir)
            return
        if find_batch_size:
            _find_batch_size(spec)
            return
        run = make_run(spec, run_dir)
    console.remark(f"run: {run.directory}")
    end_with_launcher()

    from mltool.training.train import train

    result = train(run, profile=profile)
    shown = "  ".join(f"{name} {value:.4g}" for name, value in result.metrics.items())
    kept = f", kept epoch {result.best_epoch}" if result.best_epoch else ""
    epochs = console.counted(result.epochs, "epoch")
    text = f"trained {epochs} in {result.seconds:.1f} s{kept}: {shown}\n{run.keras_file}"
    if result.profile is not None:
        text = f"{result.profile.text()}\n\n{text}"
    document = {
        "run": str(run.directory),
        "epochs": result.epochs,
        "best_epoch": result.best_epoch,
        "metrics": dict(result.metrics),
        "seconds": result.seconds,
    }
    if profile:
        document["profile"] = None if result.profile is None else result.profile.to_json()
    console.result(document, text)


def _require_one_purpose(instead: Mapping[str, bool], of_run: Mapping[str, bool]) -> None:
    """What is done instead of a training goes with none of the others, and with little that is for a run.

    Raises:
        UsageError: if an option would be ignored.
    """
    asked = [option for option, is_given in instead.items() if is_given]
    if len(asked) > 1:
        raise UsageError(f"{' and '.join(asked)} are things of their own", "run one, then the other")
    for option in asked:
        for other, is_given in of_run.items():
            if is_given and (option, other) != ("--find-lr", "--run-dir"):
                raise UsageError(f"{option} trains nothing, and {other} is for a run", f"leave {other} out")


def _find_rate(spec: "Spec", directory: Path | None) -> None:
    from mltool.runs.rate_test import RateTestFolder

    folder = RateTestFolder.choose(spec.name, directory)

    from mltool.report.pictures import write_rates_picture
    from mltool.training.trials.rate_test import find_learning_rate

    result = find_learning_rate(spec, folder)
    write_rates_picture(result, folder.picture_file)
    text = (
        f"suggested learning rate: {result.suggestion:.2g}, a tenth of {result.lowest:.2g}, where the loss is lowest\n"
        f"{folder.picture_file}"
    )
    document = {
        "suggestion": result.suggestion,
        "lowest": result.lowest,
        "diverged": result.diverged,
        "curve": str(folder.curve_file),
        "picture": str(folder.picture_file),
    }
    console.result(document, text)


def _tell_trial(spec: "Spec") -> None:
    from mltool.training.trials.trial import try_training

    result = try_training(spec)
    console.result(result.to_json(), result.text())


def _find_batch_size(spec: "Spec") -> None:
    from mltool.training.trials.batch_sizes import find_batch_size

    result = find_batch_size(spec)
    console.result(result.to_json(), result.text())

"""`mltool run`."""

from mltool import console
from mltool.cli.options import Overrides, RunDir, SpecPath, examples, verb

SETTINGS = examples("mltool run configs/digits.yaml", "mltool run my.yaml --set train.epochs=3 --json > report.json")


@verb
def command(spec: SpecPath, overrides: Overrides = [], run_dir: RunDir = None) -> None:  # noqa: B006  typer copies it
    """The whole chain: train, evaluate, export, convert, verify.

    Leaves a run directory, prints one table, and exits 0 only if every artifact was verified and keeps every limit.
    """
    from mltool.runs.run import Run
    from mltool.spec.load import load_spec

    run = Run.create(load_spec(spec, overrides), run_dir)
    console.remark(f"run: {run.directory}")
    from mltool.cli.artifact_table import artifact_table
    from mltool.pipeline.chain import run_chain

    result = run_chain(run)
    measured = "  ".join(f"{name} {value:.4f}" for name, value in result.evaluation.metrics.items())
    title = f"model.keras: {measured} on {result.evaluation.samples} test samples"
    table = artifact_table([item.record for item in result.converted], title)
    console.result(result.to_json(), f"{table}\n\n{run.directory}")

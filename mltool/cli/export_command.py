"""`mltool export`."""

from mltool import console
from mltool.cli.options import Force, RunArgument, examples, verb

SETTINGS = examples("mltool export", "mltool export 20261123 --force")


@verb
def command(run: RunArgument = None, force: Force = False) -> None:
    """Export a trained run to a SavedModel.

    Bare TensorFlow loads it; inputs keep their names and take raw values (float32, or text), because preprocessing is
    inside. Its answers are held against the Keras model's before it gets its name.
    """
    from mltool.runs.find import find_run

    found = find_run(run)
    from mltool.exporting.export import export

    result = export(found, force=force)
    agreement = result.agreement
    document = {
        "run": str(found.directory),
        "artifact": str(result.path),
        "made": agreement is not None,
        "agreement": agreement.to_json() if agreement else None,
    }
    console.result(document, f"{result.path}" + (f"\n{agreement}" if agreement else ""))

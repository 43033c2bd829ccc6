"""`mltool export`."""

from typing import TYPE_CHECKING, Annotated

import typer

from mltool import console
from mltool.cli.options import Force, RunArgument, examples, verb
from mltool.errors import UsageError

if TYPE_CHECKING:
    from mltool.exporting.export import ExportResult
    from mltool.runs.run import Run

SETTINGS = examples(
    "mltool export",
    "mltool export 20261123 --force",
    "mltool export --format onnx            for ONNX Runtime; pip install 'mltool-tf[onnx]'",
)

# The words of the spec's `export.formats`, repeated because reading them there costs 0.1 s; a test holds the two equal.
FORMATS = ("saved_model", "onnx")

Format = Annotated[
    str, typer.Option("--format", metavar="FORMAT", help="saved_model or onnx; the second is made of the first.")
]


@verb
def command(run: RunArgument = None, format_: Format = "saved_model", force: Force = False) -> None:
    """Export a trained run to a SavedModel or to ONNX.

    Bare TensorFlow loads the SavedModel, ONNX Runtime the .onnx file; inputs keep their names and take raw values
    (float32, or text), because preprocessing is inside. Its answers are held against the Keras model's before it gets
    its name.
    """
    _require_format(format_)
    from mltool.runs.find import find_run

    result = _export(find_run(run), format_, force=force)
    agreement = result.agreement
    document = {
        "run": str(result.run.directory),
        "format": format_,
        "artifact": str(result.path),
        "made": agreement is not None,
        "agreement": agreement.to_json() if agreement else None,
    }
    console.result(document, f"{result.path}" + (f"\n{agreement}" if agreement else ""))


def _export(run: "Run", format_: str, *, force: bool) -> "ExportResult":
    if format_ == "onnx":
        from mltool.exporting.onnx_export import export_onnx

        return export_onnx(run, force=force)
    from mltool.exporting.export import export

    return export(run, force=force)


def _require_format(word: str) -> None:
    if word in FORMATS:
        return
    import difflib

    close = difflib.get_close_matches(word.lower(), FORMATS, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"one of: {', '.join(FORMATS)}"
    raise UsageError(f"unknown format {word!r}", hint)

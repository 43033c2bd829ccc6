"""`mltool inspect`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from mltool import console
from mltool.cli.options import Overrides, examples, verb
from mltool.errors import UsageError

if TYPE_CHECKING:
    from mltool.inspection.model_summary import ModelSummary, SortKey

SETTINGS = examples(
    "mltool inspect my.yaml                   the model that train would build, from the shapes of its data",
    "mltool inspect my.yaml --sort macs --set model.layers.0.Conv2D.filters=32",
    "mltool inspect latest                    the model of a run",
    "mltool inspect runs/digits/20261123-101500-k3v9/lite/int8.tflite",
    "mltool inspect model.tflite --json",
)

SPEC_ENDINGS = (".yaml", ".yml")

What = Annotated[
    str,
    typer.Argument(
        metavar="SPEC|RUN|FILE",
        help="A spec; a run: its folder, id or the beginning of its id, or `latest`; or a model file: .tflite, .keras, "
        ".onnx, SavedModel folder.",
        show_default=False,
    ),
]
Sort = Annotated[
    Literal["parameters", "macs", "activations"] | None,
    typer.Option("--sort", help="Of a spec or a run: the largest layers first.", show_default=False),
]


@verb
def command(
    what: What,
    sort: Sort = None,
    overrides: Overrides = [],  # noqa: B006  typer copies it
) -> None:
    """Show what a model costs, layer by layer, or what is in a model file; nothing is run.

    Of a spec or a run: every layer with its output shape, parameters, multiply-accumulates (MACs) and the bytes of its
    output, for one sample, four a value in float32, one in int8. A layer whose MACs nobody wrote a formula for is told
    as not counted. Of a file: signatures, inputs and outputs, operators by the type that they compute in, weights by
    type, what runtime it needs.
    """
    path = Path(what)
    is_spec = path.suffix.lower() in SPEC_ENDINGS
    if overrides and not is_spec:
        raise UsageError("--set is for a spec", f"name a {' or '.join(SPEC_ENDINGS)} file")
    if is_spec:
        from mltool.spec.load import load_spec

        spec = load_spec(path, overrides)
        from mltool.inspection.inspect_model import inspect_spec

        _show_model(what, inspect_spec(spec), sort)
    elif _is_file(path):
        if sort is not None:
            raise UsageError("--sort is for a spec or a run", "leave it out")
        _show_file(path)
    else:
        from mltool.runs.find import find_run

        run = find_run(what)
        from mltool.inspection.inspect_model import inspect_run

        _show_model(str(run.directory), inspect_run(run), sort)


def _is_file(path: Path) -> bool:
    """Whether a model file is meant, there or not, and no run."""
    return path.is_file() or (path / "saved_model.pb").is_file() or path.suffix in (".tflite", ".keras", ".onnx")


def _show_file(path: Path) -> None:
    from mltool.inspection.inspect import inspect

    document = inspect(path)
    lines = [f"{document['path']}  ({document['format']}, {document['bytes']:,} bytes)"]
    for title, rows in document["tables"].items():
        if rows:
            columns = list(rows[0])
            lines.append(
                console.table(columns, [[str(row[column]) for column in columns] for row in rows], title=title)
            )
    console.result(
        {key: value for key, value in document.items() if key != "tables"} | document["tables"], "\n\n".join(lines)
    )


def _show_model(source: str, summary: "ModelSummary", sort: "SortKey | None") -> None:
    from mltool.inspection.model_text import COLUMNS, shown_layer, shown_totals

    if sort is not None:
        summary = summary.sorted_by(sort)
    table = console.table(COLUMNS, [shown_layer(layer) for layer in summary.layers])
    totals = "\n".join(f"{what:<17} {value}" for what, value in shown_totals(summary))
    console.result({"source": source, **summary.to_json()}, f"{table}\n\n{totals}")

"""`mltool check`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from mltool import console
from mltool.cli.options import Overrides, SpecPath, examples, verb
from mltool.errors import DataError, Message, UsageError

SETTINGS = examples(
    "mltool check my.yaml",
    "mltool check my.yaml --set train.epochs=3 --json",
    "mltool check my.yaml --data --output scan/     counts, ranges, leaks, drift, damage; with pictures",
)

Data = Annotated[bool, typer.Option("--data", help="Read the data too, and look at all of them.")]
Output = Annotated[
    Path | None,
    typer.Option(
        "--output", "-o", metavar="FOLDER", help="With --data: write scan.json and pictures.", show_default=False
    ),
]


@verb
def command(
    spec: SpecPath,
    overrides: Overrides = [],  # noqa: B006  typer copies it
    data: Data = False,
    output: Output = None,
) -> None:
    """Check SPEC, all of it, without importing TensorFlow.

    Every mistake is reported in one go, as file:line:column: key: what is wrong; exit code 3. With --data the samples
    are read and scanned too; leaks between splits and damage are exit code 4.
    """
    from mltool.spec.load import load_spec

    if output is not None and not data:
        raise UsageError("--output is for --data", "add --data")
    if output is not None and output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UsageError(f"{output} is there already; check overwrites nothing", "name another folder")
    checked = load_spec(spec, overrides)
    if not data:
        console.result({"spec": str(spec), "name": checked.name, "ok": True}, f"{spec}: ok")
        return
    from mltool.data.dataset import open_dataset
    from mltool.data.scan import scan

    found = open_dataset(checked)
    document = scan(found)
    if output is not None:
        from mltool.report.pictures import write_pictures
        from mltool.runs.atomic import write_json

        write_json(output / "scan.json", document)
        write_pictures(document, found, output)
    errors = [item for item in document["findings"] if item["level"] == "error"]
    if errors:
        console.text(_shown(document))
        raise DataError(Message(item["message"], item["hint"]) for item in errors)
    console.result({"spec": str(spec), "name": checked.name, "ok": True, "scan": document}, _shown(document))


def _shown(document: dict[str, Any]) -> str:
    """The tables and the findings, as text."""
    # Not as the title of the table, which would be broken to its width.
    parts = [document["source"], console.table(["split", "samples", *_classes(document)], _split_rows(document))]
    rows = [_input_row(document, name) for name in document["inputs"]]
    parts.append(console.table(["input", "kind", "shape", "values in training", "missing", "drift"], rows))
    lines = [
        f"{item['level']}: {item['message']}{'; ' * bool(item['hint'])}{item['hint']}" for item in document["findings"]
    ]
    return "\n".join([*parts, *(lines or ["nothing to mend was found"])])


MOST_COLUMNS = 12
"""Classes that a table of a terminal has room for."""


def _classes(document: dict[str, Any]) -> list[str]:
    return list(document["splits"]["train"].get("classes", {}))[:MOST_COLUMNS]


def _split_rows(document: dict[str, Any]) -> list[list[str]]:
    return [
        [name, f"{split['samples']:,}", *(f"{split['classes'][label]:,}" for label in _classes(document))]
        for name, split in document["splits"].items()
    ]


def _input_row(document: dict[str, Any], name: str) -> list[str]:
    from mltool.data.describe import shown_input

    *shown, drift = shown_input(document, name)
    return [*shown, f"{document['inputs'][name]['splits']['train']['missing']:,}", drift]

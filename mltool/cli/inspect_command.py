"""`mltool inspect`."""

from pathlib import Path
from typing import Annotated

import typer

from mltool import console
from mltool.cli.options import examples, verb

SETTINGS = examples(
    "mltool inspect runs/digits/20261123-101500-k3v9/lite/int8.tflite", "mltool inspect model.tflite --json"
)

File = Annotated[
    Path, typer.Argument(metavar="FILE", help="A .tflite or .keras file, or a SavedModel folder.", show_default=False)
]


@verb
def command(file: File) -> None:
    """Show what is in a model file; nothing in it is run.

    Signatures, inputs and outputs, operators by the type that they compute in, weights by type, what runtime it needs.
    """
    from mltool.inspection.inspect import inspect

    document = inspect(file)
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

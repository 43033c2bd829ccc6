"""`mltool schema`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from mltool import console
from mltool.cli.options import examples, verb
from mltool.errors import UsageError

SETTINGS = examples(
    "mltool schema --output mltool.schema.json      beside your spec, where its first line looks for it",
    "mltool schema | head",
)

Output = Annotated[
    Path | None,
    typer.Option("--output", "-o", metavar="FILE", help="Write to FILE instead of stdout.", show_default=False),
]
Force = Annotated[bool, typer.Option("--force", help="Overwrite FILE.")]


@verb
def command(output: Output = None, force: Force = False) -> None:
    """Print the JSON Schema of the spec, for editors.

    An editor with a YAML language server completes and explains every key, layer and argument with it.
    """
    from mltool.runs.atomic import write_text
    from mltool.spec.schema import spec_json_schema

    if output is not None and output.exists() and not force:
        raise UsageError(f"{output} is there already", "overwrite it with --force, or name another file")
    schema = spec_json_schema()
    text = json.dumps(schema, indent=2, ensure_ascii=False)
    if output is None:
        console.result(schema, text)
        return
    write_text(output, text + "\n")
    console.result({"file": str(output)}, f"wrote {output}")

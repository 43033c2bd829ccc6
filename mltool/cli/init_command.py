"""`mltool init`."""

import re
from pathlib import Path
from typing import Annotated

import typer

from mltool import console
from mltool.cli.options import examples, verb
from mltool.errors import UsageError

SETTINGS = examples(
    "mltool init my.yaml                                   digits, every key explained",
    "mltool init --from photos/                            for your data: a folder, .zip, .csv, .parquet, .npz",
    "mltool init houses.yaml --from houses.csv --target price",
    "mltool init my.yaml --template spoken_digits          a shipped spec",
)

Target = Annotated[
    Path | None,
    typer.Argument(
        metavar="FILE", help="The YAML file to write; with --from or --template named after it.", show_default=False
    ),
]
Name = Annotated[
    str | None,
    typer.Option("--name", metavar="NAME", help="Name of the model; made of FILE's when left out.", show_default=False),
]
Data = Annotated[
    Path | None,
    typer.Option(
        "--from", metavar="DATA", help="Look at data, and write a spec that trains on them.", show_default=False
    ),
]
Column = Annotated[
    str | None,
    typer.Option(
        "--target",
        metavar="COLUMN",
        help="With --from: the column (or array) to predict; label, target, class, y, or the last one when left out.",
        show_default=False,
    ),
]
Template = Annotated[
    str | None,
    typer.Option("--template", metavar="NAME", help="Write a shipped spec instead.", show_default=False),
]


@verb
def command(
    file: Target = None,
    name: Name = None,
    data: Data = None,
    target: Column = None,
    template: Template = None,
) -> None:
    """Write a spec to start from.

    Without options every key of it is explained, and it trains as it is on data that are in the package. With --from it
    is for your data: kinds of columns, sizes, rates and classes as they are found, and a small model for them.
    """
    from mltool.pipeline.starting_spec import STARTER, write_spec_for, write_template

    if data is not None and template is not None:
        raise UsageError("--from and --template are two ways to a spec", "take one of them")
    if target is not None and data is None:
        raise UsageError("--target is for --from", "add --from DATA")
    if file is None:
        after = data.absolute().name if data else template
        if after is None:
            raise UsageError("name a FILE to write", "mltool init my.yaml")
        file = Path(f"{_name_of(Path(after))}.yaml")
    if file.exists():
        raise UsageError(f"{file} is there already; init overwrites nothing", "name another file")
    if name is not None and not re.fullmatch(_NAME, name):
        raise UsageError(f"{name!r} cannot be a name", "use letters, digits, _ and -, and begin with a letter or digit")
    name = name or _name_of(file)
    found = {}
    if data is not None:
        started = write_spec_for(data, file, name=name, target=target)
        found = {"kind": started.kind, "samples": started.samples, "classes": list(started.classes)}
    else:
        write_template(file, name, template or STARTER)
    console.result({"spec": str(file), "name": name, **found}, f"wrote {file}; train it: mltool run {file}")


_NAME = r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}"


def _name_of(file: Path) -> str:
    """The file's name as the name of a model: `my model (2).yaml` is `my-model-2`."""
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", file.stem).strip("-_")
    return name[:64].rstrip("-_") or "model"

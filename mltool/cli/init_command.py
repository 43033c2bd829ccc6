"""`mltool init`."""

import re
from pathlib import Path
from typing import Annotated

import typer

from mltool import console
from mltool.assets import asset_folder
from mltool.cli.options import examples, verb
from mltool.errors import UsageError

SETTINGS = examples("mltool init my.yaml", "mltool init keywords.yaml --name keyword-spotter")

Target = Annotated[Path, typer.Argument(metavar="FILE", help="The YAML file to write.", show_default=False)]
Name = Annotated[
    str | None,
    typer.Option("--name", metavar="NAME", help="Name of the model; made of FILE's when left out.", show_default=False),
]


@verb
def command(file: Target, name: Name = None) -> None:
    """Write a spec to start from, every key of it explained.

    It trains as it is, on data that are in the package: mltool run FILE.
    """
    from mltool.runs.atomic import write_text

    if file.exists():
        raise UsageError(f"{file} is there already; init overwrites nothing", "name another file")
    if name is not None and not re.fullmatch(_NAME, name):
        raise UsageError(f"{name!r} cannot be a name", "use letters, digits, _ and -, and begin with a letter or digit")
    name = name or _name_of(file)
    template = (asset_folder("templates") / "starter.yaml").read_text(encoding="utf-8")
    # In quotes, because a file may be called 2024.yaml or null.yaml.
    write_text(file, re.sub(r"^name: \S+", f"name: {_quoted(name)}", template, count=1, flags=re.MULTILINE))
    console.result({"spec": str(file), "name": name}, f"wrote {file}; train it: mltool run {file}")


_NAME = r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}"


def _name_of(file: Path) -> str:
    """The file's name as the name of a model: `my model (2).yaml` is `my-model-2`."""
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", file.stem).strip("-_")
    return name[:64].rstrip("-_") or "model"


def _quoted(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", name) and name.lower() not in _WORDS else f'"{name}"'


_WORDS = ("true", "false", "null")

"""`include:` of other YAML files: the spec builds on them, and messages still name the file that a value stands in."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mltool.errors import Message, SpecError
from mltool.spec.argument_check import shown
from mltool.spec.backbones import resolve_weights
from mltool.spec.convert import resolve_recipes
from mltool.spec.overrides import PATH_KEYS, SECTIONS_WITH_CODE, merged
from mltool.spec.user_code import beside, resolve_references
from mltool.yaml_reader import Document, read_yaml

MAX_DEPTH = 8
"""Files that include files; more is taken for a mistake."""


def read_spec_file(path: Path) -> Document:
    """Reads a YAML file and what it includes, merged: maps are merged, lists replaced, the including file wins.

    Paths in every file are made absolute, because each is relative to its own.

    Raises:
        SpecError: if a file is missing or no map, or the files include one another in a circle.
    """
    return _read(path, ())


def _read(path: Path, above: Sequence[Path]) -> Document:
    document = read_yaml(path)
    if not isinstance(document.data, dict):
        message = f"must be a map of sections (got {type(document.data).__name__})"
        raise SpecError(Message(message, "`mltool init` writes a spec to start from", document.file, 1, 1))
    resolve_paths(document.data, path.absolute().parent)
    names = document.data.pop("include", None)
    if names is None:
        return document
    names = [names] if isinstance(names, str) else names
    if not isinstance(names, list) or not all(isinstance(name, str) and name.strip() for name in names):
        raise _refusal(
            document, f"must be a file or a list of files (got {shown(names)})", "write include: [base.yaml]"
        )
    chain = (*above, path.resolve())
    found = document
    for name in reversed(names):
        file = path.parent / Path(name).expanduser()
        if file.resolve() in chain:
            raise _refusal(document, f"{name} includes this file in a circle", "take one of the two out")
        if len(chain) > MAX_DEPTH:
            message = f"{name} would be file {len(chain) + 1} of files that include one another"
            raise _refusal(document, message, f"{MAX_DEPTH + 1} are the most: put some of them together")
        if not file.is_file():
            raise _refusal(document, f"{name} is not there", "the path is relative to this file")
        base = _read(file, chain)
        _forget_path(base.data, found.data)
        found = found.on_top_of(base, merged)
    return found


def _forget_path(base: dict[str, Any], data: dict[str, Any]) -> None:
    """A data set that the including file asks for must not lose against a path of the included one."""
    below, above = _source(base), _source(data)
    if "dataset" in above and "path" not in above:
        below.pop("path", None)
        below.pop("kind", None)


def _source(data: dict[str, Any]) -> dict[str, Any]:
    section = data.get("data")
    source = section.get("source") if isinstance(section, dict) else None
    return source if isinstance(source, dict) else {}


def _refusal(document: Document, message: str, hint: str) -> SpecError:
    place = document.locate(("include",))
    line, column = (place.line, place.column) if place else (None, None)
    return SpecError(Message(message, hint, document.file, line, column, "include"))


def resolve_paths(data: dict[str, Any], folder: Path) -> None:
    """Makes the paths of one file absolute.

    Args:
        data: of the file; changed.
        folder: that the file lies in.
    """
    for path in PATH_KEYS:
        node: Any = data
        for part in path[:-1]:
            node = node.get(part) if isinstance(node, dict) else None
        value = node.get(path[-1]) if isinstance(node, dict) else None
        if isinstance(value, str) and value:
            node[path[-1]] = str(folder / Path(value).expanduser())
    resolve_weights(data.get("model"), folder)
    resolve_recipes(data.get("convert"), folder)
    source = _source(data)
    if isinstance(source.get("python"), str):
        source["python"] = beside(source["python"], folder)
    for name in SECTIONS_WITH_CODE:
        if isinstance(data.get(name), dict):
            resolve_references(data[name], folder)

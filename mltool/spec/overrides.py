"""`--set a.b=c`: values of the spec replaced from the command line, with their own place in messages."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mltool.errors import Message, SpecError
from mltool.spec.backbones import resolve_weights
from mltool.spec.catalogue import OWN
from mltool.spec.catalogue_entries import KINDS, known_names
from mltool.spec.convert import resolve_recipes
from mltool.spec.user_code import beside, resolve_references
from mltool.yaml_reader import KeyPath, dotted, parse_value

PATH_KEYS: tuple[KeyPath, ...] = (
    ("data", "source", "path"),
    ("data", "source", "data_dir"),
    ("data", "source", "masks"),
    ("data", "source", "test_path"),
    ("data", "source", "validation_path"),
)
"""Keys that hold a path: relative to the spec in YAML, to the working directory in `--set`."""

SECTIONS_WITH_CODE = ("model", "train")
"""Sections in which `python:` may stand anywhere."""


@dataclass
class Overrides:
    """The data of a file with overrides merged in."""

    data: dict[str, Any]
    origins: dict[KeyPath, str] = field(default_factory=dict)
    """The override that the value at a path came from, as the user wrote it."""
    written: frozenset[KeyPath] = frozenset()
    """Every path that the file itself has."""

    def origin_of(self, path: KeyPath) -> str:
        """The override that is to blame for the value at `path`, or "" if that is the file."""
        above = [text for start, text in self.origins.items() if path[: len(start)] == start]
        if above or path in self.written:
            return above[-1] if above else ""
        # A key that only overrides made, such as a misspelt section: what they set is further down.
        return next((text for end, text in self.origins.items() if end[: len(path)] == path), "")


def apply_overrides(data: dict[str, Any], overrides: Sequence[str]) -> Overrides:
    """Merges overrides into a copy of `data`: maps are merged, lists replaced, `Name: {...}` replaced for another name.

    Raises:
        SpecError: for every override that is not KEY=VALUE, whose value is not YAML, or whose list index is not there.
    """
    applied = Overrides(copy.deepcopy(data), written=frozenset(_paths(data, ())))
    problems: list[Message] = []
    for override in overrides:
        try:
            _apply(applied, override)
        except SpecError as error:
            problems += error.messages
    if problems:
        raise SpecError(problems)
    return applied


def _paths(value: Any, path: KeyPath) -> list[KeyPath]:
    items: Any = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(below for key, item in items for below in _paths(item, (*path, key)))]


def _apply(applied: Overrides, override: str) -> None:
    key, equals, text = override.partition("=")
    parts = key.strip().split(".")
    file = f"--set {override}"
    if not equals or not all(parts):
        raise SpecError(Message(f"must be KEY=VALUE (got {override!r})", "write --set train.epochs=3", file))
    value = parse_value(text, file, key=key.strip())
    path = tuple(int(part) if part.isascii() and part.isdecimal() else part for part in parts)
    value = _with_files(path, value)
    # As a tree from the root, so that one rule of merging serves `a.b=c` and `a={b: c}`.
    owner, last = _descend(applied.data, path, file)
    before = owner[last] if isinstance(owner, list) else owner.get(last)
    owner[last] = merged(before, value)
    _finish(applied, path, value, override)


def _descend(data: dict[str, Any], path: KeyPath, file: str) -> tuple[Any, Any]:
    """The map or list that holds the last key of the path, made where it is not there; and that key."""
    node: Any = data
    for depth, part in enumerate(path):
        if isinstance(node, list) and not (isinstance(part, int) and part < len(node)):
            message = f"{dotted(path[:depth])} is a list of {len(node)}; it has no item {part!r}"
            raise SpecError(Message(message, "count from 0", file, key=dotted(path)))
        if isinstance(node, dict) and isinstance(part, int):
            message = f"there is no list at {dotted(path[:depth]) or 'the top'}, so no item {part}"
            raise SpecError(Message(message, "set the whole list: KEY=[...]", file, key=dotted(path)))
        if depth == len(path) - 1:
            break
        below = node.get(part) if isinstance(node, dict) else node[int(part)]
        if not isinstance(below, dict | list) or _names_another(below, [path[depth + 1]]):
            below = {}
        node[part] = below
        node = below
    return node, path[-1]


def merged(before: Any, value: Any) -> Any:
    """`value` put over `before`: maps are merged, lists replaced, `Name: {...}` replaced whole for another name."""
    if not isinstance(before, dict) or not isinstance(value, dict) or _names_another(before, list(value)):
        return value
    return {**before, **{key: merged(before.get(key), item) for key, item in value.items()}}


def _names_another(before: Any, keys: list[Any]) -> bool:
    """Whether a map is one Keras object and `keys` is the name of another, which replaces it whole."""
    if not isinstance(before, dict) or not before or not keys:
        return False
    if OWN in keys and OWN not in before:
        return len(before) == 1 and _is_keras_name(next(iter(before)))
    if OWN in before and OWN not in keys:
        return len(keys) == 1 and _is_keras_name(keys[0])
    if len(before) != 1 or len(keys) != 1 or keys[0] in before:
        return False
    (old,), new = before, keys[0]
    return _is_keras_name(old) and (_is_keras_name(new) or str(new)[:1].isupper())


def _is_keras_name(name: Any) -> bool:
    return any(name in known_names(kind) for kind in KINDS)


def _finish(applied: Overrides, path: KeyPath, value: Any, override: str) -> None:
    """Notes where values came from, and gives the paths among them their meaning."""
    leaves = _leaves(value, path)
    for leaf in leaves:
        applied.origins.pop(leaf, None)  # the last one to set a value is the one to blame
        applied.origins[leaf] = override
    for leaf in leaves:
        _resolve_weights_at(applied.data, leaf)
    if path[0] == "convert":
        resolve_recipes(applied.data["convert"], Path.cwd())  # those of the file are absolute, and stay what they are
    source: Any = applied.data.get("data")
    source = source.get("source") if isinstance(source, dict) else None
    if not isinstance(source, dict):
        return
    for leaf in PATH_KEYS:
        if leaf in leaves and isinstance(source.get(str(leaf[-1])), str) and source[str(leaf[-1])]:
            source[str(leaf[-1])] = str(Path(source[str(leaf[-1])]).expanduser().absolute())
    if ("data", "source", "python") in leaves and isinstance(source.get("python"), str):
        source["python"] = beside(source["python"], Path.cwd())
    # A data set that is asked for now must not lose against a path that stands in the file.
    if ("data", "source", "dataset") in leaves and ("data", "source", "path") not in leaves:
        source.pop("path", None)
        source.pop("kind", None)


def _resolve_weights_at(data: dict[str, Any], path: KeyPath) -> None:
    """The weights of a layer, or of the layers of a list, are relative to the working directory."""
    if path[0] != "model":
        return
    value: Any = data
    for part in path[:-2] if path[-1] == "weights" else path:
        value = value[part]
    resolve_weights(value, Path.cwd())


def _with_files(path: KeyPath, value: Any) -> Any:
    """The value, with the files of what `python:` names in it: they are looked for in the working directory."""
    if path[0] not in SECTIONS_WITH_CODE or "arguments" in path:
        return value
    if path[-1] == OWN and isinstance(value, str):
        return beside(value, Path.cwd())
    if isinstance(value, dict | list):
        resolve_references(value, Path.cwd())
    return value


def _leaves(value: Any, path: KeyPath) -> list[KeyPath]:
    if not isinstance(value, dict) or not value:
        return [path]
    return [leaf for key, item in value.items() for leaf in _leaves(item, (*path, key))]

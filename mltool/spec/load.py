"""Reads a spec: YAML, overrides, paths, sections; every mistake in one answer, and no TensorFlow."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from mltool.errors import Message, SpecError
from mltool.spec.messages import to_message
from mltool.spec.mistakes import check_spec
from mltool.spec.overrides import PATH_KEYS, Overrides, apply_overrides
from mltool.spec.spec import Spec, to_plain
from mltool.yaml_reader import Document, parse_value, read_yaml


def load_spec(path: str | Path, overrides: Sequence[str] = ()) -> Spec:
    """Reads and checks the spec at `path`.

    Args:
        path: a YAML file.
        overrides: `a.b=c`, merged in before the check, as `--set` does.

    Raises:
        SpecError: with every mistake of the file and the overrides.
    """
    document = read_yaml(Path(path))
    if not isinstance(document.data, dict):
        message = f"must be a map of sections (got {type(document.data).__name__})"
        raise SpecError(Message(message, "`mltool init` writes a spec to start from", document.file, 1, 1))
    applied = apply_overrides(document.data, overrides)
    _resolve_paths(applied.data, Path(path).absolute().parent, applied)
    return _check(applied.data, document, applied)


def _resolve_paths(data: dict[str, Any], folder: Path, overrides: Overrides) -> None:
    """Makes the paths that the file writes absolute; those of `--set` are already."""
    for path in PATH_KEYS:
        node: Any = data
        for part in path[:-1]:
            node = node.get(part) if isinstance(node, dict) else None
        value = node.get(path[-1]) if isinstance(node, dict) else None
        if isinstance(value, str) and value and path not in overrides.origins:
            node[path[-1]] = str(folder / Path(value).expanduser())


def _check(data: dict[str, Any], document: Document, overrides: Overrides) -> Spec:
    found = check_spec(data)
    if isinstance(found, Spec):
        return found
    messages = [to_message(error, document, overrides.origin_of) for error in found]
    # Overrides first, then the file from top to bottom.
    raise SpecError(sorted(dict.fromkeys(messages), key=lambda m: (m.line or 0, m.column or 0)))


def dump_spec(spec: Spec) -> str:
    """The resolved spec as YAML that `load_spec` reads back as an equal spec."""
    return yaml.dump(to_plain(spec), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


class _Dumper(yaml.SafeDumper):
    """Quotes text that YAML 1.2 would read as something else: PyYAML decides that by YAML 1.1."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    plain = "\n" not in text and isinstance(_read_back(text), str)
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if plain else '"')


def _read_back(text: str) -> Any:
    try:
        return parse_value(text, "")
    except SpecError:
        return None


_Dumper.add_representer(str, _represent_text)

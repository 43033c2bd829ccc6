"""pydantic's errors in our words: what was passed, what was expected, how to fix it, and where it stands."""

import re
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from mltool.errors import Message
from mltool.spec.argument_check import did_you_mean, hint_for_text, shown
from mltool.spec.argument_types import parse_type
from mltool.spec.spec import Spec
from mltool.yaml_reader import Document, KeyPath, dotted

_WORDS: dict[str, str] = {
    "missing": "is missing",
    "greater_than": "must be greater than {gt:g} (got {got})",
    "greater_than_equal": "must be at least {ge} (got {got})",
    "less_than": "must be less than {lt:.10g} (got {got})",
    "less_than_equal": "must be at most {le} (got {got})",
    "int_type": "must be a whole number (got {got})",
    "int_from_float": "must be a whole number (got {got})",
    "float_type": "must be a number (got {got})",
    "bool_type": "must be true or false (got {got})",
    "string_type": "must be text (got {got})",
    "string_pattern_mismatch": "must match {pattern} (got {got})",
    "literal_error": "must be {expected} (got {got})",
    "tuple_type": "must be a list (got {got})",
    "list_type": "must be a list (got {got})",
    "dict_type": "must be a map (got {got})",
    "model_type": "must be a map of keys (got {got})",
    "model_attributes_type": "must be a map of keys (got {got})",
    "too_short": "must not be empty",
}
"""Error type of pydantic to our sentence; `got` is the value as YAML has it."""

_REQUIRED = {
    "name": "add name: my-model",
    "data": "add data: {source: {dataset: digits}}",
    "data.source": "add source: {dataset: digits}, or source: {path: FILE.npz}",
    "model": "add model: {layers: [...]}",
    "train": "add train: {loss: ...}",
}
"""What to write for a key that is missing."""

_NO_AUTO = {"data.batch_size": "write a number; mltool train SPEC --find-batch-size tells the largest that fits"}
"""What to do where `auto` would train another model on every machine."""


def to_message(error: ErrorDetails, document: Document, origin: Callable[[KeyPath], str]) -> Message:
    """One error as a message with its place.

    Args:
        error: as pydantic gives it.
        document: knows where each key stands.
        origin: the `--set` that a path came from, or "".
    """
    path, kind = error["loc"], error["type"]
    text, hint = _worded(error)
    at_key = bool(error.get("ctx", {}).get("at_key")) or kind in ("extra_forbidden", "missing")
    return message_at(path, text, hint, document, origin, at_key=at_key)


def message_at(
    path: KeyPath, text: str, hint: str, document: Document, origin: Callable[[KeyPath], str], *, at_key: bool = False
) -> Message:
    """A message with the place of a value, or of its key, in the file or the override that it came from."""
    key, override = dotted(path), origin(path)
    if override:
        return Message(text, hint, file=f"--set {override}", key=key)
    found = document.locate(path, key=at_key)
    line, column = (found.line, found.column) if found else (None, None)
    return Message(text, hint, document.file_of(path), line, column, key)


def _worded(error: ErrorDetails) -> tuple[str, str]:
    """The message and the hint."""
    path, kind, context = error["loc"], error["type"], error.get("ctx", {})
    if kind == "problem":
        return str(context["text"]), str(context["hint"])
    if kind == "extra_forbidden":
        return "unknown key", _similar_key(path)
    words, got = _WORDS.get(kind), shown(error["input"])
    text = words.format(got=got, **context) if words else f"{error['msg']} (got {got})"
    if error["input"] == "auto" and dotted(path) in _NO_AUTO:
        return text, _NO_AUTO[dotted(path)]
    return text, _REQUIRED.get(dotted(path), "") if kind == "missing" else _hint(kind, error["input"], context)


def _hint(kind: str, value: Any, context: Mapping[str, Any]) -> str:
    if kind == "bool_type":
        return hint_for_text(value, parse_type("bool"))
    if kind in ("int_type", "float_type"):
        return hint_for_text(value, parse_type("number"))
    if kind == "literal_error" and isinstance(value, str):
        return did_you_mean(value, re.findall("'([^']*)'", str(context.get("expected", ""))))
    if kind == "string_pattern_mismatch":
        return "use letters, digits, _ and -, and begin with a letter or digit"
    if kind in ("tuple_type", "list_type"):
        return f"write [{value}]" if isinstance(value, str) else "write its items with - in front"
    return ""


def _similar_key(path: KeyPath) -> str:
    known = known_keys(path[:-1])
    if not known:
        return "this section has no keys"
    return did_you_mean(str(path[-1]), known) or f"known keys: {', '.join(known)}"


def known_keys(path: KeyPath) -> list[str]:
    """The keys of the section at `path`, in the order of the spec."""
    section: Any = Spec
    for part in path:
        field = section.model_fields.get(part) if _is_section(section) and isinstance(part, str) else None
        if field is not None:
            section = field.annotation
        section = next(_sections(section), section)
    return list(section.model_fields) if _is_section(section) else []


def _is_section(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, BaseModel)


def _sections(annotation: Any) -> Iterator[Any]:
    if _is_section(annotation):
        yield annotation
    for inner in typing.get_args(annotation):
        yield from _sections(inner)

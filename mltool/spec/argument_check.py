"""Holds one value of a spec against the type of an argument, and says what is wrong in words that help."""

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from mltool.spec.argument_types import Alternative, ListOf, Literals, Nested, Number, Scalar, describe


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake in a value."""

    path: tuple[str | int, ...]
    """From the value that was checked: `("Adam", "learning_rte")`."""
    at_key: bool
    """Whether the last key of the path is wrong; else what stands under it."""
    message: str
    """What is wrong, with what was received."""
    hint: str = ""
    """How to mend it."""


Checked = tuple[Any, list[Problem]]
"""A value, with the Keras objects in it parsed, and its problems; without any, the value may be used."""

ParseNested = Callable[[Any, str], Checked]
"""Checks a Keras object of a kind."""

_SIMILAR: Final = 0.66
"""Two letters of three exchanged (`SDG` for `SGD`) are still the same word; difflib's own 0.6 finds too much."""

_YAML_1_1_BOOLEANS: Final = ("on", "off", "yes", "no", "y", "n")


def check_value(value: Any, alternatives: Sequence[Alternative], parse_nested: ParseNested) -> Checked:
    """Checks `value` against a type of which at least one alternative must hold."""
    if any(alternative.accepts(value) for alternative in alternatives):
        return value, []
    if hint := hint_for_text(value, alternatives):
        return value, [_mismatch(value, alternatives, hint)]
    for alternative in alternatives:
        if isinstance(alternative, Nested) and isinstance(value, str | dict):
            return parse_nested(value, alternative.kind)
        if isinstance(alternative, ListOf) and alternative.accepts_length(value):
            return _check_items(value, alternative, parse_nested)
    return value, [_mismatch(value, alternatives, _hint(value, alternatives))]


def shown(value: Any) -> str:
    """A value in an error message: as YAML would write it, and short."""
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case dict():
            return "a map"
        case list():
            text = f"[{', '.join(shown(item) for item in value)}]"
            return text if len(text) <= 40 else f"a list of {len(value)}"
        case _:
            text = repr(value)
            return text if len(text) <= 60 else text[:57] + "..."


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """A hint with the most similar of some names, whatever their case; empty where none is similar."""
    close = difflib.get_close_matches(_plain(word), {_plain(name): None for name in known}, n=1, cutoff=_SIMILAR)
    if not close:
        return ""
    # Of names that differ in case alone (`accuracy`, `Accuracy`), the one that is written more like the word.
    same = [name for name in known if _plain(name) == close[0]]
    return f"did you mean {max(same, key=lambda name: difflib.SequenceMatcher(None, word, name).ratio())!r}?"


def _check_items(values: list[Any], expected: ListOf, parse_nested: ParseNested) -> Checked:
    checked: list[Any] = []
    problems: list[Problem] = []
    for index, value in enumerate(values):
        item, found = check_value(value, expected.item, parse_nested)
        checked.append(item)
        problems += [replace(problem, path=(index, *problem.path)) for problem in found]
    return checked, problems


def _mismatch(value: Any, alternatives: Sequence[Alternative], hint: str) -> Problem:
    return Problem((), False, f"must be {describe(alternatives)} (got {shown(value)})", hint)


def hint_for_text(value: Any, alternatives: Sequence[Alternative]) -> str:
    """What a text was meant to be where a number or a boolean belongs: quotes, or YAML 1.1's words."""
    if not isinstance(value, str):
        return ""
    if any(isinstance(alternative, Number) for alternative in alternatives) and _is_number(value):
        return "remove the quotes"
    if Scalar("bool") not in alternatives:
        return ""
    if value.lower() in ("true", "false"):
        return "remove the quotes"
    if value.lower() in _YAML_1_1_BOOLEANS:
        return f"YAML 1.2 reads `{value}` as text; write true or false"
    return ""


def _hint(value: Any, alternatives: Sequence[Alternative]) -> str:
    if isinstance(value, float) and value.is_integer() and _accepts(int(value), alternatives):
        return f"write {int(value)}"
    texts = [text for kind in alternatives if isinstance(kind, Literals) for text in kind.values]
    return did_you_mean(value, texts) if isinstance(value, str) else ""


def _accepts(value: Any, alternatives: Sequence[Alternative]) -> bool:
    return any(alternative.accepts(value) for alternative in alternatives)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _plain(name: str) -> str:
    return name.replace("_", "").lower()

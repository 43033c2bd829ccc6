"""Checks of Keras' names and arguments without Keras: what a spec may write where a layer, an optimizer, ... stands.

The knowledge is in `catalogue.json`, which `write_catalogue` makes from the installed Keras. A value is written as
`Name`, as one of Keras' short names (`adam`), or as `Name: {arguments}`. Two names of kind metric are no classes:
`accuracy` and `crossentropy` (`acc`, `ce`) stand, as in Keras' `compile`, for the one that fits the loss and the shapes
of targets and outputs.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, cast

from mltool.spec.argument_check import Checked, Problem, check_value, did_you_mean, shown
from mltool.spec.argument_types import with_article
from mltool.spec.catalogue_entries import (
    KINDS,
    Entry,
    Kind,
    known_names,
    load_entry,
    no_keras_layers,
    refused_names,
)
from mltool.spec.catalogue_schema import json_schema

__all__ = [
    "KINDS",
    "OWN",
    "UNREADABLE",
    "KerasObject",
    "Kind",
    "Problem",
    "call_arguments",
    "json_schema",
    "names",
    "parse_keras_object",
]

OWN: Final = "python"
"""Key of an entry that names code of the user's (`own_things.py`); nothing of Keras is called so."""

_ARGUMENT_HINTS: Final = {
    "lr": "did you mean 'learning_rate'?",
    "input_shape": "the shape comes from the data",
    "batch_input_shape": "the shape comes from the data",
    "batch_size": "the batch size is `data.batch_size`",
    "label_smoothing": "write CategoricalCrossentropy: {label_smoothing: 0.1}, which takes the same labels here, or"
    " BinaryCrossentropy",
}


@dataclass(frozen=True, slots=True)
class KerasObject:
    """An object of Keras as a checked spec holds it."""

    name: str
    """Canonical name: the public class of Keras (`Adam`), of activations the function (`relu`)."""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """What the spec gave; objects of Keras in it are `KerasObject`, also in lists. Defaults are not filled in."""

    @property
    def given_name(self) -> str | None:
        """The name that the spec gives."""
        return self.arguments.get("name")

    @property
    def from_logits(self) -> bool:
        """Whether the outputs that a loss or a metric takes are logits."""
        return bool(self.arguments.get("from_logits"))

    def path_of(self, key: str) -> tuple[str, ...]:
        """Where an argument stands, from the entry."""
        return (self.name, key)

    def to_spec(self) -> Any:
        """The value as YAML would hold it; reading that again gives an equal object."""
        if not self.arguments:
            return self.name
        return {self.name: {key: _to_spec(value) for key, value in self.arguments.items()}}


UNREADABLE: Final = KerasObject("")
"""Stands where a value had mistakes, so that the rest is still checked; it is in no spec that is returned."""


def parse_keras_object(value: Any, kind: Kind, *, extra_arguments: Iterable[str] = ()) -> KerasObject | list[Problem]:
    """Checks one value of the spec.

    Args:
        value: as the YAML reader gives it.
        kind: what the place in the spec takes.
        extra_arguments: arguments beside Keras' own (`inputs` of a layer); kept as they are, for the caller to check.

    Returns:
        The object, or every problem of the value.
    """
    if isinstance(value, str):
        return _parse_named(value, {}, kind)
    if isinstance(value, dict) and OWN in value:
        message = f"{with_article(kind)} of yours cannot stand here in this version"
        return [Problem((OWN,), True, message, "python: stands for items of layers, for the loss and for metrics")]
    if problem := _form_problem(value, kind):
        return [problem]
    name, arguments = next(iter(value.items()))
    found = _parse_named(name, arguments or {}, kind, frozenset(extra_arguments))
    if isinstance(found, KerasObject):
        return found
    return [
        replace(problem, path=(name, *problem.path), at_key=problem.at_key or not problem.path) for problem in found
    ]


def names(kind: Kind) -> tuple[str, ...]:
    """Canonical names of everything of a kind, sorted; short names are left out."""
    return tuple(sorted(set(known_names(kind).values())))


def call_arguments(layer_name: str) -> tuple[str, ...]:
    """Names of the tensors that a layer must be called with: `("inputs",)`, `("query", "value")`.

    With one name, several inputs are passed as one list (`Concatenate`); with more, by position.

    Raises:
        KeyError: no layer has this name.
    """
    entry = load_entry("layer", layer_name)
    if entry is None:
        raise KeyError(layer_name)
    return entry.call


def _form_problem(value: Any, kind: Kind) -> Problem | None:
    """What is wrong with the form of a value that is no string, or None: it must be `{name: {arguments}}`."""
    if not isinstance(value, dict):
        name = _example(kind)
        hint = f"write {name} or {name}: {{...}}"
        return Problem((), False, f"must be {with_article(kind)} (got {shown(value)})", hint)
    if len(value) != 1:
        written = f": {', '.join(shown(key) for key in value)}" if value else ""
        message = f"must be one {kind} (got a map of {len(value)} keys{written})"
        return Problem((), False, message, _one_name_hint(value, kind))
    name, arguments = next(iter(value.items()))
    if not isinstance(name, str):
        return Problem((name,), True, f"must be the name of {with_article(kind)} (got {shown(name)})")
    if not isinstance(arguments, dict | None):
        return Problem((name,), False, f"the arguments must be a map (got {shown(arguments)})", _write(name, kind))
    return None


def _parse_named(
    name: str, arguments: dict[Any, Any], kind: Kind, extra: frozenset[str] = frozenset()
) -> KerasObject | list[Problem]:
    """Checks name and arguments; paths start below the name, and an empty path is the name itself."""
    entry = load_entry(kind, name)
    if entry is None:
        return [_unknown_name(name, kind)]
    checked: dict[str, Any] = {}
    problems: list[Problem] = []
    for key, value in arguments.items():
        checked[key], found = (value, []) if key in extra else _check_argument(entry, kind, key, value)
        problems += found
    # A misspelt argument is one mistake: the one that it was meant to be is not missing too.
    meant = {problem.hint for problem in problems if problem.at_key}
    missing = [key for key in entry.required if key not in arguments and f"did you mean {key!r}?" not in meant]
    return [*(_missing(entry, key) for key in missing), *problems] or KerasObject(entry.name, checked)


def _check_argument(entry: Entry, kind: Kind, key: Any, value: Any) -> Checked:
    argument = entry.arguments.get(key)
    if argument is None:
        return value, [Problem((key,), True, "unknown argument", _unknown_argument_hint(entry, kind, key))]
    checked, problems = check_value(value, argument.alternatives, _parse_nested)
    return checked, [replace(problem, path=(key, *problem.path)) for problem in problems]


def _parse_nested(value: Any, kind: str) -> Checked:
    found = parse_keras_object(value, cast(Kind, kind))
    if kind == "layer" and isinstance(found, KerasObject) and found.name in no_keras_layers():
        message = f"{found.name!r} is no layer of Keras, and cannot stand inside of one"
        return value, [Problem((), False, message, "write it as an item of its own")]
    return (found, []) if isinstance(found, KerasObject) else (value, found)


def _unknown_name(name: str, kind: Kind) -> Problem:
    if reason := refused_names(kind).get(name):
        return Problem((), False, f"{name!r} cannot be used in a spec: it {reason}")
    known = list(known_names(kind))  # canonical names first: of two that differ in case alone, the class is meant
    if same := [other for other in known if other.lower() == name.lower()]:
        return Problem((), False, f"unknown {kind} {name!r}", f"did you mean {same[0]!r}?")
    elsewhere = [other for other in KINDS if other != kind and name in known_names(other)]
    if elsewhere:
        hint = f"{name!r} is {with_article(elsewhere[0])}, not {with_article(kind)}"
    else:
        hint = did_you_mean(name, known)
    return Problem((), False, f"unknown {kind} {name!r}", hint or f"`mltool schema` lists every {kind}")


def _missing(entry: Entry, key: str) -> Problem:
    needed = ", ".join(f"{name}: ..." for name in entry.required)
    return Problem((), False, f"missing argument {key!r}", f"write {entry.name}: {{{needed}}}")


def _unknown_argument_hint(entry: Entry, kind: Kind, key: Any) -> str:
    if kind == "activation":
        return "Keras cannot save an activation with arguments; use a layer such as LeakyReLU, ReLU, ELU or Softmax"
    hint = did_you_mean(key, list(entry.arguments)) if isinstance(key, str) else ""
    return hint or _ARGUMENT_HINTS.get(key, "") or _known_arguments(entry)


def _known_arguments(entry: Entry) -> str:
    return f"known arguments: {', '.join(entry.arguments)}" if entry.arguments else f"{entry.name} takes no arguments"


def _one_name_hint(value: dict[Any, Any], kind: Kind) -> str:
    """Arguments that stand beside the name instead of under it are the usual slip of indentation."""
    known = [key for key in value if isinstance(key, str) and key in known_names(kind)]
    if len(known) == 1:
        return f"indent the arguments under {known[0]}"
    return f"write every {kind} as an item of a list" if known else _write("", kind)


def _write(name: str, kind: Kind) -> str:
    """Shows how the arguments of `name` are written; of an unknown name, those of a known one."""
    entry = load_entry(kind, name) or load_entry(kind, _example(kind))
    keys = (*entry.required, *entry.arguments) if entry else ()
    return f"write {entry.name}: {{{keys[0]}: ...}}" if entry and keys else f"write {name or _example(kind)}"


def _example(kind: Kind) -> str:
    return {"layer": "Dense", "optimizer": "Adam", "callback": "EarlyStopping"}.get(kind, names(kind)[0])


def _to_spec(value: Any) -> Any:
    match value:
        case KerasObject():
            return value.to_spec()
        case list():
            return [_to_spec(item) for item in value]
        case _:
            return value

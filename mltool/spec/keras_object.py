"""Fields that hold a Keras thing: `Name`, `Name: {arguments}` or Keras' short name, checked against the catalogue."""

from collections.abc import Callable
from typing import Annotated, Any

from mltool.spec.argument_check import shown
from mltool.spec.catalogue import KerasObject, Kind, Problem, names
from mltool.spec.own_things import OWN_KINDS, parse_entry
from mltool.spec.section import Checked, raise_problems

REFERENCE = "x-keras"
"""Key that `reference` writes."""


def _parser(kind: Kind) -> Callable[[Any], KerasObject]:
    def parse(value: Any) -> KerasObject:
        if isinstance(value, KerasObject):
            return value
        parsed = parse_entry(value, kind)
        if not isinstance(parsed, KerasObject):
            raise_problems(parsed, value)
            raise AssertionError("the catalogue refused a value without a problem")
        return parsed

    return parse


def _list_parser(kind: Kind) -> Callable[[Any], tuple[KerasObject, ...]]:
    def parse(value: Any) -> tuple[KerasObject, ...]:
        parsed, problems = parse_objects(value, kind)
        raise_problems(problems, value)
        return tuple(parsed)

    return parse


def parse_objects(
    value: Any, kind: Kind, *, extra_arguments: tuple[str, ...] = (), own: bool = True
) -> tuple[list[KerasObject], list[Problem]]:
    """Checks a list of things and collects the problems of all of them, with paths from the list; see `parse_entry`."""
    if not isinstance(value, list | tuple):
        return [], [Problem((), False, f"must be a list (got {shown(value)})", f"write [{_example(value, kind)}]")]
    parsed: list[KerasObject] = []
    problems: list[Problem] = []
    for index, item in enumerate(value):
        found = (
            item if isinstance(item, KerasObject) else parse_entry(item, kind, extra_arguments=extra_arguments, own=own)
        )
        if isinstance(found, KerasObject):
            parsed.append(found)
        else:
            problems += [Problem((index, *p.path), p.at_key, p.message, p.hint) for p in found]
    return parsed, problems


def _example(value: Any, kind: Kind) -> str:
    return value if isinstance(value, str) else names(kind)[0]


def reference(kind: Kind) -> dict[str, Any]:
    """Stands in the JSON Schema for a value of `kind`; `schema.py` makes the reference of it."""
    return {REFERENCE: kind}


def entry(kind: Kind) -> dict[str, Any]:
    """Stands in the JSON Schema for a value of `kind` that may be the user's own."""
    own = [{REFERENCE: f"own_{kind}"}] if kind in OWN_KINDS else []
    return {"anyOf": [reference(kind), *own]} if own else reference(kind)


def _one(kind: Kind) -> Checked:
    return Checked(_parser(kind), lambda: entry(kind))


def _many(kind: Kind) -> Checked:
    return Checked(_list_parser(kind), lambda: {"type": "array", "items": entry(kind)})


Optimizer = Annotated[KerasObject, _one("optimizer")]
Loss = Annotated[KerasObject, _one("loss")]
OptionalLoss = Annotated[KerasObject | None, _one("loss")]
Metrics = Annotated[tuple[KerasObject, ...] | None, _many("metric")]
Callbacks = Annotated[tuple[KerasObject, ...], _many("callback")]

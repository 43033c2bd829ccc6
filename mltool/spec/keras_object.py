"""Fields that hold a Keras thing: `Name`, `Name: {arguments}` or Keras' short name, checked against the catalogue."""

from collections.abc import Callable
from typing import Annotated, Any

from mltool.spec.argument_check import shown
from mltool.spec.catalogue import KerasObject, Kind, Problem, names, parse_keras_object
from mltool.spec.section import Checked, raise_problems

REFERENCE = "x-keras"
"""Key that `reference` writes."""


def _parser(kind: Kind) -> Callable[[Any], KerasObject]:
    def parse(value: Any) -> KerasObject:
        if isinstance(value, KerasObject):
            return value
        parsed = parse_keras_object(value, kind)
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
    value: Any, kind: Kind, *, extra_arguments: tuple[str, ...] = ()
) -> tuple[list[KerasObject], list[Problem]]:
    """Checks a list of Keras things and collects the problems of all of them, with paths from the list."""
    if not isinstance(value, list | tuple):
        return [], [Problem((), False, f"must be a list (got {shown(value)})", f"write [{_example(value, kind)}]")]
    parsed: list[KerasObject] = []
    problems: list[Problem] = []
    for index, item in enumerate(value):
        found = (
            item if isinstance(item, KerasObject) else parse_keras_object(item, kind, extra_arguments=extra_arguments)
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


def _one(kind: Kind) -> Checked:
    return Checked(_parser(kind), lambda: reference(kind))


def _many(kind: Kind) -> Checked:
    return Checked(_list_parser(kind), lambda: {"type": "array", "items": reference(kind)})


Optimizer = Annotated[KerasObject, _one("optimizer")]
Loss = Annotated[KerasObject, _one("loss")]
OptionalLoss = Annotated[KerasObject | None, _one("loss")]
Metrics = Annotated[tuple[KerasObject, ...] | None, _many("metric")]
Callbacks = Annotated[tuple[KerasObject, ...], _many("callback")]

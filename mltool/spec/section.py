"""What sections of the spec share: strict, frozen, closed to unknown keys; and the types that several of them use."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NoReturn

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationError
from pydantic_core import CoreSchema, InitErrorDetails, PydanticCustomError, PydanticOmit, core_schema

from mltool.spec.argument_check import shown
from mltool.spec.catalogue import Problem


class Section(BaseModel):
    """A typed part of the spec: unknown keys are errors, nothing is coerced, nothing changes after checking."""

    model_config = ConfigDict(
        strict=True,
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        arbitrary_types_allowed=True,
        validate_default=False,
    )


def raise_problems(problems: Iterable[Problem], value: Any) -> None:
    """Hands problems to pydantic, which puts the path of the surrounding section before theirs.

    Raises:
        ValidationError: if there is at least one problem.
    """
    details = problem_details(problems, value)
    if details:
        raise ValidationError.from_exception_data("spec", details)


def problem_details(problems: Iterable[Problem], value: Any) -> list[InitErrorDetails]:
    """Problems in pydantic's form."""
    return [
        _detail({"text": problem.message, "hint": problem.hint, "at_key": problem.at_key}, problem.path, value)
        for problem in problems
    ]


def error_details(error: ValidationError) -> list[InitErrorDetails]:
    """The errors in `error`, to be raised again beside others."""
    details: list[InitErrorDetails] = []
    for found in error.errors(include_url=False):
        if found["type"] == "problem":  # ours: pydantic knows no such type
            details.append(_detail(found["ctx"], found["loc"], found["input"]))
            continue
        detail = InitErrorDetails(type=found["type"], loc=found["loc"], input=found["input"])
        details.append({**detail, "ctx": found["ctx"]} if "ctx" in found else detail)
    return details


def _detail(context: dict[str, Any], path: tuple[str | int, ...], value: Any) -> InitErrorDetails:
    return InitErrorDetails(type=PydanticCustomError("problem", "{text}", context), loc=path, input=value)


def raise_problem(message: str, hint: str = "", *, path: tuple[str | int, ...] = (), at_key: bool = False) -> NoReturn:
    """Hands one problem to pydantic; see `raise_problems`.

    Raises:
        ValidationError: always.
    """
    raise ValidationError.from_exception_data("spec", problem_details([Problem(path, at_key, message, hint)], None))


@dataclass(frozen=True)
class Later:
    """Marks a key that the spec's form has and this version does not build: it takes its default only.

    With `values`, the key works and only those values are refused.
    """

    default: Any = None
    values: tuple[str, ...] = ()

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Refuses what is not built, before the type of the field is looked at."""
        if self.values:
            return core_schema.no_info_before_validator_function(self._refuse_values, handler(source))
        return core_schema.no_info_plain_validator_function(self._refuse_all_but_default)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Editors see the default as the only value, and nothing of a key that takes no value at all.

        Raises:
            PydanticOmit: to leave such a key out: what an editor completes, the spec should take.
        """
        if self.values:
            return handler(schema)
        if self.default is None:
            raise PydanticOmit
        return {"const": self.default}

    def _refuse_values(self, value: Any) -> Any:
        if isinstance(value, str) and value in self.values:
            raise_problem(f"not in this version (got {shown(value)})", "leave it out, or take another value")
        return value

    def _refuse_all_but_default(self, value: Any) -> Any:
        if value != self.default or type(value) is not type(self.default):
            only = "leave this key out" if self.default is None else f"the only value here is {shown(self.default)}"
            raise_problem(f"not in this version (got {shown(value)})", only)
        return value


@dataclass(frozen=True)
class Quantity:
    """Marks a number with a unit: `100 KB`, `5 ms`; a bare number is in the first unit of `units`.

    Args:
        what: what is measured, for the message ("a size").
        units: unit, in the spelling that is shown, to its factor.
    """

    what: str
    units: tuple[tuple[str, float], ...]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Takes a positive number, or text of a number and a unit."""
        return core_schema.no_info_plain_validator_function(self.parse)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Editors see a positive number or the pattern of the text form."""
        # JSON Schema's patterns know no flag for the case of letters, which `parse` does not mind.
        names = "|".join("".join(f"[{c.lower()}{c.upper()}]" for c in name) for name, _ in self.units)
        text = {"type": "string", "pattern": rf"^\s*(\d+(\.\d*)?|\.\d+)\s*({names})?\s*$"}
        return {"anyOf": [{"type": "number", "exclusiveMinimum": 0}, text, {"type": "null"}]}

    def parse(self, value: Any) -> float | None:
        """The value in the first unit; None stays None.

        Raises:
            ValidationError: if it is not a positive number with a known unit.
        """
        if value is None:
            return None
        factors = {name.lower(): factor for name, factor in self.units}
        found = re.fullmatch(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*([A-Za-z%]*)\s*", value) if isinstance(value, str) else None
        if found and (found[2] == "" or found[2].lower() in factors):
            number = float(found[1]) * factors.get(found[2].lower(), 1.0)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            number = float(value)
        else:
            number = -1.0
        if not 0 < number < float("inf"):
            examples = ", ".join(name for name, _ in self.units)
            raise_problem(f"must be {self.what} above 0 (got {shown(value)})", f"write a number and one of {examples}")
        return number


SIZE = Quantity("a size", (("B", 1), ("KB", 1e3), ("MB", 1e6), ("KiB", 1024), ("MiB", 1024**2)))
"""Bytes; KB is 1,000 bytes and KiB 1,024 (IEC 80000-13)."""

DURATION = Quantity("a time", (("s", 1), ("min", 60), ("h", 3600)))
"""Seconds."""

LATENCY = Quantity("a time", (("ms", 1), ("us", 1e-3), ("s", 1e3)))
"""Milliseconds."""


@dataclass(frozen=True)
class Checked:
    """Marks a field that one function checks and turns into its final type.

    Args:
        parse: takes the plain YAML value, returns the final one, raises `ValidationError` (see `raise_problems`).
        schema: JSON Schema of the YAML value.
    """

    parse: Callable[[Any], Any]
    schema: Callable[[], dict[str, Any]]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Runs `parse` alone."""
        return core_schema.no_info_plain_validator_function(self.parse)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """The schema of the YAML form."""
        return self.schema()

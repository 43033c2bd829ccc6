"""The types of Keras' arguments: a small language that the shipped catalogue is written in, and what it accepts.

A type is a list of alternatives with `|` between them, for instance `int>0|list2[int>0]`, `'valid'|'same'`,
`number>=0|schedule`, `initializer|null`:

- `int`, `number` (takes whole numbers too), each with bounds after it: `number>=0<=1`; booleans are never numbers;
- `bool`, `str`, `null`, `map`, `any`; `name` is text without a slash; `dtype` one of Keras' dtypes or dtype policies;
- `'text'`: exactly that text;
- `list[...]`, and `list2[...]` for a list of exactly two;
- any other word is a kind of the catalogue: a Keras object of that kind, written as in the spec.
"""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from typing import Any

DTYPES = (
    *("float16", "bfloat16", "float32", "float64", "int8", "int16", "int32", "int64"),
    *("uint8", "uint16", "uint32", "uint64", "bool", "string", "mixed_float16", "mixed_bfloat16"),
)
"""What Keras takes for `dtype`, without the types that no spec needs (complex, float8, quantized policies)."""

_BOUNDED = re.compile(r"(?P<base>int|number)(?P<bounds>((?:[<>]=?)-?\d+(?:\.\d+)?)*)")
_BOUND = re.compile(r"([<>]=?)(-?\d+(?:\.\d+)?)")
_LIST = re.compile(r"list(?P<length>\d*)\[(?P<item>.*)\]")
_WORDS = {">": "greater than", ">=": "of at least", "<": "less than", "<=": "of at most"}
_SCHEMA_KEYS = {">": "exclusiveMinimum", ">=": "minimum", "<": "exclusiveMaximum", "<=": "maximum"}


@dataclass(frozen=True, slots=True)
class Scalar:
    """`bool`, `str`, `name`, `dtype`, `null`, `map` or `any`."""

    name: str

    def accepts(self, value: Any) -> bool:
        """Whether `value`, as the YAML reader gives it, is of this type."""
        return _ACCEPTS[self.name](value)

    def describe(self, *, plural: bool = False) -> str:
        """The type in the words of an error message."""
        one, many = _SCALARS[self.name]
        return many if plural else one

    def schema(self) -> dict[str, Any]:
        """The type as JSON Schema."""
        return dict(_SCALAR_SCHEMAS[self.name])


_SCALARS = {
    "bool": ("true or false", "booleans"),
    "str": ("text", "texts"),
    "name": ("a name without '/'", "names without '/'"),
    "dtype": ("a dtype such as 'float32', 'int32' or 'mixed_float16'", "dtypes"),
    "null": ("null", "nulls"),
    "map": ("a map", "maps"),
    "any": ("any value", "any values"),
}
_ACCEPTS: dict[str, Callable[[Any], bool]] = {
    "bool": lambda value: isinstance(value, bool),
    "str": lambda value: isinstance(value, str),
    # Keras joins layer names with slashes to the paths of variables, and refuses names that hold one.
    "name": lambda value: isinstance(value, str) and value != "" and "/" not in value,
    "dtype": lambda value: isinstance(value, str) and value in DTYPES,
    "null": lambda value: value is None,
    "map": lambda value: isinstance(value, dict),
    "any": lambda value: True,
}
_SCALAR_SCHEMAS: dict[str, dict[str, Any]] = {
    "bool": {"type": "boolean"},
    "str": {"type": "string"},
    "name": {"type": "string", "pattern": "^[^/]+$"},
    "dtype": {"enum": list(DTYPES)},
    "null": {"type": "null"},
    "map": {"type": "object"},
    "any": {},
}


@dataclass(frozen=True, slots=True)
class Number:
    """`int` or `number`, within bounds such as `(">", 0)`."""

    integer: bool
    bounds: tuple[tuple[str, int | float], ...]

    def accepts(self, value: Any) -> bool:
        """Whether `value` is a finite number within the bounds, and whole where the type says `int`."""
        if isinstance(value, bool) or not isinstance(value, int if self.integer else int | float):
            return False
        finite = isinstance(value, int) or math.isfinite(value)  # isfinite(10**400) raises
        return finite and all(_within(value, sign, limit) for sign, limit in self.bounds)

    def describe(self, *, plural: bool = False) -> str:
        """The type in the words of an error message."""
        noun = ("integers" if plural else "an integer") if self.integer else ("numbers" if plural else "a number")
        match self.bounds:
            case ((">=", low), ("<=", high)):
                return f"{noun} from {low} to {high}"
            case _:
                limits = " and ".join(f"{_WORDS[sign]} {limit}" for sign, limit in self.bounds)
                return f"{noun} {limits}".rstrip()

    def schema(self) -> dict[str, Any]:
        """The type as JSON Schema."""
        bounds = {_SCHEMA_KEYS[sign]: limit for sign, limit in self.bounds}
        return {"type": "integer" if self.integer else "number", **bounds}


@dataclass(frozen=True, slots=True)
class Literals:
    """One of some fixed texts."""

    values: tuple[str, ...]

    def accepts(self, value: Any) -> bool:
        """Whether `value` is one of the texts."""
        return isinstance(value, str) and value in self.values

    def describe(self, *, plural: bool = False) -> str:
        """The type in the words of an error message."""
        texts = ", ".join(repr(value) for value in self.values)
        return texts if len(self.values) == 1 else f"{'texts out' if plural else 'one'} of {texts}"

    def schema(self) -> dict[str, Any]:
        """The type as JSON Schema."""
        return {"enum": list(self.values)}


@dataclass(frozen=True, slots=True)
class ListOf:
    """A list whose items are all of one type; `length` where it is fixed."""

    item: tuple["Alternative", ...]
    length: int | None

    def accepts(self, value: Any) -> bool:
        """Whether `value` is a list of such items; lists of Keras objects are judged by the catalogue instead."""
        return self.accepts_length(value) and all(any(kind.accepts(part) for kind in self.item) for part in value)

    def accepts_length(self, value: Any) -> bool:
        """Whether `value` is a list with the right number of items."""
        return isinstance(value, list) and self.length in (None, len(value))

    def describe(self, *, plural: bool = False) -> str:
        """The type in the words of an error message."""
        count = "" if self.length is None else f"{self.length} "
        return f"{'lists' if plural else 'a list'} of {count}{describe(self.item, plural=self.length != 1)}"

    def schema(self) -> dict[str, Any]:
        """The type as JSON Schema."""
        fixed = {} if self.length is None else {"minItems": self.length, "maxItems": self.length}
        return {"type": "array", "items": schema(self.item), **fixed}


@dataclass(frozen=True, slots=True)
class Nested:
    """A Keras object of a kind; the catalogue itself checks the value."""

    kind: str

    def accepts(self, value: Any) -> bool:
        """Never: only the catalogue can tell."""
        return False

    def describe(self, *, plural: bool = False) -> str:
        """The type in the words of an error message."""
        return f"{self.kind}s" if plural else with_article(self.kind)

    def schema(self) -> dict[str, Any]:
        """The type as JSON Schema."""
        return {"$ref": f"#/$defs/keras_{self.kind}"}


Alternative = Scalar | Number | Literals | ListOf | Nested


@cache
def parse_type(text: str) -> tuple[Alternative, ...]:
    """The alternatives of a type, neighbouring `'texts'` taken together."""
    alternatives: list[Alternative] = []
    for is_text, parts in groupby(_split(text), key=lambda part: part.startswith("'")):
        if is_text:
            alternatives.append(Literals(tuple(part.strip("'") for part in parts)))
        else:
            alternatives.extend(_parse_one(part) for part in parts)
    return tuple(alternatives)


def describe(alternatives: Sequence[Alternative], *, plural: bool = False) -> str:
    """The type in the words of an error message: `an integer greater than 0 or null`."""
    parts = [alternative.describe(plural=plural) for alternative in alternatives]
    return " or ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def schema(alternatives: Sequence[Alternative]) -> dict[str, Any]:
    """The type as JSON Schema; Keras objects refer to `#/$defs/keras_<kind>`."""
    parts = [alternative.schema() for alternative in alternatives]
    return parts[0] if len(parts) == 1 else {"anyOf": parts}


def with_article(noun: str) -> str:
    """`a layer`, `an optimizer`."""
    return f"{'an' if noun[0] in 'aeio' else 'a'} {noun}"


def _parse_one(text: str) -> Alternative:
    if found := _LIST.fullmatch(text):
        return ListOf(parse_type(found["item"]), int(found["length"]) if found["length"] else None)
    if found := _BOUNDED.fullmatch(text):
        bounds = tuple((sign, _number(limit)) for sign, limit in _BOUND.findall(found["bounds"]))
        return Number(found["base"] == "int", bounds)
    return Scalar(text) if text in _SCALARS else Nested(text)


def _split(text: str) -> list[str]:
    """Parts between the `|` that are outside of brackets."""
    parts, depth = [""], 0
    for character in text:
        depth += {"[": 1, "]": -1}.get(character, 0)
        if character == "|" and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return parts


def _number(text: str) -> int | float:
    return float(text) if "." in text else int(text)


def _within(value: float, sign: str, limit: float) -> bool:
    match sign:
        case ">":
            return value > limit
        case ">=":
            return value >= limit
        case "<":
            return value < limit
        case _:
            return value <= limit

"""The `limits` section: what every artifact must keep; breaking one fails the command with exit code 8."""

import re
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import model_validator

from mltool.spec.argument_check import shown
from mltool.spec.section import LATENCY, SIZE, Checked, Later, Section, raise_problem


@dataclass(frozen=True, slots=True)
class Drop:
    """How much worse than the float Keras model an artifact may be.

    Attributes:
        value: in the metric's units, or a share of the reference's value when `relative`.
        relative: written with a percent sign.
    """

    value: float
    relative: bool

    def __str__(self) -> str:
        return f"{self.value * 100:.15g}%" if self.relative else repr(self.value)

    def allowed(self, reference: float) -> float:
        """The greatest drop that keeps the limit, in the metric's units."""
        return abs(reference) * self.value if self.relative else self.value


def parse_drop(value: Any) -> Drop | None:
    """`0.005` is in the metric's units, `"0.5%"` a share of the reference.

    Raises:
        ValidationError: if it is neither, or below 0.
    """
    if value is None or isinstance(value, Drop):
        return value
    found = re.fullmatch(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*%\s*", value) if isinstance(value, str) else None
    if found:
        return Drop(float(found[1]) / 100, relative=True)
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < float("inf"):
        return Drop(float(value), relative=False)
    return raise_problem(f"must be a number or a percentage, at least 0 (got {shown(value)})", "write 0.005 or 0.5%")


_DROP_SCHEMA = {
    "anyOf": [
        {"type": "number", "minimum": 0},
        {"type": "string", "pattern": r"^\s*(\d+(\.\d*)?|\.\d+)\s*%\s*$"},
        {"type": "null"},
    ]
}


class LimitsSpec(Section):
    """What an artifact must keep."""

    metric: str | None = None
    """The metric that `min`, `max` and `max_drop` hold; the first of train.metrics when left out."""
    min: float | None = None
    """The least value of the metric on the test split."""
    max: float | None = None
    """The greatest value of the metric on the test split (for errors)."""
    max_drop: Annotated[Drop | None, Checked(parse_drop, lambda: dict(_DROP_SCHEMA))] = Drop(0.02, relative=True)
    """How much worse than the float Keras model on the same test split: metric units (0.005) or relative (0.5%);
    null for no limit."""
    max_size: Annotated[float | None, SIZE] = None
    """Greatest file size: bytes, or with a unit (100 KB is 100,000 bytes)."""
    max_p90_latency: Annotated[float | None, LATENCY] = None
    """Greatest 90th percentile of one call on this host: milliseconds, or with a unit."""
    max_arena: Annotated[Any, Later()] = None
    """Greatest memory arena on a microcontroller."""
    max_flash: Annotated[Any, Later()] = None
    """Greatest flash use on a microcontroller."""

    @model_validator(mode="after")
    def _some_value_is_left(self) -> "LimitsSpec":
        if self.min is not None and self.max is not None and self.min > self.max:
            raise_problem(f"min must be at most max (got {self.min:g} and {self.max:g})", "no model keeps both")
        return self

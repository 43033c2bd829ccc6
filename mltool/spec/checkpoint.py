"""`train.checkpoint`: how often a training leaves a checkpoint."""

import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal, cast

from mltool.spec.argument_check import shown
from mltool.spec.section import Checked, Section, raise_problem

Unit = Literal["epochs", "steps", "seconds"]

_UNITS: dict[str, tuple[Unit, int]] = {
    "epoch": ("epochs", 1),
    "epochs": ("epochs", 1),
    "step": ("steps", 1),
    "steps": ("steps", 1),
    "s": ("seconds", 1),
    "min": ("seconds", 60),
    "h": ("seconds", 3600),
}
_EVERY = rf"^([1-9]\d*) ?({'|'.join(_UNITS)})$"


@dataclass(frozen=True)
class Interval:
    """From one checkpoint to the next."""

    count: int
    unit: Unit


def _check_every(value: Any) -> Any:
    if not (isinstance(value, str) and re.fullmatch(_EVERY, value)):
        raise_problem(
            f"must be a whole number above 0 with a unit (got {shown(value)})",
            "write 1 epoch, 500 steps, or 5 min (s and h work too)",
        )
    return value


class CheckpointSpec(Section):
    """How often a training leaves a checkpoint; the last two and the best weights are kept."""

    every: Annotated[str, Checked(_check_every, lambda: {"type": "string", "pattern": _EVERY})] = "1 epoch"
    """How often: `1 epoch`, `500 steps` or `5 min`; at the end of every phase, and when a training is asked to stop,
    there is one anyway."""

    @property
    def interval(self) -> Interval:
        """`every`, taken apart."""
        count, unit = cast("re.Match[str]", re.match(_EVERY, self.every)).groups()
        name, factor = _UNITS[unit]
        return Interval(int(count) * factor, name)

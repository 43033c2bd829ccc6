"""What must hold between the arguments of a learning-rate schedule, and between it and the epochs of its phase."""

import itertools
from collections.abc import Iterable, Mapping
from typing import Any

from mltool.console import counted
from mltool.spec.argument_check import Problem, shown
from mltool.spec.catalogue import UNREADABLE, KerasObject
from mltool.spec.schedules import SCHEDULES


def schedule_problems(optimizer: KerasObject, epochs: int) -> Iterable[Problem]:
    """What is wrong with the schedule of an optimizer, with paths from the optimizer's entry.

    Args:
        optimizer: checked against the catalogue.
        epochs: of its phase.
    """
    schedule = optimizer.arguments.get("learning_rate")
    if not isinstance(schedule, KerasObject) or schedule == UNREADABLE:
        return
    found = (
        _problems_in_epochs(schedule, epochs) if schedule.name in SCHEDULES else _problems_of_keras(schedule.arguments)
    )
    for key, message, hint in found:
        place = (optimizer.name, "learning_rate", schedule.name)
        yield Problem((*place, key) if key else place, False, message, hint)


def with_defaults(schedule: KerasObject) -> dict[str, Any]:
    """All arguments of a schedule of ours, with the defaults of those that the spec leaves out."""
    entry = SCHEDULES[schedule.name]["arguments"]
    return {name: default for name, (_, *rest) in entry.items() for default in rest} | dict(schedule.arguments)


Found = Iterable[tuple[str, str, str]]
"""Argument, or "" for all of the schedule, message and hint of every problem."""


def _problems_in_epochs(schedule: KerasObject, epochs: int) -> Found:
    given = with_defaults(schedule)
    warmup = given["warmup_epochs"]
    if warmup is not None and warmup >= epochs:
        message = f"must be less than the {counted(epochs, 'epoch')} of its phase (got {shown(warmup)})"
        yield "warmup_epochs", f"{message}: learning_rate would never be reached", "write fewer"
        return
    if "warmup_learning_rate" in schedule.arguments and not warmup:
        yield "warmup_learning_rate", "is of a warm-up, and there is none", "add warmup_epochs, or leave it out"
    for key in ("final_learning_rate", "warmup_learning_rate"):
        if key in given and given[key] > given["learning_rate"]:
            message = f"must be at most learning_rate, {given['learning_rate']:g} (got {shown(given[key])})"
            yield key, message, "learning_rate is the highest"
    match schedule.name:
        case "Step":
            yield from _problems_of_steps(given, epochs)
        case "Cosine":
            yield from _problems_of_cycles(schedule, epochs - warmup)


def _problems_of_steps(given: Mapping[str, Any], epochs: int) -> Found:
    milestones, every = given["milestones"], given["step_epochs"]
    if (milestones is None) == (every is None):
        message = f"must have step_epochs or milestones (got {'neither' if every is None else 'both'})"
        yield "", message, "write step_epochs: 10, or milestones: [10, 15]"
    elif every is not None:
        if every >= epochs:
            message = f"must be less than the {counted(epochs, 'epoch')} of its phase (got {shown(every)})"
            yield "step_epochs", f"{message}: no step would come", "write fewer"
    else:
        yield from _problems_of_milestones(milestones, given["warmup_epochs"], epochs)


def _problems_of_milestones(milestones: list[float], warmup: float, epochs: int) -> Found:
    if not milestones or any(one >= other for one, other in itertools.pairwise(milestones)):
        yield "milestones", f"must be epochs that rise (got {shown(milestones)})", "write milestones: [10, 15]"
    elif milestones[-1] >= epochs:
        message = f"must be less than the {counted(epochs, 'epoch')} of its phase (got {shown(milestones)})"
        yield "milestones", message, f"{milestones[-1]:g} would never come"
    elif milestones[0] < warmup:
        message = f"must come after the warm-up of {warmup:g} epochs (got {shown(milestones)})"
        yield "milestones", message, "they count from the beginning of the phase"


def _problems_of_cycles(schedule: KerasObject, left: float) -> Found:
    cycle = schedule.arguments.get("cycle_epochs")
    if cycle is None:
        for key in ("cycle_factor", "cycle_decay"):
            if key in schedule.arguments:
                yield key, "is of cycles, and there is only one", "add cycle_epochs, or leave it out"
    elif cycle >= left:
        message = f"must be less than the {left:g} epochs that are there for cycles (got {shown(cycle)})"
        yield "cycle_epochs", f"{message}: it would never start again", "write fewer, or leave it out"


def _problems_of_keras(given: Mapping[str, Any]) -> Found:
    if given.get("warmup_steps") and given.get("warmup_target") is None:
        hint = "add warmup_target, which the warm-up leads to from initial_learning_rate"
        yield "warmup_steps", "do nothing without warmup_target", hint
    boundaries, values = given.get("boundaries"), given.get("values")
    if boundaries is None or values is None:
        return
    if any(one >= other for one, other in itertools.pairwise(boundaries)):
        yield "boundaries", f"must be steps that rise (got {shown(boundaries)})", "write boundaries: [100, 200]"
    if len(values) != len(boundaries) + 1:
        message = f"must be one more than the {len(boundaries)} boundaries (got {len(values)})"
        yield "values", message, "the first is of the steps before the first boundary"

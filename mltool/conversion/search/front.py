"""Which of the files that were tried are worth having; pure."""

from collections.abc import Callable, Sequence
from typing import TypeVar

_T = TypeVar("_T")


def pareto_front(items: Sequence[_T], costs: Callable[[_T], Sequence[float]]) -> list[_T]:
    """Those that no other beats: none is at most as costly in everything and less in something.

    Pareto, "Manuale di economia politica", 1906. Of equals the first stays.

    Args:
        items: in any order.
        costs: of one, each the less the better.

    Returns:
        In their order.
    """
    found = [(item, tuple(costs(item))) for item in items]
    return [
        item
        for place, (item, own) in enumerate(found)
        if not any(_beats(other, own) or (other == own and before < place) for before, (_, other) in enumerate(found))
    ]


def _beats(one: Sequence[float], other: Sequence[float]) -> bool:
    return all(a <= b for a, b in zip(one, other, strict=True)) and tuple(one) != tuple(other)

"""Where the names of points stand in a picture, so that none is written over another; pure.

adjustText, the library for it, moves names by simulated forces and draws another picture every time its seed or version
changes; a dozen names need no more than the first free place.
"""

from collections.abc import Iterator, Sequence

Box = tuple[float, float, float, float]
"""Left, bottom, right, top; points (1/72 inch)."""

GAP = 4.0
"""Between a point and its name, points."""

HALF = 4.0
"""Of the mark of a point, points: no name is written over one."""

FARTHEST = 6
"""Lines of text that a name may be away from its point."""


def label_places(
    points: Sequence[tuple[float, float]], widths: Sequence[float], height: float, within: Box
) -> list[tuple[float, float]]:
    """The left lower corner of every name, as near to its point as may be.

    Args:
        points: in points (1/72 inch).
        widths: of the names, in points.
        height: of a line, in points.
        within: the picture.

    Returns:
        In the order of the points, relative to them; a name without a free place stands where it would stand alone.
    """
    taken: list[Box] = [(x - HALF, y - HALF, x + HALF, y + HALF) for x, y in points]
    found = []
    for (x, y), width in zip(points, widths, strict=True):
        places = list(_places(width, height))
        boxes = [(x + left, y + low, x + left + width, y + low + height) for left, low in places]
        free = (
            place
            for place, box in enumerate(boxes)
            if _lies_in(box, within) and not any(_overlap(box, other) for other in taken)
        )
        chosen = next(free, 0)
        taken.append(boxes[chosen])
        found.append(places[chosen])
    return found


def _places(width: float, height: float) -> Iterator[tuple[float, float]]:
    """Right, left, above, below; then farther up and down."""
    beside = -height / 2
    yield from ((GAP + HALF, beside), (-GAP - HALF - width, beside))
    for line in range(FARTHEST):
        up, down = HALF + line * height, -HALF - (line + 1) * height
        for left in (GAP, -width / 2, -GAP - width):
            yield from ((left, up), (left, down))


def _overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _lies_in(box: Box, within: Box) -> bool:
    return within[0] <= box[0] and within[1] <= box[1] and box[2] <= within[2] and box[3] <= within[3]

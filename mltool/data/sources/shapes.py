"""Images of circles, squares and triangles with the class of every pixel: drawn when they are asked for, in 0.1 s.

The same bits on every machine and for ever: whole numbers alone, from the raw numbers of a counter-based generator
(Philox: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011), which numpy keeps as they are, and
unlike those of its distributions.
"""

import numpy as np

from mltool.data.source import Array, Source, checked_source

CLASSES = ("background", "circle", "square", "triangle")
"""In the order of their numbers."""

NUM_IMAGES, SIDE = 600, 32

_MOST_SHAPES, _LEAST_RADIUS, _MOST_RADIUS = 3, 5, 10
_CONTRAST = 60
"""What a color of a shape is away from that of its background in every channel, at least: 0 to 255."""

_TEXTURE, _NOISE = 25, 20
"""How far stripes and noise go from a color, either way."""


def load_shapes() -> Source:
    """Images, uint8 [600, 32, 32, 3], and masks, uint8 [600, 32, 32], of one to three shapes on stripes, with noise.

    A later shape lies on those before; the class that an image begins with goes round, so that all are as frequent.
    """
    random = _Random()
    images, masks = zip(*(_drawn(random, number) for number in range(NUM_IMAGES)), strict=True)
    inputs = {"image": np.stack(images)}
    return checked_source(
        "shapes", inputs, np.stack(masks), {}, kinds={"image": "image"}, target_name="mask", classes=CLASSES
    )


class _Random:
    """Whole numbers of a fixed stream."""

    def __init__(self) -> None:
        self._bits = np.random.Philox(key=2026)

    def below(self, most: int, count: int) -> Array:
        """int64 [count] in 0 .. most - 1; that low ones are likelier by 2**-50 does no harm."""
        return (self._bits.random_raw(count) % np.uint64(most)).astype(np.int64)

    def one(self, least: int, most: int) -> int:
        """A number of least .. most."""
        return least + int(self.below(most - least + 1, 1)[0])


def _drawn(random: _Random, number: int) -> tuple[Array, Array]:
    """An image and its mask."""
    rows, columns = np.mgrid[:SIDE, :SIDE]
    ground = 40 + random.below(176, 3)
    angle, width = random.below(5, 2) - 2, random.one(3, 7)
    stripes = ((angle[0] * rows + angle[1] * columns) // width % 2 * 2 - 1) * random.one(5, _TEXTURE)
    image = ground + stripes[..., np.newaxis]
    mask = np.zeros((SIDE, SIDE), np.uint8)
    for place in range(random.one(1, _MOST_SHAPES)):
        shape = (number + place) % 3 + 1
        inside = _inside(shape, random, rows, columns)
        away = _CONTRAST + random.below(195 - _CONTRAST, 3)
        image[inside] = (ground + away) % 256
        mask[inside] = shape
    noise = random.below(2 * _NOISE + 1, SIDE * SIDE * 3).reshape(SIDE, SIDE, 3) - _NOISE
    return (image + noise).clip(0, 255).astype(np.uint8), mask


def _inside(shape: int, random: _Random, rows: Array, columns: Array) -> Array:
    """Bool [height, width]: the pixels of a shape of random size and place, which lies in the image whole."""
    radius = random.one(_LEAST_RADIUS, _MOST_RADIUS)
    down = rows - random.one(radius, SIDE - 1 - radius)
    right = columns - random.one(radius, SIDE - 1 - radius)
    match CLASSES[shape]:
        case "circle":
            found = down**2 + right**2 <= radius**2
        case "square":
            found = np.maximum(abs(down), abs(right)) <= radius * 4 // 5
        case _:  # a triangle that points up, as high as it is wide
            found = (abs(down) <= radius) & (2 * abs(right) <= down + radius)
    return np.asarray(found)

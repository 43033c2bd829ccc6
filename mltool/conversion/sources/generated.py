"""Made-up inputs for a model that comes without data: the same for the same seed, in a range that is stated.

They tell whether two forms of a model agree. What calibrates with them, and any accuracy, is of their range, not of the
world: a file that was calibrated so says so.
"""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from mltool.errors import DataError
from mltool.inference.predictor import Array, TensorInfo

SMALL_INTEGERS = 2
"""Integers are below it where nothing is told: every table of embeddings has rows 0 and 1."""

FREE_AXIS = 32
"""What the message about a free axis takes for an example."""


@dataclass(frozen=True)
class Draw:
    """What is drawn: floats of mean 0 and deviation 1, and integers 0 and 1, where nothing else is told.

    Attributes:
        ranges: by name of the input, numbers from the first to below the second, all alike often.
        sizes: of axes that a model leaves free, by name of the input: the whole shape of one sample.
    """

    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    sizes: Mapping[str, Sequence[int]] = field(default_factory=dict)

    def __str__(self) -> str:
        """As reports say it."""
        told = (f", {name} from {low:g} to below {high:g}" for name, (low, high) in self.ranges.items())
        return f"made up: floats N(0, 1){''.join(told)}"


DEFAULT = Draw()


def generate(inputs: Sequence[TensorInfo], count: int, seed: int, draw: Draw = DEFAULT) -> dict[str, Array]:
    """Draws samples.

    Each input is drawn from a stream of its own, of the seed and its name: another input beside it changes nothing,
    and more samples begin as fewer do.

    Args:
        inputs: of the model.
        count: of samples.
        seed: of the draw.
        draw: what is drawn.

    Returns:
        Arrays of the inputs' own types, [count, ...], by name.

    Raises:
        DataError: if an input is text, an axis of it is free and nobody says how long it is to be, a range is empty, or
            there is no such input.
    """
    unknown = sorted({*draw.ranges, *draw.sizes} - {info.name for info in inputs})
    if unknown:
        names = ", ".join(info.name for info in inputs)
        raise DataError(f"the model has no input {unknown[0]!r} to make up", f"it has {names}")
    return {info.name: _drawn(info, count, seed, draw) for info in inputs}


def sample_shape(info: TensorInfo, draw: Draw) -> tuple[int, ...]:
    """The shape of one sample, its free axes as told.

    Raises:
        DataError: if nobody says how long they are, or what is told is not what the model takes.
    """
    told = draw.sizes.get(info.name)
    shown = tuple("free" if size is None else size for size in info.shape)
    if told is None:
        sizes = tuple(size for size in info.shape if size is not None)
        if len(sizes) < len(info.shape):
            example = ",".join(str(FREE_AXIS if size is None else size) for size in info.shape)
            hint = f"say its shape: --input-shape {info.name}={example}"
            raise DataError(f"input {info.name!r} has free axes: {shown}", hint)
        return sizes
    fits = len(told) == len(info.shape) and all(
        size > 0 and wanted in (None, size) for size, wanted in zip(told, info.shape, strict=True)
    )
    if not fits:
        raise DataError(f"input {info.name!r} takes samples of shape {shown} (got {tuple(told)})", "give another shape")
    return tuple(told)


def _drawn(info: TensorInfo, count: int, seed: int, draw: Draw) -> Array:
    random = np.random.default_rng([seed, zlib.crc32(info.name.encode())])
    shape = (count, *sample_shape(info, draw))
    if info.dtype == "bool":
        return random.integers(0, 2, shape).astype(bool)
    if info.dtype == "string":
        raise DataError(f"input {info.name!r} is text, which cannot be made up", "give a spec with data: --data SPEC")
    dtype = np.dtype("float32" if info.dtype == "bfloat16" else info.dtype)
    told = draw.ranges.get(info.name)
    if told is not None and not told[0] < told[1]:
        message = f"input {info.name!r}: no number is from {told[0]:g} to below {told[1]:g}"
        raise DataError(message, "the first must be less than the second")
    if dtype.kind in "iu":
        return _integers(info, random, shape, told or (0, SMALL_INTEGERS))
    if told is None:
        return random.standard_normal(shape, np.float32).astype(dtype)
    low, high = told
    return (low + (high - low) * random.random(shape)).astype(dtype)


def _integers(info: TensorInfo, random: np.random.Generator, shape: Sequence[int], told: tuple[float, float]) -> Array:
    low, high = (int(end) for end in told)
    held = np.iinfo(info.dtype)
    if (low, high) != told or low < held.min or high > held.max + 1:
        message = f"input {info.name!r} of {info.dtype} cannot be from {told[0]:g} to below {told[1]:g}"
        raise DataError(message, "give other numbers")
    drawn: Array = random.integers(low, high, shape).astype(info.dtype)
    return drawn

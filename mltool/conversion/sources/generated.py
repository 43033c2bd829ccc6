"""Made-up inputs for a model that comes without data: the same for the same seed, in a range that is stated.

They tell whether two forms of a model agree. What calibrates with them, and any accuracy, is of their range, not of the
world: a file that was calibrated so says so.
"""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from mltool.errors import DataError
from mltool.inference.predictor import Array, TensorInfo

SMALL_INTEGERS = 2
"""Integers are below it where nothing is told: every table of embeddings has rows 0 and 1."""


@dataclass(frozen=True)
class Draw:
    """What is drawn.

    Attributes:
        floats: `normal`, of mean 0 and deviation 1, or `uniform`.
        low: least value of uniform floats.
        high: values are below it.
        below: integers of an input are from 0 to below it, by name of the input.
        sizes: of axes that a model leaves free, by name of the input: the whole shape of one sample.
    """

    floats: Literal["normal", "uniform"] = "normal"
    low: float = 0.0
    high: float = 1.0
    below: Mapping[str, int] | None = None
    sizes: Mapping[str, Sequence[int]] | None = None

    def __str__(self) -> str:
        """As reports say it."""
        floats = "N(0, 1)" if self.floats == "normal" else f"uniform from {self.low:g} to {self.high:g}"
        integers = "".join(f", {name} in 0..{most - 1}" for name, most in (self.below or {}).items())
        return f"made up: floats {floats}{integers}"


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
        DataError: if an input is text, an axis of it is free and nobody says how long it is to be, or a range is empty.
    """
    for told in (draw.below or {}, draw.sizes or {}):
        unknown = sorted(set(told) - {info.name for info in inputs})
        if unknown:
            names = ", ".join(info.name for info in inputs)
            raise DataError(f"the model has no input {unknown[0]!r} to make up", f"it has {names}")
    return {info.name: _drawn(info, count, seed, draw) for info in inputs}


def _drawn(info: TensorInfo, count: int, seed: int, draw: Draw) -> Array:
    random = np.random.default_rng([seed, zlib.crc32(info.name.encode())])
    shape = (count, *_sizes(info, draw))
    if info.dtype == "bool":
        return random.integers(0, 2, shape).astype(bool)
    if info.dtype == "string":
        raise DataError(f"input {info.name!r} is text, which cannot be made up", "give a spec with data")
    dtype = np.dtype("float32" if info.dtype == "bfloat16" else info.dtype)
    if dtype.kind in "iu":
        most = (draw.below or {}).get(info.name, SMALL_INTEGERS)
        if not 0 < most <= np.iinfo(dtype).max + 1:
            raise DataError(f"input {info.name!r} of {dtype} cannot be from 0 to below {most}", "give another number")
        return random.integers(0, most, shape).astype(dtype)
    if draw.floats == "normal":
        return random.standard_normal(shape, np.float32).astype(dtype)
    if not draw.low < draw.high:
        raise DataError(f"no number is from {draw.low:g} to below {draw.high:g}", "swap them")
    return (draw.low + (draw.high - draw.low) * random.random(shape)).astype(dtype)


def _sizes(info: TensorInfo, draw: Draw) -> tuple[int, ...]:
    """The shape of one sample, its free axes as told."""
    told = (draw.sizes or {}).get(info.name)
    shown = tuple("free" if size is None else size for size in info.shape)
    if told is None:
        sizes = tuple(size for size in info.shape if size is not None)
        if len(sizes) < len(info.shape):
            example = ",".join(str(32 if size is None else size) for size in info.shape)
            raise DataError(f"input {info.name!r} has free axes: {shown}", f"say its shape: {info.name}={example}")
        return sizes
    fits = len(told) == len(info.shape) and all(
        size > 0 and wanted in (None, size) for size, wanted in zip(told, info.shape, strict=True)
    )
    if not fits:
        raise DataError(f"input {info.name!r} takes samples of shape {shown} (got {tuple(told)})", "give another shape")
    return tuple(told)

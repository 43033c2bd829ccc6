"""Rows at random places of files, read by themselves: through a mapping, each row brings a whole folio of the file.

Measured on Linux 6.18: 128 rows of 12 million, at random places, map 500 MB, and take five times as long as reading
their bytes.
"""

import mmap
import os
from typing import Any, Protocol, cast

import numpy as np

from mltool.data.scratch import descriptor_of
from mltool.data.source import Array, ArrayLike


class MadeOfRows(Protocol):
    """An input that is made of rows of files when it is asked for."""

    def rows_at(self, positions: Array, reader: "RowReader") -> Array:
        """The samples at some positions, from rows that the reader gives."""
        ...


class RowReader:
    """Rows at some positions of several arrays; what lies in one file row by row is read once for all of them."""

    def __init__(self) -> None:
        self._read: dict[tuple[int, int, int, bytes], bytearray] = {}

    def take(self, array: ArrayLike, positions: Array) -> Array:
        """The samples at some positions.

        Args:
            array: of numpy, or an input of ours.
            positions: integers [samples], from 0.

        Raises:
            IndexError: if the array has no such position.
        """
        if hasattr(array, "rows_at"):  # isinstance of a protocol would take as long as reading
            return cast("MadeOfRows", array).rows_at(positions, self)
        place = _place_of(array)
        if place is None or not len(positions):
            return array[positions]
        file, descriptor, start = place
        positions = positions.astype(np.int64, copy=False)  # one type: they are looked up by their bytes
        stride = array.strides[0]  # type: ignore[attr-defined]
        first, offset = start - start % stride, start % stride
        # By value: every column of a table computes its positions by itself.
        key = (id(file), first, stride, positions.tobytes())
        if key not in self._read:
            self._read[key] = _rows_of(descriptor, first, stride, positions, len(array))
        rows: Array = np.ndarray(
            (len(positions), *array.shape[1:]),
            array.dtype,
            buffer=self._read[key],
            offset=offset,
            strides=array.strides,  # type: ignore[attr-defined]
        )
        return rows.copy()


def _place_of(array: ArrayLike) -> tuple[mmap.mmap, int, int] | None:
    """File, its descriptor, and the byte at which an array begins; None where its rows do not lie one by one in one."""
    base: Any = array
    while isinstance(base, np.ndarray):
        base = base.base
    descriptor = descriptor_of(base) if isinstance(base, mmap.mmap) and hasattr(os, "pread") else None
    if descriptor is None:
        return None
    strides, shape = array.strides, array.shape  # type: ignore[attr-defined]
    inside = (
        sum(stride * (size - 1) for stride, size in zip(strides[1:], shape[1:], strict=True)) + array.dtype.itemsize
    )
    if strides[0] < inside or min(strides) < 0:
        return None
    begin = np.frombuffer(base, np.uint8).__array_interface__["data"][0]
    return base, descriptor, array.__array_interface__["data"][0] - begin  # type: ignore[attr-defined]


def _rows_of(descriptor: int, first: int, stride: int, positions: Array, count: int) -> bytearray:
    if not 0 <= int(positions.min()) <= int(positions.max()) < count:
        raise IndexError(f"positions {positions.min()} to {positions.max()} of {count} samples")
    rows = bytearray()
    for place in (positions * stride + first).tolist():
        rows += os.pread(descriptor, stride, place)
    return rows

"""Rows of files that are read by themselves."""

import os
import resource
from pathlib import Path

import numpy as np
import pytest

from mltool.data.scratch import room_for
from mltool.data.source import Array, ArrayLike, Subset
from mltool.data.sources.joined import Joined
from mltool.data.stored_rows import RowReader
from mltool.data.tables.table_store import Words

COUNT = 1000


def _stored(values: Array) -> Array:
    array = room_for(values.shape, values.dtype, on_disk=True)
    array[:] = values
    return array


def _arrays() -> dict[str, ArrayLike]:
    """Every kind of array on the disk that a batch is made of."""
    random = np.random.default_rng(0)
    rows = _stored(random.normal(size=(COUNT, 5)).astype(np.float32))
    codes = _stored(random.integers(0, 3, (COUNT, 2)).astype(np.int32))
    images = _stored(random.integers(0, 255, (COUNT, 4, 3, 2)).astype(np.uint8))
    words = Words(codes[:, 1:2], ["a", "bb", "ccc"])
    ids = _stored(random.permutation(COUNT))
    return {
        "whole rows": rows,
        "a column": rows[:, 3],
        "its neighbour": rows[:, 4],
        "later rows": rows[7:, 2],
        "every other row": rows[::2, 1],
        "backwards": rows[::-1, 1],
        "images": images,
        "turned": images.transpose(0, 2, 1, 3),
        "samples last": images.transpose(3, 1, 2, 0),
        "words": words,
        "a subset": Subset(rows[:, 0], ids),
        "a subset of words": Subset(words, ids),
        "one after the other": Joined([rows[:, 2], rows[:, 0]]),
        "in memory": np.arange(COUNT),
    }


def test_rows_are_those_that_numpy_gives() -> None:
    reader, random = RowReader(), np.random.default_rng(1)
    for name, array in _arrays().items():
        for size in (0, 1, 64):
            positions = random.integers(0, len(array), size).astype(np.int32)
            found = reader.take(array, positions)
            assert found.dtype == array.dtype, name
            assert found.shape == (size, *array.shape[1:]), name
            assert np.array_equal(found, array[positions]), name


def test_without_reads_at_a_place_rows_come_from_the_mapping(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "pread")  # as on Windows
    for name, array in _arrays().items():
        positions = np.asarray([len(array) - 1, 0, 0])
        assert np.array_equal(RowReader().take(array, positions), array[positions]), name


def test_columns_of_one_file_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = _stored(np.arange(COUNT * 8, dtype=np.float32).reshape(COUNT, 8))
    ids = np.arange(COUNT)[::-1]
    calls: list[int] = []
    pread = os.pread

    def counted(file: int, size: int, place: int) -> bytes:
        calls.append(place)
        return pread(file, size, place)

    monkeypatch.setattr(os, "pread", counted)
    reader, positions = RowReader(), np.asarray([0, 5, 999])
    columns = [reader.take(Subset(rows[:, index], ids), positions) for index in range(8)]
    assert np.stack(columns, axis=1).tolist() == [[row * 8 + index for index in range(8)] for row in (999, 994, 0)]
    assert sorted(calls) == [0, 994 * 32, 999 * 32]


def test_positions_that_are_not_there_are_refused() -> None:
    rows = _stored(np.zeros((COUNT, 2), np.float32))
    for wrong in (-1, COUNT):
        with pytest.raises(IndexError, match=f"{wrong}"):
            RowReader().take(rows, np.asarray([0, wrong]))


def test_files_are_closed_with_their_arrays() -> None:
    folder = Path("/proc/self/fd")
    if not folder.is_dir():
        pytest.skip("the kernel tells no open files")
    most = min(200, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    before = len(list(folder.iterdir()))
    for _ in range(most):
        _stored(np.zeros(4))
    assert len(list(folder.iterdir())) <= before + 2

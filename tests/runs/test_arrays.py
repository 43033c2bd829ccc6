"""Arrays in .npz files."""

import numpy as np
import pytest

from mltool.runs.arrays import read_npz, write_npz

ARRAYS = {
    "file": np.arange(6, dtype=np.float32).reshape(2, 3),
    "allow_pickle": np.array(["é", "ab"]),
    "input:x": np.zeros((0, 2), np.int64),
    "both": np.array([(1, 2.0)], [("a", np.int32), ("b", np.float32)]),
}
"""The first two are names that numpy.savez cannot write."""


@pytest.mark.parametrize("small", [False, True])
def test_what_is_written_is_read_whatever_its_name(small, tmp_path):
    write_npz(tmp_path / "a.npz", ARRAYS, small=small)
    found = read_npz(tmp_path / "a.npz")
    assert list(found) == list(ARRAYS)
    for name, array in ARRAYS.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


def test_equal_arrays_give_equal_bytes_and_small_ones_fewer(tmp_path):
    long = {"x": np.zeros(10_000)}
    write_npz(tmp_path / "a.npz", long)
    write_npz(tmp_path / "b.npz", long)
    write_npz(tmp_path / "small.npz", long, small=True)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    assert b"\x00\x00!\x00" in (tmp_path / "a.npz").read_bytes()[:20]  # midnight of 1980-01-01, not now
    assert (tmp_path / "small.npz").stat().st_size < 1000 < (tmp_path / "a.npz").stat().st_size


def test_objects_are_not_pickled(tmp_path):
    with pytest.raises(ValueError, match="allow_pickle=False"):
        write_npz(tmp_path / "a.npz", {"x": np.array([{}])})

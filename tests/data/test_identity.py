"""Equal samples are told by their inputs, without the label; a hash alone is not believed."""

import hashlib

import numpy as np
import pytest

from mltool.data.identity import content_hashes, fingerprint, groups_of_equal_samples


def test_a_hash_is_blake2b_of_the_bytes_of_a_sample():
    image = np.arange(12, dtype=np.uint8).reshape(2, 6)
    expected = [int.from_bytes(hashlib.blake2b(row.tobytes(), digest_size=8).digest(), "little") for row in image]
    assert content_hashes({"image": image}).tolist() == expected


def test_a_hash_knows_every_input_and_no_order_of_them():
    a, b = np.asarray([[1, 2], [1, 2], [3, 4]]), np.asarray([[5], [6], [5]])
    hashes = content_hashes({"a": a, "b": b})
    assert len(set(hashes.tolist())) == 3
    assert content_hashes({"b": b, "a": a}).tolist() == hashes.tolist()


def test_a_view_hashes_as_its_copy():
    array = np.arange(24).reshape(4, 6)
    assert content_hashes({"a": array[:, ::2]}).tolist() == content_hashes({"a": array[:, ::2].copy()}).tolist()


def test_equal_samples_are_in_the_group_of_the_first():
    rows = np.asarray([[1], [2], [1], [3], [2], [1]])
    hashes = content_hashes({"x": rows})
    assert groups_of_equal_samples({"x": rows}, hashes).tolist() == [0, 1, 0, 3, 1, 0]


def test_samples_with_one_hash_are_compared():
    rows = np.asarray([[1], [2], [1], [2], [3]])
    collisions = np.zeros(5, dtype="<u8")
    assert groups_of_equal_samples({"x": rows}, collisions).tolist() == [0, 1, 0, 1, 4]


def test_samples_that_differ_in_one_input_are_not_equal():
    inputs = {"a": np.asarray([[1], [1]]), "b": np.asarray([[1], [2]])}
    assert groups_of_equal_samples(inputs, np.zeros(2, dtype="<u8")).tolist() == [0, 1]


@pytest.mark.parametrize("change", ["value", "order", "length"])
def test_a_fingerprint_knows_values_order_and_length(change):
    hashes = np.asarray([1, 2, 3], dtype="<u8")
    other = {"value": [1, 2, 4], "order": [2, 1, 3], "length": [1, 2]}[change]
    assert fingerprint(hashes) != fingerprint(np.asarray(other, dtype="<u8"))
    assert fingerprint(hashes) == fingerprint(hashes.copy())

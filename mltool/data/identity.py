"""Which samples are the same: a hash of the inputs without the label, collisions compared."""

import hashlib
from collections.abc import Mapping

import numpy as np

from mltool.data.source import Array, ArrayLike


def content_hashes(inputs: Mapping[str, ArrayLike]) -> Array:
    """A 64-bit BLAKE2b hash (RFC 7693) of every sample's inputs.

    Args:
        inputs: by name, each [samples, ...].

    Returns:
        uint64 [samples].
    """
    names = sorted(inputs)
    digests = bytearray()
    for start in range(0, len(inputs[names[0]]), _AT_ONCE):
        arrays = [np.ascontiguousarray(inputs[name][start : start + _AT_ONCE]) for name in names]
        numbers = [_as_bytes(array) for array in arrays if array.dtype.kind != "U"]
        rows = np.concatenate(numbers, axis=1) if numbers else np.empty((len(arrays[0]), 0), np.uint8)
        texts = [array.reshape(len(array), -1).tolist() for array in arrays if array.dtype.kind == "U"]
        for index, row in enumerate(rows):
            digest = hashlib.blake2b(row.tobytes(), digest_size=8)
            for values in texts:
                for text in values[index]:
                    encoded = text.encode("utf-8", "surrogatepass")
                    # The length first, so that ("ab", "c") is not ("a", "bc").
                    digest.update(len(encoded).to_bytes(8, "little") + encoded)
            digests += digest.digest()
    return np.frombuffer(bytes(digests), dtype="<u8")


_AT_ONCE = 4096
"""Samples that are read at once."""


def _as_bytes(array: Array) -> Array:
    """uint8 [samples, bytes]; 0.0 and -0.0 are equal, and so must be their bytes."""
    clean = array + np.zeros((), array.dtype) if array.dtype.kind == "f" else array
    return np.ascontiguousarray(clean).reshape(len(array), -1).view(np.uint8)


def groups_of_equal_samples(inputs: Mapping[str, ArrayLike], hashes: Array) -> Array:
    """A number for every sample, the same for samples with equal inputs and for no others.

    Args:
        inputs: by name, each [samples, ...].
        hashes: of `content_hashes`.

    Returns:
        int64 [samples]: the position of the first sample with these inputs.
    """
    groups = np.arange(len(hashes))
    order = np.argsort(hashes, kind="stable")
    firsts: list[int] = []
    for position, index in enumerate(order):
        if position == 0 or hashes[index] != hashes[order[position - 1]]:
            firsts = []
        equal = next((first for first in firsts if _equal(inputs, first, int(index))), None)
        if equal is None:
            firsts.append(int(index))
        else:
            groups[index] = equal
    return groups


def _equal(inputs: Mapping[str, ArrayLike], one: int, other: int) -> bool:
    # NaN is a missing number: two rows that lack the same one are equal.
    return all(np.array_equal(array[one], array[other], equal_nan=array.dtype.kind == "f") for array in inputs.values())


def fingerprint(hashes: Array) -> str:
    """One hash of many: SHA-256 over the samples' hashes in their order."""
    return hashlib.sha256(np.ascontiguousarray(hashes, dtype="<u8").tobytes()).hexdigest()

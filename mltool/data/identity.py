"""Which samples are the same: a hash of the inputs without the label, collisions compared."""

import hashlib
from collections.abc import Mapping

import numpy as np

from mltool.data.source import Array


def content_hashes(inputs: Mapping[str, Array]) -> Array:
    """A 64-bit BLAKE2b hash (RFC 7693) of every sample's inputs.

    Args:
        inputs: by name, each [samples, ...].

    Returns:
        uint64 [samples].
    """
    rows = [np.ascontiguousarray(inputs[name]) for name in sorted(inputs)]
    digests = bytearray()
    for index in range(len(rows[0])):
        digest = hashlib.blake2b(digest_size=8)
        for array in rows:
            digest.update(array[index].tobytes())
        digests += digest.digest()
    return np.frombuffer(bytes(digests), dtype="<u8")


def groups_of_equal_samples(inputs: Mapping[str, Array], hashes: Array) -> Array:
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


def _equal(inputs: Mapping[str, Array], one: int, other: int) -> bool:
    return all(np.array_equal(array[one], array[other]) for array in inputs.values())


def fingerprint(hashes: Array) -> str:
    """One hash of many: SHA-256 over the samples' hashes in their order."""
    return hashlib.sha256(np.ascontiguousarray(hashes, dtype="<u8").tobytes()).hexdigest()

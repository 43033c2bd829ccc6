"""Which samples are the same: a hash of the inputs without the label, collisions compared."""

import hashlib
from collections.abc import Iterable, Mapping

import numpy as np

from mltool.data.scratch import PARTS, is_on_disk, let_go, room_for, slices_of, with_last_bits
from mltool.data.source import Array, ArrayLike


def content_hashes(inputs: Mapping[str, ArrayLike]) -> Array:
    """A 64-bit BLAKE2b hash (RFC 7693) of every sample's inputs.

    Args:
        inputs: by name, each [samples, ...].

    Returns:
        uint64 [samples]; on the disk where inputs are.
    """
    names = sorted(inputs)
    hashes = room_for((len(inputs[names[0]]),), "<u8", on_disk=any(map(is_on_disk, inputs.values())))
    for part in slices_of(len(hashes), _AT_ONCE):
        hashes[part] = _hashes_of([np.ascontiguousarray(inputs[name][part]) for name in names])
        let_go(hashes, *inputs.values())
    return hashes


_AT_ONCE = 4096
"""Samples that are read at once."""


def _hashes_of(arrays: list[Array]) -> Array:
    numbers = [_as_bytes(array) for array in arrays if array.dtype.kind != "U"]
    rows = np.concatenate(numbers, axis=1) if numbers else np.empty((len(arrays[0]), 0), np.uint8)
    texts = [array.reshape(len(array), -1).tolist() for array in arrays if array.dtype.kind == "U"]
    digests = bytearray()
    for index, row in enumerate(rows):
        digest = hashlib.blake2b(row.tobytes(), digest_size=8)
        for values in texts:
            for text in values[index]:
                encoded = text.encode("utf-8", "surrogatepass")
                # The length first, so that ("ab", "c") is not ("a", "bc").
                digest.update(len(encoded).to_bytes(8, "little") + encoded)
        digests += digest.digest()
    return np.frombuffer(bytes(digests), dtype="<u8")


def _as_bytes(array: Array) -> Array:
    """uint8 [samples, bytes]; 0.0 and -0.0 are equal, and so must be their bytes."""
    clean = array + np.zeros((), array.dtype) if array.dtype.kind == "f" else array
    return np.ascontiguousarray(clean).reshape(len(array), -1).view(np.uint8)


def repeated(hashes: Array) -> Array:
    """int64, ascending: positions of the samples whose hash another sample has too."""
    twice = [_twice_among(with_last_bits(hashes, bits)) for bits in range(PARTS)]
    values = np.sort(np.concatenate(twice))
    found = [np.empty(0, np.int64)]
    for part in slices_of(len(hashes) if len(values) else 0):
        place = np.searchsorted(values, hashes[part]).clip(max=len(values) - 1)
        found.append(np.flatnonzero(values[place] == hashes[part]) + part.start)
        let_go(hashes)
    return np.concatenate(found)


def _twice_among(hashes: Array) -> Array:
    """The hashes that stand there twice or more, each once."""
    ordered = np.sort(hashes)
    return np.unique(ordered[1:][ordered[1:] == ordered[:-1]])


def groups_of_equal_samples(inputs: Mapping[str, ArrayLike], hashes: Array) -> Array:
    """A number for every sample, the same for samples with equal inputs and for no others.

    Args:
        inputs: by name, each [samples, ...].
        hashes: of `content_hashes`.

    Returns:
        int64 [samples]: the position of the first sample with these inputs; on the disk where hashes are.
    """
    groups = room_for((len(hashes),), np.int64, on_disk=is_on_disk(hashes))
    for part in slices_of(len(hashes)):
        groups[part] = np.arange(part.start, part.stop)
        let_go(groups)
    copies = repeated(hashes)
    order = copies[np.argsort(hashes[copies], kind="stable")]
    begins = np.flatnonzero(np.append(True, hashes[order][1:] != hashes[order][:-1])[: len(order)])
    first = np.repeat(order[begins], np.diff(begins, append=len(order)))
    groups[order] = first
    unequal = np.unique(first[~_equal(inputs, first, order)])
    for members in (order[first == one] for one in unequal):
        _tell_apart(inputs, members, groups)
    let_go(groups, hashes)
    return groups


def _tell_apart(inputs: Mapping[str, ArrayLike], members: Array, groups: Array) -> None:
    """Samples of one hash that are not all equal: each goes to the first that it equals."""
    while len(members):
        equal = _equal(inputs, np.full(len(members), members[0]), members)
        groups[members[equal]] = members[0]
        members = members[~equal]


def _equal(inputs: Mapping[str, ArrayLike], some: Array, others: Array) -> Array:
    """Whether the samples of every pair have the same inputs; NaN is a missing number, and equal to another."""
    equal = np.ones(len(some), bool)
    for part in slices_of(len(some), _AT_ONCE):
        for array in inputs.values():
            one, other = array[some[part]], array[others[part]]
            same = one == other
            if array.dtype.kind == "f":
                same |= np.isnan(one) & np.isnan(other)
            equal[part] &= same.reshape(len(one), -1).all(axis=1)
        let_go(*inputs.values())
    return equal


def fingerprint(*hashes: Array) -> str:
    """One hash of many: SHA-256 over the samples' hashes in their order."""
    digest = hashlib.sha256()
    for part in _pieces(hashes):
        digest.update(np.ascontiguousarray(part, dtype="<u8").tobytes())
    return digest.hexdigest()


def _pieces(arrays: Iterable[Array]) -> Iterable[Array]:
    for array in arrays:
        for part in slices_of(len(array)):
            yield array[part]
            let_go(array)

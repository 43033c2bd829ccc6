"""Sources one after the other, each a split: what lies on the disk stays there."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from mltool.data.scratch import is_on_disk, let_go, room_for, slices_of
from mltool.data.source import Array, ArrayLike, Source
from mltool.data.stored_rows import RowReader
from mltool.errors import DataError


def joined_sources(sources: Mapping[str, Source]) -> Source:
    """Sources of arrays, one after the other, each a split; key "" is the training set.

    Raises:
        DataError: if their inputs differ in name, type or shape, or one brings splits of its own.
    """
    first = sources[""]
    given: dict[str, range] = {}
    start = 0
    for split, source in sources.items():
        if source.given:
            raise DataError(f"{source.origin} brings splits of its own", "leave test_path and validation_path out")
        for name, array in first.inputs.items():
            other = source.inputs.get(name)
            if other is None or other.shape[1:] != array.shape[1:] or other.dtype.kind != array.dtype.kind:
                found = "no such input" if other is None else f"{other.dtype} of shape {other.shape[1:]} a sample"
                message = (
                    f"{source.origin}: input {name!r} is {array.dtype} of shape {array.shape[1:]} in {first.origin}"
                )
                raise DataError(message, f"here it is {found}")
        given[split or "train"] = range(start, start + source.num_samples)
        start += source.num_samples
    parts = list(sources.values())
    return replace(
        first,
        inputs={name: _joined_inputs([part.inputs[name] for part in parts]) for name in first.inputs},
        targets=_joined_arrays([part.targets for part in parts]),
        given=given,
        groups=_where_all([part.groups for part in parts]),
        weights=_where_all([part.weights for part in parts]),
        names=JoinedNames([part.names for part in parts]),
    )


class Joined:
    """Inputs one after the other, see `ArrayLike`."""

    def __init__(self, parts: Sequence[ArrayLike]) -> None:
        self._parts = parts
        self._edges = np.cumsum([0, *map(len, parts)])
        self.dtype: np.dtype[Any] = np.result_type(*(part.dtype for part in parts))
        self.shape = (int(self._edges[-1]), *parts[0].shape[1:])
        self.stored_in = parts

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, positions: Any) -> Array:
        """See `ArrayLike`."""
        if isinstance(positions, int | np.integer):
            return self[np.asarray([positions])][0]  # type: ignore[no-any-return]
        if isinstance(positions, slice):
            positions = np.arange(*positions.indices(len(self)))
        return self._taken(positions, lambda part, inside: part[inside])

    def rows_at(self, positions: Array, reader: RowReader) -> Array:
        """See `MadeOfRows`."""
        return self._taken(positions, reader.take)

    def _taken(self, positions: Array, take: Callable[[ArrayLike, Array], Array]) -> Array:
        found = np.empty((len(positions), *self.shape[1:]), self.dtype)
        for part, begin, end in zip(self._parts, self._edges, self._edges[1:], strict=False):
            here = (positions >= begin) & (positions < end)
            if here.any():
                found[here] = take(part, positions[here] - begin)
        return found


class JoinedNames(Sequence[str]):
    """Names of the samples of several sources; none where one has none."""

    def __init__(self, parts: Sequence[Sequence[str]]) -> None:
        self._parts = parts if all(len(part) for part in parts) else []

    def __len__(self) -> int:
        return sum(map(len, self._parts))

    def __getitem__(self, position: Any) -> Any:
        """A name, or those of a slice."""
        if isinstance(position, slice):
            return [self[index] for index in range(*position.indices(len(self)))]
        for part in self._parts:
            if position < len(part):
                return part[position]
            position -= len(part)
        raise IndexError(position)

    def __iter__(self) -> Iterator[str]:
        return (name for part in self._parts for name in part)


def _joined_inputs(parts: Sequence[ArrayLike]) -> ArrayLike:
    return Joined(parts) if any(map(is_on_disk, parts)) else np.concatenate(parts)  # type: ignore[arg-type]


def _joined_arrays(parts: Sequence[Array]) -> Array:
    if not any(map(is_on_disk, parts)):
        return np.concatenate(parts)
    whole = Joined(parts)
    found = room_for(whole.shape, whole.dtype, on_disk=True)
    for part in slices_of(len(whole)):
        found[part] = whole[part]
        let_go(found, whole)
    return found


def _where_all(parts: Sequence[Array | None]) -> Array | None:
    """The parts one after the other; None if one has nothing."""
    there = [part for part in parts if part is not None]
    return np.concatenate(there) if len(there) == len(parts) else None

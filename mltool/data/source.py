"""What a source yields: named inputs and targets, in one order, with the splits that it brings."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self

import numpy as np

from mltool.data.scratch import AT_ONCE, is_on_disk, let_go
from mltool.errors import DataError
from mltool.runs.arrays import of_output

if TYPE_CHECKING:
    from mltool.data.stored_rows import RowReader

Array = np.ndarray[Any, Any]

InputKind = Literal["number", "category", "text", "image", "audio", "series", ""]
"""What an input holds, where the source can tell."""


class ArrayLike(Protocol):
    """What an input is: numpy's array, one in a file, or files that are decoded when they are asked for.

    Attributes:
        dtype: of numpy; text is of kind `U`.
        shape: (samples, ...).
    """

    @property
    def dtype(self) -> np.dtype[Any]:
        """See above."""
        ...

    @property
    def shape(self) -> tuple[int, ...]:
        """See above."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, positions: Any) -> Array:
        """Samples: of one position, a slice, or an array of positions."""
        ...


BATCH_BYTES = 2**25
"""Of a batch that is looked at: of long sounds a few, of numbers many samples."""


def batches_of(array: ArrayLike, positions: Array | None = None, size: int | None = None) -> Iterator[Array]:
    """An input in batches, in the type of the source: what is not in memory is never copied whole.

    Args:
        array: all samples.
        positions: of those that are wanted, in their order; all when None.
        size: samples of a batch; the last may have fewer; 1024, or what `BATCH_BYTES` hold, when None.
    """
    if size is None:
        size = max(1, min(1024, BATCH_BYTES // max(1, array.dtype.itemsize * math.prod(array.shape[1:]))))
    for start in range(0, len(array) if positions is None else len(positions), size):
        place = slice(start, start + size)
        yield array[place if positions is None else positions[place]]
        let_go(array, positions)


class Subset:
    """Some samples of an input, in an order of their own, copied only when they are asked for.

    Args:
        base: all samples.
        positions: int64, of the samples in `base`.
    """

    def __init__(self, base: ArrayLike, positions: Array) -> None:
        # Not a subset of a subset: every sample is one step away.
        self.base: ArrayLike = base.base if isinstance(base, Subset) else base
        self.positions: Array = base.positions[positions] if isinstance(base, Subset) else positions
        self.dtype = base.dtype
        self.shape = (len(positions), *base.shape[1:])
        self.stored_in = (self.base, self.positions)

    @classmethod
    def of(cls, base: ArrayLike, positions: Array) -> "Self | Array":
        """Samples in memory are copied at once; a model asks for each of them anyway."""
        return cls(base, positions) if is_on_disk(base) else base[positions]

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, positions: Any) -> Array:
        """See `ArrayLike`."""
        return self.base[self.positions[positions]]

    def rows_at(self, positions: Array, reader: "RowReader") -> Array:
        """See `MadeOfRows`."""
        return reader.take(self.base, reader.take(self.positions, positions))


@dataclass(frozen=True)
class Skipped:
    """A file that could not be read and was left out, as the spec allows.

    Attributes:
        name: of the file.
        reason: in words.
    """

    name: str
    reason: str


@dataclass(frozen=True)
class Windows:
    """Of samples that are windows over the rows of a table, and share rows with their neighbors.

    Attributes:
        columns: of the input, in their order.
        time: column that rows are sorted by; None: as they stand in the file.
        group: column whose values tell series apart; None: there is one.
        firsts: int64 [samples], the first row of each; rows are numbered in order, series after series.
        num_rows: of a window, those that hold its target included.
        begins: int64 [samples], the first row of the series that it is cut from.
        ends: int64 [samples], one past its last row.
    """

    columns: tuple[str, ...]
    time: str | None
    group: str | None
    firsts: Array
    num_rows: int
    begins: Array
    ends: Array

    def taken(self, positions: Array) -> "Windows":
        """Those of some samples."""
        parts = {name: getattr(self, name)[positions] for name in ("firsts", "begins", "ends")}
        return replace(self, **parts)


@dataclass(frozen=True)
class Source:
    """All samples.

    Attributes:
        origin: where they came from, for messages.
        inputs: by name, each [samples, ...].
        targets: [samples] or [samples, values]; classes as the source has them (numbers or text); or masks, uint8
            [samples, height, width], the number of the class of every pixel; with a field for each of several outputs.
        given: the splits that the source brings, as positions; `train`, `validation`, `test`, or some of them.
        kinds: what each input holds.
        originals: name of an input to what the source calls it, where that is no identifier.
        groups: [samples]; samples of a group are never torn apart by a split.
        weights: float32 [samples], how much each sample counts.
        names: what each sample is called in messages: a file, a row.
        skipped: files that were left out.
        target_name: what the source calls the targets.
        classes: names of the classes in their order, where the source has one; else they are sorted.
        value_names: by output the names of the values of a sample, where each has one, such as a column of a table.
        sample_rate: of audio, per second.
        resize: how images were brought to one size; None where the files have it.
        windows: of samples that share rows of a table.
    """

    origin: str
    inputs: Mapping[str, ArrayLike]
    targets: Array
    given: Mapping[str, Sequence[int] | Array] = field(default_factory=dict)
    kinds: Mapping[str, InputKind] = field(default_factory=dict)
    originals: Mapping[str, str] = field(default_factory=dict)
    groups: Array | None = None
    weights: Array | None = None
    names: Sequence[str] = ()
    skipped: Sequence[Skipped] = ()
    target_name: str = "y"
    classes: tuple[str, ...] = ()
    value_names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    sample_rate: int | None = None
    resize: Literal["stretch", "crop", "pad"] | None = None
    windows: Windows | None = None

    @property
    def num_samples(self) -> int:
        """How many samples there are, over all splits."""
        return len(self.targets)

    def name_of(self, position: int) -> str:
        """What a sample is called in messages."""
        return self.names[position] if len(self.names) else f"sample {position}"


def checked_source(
    origin: str,
    inputs: Mapping[str, ArrayLike],
    targets: Array,
    given: Mapping[str, Sequence[int] | Array],
    **more: Any,
) -> Source:
    """A source whose arrays fit together and hold finite numbers.

    uint8 samples of two axes are gray images and get a channel axis: (8, 8) becomes (8, 8, 1); a number or category a
    sample gets an axis of one. Numbers of a table may be missing (NaN); of an array they may not.

    Args:
        origin: where the samples came from.
        inputs: by name.
        targets: classes or values.
        given: the splits that the source brings.
        more: the other attributes of `Source`.

    Raises:
        DataError: if an array is empty, of a type that a model cannot take, of another length, or holds NaN, infinity.
    """
    if targets.ndim == 0 or len(targets) == 0:
        raise DataError(f"{origin}: there are no samples", "the first axis of every array counts them")
    kinds = more.get("kinds", {})
    ready: dict[str, ArrayLike] = {}
    for name, array in inputs.items():
        if len(array.shape) == 0 or 0 in array.shape:
            raise DataError(
                f"{origin}: input {name!r} is empty (shape {array.shape})", "give it a value for every sample"
            )
        if array.dtype.kind not in "uifbU" or (array.dtype.kind == "f" and array.dtype.itemsize > _WIDEST):
            raise DataError(f"{origin}: input {name!r} is of type {array.dtype}", "a model takes numbers or text")
        if array.dtype.kind == "U" and len(array.shape) > 2:
            message = f"{origin}: input {name!r} is text of shape {array.shape[1:]} a sample"
            raise DataError(message, "save numbers as numbers; of text, one or a row of categories a sample is taken")
        if len(array) != len(targets):
            raise DataError(f"{origin}: input {name!r} has {len(array)} samples, the targets have {len(targets)}")
        if isinstance(array, np.ndarray):
            if kinds.get(name) != "number":
                _require_finite(origin, f"input {name!r}", array)
            gray = array.dtype == np.uint8 and array.ndim == 3
            column = array.ndim == 1 and kinds.get(name) != "text"
            ready[name] = array[..., np.newaxis] if gray or column else array
        else:
            ready[name] = array
    for output in targets.dtype.names or ("",):
        of_one, what = of_output(targets, output), f"the targets of {output!r}" if output else "the targets"
        if of_one.dtype.kind not in "uifbU" or (of_one.dtype.itemsize > _WIDEST and of_one.dtype.kind == "f"):
            raise DataError(f"{origin}: {what} are of type {of_one.dtype}", "give classes as numbers or text")
        _require_finite(origin, what, of_one)
    if more.get("weights") is not None:
        more["weights"] = _checked_weights(origin, np.asarray(more["weights"]), len(targets), more.get("names", ()))
    return Source(origin, ready, targets, given, **more)


_WIDEST = 8
"""Bytes of a number: TensorFlow takes no wider ones."""


def _checked_weights(origin: str, weights: Array, count: int, names: Sequence[str]) -> Array:
    if weights.dtype.kind not in "uifb" or weights.shape != (count,):
        message = f"{origin}: the weights are {weights.dtype} of shape {weights.shape}"
        raise DataError(message, f"a number for every sample is expected: ({count},)")
    with np.errstate(over="ignore"):  # what float32 cannot hold is told as infinite
        found = weights.astype(np.float32)
    bad = ~(np.isfinite(found) & (found >= 0))
    if bad.any():
        first = int(np.flatnonzero(bad)[0])
        name = names[first] if len(names) else f"sample {first}"
        shown = "missing" if np.isnan(weights[first]) else weights[first]
        raise DataError(f"{origin}: the weight of {name} is {shown}", "0 or more is expected")
    return found


def _require_finite(origin: str, what: str, array: Array) -> None:
    if array.dtype.kind != "f":
        return
    count, first, whole, start = 0, -1, True, 0
    for part in batches_of(array, size=AT_ONCE):
        # A model takes float32, in which larger numbers are infinite. NaN is not below it either.
        bad = ~(np.abs(part) <= np.finfo(np.float32).max).reshape(len(part), -1).all(axis=1)
        if bad.any():
            first = start + int(np.flatnonzero(bad)[0]) if first < 0 else first
            whole = whole and bool(np.isfinite(part[bad]).all())
            count += int(bad.sum())
        start += len(part)
    if count:
        found = "numbers that float32 does not hold" if whole else "NaN or infinity"
        raise DataError(f"{origin}: {what}: {count} samples hold {found} (first: {first})", "clean them")


def inferred_input_name(array: ArrayLike) -> str:
    """`image` for samples of three axes, or of two axes in uint8; `text` for text; else `x`."""
    if array.dtype.kind == "U" and len(array.shape) == 1:
        return "text"
    return "image" if len(array.shape) == 4 or (len(array.shape) == 3 and array.dtype == np.uint8) else "x"


def inferred_kind(array: ArrayLike) -> InputKind:
    """What an array without a description holds, told by its axes and its type."""
    axes = len(array.shape) - 1
    if array.dtype.kind == "U":
        return "text" if axes == 0 else "category"
    if inferred_input_name(array) == "image":
        return "image"
    return "series" if axes == 2 else ""


def first_of(shown: Sequence[str], most: int, count: int) -> str:
    """The first `most` of `count` things in a message, and how many more there are."""
    more = f"; and {count - most} more" if count > most else ""
    return "; ".join(shown[:most]) + more


def can_be_label(text: str) -> bool:
    """Whether it can be a line of labels.txt and a text in JSON; a file's name need not."""
    is_utf8 = not any("\ud800" <= character <= "\udfff" for character in text)
    return len(text.splitlines()) == 1 and is_utf8 and not text.isspace()


def label_of(value: Any) -> str:
    """A class as text: 3 and 3.0 are the class `3`."""
    return str(int(value)) if isinstance(value, int | float | np.integer | np.floating) else str(value)

"""Samples in TFRecord files of tf.train.Example: features by name, read at their places in the files."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mltool import extras
from mltool.data.cache import FileArray, listed
from mltool.data.source import Array, ArrayLike, Skipped, Source, checked_source, inferred_kind
from mltool.data.sources.encoded import Reading, encoded_images
from mltool.data.sources.records import AT_ONCE, Records, find_records, first_records, record_files
from mltool.data.sources.text import MAX_TEXT_BYTES
from mltool.data.tables.table import identifiers
from mltool.errors import DataError


@dataclass(frozen=True)
class Feature:
    """What a feature of every record holds.

    Attributes:
        dtype: float32, int64 or string, as tf.train.Example has it; None where bytes are decoded.
        shape: of one record.
        decode: `image`, or numpy's name of the type of raw numbers, little-endian.
    """

    dtype: str | None = None
    shape: tuple[int, ...] = ()
    decode: str | None = None

    @property
    def is_text(self) -> bool:
        """Whether it holds text."""
        return self.dtype == "string"

    @property
    def number_type(self) -> np.dtype[Any]:
        """Of its numbers, in numpy."""
        return np.dtype(self.dtype or self.decode)


def load_tfrecord(
    paths: Mapping[str, Path],
    features: Mapping[str, Feature],
    *,
    target: str,
    inputs: Mapping[str, str] | None = None,
    weight: str | None = None,
    group: str | None = None,
    images: Reading | None = None,
) -> Source:
    """The samples of TFRecord files: numbers and images are read when they are asked for, text and targets at once.

    Args:
        paths: a file, or a folder of them (key ""), and those of splits that have one of their own.
        features: by name.
        target: the feature with the labels or values.
        inputs: input name to feature; all that are nothing else when None.
        weight: the feature with a weight a sample.
        group: the feature with the group of a sample.
        images: how images are brought to one shape.

    Raises:
        DataError: naming the records that are damaged or cut off, are no tf.train.Example, or lack a feature.
    """
    other = {target, weight, group}
    chosen = dict(inputs) if inputs is not None else identifiers([name for name in features if name not in other])
    unknown = [name for name in chosen.values() if name not in features]
    if unknown:
        raise DataError(
            f"{paths['']}: {unknown[0]!r} is no feature", f"data.source.features has: {', '.join(features)}"
        )
    if not chosen:
        raise DataError(f"{paths['']}: no feature is an input", "name one in data.source.features")
    records = find_records(paths)
    used = {name: features[name] for name in (*chosen.values(), *other) if name is not None}
    eager = {name for name in used if name in other or used[name].is_text}
    read = _read_all(records, used, eager)
    reading = images or Reading()
    arrays = {name: _array(records, feature, features[feature], read, reading) for name, feature in chosen.items()}
    kinds = {name: inferred_kind(array) for name, array in arrays.items()}
    kinds |= {name: "image" for name, feature in chosen.items() if features[feature].decode == "image"}
    return checked_source(
        str(paths[""]),
        arrays,
        read[target],
        records.given,
        kinds=kinds,
        originals={name: feature for name, feature in chosen.items() if name != feature},
        groups=read[group].reshape(-1).astype(str) if group else None,
        weights=read[weight].reshape(-1).astype(np.float32) if weight else None,
        names=records.names,
        target_name=target,
        resize=reading.resize if reading.size and "image" in kinds.values() else None,
    )


class RecordArray(FileArray):
    """Numbers of a feature, parsed in batches when they are asked for."""

    def __init__(self, records: Records, name: str, feature: Feature) -> None:
        super().__init__(len(records), lambda _, __: {}, feature.shape, feature.number_type, records.names)
        self._records, self._feature, self._name = records, feature, name

    def read_all(self, positions: Sequence[int], out: Array | None = None) -> tuple[Array, dict[int, str]]:
        """See `FileArray`."""
        samples = np.empty((len(positions), *self.shape[1:]), self.dtype) if out is None else out
        bad: dict[int, str] = {}
        for start in range(0, len(positions), AT_ONCE):
            part = positions[start : start + AT_ONCE]
            found, wrong = _parsed(self._records.read(part), {self._name: self._feature})
            bad |= {part[row]: reason for row, reason in wrong.items()}
            if not wrong:
                samples[start : start + len(part)] = found[self._name]
        return samples, bad


def _array(records: Records, name: str, feature: Feature, read: Mapping[str, Array], reading: Reading) -> ArrayLike:
    if name in read:
        return read[name]
    if feature.decode != "image":
        return RecordArray(records, name, feature)
    return encoded_images(image_reader(records, name), records.names, reading)


def image_reader(records: Records, feature: str) -> Callable[[int], bytes]:
    """What reads the encoded image of a record."""
    parse: Callable[[bytes], Any] = extras.tensorflow().train.Example.FromString

    def read(position: int) -> bytes:
        example = parse(records.read([position])[0])
        return bytes(example.features.feature[feature].bytes_list.value[0])

    return read


def read_feature(records: Records, name: str, feature: Feature) -> Array:
    """The values of one feature of all records.

    Raises:
        DataError: naming the records that do not hold it.
    """
    return _read_all(records, {name: feature}, {name})[name]


def _read_all(records: Records, features: Mapping[str, Feature], eager: set[str]) -> dict[str, Array]:
    """Parses every record, and keeps some features.

    Raises:
        DataError: naming the records that do not hold what the features say.
    """
    parts: dict[str, list[Array]] = {name: [] for name in eager}
    for start in range(0, len(records), AT_ONCE):
        part = range(start, min(start + AT_ONCE, len(records)))
        found, wrong = _parsed(records.read(part), features)
        if wrong:
            bad = [Skipped(records.names[start + row], reason) for row, reason in wrong.items()]
            what = "record does" if len(bad) == 1 else "records do"
            message = f"{len(bad)} {what} not hold what data.source.features says: {listed(bad)}"
            raise DataError(message, "change the features, or write the file again")
        for name in eager:
            parts[name].append(found[name])
    for name, found_parts in parts.items():
        longest = max(part.dtype.itemsize for part in found_parts)
        if features[name].is_text and longest * sum(part.size for part in found_parts) > MAX_TEXT_BYTES:
            raise DataError(f"{records.paths[0]}: the longest text of {name!r} is too long beside all others", "cut it")
    return {name: np.concatenate(found_parts) for name, found_parts in parts.items()}


def _parsed(data: Sequence[bytes], features: Mapping[str, Feature]) -> tuple[dict[str, Array], dict[int, str]]:
    """The features of some records; and by row what is wrong with it, where one does not hold what they say."""
    tensorflow = extras.tensorflow()
    try:
        return _parsed_at_once(data, features), {}
    # TensorFlow quotes bytes that are no Example in its message, which then need not be text.
    except (tensorflow.errors.InvalidArgumentError, UnicodeDecodeError, _MisfitError) as error:
        if len(data) == 1:
            return {}, {0: _reason(error)}
    bad = [(row, _parsed([one], features)[1]) for row, one in enumerate(data)]
    return {}, {row: wrong[0] for row, wrong in bad if wrong}


class _MisfitError(Exception):
    """Bytes that are not what a feature says; the text is the reason."""


def _parsed_at_once(data: Sequence[bytes], features: Mapping[str, Feature]) -> dict[str, Array]:
    tensorflow = extras.tensorflow()
    wanted = {
        name: tensorflow.io.FixedLenFeature(
            feature.shape if feature.dtype else (), getattr(tensorflow, feature.dtype or "string")
        )
        for name, feature in features.items()
    }
    # On the processor: strings live nowhere else.
    with tensorflow.device("CPU"):
        parsed = tensorflow.io.parse_example(tensorflow.constant(list(data)), wanted)
    found: dict[str, Array] = {}
    for name, feature in features.items():
        values: Array = parsed[name].numpy()
        if feature.is_text:
            found[name] = _texts(name, values)
        elif feature.decode is None:
            _require_finite(name, values)
            found[name] = values
        elif feature.decode != "image":
            found[name] = _numbers(name, values, feature)
    return found


def _texts(name: str, values: Array) -> Array:
    try:
        texts = [value.decode("utf-8") for value in values.reshape(-1)]
    except UnicodeDecodeError as error:
        raise _MisfitError(f"{name!r} is no UTF-8 text") from error
    return np.asarray(texts, dtype=np.str_).reshape(values.shape)


def _numbers(name: str, values: Array, feature: Feature) -> Array:
    dtype = feature.number_type.newbyteorder("<")
    expected = int(np.prod(feature.shape, dtype=np.int64)) * dtype.itemsize
    for value in values:
        if len(value) != expected:
            raise _MisfitError(
                f"{name!r} has {len(value):,} bytes, {feature.decode} of {list(feature.shape)} is {expected:,}"
            )
    numbers = np.frombuffer(b"".join(values), dtype).astype(feature.number_type).reshape(len(values), *feature.shape)
    _require_finite(name, numbers)
    return numbers


def _require_finite(name: str, values: Array) -> None:
    # float32 is what a model takes: larger numbers are infinite in it, and NaN is not below it.
    if values.dtype.kind == "f" and not (np.abs(values) <= np.finfo(np.float32).max).all():
        raise _MisfitError(f"{name!r} holds NaN or infinity")


_REASONS = (
    (r"Feature: (?P<name>.+) \(data type: .*is required but could not be found", "it has no feature {name!r}"),
    (
        r"Key: (?P<name>.+), Index: .*[Vv]alues size: (?P<size>\d+) but output shape: \[(?P<shape>[\d,]*)\]",
        "{name!r} has {size} values, the shape is [{shape}]",
    ),
    (
        r"Key: (?P<name>.+), Index: .*Data types don't match.*xpected type: (?P<type>\w+)",
        "{name!r} is not of type {type}",
    ),
    (r"Could not parse example", "it is no tf.train.Example"),
)
"""What TensorFlow says of an Example that does not fit, and how we say it."""


def _reason(error: Exception) -> str:
    text = "Could not parse example" if isinstance(error, UnicodeDecodeError) else str(error)
    for pattern, ours in _REASONS:
        found = re.search(pattern, text)
        if found:
            return ours.format(**found.groupdict())
    return re.sub(r"\{\{.*?\}\} *|Name: <unknown>, *|\[Op:.*", "", text).strip()


_LOOKED_AT = 100
"""Records that tell the features of a file."""

_IMAGE_STARTS = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"BM", b"RIFF")


def infer_features(path: Path) -> dict[str, dict[str, Any]]:
    """What the first records hold, as `data.source.features` has it, in alphabetical order.

    Features whose number of values differs from record to record are left out.

    Raises:
        DataError: if there is no record, or the first is no tf.train.Example.
    """
    tensorflow = extras.tensorflow()
    data = first_records(record_files(path)[0], _LOOKED_AT)
    if not data:
        raise DataError(f"{path} holds no records that can be read", "write it again")
    try:
        examples = [tensorflow.train.Example.FromString(one).features.feature for one in data]
    # protobuf's own, which has another name in every implementation of it.
    except Exception as error:
        raise DataError(f"{path} holds no tf.train.Example: {error}", "write it with tf.train.Example") from error
    names = sorted({name for example in examples for name in example})
    found = {name: _inferred([example[name] for example in examples if name in example]) for name in names}
    everywhere = {name for name in names if all(name in example for example in examples)}
    return {name: feature for name, feature in found.items() if feature is not None and name in everywhere}


def _inferred(values: Sequence[Any]) -> dict[str, Any] | None:
    """One feature as the spec has it; None if the records differ, or hold nothing."""
    kinds = {value.WhichOneof("kind") for value in values}
    if len(kinds) != 1 or None in kinds:
        return None
    (kind,) = kinds
    lists = [getattr(value, kind).value for value in values]
    (count, *others) = {len(found) for found in lists}
    if others or not count:
        return None
    shape = {"shape": [count]} if count > 1 else {}
    if kind != "bytes_list":
        return {"dtype": "float32" if kind == "float_list" else "int64", **shape}
    every = [one for found in lists for one in found]
    if count == 1 and all(one.startswith(_IMAGE_STARTS) for one in every):
        return {"decode": "image"}
    if all(_is_text(one) for one in every):
        return {"dtype": "string", **shape}
    sizes = {len(one) for one in every}
    return {"decode": "uint8", "shape": [sizes.pop()]} if len(sizes) == 1 and count == 1 else None


def _is_text(data: bytes) -> bool:
    try:
        return data.decode("utf-8").isprintable() or b"\n" in data
    except UnicodeDecodeError:
        return False

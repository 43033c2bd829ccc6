"""Data sets of tensorflow_datasets by name: prepared on this machine, or downloaded on first use."""

import socket
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from mltool import extras
from mltool.data.source import Array, Source
from mltool.data.sources.described import Asked, Described, described_source
from mltool.data.sources.files import SPLIT_FOLDERS
from mltool.data.tables.table import identifiers
from mltool.errors import DataError

_BUCKET = "storage.googleapis.com"
"""Where tensorflow_datasets keeps what it knows of its data sets, and many of the files themselves."""

_WAIT_SECONDS = 10.0
"""For an answer of it; the library itself tries again for minutes."""


def load_tfds(name: str, data_dir: str | None, asked: Asked) -> Source:
    """The samples of a data set; encoded images stay in memory and are decoded when they are asked for.

    Args:
        name: as in `tfds.load`: NAME, NAME/CONFIG, NAME:VERSION.
        data_dir: where it is prepared, or will be; that of tensorflow_datasets when None.
        asked: what the spec says of its features; without it, those that the data set is meant for.

    Raises:
        DataError: if there is none of this name, it cannot be downloaded, or a feature is none that a model takes.
        MissingExtraError: if tensorflow_datasets is not installed.
    """
    extras.tensorflow()  # its environment first
    library = extras.require("tensorflow_datasets")
    builder = _prepared(library, name, data_dir)
    features = builder.info.features
    if not isinstance(features, library.features.FeaturesDict):
        raise DataError(f"tfds:{name} holds no named features", "take another data set")
    meant = builder.info.supervised_keys
    if asked.target is None and meant and all(isinstance(key, str) for key in meant[:2]):
        asked = replace(asked, target=meant[1], inputs=asked.inputs or identifiers([meant[0]]))
    special = (asked.target, asked.weight, asked.group)
    wanted = set(features) if asked.inputs is None else {*asked.inputs.values(), *filter(None, special)}
    used = {key: feature for key, feature in features.items() if key in wanted and _is_usable(library, feature)}
    known = {SPLIT_FOLDERS[split]: split for split in builder.info.splits if split in SPLIT_FOLDERS}
    if "train" not in known:
        raise DataError(f"tfds:{name} has no split 'train'; it has: {', '.join(builder.info.splits)}", "take another")
    splits: dict[str, str] = {ours: known[ours] for ours in ("train", "validation", "test") if ours in known}
    rows = {split: _rows(library, builder, own, used) for split, own in splits.items()}
    edges = np.cumsum([0, *(len(found) for found in rows.values())]).tolist()
    given = {split: np.arange(edges[i], edges[i + 1]) for i, split in enumerate(rows)}
    names = [f"{name} {split} {number}" for split, found in rows.items() for number in range(len(found))]
    every = [row for found in rows.values() for row in found]
    columns = {
        key: _described(library, name, key, feature, [row[key] for row in every]) for key, feature in used.items()
    }
    return described_source(f"tfds:{name}", columns, given if len(given) > 1 else {}, names, asked)


def _prepared(library: Any, name: str, data_dir: str | None) -> Any:
    try:
        builder = library.builder(name, data_dir=data_dir)
    # The library has errors of many kinds for names: not found, no such config, no such version, not well formed.
    except Exception as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        hint = "see tensorflow.org/datasets/catalog, or name the folder where it is prepared: data_dir"
        raise DataError(f"tfds:{name}: {reason[0]}", hint) from error
    if not builder.is_prepared():
        hint = "prepare it where there is a network (tfds build), and give the folder as data_dir or TFDS_DATA_DIR"
        what = f"tfds:{name} is not prepared in {builder.data_path.parent.parent} and cannot be downloaded"
        try:
            _require_network()
            builder.download_and_prepare()
        except Exception as error:
            reason = str(error).strip().splitlines() or [type(error).__name__]
            raise DataError(f"{what}: {reason[0]}", hint) from error
    return builder


def _require_network() -> None:
    """Raises OSError where neither the network nor the proxy that leads there answers."""
    proxies = {} if urllib.request.proxy_bypass(_BUCKET) else urllib.request.getproxies()
    proxy = urllib.parse.urlsplit(proxies.get("https") or proxies.get("all") or "")
    place = (proxy.hostname, proxy.port or 80) if proxy.hostname else (_BUCKET, 443)
    socket.create_connection(place, timeout=_WAIT_SECONDS).close()


def _is_usable(library: Any, feature: Any) -> bool:
    """Whether it is one value or one array of one shape a sample, or an image."""
    own = library.features
    if isinstance(feature, own.Image):
        return True
    is_plain = isinstance(feature, own.Tensor | own.Text | own.ClassLabel | own.Scalar)
    return is_plain and not isinstance(feature, own.Audio | own.Video) and None not in feature.shape


def _rows(library: Any, builder: Any, split: str, used: Mapping[str, Any]) -> list[Any]:
    """The samples of a split, in the order of its files."""
    images = [key for key, feature in used.items() if isinstance(feature, library.features.Image)]
    decoders = library.decode.PartialDecoding(
        dict(used), decoders={key: library.decode.SkipDecoding() for key in images}
    )
    config = library.ReadConfig(interleave_cycle_length=1)
    try:
        data = builder.as_dataset(split, decoders=decoders, shuffle_files=False, read_config=config)
        return list(library.as_numpy(data))
    # Damaged files: TensorFlow's errors, and the library's own.
    except Exception as error:
        hint = f"take {builder.data_path} away: it is prepared anew"
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise DataError(f"the split {split!r} in {builder.data_path} cannot be read: {reason[0]}", hint) from error


def _described(library: Any, origin: str, name: str, feature: Any, values: list[Any]) -> Described:
    if isinstance(feature, library.features.Image):
        return Described(read_image=lambda position: bytes(values[position]))
    if isinstance(feature, library.features.ClassLabel):
        return Described(np.asarray(values, dtype=np.int64), classes=tuple(feature.names or ()))
    found: Array = np.asarray(values)
    if found.dtype.kind in "OS":
        try:
            texts = [value.decode("utf-8") for value in found.reshape(-1)]
        except UnicodeDecodeError as error:
            raise DataError(f"tfds:{origin}: {name!r} is no UTF-8 text", "take another feature") from error
        return Described(np.asarray(texts, dtype=np.str_).reshape(found.shape))
    return Described(found.astype(np.float64) if found.ndim == 1 else found)

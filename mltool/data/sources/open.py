"""From the `data` section to a source: where the spec stops."""

import logging
import tempfile
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mltool.data.cache import keep_decoded
from mltool.data.select import select
from mltool.data.source import Source, label_of
from mltool.data.sources.described import Asked
from mltool.data.sources.encoded import Reading
from mltool.data.sources.keras_datasets import load_keras_dataset
from mltool.data.sources.kinds import kind_at
from mltool.data.sources.masks import are_masks, with_masks
from mltool.data.sources.npz import load_npz
from mltool.data.sources.shapes import load_shapes
from mltool.data.sources.user_function import load_arrays
from mltool.errors import DataError, Message, SpecError
from mltool.spec.data import EMBEDDED, TFDS, DataSpec, Kind, SourceSpec
from mltool.spec.outputs import ONLY

logger = logging.getLogger("mltool")


def build_source(spec: DataSpec, *, seed: int, values: Collection[str]) -> Source:
    """Reads the samples that the `data` section names.

    Args:
        spec: checked.
        seed: of what is drawn, where the spec asks for fewer samples.
        values: the outputs whose targets are values, not classes; the key of the only one is "".

    Raises:
        DataError: if they are missing, damaged or do not fit together.
        SpecError: if the spec has keys that the kind of the path has not.
    """
    asked = spec.source
    source = _read(spec, values)
    has_masks = source.targets.dtype.names is None and ONLY not in values and are_masks(source.targets)
    if has_masks:
        _require_no_labels_an_image(asked)
        source = with_masks(source, asked.classes)
    # Of labels, `classes` are the names; see `encode`.
    has_several = source.targets.ndim == 2 and source.targets.shape[1] > 1 and ONLY not in values
    source = select(
        source,
        labels=asked.labels,
        classes=None if has_masks or has_several else asked.classes,
        max_samples=asked.max_samples,
        max_per_class=asked.max_per_class,
        has_classes=not isinstance(asked.target, dict) and ONLY not in values and not has_several,
        seed=seed,
    )
    kept = keep_decoded(source, spec.cache, max_skipped=asked.max_skipped if asked.on_error == "skip" else 0)
    if kept.skipped and ONLY not in values and source.targets.dtype.names is None and not has_masks:
        _require_no_class_lost(source, kept)
    return kept


def _require_no_labels_an_image(asked: SourceSpec) -> None:
    """Proves that the spec asks for nothing that only a class an image has; for `masks` it is known without the data.

    Raises:
        SpecError: naming the key.
    """
    for key in ("labels", "max_per_class"):
        if getattr(asked, key) is not None:
            message = "is for a label an image, and these targets are masks: one a pixel"
            raise SpecError(Message(message, "leave it out", key=f"data.source.{key}"))


def _require_no_class_lost(source: Source, kept: Source) -> None:
    """Proves that every class has a file that can be read: else the model has an output less, and nobody asked for it.

    Raises:
        DataError: naming the class.
    """
    gone = np.setdiff1d(np.unique(source.targets), np.unique(kept.targets))
    if len(gone):
        first = kept.skipped[0]
        message = f"{source.origin}: no sample of the class {label_of(gone[0])!r} can be read"
        raise DataError(message, f"mend them (first: {first.name}: {first.reason})")


def _read(spec: DataSpec, values: Collection[str]) -> Source:
    source = spec.source
    named = _arrays_of_targets(source)
    arrays = {name: declared.array or name for name, declared in spec.inputs.items()} if spec.inputs else None
    if source.python is not None:
        return load_arrays(source.python, source.arguments or {}, inputs=arrays, targets=named, weight=source.weight)
    if source.path is None:
        if source.known_kind == "tfds":
            return _load_tfds(spec)
        if source.dataset == "shapes":
            found = load_shapes()
        elif source.dataset in EMBEDDED:
            found = load_npz({"": Path(__file__).parents[1] / f"{source.dataset}.npz"})
        else:
            found = load_keras_dataset(str(source.dataset))
        return _named(found, str(source.dataset), arrays)
    paths = _paths(source)
    if source.masks is not None:
        _require_masks_apart(Path(source.masks), paths[""])
    kind = source.kind or kind_at(paths[""])
    for problem in source.misfits(kind):
        key = ".".join(["data", "source", *map(str, problem.path)])
        raise SpecError(Message(problem.message, problem.hint, key=key))
    return _read_kind(kind, paths, spec, values)


def _arrays_of_targets(source: SourceSpec) -> dict[str, str]:
    """The array of the targets of every output; `y` for the only one when left out."""
    return {name: "y" if array is None else str(array) for name, array in source.targets.items()}


def _read_kind(kind: Kind, paths: Mapping[str, Path], spec: DataSpec, values: Collection[str]) -> Source:
    source = spec.source
    arrays = {name: declared.array or name for name, declared in spec.inputs.items()} if spec.inputs else None
    if kind == "npz":
        return load_npz(paths, inputs=arrays, targets=_arrays_of_targets(source), weight=source.weight)
    if kind == "tfrecord":
        return _load_tfrecord(paths, source, arrays)
    columns = {name: declared.column or name for name, declared in spec.inputs.items()} if spec.inputs else None
    if kind == "huggingface":
        return _load_huggingface(paths, source, columns)
    if kind == "table" and source.window is not None:
        return _load_windows(paths[""], source, spec.cache)
    if kind == "table":
        return _load_table(paths, spec, columns, values)
    if spec.inputs is not None and len(spec.inputs) != 1:
        raise DataError(f"{paths['']} has one input, data.inputs declares {len(spec.inputs)}", "declare one")
    return _named(_LOADERS[kind](paths, source), str(paths[""]), arrays)


def _paths(source: SourceSpec) -> dict[str, Path]:
    """The path of all samples or of the training samples (key ""), and of the splits that have one of their own."""
    found = {"": source.path, "validation": source.validation_path, "test": source.test_path}
    paths = {name: Path(path) for name, path in found.items() if path is not None}
    for name, path in paths.items():
        if not path.exists():
            key = f"{name}_path" if name else "path"
            raise DataError(f"{path} is not there", f"give a path that is, with --set data.source.{key}=PATH")
    return paths


def _require_masks_apart(masks: Path, images: Path) -> None:
    if not masks.exists():
        raise DataError(f"{masks} is not there", "give a folder that is, with --set data.source.masks=PATH")
    if masks.resolve().is_relative_to(images.resolve()):
        message = f"{masks} lies in {images}: masks would be taken for images"
        raise SpecError(Message(message, "put them into a folder beside that of the images", key="data.source.masks"))


def _load_table(
    paths: Mapping[str, Path], spec: DataSpec, columns: Mapping[str, str] | None, values: Collection[str]
) -> Source:
    from mltool.data.tables.table import load_table

    source = spec.source
    return load_table(
        paths,
        targets=source.targets,
        inputs=columns,
        kinds=source.columns or {},
        missing=source.missing,
        separator=source.separator,
        weight=source.weight,
        group=source.group,
        split_column=spec.split.column,
        values=values,
        on_disk=_is_kept_on_disk(paths, spec.cache),
    )


def _load_windows(path: Path, source: SourceSpec, cache: str) -> Source:
    from mltool.data.tables.windows import Window, load_windows

    asked = source.window
    if asked is None or not isinstance(source.target, str):
        raise ValueError("a spec without windows, or without their target, which it refuses")
    return load_windows(
        path,
        Window(asked.length, asked.horizon, asked.stride),
        target=source.target,
        kinds=source.columns,
        missing=source.missing,
        separator=source.separator,
        group=source.group,
        time=source.time,
        on_disk=_is_kept_on_disk({"": path}, cache),
    )


STREAMED_FROM_BYTES = 256 * 2**20
"""Tables of more are read in pieces and kept on the disk, with `cache: auto`."""

_BYTES_OF_PARQUET = 4
"""A byte of Parquet counts as so many of CSV."""


def _is_kept_on_disk(paths: Mapping[str, Path], cache: str) -> bool:
    """Whether a table's rows stay on the disk; what comes of them is the same either way."""
    size = sum(
        path.stat().st_size * (_BYTES_OF_PARQUET if path.suffix.lower() == ".parquet" else 1) for path in paths.values()
    )
    if cache == "auto" and size > STREAMED_FROM_BYTES:
        logger.info("%s: %s bytes, read in pieces and kept in %s", paths[""], f"{size:,}", tempfile.gettempdir())
    return cache == "disk" or (cache == "auto" and size > STREAMED_FROM_BYTES)


def _load_tfrecord(paths: Mapping[str, Path], source: SourceSpec, inputs: Mapping[str, str] | None) -> Source:
    from mltool.data.sources.tfrecord import Feature, load_tfrecord

    features = source.features or {}
    return load_tfrecord(
        paths,
        {name: Feature(found.dtype, found.shape, found.decode) for name, found in features.items()},
        target=str(source.target),
        inputs=inputs,
        weight=source.weight,
        group=source.group,
        images=Reading(source.image_size, source.resize, source.color),
    )


def _load_huggingface(paths: Mapping[str, Path], source: SourceSpec, inputs: Mapping[str, str] | None) -> Source:
    from mltool.data.sources.huggingface import load_huggingface

    return load_huggingface(paths, _asked(source, inputs))


def _load_tfds(spec: DataSpec) -> Source:
    from mltool.data.sources.tfds import load_tfds

    source = spec.source
    inputs = {name: found.column or found.array or name for name, found in spec.inputs.items()} if spec.inputs else None
    return load_tfds(str(source.dataset).removeprefix(TFDS), source.data_dir, _asked(source, inputs))


def _asked(source: SourceSpec, inputs: Mapping[str, str] | None) -> Asked:
    images = Reading(source.image_size, source.resize, source.color)
    target = source.target if isinstance(source.target, str) else None
    return Asked(target, inputs, source.weight, source.group, source.columns, images)


def _load_images(paths: Mapping[str, Path], source: SourceSpec) -> Source:
    from mltool.data.sources.images import load_images

    return load_images(
        paths,
        size=source.image_size,
        resize=source.resize,
        color=source.color,
        label=source.label,
        group=source.group,
        masks=Path(source.masks) if source.masks is not None else None,
        classes=source.classes,
    )


def _load_audio(paths: Mapping[str, Path], source: SourceSpec) -> Source:
    from mltool.data.sources.audio import load_audio

    return load_audio(
        paths, sample_rate=source.sample_rate, seconds=source.seconds, label=source.label, group=source.group
    )


def _load_text(paths: Mapping[str, Path], source: SourceSpec) -> Source:
    from mltool.data.sources.text import load_text

    return load_text(paths, label=source.label, group=source.group)


_LOADERS: dict[str, Callable[[Mapping[str, Path], SourceSpec], Source]] = {
    "images": _load_images,
    "audio": _load_audio,
    "text": _load_text,
}
"""Kinds of one input; imported when they are needed, because each brings a library of its own."""


def _named(source: Source, origin: str, inputs: Mapping[str, Any] | None) -> Source:
    """The source with its one input called as the spec says."""
    if inputs is None:
        return replace(source, origin=origin)
    if len(inputs) != 1:
        raise DataError(f"the data set {origin!r} has one input, data.inputs declares {len(inputs)}", "declare one")
    old, new = next(iter(source.inputs)), next(iter(inputs))
    kinds = {new: source.kinds[old]} if old in source.kinds else {}
    return replace(source, origin=origin, inputs={new: source.inputs[old]}, kinds=kinds)

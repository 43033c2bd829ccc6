"""The `data` section: where samples come from, how they are shared out, and what training does to them."""

import difflib
import keyword
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, Strict, model_validator

from mltool.spec.argument_check import shown
from mltool.spec.augment import misfits_of_augment, misfits_with_masks
from mltool.spec.blocks import AUGMENTATIONS, KERAS_AUGMENTATIONS, MIXERS
from mltool.spec.catalogue import KerasObject, Problem
from mltool.spec.features import RECORD_NAME, FeatureSpec, misfit_of_features
from mltool.spec.keras_object import parse_objects, reference
from mltool.spec.section import Checked, Section, raise_problem, raise_problems
from mltool.spec.user_code import check_reference

EMBEDDED = ("digits", "shapes")
"""Data sets that lie in the package, or are drawn by it."""

WITH_MASKS = ("shapes",)
"""Those whose targets are masks: a class for every pixel."""

KERAS_DATASETS = ("mnist", "fashion_mnist", "cifar10", "cifar100", "boston_housing", "california_housing")
"""Names of `keras.datasets` that give arrays; they are downloaded on first use."""

TFDS = "tfds:"
"""What names of tensorflow_datasets begin with."""

_TFDS_NAME = re.compile(r"tfds:[a-z]\w*(/[\w.+-]+)?(:\d+\.\d+\.\d+)?")

BRING_THEIR_OWN_TEST = KERAS_DATASETS

_INPUT_NAME = re.compile("[A-Za-z][A-Za-z0-9_]*")


Kind = Literal["npz", "images", "audio", "text", "table", "tfrecord", "huggingface", "tfds"]

TABLE_ENDINGS = (".csv", ".tsv", ".parquet")
SAVED_SET, SAVED_SETS = "state.json", "dataset_dict.json"
"""The files that tell a Dataset and a DatasetDict that Hugging Face's `save_to_disk` wrote."""

FOLDER_KINDS = ("images", "audio", "text")
"""Kinds that are a folder of files, or a .zip of one."""

_KEYS_OF_KIND: dict[str, frozenset[str]] = {
    "npz": frozenset({"target", "weight"}),
    "table": frozenset({"target", "weight", "columns", "separator", "missing", "group", "window", "time"}),
    "images": frozenset({"image_size", "resize", "color", "label", "group", "masks", "on_error", "max_skipped"}),
    "audio": frozenset({"sample_rate", "seconds", "label", "group", "on_error", "max_skipped"}),
    "text": frozenset({"label", "group", "on_error", "max_skipped"}),
    "tfrecord": frozenset(
        {"features", "target", "weight", "group", "image_size", "resize", "color", "on_error", "max_skipped"}
    ),
    "huggingface": frozenset(
        {"target", "weight", "group", "columns", "image_size", "resize", "color", "on_error", "max_skipped"}
    ),
    "tfds": frozenset(
        {"target", "weight", "group", "columns", "data_dir"}
        | {"image_size", "resize", "color", "on_error", "max_skipped"}
    ),
}
"""Keys that only some kinds have."""

_ALL_KIND_KEYS = frozenset().union(*_KEYS_OF_KIND.values())


def kind_of_path(path: str) -> Kind | None:
    """The kind that the ending of a path tells; None for a folder or a .zip, which must be looked into."""
    ending = Path(path).suffix.lower()
    if ending in (".npz", ".npy"):
        return "npz"
    if RECORD_NAME.search(Path(path).name):
        return "tfrecord"
    return "table" if ending in TABLE_ENDINGS else None


def _check_dataset(value: Any) -> Any:
    known = (*EMBEDDED, *KERAS_DATASETS)
    if isinstance(value, str) and value.startswith(TFDS):
        if not _TFDS_NAME.fullmatch(value):
            raise_problem(f"is no name of TFDS (got {shown(value)})", "write tfds:NAME, or tfds:NAME/CONFIG:1.0.0")
        return value
    if isinstance(value, str) and (value in ("imdb", "reuters") or value.startswith("hf:")):
        raise_problem(f"not in this version (got {shown(value)})", f"known: {', '.join(known)}; or path: FILE.npz")
    if value is not None and value not in known:
        close = difflib.get_close_matches(str(value), known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}; or path: FILE.npz"
        raise_problem(f"unknown data set {shown(value)}", hint)
    return value


def _check_path(value: Any) -> Any:
    if value is not None and (not isinstance(value, str) or not value.strip()):
        raise_problem(f"must be a path (got {shown(value)})", "write path: FILE or path: FOLDER")
    return value


def _check_pattern(value: Any) -> Any:
    if value is None:
        return None
    if not isinstance(value, str) or not value:
        raise_problem(
            f"must be a regular expression, or the name of a column (got {shown(value)})", "write '^([^_]+)_'"
        )
    try:
        re.compile(value)
    except re.error as error:
        raise_problem(f"is no regular expression: {error} (got {shown(value)})", "write '^([^_]+)_'")
    return value


Columns = str | tuple[str, ...]
"""A column or an array; or several columns of a table, each of which is a value."""


def _check_target(value: Any) -> Any:
    if isinstance(value, dict):
        if not value or not all(isinstance(name, str) for name in value):
            raise_problem(f"must be a map from outputs to columns (got {shown(value)})", "write {OUTPUT: COLUMN}")
        return {name: _check_columns(columns, (name,)) for name, columns in value.items()}
    return value if value is None else _check_columns(value, ())


def _check_columns(value: Any, place: tuple[str, ...]) -> Columns:
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list | tuple) or not names or not all(isinstance(name, str) for name in names):
        message = f"must be a name, a list of columns, or a map from outputs to them (got {shown(value)})"
        raise_problem(message, "write target: COLUMN", path=place)
    if len(set(names)) < len(names):
        raise_problem(f"names a column twice (got {shown(value)})", "name each once", path=place)
    return names[0] if len(names) == 1 else tuple(names)


_TARGET_NAME: dict[str, Any] = {
    "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]
}
_TARGET = Checked(
    _check_target,
    lambda: {
        "anyOf": [
            *_TARGET_NAME["anyOf"],
            {"type": "object", "additionalProperties": _TARGET_NAME, "minProperties": 1},
            {"type": "null"},
        ]
    },
)

_PATTERN = Checked(_check_pattern, lambda: {"type": ["string", "null"], "format": "regex"})


def _as_text(value: Any) -> str:
    """A label as text, as classes are named everywhere: 3 is the class '3'."""
    return str(value)


def _check_labels(value: Any) -> Any:
    if value is None:
        return None
    if not isinstance(value, dict) or not value:
        raise_problem(f"must be a map of labels (got {shown(value)})", "write labels: {found: taken_as}")
    return {_as_text(key): _as_text(item) for key, item in value.items()}


def _check_classes(value: Any) -> Any:
    if value is None:
        return None
    if not isinstance(value, list | tuple) or len(value) < 2 or len(set(map(_as_text, value))) != len(value):
        raise_problem(
            f"must be a list of two labels or more, each once (got {shown(value)})", "write classes: [cat, dog]"
        )
    return tuple(_as_text(item) for item in value)


class WindowSpec(Section):
    """Samples of several rows, for forecasting: what the model sees of a series, and what comes after it."""

    length: Annotated[int, Field(gt=0, le=1_000_000)]
    """Rows of a sample: all columns of numbers, the past of the target too."""
    horizon: Annotated[int, Field(gt=0, le=1_000_000)] = 1
    """Rows after them, whose values of the target are to be forecast."""
    stride: Annotated[int, Field(gt=0)] = 1
    """Rows from the beginning of a sample to that of the next."""


class SourceSpec(Section):
    """Where the samples come from: a named data set, a file, a folder, or a function of yours."""

    model_config = ConfigDict(
        json_schema_extra={"anyOf": [{"required": ["dataset"]}, {"required": ["path"]}, {"required": ["python"]}]}
    )

    dataset: Annotated[
        str | None,
        Checked(
            _check_dataset,
            lambda: {"anyOf": [{"enum": [*EMBEDDED, *KERAS_DATASETS, None]}, {"pattern": f"^{_TFDS_NAME.pattern}$"}]},
        ),
    ] = None
    """`digits` (in the package), `shapes` (images with masks, drawn when they are asked for), a name of keras.datasets,
    or tfds:NAME (both downloaded on first use)."""
    data_dir: Annotated[str | None, Checked(_check_path, lambda: {"type": ["string", "null"]})] = None
    """Where tensorflow_datasets keeps its data sets; TFDS_DATA_DIR, or ~/tensorflow_datasets, when left out."""
    path: Annotated[str | None, Checked(_check_path, lambda: {"type": ["string", "null"]})] = None
    """A file (.npz, .csv, .tsv, .parquet, .tfrecord), a folder of images, audio, text or .tfrecord files, or a .zip of
    the first three, or what Hugging Face's `save_to_disk` wrote; relative to the spec; beats `dataset`."""
    kind: Literal["npz", "images", "audio", "text", "table", "tfrecord", "huggingface"] | None = None
    """What `path` holds; inferred when left out."""
    validation_path: Annotated[str | None, Checked(_check_path, lambda: {"type": ["string", "null"]})] = None
    """Validation samples, of the kind of `path`."""
    test_path: Annotated[str | None, Checked(_check_path, lambda: {"type": ["string", "null"]})] = None
    """Test samples, of the kind of `path`."""
    masks: Annotated[str | None, Checked(_check_path, lambda: {"type": ["string", "null"]})] = None
    """A folder, or a .zip, with a mask for every image of `path`, of the same name in the same subfolder, whatever its
    ending: of one channel or a palette, each pixel the number of its class. Resized as its image, but to the nearest
    pixel; `resize: pad` pads with class 0."""
    target: Annotated[Columns | dict[str, Columns] | None, _TARGET] = None
    """The column of a table, the array of an .npz, or the feature of a TFRecord, that holds the labels or values (.npz:
    `y` when left out); a list of columns of a table for several values or labels a sample; for several outputs
    (train.outputs) a map from output to one of these."""
    weight: str | None = None
    """The column, the array of an .npz, or the feature, that holds a weight for every sample."""
    features: dict[str, FeatureSpec] | None = None
    """What every record of a TFRecord holds, by name: `{x: {dtype: float32, shape: [4]}, photo: {decode: image}}`.
    Those that are neither target, weight nor group are inputs, unless data.inputs says which."""
    columns: dict[str, Literal["number", "category", "text", "ignore"]] | None = None
    """Kinds of columns of a table, or of a data set of Hugging Face, where the inferred one is not right."""
    separator: Annotated[str, Field(min_length=1, max_length=1)] | None = None
    """Between the fields of a table; found when left out."""
    window: WindowSpec | None = None
    """Takes windows over the rows of a table as samples, to forecast a column of numbers."""
    time: str | None = None
    """The column that the rows of windows are sorted by (numbers, or dates as in ISO 8601), within their group; the
    order of the file when left out. Steps of more than 1.5 times the usual one are gaps, which no window crosses."""
    missing: Annotated[tuple[str, ...], Strict(False)] = ("", "NA", "N/A", "NaN", "nan", "null", "NULL", "None")
    """Markers of missing values in a table."""
    image_size: (
        Annotated[tuple[Annotated[int, Field(gt=0, le=8192)], Annotated[int, Field(gt=0, le=8192)]], Strict(False)]
        | None
    ) = None
    """Height and width that every image is brought to; needed where the files differ."""
    resize: Literal["stretch", "crop", "pad"] = "stretch"
    """How an image of another shape is brought to image_size: stretched, cut off, or padded with black."""
    color: Literal["rgb", "gray"] | None = None
    """Channels of images; rgb when left out, gray where every file is gray."""
    sample_rate: Annotated[int, Field(ge=1000, le=192_000)] | None = None
    """Samples per second that audio is brought to; that of the files when left out and all have the same."""
    seconds: Annotated[float, Field(gt=0, le=3600)] | None = None
    """Length of an audio sample: longer ones are cut, shorter ones padded with silence at the end."""
    label: Annotated[str | None, _PATTERN] = None
    """Pattern whose first group is the label in a file's name; its folder when left out."""
    group: Annotated[str | None, _PATTERN] = None
    """Pattern whose first group is the group in a file's name, or the column of a table, or a feature; a group is never
    torn apart by a split. Of windows each group is a series of its own, and `split.by: order` takes the end of each."""
    labels: Annotated[
        dict[str, str] | None,
        Checked(_check_labels, lambda: {"type": ["object", "null"]}),
    ] = None
    """A map of labels to the names they are taken as."""
    classes: Annotated[
        tuple[str, ...] | None,
        Checked(_check_classes, lambda: {"type": ["array", "null"], "minItems": 2}),
    ] = None
    """Labels to keep, in the order of the outputs; all, in alphabetical order, when left out. Of masks: what the
    numbers 0, 1, 2 ... of the pixels are called; by their numbers when left out."""
    max_samples: Annotated[int, Field(gt=0)] | None = None
    """At most so many samples, drawn with the seed; a test set that the source brings stays whole."""
    max_per_class: Annotated[int, Field(gt=0)] | None = None
    """At most so many samples of a class, drawn with the seed; a test set that the source brings stays whole."""
    on_error: Literal["fail", "skip"] = "fail"
    """What a file that cannot be read does: fail the command, or be left out and told."""
    max_skipped: Annotated[int, Field(gt=0)] = 10
    """With on_error: skip, more unreadable files than this fail the command."""
    python: Annotated[str | None, Checked(check_reference, lambda: {"type": ["string", "null"]})] = None
    """A function of yours that returns a map of arrays, named as in an .npz: `module:function`, from the spec's own
    folder or an installed package. It is run; beats `path`."""
    arguments: dict[str, Any] | None = None
    """Keywords for `python`."""

    @model_validator(mode="after")
    def _has_a_source(self) -> "SourceSpec":
        if self.dataset is None and self.path is None and self.python is None:
            raise_problem("says no source", "write dataset: digits, or path: FILE", at_key=True)
        if self.arguments and self.python is None:
            raise_problem("are for python, which is not set", "leave them out", path=("arguments",), at_key=True)
        if self.max_skipped != type(self).model_fields["max_skipped"].default and self.on_error != "skip":
            raise_problem("is for on_error: skip", "add on_error: skip", path=("max_skipped",), at_key=True)
        return self

    @model_validator(mode="after")
    def _keys_fit_the_kind(self) -> "SourceSpec":
        raise_problems(self.misfits(self.known_kind), None)
        return self

    @property
    def targets(self) -> dict[str, Columns | None]:
        """What holds the targets, by output; the key of the only one is ""."""
        return dict(self.target) if isinstance(self.target, dict) else {"": self.target}

    def misfits(self, kind: Kind | None) -> Iterable[Problem]:
        """Keys that a kind has not; `kind` is None where it is not known yet, and nothing is told."""
        if self.path is None and self.kind is not None:
            yield Problem(("kind",), True, "needs a path", "write path: FILE or path: FOLDER")
        if self.window is not None:
            yield from self._misfits_of_windows()
        elif self.time is not None:
            yield Problem(("time",), True, "is for windows, and there is no window", "write window: {length: 24}")
        if self.has_masks:
            yield from self._misfits_of_masks()
        if kind is None:
            return
        if kind == "tfrecord":
            yield from self._misfits_of_records()
        yield from self._misfits_of_target(kind)
        if self.path is not None and self.kind is not None:
            by_ending = kind_of_path(self.path)
            if by_ending is not None and by_ending != self.kind:
                yield Problem(
                    ("kind",),
                    False,
                    f"{Path(self.path).name} holds no {self.kind}",
                    f"leave it out, or kind: {by_ending}",
                )
        for key in sorted(self.model_fields_set & (_ALL_KIND_KEYS - _KEYS_OF_KIND[kind])):
            if getattr(self, key) != type(self).model_fields[key].default:
                kinds = ", ".join(name for name, keys in _KEYS_OF_KIND.items() if key in keys)
                yield Problem((key,), True, f"is a key of {kinds}, and the source is {kind}", "leave it out")

    def _misfits_of_target(self, kind: Kind) -> Iterable[Problem]:
        """Several outputs, or several columns for one, where the kind has none."""
        if isinstance(self.target, dict) and kind not in ("npz", "table"):
            message = f"several outputs need a table or an .npz, the source is {kind}"
            yield Problem(("target",), False, message, "name one")
        for name, columns in self.targets.items():
            if isinstance(columns, tuple) and kind != "table":
                place = ("target", name) if name else ("target",)
                yield Problem(place, False, f"a list of columns needs a table, the source is {kind}", "name one array")

    def _misfits_of_windows(self) -> Iterable[Problem]:
        """Keys that windows have not, and the one that they need."""
        if self.target is None:
            yield Problem(("window",), True, "needs the column that is forecast", "write target: COLUMN beside it")
        elif not isinstance(self.target, str):
            yield Problem(("target",), False, "must be one column where there are windows", "name one")
        for key in ("weight", "validation_path", "test_path"):
            if getattr(self, key) is not None:
                yield Problem((key,), True, "is not for windows in this version", "leave it out")
        for key in ("labels", "classes", "max_per_class"):
            if getattr(self, key) is not None:
                yield Problem((key,), True, "is for classes, and a forecast has none", "leave it out")
        names = {"target": self.target, "group": self.group, "time": self.time}
        for key, other in (("group", "target"), ("time", "target"), ("time", "group")):
            if names[key] is not None and names[key] == names[other]:
                yield Problem((key,), False, f"{names[key]!r} is {other} too", "name another column")

    def _misfits_of_masks(self) -> Iterable[Problem]:
        """Keys that say what the class of a whole image is, where every pixel has one."""
        for key in ("label", "labels", "max_per_class"):
            if getattr(self, key) is not None:
                yield Problem((key,), True, "is for a label an image, and masks have one a pixel", "leave it out")
        for key in ("validation_path", "test_path"):
            if getattr(self, key) is not None:
                hint = "put the images into folders train, validation and test below path, and the masks alike"
                yield Problem((key,), True, "has no masks of its own in this version", hint)

    def _misfits_of_records(self) -> Iterable[Problem]:
        features = self.features or {}
        target = self.target if isinstance(self.target, str) else None
        used = {"target": target, "weight": self.weight, "group": self.group}
        found = misfit_of_features(features, used)
        if found is not None:
            yield Problem((found[0],), True, *found[1:])
        elif not any(feature.is_image for feature in features.values()):
            for key in ("image_size", "color", "resize", "on_error", "max_skipped"):
                if getattr(self, key) != type(self).model_fields[key].default:
                    yield Problem((key,), True, "is for images, and no feature is decoded to one", "leave it out")

    @property
    def has_masks(self) -> bool:
        """Whether the spec says that the targets are masks; those of an .npz or of a function show when it is read."""
        if self.masks is not None:
            return True
        return self.path is None and self.python is None and self.dataset in WITH_MASKS

    @property
    def known_kind(self) -> Kind | None:
        """The kind, as far as the spec alone tells; a data set by name is arrays."""
        if self.path is None and self.python is None and str(self.dataset).startswith(TFDS):
            return "tfds"
        if self.path is None or self.python is not None:
            return "npz"
        return self.kind or kind_of_path(self.path)

    @property
    def brings_test(self) -> bool | None:
        """Whether the source has a test set of its own; None where only the file can tell."""
        if self.test_path is not None:
            return True
        if self.path is not None or self.python is not None or self.known_kind == "tfds":
            return None
        return self.dataset in BRING_THEIR_OWN_TEST


class InputSpec(Section):
    """One input of the model."""

    array: str | None = None
    """Its array in the .npz: NAME, or NAME_train and NAME_test; or its feature of a TFRecord."""
    column: str | None = None
    """Its column in a table, or in a data set of Hugging Face."""


class SplitSpec(Section):
    """How samples are shared out between training, validation and test."""

    by: Literal["random", "order", "file", "folder", "column"] = "random"
    """What decides; `random` is stratified by label and seeded, and keeps equal samples and groups together; `order`
    takes the last ones, of windows the last rows of every series, and leaves windows across a boundary out; `file`
    takes validation_path and test_path; `folder` the folders train, validation and test; `column` a column of a table
    with these words. What the source does not bring is drawn at random."""
    validation: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Share of what is left after the test set, in (0, 1)."""
    test: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Share of all samples, in (0, 1); 0.2 when left out, unless the source brings a test set of its own."""
    column: str | None = None
    """The column that decides, with `by: column`."""
    duplicates: Literal["drop", "error", "keep"] = "drop"
    """Copies of test and validation samples in training: dropped and counted, an error (exit 4), or kept and said."""


def _check_augment(value: Any) -> tuple[KerasObject, ...]:
    layers, problems = parse_objects(value, "layer", own=False)
    raise_problems(problems, value)
    raise_problems(misfits_of_augment(layers), value)
    return tuple(layers)


_AUGMENT_NAME = {"pattern": f"^(Random.*|{'|'.join((*AUGMENTATIONS, *KERAS_AUGMENTATIONS, *MIXERS))})$"}
_AUGMENTATION = {
    **reference("layer"),
    "anyOf": [{"type": "string", **_AUGMENT_NAME}, {"type": "object", "propertyNames": _AUGMENT_NAME}],
}


class DataSpec(Section):
    """Where samples come from, how they are shared out, and what training does to them."""

    source: SourceSpec
    """Where the samples come from."""
    inputs: Annotated[dict[str, InputSpec], Field(min_length=1)] | None = None
    """The model's inputs by name; inferred when left out: `image`, `audio`, `text`, `x`, or one a column."""
    split: SplitSpec = SplitSpec()
    """How samples are shared out."""
    batch_size: Annotated[int, Field(gt=0)] = 64
    """Samples of a training step over all replicas (global)."""
    augment: Annotated[
        tuple[KerasObject, ...], Checked(_check_augment, lambda: {"type": "array", "items": _AUGMENTATION})
    ] = ()
    """Keras' random layers, RandomNoise, RandomShift, SpecAugment, then MixUp and CutMix, of which every batch takes
    one; on training data only, repeatable per (seed, epoch, sample). Of mixed classes both targets count in the loss,
    by their shares; training metrics see the one with the greater share, and validation is never mixed."""
    cache: Literal["auto", "memory", "disk", "none"] = "auto"
    """Where decoded files and rows of tables are kept: in memory, in a temporary file, or (files) nowhere; `auto` takes
    memory where they fit, and for tables up to 256 MB."""

    @model_validator(mode="after")
    def _split_fits_source(self) -> "DataSpec":
        if self.split.test is not None and self.source.brings_test:
            what = f"the data set {self.source.dataset!r}" if self.source.path is None else "test_path"
            raise_problem(
                f"{what} brings its own test set",
                "leave split.test out",
                path=("split", "test"),
            )
        return self

    @model_validator(mode="after")
    def _split_has_what_decides(self) -> "DataSpec":
        split, source = self.split, self.source
        if (split.by == "column") != (split.column is not None):
            raise_problem("by: column and column: NAME go together", "write both", path=("split", "by"))
        if split.by == "column" and source.known_kind not in (None, "table"):
            raise_problem("needs a table", "take another way to split", path=("split", "by"))
        if split.by == "folder" and source.known_kind not in (None, *FOLDER_KINDS):
            raise_problem("needs a folder", "take another way to split", path=("split", "by"))
        if split.by == "file" and source.test_path is None and source.validation_path is None:
            raise_problem("needs data.source.test_path", "name the file", path=("split", "by"))
        return self

    @model_validator(mode="after")
    def _windows_are_split_in_time(self) -> "DataSpec":
        if self.source.window is None:
            return self
        by, group = self.split.by, self.source.group
        if by == "random" and group is None:
            raise_problem(
                "windows share rows: drawn at random, those of the test set would stand in training",
                "write split: {by: order}, which takes the last rows; or data.source.group, of several series",
                path=("split", "by"),
            )
        if by not in ("random", "order"):
            hint = "write split: {by: order}, or with data.source.group by: random"
            raise_problem(f"{by} is not for windows in this version", hint, path=("split", "by"))
        if self.inputs is not None:
            hint = "leave it out; data.source.columns: {NAME: ignore} leaves a column out"
            raise_problem("windows have one input, series", hint, path=("inputs",), at_key=True)
        return self

    @model_validator(mode="after")
    def _augment_moves_masks(self) -> "DataSpec":
        if self.source.has_masks:
            raise_problems(
                (
                    Problem(("augment", *found.path), found.at_key, found.message, found.hint)
                    for found in misfits_with_masks(self.augment)
                ),
                None,
            )
        return self

    @model_validator(mode="after")
    def _inputs_have_names(self) -> "DataSpec":
        hint = "use letters, digits and _, and a letter first"  # what TensorFlow keeps in a signature as it is
        wrong = [name for name in self.inputs or {} if not _INPUT_NAME.fullmatch(name) or keyword.iskeyword(name)]
        raise_problems(
            (Problem(("inputs", name), True, f"{name!r} cannot be the name of an input", hint) for name in wrong), None
        )
        return self

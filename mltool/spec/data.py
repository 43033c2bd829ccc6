"""The `data` section: where samples come from, how they are shared out, and what training does to them."""

import difflib
import keyword
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator

from mltool.spec.argument_check import shown
from mltool.spec.catalogue import UNREADABLE, KerasObject, Problem
from mltool.spec.keras_object import parse_objects, reference
from mltool.spec.section import Checked, Later, Section, raise_problem, raise_problems

EMBEDDED = ("digits",)
"""Data sets that lie in the package."""

KERAS_DATASETS = ("mnist", "fashion_mnist", "cifar10", "cifar100", "boston_housing", "california_housing")
"""Names of `keras.datasets` that give arrays; they are downloaded on first use."""

BRING_THEIR_OWN_TEST = KERAS_DATASETS

_INPUT_NAME = re.compile("[A-Za-z][A-Za-z0-9_]*")


def _check_dataset(value: Any) -> Any:
    known = (*EMBEDDED, *KERAS_DATASETS)
    if isinstance(value, str) and (value in ("imdb", "reuters") or value.startswith(("tfds:", "hf:"))):
        raise_problem(f"not in this version (got {shown(value)})", f"known: {', '.join(known)}; or path: FILE.npz")
    if value is not None and value not in known:
        close = difflib.get_close_matches(str(value), known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}; or path: FILE.npz"
        raise_problem(f"unknown data set {shown(value)}", hint)
    return value


def _check_path(value: Any) -> Any:
    if value is not None and (not isinstance(value, str) or not value.strip()):
        raise_problem(f"must be a path (got {shown(value)})", "write path: FILE.npz")
    if value is not None and not value.lower().endswith(".npz"):
        raise_problem(
            f"only .npz files are in this version (got {shown(Path(value).name)})", "save arrays with numpy.savez"
        )
    return value


class SourceSpec(Section):
    """Where the samples come from: a named data set or a file."""

    model_config = ConfigDict(json_schema_extra={"anyOf": [{"required": ["dataset"]}, {"required": ["path"]}]})

    dataset: Annotated[
        str | None,
        Checked(_check_dataset, lambda: {"enum": [*EMBEDDED, *KERAS_DATASETS, None]}),
    ] = None
    """`digits` (in the package) or a name of keras.datasets (downloaded on first use)."""
    path: Annotated[
        str | None, Checked(_check_path, lambda: {"type": ["string", "null"], "pattern": r"\.[nN][pP][zZ]$"})
    ] = None
    """An .npz file, relative to the spec; beats `dataset`."""
    kind: Literal["npz"] | None = None
    """What `path` holds; inferred from its ending when left out."""
    target: str | None = None
    """The array of labels in an .npz; `y` (or `y_train` and `y_test`) when left out."""
    python: Annotated[Any, Later()] = None
    """A function of yours that yields samples."""
    arguments: Annotated[Any, Later()] = None
    """Keywords for `python`."""
    validation_path: Annotated[Any, Later()] = None
    """A file of validation samples."""
    test_path: Annotated[Any, Later()] = None
    """A file of test samples."""
    missing: Annotated[Any, Later()] = None
    """Markers of missing values in a table."""
    labels: Annotated[Any, Later()] = None
    """A map of labels to the names they are taken as."""
    sample_rate: Annotated[Any, Later()] = None
    """Samples per second of audio."""
    seconds: Annotated[Any, Later()] = None
    """Length of an audio sample."""
    label: Annotated[Any, Later()] = None
    """Pattern that finds the label in a file name."""
    group: Annotated[Any, Later()] = None
    """Pattern that finds the group in a file name; a group is never torn apart by a split."""

    @model_validator(mode="after")
    def _has_a_source(self) -> "SourceSpec":
        if self.dataset is None and self.path is None:
            raise_problem("says no source", "write dataset: digits, or path: FILE.npz", at_key=True)
        return self

    @property
    def brings_test(self) -> bool | None:
        """Whether the source has a test set of its own; None where only the file can tell."""
        return None if self.path is not None else self.dataset in BRING_THEIR_OWN_TEST


class InputSpec(Section):
    """One input of the model."""

    array: str | None = None
    """Its array in the .npz: NAME, or NAME_train and NAME_test."""
    column: Annotated[Any, Later()] = None
    """Its column in a table."""


class SplitSpec(Section):
    """How samples are shared out between training, validation and test."""

    by: Annotated[Literal["random", "order"], Later(values=("file", "folder", "column"))] = "random"
    """What decides; `random` is stratified by label and seeded, and keeps equal samples together; `order` takes the
    last ones."""
    validation: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Share of what is left after the test set, in (0, 1)."""
    test: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Share of all samples, in (0, 1); 0.2 when left out, unless the source brings a test set of its own."""
    column: Annotated[Any, Later()] = None
    """The column that decides, with `by: column`."""
    duplicates: Literal["drop", "error", "keep"] = "drop"
    """Copies of test and validation samples in training: dropped and counted, an error (exit 4), or kept and said."""


def _check_augment(value: Any) -> tuple[KerasObject, ...]:
    layers, problems = parse_objects(value, "layer")
    raise_problems(problems, value)
    wrong = [index for index, layer in enumerate(layers) if layer != UNREADABLE and not layer.name.startswith("Random")]
    hint = "use Keras' Random... layers"
    raise_problems((Problem((i,), False, f"{layers[i].name!r} is not an augmentation", hint) for i in wrong), value)
    return tuple(layers)


_RANDOM = {"pattern": "^Random"}
_AUGMENTATION = {
    **reference("layer"),
    "anyOf": [{"type": "string", **_RANDOM}, {"type": "object", "propertyNames": _RANDOM}],
}


class DataSpec(Section):
    """Where samples come from, how they are shared out, and what training does to them."""

    source: SourceSpec
    """Where the samples come from."""
    inputs: Annotated[dict[str, InputSpec], Field(min_length=1)] | None = None
    """The model's inputs by name; inferred (`image` for three axes or two, else `x`) when left out."""
    split: SplitSpec = SplitSpec()
    """How samples are shared out."""
    batch_size: Annotated[int, Field(gt=0)] = 64
    """Samples of a training step over all replicas (global)."""
    augment: Annotated[
        tuple[KerasObject, ...], Checked(_check_augment, lambda: {"type": "array", "items": _AUGMENTATION})
    ] = ()
    """Keras' random layers, on training data only, repeatable per (seed, epoch, sample)."""
    cache: Annotated[Literal["auto"], Later("auto")] = "auto"
    """Where decoded samples are kept."""

    @model_validator(mode="after")
    def _split_fits_source(self) -> "DataSpec":
        if self.split.test is not None and self.source.brings_test:
            raise_problem(
                f"the data set {self.source.dataset!r} brings its own test set",
                "leave split.test out",
                path=("split", "test"),
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

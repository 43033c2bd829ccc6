"""`mltool init`: a spec to start from, for data that are there, of a template, or the first one."""

import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mltool.assets import asset_folder
from mltool.data.order import steps_per_epoch
from mltool.data.source import Source, batches_of, label_of
from mltool.data.sources.files import printable
from mltool.data.tables.columns import doubt_about
from mltool.errors import DataError, UsageError
from mltool.pipeline.starting_model import Layer, StartingModel, starting_model
from mltool.pipeline.starting_source import StartingSource, look
from mltool.runs.atomic import writing
from mltool.spec.load import flow_yaml, load_spec

logger = logging.getLogger("mltool")

FEWEST_SAMPLES = 20
"""Samples from which on there are some to train, some to choose and some to test on."""

STARTER = "starter"
"""The template that is taken where none is named."""


def templates() -> dict[str, Path]:
    """Names of the specs that `init --template` takes: the starter, and every shipped spec."""
    files = [*(asset_folder("templates")).glob("*.yaml"), *(asset_folder("configs")).glob("*.yaml")]
    return {file.stem: file for file in sorted(files)}


def write_template(file: Path, name: str, template: str) -> None:
    """Writes a template with another name.

    Args:
        file: to write.
        name: of the model.
        template: one of `templates()`.

    Raises:
        UsageError: if there is no such template, or a file of the name of its code is there.
    """
    known = templates()
    if template not in known:
        raise UsageError(f"there is no template {template!r}", f"there are: {', '.join(known)}")
    text = known[template].read_text(encoding="utf-8")
    # In quotes where it must be: a file may be called 2024.yaml or null.yaml.
    named = re.sub(r"^name: \S+", lambda _: f"name: {flow_yaml(name)}", text, count=1, flags=re.MULTILINE)
    _copy_code(known[template].with_suffix(".py"), file.parent)
    with writing(file) as temporary:
        temporary.write_text(named, encoding="utf-8")


def _copy_code(code: Path, folder: Path) -> None:
    """Puts the code that a template names beside the spec, under its own name.

    Raises:
        UsageError: if another file has that name.
    """
    copy = folder / code.name
    if not code.is_file() or (copy.is_file() and copy.read_bytes() == code.read_bytes()):
        return
    if copy.exists():
        raise UsageError(f"{copy} is there already; init overwrites nothing", "write the spec into another folder")
    with writing(copy) as temporary:
        temporary.write_bytes(code.read_bytes())


@dataclass(frozen=True)
class Started:
    """A spec that was written for data.

    Attributes:
        kind: of the data.
        samples: in all.
        classes: names of the classes; empty for a regression.
    """

    kind: str
    samples: int
    classes: tuple[str, ...]


def write_spec_for(data: Path, file: Path, *, name: str, target: str | None = None) -> Started:
    """Looks at data, and writes a spec that trains on them without an edit.

    Args:
        data: a folder, a .zip, a table or an .npz.
        file: to write.
        name: of the model.
        target: the column or array with the labels or values; found when None.

    Raises:
        DataError: if the data are missing, damaged, of no known kind, too few, or have no labels.
    """
    found = look(data, target, file.parent)
    if found.source.num_samples < FEWEST_SAMPLES:
        message = f"{data} has {found.source.num_samples} samples: too few to train, to choose and to test on"
        raise DataError(message, f"{FEWEST_SAMPLES} are the fewest, hundreds a beginning")
    _tell_doubts(found.source)
    classes = () if found.is_regression else _classes(found)
    with writing(file) as temporary:
        temporary.write_text("\n".join(_lines(found, classes, data, file, name)) + "\n", encoding="utf-8")
        load_spec(temporary)  # what is wrong with it is a flaw of ours: nothing is left behind
    return Started(found.kind, found.source.num_samples, classes)


def _tell_doubts(source: Source) -> None:
    """Remarks on columns of words that were rather meant as numbers."""
    for name, kind in source.kinds.items():
        values = source.inputs[name]
        if kind == "category" and values.dtype.kind == "U":
            found: set[str] = set()
            for batch in batches_of(values):
                found.update(batch.reshape(-1).tolist())
            doubt = doubt_about(source.originals.get(name, name), found)
            if doubt:
                logger.warning("%s; %s", *doubt)


def _classes(found: StartingSource) -> tuple[str, ...]:
    targets = found.source.targets
    if targets.ndim == 2 and targets.shape[1] > 1:
        return tuple(str(number) for number in range(targets.shape[1]))
    names = np.unique(targets)
    if len(names) < 2:
        raise DataError(
            f"{found.source.origin}: all samples are of one class, {label_of(names[0])!r}", "there is nothing to learn"
        )
    return tuple(label_of(value) for value in names)


def _lines(found: StartingSource, classes: tuple[str, ...], data: Path, file: Path, name: str) -> Iterator[str]:
    source = found.source
    binary = len(classes) == 2 and not found.has_several_labels
    values = int(np.prod(source.targets.shape[1:], dtype=int))
    units = values if found.is_regression else 1 if binary else len(classes)
    model = starting_model(source, units)
    rest = source.num_samples - len(source.given.get("test", ()))
    train = round(rest * (0.9 if "test" in source.given else 0.72))  # as `_split_lines` shares them out
    batch_size = 16 if train < 400 else 64 if train < 10_000 else 128
    yield "# yaml-language-server: $schema=mltool.schema.json"
    # Names of files and columns may hold line ends.
    answers = printable(_answers(found, classes))
    yield f"# For {printable(data.name)}: {source.num_samples:,} samples, {answers}. By mltool init."
    yield f"#   mltool check {printable(file.name)} --data       counts, ranges, leaks, drift, damage"
    yield f"#   mltool run {printable(file.name)}                train, evaluate, export, convert to .tflite, verify"
    yield "version: 1"
    yield f"name: {flow_yaml(name)}"
    yield "seed: 42                               # of splits, weights, order, dropout and augmentation"
    yield "data:"
    yield from _source_lines(found)
    yield from _split_lines(found)
    yield f"  batch_size: {batch_size}"
    yield from _augment_lines(model, found)
    yield "model:"
    yield from _model_lines(model, found)
    yield from _train_lines(model, train, batch_size, found, binary=binary)
    yield "convert:"
    yield "  - {quantize: int8}                   # weights and activations in 8 bits; others: dynamic, float16, none"
    metric, drop = ("root_mean_squared_error", "5%") if found.is_regression else ("accuracy", "2%")
    yield f"limits: {{metric: {metric}, max_drop: {drop}}}   # of every .tflite; breaking it is exit code 8"


def _answers(found: StartingSource, classes: tuple[str, ...]) -> str:
    if found.is_regression:
        return f"the values of {found.source.target_name!r}"
    what = "labels, of which a sample may have several" if found.has_several_labels else "classes"
    shown = ", ".join(classes[:6]) + (", ..." if len(classes) > 6 else "")
    return f"{len(classes)} {what} ({' '.join(shown.split())[:80]})"


def _source_lines(found: StartingSource) -> Iterator[str]:
    columns = found.keys.get("columns")
    yield "  source:"
    for key, value in found.keys.items():
        if key != "columns":
            yield f"    {key}: {flow_yaml(value)}"
    if columns:
        yield "    columns:                           # as found; number, category, text, or ignore"
        yield from (f"      {flow_yaml(column)}: {kind}" for column, kind in columns.items())
    if found.kind in ("images", "audio", "text") and "label" not in found.keys:
        yield r"    # label: '^([^_]+)_'               # the label from a file's name, where it is not the folder"
    if found.kind in ("images", "audio", "text"):
        yield r"    # group: '_([^_]+)_'               # a speaker, a patient ... that no split may tear apart"
    if found.inputs:
        yield f"  inputs: {flow_yaml(found.inputs)}"


def _split_lines(found: StartingSource) -> Iterator[str]:
    if "test" in found.source.given:
        yield "  split: {by: random, validation: 0.1} # the data bring a test set of their own"
    else:
        yield "  split: {by: random, validation: 0.1, test: 0.2}"


def _augment_lines(model: StartingModel, found: StartingSource) -> Iterator[str]:
    if model.augment:
        yield "  augment:                             # on training data only"
        yield from (f"    - {_layer(layer)}" for layer in model.augment)
    elif found.kind == "images":
        yield "  # augment:                           # Keras' random layers, on training data only"
        yield "  #   - RandomFlip: {mode: horizontal} # where left and right mean the same"


def _model_lines(model: StartingModel, found: StartingSource) -> Iterator[str]:
    yield _remarked("  preprocess:", "part of the model, so it is inside every file that comes out")
    if any(array.dtype.kind == "U" for array in found.source.inputs.values()):
        yield _remarked("", "(but for words, which LiteRT does not take: a .tflite has the vocabulary beside it)")
    if len(model.preprocess) == 1 and len(found.source.inputs) == 1:
        ((_, layers),) = model.preprocess.items()
        yield from (f"    - {_layer(layer)}" for layer in layers)
    else:
        yield from (f"    {key}: {flow_yaml(layers)}" for key, layers in model.preprocess.items())
    yield "  layers:"
    yield from (f"    - {_layer(layer)}" for layer in model.layers)


def _remarked(line: str, remark: str) -> str:
    """A line with its remark, which begins where the others do."""
    return f"{line:<38} # {remark}" if remark else line


def _layer(layer: Layer) -> str:
    if isinstance(layer, str):
        return layer
    ((name, arguments),) = layer.items()
    return f"{name}: {flow_yaml(arguments)}"


def _train_lines(
    model: StartingModel, train: int, batch_size: int, found: StartingSource, *, binary: bool
) -> Iterator[str]:
    epochs = int(np.clip(round(model.steps / steps_per_epoch(train, batch_size)), 10, 300))
    yield "train:"
    few = train * 0.1 < 50
    yield _remarked(f"  epochs: {epochs}", "" if few else "at most: ends where validation gets no better")
    schedule = {"Cosine": {"learning_rate": model.learning_rate}}
    yield _remarked(f"  optimizer: {flow_yaml({'Adam': {'learning_rate': schedule}})}", "falls to 0 over all epochs")
    if found.is_regression:
        yield "  loss: MeanSquaredError               # of scaled targets; answers are in the targets' units"
        yield "  metrics: [RootMeanSquaredError, MeanAbsoluteError]"
    elif binary or found.has_several_labels:
        yield "  loss: {BinaryCrossentropy: {from_logits: true}}"
        yield f"  metrics: [accuracy, {'AUC' if binary else '{AUC: {multi_label: true}}'}]"
    else:
        yield "  loss: {SparseCategoricalCrossentropy: {from_logits: true}}"
        yield "  metrics: [accuracy]"
    if few:
        yield "  keep: last                           # too few validation samples to tell the best epoch"
    else:
        yield "  callbacks:"
        patience = max(5, epochs // 4)
        yield f"    - EarlyStopping: {{patience: {patience}, restore_best_weights: true}}"

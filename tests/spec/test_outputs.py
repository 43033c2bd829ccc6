"""Outputs, their targets and anomalies: every mistake with its place and words, before anything is read or built."""

import copy
from typing import Any

import numpy as np
import pytest
import yaml

from mltool.data.dataset import open_dataset
from mltool.errors import MltoolError, SpecError
from mltool.runs.run import Run
from mltool.spec.load import load_spec
from mltool.spec.outputs import DEFAULT_METRICS, measures_of_task
from mltool.spec.task import ANOMALY_METRICS
from mltool.training.train import train

LOGITS = {"SparseCategoricalCrossentropy": {"from_logits": True}}
SIDED = {"BinaryCrossentropy": {"from_logits": True}}
TREES = "a,b,kind,height,girth,wet,sunny,sick\n" + "".join(
    f"{n % 7}.5,{n % 5}.25,{('ash', 'elm', 'oak')[n % 3]},{100 + n},{n / 4},{n % 2},{int(n % 4 == 0)},"
    f"{'yes' if n % 6 == 0 else 'no'}\n"
    for n in range(48)
)


def of_trees(target: Any, layers: list[Any], train: dict[str, Any], used: str) -> dict[str, Any]:
    ignored = [name for name in ("kind", "height", "girth", "wet", "sunny", "sick") if name not in used.split()]
    return {
        "name": "trees",
        "data": {"source": {"path": "trees.csv", "target": target, "columns": dict.fromkeys(ignored, "ignore")}},
        "model": {"preprocess": "auto", "layers": layers},
        "train": {"epochs": 1, **train},
    }


TWO = of_trees(
    {"kind": "kind", "size": ["height", "girth"]},
    [
        {"Dense": {"units": 4, "name": "trunk"}},
        {"Dense": {"units": 3, "name": "kind", "inputs": ["trunk"]}},
        {"Dense": {"units": 2, "name": "size", "inputs": ["trunk"]}},
    ],
    {"outputs": {"kind": {"loss": LOGITS, "metrics": ["accuracy"]}, "size": {"loss": "MeanSquaredError"}}},
    "kind height girth",
)
ODD = of_trees(
    "sick",
    [{"Dense": {"units": 1}}, {"Dense": {"units": 2, "name": "back"}}],
    {"loss": "MeanSquaredError", "anomaly": {"normal": "no"}},
    "sick",
)
LABELS = of_trees(["wet", "sunny"], [{"Dense": {"units": 2, "name": "says"}}], {"loss": SIDED}, "wet sunny")


def changed(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """With values replaced by dotted path; ... takes a key out."""
    found = copy.deepcopy(base)
    for key, value in changes.items():
        *above, last = key.split(".")
        node: Any = found
        for part in above:
            node = node[int(part)] if isinstance(node, list) else node.setdefault(part, {})
        if value is ...:
            del node[last]
        else:
            node[int(last) if isinstance(node, list) else last] = value
    return found


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes a spec beside its table."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "trees.csv").write_text(TREES, encoding="utf-8")
    (tmp_path / "nets.py").write_text("def build():\n    pass\n", encoding="utf-8")

    def written(base, changes):
        file = tmp_path / "s.yaml"
        file.write_text(yaml.safe_dump(changed(base, changes), sort_keys=False), encoding="utf-8")
        return file

    return written


def places_of(text: str, key: str) -> set[tuple[int, int]]:
    """Line and column of a dotted key and of its value, as PyYAML has them; of what is missing, those above it."""
    node: Any = yaml.compose(text)
    marks = [node.start_mark]
    for part in key.split("."):
        pairs = node.value if isinstance(node, yaml.MappingNode) else ()
        if isinstance(node, yaml.SequenceNode):
            found = [(item, item) for item in node.value[int(part) : int(part) + 1]]
        else:
            found = [(name, value) for name, value in pairs if name.value == part]
        if not found:
            break
        marks, node = [end.start_mark for end in found[0]], found[0][1]
    return {(mark.line + 1, mark.column + 1) for mark in marks}


@pytest.mark.parametrize("base", [TWO, ODD, LABELS], ids=["several outputs", "anomalies", "labels"])
def test_what_these_tests_spoil_is_right(base, write):
    assert load_spec(write(base, {})).train.epochs == 1


LOST = {"Dense": {"units": 2, "name": "lost", "inputs": ["trunk"]}}
MISTAKES: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "outputs without a map of targets": (
        TWO,
        {"data.source.target": "kind"},
        "data.source.target: must say the targets of every output: kind, size (got 'kind'); "
        "write target: {kind: COLUMN, size: COLUMN}",
    ),
    "a map of targets without outputs": (
        TWO,
        {"train.outputs": ..., "train.loss": LOGITS},
        "data.source.target: is a map from outputs to columns, and train.outputs is not set; "
        "write train.outputs: {kind: {loss: ...}}",
    ),
    "an output that is no layer": (
        TWO,
        {"train.outputs": {"knd": {"loss": LOGITS}, "size": {"loss": "mse"}}},
        "train.outputs.knd: no layer is called 'knd'; did you mean 'kind'?",
    ),
    "an output that is an input": (
        TWO,
        {"train.outputs.a": {"loss": "mse"}},
        "train.outputs.a: no layer is called 'a'; known: trunk, kind, size",
    ),
    "targets of a name that is no output": (
        TWO,
        {"data.source.target": {"kind": "kind", "sise": "height"}},
        "data.source.target.sise: train.outputs has no 'sise'; did you mean 'size'?",
    ),
    "an output without targets": (
        TWO,
        {"data.source.target": {"kind": "kind"}},
        "data.source.target: says no targets for the output 'size'; write target: {kind: COLUMN, size: COLUMN}",
    ),
    "targets of no column": (
        TWO,
        {"data.source.target.size": []},
        "data.source.target.size: must be a name, a list of columns, or a map from outputs to them (got []); "
        "write target: COLUMN",
    ),
    "a column twice": (
        TWO,
        {"data.source.target.size": ["height", "height"]},
        "data.source.target.size: names a column twice (got ['height', 'height']); name each once",
    ),
    "a layer that reaches no output": (
        TWO,
        {"model.layers": [*TWO["model"]["layers"], LOST]},
        "model.layers.3.Dense: nothing uses the output of 'lost'; "
        "name it in the inputs of a later layer, or take it out",
    ),
    "an output that is not asked for": (
        TWO,
        {"train.outputs.size": ..., "data.source.target": {"kind": "kind"}},
        "model.layers.2.Dense: nothing uses the output of 'size'; "
        "name it in the inputs of a later layer, or take it out",
    ),
    "a loss beside outputs": (
        TWO,
        {"train.loss": LOGITS},
        "train.loss: stands under outputs, for every output of its own; take it out here",
    ),
    "metrics beside outputs": (
        TWO,
        {"train.metrics": ["accuracy"]},
        "train.metrics: stands under outputs, for every output of its own; take it out here",
    ),
    "two metrics of one name": (
        TWO,
        {"train.outputs.kind.metrics": ["accuracy", {"F1Score": {"average": "macro", "name": "accuracy"}}]},
        "train.outputs.kind.metrics.1.F1Score.name: the name 'accuracy' is used twice; give it a name: of its own",
    ),
    "a metric called as the loss": (
        TWO,
        {"train.outputs.kind.metrics": [{"F1Score": {"average": "macro", "name": "loss"}}]},
        "train.outputs.kind.metrics.0.F1Score.name: 'loss' is the name of the loss; give it a name: of its own",
    ),
    "two outputs whose results have one name": (
        TWO,
        {
            "model.layers": [*TWO["model"]["layers"], {"Dense": {"units": 1, "name": "kind_of", "inputs": ["trunk"]}}],
            "train.outputs.kind_of": {"loss": "mse", "metrics": [{"mae": {"name": "it"}}]},
            "train.outputs.kind.metrics": [{"F1Score": {"average": "macro", "name": "of_it"}}],
            "data.source.target.kind_of": "height",
        },
        "train.outputs.kind_of.metrics.0.MeanAbsoluteError: two results are called 'kind_of_it'; "
        "give the metric a name: of its own",
    ),
    "a loss that is missing": (TWO, {"train.outputs.kind.loss": ...}, "train.outputs.kind.loss: is missing"),
    "no loss at all": (
        LABELS,
        {"train.loss": ...},
        "train.loss: is missing; add loss: {SparseCategoricalCrossentropy: {from_logits: true}}, "
        "or outputs: {LAYER: {loss: ...}}",
    ),
    "a key that is none": (
        TWO,
        {"train.outputs.kind.wieght": 2},
        "train.outputs.kind.wieght: unknown key; did you mean 'weight'?",
    ),
    "a weight of nothing": (
        TWO,
        {"train.outputs.kind.weight": 0},
        "train.outputs.kind.weight: must be greater than 0 (got 0)",
    ),
    "no outputs": (TWO, {"train.outputs": {}}, "train.outputs: must not be empty"),
    "outputs as a list": (TWO, {"train.outputs": ["kind"]}, "train.outputs: must be a map (got ['kind'])"),
    "a loss of a later version": (
        TWO,
        {"train.outputs.kind.loss": "Dice"},
        "train.outputs.kind.loss: 'Dice' is not in this version; "
        "take a crossentropy for classes, MeanSquaredError for values",
    ),
    "a loss that is misspelled": (
        TWO,
        {"train.outputs.size.loss": "MeanSqaredError"},
        "train.outputs.size.loss: unknown loss 'MeanSqaredError'; did you mean 'MeanSquaredError'?",
    ),
    "an accuracy of values": (
        TWO,
        {"train.outputs.size.metrics": ["accuracy"]},
        "train.outputs.size.metrics.0: accuracy counts the values that are right to the last bit; "
        "take MeanAbsoluteError",
    ),
    "softmax twice": (
        TWO,
        {"model.layers.1.Dense.activation": "softmax"},
        "train.outputs.kind.loss.SparseCategoricalCrossentropy.from_logits: the layer 'kind' ends in softmax, and "
        "from_logits: true applies it again; take softmax out of the model, or write from_logits: false",
    ),
    "logits where probabilities are expected": (
        TWO,
        {"train.outputs.kind.loss": "SparseCategoricalCrossentropy"},
        "train.outputs.kind.loss.SparseCategoricalCrossentropy.from_logits: the layer 'kind' has no activation, so it "
        "gives logits; the loss expects probabilities; write SparseCategoricalCrossentropy: {from_logits: true}",
    ),
    "MixUp for several outputs": (
        TWO,
        {"data.augment": ["MixUp"]},
        "data.augment.0: MixUp does not mix for several outputs; leave it out",
    ),
    "class weights for several outputs": (
        TWO,
        {"train.class_weights": "balanced"},
        "train.class_weights: are for one output; leave it out",
    ),
    "a limit of a metric without its output": (
        TWO,
        {"limits": {"metric": "accuracy"}},
        "limits.metric: train.metrics has no 'accuracy'; did you mean 'kind_accuracy'?",
    ),
    "a monitor without its output": (
        TWO,
        {"train.callbacks": [{"EarlyStopping": {"monitor": "val_accuracy"}}]},
        "train.callbacks.0.EarlyStopping.monitor: nothing is called 'val_accuracy'; did you mean 'val_kind_accuracy'?",
    ),
    "several outputs of a function": (
        TWO,
        {"model": {"preprocess": "auto", "python": "nets:build"}},
        "train.outputs: a model of a function has one output in this version; take train.loss and train.metrics",
    ),
    "several outputs of windows": (
        TWO,
        {"data.source.window": {"length": 4}, "data.split": {"by": "order"}},
        "data.source.target: must be one column where there are windows; name one",
    ),
    "outputs of a forecast": (
        TWO,
        {
            "data.source.target": "height",
            "data.source.window": {"length": 4},
            "data.split": {"by": "order"},
        },
        "train.outputs: windows forecast one column, for one output; "
        "take train.loss and train.metrics, and target: COLUMN",
    ),
    "anomalies of windows": (
        ODD,
        {"data.source.window": {"length": 4}, "data.split": {"by": "order"}},
        "train.anomaly: tells samples by their label, and windows have values; "
        "cut the windows yourself: an .npz of series and labels",
    ),
    "anomalies of several outputs": (
        TWO,
        {"train.anomaly": {"normal": "ash"}},
        "train.anomaly: an autoencoder has one output, and there are train.outputs; "
        "take train.loss in their place, or leave anomaly out",
    ),
    "anomalies by a crossentropy": (
        ODD,
        {"train.loss": LOGITS},
        "train.loss: SparseCategoricalCrossentropy is for classes, and an autoencoder gives values back; "
        "take MeanSquaredError",
    ),
    "anomalies without a loss": (ODD, {"train.loss": ...}, "train.loss: is missing; add loss: MeanSquaredError"),
    "a metric that means nothing": (
        ODD,
        {"train.metrics": ["MeanAbsoluteError"]},
        "train.metrics.0: MeanAbsoluteError has no meaning for anomalies; "
        "take one of AUC, accuracy, F1Score, Precision, Recall",
    ),
    "a threshold of its own": (
        ODD,
        {"train.metrics": ["Recall", {"Precision": {"thresholds": 0.7}}]},
        "train.metrics.1.Precision.thresholds: has no meaning for anomalies: scores of any size, and the threshold of "
        "train.anomaly; leave it out",
    ),
    "nothing normal": (ODD, {"train.anomaly": {}}, "train.anomaly.normal: is missing"),
    "a normal label twice": (
        ODD,
        {"train.anomaly.normal": ["no", "no"]},
        "train.anomaly.normal: must be a label, or a list of labels, each once (got ['no', 'no']); "
        "write normal: [good]",
    ),
    "a boolean for a label": (
        ODD,
        {"train.anomaly.normal": False},
        "train.anomaly.normal: must be a label, or a list of labels, each once (got false); write normal: [good]",
    ),
    "a quantile above 1": (
        ODD,
        {"train.anomaly.quantile": 1.5},
        "train.anomaly.quantile: must be at most 1.0 (got 1.5)",
    ),
    "class weights of an autoencoder": (
        ODD,
        {"train.class_weights": "balanced"},
        "train.class_weights: an autoencoder learns its own input; leave it out",
    ),
    "a scaled target of an autoencoder": (
        ODD,
        {"train.scale_target": "standard"},
        "train.scale_target: an autoencoder learns its own input; leave it out",
    ),
    "MixUp for an autoencoder": (
        ODD,
        {"data.augment": ["CutMix"]},
        "data.augment.0: CutMix does not mix for an autoencoder; leave it out",
    ),
    "a monitor that is told after training": (
        ODD,
        {"train.callbacks": [{"EarlyStopping": {"monitor": "val_auc"}}]},
        "train.callbacks.0.EarlyStopping.monitor: nothing is called 'val_auc'; known: loss, val_loss",
    ),
}


@pytest.mark.parametrize("name", list(MISTAKES))
def test_a_mistake_is_told_once_with_its_place(name, write):
    base, changes, expected = MISTAKES[name]
    file = write(base, changes)
    with pytest.raises(SpecError, match=r"\S") as found:
        load_spec(file)
    (message,) = found.value.messages
    assert f"{message.key}: {message.message}{f'; {message.hint}' if message.hint else ''}" == expected
    assert (found.value.exit_code, str(message.file).endswith("s.yaml")) == (3, True)
    assert (message.line, message.column) in places_of(file.read_text(encoding="utf-8"), message.key)


OF_DATA: dict[str, tuple[dict[str, Any], dict[str, Any], str, int]] = {
    "a column that is not there": (
        TWO,
        {"data.source.target.kind": "kin"},
        r"trees\.csv has no column 'kin', which data\.source\.target names; did you mean 'kind'\?",
        4,
    ),
    "words as values": (
        TWO,
        {"train.outputs.kind": {"loss": "mse"}},
        r"trees\.csv, row 2: 'kind' is 'ash', a number is expected; mend it, or use a loss of classes",
        4,
    ),
    "values as classes": (
        TWO,
        {"train.outputs.size.loss": LOGITS},
        r"the targets of 'size' have shape \(48, 2\); a class a sample, or one-hot rows of 0 and a single 1 is "
        r"expected; take BinaryCrossentropy for several labels a sample, MeanSquaredError for values",
        4,
    ),
    "three classes for two sides": (
        TWO,
        {"train.outputs.kind.loss": SIDED},
        "a binary loss needs 2 classes, the targets of 'kind' have 3; use another loss",
        4,
    ),
    "classes of several outputs": (
        TWO,
        {"data.source.classes": ["ash", "elm", "oak"]},
        "the targets are not one class a sample, and cannot be filtered by class",
        4,
    ),
    "labels that are not 0 or 1": (
        LABELS,
        {"data.source.target": ["wet", "height"], "data.source.columns": {"sunny": "ignore", "girth": "ignore"}},
        r"trees\.csv: label 'height' of trees\.csv row 2 is 100, 0 or 1 is expected; a binary loss takes one value a "
        "sample, or a 0 or 1 for each of several labels",
        4,
    ),
    "labels that are words": (
        LABELS,
        {"data.source.target": ["wet", "sick"]},
        r"trees\.csv, row 2: 'sick' is 'yes', a number is expected; a target of several columns takes numbers: "
        "values, or a 0 or 1 for each of several labels",
        4,
    ),
    "names of labels that columns name": (
        LABELS,
        {"data.source.classes": ["damp", "bright"]},
        r"data\.source\.classes names 2 labels, and the columns name the labels: wet, sunny; leave it out",
        4,
    ),
    "one class for several labels": (
        LABELS,
        {"train.loss": LOGITS},
        r"the targets have shape \(48, 2\); .*; take BinaryCrossentropy for several labels a sample",
        4,
    ),
    "weights of labels": (
        LABELS,
        {"train.class_weights": "balanced"},
        r"train\.class_weights: the targets are not one class a sample; leave it out",
        3,
    ),
    "a normal label that is not there": (
        ODD,
        {"train.anomaly.normal": "fine"},
        r"trees\.csv has no class 'fine', which train\.anomaly\.normal names; it has: no, yes",
        4,
    ),
    "no anomaly": (
        ODD,
        {"train.anomaly.normal": ["no", "yes"]},
        r"trees\.csv: all samples are normal; an anomaly to test with has another label",
        4,
    ),
}


@pytest.mark.parametrize("name", list(OF_DATA))
def test_what_the_data_do_not_have_is_told_when_they_are_read(name, write):
    base, changes, expected, code = OF_DATA[name]
    with pytest.raises(MltoolError, match=expected) as found:
        open_dataset(load_spec(write(base, changes)))
    assert found.value.exit_code == code
    assert len(found.value.messages) == 1


OF_MODEL: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "a class too many": (
        TWO,
        {"model.layers.1.Dense.units": 4},
        r"model\.layers\.1\.Dense: the layer 'kind' gives \(4,\) a sample, the data have 3 classes; "
        r"make it give \(3,\)",
    ),
    "a value too many": (
        TWO,
        {"model.layers.2.Dense.units": 3},
        r"model\.layers\.2\.Dense: the last layer 'size' gives \(3,\) a sample, the data have 2 values a sample as "
        r"target; make it give \(2,\)",
    ),
    "a label too few": (
        LABELS,
        {"model.layers.0.Dense.units": 1},
        r"model\.layers\.0\.Dense: the last layer 'says' gives \(1,\) a sample, the data have 2 labels a sample; "
        r"make it give \(2,\)",
    ),
    "an autoencoder that gives back more": (
        ODD,
        {"model.layers.1.Dense.units": 3},
        r"model\.layers: the last layer 'back' gives back \(3,\), and was given \(2,\); make it give 2 values a sample",
    ),
    "a score for every class": (
        TWO,
        {"train.outputs.kind.metrics": ["F1Score"]},
        r"train\.outputs\.kind\.metrics\.0\.F1Score: gives 3 values, one is expected; write average: macro",
    ),
    "a metric of class numbers for labels": (
        LABELS,
        {"train.metrics": ["SparseCategoricalAccuracy"]},
        r"train\.metrics\.0\.SparseCategoricalAccuracy: does not take outputs of shape \(2,\) and their targets",
    ),
}


@pytest.mark.parametrize("name", list(OF_MODEL))
def test_what_the_model_does_not_give_is_told_before_the_first_step(name, write, tmp_path):
    base, changes, expected = OF_MODEL[name]
    run = Run.create(load_spec(write(base, changes)), tmp_path / "run")
    with pytest.raises(SpecError, match=expected):
        train(run)
    assert not run.metrics_file.exists()


def test_a_list_of_one_column_is_the_column(write):
    changes = {"data.source.target": ["wet"], "data.source.columns": {"sunny": "ignore"}}
    found = load_spec(write(LABELS, {**changes, "model.layers.0.Dense.units": 1}))
    assert found.data.source.target == "wet"
    assert open_dataset(found).task == "binary"


def test_labels_are_called_after_their_columns_also_among_several_outputs(write):
    outputs = {"tags": {"loss": SIDED}, "size": {"loss": "mse"}}
    changes = {
        "data.source.target": {"tags": ["wet", "sunny"], "size": "height"},
        "data.source.columns": {"kind": "ignore", "girth": "ignore", "sick": "ignore"},
        "model.layers.1.Dense": {"units": 2, "name": "tags", "inputs": ["trunk"]},
        "train.outputs": outputs,
    }
    data = open_dataset(load_spec(write(TWO, changes)))
    assert {name: (meaning.task, meaning.labels) for name, meaning in data.meanings.items()} == {
        "tags": ("multi_label", ("wet", "sunny")),
        "size": ("regression", ()),
    }
    assert data.targets["tags"].tolist() == [[n % 2, int(n % 4 == 0)] for n in range(48)]


def test_classes_name_the_labels_of_an_array(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez("a.npz", x=np.random.default_rng(0).random((30, 3)), y=np.arange(90).reshape(30, 3) % 2)
    spec = changed(LABELS, {"data.source": {"path": "a.npz", "classes": ["wet", "sunny", "old"]}})
    spec["model"] = {"layers": [{"Dense": {"units": 3}}]}
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(spec), encoding="utf-8")
    assert open_dataset(load_spec("s.yaml")).labels == ("wet", "sunny", "old")
    with pytest.raises(MltoolError, match="names 2 labels, and the targets have 3 labels a sample; name them all"):
        open_dataset(load_spec("s.yaml", ["data.source.classes=[wet, sunny]"]))


def test_what_is_told_of_a_task_is_not_told_twice():
    two = load_two = measures_of_task("classification", "kind", 3, [])
    assert [measure.name for measure in two] == ["kind_accuracy", "kind_f1_score"]  # three classes: no best five
    assert [measure.name for measure in measures_of_task("classification", "kind", 3, load_two[:1])] == [
        "kind_f1_score"
    ]
    assert "top_5_accuracy" in [measure.name for measure in measures_of_task("classification", "", 6, [])]
    assert {metric.name for metric in DEFAULT_METRICS["anomaly"]} <= set(ANOMALY_METRICS)

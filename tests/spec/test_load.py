"""Reading a spec: every mistake in one answer, on its line and column, without TensorFlow; and writing it back."""

import subprocess
import sys
from pathlib import Path

import pytest

from mltool.assets import asset_folder
from mltool.errors import SpecError
from mltool.spec.load import dump_spec, load_spec

HERE = Path(__file__).parent
SHIPPED = sorted(asset_folder("configs").glob("*.yaml"))
HEAVY = ("tensorflow", "keras", "numpy", "pandas", "rich")


def test_every_mistake_of_a_file_is_answered_at_once_with_its_line_and_column():
    with pytest.raises(SpecError, match="name: must match") as caught:
        load_spec(HERE / "mistakes.yaml")
    found = [str(message).removeprefix(f"{HERE}/") for message in caught.value.messages]
    expected = (HERE / "mistakes.txt").read_text(encoding="utf-8").splitlines()
    assert found == [line.removeprefix("tests/spec/") for line in expected]
    assert len(found) == 14


def test_each_mistake_points_at_the_text_that_is_wrong():
    lines = (HERE / "mistakes.yaml").read_text(encoding="utf-8").splitlines()
    with pytest.raises(SpecError, match="int7") as caught:
        load_spec(HERE / "mistakes.yaml")
    words = [lines[m.line - 1][m.column - 1 :].split(",")[0].rstrip("]})") for m in caught.value.messages]
    assert words == [
        *("many mistakes", "digit", "1.5", '"64"', "shuffle: true", "rellu", "2e-5", "learning_rte: 2e-3", "true"),
        *("val_acuracy", "on", "frist", "int7", "acc"),
    ]


def test_a_wrong_spec_is_answered_without_anything_heavy():
    code = (
        "import sys\nfrom mltool.cli.main import main\n"
        f"try:\n    main(['check', {str(HERE / 'mistakes.yaml')!r}])\n"
        "except SystemExit as end:\n"
        f"    print(end.code, sorted(set({HEAVY!r}) & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "3 []\n", done.stderr
    assert len(done.stderr.splitlines()) == 14


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_a_shipped_spec_reads_back_equal_from_what_a_run_keeps_of_it(path, tmp_path):
    spec = load_spec(path, needs_files=False)  # that of weights is made by another spec
    copy = tmp_path / "spec.yaml"
    copy.write_text(dump_spec(spec), encoding="utf-8")
    assert load_spec(copy, needs_files=False) == spec
    assert dump_spec(load_spec(copy, needs_files=False)) == copy.read_text(encoding="utf-8")


def test_there_are_shipped_specs():
    assert SHIPPED


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(text, id=words)
        for words, text in {
            "a word that YAML 1.1 takes for true": "on",
            "a number with an exponent": "1e3",
            "a number without a dot": "2e-5",
            "an octal number of YAML 1.1": "010",
            "a time": "12:30:45",
            "a colon": "a: b",
            "a comment": "a #b",
            "nothing": "",
            "spaces around": " a ",
            "a tilde": "~",
            "null": "null",
            "lines": "a\nb\n",
            "a tab": "a\tb",
            "letters of others": "größe ñ 数字 🙂",
            "quotes": "'\"\\",
            "an anchor": "&a *b !c",
            "a long text": "word " * 60,
            "a merge key": "<<",
            "brackets": "[1, {2: 3}]",
            "a line separator": "a\u2028b\u0085c",
        }.items()
    ],
)
def test_text_reads_back_as_it_was(text, bench):
    target = bench.load({"data.source": {"path": "a.npz", "target": "y"}})
    source = target.data.source.model_copy(update={"target": text})
    spec = target.model_copy(update={"data": target.data.model_copy(update={"source": source})})
    assert load_spec(bench.write(dump_spec(spec), "copy.yaml")).data.source.target == text


@pytest.mark.parametrize(
    "limits",
    [
        pytest.param({"max_drop": None}, id="no drop at all is held"),
        pytest.param({"max_drop": "0.07%"}, id="a percentage that is not a sum of powers of two"),
        pytest.param({"max_drop": "0.12345678%"}, id="a percentage of many digits"),
        pytest.param({"max_drop": 0.12345678}, id="units of the metric"),
        pytest.param({"max_size": "1.5 MiB", "max_p90_latency": "200 us"}, id="units"),
    ],
)
def test_limits_read_back_equal(limits, bench):
    spec = bench.load({"limits": limits})
    assert load_spec(bench.write(dump_spec(spec), "copy.yaml")) == spec


def test_a_graph_with_inputs_and_nested_objects_reads_back_equal(bench):
    spec = load_spec(
        bench.write(
            """
            name: graph
            data:
              source: {path: pair.npz, target: label}
              inputs: {image: {array: x1}, meta: {array: x2}}
              augment: [{RandomTranslation: {height_factor: 0.1, width_factor: 0.1}}]
            model:
              preprocess: {image: [{Rescaling: {scale: 0.004}}], meta: [Normalization]}
              layers:
                - Conv2D: {filters: 8, kernel_size: 3, padding: same, name: stem, inputs: [image]}
                - Conv2D: {filters: 8, kernel_size: 3, padding: same, name: body, kernel_regularizer: {L2: {l2: 1e-4}}}
                - Add: {inputs: [stem, body]}
                - GlobalAveragePooling2D: {name: pooled}
                - Dense: {units: 8, name: side, inputs: [meta]}
                - Concatenate: {inputs: [pooled, side]}
                - Dense: {units: 10}
            train:
              optimizer: {SGD: {learning_rate: {CosineDecay: {initial_learning_rate: 0.1, decay_steps: 100}}}}
              loss: {SparseCategoricalCrossentropy: {from_logits: true}}
              metrics: [accuracy, {SparseTopKCategoricalAccuracy: {k: 3, name: top3}}]
            convert: [{quantize: int8-io}, {quantize: int8, name: second, limits: {metric: top3, min: 0.5}}]
            """
        )
    )
    assert load_spec(bench.write(dump_spec(spec), "copy.yaml")) == spec
    assert [layer.name for layer in spec.model.layers] == [
        *("stem", "body", "add", "pooled", "side", "concatenate", "dense")
    ]


def test_a_path_is_relative_to_the_file_that_writes_it(bench):
    (bench.folder / "below").mkdir()
    path = bench.good({"data.source": {"path": "../a.npz"}}).rename(bench.folder / "below" / "s.yaml")
    assert Path(load_spec(path).data.source.path).resolve() == bench.folder / "a.npz"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("- a\n- b\n", r"1:1: must be a map of sections \(got list\); `mltool init`", id="a list"),
        pytest.param("digits\n", r"must be a map of sections \(got str\)", id="a word"),
        pytest.param("", "the file is empty", id="nothing"),
    ],
)
def test_a_file_that_is_no_map_is_refused(text, expected, bench):
    with pytest.raises(SpecError, match=expected):
        load_spec(bench.write(text))


def test_what_is_missing_is_said_with_what_to_write(bench):
    assert bench.refused({"name": ..., "data.source": ..., "model.layers": ..., "train.loss": ...}) == [
        "name: is missing; add name: my-model",
        "data.source: is missing; add source: {dataset: digits}, or source: {path: FILE.npz}",
        "model.layers: is missing; add layers: [Flatten, {Dense: {units: 10}}], or python: module:function",
        "train.loss: is missing; add loss: {SparseCategoricalCrossentropy: {from_logits: true}}, "
        "or outputs: {LAYER: {loss: ...}}",
    ]


def test_a_missing_key_stands_where_its_section_does(bench):
    path = bench.write("name: a\ndata: {source: {dataset: digits}}\nmodel: {layers: [Flatten]}\ntrain:\n  epochs: 3\n")
    (found,) = bench.refusals(path)
    assert (found.line, found.column, found.key) == (4, 1, "train.loss")


# Mistakes that a section hides while it has others


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param(
            {"train.epochs": 0, "limits": {"metric": "acuracy"}},
            [
                "train.epochs: must be greater than 0 (got 0)",
                "limits.metric: train.metrics has no 'acuracy'; did you mean",
            ],
            id="between sections, one of them wrong",
        ),
        pytest.param(
            {"train.loss": "Crossentropy", "limits": {"metric": "acuracy"}},
            ["train.loss: unknown loss 'Crossentropy'", "limits.metric: train.metrics has no 'acuracy'"],
            id="between sections, without a loss",
        ),
        pytest.param(
            {"train.callbacks": [{"EarlyStopping": {"patience": -1, "monitor": "val_acuracy"}}], "train.epochs": 0},
            ["train.epochs: must be", "EarlyStopping.patience: must be", "EarlyStopping.monitor: nothing is called"],
            id="within a callback of a wrong section",
        ),
        pytest.param(
            {
                "model.layers.1": {"Dense": {"units": -1, "name": "top"}},
                "convert": [{"quantize": "int8", "keep_float": ["tpo"]}],
            },
            ["Dense.units: must be", "convert.0.keep_float.0: no layer is called 'tpo'; did you mean 'top'?"],
            id="a name of a layer that is wrong itself",
        ),
        pytest.param(
            {"model.layers.0": "Flaten", "model.python": "nets:build", "model.arguments": {"a": 1}},
            [
                "unknown layer 'Flaten'",
                "model.python: stands in place of layers",
                "model.python: no module 'nets' lies",
            ],
            id="layers and other keys of the model",
        ),
        pytest.param(
            {"name": ..., "data": ..., "model": ..., "train": 3},
            ["name: is missing", "data: is missing", "model: is missing", "train: must be a map of keys (got 3)"],
            id="nothing is right",
        ),
        pytest.param(
            {"train.metrics": "accuracy", "limits": {"metric": "accuracy"}, "seed": -1},
            ["seed: must be at least 0", "train.metrics: must be a list"],
            id="no consequence of metrics that cannot be read",
        ),
        pytest.param(
            {"data.inputs": ["image"], "model.layers": [{"Dense": {"units": 10, "inputs": ["image2"]}}]},
            ["data.inputs: must be a map (got ['image'])"],
            id="no consequence of inputs that cannot be read",
        ),
        pytest.param(
            {"data.augment": ["Flatten", "RandomFlop"], "data.batch_size": 0},
            ["data.augment.1: unknown layer 'RandomFlop'", "data.augment.0: 'Flatten' is not", "data.batch_size: must"],
            id="an augmentation beside a wrong one",
        ),
        pytest.param(
            {"convert": [3, {"quantize": "int8", "io": "int"}, {"name": "a b"}], "seed": "1"},
            [
                "seed: must be a whole number",
                "convert.0: must be a map",
                "convert.1.io: must be",
                "convert.2.name: must",
            ],
            id="entries of convert",
        ),
        pytest.param(
            {
                "model.layers": [
                    {"Dense": {"units": 0, "name": "a"}},
                    {"Dense": {"units": 2, "inputs": ["b"]}},
                    {"Add": {"inputs": ["a", "dense"]}},
                ]
            },
            ["layers.0.Dense.units: must be", "layers.1.Dense.inputs.0: no layer or input is called 'b'"],
            id="a graph around a wrong layer",
        ),
    ],
)
def test_a_mistake_is_not_hidden_by_another(changes, expected, bench):
    found = bench.refused(changes)
    assert sorted(part for part in expected if any(part in line for line in found)) == sorted(expected), found
    assert len(found) == len(expected), found


@pytest.mark.parametrize("value", [None, 3, "text", [], {}, [{}], [[3]], {"a": {"b": 3}}, True], ids=repr)
@pytest.mark.parametrize(
    "place",
    [
        *("name", "data", "data.source", "data.inputs", "data.split", "data.augment", "model", "model.preprocess"),
        *("model.layers", "train", "train.optimizer", "train.loss", "train.metrics", "train.callbacks", "export"),
        *("convert", "limits", "serve", "data.split.by", "limits.max_drop", "limits.max_size", "model.layers.1"),
    ],
)
def test_any_value_anywhere_is_taken_or_refused_but_never_a_crash(place, value, bench):
    changes = {place: value, "seed": -1}
    found = bench.refused(changes)
    assert any(line.startswith("seed: must be at least 0") for line in found)

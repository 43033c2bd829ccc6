"""The JSON Schema of the spec takes and refuses what `load_spec` does, but for what must hold between keys."""

import copy
import json
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from mltool.assets import asset_folder
from mltool.spec.convert import SCHEMES
from mltool.spec.load import dump_spec, load_spec
from mltool.spec.schema import spec_json_schema
from mltool.yaml_reader import read_yaml

HERE = Path(__file__).parent
SHIPPED = sorted([*asset_folder("configs").glob("*.yaml"), *asset_folder("templates").glob("*.yaml")])


@pytest.fixture(scope="module")
def schema():
    return spec_json_schema()


@pytest.fixture(scope="module")
def validator(schema):
    return Draft202012Validator(schema)


def test_it_is_a_schema_of_2020_12(schema):
    Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert {"$id", "title", "description"} <= set(schema)


def test_every_reference_leads_to_a_definition(schema, validator):
    resolver = validator._resolver
    found = []

    def walk(value):
        if isinstance(value, dict):
            if "$ref" in value:
                found.append(value["$ref"])
            for item in value.values():
                walk(item)
        elif isinstance(value, list):
            for item in value:
                walk(item)

    walk(schema)
    assert "#/$defs/keras_layer" in found
    for reference in sorted(set(found)):
        resolver.lookup(reference)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_a_shipped_spec_is_valid(path, validator):
    assert [error.message for error in validator.iter_errors(read_yaml(path).data)] == []


def test_there_are_shipped_specs():
    assert {"digits.yaml", "starter.yaml"} <= {path.name for path in SHIPPED}


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_what_a_run_keeps_of_a_spec_is_valid(path, validator, bench):
    written = bench.write(dump_spec(load_spec(path, needs_files=False)), "resolved.yaml")
    assert [error.message for error in validator.iter_errors(read_yaml(written).data)] == []


def test_every_field_says_what_it_means(schema):
    sections = {"Spec": schema} | {n: s for n, s in schema["$defs"].items() if not n.startswith("keras_")}
    silent = [
        f"{name}.{key}"
        for name, section in sections.items()
        for key, field in section["properties"].items()
        if "description" not in field
        and "description" not in schema["$defs"].get(field.get("$ref", "").split("/")[-1], {})
    ]
    assert silent == []
    assert len(sections) > 8


def test_layers_complete_with_their_arguments_and_inputs(schema):
    dense = schema["$defs"]["keras_layer"]["anyOf"][1]["properties"]["Dense"]
    assert {"units", "activation", "name", "inputs"} <= set(dense["properties"])
    assert dense["required"] == ["units"]
    assert "densely" in dense["description"]


def test_a_key_of_a_later_version_is_left_out_or_has_one_value(schema):
    assert schema["$defs"]["ExportSpec"]["properties"]["warmup"]["const"] == 32
    assert schema["$defs"]["TrainSpec"]["properties"]["backend"]["enum"] == ["tensorflow", "jax", "torch"]
    assert "target" not in schema["$defs"]["ConvertSpec"]["properties"]
    scheme, recipe = schema["$defs"]["ConvertSpec"]["properties"]["quantize"]["anyOf"]
    assert scheme["enum"] == list(SCHEMES)
    assert recipe["pattern"] == r"\.json$"


def test_defaults_are_written_as_yaml_has_them(schema):
    sections = schema["$defs"]
    assert sections["TrainSpec"]["properties"]["optimizer"]["default"] == "Adam"
    assert sections["LimitsSpec"]["properties"]["max_drop"]["default"] == "2%"
    json.dumps(schema, allow_nan=False)


OWN = {"python": "json.decoder:JSONDecoder", "arguments": {"strict": False}}
"""Any class that is installed: nothing of it is run."""

BAD = {
    "an unknown key": {"trian": {}},
    "a version to come": {"version": 2},
    "a name with a space": {"name": "a b"},
    "no data": {"data": ...},
    "no source": {"data.source": {}},
    "an unknown data set": {"data.source.dataset": "minst"},
    "a kind of no source": {"data.source": {"path": "a", "kind": "video"}},
    "a number in quotes": {"data.batch_size": "64"},
    "a batch of none": {"data.batch_size": 0},
    "a share above one": {"data.split.validation": 1.5},
    "a split by nothing": {"data.split.by": "luck"},
    "an augmentation that is none": {"data.augment": ["Flatten"]},
    "an augmentation that cannot be repeated": {"data.augment": ["AugMix"]},
    "an unknown layer": {"model.layers.0": "Flaten"},
    "no layers": {"model.layers": []},
    "an unknown argument": {"model.layers.1": {"Dense": {"unit": 10}}},
    "a missing argument": {"model.layers.1": "Dense"},
    "an argument out of range": {"model.layers.1": {"Dense": {"units": 0}}},
    "an unknown activation": {"model.layers.1": {"Dense": {"units": 10, "activation": "rellu"}}},
    "two names in one item": {"model.layers.1": {"Dense": {"units": 10}, "Flatten": None}},
    "inputs that are no list": {"model.layers.1": {"Dense": {"units": 10, "inputs": "a"}}},
    "no epochs": {"train.epochs": 0},
    "a choice that is none": {"train.keep": "first"},
    "phases that are none": {"train.phases": []},
    "epochs beside phases": {"train.epochs": 1, "train.phases": [{"epochs": 1}]},
    "a phase without epochs": {"train.phases": [{}]},
    "a checkpoint every so much of nothing": {"train.checkpoint": {"every": 500}},
    "a checkpoint every no step": {"train.checkpoint": {"every": "0 steps"}},
    "a checkpoint every half an epoch": {"train.checkpoint": {"every": "0.5 epochs"}},
    "another answer to NaN": {"train.on_nan": "ignore"},
    "another answer to memory": {"train.on_oom": "double"},
    "another strategy": {"train.strategy": "mirorred"},
    "an unknown loss": {"train.loss": "Crossentropy"},
    "a word for a boolean": {"train.loss": {"SparseCategoricalCrossentropy": {"from_logits": "yes"}}},
    "metrics that are no list": {"train.metrics": "accuracy"},
    "a callback of a later version": {"train.callbacks": ["TensorBoard"]},
    "a schedule that is none": {"train.optimizer": {"Adam": {"learning_rate": {"Cosine": {}}}}},
    "a schedule of ours without its rate": {"train.optimizer": {"Adam": {"learning_rate": "OneCycle"}}},
    "a factor below zero": {"train.learning_rates": {"top": -1}},
    "factors beside phases": {"train.learning_rates": {"top": 1}, "train.phases": [{"epochs": 1}]},
    "what does not decay, as text": {"train.no_weight_decay": "top", "train.optimizer": "adamw"},
    "a scheme that is none": {"convert": [{"quantize": "int7"}]},
    "a scheme of a layer that is none": {"convert": [{"quantize": "int8", "layers": {"first": "int2"}}]},
    "blocks of an odd size": {"convert": [{"quantize": "int4", "block_size": 33}]},
    "calibration by test samples": {"convert": [{"quantize": "int8", "calibration": "test"}]},
    "few samples to calibrate": {"convert": [{"representative": 7}]},
    "a target": {"convert": [{"target": "micro"}]},
    "a size of no unit": {"limits.max_size": "20 XB"},
    "a drop below zero": {"limits.max_drop": "-1%"},
    "an arena": {"limits.max_arena": "64 KB"},
    "a layer of one's own without a name": {"model.layers.0": {"arguments": {}}},
    "a key of no layer of one's own": {"model.layers.0": {**OWN, "factor": 2}},
    "a layer of one's own inside of another": {"model.layers.0": {"TimeDistributed": {"layer": OWN}}},
    "a loss of one's own without a task": {"train.loss": OWN},
    "a direction that is none": {"train.metrics": [{**OWN, "better": "more"}]},
    "an optimizer of one's own": {"train.optimizer": OWN},
    "a task of a callback": {"train.callbacks": [{**OWN, "task": "binary"}]},
    "an augmentation of one's own": {"data.augment": [OWN]},
    "a step without a name": {"train.step": {"arguments": {}}},
    "a key of no step": {"train.step": {**OWN, "name": "mine"}},
    "a key of serve": {"serve": {"port": 80}},
}


@pytest.mark.parametrize("changes", [pytest.param(changes, id=words) for words, changes in BAD.items()])
def test_both_refuse_what_is_wrong(changes, validator, bench):
    path = bench.good(changes)
    assert bench.refusals(path)
    assert list(validator.iter_errors(read_yaml(path).data))


GOOD = {
    "a percentage": {"limits.max_drop": "0.5%"},
    "no limit of the drop": {"limits.max_drop": None},
    "units in small letters": {"limits.max_size": "20kb", "limits.max_p90_latency": "5 ms"},
    "int8-io": {"convert": [{"quantize": "int8-io"}]},
    "a mixture": {"convert": [{"quantize": "int8", "layers": {"top": "int16x8"}}]},
    "weights in blocks": {"convert": [{"quantize": "int4", "block_size": 32}]},
    "a search": {"convert": [{"quantize": "auto", "search": {"minimize": "latency"}}]},
    "random calibration": {"convert": [{"quantize": "int8", "calibration": "random"}]},
    "a checkpoint every so many steps": {"train.checkpoint": {"every": "500 steps"}},
    "a checkpoint every so many minutes": {"train.checkpoint": {"every": "5min"}},
    "answers to faults": {"train.on_nan": "rollback", "train.on_oom": "stop"},
    "a dynamic batch": {"convert": [{"batch": "dynamic"}]},
    "defaults of a later version": {"train.strategy": "auto", "export": {"signatures": ["serving_default"]}},
    "a file in capital letters": {"data.source": {"path": "A.NPZ"}},
    "a schedule": {
        "train.optimizer": {
            "adam": {"learning_rate": {"CosineDecay": {"initial_learning_rate": 0.1, "decay_steps": 9}}}
        }
    },
    "a schedule of ours": {
        "train.optimizer": {"adam": {"learning_rate": {"Cosine": {"learning_rate": 0.1, "warmup_epochs": 0.5}}}}
    },
    "factors and what does not decay": {
        "train.optimizer": "adamw",
        "train.learning_rates": {"top": 0.1, "top/bias": 2},
        "train.no_weight_decay": [".*/bias"],
    },
    "a map of preprocessing": {"data.inputs": {"a": {}}, "model.preprocess": {"a": ["Normalization"]}},
    "phases": {"train.phases": [{"epochs": 1, "optimizer": "sgd", "freeze": ["top"]}]},
    "no phases": {"train.phases": None, "train.epochs": 3},
    "layers of one's own": {
        "model.layers.0": {**OWN, "name": "mine"},
        "model.preprocess": [OWN],
        "model.blocks": {"both": [{**OWN, "inputs": ["input"]}]},
        "model.layers.1": {"Block": {"use": "both"}},
    },
    "a loss and metrics of one's own": {
        "train.loss": {**OWN, "task": "classification", "from_logits": True},
        "train.metrics": [{**OWN, "better": "lower", "name": "mine", "from_logits": False}],
    },
    "a step of one's own": {"train.step": OWN},
    "callbacks": {"train.callbacks": [OWN, {"CSVLogger": {"filename": "a.csv"}}, "EarlyStopping"]},
    "augmentation": {"data.augment": [{"RandomFlip": {"mode": "horizontal"}}, "RandAugment", "SpecAugment", "MixUp"]},
}


@pytest.mark.parametrize("changes", [pytest.param(changes, id=words) for words, changes in GOOD.items()])
def test_both_take_what_is_right(changes, validator, bench):
    path = bench.good(copy.deepcopy(changes))
    load_spec(path)
    assert [error.message for error in validator.iter_errors(read_yaml(path).data)] == []

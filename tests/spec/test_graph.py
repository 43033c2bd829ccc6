"""Blocks that repeat, layers that are used twice: what they become, and what is refused."""

import re

import pytest
import yaml
from pydantic import ValidationError

from mltool.spec.graph import unused_layers
from mltool.spec.load import dump_spec, load_spec
from mltool.spec.model import ModelSpec


def model(text):
    return ModelSpec.model_validate(yaml.safe_load(text))


def shape_of(text):
    """name, class, inputs of every layer."""
    return [(layer.name, layer.layer.name, layer.inputs) for layer in model(text).layers]


def refused(text):
    with pytest.raises(ValidationError) as caught:
        model(text)
    return [
        (".".join(map(str, error["loc"])), f"{error['msg']}; {error['ctx'].get('hint', '')}")
        for error in caught.value.errors()
    ]


RESIDUAL = """
layers:
  - Dense: {units: 8, name: stem}
  - Block:
      name: stage
      repeat: 2
      layers:
        - Dense: {units: 8, name: a}
        - ReLU
        - Add: {inputs: [a, input], name: sum}
  - Dense: {units: 2, inputs: [stage]}
"""


def test_a_block_stands_for_its_layers_as_often_as_it_says():
    assert shape_of(
        RESIDUAL.replace("- ReLU\n", "- Dense: {units: 8, name: b}\n").replace("[a, input]", "[b, input]")
    ) == [
        ("stem", "Dense", ()),
        ("stage_1_a", "Dense", ()),
        ("stage_1_b", "Dense", ()),
        ("stage_1_sum", "Add", ("stage_1_b", "stem")),
        ("stage_2_a", "Dense", ()),
        ("stage_2_b", "Dense", ()),
        ("stage_2_sum", "Add", ("stage_2_b", "stage_1_sum")),
        ("dense", "Dense", ("stage_2_sum",)),
    ]


def test_a_layer_of_a_block_that_nobody_uses_is_refused_at_its_place():
    layers = model(RESIDUAL).layers
    found = list(unused_layers(layers, [layers[-1].name]))
    places = [".".join(map(str, problem.path)) for problem in found]
    assert places == ["layers.1.Block.layers.1.ReLU", "layers.1.Block.layers.1.ReLU"]
    assert found[0].message == "nothing uses the output of 'stage_1_re_lu'"
    assert list(unused_layers(layers, ["stage_1_re_lu", "stage_2_re_lu", layers[-1].name])) == []


def test_blocks_by_name_may_hold_blocks_and_outer_names_are_seen():
    text = """
blocks:
  pair: [{Dense: {units: 4}}, {Dense: {units: 4, name: out}}]
  both: [{Block: {use: pair, name: p}}, {Add: {inputs: [p, first]}}]
layers:
  - Dense: {units: 4, name: first}
  - Block: {use: both, name: x}
  - Block: {use: pair, inputs: [first]}
  - Concatenate: {inputs: [x, block]}
"""
    assert shape_of(text) == [
        ("first", "Dense", ()),
        ("x_p_dense", "Dense", ()),
        ("x_p_out", "Dense", ()),
        ("x_add", "Add", ("x_p_out", "first")),
        ("block_dense", "Dense", ("first",)),
        ("block_out", "Dense", ()),
        ("concatenate", "Concatenate", ("x_add", "block_out")),
    ]


def test_a_block_that_nobody_uses_is_checked_too():
    [(where, what)] = refused("{blocks: {spare: [{Dnse: {units: 2}}, {Add: {inputs: [dnse, input]}}]}, layers: [ReLU]}")
    assert where == "blocks.spare.0.Dnse"
    assert "did you mean 'Dense'" in what
    assert refused("{blocks: {spare: 3}, layers: [ReLU]}")[0][0] == "blocks.spare"
    assert model("{blocks: {spare: [{Add: {inputs: [input, outer]}}]}, layers: [ReLU]}").layer_names == ("re_lu",)


def test_a_block_is_shared_layer_by_layer():
    text = """
layers:
  - Block:
      name: tower
      inputs: [left]
      layers: [{Dense: {units: 4, name: a}}, {Dense: {units: 4, name: b}}, {Add: {inputs: [a, b]}}]
  - Shared: {layer: tower, inputs: [right], name: other}
  - Subtract: {inputs: [tower, other]}
"""
    assert shape_of(text) == [
        ("tower_a", "Dense", ("left",)),
        ("tower_b", "Dense", ()),
        ("tower_add", "Add", ("tower_a", "tower_b")),
        ("other_tower_a", "Shared", ("right",)),
        ("other_tower_b", "Shared", ()),
        ("other", "Shared", ("other_tower_a", "other_tower_b")),
        ("subtract", "Subtract", ("tower_add", "other")),
    ]
    assert [layer.shares for layer in model(text).layers][3:6] == ["tower_a", "tower_b", "tower_add"]
    assert model(text).layer_names == ("tower_a", "tower_b", "tower_add", "subtract")


def test_a_block_that_stands_first_in_a_block_takes_what_that_takes():
    text = """
layers:
  - Dense: {units: 4, name: a}
  - Dense: {units: 4, name: b}
  - Block:
      name: outer
      inputs: [a]
      layers: [{Block: {name: inner, repeat: 2, layers: [{Dense: {units: 4, name: d}}, {Add: {inputs: [d, input]}}]}}]
  - Add: {inputs: [b, outer], name: sum}
"""
    assert shape_of(text)[2:] == [
        ("outer_inner_1_d", "Dense", ("a",)),
        ("outer_inner_1_add", "Add", ("outer_inner_1_d", "a")),
        ("outer_inner_2_d", "Dense", ()),
        ("outer_inner_2_add", "Add", ("outer_inner_2_d", "outer_inner_1_add")),
        ("sum", "Add", ("b", "outer_inner_2_add")),
    ]


def test_the_resolved_spec_is_flat_and_reads_back_equal(tmp_path):
    text = yaml.safe_load(RESIDUAL.replace("        - ReLU\n", ""))
    text["blocks"] = {"pair": [{"Dense": {"units": 4}}]}
    text["layers"] += [{"Shared": {"layer": "dense", "inputs": ["stem"], "name": "again"}}]
    text["layers"] += [{"Concatenate": {"inputs": ["dense", "again"]}}]
    spec = {"name": "s", "data": {"source": {"dataset": "digits"}}, "model": text}
    spec["train"] = {"loss": {"SparseCategoricalCrossentropy": {"from_logits": True}}}
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(spec))
    first = load_spec(tmp_path / "s.yaml")
    (tmp_path / "resolved.yaml").write_text(dump_spec(first))
    again = load_spec(tmp_path / "resolved.yaml")
    assert again.model == first.model
    assert again.model.blocks == {}


def test_blocks_come_from_other_files(tmp_path):
    (tmp_path / "blocks.yaml").write_text("model: {blocks: {pair: [{Dense: {units: 4}}, ReLU]}}\n")
    (tmp_path / "s.yaml").write_text(
        "include: blocks.yaml\nname: s\ndata: {source: {dataset: digits}}\n"
        "model: {layers: [Flatten, {Block: {use: pair, repeat: 2}}, {Dense: {units: 10}}]}\n"
        "train: {loss: {SparseCategoricalCrossentropy: {from_logits: true}}}\n"
    )
    names = load_spec(tmp_path / "s.yaml").model.layer_names
    assert names == ("flatten", "block_1_dense", "block_1_re_lu", "block_2_dense", "block_2_re_lu", "dense")


@pytest.mark.parametrize(
    ("layers", "place", "message"),
    [
        ("[{Block: {}}]", "layers.0.Block", "must have either layers, or use: the name of a block"),
        ("[{Block: {use: stage, layers: [ReLU]}}]", "layers.0.Block", "must have either layers, or use"),
        ("[{Block: {use: stge}}]", "layers.0.Block.use", "no block is called 'stge'; did you mean 'stage'?"),
        ("[{Block: {use: circle}}]", "blocks.circle.0.Block.use", "'circle' is used inside of itself"),
        (
            "[{Block: {layers: [{Dnse: {units: 2}}], repeat: 3}}]",
            "layers.0.Block.layers.0.Dnse",
            "did you mean 'Dense'",
        ),
        (
            "[{Block: {layers: [ReLU], repeat: 0}}]",
            "layers.0.Block.repeat",
            "must be an integer greater than 0 and of at most 1000 (got 0)",
        ),
        ("[{Block: {layers: [ReLU], repat: 2}}]", "layers.0.Block.repat", "did you mean 'repeat'?"),
        ("[{Block: {layers: 3}}]", "layers.0.Block.layers", "must be a list of layers or null (got 3)"),
        ("[{Block: {layers: [ReLU], inputs: [a, b]}}]", "layers.0.Block.inputs", "a block takes one input (got 2)"),
        ("[{Block: {layers: [{Add: {inputs: [input, input]}}]}}]", "layers.0.Block", "nothing comes before the block"),
        (
            "[ReLU, {Shared: {layer: relu}}]",
            "layers.1.Shared.layer",
            "no layer before this one is called 'relu'; did you",
        ),
        ("[ReLU, {Shared: {}}]", "layers.1.Shared", "missing argument 'layer'"),
        ("[Block]", "layers.0", "'Block' cannot stand here"),
        (
            "[{TimeDistributed: {layer: {Block: {use: stage}}}}]",
            "layers.0.TimeDistributed.layer",
            "cannot stand inside of",
        ),
        ("[{TimeDistributed: {layer: {LogMel: {fft_length: 64}}}}]", "layers.0.TimeDistributed.layer", "cannot stand"),
    ],
)
def test_what_is_no_block_is_refused_at_its_place(layers, place, message):
    # Only where it is used: a block that is wrong is told in any case.
    circle = ", circle: [{Block: {use: circle}}]" if "circle" in layers else ""
    blocks = f"{{stage: [ReLU]{circle}}}"
    [(where, what)] = refused(f"{{blocks: {blocks}, layers: {layers}}}")
    assert where.startswith(place)
    assert message in what


@pytest.mark.parametrize(
    ("section", "place", "message"),
    [
        (
            "layers: [Flatten, MixUp]",
            "layers.1",
            "'MixUp' is an augmentation, and none of the model's layers; write it",
        ),
        ("{preprocess: [CutMix], layers: [ReLU]}", "preprocess.0", "'CutMix' is an augmentation"),
        ("layers: [AugMix]", "layers.0", "'AugMix' is an augmentation, .*; write RandAugment under data.augment"),
        ("layers: [{GRUCell: {units: 3}}]", "layers.0", "one step of a recurrent layer; write RNN: {cell: {GRUCell: {"),
        (
            "layers: [{StackedRNNCells: {cells: [{LSTMCell: {units: 3}}]}}]",
            "layers.0",
            "write RNN: {cell: {StackedRNNCells: {...}}}",
        ),
        (
            "layers: [{TimeDistributed: {layer: Normalization}}]",
            "layers.0",
            "'Normalization' learns from data before training, and cannot inside of 'TimeDistributed'; write it under",
        ),
        (
            "{preprocess: [{Pipeline: {layers: [{Rescaling: {scale: 2}}, StringLookup]}}], layers: [ReLU]}",
            "preprocess.0",
            "'StringLookup' learns from data before training, and cannot inside of 'Pipeline'",
        ),
        ("layers: [{RandomCrop: {height: 4, width: 4}}]", "layers.0", "cuts while training only"),
        ("layers: [{Pipeline: {layers: [{RandomCrop: {height: 4, width: 4}}]}}]", "layers.0", "write CenterCrop"),
        ("layers: [Equalization]", "layers.0", "cannot be used in a spec: it changes images while training only"),
    ],
)
def test_what_would_act_otherwise_than_it_reads_is_refused(section, place, message):
    [(where, what)] = refused(section)
    assert where.startswith(place)
    assert re.search(re.escape(message).replace(re.escape(".*"), ".*"), what)


def test_a_layer_inside_of_another_that_has_learned_already_may_stand_there():
    section = "layers: [{TimeDistributed: {layer: {Normalization: {mean: 1, variance: 4}}}}]"
    assert shape_of(section) == [("time_distributed", "TimeDistributed", ())]

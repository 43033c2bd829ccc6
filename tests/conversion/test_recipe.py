"""Precisions and recipes: what may be said, what it becomes for a file, and that the tables are the quantizer's own."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mltool.conversion.engines.recipe import ALGORITHMS, OPERATIONS, read_recipe, recipe_for, write_recipe
from mltool.conversion.precision import LAYER_SCHEMES, Precision
from mltool.conversion.schemes import BLOCK_OPS, BLOCK_SIZES, INT4_OPS, SCHEMES, STATIC_OPS, WEIGHT_OPS
from mltool.errors import ArtifactError, ConversionError
from mltool.inspection.flatbuffer import read_flatbuffer

FloatFile = Callable[[Any], Path]


def _policy() -> dict[str, set[str]]:
    """Operators by configuration, by the names of the schema."""
    from litert_quantizer.default_policy import DEFAULT_JSON_POLICY

    renamed = {"CONV_2D_TRANSPOSE": "TRANSPOSE_CONV"}
    policy = json.loads(DEFAULT_JSON_POLICY)["ops_per_config"]
    return {name: {renamed.get(op, op) for op in ops} - {"INPUT", "OUTPUT"} for name, ops in policy.items()}


def test_the_tables_are_those_of_the_quantizer():
    from litert_quantizer.algorithm_manager import AlgorithmName
    from litert_quantizer.qtyping import QuantGranularity, TFLOperationName

    policy = _policy()
    assert {"int8": policy["static_wi8_ai8"], "int16x8": policy["static_wi8_ai16"]} == dict(STATIC_OPS)
    assert set(WEIGHT_OPS) == policy["dynamic_wi8_afp32"] == policy["weightonly_wi8_afp32"]
    assert policy["dynamic_wi4_afp32"] == INT4_OPS
    assert policy["dynamic_wi4_afp32_blockwise"] >= BLOCK_OPS
    assert {f"BLOCKWISE_{size}" for size in BLOCK_SIZES} == {g.value for g in QuantGranularity if "BLOCK" in g.value}
    assert set(OPERATIONS) == {name.value for name in TFLOperationName} - {"CUSTOM_OP"}
    assert set(ALGORITHMS) < {name.value for name in AlgorithmName}


def test_schemes_of_a_layer_are_schemes_of_a_file():
    assert set(LAYER_SCHEMES) - {"float32"} < set(SCHEMES)


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        pytest.param(
            {"default": "int5"}, r"must be one of float32, .* \(got 'int5'\); did you mean 'int8'", id="scheme"
        ),
        pytest.param({"layers": {"a": "none"}}, r"scheme of a layer must be .* \(got 'none'\)", id="scheme of a layer"),
        pytest.param({"layers": {"a(": "int8"}}, r"layers: 'a\(' is no regular expression", id="pattern"),
        pytest.param({"granularity": "channels"}, "did you mean 'channel'", id="granularity"),
        pytest.param({"io": "int32"}, "io must be one of float32, int8, uint8, int16", id="io"),
        pytest.param({"io": "int16"}, r"io: int16 needs int16x8 as default scheme \(got int8\)", id="io of int8"),
        pytest.param(
            {"block_size": 32}, r"block_size \(32\) needs granularity: block \(got channel\)", id="size alone"
        ),
        pytest.param(
            {"granularity": "block", "default": "int4"}, r"one of 32, 64, 128, 256 \(got None\)", id="no size"
        ),
        pytest.param({"granularity": "block", "block_size": 48, "default": "int4"}, r"\(got 48\)", id="another size"),
        pytest.param(
            {"granularity": "block", "block_size": 32}, r"needs a layer in int4 \(got int8\)", id="blocks of int8"
        ),
    ],
)
def test_what_cannot_be_is_refused(changed: dict[str, Any], text: str):
    with pytest.raises(ConversionError, match=text):
        Precision(**changed)


def test_the_first_pattern_that_matches_a_layer_wins():
    precision = Precision("int8", {"stem": "float32", "st.*|head": "int4"})

    assert precision.scheme_of(["stem"]) == "float32"
    assert precision.scheme_of(["stride", "act"]) == "int4"
    assert precision.scheme_of(["act", "stem", "head"]) == "float32"
    assert precision.scheme_of(["overhead"]) == "int8"  # whole names
    assert precision.scheme_of([]) == "int8"


def test_layers_kept_float_come_before_patterns():
    precision = Precision("int8", {".*": "int4"}).keeping_float(["a.b"])

    assert [precision.scheme_of([name]) for name in ("a.b", "aXb")] == ["float32", "int4"]


def test_a_pattern_without_a_layer_is_refused():
    with pytest.raises(ConversionError, match="no layer matches 'hiden'; did you mean 'hidden'"):
        Precision("int8", {"hiden": "int4"}).require_matches(["stem", "hidden"])
    with pytest.raises(ConversionError, match=r"no layer matches 'block_.\*'; the layers are stem, hidden"):
        Precision("int8", {"block_.*": "int4"}).require_matches(["stem", "hidden"])


def test_rules_find_the_operators_of_their_layers_alone(convnet: Any, float_file: FloatFile):
    file = read_flatbuffer(float_file(convnet), convnet.layers)

    rules = recipe_for(Precision("int8", {"norm": "float32", "hidden": "int4"}), file)

    scopes = {op.layers: f"{op.outputs[0].name};" for op in file.operators}
    found = [
        (rule["algorithm_key"], rule["operation"], *(op for op in scopes if re.search(rule["regex"], scopes[op])))
        for rule in rules[1:-2]
    ]
    assert found == [
        ("no_quantize", "*", ("stem", "norm", "act")),
        ("no_quantize", "*", ("hidden",)),
        ("min_max_uniform_quantize", "*", ("hidden",)),
        ("min_max_uniform_quantize", "CONV_2D", ("hidden",)),
        ("min_max_uniform_quantize", "EMBEDDING_LOOKUP", ("hidden",)),
        ("min_max_uniform_quantize", "FULLY_CONNECTED", ("hidden",)),
    ]
    assert rules[0]["regex"] == ".*"
    assert [(rule["operation"], rule["algorithm_key"]) for rule in rules[-2:]] == [
        ("INPUT", "no_quantize"), ("OUTPUT", "no_quantize"),
    ]  # fmt: skip


def test_blocks_that_divide_no_weight_are_refused(convnet: Any, float_file: FloatFile):
    file = read_flatbuffer(float_file(convnet), convnet.layers)

    with pytest.raises(
        ConversionError, match=r"blocks of 64 inputs divide \(inputs: 32, 40\); use a smaller block_size"
    ):
        recipe_for(Precision("int4", granularity="block", block_size=64), file)


GOOD = {
    "regex": ".*",
    "operation": "FULLY_CONNECTED",
    "algorithm_key": "min_max_uniform_quantize",
    "op_config": {
        "weight_tensor_config": {"num_bits": 8, "symmetric": True, "granularity": "CHANNELWISE", "dtype": "INT"},
        "compute_precision": "INTEGER",
        "explicit_dequantize": False,
    },
}


def _file(folder: Path, rules: Any) -> Path:
    path = folder / "recipe.json"
    path.write_text(rules if isinstance(rules, str) else json.dumps(rules))
    return path


def test_a_recipe_comes_back_as_it_was_written(tmp_path: Path):
    write_recipe(tmp_path / "recipe.json", [GOOD])

    rules = read_recipe(tmp_path / "recipe.json")

    assert rules[0] == GOOD
    assert [rule["operation"] for rule in rules[1:]] == ["INPUT", "OUTPUT"]  # float, since it says nothing of them


def test_a_recipe_of_the_quantizers_own_is_taken(tmp_path: Path, convnet: Any, quantize: Callable[..., Path]):
    from litert_quantizer import recipe

    rules = read_recipe(_file(tmp_path, recipe.static_wi8_ai8()))

    file = read_flatbuffer(quantize(convnet, Precision(), recipe=rules))
    assert file.ops_by_dtype == {"edge": 2, "int8": 6}


def _changed(**changed: Any) -> list[dict[str, Any]]:
    return [{**GOOD, **changed}]


def _config(**changed: Any) -> list[dict[str, Any]]:
    return _changed(op_config={**GOOD["op_config"], **changed})


@pytest.mark.parametrize(
    ("rules", "text"),
    [
        pytest.param({}, r"a recipe is a list of rules \(got", id="no list"),
        pytest.param([], "a recipe is a list of rules", id="empty"),
        pytest.param(["int8"], r"rule 1: is no map \(got 'int8'\)", id="rule"),
        pytest.param(_changed(regx=".*"), "rule 1: unknown key regx; did you mean 'regex'", id="key"),
        pytest.param([{"regex": ".*"}], "rule 1: algorithm_key is missing", id="missing"),
        pytest.param(_changed(regex="("), r"regex '\(' is no regular expression", id="regex"),
        pytest.param(
            _changed(operation="CONV2D"), r"operation must be .* \(got 'CONV2D'\); did you mean 'CONV_2D'", id="op"
        ),
        pytest.param(_changed(algorithm_key="GPTQ"), r"algorithm_key must be one of .*\(got 'GPTQ'\)", id="algorithm"),
        pytest.param(_config(compute_precision="INT"), "op_config.compute_precision must be one of", id="precision"),
        pytest.param(
            _config(explicit_dequantize=1), r"explicit_dequantize must be .* \(got 1\)", id="number for a flag"
        ),
        pytest.param(_config(skip_checks=True), "op_config.skip_checks must be one of False", id="no checks"),
        pytest.param(_config(min_weight_elements=-1), "must be a whole number from 0", id="elements"),
        pytest.param(
            _config(weight_tensor_config={"num_bits": 3}), r"num_bits must be one of 4, 8, 16 \(got 3\)", id="bits"
        ),
        pytest.param(
            _config(weight_tensor_config={"num_bits": 4, "dtype": "INT4"}), r"dtype must be .*'INT4'", id="dtype"
        ),
        pytest.param(
            _config(weight_tensor_config={"num_bits": 4, "block_size": 32}),
            "unknown key op_config.weight_tensor_config.block_size",
            id="key of a tensor",
        ),
        pytest.param(_changed(op_config=None), r"op_config must be a map", id="no config"),
        pytest.param(_changed(algorithm_key="no_quantize"), "nothing would be quantized", id="nothing"),
    ],
)
def test_a_recipe_that_says_nonsense_is_refused(tmp_path: Path, rules: Any, text: str):
    with pytest.raises(ConversionError, match=text):
        read_recipe(_file(tmp_path, rules))


def test_a_rule_that_finds_no_operator_is_refused(convnet: Any, quantize: Callable[..., Path]):
    with pytest.raises(
        ConversionError, match=r"regex 'hiden' of the recipe finds no operator; it is searched in names"
    ):
        quantize(convnet, Precision(), recipe=[GOOD, {**GOOD, "regex": "hiden"}])


def test_all_that_is_wrong_is_said_at_once(tmp_path: Path):
    with pytest.raises(ConversionError, match="rule 2: regex must be text") as caught:
        read_recipe(_file(tmp_path, [{**GOOD, "operation": "X"}, {**GOOD, "regex": 1, "more": 2}]))

    assert len(caught.value.messages) == 3


def test_a_recipe_that_is_no_json_is_another_kind_of_error(tmp_path: Path):
    with pytest.raises(ArtifactError, match="is no JSON"):
        read_recipe(_file(tmp_path, "[{"))
    with pytest.raises(ArtifactError, match="is no JSON"):
        read_recipe(_file(tmp_path, "[" * 100_000))
    with pytest.raises(ArtifactError, match="cannot read the recipe"):
        read_recipe(tmp_path / "none.json")

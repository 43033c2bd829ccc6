"""`input.json`: what a model needs to be understood."""

import json

import pytest

from mltool.errors import ArtifactError
from mltool.runs.input_schema import InputInfo, InputSchema, OutputInfo, PreprocessStep, load_input_schema

SCHEMA = InputSchema(
    inputs=(InputInfo("image", "float32", (8, 8, 1), 0.0, 16.0),),
    outputs=(
        OutputInfo("dense", (10,), "classification", "logits", tuple("0123456789")),
        OutputInfo("size", (1,), "regression", "values", scaled=True),
    ),
    preprocessing=(PreprocessStep("rescaling", "Rescaling", "image", False, {"scale": 0.0625}),),
)


def test_the_record_reads_back_as_it_was(tmp_path):
    (tmp_path / "input.json").write_text(json.dumps(SCHEMA.to_json()))
    assert load_input_schema(tmp_path / "input.json") == SCHEMA


@pytest.mark.parametrize("key", sorted(set(SCHEMA.to_json()) - {"schema_version"}))
def test_a_record_that_lacks_a_key_is_refused(key):
    document = SCHEMA.to_json()
    del document[key]
    with pytest.raises(ArtifactError, match=rf"input\.json lacks '{key}'"):
        InputSchema.from_json(document)


@pytest.mark.parametrize("text", [None, "", "{", "[]", '{"inputs": 3}'], ids=["gone", "empty", "cut", "list", "number"])
def test_a_damaged_record_is_refused(text, tmp_path):
    if text is not None:
        (tmp_path / "input.json").write_text(text)
    with pytest.raises(ArtifactError, match=r"input\.json (is missing or damaged|lacks)") as caught:
        load_input_schema(tmp_path / "input.json")
    assert caught.value.exit_code == 5

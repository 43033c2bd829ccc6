"""What is in a model file: shown without running it, and refused where it is none."""

import json
import zipfile

import pytest

from mltool.errors import ArtifactError
from mltool.inspection.inspect import inspect


def test_a_flatbuffer_shows_ends_operators_with_their_layers_and_weights(made):
    shown = inspect(made / "lite/int8-io.tflite")
    ends = shown["tables"]["inputs_and_outputs"]
    assert [(end["direction"], end["name"], end["dtype"], end["shape"]) for end in ends] == [
        ("input", "image", "int8", "1x8x8x1"),
        ("output", "scores", "int8", "1x10"),
    ]
    layers = {row["operator"]: row["layers"] for row in shown["tables"]["operators"]}
    assert layers["CONV_2D"] == "first"
    assert layers["FULLY_CONNECTED"] == "scores"
    assert shown["operators_by_dtype"] == {"int8": len(shown["tables"]["operators"])}


def test_a_file_of_a_damaged_run_is_shown_without_layers(run):
    run.spec_file.write_text("version: 99\n")
    shown = inspect(run.lite_folder / "int8.tflite")
    assert len(shown["tables"]["operators"]) > 2


def test_a_keras_file_shows_its_layers(made):
    shown = inspect(made / "model.keras")
    assert [row["layer"] for row in shown["tables"]["layers"]] == ["image", "rescaling", "first", "flatten", "scores"]


def test_a_saved_model_shows_its_signatures_and_not_its_machinery(made):
    rows = inspect(made / "saved_model/1")["tables"]["signatures"]
    assert {(row["signature"], row["direction"], row["name"], row["dtype"], row["shape"]) for row in rows} == {
        ("serving_default", "input", "image", "float32", "?x8x8x1"),
        ("serving_default", "output", "scores", "float32", "?x10"),
    }


def archive(path, **members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as opened:
        for name, data in members.items():
            opened.writestr(name.replace("_json", ".json").replace("weights", "model.weights.h5"), data)


GOOD = {"metadata_json": "{}", "config_json": json.dumps({"config": {}}), "weights": b""}


@pytest.mark.parametrize(
    ("members", "message"),
    [
        pytest.param({}, "metadata.json", id="nothing inside"),
        pytest.param({**GOOD, "config_json": "{"}, "damaged", id="no JSON"),
        pytest.param({**GOOD, "config_json": "[1]"}, "damaged", id="JSON of another form"),
        pytest.param({**GOOD, "config_json": "[" * 100_000}, "damaged", id="JSON without end"),
        pytest.param({**GOOD, "config_json": b" " * (33 << 20)}, "unpacks to more than", id="a bomb"),
    ],
)
def test_archives_that_are_no_keras_file_are_refused(tmp_path, members, message):
    archive(tmp_path / "m.keras", **members)
    with pytest.raises(ArtifactError, match=message):
        inspect(tmp_path / "m.keras")


@pytest.mark.parametrize("name", ["m.keras", "m.tflite"])
@pytest.mark.parametrize("data", [b"", b"text" * 50], ids=["empty", "text"])
def test_damaged_files_are_refused(tmp_path, name, data):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ArtifactError, match=r"m\.(keras|tflite)"):
        inspect(tmp_path / name)


def test_a_damaged_saved_model_is_refused(run):
    (run.saved_model_folder / "saved_model.pb").write_bytes(b"\x0a\xff\xff")
    with pytest.raises(ArtifactError, match="is damaged"):
        inspect(run.saved_model_folder)

"""`mltool convert` on models that no run trained: what is printed, refused, and left in the folder."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from foreign_models import dense, stay_warm, warm_children

from mltool.cli.artifact_table import artifact_table
from mltool.runs.lite import LiteFolder, LiteRecord

__all__ = ["dense", "stay_warm", "warm_children"]

Mltool = Callable[..., Any]


@pytest.fixture
def here(dense: Path, mltool: Mltool, tmp_path: Path) -> Path:
    """The working directory, with the models in it."""
    shutil.copytree(dense, tmp_path, dirs_exist_ok=True)
    return tmp_path


@pytest.mark.usefixtures("here", "stay_warm")
def test_a_folder_of_files_is_enough_for_a_device(mltool: Mltool, here: Path):
    ran = mltool("convert", "dense.keras", "--data", "data.yaml", "--quantize", "int8", "--json")

    assert ran.code == 0, ran.out
    assert ran.document["source"] == "dense.keras"
    assert ran.document["output"] == "dense-lite"
    (found,) = ran.document["artifacts"]
    assert (found["path"], found["verified"], found["made"]) == ("dense-lite/int8.tflite", True, True)
    assert found["metric"]["name"] == "accuracy"
    (here / "device").mkdir()
    shutil.move(here / "dense-lite", here / "device/lite")
    verified = mltool("verify", "device/lite", "--json")
    assert verified.code == 0
    assert [check["limit"] for check in verified.document["artifacts"][0]["checks"]] == ["replay"]
    answered = mltool("predict", "device/lite/int8.tflite", "-n", "3", "--json").document["predictions"]
    assert len(answered) == 3
    assert {record["answer"] for record in answered} <= {"0", "1", "2"}
    assert {record["truth"] for record in answered} <= {"0", "1", "2"}
    np.save(here / "new.npy", np.zeros((2, 4), np.float32))
    assert (
        len(mltool("predict", "device/lite/int8.tflite", "--input", "new.npy", "--json").document["predictions"]) == 2
    )
    timed = mltool("benchmark", "device/lite/int8.tflite", "--runs", "3", "--json")
    assert timed.document["latency_ms"]["p50"] > 0


@pytest.mark.usefixtures("here", "stay_warm")
def test_without_data_the_table_says_what_the_file_was_held_against(mltool: Mltool):
    ran = mltool("convert", "dense.tflite", "--input-range", "x=-1,1")

    assert ran.code == 0, ran.err
    assert "dense-lite/none.tflite" in ran.err
    assert "made-up samples" in ran.out
    assert "samples that are made up: floats N(0, 1), x from -1 to below 1" in ran.err
    assert mltool("verify", "dense-lite").code == 0
    answered = mltool("predict", "dense-lite/none.tflite", "-n", "2", "--json").document["predictions"]
    assert [set(record) for record in answered] == [{"id", "answer", "outputs"}] * 2  # and no truth
    vectors = LiteFolder(Path("dense-lite")).load_vectors()
    assert -1 <= vectors["input:x"].min() < -0.8
    assert mltool("benchmark", "dense-lite/none.tflite", "--runs", "3").code == 0


@pytest.mark.usefixtures("here", "stay_warm")
def test_random_calibration_makes_int8_and_says_that_its_accuracy_is_unknown(mltool: Mltool):
    refused = mltool("convert", "dense.tflite", "--quantize")

    assert refused.code == 2
    assert "int8 needs data to calibrate with; --data SPEC; or --calibration random; or --quantize none" in refused.err

    ran = mltool("convert", "dense.tflite", "--quantize", "--calibration", "random", "--json")

    (found,) = ran.document["artifacts"]
    assert (found["name"], found["accuracy_unknown"], found["verified"]) == ("int8", True, False)
    assert mltool("verify", "dense-lite").code == 8


@pytest.mark.usefixtures("here", "stay_warm")
def test_a_search_prints_what_it_tried(mltool: Mltool, here: Path):
    ran = mltool("convert", "dense.tflite", "--data", "data.yaml", "--quantize", "auto")

    assert ran.code == 0, ran.err
    assert "winner" in ran.out
    assert "qat" not in ran.out
    again = ran.out.partition("made again by: ")[2].splitlines()[0]
    (here / "again.yaml").write_text(f"{(here / 'data.yaml').read_text()}{again}\n")
    name = LiteFolder(here / "dense-lite").load_record("auto").entry["quantize"]
    ran = mltool("convert", "dense.tflite", "--data", "again.yaml", "--output", "again", "--json")
    assert ran.code == 0, ran.out
    (found,) = ran.document["artifacts"]
    assert found["quantize"] == name
    assert found["sha256"] == LiteFolder(here / "dense-lite").load_record("auto").sha256


@pytest.mark.usefixtures("here", "stay_warm")
def test_a_function_is_made_into_a_file(mltool: Mltool):
    ran = mltool("convert", "--from", "jax", "nets:make", "--quantize", "weight-only", "--json")

    assert ran.code == 0, ran.out
    assert ran.document["artifacts"][0]["path"] == "make-lite/weight-only.tflite"
    assert ran.document["artifacts"][0]["source"]["kind"] == "jax"
    assert mltool("convert", "--from", "jax", "nets:make", "--quantize", "dynamic").code == 0  # the same folder


@pytest.mark.usefixtures("here", "stay_warm")
def test_what_is_there_is_kept_without_force(mltool: Mltool):
    assert mltool("convert", "dense.tflite").code == 0

    refused = mltool("convert", "dense.tflite", "--json")

    assert refused.code == 5
    (message,) = refused.document["error"]["messages"]
    assert message["message"] == "dense-lite/none.tflite is there already"
    assert message["hint"] == "--force overwrites it, --output names another folder"
    assert mltool("convert", "dense.tflite", "--force").code == 0


MISFITS = [
    ("--data data.yaml", "--data is for a model file or --from, and the newest run is meant; leave it out, or name a"),
    ("20261123 --output o", "--output is for a model file or --from, and the run '20261123' is meant"),
    ("--input-range x=0,1", "--input-range is for a model file"),
    ("dense.keras --quantize qat", "qat trains a model on, and only that of a run can be; mltool train makes a run"),
    ("dense.keras --quantize qat --data data.yaml", "qat trains a model on"),
    ("dense.keras --quantize auto", "auto needs data: a search measures what each file loses; name a spec of them"),
    ("dense.keras --quantize auto --calibration random", "auto: a search measures accuracy, which random calibration"),
    ("dense.keras --quantize none --calibration random", "--calibration is for schemes that are calibrated (got none)"),
    ("dense.keras --quantize int8 --calibration some", "--calibration takes training or random (got 'some')"),
    ("dense.keras --max-drop 1%", "--max-drop needs data to measure a metric on; name a spec of them: --data SPEC"),
    ("dense.keras --data data.yaml --metric recall", "no metric 'recall'"),
    ("dense.keras --data data.yaml --input-range x=0,1", "--input-range is for samples that are made up, and --data"),
    ("dense.keras --data data.yaml --input-shape x=4", "--input-shape is for samples that are made up"),
    ("dense.tflite --input-shape 4", "--input-shape takes NAME=VALUE (got '4'); NAME is that of an input"),
    ("dense.tflite --input-shape x=a", "--input-shape x takes whole numbers above 0 (got 'a'); write --input-shape x="),
    ("dense.tflite --input-shape x=5", "input 'x' takes samples of shape (4,) (got (5,)); give another shape"),
    ("dense.tflite --input-shape y=4", "the model has no input 'y' to make up; it has x"),
    ("dense.tflite --input-range x=1", "--input-range x takes two numbers, the lesser first (got '1'); write"),
    ("dense.tflite --input-range x=1,0", "--input-range x takes two numbers, the lesser first (got '1,0')"),
    ("dense.tflite --input-range x=0,1 --input-range x=0,2", "--input-range is given twice for 'x'; leave one out"),
    ("dense.tflite --signature other", "no signature 'other'; it has serving_default"),
    ("dense.keras --signature other", "no signatures to choose from (got 'other'); leave out --signature"),
    ("nets:make", "nets:make looks like a function, of nobody says what; --from torch, or --from jax"),
    ("--from jax", "--from jax needs a function; mltool convert --from jax my_models:make"),
    ("--from onnx nets:make", "--from takes torch or jax (got 'onnx')"),
    ("--from jax nets:make --signature s", "--signature is for a model file, not for --from jax: what it returns has"),
    ("--from jax nets:make --allow-code", "--allow-code is for a model file, not for --from jax"),
    ("--from jax nets:other", "--from nets:other"),
    (
        "model.pt",
        "model.pt cannot be converted as it is; write a function that returns the module: mltool convert --fr",
    ),
    ("model.onnx", "model.onnx cannot be converted as it is; give the model that it was exported from"),
    ("dense.keras --support", "--support converts nothing, and dense.keras is given; mltool convert --support"),
]


@pytest.mark.usefixtures("here", "stay_warm")
@pytest.mark.parametrize(("arguments", "said"), MISFITS, ids=[arguments for arguments, _ in MISFITS])
def test_a_flag_that_does_not_fit_is_refused_with_its_cure(mltool: Mltool, arguments: str, said: str):
    ran = mltool("convert", *arguments.split())

    assert ran.code == 2, ran.err
    assert said in ran.err


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ("missing.keras", 5, "missing.keras is missing; give a .keras, .h5 or .tflite file, or a SavedModel folder"),
        ("data.npz", 5, "data.npz is no model that can be converted: its ending is .npz; give a .keras"),
        ("above", 5, "above holds no saved_model.pb; give above/1"),
        ("dense.keras --data missing.yaml", 3, "missing.yaml"),
        ("dense.keras --data only.yaml", 3, "only.yaml:1:1: train: has no section train; write train: {loss:"),
        ("dense.keras --data wrong.yaml", 3, "wrong.yaml:2:9: train.los: unknown key"),
        (
            "dense.keras --data none.yaml",
            2,
            "the spec says convert: [], so there is nothing to make; --quantize SCHEME",
        ),
    ],
)
def test_what_cannot_be_read_is_said(mltool: Mltool, here: Path, arguments: str, code: int, said: str):
    shutil.copytree(here / "dense", here / "above/1")
    data = "data: {source: {path: data.npz}}\n"
    train = "train: {loss: {SparseCategoricalCrossentropy: {from_logits: true}}}\n"
    (here / "only.yaml").write_text(data)
    (here / "wrong.yaml").write_text(f"{data}train: {{los: mse}}\n")
    (here / "none.yaml").write_text(f"{data}{train}convert: []\n")

    ran = mltool("convert", *arguments.split())

    assert ran.code == code, ran.err
    assert said in ran.err


def test_the_table_tells_made_up_samples_from_those_of_the_world():
    common: dict[str, Any] = {"quantize": "none", "io": "float32", "batch": 1, "sha256": "", "bytes": 1000}
    made_up = LiteRecord(name="a", source={"held_out": "generated"}, verified=True, **common)
    real = LiteRecord(name="b", source={"held_out": "test"}, verified=True, **common)

    assert "verified" not in artifact_table([real])
    lines = artifact_table([made_up, real]).splitlines()
    assert lines[0].endswith("verified")
    assert lines[2].endswith("made-up samples")
    assert lines[3].endswith("yes")


@pytest.mark.usefixtures("stay_warm")
def test_the_whole_spec_of_a_run_describes_data_too(mltool: Mltool, here: Path):
    (here / "whole.yaml").write_text(
        "name: whole\ndata: {source: {path: data.npz}}\nmodel: {layers: [Flatten, {Dense: {units: 3}}]}\n"
        "train: {epochs: 3, loss: {SparseCategoricalCrossentropy: {from_logits: true}}, metrics: [accuracy]}\n"
        "convert: [{quantize: weight-only}, {quantize: none, name: plain}]\nlimits: {max_size: 1 KB}\n"
    )

    ran = mltool("convert", "dense.tflite", "--data", "whole.yaml", "--json")

    assert ran.code == 8
    assert ran.document["error"]["messages"][0]["message"].startswith("weight-only: max_size")
    ran = mltool("convert", "dense.tflite", "--data", "whole.yaml", "--max-size", "100KB", "--json")
    assert [found["name"] for found in ran.document["artifacts"]] == ["weight-only", "plain"]

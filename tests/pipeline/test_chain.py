"""The chain from a spec to verified artifacts, and a limit that ends it."""

import json

import artifacts
import pytest
import yaml

from mltool import extras
from mltool.errors import ArtifactError, Interrupted, VerificationError
from mltool.exporting.onnx_export import PACKAGES
from mltool.pipeline import chain
from mltool.pipeline.chain import run_chain
from mltool.runs.run import Run
from mltool.spec.load import load_spec


def new_run(folder, **changes):
    spec = {**artifacts.DIGITS, "convert": [{"quantize": "int8"}, {"quantize": "none"}], **changes}
    (folder / "spec.yaml").write_text(yaml.safe_dump(spec, sort_keys=False))
    return Run.create(load_spec(folder / "spec.yaml"), folder / "runs/digits/20260101-000000-aaaa")


def test_the_chain_trains_evaluates_exports_converts_and_verifies(tmp_path):
    run = new_run(tmp_path)
    result = run_chain(run)
    report = json.loads(run.report_file.read_text())
    assert report["evaluation"]["metrics"]["accuracy"] > 0.8
    assert [(item["name"], item["verified"]) for item in report["artifacts"]] == [("int8", True), ("none", True)]
    assert [(verdict["kept"], verdict["metric_measured"]) for verdict in report["verified"]] == [(True, True)] * 2
    assert report["training"]["epochs"] == 3
    assert set(report) == {
        "schema_version", "run", "name", "training", "evaluation", "artifacts", "onnx", "verified", "failure",
        "environment",
    }  # fmt: skip
    assert set(run.manifest["stages"]) >= {"train", "export", "convert/int8", "convert/none"}
    for name in ("model.keras", "saved_model/1", "lite/int8.tflite", "lite/none.tflite"):
        assert run.require_unchanged(run.directory / name)
    assert result.to_json()["name"] == "digits"


def test_a_model_that_breaks_a_limit_itself_is_not_converted(tmp_path):
    run = new_run(tmp_path, train={**artifacts.DIGITS["train"], "epochs": 1}, limits={"min": 0.9999})
    result = run_chain(run)
    assert isinstance(result.failure, VerificationError)
    assert "the trained model breaks limits.min: accuracy 0." in str(result.failure)
    assert run.evaluation_file.is_file()
    assert not run.saved_model_folder.exists()
    report = json.loads(run.report_file.read_text())
    assert report["failure"][0]["hint"] == "train it better"
    assert report["artifacts"] == []


def test_a_limit_in_the_middle_ends_the_chain_and_the_report_tells_it(run):
    """Trained already, so the chain goes on; the file is one byte too large."""
    spec = yaml.safe_load(run.spec_file.read_text())
    spec["convert"] = [{"quantize": "none", "limits": {"max_size": 100}}, {"quantize": "float16"}]
    run.spec_file.write_text(yaml.safe_dump(spec, sort_keys=False))
    result = run_chain(run)
    assert "none: max_size: " in str(result.failure)
    assert (run.lite_folder / "rejected/none.json").is_file()
    report = json.loads(run.report_file.read_text())
    assert [(item["name"], item["verified"]) for item in report["artifacts"]] == [("none", False), ("float16", True)]
    assert "max_size" in report["failure"][0]["message"]


def test_a_chain_that_is_done_does_nothing_again(run):
    before = run.manifest
    models = {path: path.stat().st_mtime_ns for path in [run.keras_file, *run.lite_folder.glob("*.tflite")]}
    assert len(models) == 8
    result = run_chain(run)
    assert result.failure is None
    assert {path: path.stat().st_mtime_ns for path in models} == models
    assert (run.manifest["stages"], run.manifest["artifacts"]) == (before["stages"], before["artifacts"])
    assert [record.name for record in result.records] == [entry.name for entry in run.spec.convert]
    assert json.loads(run.report_file.read_text())["training"]["epochs"] == 3


def test_a_chain_that_was_interrupted_goes_on(run, monkeypatch):
    def stops(run):
        raise Interrupted("interrupted in the conversion", "mltool run --resume goes on")

    trained = run.manifest["stages"]["train"]
    with monkeypatch.context() as patch, pytest.raises(Interrupted, match="interrupted in the conversion"):
        patch.setattr(chain, "convert", stops)
        run_chain(run)
    assert not run.report_file.exists()
    assert run_chain(run).failure is None
    assert run.manifest["stages"]["train"] == trained
    assert len(json.loads(run.report_file.read_text())["verified"]) == 7


def test_a_file_that_was_changed_meanwhile_is_not_taken_for_done(run):
    path = run.lite_folder / "int8.tflite"
    path.write_bytes(path.read_bytes()[:-8] + b"changed!")
    with pytest.raises(ArtifactError, match=r"int8\.tflite was changed since it was made"):
        run_chain(run)


@pytest.mark.skipif(not all(map(extras.has, PACKAGES)), reason="needs pip install 'mltool-tf[onnx]'")
def test_the_chain_makes_an_onnx_file_where_the_spec_asks_for_one(run):
    """Trained and converted already, so the chain goes on."""
    spec = yaml.safe_load(run.spec_file.read_text())
    spec["export"]["formats"] = ["saved_model", "onnx"]
    run.spec_file.write_text(yaml.safe_dump(spec, sort_keys=False))
    result = run_chain(run)
    assert result.failure is None
    assert result.onnx == run.onnx_folder / "digits.onnx"
    assert json.loads(run.report_file.read_text())["onnx"] == str(run.require_unchanged(result.onnx))

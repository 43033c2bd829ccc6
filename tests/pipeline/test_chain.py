"""The chain from a spec to verified artifacts, and a limit that ends it."""

import json

import artifacts
import pytest
import yaml

from mltool.errors import VerificationError
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
        "schema_version", "run", "name", "training", "evaluation", "artifacts", "verified", "environment",
    }  # fmt: skip
    assert set(run.manifest["stages"]) >= {"train", "export", "convert/int8", "convert/none"}
    for name in ("model.keras", "saved_model/1", "lite/int8.tflite", "lite/none.tflite"):
        assert run.require_unchanged(run.directory / name)
    assert result.to_json()["name"] == "digits"


def test_a_model_that_breaks_a_limit_itself_is_not_converted(tmp_path):
    run = new_run(tmp_path, train={**artifacts.DIGITS["train"], "epochs": 1}, limits={"min": 0.9999})
    with pytest.raises(
        VerificationError, match=r"the trained model has accuracy 0\.\d{4}, limits\.min is 0\.9999"
    ) as ended:
        run_chain(run)
    assert ended.value.exit_code == 8
    assert run.evaluation_file.is_file()
    assert not run.saved_model_folder.exists()
    assert not run.report_file.exists()


def test_a_limit_in_the_middle_ends_the_chain(run):
    """Trained already, so the chain goes on; the file is one byte too large."""
    spec = yaml.safe_load(run.spec_file.read_text())
    spec["convert"] = [{"quantize": "none", "limits": {"max_size": 100}}]
    run.spec_file.write_text(yaml.safe_dump(spec, sort_keys=False))
    with pytest.raises(VerificationError, match=r"none: max_size: [\d,]+ bytes, at most 100"):
        run_chain(run)
    assert (run.lite_folder / "rejected/none.json").is_file()
    assert not run.report_file.exists()

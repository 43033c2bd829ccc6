"""`--format onnx`, and the verbs on the file that it makes."""

import shutil
from pathlib import Path

import artifacts
import numpy as np
import pytest

from mltool import extras
from mltool.cli.export_command import FORMATS
from mltool.runs.run import Run
from mltool.spec.export import ExportSpec
from mltool.spec.load import load_spec

needs_onnx = pytest.mark.skipif(
    not all(map(extras.has, ("tf2onnx", "onnx", "onnxruntime"))), reason="needs pip install 'mltool-tf[onnx]'"
)


@pytest.fixture
def run(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> Run:
    return artifacts.copied(artifacts.digits_run(tmp_path_factory.getbasetemp()), tmp_path)


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("onyx", "did you mean 'onnx'?"),
        ("savedmodel", "did you mean 'saved_model'?"),
        ("h5", "one of: saved_model, onnx"),
    ],
)
def test_an_unknown_format_is_exit_2_with_the_one_that_was_meant(mltool, word, hint):
    ran = mltool("export", "--format", word)
    assert (ran.code, ran.err) == (2, f"error: unknown format {word!r}; {hint}\n")


def test_the_formats_of_the_command_are_those_of_the_spec(mltool, spec):
    known = ExportSpec.model_json_schema()["properties"]["formats"]["items"]["enum"]
    assert tuple(known) == FORMATS
    ran = mltool("check", str(spec), "--set", "export.formats=[onyx]")
    assert ran.code == 3
    assert "export.formats.0: must be 'saved_model' or 'onnx' (got 'onyx'); did you mean 'onnx'?" in ran.err
    assert load_spec(spec, ["export.formats=[onnx]"]).export.formats == ("onnx",)


def test_a_spec_that_asks_for_onnx_without_it_is_exit_9_before_training(mltool, spec, monkeypatch):
    monkeypatch.setattr(extras, "has", lambda module: module != "onnxruntime")
    ran = mltool("run", str(spec), "--set", "export.formats=[saved_model, onnx]")
    assert ran.code == 9
    assert ran.err == "error: this needs onnxruntime, which is not installed; pip install 'mltool-tf[onnx]'\n"
    assert not Path("runs").exists()


@needs_onnx
def test_the_file_goes_through_the_verbs_as_the_others_do(mltool, run, tmp_path):
    made = mltool("export", "--format", "onnx", "--json").document
    assert (made["format"], made["made"], made["agreement"]["same_answer"]) == ("onnx", True, 1)
    file = made["artifact"]
    assert mltool("export", "--format", "onnx", "--json").document["made"] is False

    measured = mltool("evaluate", file, "--json").document
    assert measured["metrics"]["accuracy"] == mltool("evaluate", "--json").document["metrics"]["accuracy"]
    timed = mltool("benchmark", file, "--runs", "3", "--threads", "2", "--batch", "4", "--json").document
    assert timed["runtime"].startswith("ONNX Runtime ")
    assert (timed["threads"], timed["batch"]) == (2, 4)
    answered = [mltool("predict", which, "-n", "3", "--json").document["predictions"] for which in (file, run.id)]
    assert [item["answer"] for item in answered[0]] == [item["answer"] for item in answered[1]]
    assert mltool("inspect", file, "--json").document["opsets"] == {"ai.onnx": 18}

    # A copy of the folder is understood without its run, and held against its record.
    copy = shutil.copytree(Path(file).parent, tmp_path / "copy") / "digits.onnx"
    samples = run.lite_folder / "vectors.npz"
    images = tmp_path / "image.npz"
    with np.load(samples) as vectors:
        np.savez(images, image=vectors["input:image"][:2])
    assert "probabilities" in mltool("predict", str(copy), "--input", str(images), "--json").document["predictions"][0]
    copy.write_bytes(copy.read_bytes()[:200])
    ran = mltool("predict", str(copy), "--input", str(images))
    assert (ran.code, "was changed since it was made" in ran.err) == (5, True)
    copy.with_suffix(".json").unlink()
    ran = mltool("predict", str(copy), "--input", str(images))
    assert (ran.code, ran.err.count("\n")) == (5, 1)
    assert "cannot be loaded" in ran.err

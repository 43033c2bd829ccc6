"""Whatever way the path to an artifact is written, it is the same artifact; whatever is damaged, it is said."""

import shutil

import artifacts
import pytest

from mltool.errors import ArtifactError, DataError
from mltool.evaluation.verify import verify
from mltool.runs.run import Run


@pytest.mark.parametrize("path", ["lite/none.tflite", "lite", ".", "lite/../lite/none.tflite"])
def test_a_relative_path_inside_of_a_run_is_verified(path, run, monkeypatch):
    for other in run.lite_folder.glob("*.tflite"):
        if other.stem != "none":
            other.unlink()
    monkeypatch.chdir(run.directory)
    (verdict,) = verify(run.directory.__class__(path))
    assert verdict.name == "none"
    assert verdict.metric_measured


def test_a_file_elsewhere_is_no_artifact_of_the_run(run, tmp_path):
    with pytest.raises(ArtifactError, match="does not lie in the run"):
        run.artifact_hash(tmp_path / "model.keras")


@pytest.mark.parametrize("damage", ["empty", "flipped"])
def test_damaged_vectors_are_said(damage, run, tmp_path):
    alone = tmp_path / "lite"
    shutil.copytree(run.lite_folder, alone)
    content = bytearray((alone / "vectors.npz").read_bytes())
    for index in range(60, len(content), 97):
        content[index] ^= 0xFF
    (alone / "vectors.npz").write_bytes(b"" if damage == "empty" else bytes(content))
    with pytest.raises(ArtifactError, match=r"vectors\.npz is missing or damaged"):
        verify(alone / "none.tflite")


def test_an_erased_calibration_is_damage(run):
    artifacts.changed_json(run.lite_folder / "int8.json", calibration={})
    with pytest.raises(ArtifactError, match="the calibration in the record of int8 is damaged"):
        verify(run.lite_folder / "int8.tflite")


def test_calibration_samples_that_are_others_than_their_numbers_say_are_caught(run):
    import json

    record = json.loads((run.lite_folder / "int8.json").read_text())
    hashes = record["calibration"]["hashes"]
    hashes[0], hashes[1] = hashes[1], hashes[0]
    artifacts.changed_json(run.lite_folder / "int8.json", calibration=record["calibration"])
    with pytest.raises(DataError, match="2 calibration samples are not the training samples of that number"):
        verify(run.lite_folder / "int8.tflite")


def test_the_newest_run_is_the_one_made_last_whatever_it_is_called(run, tmp_path, monkeypatch):
    from mltool.runs.find import all_runs

    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.chdir(home)
    for name in ("zebra", "apple"):
        Run.create(run.spec, home / "runs/small" / name)
    assert [found.id for found in all_runs()] == ["apple", "zebra"]


def test_an_error_inside_of_a_lock_is_not_the_locks(run):
    with pytest.raises(PermissionError, match="denied"), run.locked():
        raise PermissionError(13, "denied", "/data/x.npz")

"""The run directory: made before anything heavy, written by one process, and what is in it stays as it was written."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mltool.errors import ArtifactError, DataError, MachineError
from mltool.runs.run import Run


def test_a_new_run_has_its_spec_and_a_manifest(run, spec):
    assert re.fullmatch(r"\d{8}-\d{6}-[a-z2-9]{4}", run.id)
    assert run.directory.parent == Path("runs/small").absolute()
    assert run.spec == spec
    assert run.status == "created"
    manifest = run.manifest
    assert (manifest["schema_version"], manifest["id"], manifest["name"], manifest["seed"]) == (1, run.id, "small", 7)


def test_a_run_goes_where_it_is_told(spec, tmp_path):
    run = Run.create(spec, Path("here/deep"))
    assert run.directory == tmp_path / "here" / "deep"
    assert Run.open(tmp_path / "here" / "deep").spec == spec


def test_a_run_overwrites_nothing(spec, run):
    with pytest.raises(MachineError, match="is not empty; a run overwrites nothing; choose another --run-dir"):
        Run.create(spec, run.directory)


def test_a_run_directory_that_cannot_be_made_is_said(spec):
    Path("file").write_text("")
    with pytest.raises(MachineError, match="cannot make the run directory file/below"):
        Run.create(spec, Path("file/below"))


def test_two_runs_of_one_second_differ(spec):
    assert Run.create(spec).id != Run.create(spec).id


# Opening


def test_a_folder_without_a_manifest_is_no_run(tmp_path):
    with pytest.raises(ArtifactError, match=r"is not a run: it has no run\.json and spec\.yaml") as caught:
        Run.open(tmp_path)
    assert caught.value.exit_code == 5


@pytest.mark.parametrize("text", ["", "{", "[]", "\x00"], ids=["empty", "cut off", "a list", "binary"])
def test_a_damaged_manifest_is_said(text, run):
    run.manifest_file.write_text(text)
    with pytest.raises(ArtifactError, match=r"run\.json is damaged"):
        Run.open(run.directory)


def test_a_manifest_that_is_no_utf8_is_damaged(run):
    run.manifest_file.write_bytes(b"\xff\xfe{}")
    with pytest.raises(ArtifactError, match=r"run\.json is damaged"):
        Run.open(run.directory)


def test_a_run_of_a_later_version_is_refused(run):
    run.update(schema_version=2)
    with pytest.raises(ArtifactError, match="has schema version 2, this mltool reads 1"):
        Run.open(run.directory)


# The manifest


def test_an_update_merges_maps_one_level_deep(run):
    run.update(versions={"keras": "3", "numpy": "2"}, list=[1])
    run.update(versions={"keras": "4"}, list=[2])
    assert run.manifest["versions"] == {"keras": "4", "numpy": "2"}
    assert run.manifest["list"] == [2]
    assert run.manifest["name"] == "small"


def test_none_takes_a_key_out_of_a_map(run):
    run.update(artifacts={"a": "1", "b": "2"})
    run.update(artifacts={"a": None, "c": None})
    assert run.manifest["artifacts"] == {"b": "2"}


def test_none_in_a_map_that_is_new_leaves_nothing(run):
    run.update(artifacts={"a": None})
    assert run.manifest["artifacts"] == {}


def test_a_manifest_is_always_whole_json(run):
    run.update(loss=float("nan"))
    assert json.loads(run.manifest_file.read_text())["loss"] is None


# Artifacts


def test_an_artifact_is_held_against_the_hash_of_when_it_was_made(trained):
    assert trained.require_unchanged(trained.keras_file) == trained.keras_file
    trained.keras_file.write_bytes(b"Weights")
    with pytest.raises(ArtifactError, match=r"model\.keras was changed since it was made: sha256 .*recorded"):
        trained.require_unchanged(trained.keras_file)


def test_a_folder_is_held_against_its_hash_too(run):
    folder = run.saved_model_folder
    folder.mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(b"1")
    assert run.record_artifact(folder) == run.artifact_hash(folder)
    (folder / "more").write_bytes(b"")
    with pytest.raises(ArtifactError, match="saved_model/1 was changed"):
        run.require_unchanged(folder)


def test_an_artifact_that_is_gone_is_said(trained):
    trained.keras_file.unlink()
    with pytest.raises(ArtifactError, match=r"model\.keras is missing; make it again"):
        trained.require_unchanged(trained.keras_file)


def test_an_artifact_that_was_never_recorded_is_not_trusted(run):
    run.keras_file.write_bytes(b"x")
    with pytest.raises(ArtifactError, match=r"has no model\.keras"):
        run.require_unchanged(run.keras_file)


def test_a_forgotten_artifact_is_not_trusted(trained):
    trained.forget_artifact(trained.keras_file)
    with pytest.raises(ArtifactError, match=r"has no model\.keras"):
        trained.artifact_hash(trained.keras_file)


def test_a_stage_is_fresh_while_its_inputs_are_equal(run):
    assert not run.stage_is_fresh("export", {"a": 1})
    run.record_stage("export", {"a": 1, "b": 2}, 0.5)
    assert run.stage_is_fresh("export", {"b": 2, "a": 1})
    assert not run.stage_is_fresh("export", {"a": 1, "b": 3})
    assert run.manifest["stages"]["export"]["seconds"] == 0.5


# Splits


def test_splits_read_back_as_they_were(run):
    ids = {"train": np.asarray([0, 2]), "validation": np.asarray([1]), "test": np.asarray([3])}
    hashes = {name: values.astype("<u8") * 11 for name, values in ids.items()}
    arrays = {f"{n}_ids": a for n, a in ids.items()} | {f"{n}_hashes": a for n, a in hashes.items()}
    run.save_splits(arrays)
    read = run.load_splits()
    assert sorted(read) == sorted(arrays)
    assert read["train_ids"].tolist() == [0, 2]
    assert read["test_hashes"].tolist() == [33]
    assert read["test_hashes"].dtype == np.uint64


@pytest.mark.parametrize(
    "content", [None, b"", b"PK\x03\x04cut off", b"text"], ids=["gone", "empty", "cut off", "text"]
)
def test_damaged_splits_are_said(content, run):
    if content is not None:
        run.splits_file.write_bytes(content)
    with pytest.raises(DataError, match=r"splits\.npz is missing or damaged"):
        run.load_splits()


def test_splits_with_one_byte_changed_are_damaged(run):
    run.save_splits({"train_ids": np.arange(1000), "train_hashes": np.arange(1000)})
    content = bytearray(run.splits_file.read_bytes())
    content[len(content) // 2] ^= 0xFF
    run.splits_file.write_bytes(content)
    with pytest.raises(DataError, match=r"splits\.npz is missing or damaged"):
        run.load_splits()


# The lock

_HOLD = """
import sys, time
from pathlib import Path
from mltool.runs.run import Run
with Run(Path(sys.argv[1])).locked():
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(run):
    """Another process that writes the run."""
    process = subprocess.Popen([sys.executable, "-c", _HOLD, str(run.directory)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_a_run_is_written_by_one_process(run, holder):
    with pytest.raises(MachineError, match="is being written by another process; wait for it") as caught, run.locked():
        pytest.fail("two processes hold the lock")
    assert caught.value.exit_code == 10


def test_a_killed_process_leaves_no_lock(run, holder):
    holder.kill()
    holder.wait()
    with run.locked():
        pass


def test_what_a_killed_process_left_half_is_cleared(run):
    run.lite_folder.mkdir()
    (run.lite_folder / ".int8.tflite.abcd1234.part").write_bytes(b"half")
    (run.directory / ".saved_model.abcd1234.old").mkdir()
    (run.directory / ".saved_model.abcd1234.old" / "x").write_bytes(b"")
    (run.directory / ".gitignore").write_bytes(b"")
    run.clear_partial_files()
    assert sorted(p.name for p in run.directory.rglob("*")) == [".gitignore", "lite", "run.json", "spec.yaml"]

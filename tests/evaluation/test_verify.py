"""Verification: what was changed, leaked or answers otherwise does not pass, and a device proves what it can."""

import json
import os
import shutil
import subprocess
import sys

import artifacts
import numpy as np
import pytest

from mltool.errors import ArtifactError, DataError, VerificationError
from mltool.evaluation import verify as room
from mltool.evaluation.evaluate import evaluate, kept_metrics
from mltool.evaluation.verify import verify
from mltool.inspection.flatbuffer import read_flatbuffer
from mltool.runs.atomic import sha256_of
from mltool.runs.run import Run


def overwrite_a_weight(path):
    """Halves the largest constant of the file, in place."""
    data = bytearray(path.read_bytes())
    sizes = [tensor.bytes for tensor in read_flatbuffer(path).constants if tensor.dtype == "int8"]
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(bytes(data), 0))
    buffer = next(b.data for b in model.buffers if b.data is not None and len(b.data) == max(sizes))
    where = bytes(data).find(bytes(bytearray(buffer)))
    changed = (np.frombuffer(bytes(data[where : where + max(sizes)]), np.int8) // 2).tobytes()
    data[where : where + max(sizes)] = changed
    path.write_bytes(bytes(data))


def rehash(run, name):
    path = run.lite_folder / f"{name}.tflite"
    artifacts.changed_json(run.lite_folder / f"{name}.json", sha256=sha256_of(path))
    run.record_artifact(path)


def only(run, *names):
    for path in run.lite_folder.glob("*.tflite"):
        if path.stem not in names:
            path.unlink()
    return run


def test_a_run_verifies_and_nothing_in_it_is_written(run):
    before = {path: path.stat().st_mtime_ns for path in run.directory.rglob("*") if path.is_file()}
    verdicts = verify(run)
    assert [verdict.name for verdict in verdicts] == ["dynamic", "five", "float16", "free", "int8", "int8-io", "none"]
    assert all(verdict.kept and verdict.metric_measured for verdict in verdicts)
    assert all(verdict.checks[0].message.startswith("bit-equal on 32 samples") for verdict in verdicts)
    assert {path: path.stat().st_mtime_ns for path in run.directory.rglob("*") if path.is_file()} == before


def test_a_weight_that_was_overwritten_is_caught_by_its_hash_and_re_hashed_by_its_answers(run):
    overwrite_a_weight(run.lite_folder / "int8.tflite")
    with pytest.raises(ArtifactError, match=r"int8\.tflite was changed since it was made: sha256") as caught:
        verify(run)
    assert caught.value.exit_code == 5
    artifacts.changed_json(run.lite_folder / "int8.json", sha256=sha256_of(run.lite_folder / "int8.tflite"))
    with pytest.raises(ArtifactError, match=r"int8\.tflite was changed"):  # run.json still knows
        verify(run)
    rehash(run, "int8")
    with pytest.raises(VerificationError, match=r"int8\.tflite: replay: not bit-equal on the runtime") as caught:
        verify(run)
    assert caught.value.exit_code == 8


def test_every_file_that_fails_is_told_and_the_others_are_verified(run, caplog):
    only(run, "dynamic", "float16", "int8")
    overwrite_a_weight(run.lite_folder / "int8.tflite")
    artifacts.changed_json(run.lite_folder / "dynamic.json", accuracy_unknown=True)
    with caplog.at_level("INFO", "mltool"), pytest.raises(ArtifactError) as caught:
        verify(run)
    told = [message.message for message in caught.value.messages]
    assert "int8.tflite was changed since it was made" in told[0]
    assert told[1].startswith("dynamic.tflite: unverified: random numbers calibrated it")
    assert len(told) == 2
    assert [text for text in caplog.messages if text.endswith(": holds")] == [
        f"{run.lite_folder / 'float16.tflite'}: holds"
    ]


def test_a_file_that_was_changed_is_told_also_where_nothing_can_be_held_against_the_model(run, monkeypatch):
    def changed(run, lite):
        raise DataError("the data changed")

    monkeypatch.setattr(room, "_reference", changed)
    overwrite_a_weight(run.lite_folder / "int8.tflite")
    with pytest.raises(ArtifactError, match="was changed since it was made") as caught:
        verify(only(run, "int8", "none"))
    assert [message.message for message in caught.value.messages][1:] == ["the data changed"]


def test_another_models_file_under_the_name_is_caught(run, made_pair):
    shutil.copy(made_pair / "lite/none.tflite", run.lite_folder / "none.tflite")
    rehash(run, "none")
    with pytest.raises(
        ArtifactError, match=r"takes and gives left, right -> value \[1\]; image -> scores \[10\] is exp"
    ):
        verify(run.lite_folder / "none.tflite")


def test_a_test_sample_in_the_recorded_calibration_is_caught(run):
    file = run.lite_folder / "int8.json"
    calibration = json.loads(file.read_text())["calibration"]
    calibration["ids"][3] = int(run.load_splits()["test_ids"][0])
    artifacts.changed_json(file, calibration=calibration)
    with pytest.raises(DataError, match="int8: 1 of 128 calibration samples are test samples") as caught:
        verify(run)
    assert caught.value.exit_code == 4
    artifacts.changed_json(file, calibration={"ids": [1], "hashes": ["no number"]})
    with pytest.raises(ArtifactError, match="the calibration in the record of int8 is damaged"):
        verify(run)


@pytest.mark.parametrize(
    "changes",
    [
        {"quantize": "int8"},
        {"quantize": "recipe"},
        {"quantize": "mixed", "entry": {"quantize": "int8", "layers": {"a": "float32"}}},
        {"quantize": "mixed", "entry": {"quantize": "dynamic", "layers": {"a": "int16x8"}}},
    ],
)
def test_a_calibration_that_is_not_recorded_is_no_clean_one(run, changes):
    artifacts.changed_json(run.lite_folder / "int8.json", calibration={}, **changes)
    with pytest.raises(ArtifactError, match="the calibration in the record of int8 is damaged"):
        verify(only(run, "int8"))


def test_the_model_that_was_trained_on_for_a_file_is_the_recorded_one(run):
    trained = run.lite_folder / "int8.keras"
    shutil.copy(run.keras_file, trained)
    artifacts.changed_json(run.lite_folder / "int8.json", training={"keras_sha256": sha256_of(trained)})
    assert verify(only(run, "int8"))
    trained.write_bytes(trained.read_bytes() + b" ")
    with pytest.raises(ArtifactError, match=r"int8\.keras was changed since int8 was made of it"):
        verify(run)


@pytest.mark.parametrize("changes", [{"limits": {"min": "much"}}, {"tolerance": {}}], ids=["limits", "tolerance"])
def test_a_record_that_says_nothing_to_hold_is_damaged(run, changes):
    artifacts.changed_json(run.lite_folder / "none.json", **changes)
    with pytest.raises(ArtifactError, match=r"none\.json is damaged"):
        verify(run.lite_folder / "none.tflite")


def test_a_limit_in_the_record_is_held_again_but_not_a_latency(run):
    artifacts.changed_json(run.lite_folder / "none.json", limits={"max_p90_latency": 1e-9})
    assert verify(only(run, "none"))
    artifacts.changed_json(run.lite_folder / "none.json", limits={"min": 0.999})
    with pytest.raises(VerificationError, match=r"none\.tflite: min: accuracy"):
        verify(run)


def test_on_another_runtime_answers_are_held_to_the_tolerance(run):
    only(run, "int8")
    artifacts.changed_json(run.lite_folder / "int8.json", runtime="LiteRT 9.9 on a phone")
    assert "on another runtime" in verify(run)[0].checks[0].message
    artifacts.changed_json(run.lite_folder / "int8.json", tolerance={"max_error": 0, "mean_error": 1, "same_answer": 0})
    with np.load(run.lite_folder / "vectors.npz") as stored:
        vectors = {**stored, "artifact:int8": stored["artifact:int8"] * [[-1]]}
    np.savez(run.lite_folder / "vectors.npz", **vectors)
    with pytest.raises(VerificationError, match=r"replay: max error 0\.9.*, at most 0 on another runtime"):
        verify(run)


@pytest.mark.parametrize("key", ["artifact:none", "input:image"])
def test_vectors_that_lack_something_are_refused(run, key):
    with np.load(run.lite_folder / "vectors.npz") as stored:
        vectors = {name: array for name, array in stored.items() if name != key}
    np.savez(run.lite_folder / "vectors.npz", **vectors)
    with pytest.raises(ArtifactError, match=rf"vectors\.npz lacks {key}; .*mltool convert --quantize none --force"):
        verify(only(run, "none"))


def test_a_copied_folder_replays_and_says_that_the_metric_was_not_run(made, tmp_path):
    folder = tmp_path / "device"
    shutil.copytree(made / "lite", folder)
    verdicts = verify(folder)
    assert len(verdicts) == 7
    assert not any(verdict.metric_measured for verdict in verdicts)
    # What needs no data is held all the same: the size, and the metric that was recorded.
    assert [check.limit for check in verdicts[0].checks] == ["replay", "max_size", "min"]
    (one,) = verify(folder / "int8.tflite")
    assert one.kept


def test_what_is_no_artifact_is_refused(run, tmp_path):
    with pytest.raises(ArtifactError, match=r"holds no \.tflite file; mltool convert makes them"):
        verify(tmp_path)
    with pytest.raises(ArtifactError, match=r"is no \.tflite file"):
        verify(run.keras_file)
    (run.lite_folder / "rejected").mkdir()
    with pytest.raises(VerificationError, match="was rejected when it was made"):
        verify(run.lite_folder / "rejected/int8.tflite")


def test_a_folder_of_rejected_files_does_not_verify_though_they_answer_well(run):
    folder = run.lite_folder / "rejected"
    shutil.copytree(only(run, "int8").lite_folder, folder)
    run.record_artifact(folder / "int8.tflite")
    artifacts.changed_json(folder / "int8.json", verified=False, error="asked for int8, the file is float32")
    with pytest.raises(VerificationError, match="rejected: it was rejected when it was made: asked for int8, the file"):
        verify(folder)


def test_data_that_changed_are_refused_and_data_that_are_gone_leave_the_replay(
    made_pair, tmp_path, caplog, monkeypatch
):
    run = only(artifacts.copied(made_pair, tmp_path), "none")
    source = tmp_path / "pair.npz"
    shutil.copy(made_pair.parent.parent.parent / "pair.npz", source)
    text = run.spec_file.read_text()
    run.spec_file.write_text(text.replace(str(made_pair.parent.parent.parent / "pair.npz"), str(source)))
    assert verify(run)[0].metric_measured
    with np.load(source) as stored:
        arrays = dict(stored)
    arrays["a"][:50] += 1
    np.savez(source, **arrays)
    for verb in (verify, evaluate):
        with pytest.raises(DataError, match=r"samples of \w+ changed since the run was trained") as caught:
            verb(run)
        assert caught.value.exit_code == 4
    source.unlink()
    assert not verify(run)[0].metric_measured
    assert "pair.npz is not here: answers are replayed" in caplog.text


def test_evaluation_of_a_run_is_kept_with_the_hash_of_its_model(run):
    run.evaluation_file.unlink()
    result = evaluate(run)
    assert set(result.to_json()) == {"run", "artifact", "split", "samples", "metrics"}
    kept = json.loads(run.evaluation_file.read_text())
    assert kept == {**result.to_json(), "runtime": result.runtime, "sha256": run.artifact_hash(run.keras_file)}
    assert kept_metrics(run) == result.metrics
    evaluate(run, run.lite_folder / "int8.tflite")
    assert json.loads(run.evaluation_file.read_text()) == kept
    artifacts.changed_json(run.evaluation_file, sha256="other")
    with pytest.raises(ArtifactError, match="of another model"):
        kept_metrics(run)
    run.evaluation_file.write_text("[]")
    with pytest.raises(ArtifactError, match=r"evaluation\.json is missing or damaged"):
        kept_metrics(run)


def test_an_artifact_that_was_changed_or_rejected_is_not_evaluated(run):
    (run.lite_folder / "rejected").mkdir()
    shutil.copy(run.lite_folder / "int8.tflite", run.lite_folder / "rejected/int8.tflite")
    with pytest.raises(ArtifactError, match="was rejected when it was made"):
        evaluate(run, run.lite_folder / "rejected/int8.tflite")
    run.keras_file.write_bytes(run.keras_file.read_bytes() + b" ")
    with pytest.raises(ArtifactError, match=r"model\.keras was changed"):
        evaluate(run)


def test_the_recorded_reference_must_be_of_these_samples(run, monkeypatch):
    monkeypatch.setattr(room.extras, "has", lambda _: False)
    only(run, "none")
    assert verify(run)[0].metric_measured
    with np.load(run.lite_folder / "vectors.npz") as stored:
        np.savez(run.lite_folder / "vectors.npz", **{**stored, "ids": stored["ids"][::-1]})
    with pytest.raises(ArtifactError, match="is not of the first test samples"):
        verify(run)


@pytest.fixture(scope="module")
def without_tensorflow(tmp_path_factory):
    """Runs mltool where TensorFlow and Keras are not installed, children included."""
    folder = tmp_path_factory.mktemp("no_tensorflow")
    hidden = "import sys\nfor name in ('tensorflow', 'keras', 'tf_keras'):\n    sys.modules[name] = None\n"
    (folder / "sitecustomize.py").write_text(hidden)

    def run(*arguments):
        return subprocess.run(
            [sys.executable, "-m", "mltool.cli.main", *arguments],
            capture_output=True,
            text=True,
            timeout=60,
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(folder)},
            check=False,
        )

    return run


def test_without_tensorflow_a_run_is_verified_evaluated_and_asked(made, without_tensorflow):
    verified = without_tensorflow("verify", str(made), "--json")
    assert verified.returncode == 0, verified.stderr
    found = json.loads(verified.stdout)["artifacts"]
    assert len(found) == 7
    assert all(item["metric_measured"] for item in found)
    int8 = next(item for item in found if item["artifact"].endswith("int8.tflite"))
    checks = {check["limit"]: check["message"] for check in int8["checks"]}
    record = json.loads((made / "lite/int8.json").read_text())
    assert f"accuracy {record['metric']['value']:.4f} against {record['metric']['reference']:.4f}" in checks["max_drop"]
    evaluated = without_tensorflow("evaluate", str(made / "lite/int8.tflite"), "--json")
    assert json.loads(evaluated.stdout)["metrics"]["accuracy"] == record["metric"]["value"]
    predicted = without_tensorflow("predict", str(made / "lite/int8.tflite"), "-n", "2", "--json")
    assert len(json.loads(predicted.stdout)["predictions"]) == 2


@pytest.mark.parametrize(
    "verb",
    [("export", "--force"), ("convert", "--force"), ("evaluate",)],
    ids=["export", "convert", "evaluate the run"],
)
def test_a_verb_that_needs_tensorflow_says_how_to_install_it(run, without_tensorflow, verb):
    ended = without_tensorflow(verb[0], str(run.directory), *verb[1:])
    assert ended.returncode == 9
    assert "which is not installed; pip install 'mltool-tf[train]'" in ended.stderr
    assert Run.open(run.directory).require_unchanged(run.saved_model_folder)


@pytest.mark.parametrize(
    ("changes", "limit"),
    [
        pytest.param({"limits": {"max_size": 1}}, "max_size", id="size"),
        pytest.param({"limits": {"min": 0.999}}, "min", id="a metric that was recorded"),
    ],
)
def test_a_device_holds_what_needs_no_data(made, tmp_path, changes, limit):
    folder = tmp_path / "device"
    shutil.copytree(made / "lite", folder)
    artifacts.changed_json(folder / "int8.json", **changes)
    with pytest.raises(VerificationError, match=rf"int8\.tflite: {limit}: "):
        verify(folder / "int8.tflite")


@pytest.mark.parametrize("changes", [{"sha256": None}, {"bytes": "x"}, {"verified": "no"}, {"checks": 5}], ids=str)
def test_a_record_of_other_types_is_damaged(made, tmp_path, changes):
    folder = tmp_path / "device"
    shutil.copytree(made / "lite", folder)
    artifacts.changed_json(folder / "int8.json", **changes)
    with pytest.raises(ArtifactError, match=r"int8\.json is missing or damaged"):
        verify(folder / "int8.tflite")


def test_a_rejected_file_that_was_copied_says_that_it_was_rejected(made, tmp_path):
    folder = tmp_path / "device"
    shutil.copytree(made / "lite", folder)
    artifacts.changed_json(folder / "int8.json", verified=False, error="int8: max_drop: too much")
    with pytest.raises(VerificationError, match="it was rejected when it was made: int8: max_drop: too much"):
        verify(folder / "int8.tflite")

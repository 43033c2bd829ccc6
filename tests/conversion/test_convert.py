"""Conversion of a run: what is made, what is kept, and that the chain, broken on purpose, does not hold."""

import contextlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import artifacts
import numpy as np
import pytest

from mltool.child import Child
from mltool.conversion import convert as room
from mltool.conversion import origin as origins
from mltool.conversion import workbench
from mltool.conversion.calibration import Calibration
from mltool.conversion.convert import convert
from mltool.conversion.entries import entries_for
from mltool.data.dataset import Dataset
from mltool.errors import ArtifactError, ConversionError, DataError, MachineError, UsageError, VerificationError
from mltool.evaluation.verify import verify
from mltool.inference.litert import LiteRtPredictor
from mltool.runs.lite import LiteFolder
from mltool.runs.run import Run
from mltool.spec.convert import ConvertSpec
from mltool.spec.load import load_spec
from mltool.training.train import train


@pytest.fixture(scope="module")
def warm():
    with Child() as child:
        yield child


@pytest.fixture(autouse=True)
def one_process(warm, monkeypatch):
    """Both children of a command are one process that stays: starting TensorFlow anew costs 5 s a test."""
    monkeypatch.setattr(room, "Child", lambda: contextlib.nullcontext(warm))


def entry(**keys):
    return ConvertSpec.model_validate(keys)


def record_of(run, name):
    return LiteFolder(run.lite_folder).load_record(name)


def rejected(run, name):
    assert not (run.lite_folder / f"{name}.tflite").exists()
    assert not (run.lite_folder / f"{name}.json").exists()
    assert f"lite/{name}.tflite" not in run.manifest["artifacts"]
    assert (run.lite_folder / f"rejected/{name}.tflite").is_file()
    return json.loads((run.lite_folder / f"rejected/{name}.json").read_text())


@pytest.mark.parametrize(
    ("name", "ends", "weights", "computes"),
    [
        ("none", "float32", {"float32"}, {"float32"}),
        ("dynamic", "float32", {"int8", "float32"}, {"float32", "hybrid"}),
        ("float16", "float32", {"float16"}, {"float32"}),
        ("int8", "float32", {"int8"}, {"int8"}),
        ("int8-io", "int8", {"int8"}, {"int8"}),
    ],
)
def test_every_scheme_is_made_read_back_verified_and_recorded(made, name, ends, weights, computes):
    run = Run.open(made)
    record = record_of(run, name)
    assert record.verified
    assert all(check["kept"] for check in record.checks)
    found = record.read_back
    assert (found["inputs"], found["outputs"]) == ({"image": ends}, {"scores": ends})
    assert set(found["weight_bytes_by_dtype"]) - {"int32"} <= weights
    assert set(found["operator_share_by_dtype"]) - {"edge"} <= computes
    assert found["float_islands"] == []
    path = run.lite_folder / f"{name}.tflite"
    assert run.require_unchanged(path).stat().st_size == record.bytes
    assert record.metric["name"] == "accuracy"
    assert record.metric["reference"] == json.loads(run.evaluation_file.read_text())["metrics"]["accuracy"]
    assert record.metric["drop"] == pytest.approx(record.metric["reference"] - record.metric["value"])
    assert f"convert/{name}" in run.manifest["stages"]


def test_calibration_is_training_data_drawn_by_class_and_recorded(made):
    run = Run.open(made)
    calibration = record_of(run, "int8").calibration
    splits = run.load_splits()
    assert len(set(calibration["ids"])) == len(calibration["hashes"]) == calibration["samples"] == 128
    assert set(calibration["ids"]) <= set(splits["train_ids"].tolist())
    classes = np.bincount(Dataset(run.spec).targets[calibration["ids"]])
    assert classes.min() >= 11
    assert record_of(run, "float16").calibration == {}


def test_a_folder_for_a_device_holds_labels_inputs_and_answers(made):
    lite = LiteFolder(made / "lite")
    assert lite.labels_file.read_text().splitlines() == [str(digit) for digit in range(10)]
    assert lite.load_schema() == Run.open(made).input_schema
    vectors = lite.load_vectors()
    assert set(vectors) == {"ids", "targets", "keras", "input:image", *(f"artifact:{name}" for name in lite.names())}
    assert {len(array) for array in vectors.values()} == {32}
    assert vectors["ids"].tolist() == Run.open(made).load_splits()["test_ids"][:32].tolist()
    np.testing.assert_allclose(vectors["artifact:none"], vectors["keras"], atol=1e-5)


def test_equal_inputs_are_nothing_to_do_and_force_makes_it_again(run, caplog):
    caplog.set_level("INFO", "mltool")
    (again,) = convert(run, [entry(quantize="none")])
    assert not again.made
    assert "none.tflite is there already, from equal inputs; nothing to do (--force" in caplog.text
    (forced,) = convert(run, [entry(quantize="none")], force=True)
    assert forced.made
    assert forced.record.sha256 == again.record.sha256


def test_without_verification_a_file_says_so_and_verification_comes_later(run, tmp_path):
    (bare,) = convert(run, [entry(quantize="none", name="bare")], verify=False)
    assert not bare.record.verified
    assert bare.record.checks == []
    alone = tmp_path / "lite"
    shutil.copytree(bare.path.parent, alone)
    with pytest.raises(VerificationError, match=r"bare\.tflite: unverified: it was made with --no-verify") as caught:
        verify(alone / "bare.tflite")
    assert caught.value.exit_code == 8
    # With the model and the data at hand it is held against them; a record is written by conversion alone.
    (verdict,) = verify(bare.path)
    assert verdict.kept
    assert verdict.metric_measured
    (later,) = convert(run, [entry(quantize="none", name="bare")])
    assert later.made
    assert later.record.verified
    # A file that was verified is more than was asked for: it stays.
    (kept,) = convert(run, [entry(quantize="none", name="bare")], verify=False)
    assert not kept.made
    assert kept.record.verified


def test_answers_of_files_that_are_gone_leave_the_vectors(run):
    (run.lite_folder / "int8.tflite").unlink()
    convert(run, [entry(quantize="none")], force=True)
    assert "artifact:int8" not in LiteFolder(run.lite_folder).load_vectors()
    convert(run, [entry(quantize="none")], force=True, verify=False)
    assert "artifact:none" not in LiteFolder(run.lite_folder).load_vectors()


def test_damaged_vectors_are_written_anew(run, caplog):
    (run.lite_folder / "vectors.npz").write_bytes(b"none")
    convert(run, [entry(quantize="none")], force=True)
    assert "vectors.npz is missing or damaged" in caplog.text
    assert "artifact:none" in LiteFolder(run.lite_folder).load_vectors()


def test_what_a_killed_conversion_left_is_cleared_and_made_again(run):
    """Killed between the file and its record: the file has its name, and is not taken for a verified one."""
    (run.lite_folder / "none.json").unlink()
    left = run.lite_folder / ".none.0000.part"
    left.write_bytes(b"half")
    with pytest.raises(ArtifactError, match=r"none\.json is missing"):
        verify(run)
    (again,) = convert(run, [entry(quantize="none")])
    assert again.made
    assert again.record.verified
    assert not left.exists()


def test_a_converter_that_returns_a_float_file_for_int8_is_caught(run, monkeypatch):
    class Dishonest(Child):
        def call(self, function, /, **arguments):
            if function == workbench.CONVERTER:
                shutil.copy(run.lite_folder / "none.tflite", arguments["output"])
                return {"messages": [], "bytes": 0, "seconds": {}}
            return super().call(function, **arguments)

    monkeypatch.setattr(room, "Child", Dishonest)
    with pytest.raises(
        ConversionError, match=r"int8: asked for int8, the file is float32: \d of \d operators"
    ) as caught:
        convert(run, [entry(quantize="int8")], force=True)
    assert caught.value.exit_code == 7
    verdict = rejected(run, "int8")
    assert not verdict["verified"]
    assert "the file is float32" in verdict["error"]
    monkeypatch.undo()
    convert(run, [entry(quantize="int8")])
    assert not (run.lite_folder / "rejected").exists()


def test_a_converter_that_writes_half_a_file_is_caught(run, monkeypatch):
    class Careless(Child):
        def call(self, function, /, **arguments):
            whole = (run.lite_folder / "none.tflite").read_bytes()
            Path(arguments["output"]).write_bytes(whole[: len(whole) // 2])
            return {"messages": [], "bytes": 0, "seconds": {}}

    monkeypatch.setattr(room, "Child", Careless)
    with pytest.raises(ConversionError, match=r"half: the file that was made is damaged: ") as caught:
        convert(run, [entry(quantize="none", name="half")])
    assert caught.value.exit_code == 7
    assert "part" not in str(caught.value)
    rejected_file = run.lite_folder / "rejected/half.json"
    assert "damaged" in json.loads(rejected_file.read_text())["error"]


def test_a_size_is_held_where_nothing_else_is_measured(run):
    with pytest.raises(VerificationError, match=r"bare: max_size: [\d,]+ bytes, at most 10"):
        convert(run, [entry(quantize="none", name="bare")], verify=False, limits={"max_size": 10})
    assert (run.lite_folder / "rejected/bare.tflite").is_file()
    assert not (run.lite_folder / "bare.tflite").exists()


def test_a_recipe_that_is_gone_is_named(run, tmp_path):
    with pytest.raises(ArtifactError, match=r"mine: the recipe .*mine\.json is not there; put it back"):
        convert(run, [entry(quantize=str(tmp_path / "mine.json"))])


def test_a_recipe_that_was_written_is_a_recipe_that_is_read(run, tmp_path):
    """What the quantizer did lies beside its file, and makes the same bytes again."""
    (made,) = convert(run, [entry(quantize="weight-only")])
    recipe = LiteFolder(run.lite_folder).recipe_file("weight-only")
    copy = tmp_path / "again.json"
    shutil.copy(recipe, copy)
    (again,) = convert(run, [entry(quantize=str(copy))])
    assert again.record.name == "again"
    assert again.record.quantize == "recipe"
    assert again.record.sha256 == made.record.sha256


def test_random_calibration_stamps_the_file_and_measures_nothing(run):
    (made,) = convert(run, [entry(quantize="int8", name="blind", calibration="random")])
    record = record_of(run, "blind")
    assert record.accuracy_unknown
    assert not record.verified
    assert (record.metric, record.agreement) == ({}, {})
    assert record.calibration["split"] == "random"
    assert record.read_back["operator_share_by_dtype"]["int8"] > 0.5
    with pytest.raises(VerificationError, match=r"blind\.tflite: unverified: random numbers calibrated it") as caught:
        verify(made.path)
    assert caught.value.exit_code == 8
    (again,) = convert(run, [entry(quantize="int8", name="blind", calibration="random")])
    assert not again.made


@pytest.mark.parametrize(
    ("function", "keys", "error", "message"),
    [
        pytest.param("die_of_a_signal", {}, ConversionError, r"int8: the converter was killed by SIGSEGV", id="signal"),
        pytest.param(
            "never_answer",
            {"CONVERT_TIMEOUT_SECONDS": 1.5},
            ConversionError,
            r"int8: the converter did not answer in 1\.5 s",
            id="time",
        ),
        pytest.param(
            "take_memory",
            {"free_memory_bytes": lambda: 6e8},
            MachineError,
            r"int8: the converter took more than 0\.5 GB and was ended",
            id="memory",
        ),
    ],
)
def test_a_converter_that_does_not_come_back_is_one_message(run, monkeypatch, function, keys, error, message):
    monkeypatch.setattr(room, "Child", lambda: Child("converters"))
    monkeypatch.setattr(workbench, "CONVERTER", f"converters:{function}")
    for key, value in keys.items():
        monkeypatch.setattr(workbench, key, value)
    with pytest.raises(error, match=message):
        convert(run, [entry(quantize="int8")], force=True)
    assert not list(run.lite_folder.glob(".*.part"))
    assert record_of(run, "int8").verified  # the one of before


def test_test_samples_in_the_calibration_are_caught(run, monkeypatch):
    def leaky(data, count, seed, ranges):
        ids = np.concatenate([data.splits.train[: count - 3], data.splits.test[:3]])
        return Calibration(data.take(ids), data.hashes[ids])

    monkeypatch.setattr(origins, "draw_representative", leaky)
    with pytest.raises(DataError, match="3 of 128 calibration samples are test samples") as caught:
        convert(run, [entry(quantize="int8", name="leaky")])
    assert caught.value.exit_code == 4
    assert not (run.lite_folder / "leaky.tflite").exists()


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        pytest.param({"min": 0.999}, r"int8: min: accuracy 0\.\d+, at least 0\.999", id="min"),
        pytest.param({"min": None, "max": 0.1}, r"int8: max: accuracy 0\.\d+, at most 0\.1", id="max"),
        pytest.param({"max_size": 1000}, r"int8: max_size: [\d,]+ bytes, at most 1,000", id="size"),
        pytest.param(
            {"max_p90_latency": 1e-6}, r"int8: max_p90_latency: .* ms on this host, at most 1e-06 ms", id="p90"
        ),
    ],
)
def test_a_broken_limit_rejects_the_file(run, limits, message):
    with pytest.raises(VerificationError, match=message) as caught:
        convert(run, [entry(quantize="int8")], limits=limits)
    assert caught.value.exit_code == 8
    assert "rejected/int8.tflite" in str(caught.value)
    verdict = rejected(run, "int8")
    broken = [check["limit"] for check in verdict["checks"] if not check["kept"]]
    assert broken == [key for key, limit in limits.items() if limit is not None]


def test_limits_that_contradict_the_spec_are_told_before_anything_is_made(run):
    before = (run.lite_folder / "int8.tflite").read_bytes()
    with pytest.raises(UsageError, match=r"beside the limits of the spec: min must be at most max"):
        convert(run, [entry(quantize="int8")], limits={"max": 0.1})
    with pytest.raises(UsageError, match="maxdrop: "):
        convert(run, [entry(quantize="int8")], limits={"maxdrop": 0.1})
    assert (run.lite_folder / "int8.tflite").read_bytes() == before


@pytest.mark.parametrize(
    ("spoil", "limit"),
    [
        pytest.param(lambda o: np.roll(o, 1, axis=1), "max_drop", id="other answers"),
        pytest.param(lambda o: np.where(o == o.max(), np.nan, o), "finite", id="NaN"),
        pytest.param(lambda o: np.broadcast_to(o[:1], o.shape), "constant", id="constant"),
    ],
)
def test_a_file_that_answers_otherwise_is_rejected(run, monkeypatch, spoil, limit):
    honest = LiteRtPredictor.predict
    monkeypatch.setattr(
        LiteRtPredictor, "predict", lambda self, batch: {k: spoil(v) for k, v in honest(self, batch).items()}
    )
    with pytest.raises(VerificationError, match=f"float16: {limit}: ") as caught:
        convert(run, [entry(quantize="float16")], force=True)
    assert caught.value.exit_code == 8
    rejected(run, "float16")


def test_what_fails_does_not_keep_the_others_from_being_made(run):
    asked = [
        entry(quantize="none", name="small", limits={"max_size": 100}),
        entry(quantize="none", name="good"),
        entry(quantize="float16", name="other", limits={"max": 0.1}),
    ]
    with pytest.raises(VerificationError, match=r"(?s)small: max_size: .*other: max: "):
        convert(run, asked)
    assert record_of(run, "good").verified
    assert "artifact:good" in LiteFolder(run.lite_folder).load_vectors()


def test_an_error_that_every_entry_meets_is_said_once(run, monkeypatch):
    def changed(_):
        raise DataError("5 samples of test changed since the run was trained")

    monkeypatch.setattr(origins, "run_data", changed)
    with pytest.raises(DataError, match="5 samples of test changed") as caught:
        convert(run, [entry(quantize="int8", name="a"), entry(quantize="int8", name="b")])
    assert len(caught.value.messages) == 1


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        pytest.param(lambda run: run.keras_file, r"model\.keras was changed", id="Keras file"),
        pytest.param(
            lambda run: run.saved_model_folder / "fingerprint.pb", r"saved_model/1 was changed", id="SavedModel"
        ),
        pytest.param(lambda run: run.lite_folder / "none.tflite", r"none\.tflite was changed", id="flatbuffer"),
    ],
)
def test_what_was_changed_is_not_converted(run, spoil, message):
    with spoil(run).open("ab") as file:
        file.write(b"x")
    with pytest.raises(ArtifactError, match=message) as caught:
        convert(run, [entry(quantize="none")])
    assert caught.value.exit_code == 5


def test_a_limit_on_a_metric_that_is_not_measured_is_refused_instead_of_kept(run):
    with pytest.raises(UsageError, match=r"no metric 'acuracy'; did you mean 'accuracy'\?"):
        convert(run, limits={"metric": "acuracy", "min": 0.99})
    with pytest.raises(MachineError, match="is being written by another process"), run.locked():
        convert(run)


@pytest.mark.parametrize(
    ("asked", "names"),
    [
        pytest.param(None, ["none", "dynamic", "float16", "int8", "int8-io", "five", "free"], id="all of the spec"),
        pytest.param("", ["dynamic", "float16", "int8", "int8-io"], id="the quantized ones"),
        pytest.param("float16", ["float16"], id="one of the spec"),
        pytest.param("int8-io", ["int8-io"], id="int8 with integer inputs and outputs"),
    ],
)
def test_quantize_chooses_entries(made, asked, names):
    assert [chosen.name for chosen in entries_for(Run.open(made).spec, asked)] == names


def test_quantize_alone_is_int8_where_the_spec_quantizes_nothing(made):
    spec = Run.open(made).spec
    bare = spec.model_copy(update={"convert": (entry(quantize="none"),)})
    assert [chosen.name for chosen in entries_for(bare, "")] == ["int8"]
    assert entries_for(bare, "float16") == (entry(quantize="float16"),)


def test_raw_features_keep_their_normalization_in_float_and_list_it(tmp_path_factory, tmp_path):
    run = artifacts.copied(artifacts.table_run(tmp_path_factory.getbasetemp()), tmp_path)
    (auto,) = convert(run, limits={"max_drop": "5%"})
    assert auto.record.metric["drop"] <= 0.03
    islands = auto.record.read_back["float_islands"]
    assert {(island["op"], *island["layers"], island["reason"]) for island in islands} == {
        ("SUB", "normal", "keep_float"), ("MUL", "normal", "keep_float"),
    }  # fmt: skip
    with pytest.raises(VerificationError, match=r"inside: (max_error|same_answer|max_drop): ") as caught:
        convert(run, [entry(quantize="int8", preprocess="inside", name="inside")])
    assert caught.value.exit_code == 8
    (hidden,) = convert(run, [entry(quantize="int8", keep_float=["hidden"], name="hidden")], limits={"max_drop": "5%"})
    assert {island["layers"][0] for island in hidden.record.read_back["float_islands"]} == {"normal", "hidden"}


def test_the_bins_of_a_number_with_a_heavy_tail_stay_right_in_int8(tmp_path):
    random = np.random.default_rng(4)
    gains = np.where(random.random(900) < 0.7, 0, random.lognormal(7, 3, 900)).round(1)
    ages = random.uniform(20, 80, 900).round(1)
    rows = [f"{gain},{age},{'yes' if 300 < gain < 3000 else 'no'}" for gain, age in zip(gains, ages, strict=True)]
    (tmp_path / "gains.csv").write_text("\n".join(["gain,age,rich", *rows]), encoding="utf-8")
    spec = {
        "name": "gains",
        "data": {"source": {"path": "gains.csv", "target": "rich"}},
        "model": {"preprocess": "auto", "layers": [{"Dense": {"units": 2, "name": "out"}}]},
        "train": {
            "epochs": 30,
            "optimizer": {"Adam": {"learning_rate": 0.05}},
            "loss": artifacts.LOGITS,
            "metrics": ["accuracy"],
        },
    }
    (tmp_path / "gains.yaml").write_text(json.dumps(spec), encoding="utf-8")
    run = Run.create(load_spec(tmp_path / "gains.yaml"), tmp_path / "run")
    train(run)
    (auto,) = convert(run, [entry(quantize="int8")])
    kept = {(island["op"], *island["layers"]) for island in auto.record.read_back["float_islands"]}
    assert ("BUCKETIZE", "discretization_of_gain") in kept
    assert auto.record.metric["drop"] <= 0.01
    assert auto.record.agreement["max_error"] < 0.05


def test_a_batch_is_fixed_or_free(made):
    run = Run.open(made)
    assert (record_of(run, "five").batch, record_of(run, "free").batch, record_of(run, "int8").batch) == (
        5,
        "dynamic",
        1,
    )
    # Bit-equal too where the batch is free: the last bits may depend on how many samples go in at once.
    assert verify(run.lite_folder / "free.tflite")[0].checks[0].message.startswith("bit-equal on 32 samples")


def test_a_drop_of_a_metric_with_a_name_of_its_own_is_counted_right(tmp_path_factory):
    """`distance` is a mean absolute error, whatever it is called."""
    run = Run.open(artifacts.pair_run(tmp_path_factory.getbasetemp()))
    metric = record_of(run, "int8").metric
    assert metric["name"] == "distance"
    assert metric["drop"] == pytest.approx(metric["value"] - metric["reference"])


def test_a_record_of_another_form_is_damaged(run):
    for changes in ({"calibration": [1]}, {"verified": "yes"}, {"sha256": None}):
        artifacts.changed_json(run.lite_folder / "int8.json", **changes)
        with pytest.raises(ArtifactError, match=r"int8\.json is missing or damaged"):
            record_of(run, "int8")
    assert replace(record_of(run, "none"), error=None)

"""Models that no run trained, converted under the contract of a run."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from foreign_models import (
    convert_it,
    dense,
    dense_answers,
    dense_weights,
    stay_warm,
    warm_children,
    write_tflite,
)

from mltool.conversion.sources.generated import Draw
from mltool.data.dataset import Dataset
from mltool.errors import ArtifactError, ConversionError, DataError, UsageError
from mltool.evaluation.verify import verify
from mltool.runs.lite import LiteFolder
from mltool.runs.run import Run
from mltool.spec.load import load_spec, load_task_spec

__all__ = ["convert_it", "dense", "stay_warm", "warm_children"]

Convert = Callable[..., Any]

SOURCES = ["dense.keras", "dense.h5", "dense", "dense.tflite", "nets:make"]


@pytest.mark.parametrize("source", SOURCES)
def test_with_data_a_file_is_measured_and_calibrated_as_that_of_a_run(
    convert_it: Convert, dense: Path, monkeypatch: pytest.MonkeyPatch, source: str
):
    monkeypatch.chdir(dense)
    options = {"made_by": "jax"} if ":" in source else {}

    made = convert_it(source if options else dense / source, "none", "int8", data=dense / "data.yaml", **options)

    data = Dataset(load_task_spec(dense / "data.yaml"))
    test = data.split("test")
    answers = dense_answers(dense_weights(), test.inputs["x"][:])
    accuracy = float((answers.argmax(1) == test.targets[:]).mean())
    assert 0.8 < accuracy < 1
    for record in (made.none, made.int8):
        assert record.verified
        assert record.source["held_out"] == "test"
        assert record.metric["name"] == "accuracy"
        assert record.metric["reference"] == pytest.approx(accuracy)
        assert record.metric["samples"] == len(test)
    assert made.none.metric["drop"] == pytest.approx(0)
    assert abs(made.int8.metric["drop"]) < 0.05
    assert made.int8.read_back["weight_bytes_by_dtype"]["int8"] > 4000
    assert set(made.int8.calibration["ids"]) <= set(data.splits.train.tolist())
    schema = LiteFolder(made.folder).load_schema()
    assert [info.name for info in schema.inputs] == ["x"]
    assert schema.outputs[0].labels == ("0", "1", "2")
    assert all(verdict.kept for verdict in verify(made.folder))


def test_without_data_files_are_held_against_the_model_on_made_up_samples(convert_it: Convert, dense: Path):
    made = convert_it(dense / "dense", "none", "dynamic", "float16", "weight-only", "int4")

    records = (made.none, made.dynamic, made.float16, made.weight_only, made.int4)
    assert all(record.verified and not record.accuracy_unknown for record in records)
    assert {record.source["held_out"] for record in records} == {"generated"}
    assert {record.source["drawn"] for record in records} == {"made up: floats N(0, 1)"}
    assert {record.metric["value"] for record in records} == {None}
    assert made.none.agreement["samples"] == 256
    assert made.none.agreement["max_error"] < 1e-5
    assert 0 < made.int4.agreement["mean_error"] < made.int4.agreement["reference_range"] / 4
    vectors = LiteFolder(made.folder).load_vectors()
    np.testing.assert_allclose(vectors["artifact:none"], dense_answers(dense_weights(), vectors["input:x"]), atol=1e-5)
    assert "targets" not in vectors
    assert all(verdict.kept for verdict in verify(made.folder))


@pytest.mark.parametrize(
    ("scheme", "said"),
    [
        (
            "int8",
            r"int8 needs data to calibrate with; --data SPEC; or --calibration random; or --quantize none, dynamic",
        ),
        ("int16x8", "int16x8 needs data to calibrate with"),
        ("auto", "auto needs data: a search measures what each file loses; name a spec of them: --data SPEC"),
        ("qat", "qat trains a model on, and only that of a run can be; mltool train makes a run"),
    ],
)
def test_what_needs_data_or_a_run_is_refused_before_the_model_is_opened(convert_it: Convert, scheme: str, said: str):
    with pytest.raises(UsageError, match=said):
        convert_it("nowhere.keras", "none", scheme)


def test_a_model_is_not_trained_on_with_data_either(convert_it: Convert, dense: Path):
    with pytest.raises(UsageError, match="only that of a run can be"):
        convert_it("nowhere.keras", "qat", data=dense / "data.yaml")


@pytest.mark.parametrize("source", ["dense", "dense.tflite"])
def test_random_numbers_calibrate_and_leave_the_accuracy_unknown(convert_it: Convert, dense: Path, source: str):
    made = convert_it(dense / source, {"quantize": "int8", "calibration": "random"}, draw=Draw({"x": (-2, 3)}))

    assert made.int8.accuracy_unknown
    assert not made.int8.verified
    assert made.int8.calibration["split"] == "random"
    found = made.int8.calibration["statistics"]["x"]
    assert -2 <= found["minimum"] < -1.9
    assert 2.9 < found["maximum"] <= 3


def test_a_float_file_is_quantized_without_tensorflow(dense: Path, tmp_path: Path):
    """In a process where importing TensorFlow or Keras fails; its children look for modules where it does."""
    for name in ("tensorflow", "keras", "tf_keras"):
        (tmp_path / "broken" / name).mkdir(parents=True)
        (tmp_path / "broken" / name / "__init__.py").write_text("raise ImportError('imported after all')")
    command = ["convert", str(dense / "dense.tflite"), "--data", str(dense / "data.yaml"), "--quantize", "int8"]

    done = subprocess.run(
        [sys.executable, "-m", "mltool.cli.main", *command],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path / "broken"), *sys.path])},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert LiteFolder(tmp_path / "dense-lite").load_record("int8").verified


def _recipe(path: Path, **config: Any) -> dict[str, str]:
    weights = {"num_bits": 8, "symmetric": True, "granularity": "CHANNELWISE", "dtype": "INT"}
    rule = {"regex": ".*", "operation": "*", "algorithm_key": "min_max_uniform_quantize"}
    path.write_text(json.dumps([{**rule, "op_config": {"weight_tensor_config": weights, **config}}]))
    return {"quantize": str(path)}


def test_a_recipe_of_weights_alone_needs_no_data(convert_it: Convert, dense: Path, tmp_path: Path):
    weights = _recipe(tmp_path / "weights.json", compute_precision="FLOAT", explicit_dequantize=True)
    activations = {"num_bits": 8, "symmetric": False, "granularity": "TENSORWISE", "dtype": "INT"}
    whole = _recipe(tmp_path / "whole.json", compute_precision="INTEGER", activation_tensor_config=activations)

    made = convert_it(dense / "dense.tflite", weights)

    assert made.weights.verified
    assert made.weights.calibration == {}
    assert made.weights.read_back["weight_bytes_by_dtype"]["int8"] > 4000
    with pytest.raises(UsageError, match="whole needs data to calibrate with"):
        convert_it(dense / "dense.tflite", whole)
    assert convert_it(dense / "dense.tflite", {**whole, "calibration": "random"}).whole.accuracy_unknown


def test_a_search_measures_on_validation_samples_and_trains_nothing(convert_it: Convert, dense: Path):
    made = convert_it(dense / "dense", {"quantize": "auto", "search": {"max_candidates": 4}}, data=dense / "data.yaml")

    assert made.auto.verified
    assert made.auto.bytes < 8000
    document = LiteFolder(made.folder).search_file("auto").read_text(encoding="utf-8")
    assert "qat" not in document


# Data that are not the model's


def _spec(folder: Path, arrays: dict[str, np.ndarray], text: str) -> Path:
    np.savez(folder / "other.npz", **arrays)
    (folder / "other.yaml").write_text(text)
    return folder / "other.yaml"


LOGITS = "loss: {SparseCategoricalCrossentropy: {from_logits: true}}"
NUMBERS = np.random.default_rng(5)


@pytest.mark.parametrize(
    ("arrays", "train", "said"),
    [
        (
            {"x": NUMBERS.random((60, 5), np.float32), "y": np.arange(60) % 3},
            LOGITS,
            r"dense takes float32 of shape \(4,\) as 'x'; the data give numbers of shape \(5,\); data.source says",
        ),
        (
            {"x": NUMBERS.random((60, 4), np.float32), "y": np.arange(60) % 5},
            LOGITS,
            r"dense answers '\w+' in shape \(3,\); the data have 5 classes: \(5,\); data.source.classes names",
        ),
        (
            {"x": NUMBERS.random((60, 4), np.float32), "y": NUMBERS.random((60, 2), np.float32)},
            "loss: mse",
            r"in shape \(3,\); the data have 2 values a sample: \(2,\); the targets must be what the model answers",
        ),
        (
            {"x": NUMBERS.random((60, 4), np.float32), "y": np.arange(60) % 2},
            "loss: {BinaryCrossentropy: {from_logits: true}}",
            r"in shape \(3,\); the data have 2 classes, which a binary loss tells by one value",
        ),
        (
            {"x": NUMBERS.random((60, 4), np.float32), "y": np.arange(60) % 3},
            "loss: {SparseCategoricalCrossentropy: {from_logits: false}}",
            r"says that dense answers '\w+' with probabilities, and they go from -.* to .*; write from_logits: true",
        ),
    ],
    ids=["shape", "classes", "values", "binary", "probabilities"],
)
def test_data_that_are_not_the_models_are_refused(
    convert_it: Convert, dense: Path, tmp_path: Path, arrays: dict[str, np.ndarray], train: str, said: str
):
    data = _spec(tmp_path, arrays, f"data: {{source: {{path: other.npz}}}}\ntrain: {{{train}}}\n")

    with pytest.raises(DataError, match=said):
        convert_it(dense / "dense.tflite", "none", data=data)

    assert not list(tmp_path.glob("lite/*.tflite"))


def test_columns_of_a_table_are_not_one_array(convert_it: Convert, dense: Path, tmp_path: Path):
    lines = ["a,b,c,d,y", *(f"{n},{n * 2},{n * 3},{n * 4},{n % 3}" for n in range(60))]
    (tmp_path / "rows.csv").write_text("\n".join(lines))
    data = tmp_path / "rows.yaml"
    data.write_text(f"data: {{source: {{path: rows.csv, target: y}}}}\ntrain: {{{LOGITS}}}\n")

    with pytest.raises(DataError, match=r"dense takes x; the data give a, b, c, d; it takes one array: give an \.npz"):
        convert_it(dense / "dense.tflite", "none", data=data)


# Folders


def test_a_file_that_is_there_is_not_overwritten_unasked(convert_it: Convert, dense: Path, tmp_path: Path):
    convert_it(dense / "dense.tflite", "none")

    with pytest.raises(ArtifactError, match=r"none.tflite is there already; --force overwrites it, --output names"):
        convert_it(dense / "dense.tflite", "none")
    convert_it(dense / "dense.tflite", "none", force=True)
    made = convert_it(dense / "dense.tflite", "dynamic")  # beside it
    assert LiteFolder(made.folder).names() == ["dynamic", "none"]
    assert all(verdict.kept for verdict in verify(made.folder))
    with pytest.raises(
        ArtifactError, match=r"held against samples that were made up: floats N\(0, 1\), and now it would"
    ):
        convert_it(dense / "dense.tflite", "weight-only", draw=Draw({"x": (0, 1)}))
    other = _exported(tmp_path / "other", {"x": ([None, 4], "float32")}, lambda x: {"scores": x})
    with pytest.raises(ArtifactError, match="is of another model"):
        convert_it(other, "float16")
    (tmp_path / "taken").touch()
    with pytest.raises(ArtifactError, match="taken is a file; --output names a folder"):
        convert_it(dense / "dense.tflite", "none", output=tmp_path / "taken")


def test_the_folder_of_a_run_is_not_written_into(
    convert_it: Convert, dense: Path, digits_spec: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    run = Run.create(load_spec(digits_spec), tmp_path / "runs/tiny/20260101-made")

    with pytest.raises(UsageError, match="belongs to the run 20260101-made, whose files are of its own model"):
        convert_it(dense / "dense.tflite", "none", output=run.lite_folder)
    shutil.copy(dense / "dense.tflite", run.directory)
    assert convert_it(run.directory / "dense.tflite", "none").none.verified
    assert "is of the run 20260101-made: mltool convert 20260101-made measures on its data" in caplog.text


# Models of other forms


def test_float16_of_a_float_file_is_refused(convert_it: Convert, dense: Path):
    with pytest.raises(
        UsageError, match="float16 cannot be made of dense, which comes as a float file; give the Saved"
    ):
        convert_it(dense / "dense.tflite", "float16")


def _exported(folder: Path, inputs: dict[str, Any], function: Callable[..., Any]) -> Path:
    """A SavedModel of a function; by input shape (with its first axis) and type."""
    import tensorflow as tf

    specs = {name: tf.TensorSpec(shape, dtype, name=name) for name, (shape, dtype) in inputs.items()}
    concrete = tf.function(function).get_concrete_function(**specs)
    tf.saved_model.save(tf.Module(), str(folder), signatures={"serving_default": concrete})
    return folder


def test_inputs_of_another_order_are_matched_by_name(convert_it: Convert, tmp_path: Path):
    """The data have `wide` before `narrow`, the model the other way round."""
    model = _exported(
        tmp_path / "two",
        {"narrow": ([None, 2], "float32"), "wide": ([None, 3], "float32")},
        lambda narrow, wide: {"sum": narrow @ np.ones((2, 1), "float32") - wide @ np.full((3, 1), 2, "float32")},
    )
    wide, narrow = NUMBERS.random((90, 3), np.float32) * 50, NUMBERS.random((90, 2), np.float32)
    arrays = {"w": wide, "n": narrow, "y": narrow.sum(1) - 2 * wide.sum(1)}
    text = (
        "data: {source: {path: other.npz}, inputs: {wide: {array: w}, narrow: {array: n}}}\n"
        "train: {loss: mse, metrics: [mae]}\n"
    )

    made = convert_it(model, "none", "int8", data=_spec(tmp_path, arrays, text), limits={"max_drop": 5.0})

    statistics = made.int8.calibration["statistics"]
    assert statistics["narrow"]["maximum"] < 1 < 40 < statistics["wide"]["maximum"] < 50
    assert made.none.metric["value"] < 1e-4
    assert made.int8.metric["value"] < 5
    schema = LiteFolder(made.folder).load_schema()
    assert {info.name: info.shape for info in schema.inputs} == {"narrow": (2,), "wide": (3,)}

    text = text.replace("narrow:", "slim:")
    with pytest.raises(DataError, match=r"two takes (narrow, wide|wide, narrow); the data give wide, slim; name them"):
        convert_it(model, "float16", data=_spec(tmp_path, arrays, text))


def test_several_outputs_are_described_by_name(convert_it: Convert, tmp_path: Path):
    w = NUMBERS.normal(size=(4, 3)).astype("float32")
    model = _exported(
        tmp_path / "heads",
        {"x": ([None, 4], "float32")},
        lambda x: {"kind": x @ w, "size": x @ np.ones((4, 1), "float32")},
    )
    x = NUMBERS.normal(size=(90, 4)).astype("float32")
    arrays = {"x": x, "k": (x @ w).argmax(1), "s": x.sum(1) + 0.5}
    text = (
        "data: {source: {path: other.npz, target: {kind: k, size: s}}}\n"
        "train: {outputs: {kind: {loss: {SparseCategoricalCrossentropy: {from_logits: true}}}, size: {loss: mse}}}\n"
    )

    made = convert_it(model, "none", data=_spec(tmp_path, arrays, text))

    assert made.none.verified
    assert made.none.metric["name"] == "kind_accuracy"
    assert made.none.metric["value"] == 1.0
    assert {output.name for output in LiteFolder(made.folder).load_schema().outputs} == {"kind", "size"}
    single = "data: {source: {path: other.npz, target: k}, inputs: {x: {array: x}}}\ntrain: {loss: mse}\n"
    with pytest.raises(
        DataError, match=r"has the outputs (kind, size|size, kind); the spec describes one .*train.outputs: {"
    ):
        convert_it(model, "none", data=_spec(tmp_path, arrays, single), output=tmp_path / "single")
    assert convert_it(model, "none", output=tmp_path / "alone").none.agreement["max_error"] < 1e-5


def test_free_axes_and_ranges_of_made_up_samples_are_told(convert_it: Convert, tmp_path: Path):
    """A convolution of 3x3, which LiteRT cannot prepare in a file of free axes: the file has those that are told."""
    table, kernel = NUMBERS.normal(size=(50, 4)).astype("float32"), NUMBERS.normal(size=(3, 3, 3, 40)).astype("float32")

    def embed(ids: Any, image: Any) -> dict[str, Any]:
        import tensorflow as tf

        return {"y": tf.reduce_mean(tf.gather(table, ids), 1), "z": tf.nn.conv2d(image, kernel, 1, "VALID")}

    model = _exported(
        tmp_path / "free", {"ids": ([None, 5], "int32"), "image": ([None, None, None, 3], "float32")}, embed
    )
    with pytest.raises(
        UsageError, match=r"'image' has free axes: \('free', 'free', 3\); .*--input-shape image=32,32,3"
    ):
        convert_it(model, "none")
    with pytest.raises(UsageError, match="no input 'photo' to make up; it has"):
        convert_it(model, "none", draw=Draw(sizes={"photo": (2, 3)}))
    with pytest.raises(DataError, match=r"does not take samples of shape .*\(2, 2, 3\).*: Negative dimension size"):
        convert_it(model, "none", draw=Draw(sizes={"image": (2, 2, 3)}))

    made = convert_it(model, "none", "dynamic", draw=Draw({"ids": (0, 50)}, {"image": (7, 6, 3)}))

    assert made.none.verified
    assert made.dynamic.verified
    lite = LiteFolder(made.folder)
    schema = lite.load_schema()
    assert {info.name: info.shape for info in schema.inputs} == {"ids": (5,), "image": (7, 6, 3)}
    assert {output.name: output.shape for output in schema.outputs} == {"y": (4,), "z": (5, 4, 40)}
    assert lite.load_vectors()["input:ids"].max() > 40
    np.testing.assert_array_equal(lite.load_vectors()["ids"], np.arange(32))
    assert all(verdict.kept for verdict in verify(made.folder))


def test_free_axes_become_those_of_the_data(convert_it: Convert, tmp_path: Path):
    kernel = NUMBERS.normal(size=(3, 3, 1, 3)).astype("float32")

    def score(image: Any) -> dict[str, Any]:
        import tensorflow as tf

        return {"scores": tf.reduce_mean(tf.nn.conv2d(image, kernel, 1, "VALID", name="stem"), [1, 2])}

    model = _exported(tmp_path / "free", {"image": ([None, None, None, 1], "float32")}, score)
    x = NUMBERS.random((90, 8, 9, 1), np.float32)
    data = _spec(
        tmp_path, {"x": x, "y": np.arange(90) % 3}, f"data: {{source: {{path: other.npz}}}}\ntrain: {{{LOGITS}}}\n"
    )

    made = convert_it(model, "int8", data=data)

    assert made.int8.verified
    assert LiteFolder(made.folder).load_schema().inputs[0].shape == (8, 9, 1)


IDS = """
import numpy as np

def make():
    import jax
    table = jax.numpy.asarray(np.random.default_rng(0).normal(size=(50, 3)), "float32")
    return (lambda ids: table[ids].mean(1)), None, np.zeros((1, 5), "int32")
"""


def test_a_function_tells_the_type_that_its_model_takes(convert_it: Convert, tmp_path: Path, monkeypatch: Any):
    """Data are float32 whatever they count, and no row of a table is number 1.0."""
    (tmp_path / "ids_nets.py").write_text(IDS)
    monkeypatch.chdir(tmp_path)
    arrays = {"x": NUMBERS.integers(0, 50, (90, 5)), "y": np.arange(90) % 3}
    data = _spec(tmp_path, arrays, f"data: {{source: {{path: other.npz}}}}\ntrain: {{{LOGITS}}}\n")

    made = convert_it("ids_nets:make", "none", made_by="jax", data=data)

    assert made.none.verified
    assert made.none.read_back["inputs"] == {"x": "int32"}


def test_numbers_that_an_integer_input_would_cut_off_are_refused(convert_it: Convert, tmp_path: Path):
    table = NUMBERS.normal(size=(50, 3)).astype("float32")

    def embed(ids: Any) -> dict[str, Any]:
        import tensorflow as tf

        return {"y": tf.reduce_mean(tf.gather(table, tf.cast(ids, tf.int32)), 1)}

    model = _exported(tmp_path / "ids", {"ids": ([None, 5], "uint8")}, embed)
    text = f"data: {{source: {{path: other.npz}}}}\ntrain: {{{LOGITS}}}\n"
    y = np.arange(60) % 3

    with pytest.raises(DataError, match="takes uint8 as 'ids'; the data give numbers with fractions"):
        convert_it(model, "none", data=_spec(tmp_path, {"x": NUMBERS.random((60, 5)), "y": y}, text))
    with pytest.raises(DataError, match="takes uint8 as 'ids'; the data go from 0 to 999; it holds 0 to 255"):
        convert_it(
            model, "none", data=_spec(tmp_path, {"x": (np.arange(300) * 999 // 299).reshape(60, 5), "y": y}, text)
        )


def test_of_several_signatures_one_is_named(convert_it: Convert, tmp_path: Path):
    import tensorflow as tf

    module = tf.Module()
    spec = tf.TensorSpec([None, 4], tf.float32, name="x")
    one = tf.function(lambda x: {"y": x + 1.0}).get_concrete_function(spec)
    two = tf.function(lambda x: {"y": x * 3.0}).get_concrete_function(spec)
    tf.saved_model.save(module, str(tmp_path / "m"), signatures={"one": one, "two": two})

    with pytest.raises(UsageError, match="several signatures: one, two; choose one: --signature one"):
        convert_it(tmp_path / "m", "none")
    made = convert_it(tmp_path / "m", "none", signature="two")

    vectors = LiteFolder(made.folder).load_vectors()
    np.testing.assert_allclose(vectors["artifact:none"], 3 * vectors["input:x"], rtol=1e-6)
    assert made.none.source["signature"] == "two"


def test_a_model_that_computes_in_float64_is_refused(convert_it: Convert, tmp_path: Path):
    import tensorflow as tf

    model = _exported(
        tmp_path / "double",
        {"x": ([None, 4], "float32")},
        lambda x: {"y": tf.cast(tf.cast(x, tf.float64) @ np.ones((4, 2)), tf.float32)},
    )

    with pytest.raises(ConversionError, match="computes in float64"):
        convert_it(model, "none")


@pytest.mark.parametrize("kind", ["SavedModel", "tflite"])
def test_a_batch_that_the_model_fixes_is_kept(convert_it: Convert, tmp_path: Path, kind: str):
    w = NUMBERS.normal(size=(4, 3)).astype("float32")
    model = _exported(tmp_path / "five", {"x": ([5, 4], "float32")}, lambda x: {"y": x @ w})
    if kind == "tflite":
        model = write_tflite(model, tmp_path / "five.tflite", batch=None)

    made = convert_it(model, "none", {"quantize": "int8", "calibration": "random"})

    assert (made.none.batch, made.int8.batch) == (5, 5)
    assert made.none.verified
    vectors = LiteFolder(made.folder).load_vectors()
    np.testing.assert_allclose(vectors["artifact:none"], vectors["input:x"] @ w, atol=1e-5)
    with pytest.raises(UsageError, match="batch is 3, and five takes 5; write batch: 5, or give the model"):
        convert_it(model, {"quantize": "weight-only", "batch": 3})

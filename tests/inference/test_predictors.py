"""One model, three runtimes, the same numbers; and files that are no models."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from mltool.child import Child, ChildCrashed, ChildTimedOut
from mltool.errors import ArtifactError, DataError
from mltool.inference import child_predictor
from mltool.inference.litert import LiteRtPredictor
from mltool.inference.open import kind_of, open_predictor
from mltool.inference.predict import predict
from mltool.runs.run import Run


@pytest.fixture(scope="module")
def child():
    with Child() as warm:
        yield warm


@pytest.fixture(scope="module")
def images(made):
    with np.load(Path(made) / "lite" / "vectors.npz") as vectors:
        return {"image": vectors["input:image"]}


@pytest.fixture(scope="module")
def keras_outputs(made, images):
    with open_predictor(made / "model.keras") as predictor:
        return predictor.predict(images)["scores"]


def outputs_of(path, batch, child=None):
    with open_predictor(path, child=child) as predictor:
        return predictor.predict(batch)["scores"]


@pytest.mark.parametrize("name", ["saved_model/1", "lite/none.tflite", "lite/five.tflite", "lite/free.tflite"])
def test_every_runtime_gives_the_same_on_float_files(made, images, keras_outputs, child, name):
    found = outputs_of(made / name, images, child)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, keras_outputs, atol=1e-5)


def test_ends_are_described_alike(made, child):
    for name in ("model.keras", "saved_model/1", "lite/none.tflite"):
        with open_predictor(made / name, child=child) as predictor:
            assert [(i.name, i.dtype, i.shape) for i in predictor.inputs.values()] == [("image", "float32", (8, 8, 1))]
            assert [(i.name, i.dtype, i.shape) for i in predictor.outputs.values()] == [("scores", "float32", (10,))]
            assert predictor.fixed_batch == (1 if name.endswith("none.tflite") else None)


@pytest.mark.parametrize("count", [1, 4, 5, 7])
def test_a_fixed_batch_is_called_as_often_as_it_takes_and_filled_up(made, images, keras_outputs, child, count):
    batch = {"image": images["image"][:count]}
    np.testing.assert_allclose(outputs_of(made / "lite/five.tflite", batch, child), keras_outputs[:count], atol=1e-5)


def test_a_large_batch_goes_to_the_child_in_parts(made, images, child, monkeypatch):
    whole = outputs_of(made / "lite/five.tflite", images, child)
    monkeypatch.setattr(child_predictor, "MESSAGE_BYTES", 4 * 64 * 7)  # 7 samples: one batch of 5
    sent = []
    call = LiteRtPredictor._call
    monkeypatch.setattr(
        LiteRtPredictor,
        "_call",
        lambda self, f, **a: (sent.append(len(a["batch"]["image"])) if a else 0, call(self, f, **a))[1],
    )
    np.testing.assert_array_equal(outputs_of(made / "lite/five.tflite", images, child), whole)
    assert sent == [5, 5, 5, 5, 5, 5, 2]


def test_bytes_are_taken_as_they_are(made, images, keras_outputs, child):
    raw = {"image": images["image"].astype(np.uint8)}
    for name in ("model.keras", "saved_model/1", "lite/none.tflite"):
        np.testing.assert_allclose(outputs_of(made / name, raw, child), keras_outputs, atol=1e-5)


def test_integer_inputs_and_outputs_are_quantized_as_numpy_does_by_hand(made, images, child):
    from ai_edge_litert.interpreter import Interpreter

    path = made / "lite/int8-io.tflite"
    interpreter = Interpreter(str(path), num_threads=1)
    interpreter.allocate_tensors()
    ((scale, zero),) = {detail["quantization"] for detail in interpreter.get_input_details()}
    ((out_scale, out_zero),) = {detail["quantization"] for detail in interpreter.get_output_details()}
    # Far outside of the range: what is clipped must not wrap round.
    batch = {"image": np.concatenate([images["image"][:3], np.full((1, 8, 8, 1), 1e6), np.full((1, 8, 8, 1), -1e6)])}
    expected = []
    for sample in batch["image"]:
        integers = np.clip(np.round(sample / scale) + zero, -128, 127).astype(np.int8)
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], integers[None])
        interpreter.invoke()
        found = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
        expected.append((found[0].astype(np.float32) - out_zero) * np.float32(out_scale))
    np.testing.assert_array_equal(outputs_of(path, batch, child), np.float32(expected))


def test_answers_do_not_depend_on_what_was_asked_before(made, images, child):
    path = made / "lite/free.tflite"
    one = {"image": images["image"][:1]}
    before = outputs_of(path, one, child)
    outputs_of(path, {"image": images["image"][1:]}, child)
    np.testing.assert_array_equal(outputs_of(path, one, child), before)


def test_two_inputs_are_addressed_by_name_never_by_order(made_pair, child):
    numbers = np.random.default_rng(5)
    left, right = numbers.random((6, 3)), numbers.random((6, 2))
    expected = predict(made_pair / "model.keras", {"left": left, "right": right}, None).only.outputs
    for name in ("model.keras", "saved_model/1", "lite/none.tflite"):
        with open_predictor(made_pair / name, child=child) as predictor:
            found = predictor.predict({"right": right, "left": left})["value"]
            np.testing.assert_allclose(found, expected, atol=1e-5)
            with pytest.raises(DataError, match=r"same number of samples, at least 1"):
                predictor.predict({"left": left, "right": right[:5]})


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        pytest.param({"picture": np.zeros((1, 8, 8, 1))}, r"takes image \(got picture\)", id="name"),
        pytest.param({}, r"got nothing", id="nothing"),
        pytest.param(
            {"image": np.zeros((1, 8, 8))}, r"shape \(8, 8, 1\) \(got an array of shape \(1, 8, 8\)\)", id="axes"
        ),
        pytest.param({"image": np.zeros((1, 8, 9, 1))}, r"got an array of shape \(1, 8, 9, 1\)", id="size"),
        pytest.param({"image": np.float32(1)}, r"got an array of shape \(\)", id="one number"),
        pytest.param({"image": np.zeros((0, 8, 8, 1))}, r"at least 1", id="no samples"),
        pytest.param({"image": np.full((1, 8, 8, 1), "a")}, r"takes numbers", id="text"),
    ],
)
@pytest.mark.parametrize("name", ["model.keras", "saved_model/1", "lite/int8.tflite"])
def test_samples_that_do_not_fit_are_refused(made, child, name, batch, message):
    with open_predictor(made / name, child=child) as predictor, pytest.raises(DataError, match=message):
        predictor.predict(batch)


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    ("spoil", "name"),
    [
        pytest.param(lambda p: p.write_bytes(b""), "a.tflite", id="empty"),
        pytest.param(lambda p: p.write_bytes(b"no model at all" * 99), "a.tflite", id="text"),
        pytest.param(cut, "lite/none.tflite", id="cut flatbuffer"),
        pytest.param(cut, "model.keras", id="cut Keras file"),
        pytest.param(lambda p: p.write_bytes(b""), "a.keras", id="empty Keras file"),
        pytest.param(lambda p: cut(p / "saved_model.pb"), "saved_model/1", id="cut SavedModel"),
    ],
)
def test_damaged_files_are_refused(run, child, spoil, name):
    spoil(run.directory / name)
    with pytest.raises(ArtifactError, match=r"damaged|cannot be loaded|interpreter") as caught:
        open_predictor(run.directory / name, child=child).predict({"image": np.zeros((1, 8, 8, 1))})
    assert caught.value.exit_code == 5


@pytest.mark.parametrize(
    ("error", "message"),
    [
        pytest.param(
            ChildCrashed("f", "was killed by SIGSEGV", ""), "the interpreter was killed by SIGSEGV", id="crash"
        ),
        pytest.param(ChildTimedOut("f", 600, ""), "the interpreter did not answer in 600 s", id="hung"),
    ],
)
def test_a_file_that_kills_the_interpreter_is_refused(made, images, child, monkeypatch, error, message):
    def fall(*_, **__):
        raise error

    with LiteRtPredictor(made / "lite/none.tflite", child=child) as predictor:
        monkeypatch.setattr(child, "call", fall)
        with pytest.raises(ArtifactError, match=message):
            predictor.predict(images)


def test_after_a_crash_the_next_call_is_answered(made, images, child):
    with LiteRtPredictor(made / "lite/none.tflite", child=child) as predictor:
        before = predictor.predict(images)["scores"]
        child.close(kill=True)
        np.testing.assert_array_equal(predictor.predict(images)["scores"], before)


def test_a_rewritten_file_is_read_anew(run, images, child):
    path = run.lite_folder / "none.tflite"
    before = outputs_of(path, images, child)
    shutil.copy(run.lite_folder / "int8.tflite", path)
    assert not np.array_equal(outputs_of(path, images, child), before)


def test_a_file_without_a_signature_is_refused(tmp_path, child):
    import tensorflow as tf

    class Twice(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([1, 2])])
        def __call__(self, x):
            return x * 2

    module = Twice()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([module.__call__.get_concrete_function()], module)
    data = converter.convert()
    from ai_edge_litert import schema_py_generated as schema
    from flatbuffers import Builder

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(data, 0))
    model.signatureDefs = []
    builder = Builder()
    builder.Finish(model.Pack(builder), b"TFL3")
    path = tmp_path / "bare.tflite"
    path.write_bytes(bytes(builder.Output()))
    with pytest.raises(ArtifactError, match=r"bare\.tflite has no signature"):
        open_predictor(path, child=child)


def test_what_is_no_model_is_told_apart(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "model.pt").write_bytes(b"x")
    for name, message in (
        ("gone.tflite", "is missing"),
        ("folder", "is not a model"),
        ("model.pt", "is not a model"),
    ):
        with pytest.raises(ArtifactError, match=message):
            kind_of(tmp_path / name)


def test_predict_answers_with_labels_and_probabilities(made, images):
    schema = Run.open(made).input_schema
    found = predict(made / "lite/none.tflite", images, schema)
    assert found.only.answers == [str(index) for index in found.only.outputs.argmax(axis=1)]
    np.testing.assert_allclose(found.only.values.sum(axis=1), 1)
    with pytest.raises(DataError, match=r"'image' is missing \(NaN\) in sample 0"):
        predict(made / "lite/none.tflite", {"image": np.full((1, 8, 8, 1), np.nan)}, schema)

"""An `.onnx` file of anybody as a predictor: its batch, its types, and files that are no models."""

import numpy as np
import pytest

from mltool import extras
from mltool.child import Child, ChildCrashed
from mltool.errors import ArtifactError, DataError, MissingExtraError
from mltool.inference.onnx_predictor import OnnxPredictor
from mltool.inference.open import kind_of, open_predictor

pytestmark = pytest.mark.skipif(
    not all(map(extras.has, ("onnx", "onnxruntime"))),
    reason="needs onnx and onnxruntime: pip install 'mltool-tf[onnx]'",
)


@pytest.fixture(scope="module")
def child():
    with Child() as warm:
        yield warm


def write(path, nodes, inputs, outputs, opsets=(("", 18),)):
    """A file; ends are (name, type, shape)."""
    from onnx import TensorProto, helper, save

    ends = [
        [helper.make_tensor_value_info(name, getattr(TensorProto, kind), shape) for name, kind, shape in found]
        for found in (inputs, outputs)
    ]
    graph = helper.make_graph(
        [helper.make_node(*node[:3], **(node[3] if node[3:] else {})) for node in nodes], "g", *ends
    )
    imports = [helper.make_opsetid(*opset) for opset in opsets]
    save(helper.make_model(graph, opset_imports=imports, ir_version=8), str(path))
    return path


def twice(path, batch, kind="FLOAT"):
    """y = x + x of two numbers."""
    return write(path, [("Add", ["x", "x"], ["y"])], [("x", kind, [batch, 2])], [("y", kind, [batch, 2])])


@pytest.mark.parametrize("count", [1, 4, 5, 9])
@pytest.mark.parametrize("batch", ["n", 4], ids=["free", "fixed"])
def test_any_number_of_samples_is_answered(tmp_path, child, batch, count):
    x = np.arange(2 * count, dtype=np.float32).reshape(count, 2)
    with open_predictor(twice(tmp_path / "m.onnx", batch), child=child) as predictor:
        assert predictor.fixed_batch == (None if batch == "n" else 4)
        assert predictor.runtime.startswith("ONNX Runtime 1.")
        found = predictor.predict({"x": x})["y"]
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, 2 * x)


@pytest.mark.parametrize(("kind", "dtype"), [("INT64", "int64"), ("DOUBLE", "float64"), ("FLOAT16", "float16")])
def test_numbers_are_brought_to_the_type_of_the_file(tmp_path, child, kind, dtype):
    with open_predictor(twice(tmp_path / "m.onnx", "n", kind), child=child) as predictor:
        assert predictor.inputs["x"].dtype == dtype
        np.testing.assert_array_equal(predictor.predict({"x": np.array([[1, 2]], np.uint8)})["y"], [[2, 4]])


def test_text_is_given_to_a_file_that_takes_it(tmp_path, child):
    labels = {"keys_strings": ["no", "yes"], "values_int64s": [3, 5], "default_int64": -1, "domain": "ai.onnx.ml"}
    nodes = [("LabelEncoder", ["x"], ["y"], labels)]
    opsets = (("", 18), ("ai.onnx.ml", 2))
    path = write(tmp_path / "m.onnx", nodes, [("x", "STRING", ["n", 1])], [("y", "INT64", ["n", 1])], opsets)
    with open_predictor(path, child=child) as predictor:
        found = predictor.predict({"x": np.array([["yes"], ["no"], ["?"]])})
    np.testing.assert_array_equal(found["y"], [[5], [3], [-1]])


def test_answers_in_words_and_numbers_of_no_type_of_numpy_are_refused(tmp_path, child):
    words = [("Cast", ["x"], ["y"], {"to": 8})]
    path = write(tmp_path / "words.onnx", words, [("x", "FLOAT", ["n"])], [("y", "STRING", ["n"])])
    with pytest.raises(ArtifactError, match="'y' is a tensor of string, which this version cannot run"):
        open_predictor(path, child=child)
    half = [("Cast", ["x"], ["y"], {"to": 1})]
    path = write(tmp_path / "half.onnx", half, [("x", "BFLOAT16", ["n", 2])], [("y", "FLOAT", ["n", 2])])
    with pytest.raises(ArtifactError, match="'x' is a tensor of bfloat16, which this version cannot run"):
        open_predictor(path, child=child)


def test_as_many_answers_as_samples_are_demanded(tmp_path, child):
    ends = [("x", "FLOAT", ["n", 2])], [("y", "FLOAT", [1, 1])]
    path = write(tmp_path / "m.onnx", [("ReduceSum", ["x"], ["y"])], *ends)
    with (
        open_predictor(path, child=child) as predictor,
        pytest.raises(ArtifactError, match="'y' gives 1 answers for 3 samples"),
    ):
        predictor.predict({"x": np.ones((3, 2), np.float32)})


def test_what_does_not_fit_is_refused_by_name(tmp_path, child):
    with open_predictor(twice(tmp_path / "m.onnx", "n"), child=child) as predictor:
        with pytest.raises(DataError, match=r"the model takes x \(got z\)"):
            predictor.predict({"z": np.zeros((1, 2), np.float32)})
        with pytest.raises(DataError, match=r"takes samples of shape \(2,\)"):
            predictor.predict({"x": np.zeros((1, 3), np.float32)})


def test_every_call_is_timed(tmp_path, child):
    with OnnxPredictor(twice(tmp_path / "m.onnx", 4), child=child, threads=2) as predictor:
        times = predictor.latencies_ms({"x": np.zeros((1, 2), np.float32)}, warmup=1, runs=7)
    assert times.shape == (7,)
    assert (times > 0).all()


def test_a_file_that_was_written_anew_is_opened_anew(tmp_path, child):
    path = twice(tmp_path / "m.onnx", "n")
    x = {"x": np.float32([[1, 2]])}
    with open_predictor(path, child=child) as predictor:
        np.testing.assert_array_equal(predictor.predict(x)["y"], [[2, 4]])
    write(path, [("Mul", ["x", "x"], ["y"])], [("x", "FLOAT", ["n", 2])], [("y", "FLOAT", ["n", 2])])
    with open_predictor(path, child=child) as predictor:
        np.testing.assert_array_equal(predictor.predict(x)["y"], [[1, 4]])


@pytest.mark.parametrize("damage", [lambda data: b"", lambda data: b"nothing" * 9, lambda data: data[: len(data) // 2]])
def test_a_damaged_file_is_one_message(tmp_path, child, damage):
    path = twice(tmp_path / "m.onnx", "n")
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ArtifactError, match=r"m\.onnx cannot be loaded: .*the file is damaged") as caught:
        open_predictor(path, child=child)
    assert len(caught.value.messages) == 1
    assert caught.value.exit_code == 5


def test_an_operator_of_somebody_else_is_refused(tmp_path, child):
    ends = [("x", "FLOAT", ["n", 2])], [("y", "FLOAT", ["n", 2])]
    opsets = (("", 18), ("com.nobody", 1))
    path = write(tmp_path / "m.onnx", [("Own", ["x"], ["y"], {"domain": "com.nobody"})], *ends, opsets)
    with pytest.raises(ArtifactError, match=r"cannot be loaded: .*com\.nobody"):
        open_predictor(path, child=child)


def test_a_file_that_fails_while_it_runs_is_refused(tmp_path, child):
    nodes = [("Reshape", ["x", "s"], ["y"])]
    ends = [("x", "FLOAT", ["n", 2]), ("s", "INT64", [1])], [("y", "FLOAT", ["n"])]
    with open_predictor(write(tmp_path / "m.onnx", nodes, *ends), child=child) as predictor:
        assert predictor.fixed_batch is None
        with pytest.raises(ArtifactError, match=r"m\.onnx cannot be run: "):
            predictor.predict({"x": np.zeros((1, 2), np.float32), "s": np.array([7])})


def test_a_crash_is_one_message(tmp_path, monkeypatch):
    def dies(*_, **__):
        raise ChildCrashed("f", "was killed by SIGSEGV", "")

    monkeypatch.setattr(Child, "call", dies)
    with pytest.raises(ArtifactError, match=r"m\.onnx: ONNX Runtime was killed by SIGSEGV; the file is damaged"):
        OnnxPredictor(twice(tmp_path / "m.onnx", "n"))


def test_what_is_not_there_is_told(tmp_path, monkeypatch):
    with pytest.raises(ArtifactError, match="is missing"):
        OnnxPredictor(tmp_path / "gone.onnx")
    path = twice(tmp_path / "m.onnx", "n")
    assert kind_of(path) == "onnx"
    monkeypatch.setattr(extras, "has", lambda module: module != "onnxruntime")
    with pytest.raises(MissingExtraError, match=r"needs onnxruntime, .*pip install 'mltool-tf\[onnx\]'") as caught:
        open_predictor(path)
    assert caught.value.exit_code == 9

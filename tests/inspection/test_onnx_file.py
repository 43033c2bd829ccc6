"""What an `.onnx` file says of itself."""

import numpy as np
import pytest

from mltool import extras
from mltool.errors import ArtifactError
from mltool.inspection.inspect import inspect
from mltool.inspection.onnx_file import OnnxEnd, read_onnx

pytestmark = pytest.mark.skipif(not extras.has("onnx"), reason="needs onnx: pip install 'mltool-tf[onnx]'")


@pytest.fixture
def path(tmp_path):
    """y = x + w if t, else Own(x) of a domain that nobody has."""
    from onnx import TensorProto, helper, numpy_helper, save

    info = helper.make_tensor_value_info
    yes = helper.make_graph([helper.make_node("Add", ["x", "w"], ["a"], name="sum")], "yes", [], [info("a", 1, None)])
    own = helper.make_node("Own", ["x"], ["b"], name="mine", domain="com.nobody")
    no = helper.make_graph([own], "no", [], [info("b", 1, None)])
    branch = helper.make_node("If", ["t"], ["y"], then_branch=yes, else_branch=no, name="branch")
    graph = helper.make_graph(
        [branch],
        "g",
        [info("x", TensorProto.FLOAT, ["n", 3]), info("t", TensorProto.BOOL, []), info("w", TensorProto.FLOAT, [3])],
        [info("y", TensorProto.FLOAT, ["n", 3])],
        [numpy_helper.from_array(np.zeros(3, np.float32), "w")],
    )
    imports = [helper.make_opsetid("ai.onnx", 18), helper.make_opsetid("com.nobody", 2)]
    file = tmp_path / "m.onnx"
    save(helper.make_model(graph, opset_imports=imports, ir_version=8, producer_name="me"), str(file))
    return file


def test_ends_operators_and_what_is_unknown(path):
    found = read_onnx(path)
    assert found.opsets == {"": 18, "com.nobody": 2}
    assert list(found.inputs) == [OnnxEnd("x", "float32", (None, 3)), OnnxEnd("t", "bool", ())]
    assert list(found.outputs) == [OnnxEnd("y", "float32", (None, 3))]
    assert found.operators == {"Add": 1, "If": 1, "com.nobody.Own": 1}
    assert list(found.unknown) == [("com.nobody.Own", "mine")]
    assert found.weight_bytes == {"float32": 12}


def test_inspect_shows_it(path):
    shown = inspect(path)
    assert shown["format"] == "ONNX, operators of ai.onnx 18, com.nobody 2, made by me"
    assert shown["unknown_operators"] == ["com.nobody.Own"]
    assert [row["shape"] for row in shown["tables"]["inputs_and_outputs"]] == ["?x3", "scalar", "?x3"]


@pytest.mark.parametrize("data", [b"", b"nothing at all"], ids=["empty", "text"])
def test_what_is_no_onnx_file_is_refused(tmp_path, data):
    (tmp_path / "m.onnx").write_bytes(data)
    with pytest.raises(ArtifactError, match=r"m\.onnx is (missing or damaged|not an \.onnx file)"):
        inspect(tmp_path / "m.onnx")

"""`python: "module:function"`: samples from a function of the user's, found without running it."""

import numpy as np
import pytest

from mltool.data.dataset import Dataset
from mltool.errors import DataError, SpecError
from mltool.spec.load import dump_spec, load_spec

GOOD = """
import numpy as np
import my_helper

def load(count, shift=0):
    x = np.arange(count * 2, dtype=np.float32).reshape(count, 2) + shift
    return {"x": x, "y": np.arange(count) % my_helper.CLASSES}

def fails(): raise RuntimeError("no luck")
def nothing(): return None
def ragged(): return {"x": [[1], [1, 2]], "y": [0, 1]}
def objects(): return {"x": np.array([None, 1]), "y": [0, 1]}
def masked(): return {"x": np.ma.masked_less(np.arange(4.0).reshape(4, 1), 2), "y": [0, 1, 0, 1]}
def leaves(): raise SystemExit(0)
def short(): return {"x": np.zeros((3, 2)), "y": [0, 1]}
"""


@pytest.fixture
def spec(tmp_path):
    (tmp_path / "my_data.py").write_text(GOOD, encoding="utf-8")
    (tmp_path / "my_helper.py").write_text("CLASSES = 2\n", encoding="utf-8")
    (tmp_path / "broken.py").write_text("def f(:\n", encoding="utf-8")
    (tmp_path / "runs_at_import.py").write_text("raise SystemExit('it was run')\ndef f(): ...\n", encoding="utf-8")

    def of(reference, arguments=""):
        path = tmp_path / "s.yaml"
        source = f'{{python: "{reference}"{arguments}}}'
        model = "{layers: [{Dense: {units: 2}}]}\ntrain: {loss: {SparseCategoricalCrossentropy: {from_logits: true}}}"
        path.write_text(f"name: s\ndata: {{source: {source}}}\nmodel: {model}\n", encoding="utf-8")
        return load_spec(path)

    return of


def test_a_function_beside_the_spec_gives_the_samples(spec, tmp_path):
    found = spec("my_data:load", ", arguments: {count: 40, shift: 1}")
    data = Dataset(found)
    assert data.source.num_samples == 40
    np.testing.assert_array_equal(data.source.inputs["x"][0], [1, 2])
    (tmp_path / "elsewhere").mkdir()
    copy = tmp_path / "elsewhere" / "spec.yaml"
    copy.write_text(dump_spec(found), encoding="utf-8")
    assert Dataset(load_spec(copy)).fingerprint == data.fingerprint


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        pytest.param("my_data", r"must be module:function \(got 'my_data'\)", id="no function"),
        pytest.param("my_dat:load", "no module 'my_dat' lies beside the spec or is installed", id="no module"),
        pytest.param("json.nothing:load", "no module 'json.nothing'", id="no submodule"),
        pytest.param("my_data:lod", "my_data.py has no function 'lod'; did you mean 'load'", id="a typo"),
        pytest.param("broken:f", r"broken.py cannot be read as Python", id="no Python"),
    ],
)
def test_a_wrong_reference_is_told_by_check(reference, expected, spec):
    with pytest.raises(SpecError, match=expected) as caught:
        spec(reference)
    assert (caught.value.messages[0].line, caught.value.messages[0].key) == (2, "data.source.python")


def test_checking_runs_nothing(spec):
    assert spec("runs_at_import:f").data.source.python.endswith("runs_at_import.py:f")


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        pytest.param("fails", "raised RuntimeError: no luck", id="an error of its own"),
        pytest.param("load", "raised TypeError: .*missing 1 required positional argument", id="missing arguments"),
        pytest.param("nothing", "returned NoneType; a map of arrays is expected", id="nothing"),
        pytest.param("ragged", "returned ragged arrays", id="ragged"),
        pytest.param("objects", "'x' is an array of objects", id="objects"),
        pytest.param("masked", "'x' has masked values; return NaN", id="masked"),
        pytest.param("leaves", "raised SystemExit: 0; call it by hand", id="the end of the process"),
        pytest.param("short", "'x' and 'y' have|has 3 samples, the targets have 2", id="other lengths"),
    ],
)
def test_what_a_function_does_wrong_is_an_error_of_the_data(function, expected, spec):
    with pytest.raises(DataError, match=expected):
        Dataset(spec(f"my_data:{function}"))


def test_arguments_without_a_function_are_refused(tmp_path):
    (tmp_path / "s.yaml").write_text(
        "name: s\ndata: {source: {dataset: digits, arguments: {a: 1}}}\nmodel: {layers: [Flatten]}\n"
        "train: {loss: MeanSquaredError}\n",
        encoding="utf-8",
    )
    with pytest.raises(SpecError, match=r"data\.source\.arguments: are for python, which is not set"):
        load_spec(tmp_path / "s.yaml")

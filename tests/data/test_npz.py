"""Samples in an .npz file, and what is wrong with the files that people have."""

import io
import zipfile

import numpy as np
import pytest

from mltool.data.select import select
from mltool.data.sources.kinds import kind_at
from mltool.data.sources.npz import load_npz
from mltool.errors import DataError


@pytest.fixture
def write(tmp_path):
    def write(**arrays):
        np.savez(tmp_path / "a.npz", **arrays)
        return tmp_path / "a.npz"

    return write


X, Y = np.arange(12.0).reshape(6, 2), np.asarray([0, 1, 0, 1, 0, 1])


def test_arrays_by_name(write):
    source = load_npz({"": write(x=X, y=Y, more=np.zeros(3))})
    assert list(source.inputs) == ["x"]
    assert source.inputs["x"].tolist() == X.tolist()
    assert source.targets.tolist() == Y.tolist()
    assert source.given == {}
    assert source.num_samples == 6


def test_train_and_test_parts_are_joined(write):
    source = load_npz({"": write(x_train=X[:4], x_test=X[4:], y_train=Y[:4], y_test=Y[4:])})
    assert source.inputs["x"].tolist() == X.tolist()
    assert source.given == {"train": range(4), "test": range(4, 6)}


def test_several_inputs_under_names_of_their_own(write):
    source = load_npz({"": write(x1=X, x2=Y * 2, label=Y)}, inputs={"image": "x1", "meta": "x2"}, targets={"": "label"})
    assert {name: array.shape for name, array in source.inputs.items()} == {"image": (6, 2), "meta": (6, 1)}


@pytest.mark.parametrize(
    ("shape", "dtype", "name", "expected"),
    [
        pytest.param((6, 8, 8), np.uint8, "image", (8, 8, 1), id="gray pictures get a channel"),
        pytest.param((6, 8, 8, 3), np.uint8, "image", (8, 8, 3), id="pictures in color"),
        pytest.param((6, 8, 8, 3), np.float32, "image", (8, 8, 3), id="pictures as floats"),
        pytest.param((6, 8, 8), np.float32, "x", (8, 8), id="sequences"),
        pytest.param((6,), np.float32, "x", (1,), id="single numbers"),
    ],
)
def test_the_input_is_named_and_shaped_after_what_it_is(shape, dtype, name, expected, write):
    source = load_npz({"": write(x=np.zeros(shape, dtype), y=Y)})
    assert list(source.inputs) == [name]
    assert source.inputs[name].shape[1:] == expected


@pytest.mark.parametrize(
    ("arrays", "expected"),
    [
        pytest.param({"a": X, "y": Y}, r"has no array 'x', or x_train and x_test; it has: a, y", id="no x"),
        pytest.param({"x": X}, r"has no array 'y', or y_train and y_test; it has: x", id="no y"),
        pytest.param({}, "it has: nothing", id="nothing"),
        pytest.param({"x_train": X, "y": Y}, "has no array 'x'", id="half of x"),
        pytest.param({"x": X[:5], "y": Y}, "input 'x' has 5 samples, the targets have 6", id="another length"),
        pytest.param(
            {"x_train": X[:3], "x_test": X[3:], "y_train": Y[:4], "y_test": Y[4:]},
            "different lengths",
            id="other edges",
        ),
        pytest.param(
            {"x_train": X[:4], "x_test": X[4:, :1], "y_train": Y[:4], "y_test": Y[4:]},
            r"x_train and x_test differ in shape: \(4, 2\) and \(2, 1\)",
            id="other shapes",
        ),
        pytest.param(
            {"x": np.where(X == 5, np.nan, X), "y": Y},
            r"input 'x': 1 samples hold NaN or infinity \(first: 2\)",
            id="NaN",
        ),
        pytest.param(
            {"x": np.where(X > 7, np.inf, X), "y": Y}, r"2 samples hold NaN or infinity \(first: 4\)", id="infinity"
        ),
        pytest.param(
            {"x": np.where(X == 5, 1e200, X.astype(np.float64)), "y": Y},
            r"input 'x': 1 samples hold numbers that float32 does not hold \(first: 2\)",
            id="beyond float32",
        ),
        pytest.param(
            {"x": X, "y": np.where(Y == 1, np.nan, 0.5)}, "the targets: 3 samples hold NaN", id="NaN in targets"
        ),
        pytest.param(
            {"x": X.astype(np.complex64), "y": Y},
            "input 'x' is of type complex64; a model takes numbers or text",
            id="complex halves",
        ),
        pytest.param({"x": X.astype(complex), "y": Y}, "input 'x' is of type complex128", id="complex numbers"),
        pytest.param({"x": X[:0], "y": Y[:0]}, "there are no samples", id="no samples"),
        pytest.param({"x": X[:, :0], "y": Y}, r"input 'x' is empty \(shape \(6, 0\)\)", id="no values"),
        pytest.param({"x": np.float64(3), "y": Y}, r"input 'x' is empty|one number", id="one number"),
        pytest.param({"x": X, "y": np.int64(3)}, "there are no samples", id="one target"),
        pytest.param(
            {"x": np.asarray([1, None], dtype=object), "y": Y},
            "cannot be read as .npz: it holds pickled objects",
            id="objects",
        ),
        pytest.param(
            {"x": X.astype(np.longdouble), "y": Y},
            "input 'x' is of type float128; a model takes",
            id="long doubles",
            marks=pytest.mark.skipif(np.dtype(np.longdouble).itemsize == 8, reason="long double is double here"),
        ),
        pytest.param(
            {"x": X.astype(str).reshape(6, 1, 2), "y": Y}, r"input 'x' is text of shape \(1, 2\)", id="a series"
        ),
        pytest.param({"x": X, "y": Y.astype(bytes)}, r"the targets are of type \|S\d+; give classes", id="bytes"),
        pytest.param({"x": X, "y": Y.astype(complex)}, "the targets are of type complex128", id="complex targets"),
        pytest.param(
            {"x": X, "x_train": X, "x_test": X, "y": Y}, "has x, x_train, x_test: which of them count", id="x twice"
        ),
        pytest.param(
            {"x_train": X, "x_val": X, "x_validation": X, "x_test": X, "y_train": Y, "y_test": Y},
            "has x_train, x_val, x_validation, x_test: which of them count",
            id="validation twice",
        ),
    ],
)
def test_wrong_arrays_are_answered_with_what_is_there(arrays, expected, write):
    with pytest.raises(DataError, match=expected) as caught:
        load_npz({"": write(**arrays)})
    assert caught.value.exit_code == 4


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        pytest.param(-np.ones(6), "the weight of sample 0 is -1.0; 0 or more is expected", id="negative"),
        pytest.param(np.asarray([1, 1, np.nan, 1, 1, 1]), "the weight of sample 2 is missing", id="NaN"),
        pytest.param(np.full(6, 1e300), "the weight of sample 0 is 1e\\+300", id="beyond float32"),
        pytest.param(np.ones(7), r"of shape \(7,\); a number for every sample is expected: \(6,\)", id="too many"),
        pytest.param(np.ones((6, 1)), r"of shape \(6, 1\)", id="a column"),
        pytest.param(np.asarray(["1"] * 6), "the weights are <U1", id="text"),
    ],
)
def test_weights_that_are_none_are_refused(weights, expected, write):
    with pytest.raises(DataError, match=expected):
        load_npz({"": write(x=X, y=Y, w=weights)}, weight="w")


def test_weights_come_in_the_parts_of_the_targets(write):
    parts = {"x_train": X, "x_test": X[:2], "y_train": Y, "y_test": Y[:2]}
    source = load_npz({"": write(**parts, w_train=np.arange(6.0), w_test=np.ones(2))}, weight="w")
    assert source.weights.tolist() == [0, 1, 2, 3, 4, 5, 1, 1]
    with pytest.raises(
        DataError, match="'w' and 'y' have different lengths; 'w': 2 train, 6 test; 'y': 6 train, 2 test"
    ):
        load_npz({"": write(**parts, w_train=np.ones(2), w_test=np.ones(6))}, weight="w")


@pytest.mark.parametrize("word", ["val", "valid", "dev", "validation"])
def test_validation_may_be_written_short(word, write, caplog):
    caplog.set_level("INFO")
    parts = {"x_train": X, f"x_{word}": X[:3], "x_test": X[:2], "y_train": Y, f"y_{word}": Y[:3], "y_test": Y[:2]}
    source = load_npz({"": write(**parts, ids=np.arange(6))})
    assert {split: len(place) for split, place in source.given.items()} == {"train": 6, "validation": 3, "test": 2}
    assert source.name_of(6) == f"y_{word}[0]"
    assert source.name_of(10) == "y_test[1]"
    assert "arrays that nothing takes: ids (data.inputs)" in caplog.text


def test_an_array_that_is_there_counts_whatever_others_are_called(write, caplog):
    caplog.set_level("INFO")
    source = load_npz({"": write(x=X, y=Y, x_valid=np.ones(6), std_dev=X)})
    assert source.given == {}
    assert "arrays that nothing takes: x_valid, std_dev" in caplog.text


def test_many_names_of_parts_are_quick_to_take(write):
    """A look into a range by a number of numpy walks through it: 50,000 of them took 99 s."""
    count = 200_000
    x = {"x_train": np.arange(count, dtype=np.float32).reshape(-1, 1), "x_test": X[:2, :1]}
    source = load_npz({"": write(**x, y_train=np.arange(count) % 2, y_test=Y[:2])})
    taken = select(source, max_samples=count - 5, seed=1)
    assert len(taken.names) == count - 3
    assert taken.names[-1] == source.names[-1] == "y_test[1]"


def claims(shape):
    """An .npy whose header claims a shape."""
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return buffer.getvalue() + bytes(64)


@pytest.mark.parametrize("shape", [(10**12, 8, 8, 1), (-8, 8, 8, 1)])
def test_a_header_that_claims_the_impossible_is_damage(shape, tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("x.npy", claims(shape))
        archive.writestr("y.npy", claims((64,)))
    with pytest.raises(DataError, match=r"a\.npz cannot be read as \.npz"):
        load_npz({"": tmp_path / "a.npz"})
    (tmp_path / "f").mkdir()
    np.save(tmp_path / "f" / "y.npy", Y)
    (tmp_path / "f" / "x.npy").write_bytes(claims(shape))
    with pytest.raises(DataError, match=r"f/x\.npy cannot be read as \.npy"):
        load_npz({"": tmp_path / "f"})


def test_a_text_called_npz_is_not_answered_with_how_to_run_it(tmp_path):
    (tmp_path / "a.npz").write_text("x,y\n1,2\n")
    with pytest.raises(DataError, match=r"cannot be read as \.npz: it is no file of numpy's") as caught:
        load_npz({"": tmp_path / "a.npz"})
    assert "allow_pickle" not in str(caught.value)


def test_parts_of_one_number_are_refused(write):
    with pytest.raises(DataError, match="x_train"):
        load_npz({"": write(x_train=np.float64(1), x_test=np.float64(2), y_train=Y[:1], y_test=Y[:1])})


def _cut(content):
    return content[: len(content) // 2]


def _changed(content):
    changed = bytearray(content)
    changed[100:140] = bytes(40)
    return bytes(changed)


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda content: b"", id="empty"),
        pytest.param(lambda content: b"no zip", id="text"),
        pytest.param(_cut, id="cut off"),
        pytest.param(_changed, id="bytes changed"),
        pytest.param(lambda content: content[:4], id="four bytes"),
    ],
)
def test_a_damaged_file_is_said(damage, write):
    path = write(x=X, y=Y)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=r"a\.npz cannot be read as \.npz"):
        load_npz({"": path})


def test_a_single_array_in_a_file_called_npz_is_said(tmp_path):
    with (tmp_path / "a.npz").open("wb") as file:
        np.save(file, X)
    with pytest.raises(DataError, match=r"cannot be read as \.npz"):
        load_npz({"": tmp_path / "a.npz"})


def test_a_folder_called_npz_is_said(tmp_path):
    (tmp_path / "a.npz").mkdir()
    with pytest.raises(DataError, match=r"cannot be read as \.npz: .*directory"):
        load_npz({"": tmp_path / "a.npz"})


# A folder of .npy files


def test_a_folder_of_npy_files_stays_on_the_disk(tmp_path):
    x = np.arange(60, dtype=np.float32).reshape(20, 3)
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", np.arange(20) % 2)
    source = load_npz({"": tmp_path})
    assert kind_at(tmp_path) == "npz"
    assert isinstance(source.inputs["x"], np.memmap)
    np.testing.assert_array_equal(source.inputs["x"][[3, 19]], x[[3, 19]])
    assert source.targets.tolist() == [0, 1] * 10


def test_npy_files_may_bring_their_own_test_set(tmp_path):
    for name, count in (("train", 10), ("test", 4)):
        np.save(tmp_path / f"x_{name}.npy", np.full((count, 2), count, np.float32))
        np.save(tmp_path / f"y_{name}.npy", np.arange(count) % 2)
    source = load_npz({"": tmp_path})
    assert {name: len(ids) for name, ids in source.given.items()} == {"train": 10, "test": 4}
    assert source.inputs["x"][[0, 13]].tolist() == [[10, 10], [4, 4]]


@pytest.mark.parametrize(
    ("write", "message"),
    [
        pytest.param(lambda f: (f / "y.npy").write_bytes(b"x"), "cannot be read", id="damaged"),
        pytest.param(lambda f: np.save(f / "y.npy", np.asarray([{}] * 20, object)), "cannot be read", id="objects"),
        pytest.param(lambda f: np.save(f / "z.npy", np.arange(20)), "has no array 'y'", id="another name"),
        pytest.param(lambda f: np.save(f / "y.npy", np.arange(3)), "20 samples, the targets have 3", id="lengths"),
    ],
)
def test_npy_files_that_do_not_fit_are_refused(tmp_path, write, message):
    np.save(tmp_path / "x.npy", np.zeros((20, 3), np.float32))
    write(tmp_path)
    with pytest.raises(DataError, match=message):
        load_npz({"": tmp_path})


def test_one_npy_file_is_no_source(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((20, 3), np.float32))
    with pytest.raises(DataError, match=r"x\.npy is one array; give the folder that holds x\.npy and y\.npy"):
        load_npz({"": tmp_path / "x.npy"})

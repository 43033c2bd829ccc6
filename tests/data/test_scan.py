"""The scan: numbers worked out by hand or by SciPy, and leaks, drift and damage that were planted."""

import json
import shutil

import numpy as np
import pytest
import yaml
from PIL import Image

from mltool.data.dataset import Dataset
from mltool.data.describe import describe_input, shown_values
from mltool.data.distances import smirnov, total_variation
from mltool.data.scan import scan
from mltool.errors import DataError
from mltool.spec.load import load_spec

CLASSES = {"SparseCategoricalCrossentropy": {"from_logits": True}}


@pytest.fixture
def dataset(tmp_path):
    """The data set of a `data` section whose files lie in the test's folder."""

    def make(source, loss=CLASSES, **data):
        spec = {
            "name": "s",
            "data": {"source": source, **data},
            "model": {"layers": [{"Dense": {"units": 2}}]},
            "train": {"loss": loss},
        }
        (tmp_path / "s.yaml").write_text(yaml.safe_dump(spec), encoding="utf-8")
        return Dataset(load_spec(tmp_path / "s.yaml"))

    return make


@pytest.fixture
def scanned(dataset, tmp_path):
    """The scan of a `data` section, or of arrays."""

    def make(source=None, loss=CLASSES, data=None, **arrays):
        if arrays:
            np.savez(tmp_path / "a.npz", **arrays)
        return scan(dataset(source or {"path": "a.npz"}, loss, **(data or {})))

    return make


def parts(train, validation, test, name="x"):
    """Arrays that bring their own splits."""
    return {f"{name}_{split}": np.asarray(v) for split, v in zip(SPLITS, (train, validation, test), strict=True)}


SPLITS = ("train", "validation", "test")


def numbers(count, seed=0, shift=0.0):
    return np.random.default_rng(seed).normal(size=(count, 1)).astype(np.float32) + np.float32(shift)


def findings(document, level):
    return [item["message"] for item in document["findings"] if item["level"] == level]


# What there is


def test_samples_and_classes_are_counted_by_split(scanned):
    x = parts(numbers(6), numbers(2, 1), numbers(3, 2))
    y = parts([3, 3, 3, 7, 7, 9], [3, 9], [7, 7, 7], name="y")
    document = scanned(**x, **y)
    assert document["splits"] == {
        "train": {"samples": 6, "classes": {"3": 3, "7": 2, "9": 1}},
        "validation": {"samples": 2, "classes": {"3": 1, "7": 0, "9": 1}},
        "test": {"samples": 3, "classes": {"3": 0, "7": 3, "9": 0}},
    }
    assert (document["schema_version"], document["task"], document["targets"]) == (1, "classification", None)
    assert findings(document, "warning")[:2] == [
        "validation has no sample of the class 7",
        "test has no sample of the class 3, 9",
    ]


def test_groups_are_counted_by_split(scanned, tmp_path):
    rows = [f"{index / 7},{'ab'[index % 2]},p{index // 4}" for index in range(40)]
    (tmp_path / "t.csv").write_text("\n".join(["x,label,who", *rows]), encoding="utf-8")
    document = scanned({"path": "t.csv", "group": "who"})
    assert sum(split["groups"] for split in document["splits"].values()) == 10
    assert all(split["samples"] == 4 * split["groups"] for split in document["splits"].values())


def test_range_mean_and_deviation_are_those_of_the_training_split_by_hand(scanned):
    # (1 + 2 + 3 + 6) / 4 = 3; squares of the distances 4 + 1 + 0 + 9 = 14, 14 / 4 = 3.5.
    x = parts([[1.0], [2.0], [3.0], [6.0]], [[-5.0]], [[40.0], [50.0]])
    found = scanned(**x, **parts([0, 1, 0, 1], [0], [1, 0], name="y"))["inputs"]["x"]
    assert (found["dtype"], found["shape"], found["original"]) == ("float64", [1], "x")
    train = found["splits"]["train"]
    assert train == {"missing": 0, "least": 1.0, "most": 6.0, "mean": 3.0, "deviation": pytest.approx(3.5**0.5)}
    assert found["splits"]["test"]["mean"] == 45.0
    assert found["splits"]["validation"]["deviation"] == 0.0


def test_the_deviation_of_many_batches_is_that_of_numpy(scanned):
    random = np.random.default_rng(0)
    x = [random.normal(index, 2, (count, 4)).astype(np.float32) for index, count in enumerate((5000, 1500, 9))]
    y = parts(*(np.arange(len(part)) % 2 for part in x), name="y")
    found = scanned(**parts(*x), **y)["inputs"]["x"]["splits"]
    for split, part in zip(SPLITS, x, strict=True):
        assert found[split]["mean"] == pytest.approx(part.mean(dtype=np.float64), rel=1e-9)
        assert found[split]["deviation"] == pytest.approx(part.std(dtype=np.float64), rel=1e-9)


def test_a_small_deviation_far_from_zero_is_not_lost_in_rounding(scanned):
    base = np.asarray([[0.0], [1.0], [2.0], [3.0]]) + 1e9  # squares of 1e18, of which float64 has the first 16 digits
    train = scanned(**parts(base, base[:1] + 7, base[:1] + 9), **parts([0, 1, 0, 1], [0], [1], name="y"))
    train = train["inputs"]["x"]["splits"]["train"]
    assert train["deviation"] == pytest.approx(1.25**0.5, rel=1e-6)


def test_one_value_in_all_of_training_is_found_whatever_it_is(scanned):
    x = np.full((3000, 1), 0.1, np.float32)
    other = np.random.default_rng(0).normal(size=(4, 1)).astype(np.float32)
    document = scanned(**parts(x, other[:2], other[2:]), **parts(np.arange(3000) % 2, [0, 1], [0, 1], name="y"))
    assert "'x' has one value in all of training" in findings(document, "warning")


def test_texts_are_measured_in_characters(scanned):
    x = parts(["abc", "", "abcdefgh", "x y z"], ["a"], ["bb"])
    found = scanned(**x, **parts([0, 1, 0, 1], [0], [1], name="y"))["inputs"]["text"]
    assert (found["dtype"], found["kind"], found["shape"]) == ("text", "text", [])
    characters = {"least": 3, "mean": pytest.approx(16 / 3), "most": 8}
    assert found["splits"]["train"] == {"missing": 1, "characters": characters}


@pytest.fixture
def table(tmp_path):
    """A table with a category, a number with holes, and a column whose name is no identifier."""
    rows = ["city,size in m,score,label,part"]
    rows += ["Bern,1,5,yes,train", "Bern,,6,no,train", "Chur,3,7,yes,train", ",4,8,no,train"]
    rows += ["Bern,5,9,yes,validation", "Olten,6,1,no,test", "Bern,,2,yes,test"]
    (tmp_path / "t.csv").write_text("\n".join(rows), encoding="utf-8")
    return {"path": "t.csv", "columns": {"city": "category"}}


SPLIT_COLUMN = {"split": {"by": "column", "column": "part"}}


def test_categories_and_holes_of_a_table_are_counted(scanned, table):
    document = scanned(table, data=SPLIT_COLUMN)
    city, size = document["inputs"]["city"], document["inputs"]["size_in_m"]
    assert city["splits"]["train"] == {"missing": 1, "distinct": 2, "most_frequent": {"Bern": 2, "Chur": 1}}
    assert city["splits"]["test"]["most_frequent"] == {"Bern": 1, "Olten": 1}
    assert (size["original"], size["kind"]) == ("size in m", "number")
    assert size["splits"]["train"]["missing"] == size["splits"]["test"]["missing"] == 1
    assert size["splits"]["train"]["mean"] == pytest.approx(8 / 3)
    notes = findings(document, "note")
    assert any("1 values of 'size_in_m' are missing in training" in note for note in notes)


@pytest.mark.parametrize(
    ("odd", "finding"),
    [
        pytest.param("n.a.", "'level' holds numbers, but for 'n.a.' and the like, and counts as words", id="a word"),
        pytest.param("1,5", "'level' holds numbers that are not written as such, as '1,5', and counts", id="a comma"),
        pytest.param("7", None, id="numbers that are declared categories"),
    ],
)
def test_numbers_that_count_as_words_are_told(odd, finding, scanned, tmp_path):
    # 40 numbers, and one other value in every eighth row.
    values = [odd if index % 8 == 0 else str(index % 41) for index in range(320)]
    rows = [f'"{value}",{index % 3},{index % 2}' for index, value in enumerate(values)]
    (tmp_path / "t.csv").write_text("level,x,label\n" + "\n".join(rows), encoding="utf-8")
    split = {"split": {"test": 0.2, "validation": 0.1, "duplicates": "keep"}}
    for columns, level in (({"level": "category"}, "note"), ({}, "warning")):
        document = scanned({"path": "t.csv", "columns": columns}, data=split)
        told = [message for message in findings(document, level) if "'level' holds" in message]
        assert [message.startswith(finding) for message in told] == [True] if finding else not told


def test_values_that_are_missing_only_outside_of_training_are_an_error(scanned, tmp_path):
    rows = [f"{index},{index % 2},{'train' if index < 8 else 'validation'}" for index in range(10)]
    text = "\n".join(["x,label,part", *rows, ",1,test", "5,0,test"])
    (tmp_path / "t.csv").write_text(text, encoding="utf-8")
    document = scanned({"path": "t.csv"}, data=SPLIT_COLUMN)
    assert findings(document, "error") == ["'x' is missing in validation or test, never in training"]


def test_a_column_without_a_value_in_a_split_has_no_range(scanned, tmp_path):
    rows = [f"{index},{index % 2},train" for index in range(8)]
    text = "\n".join(["x,label,part", *rows, "1.5,1,validation", ",1,test", ",0,test"])
    (tmp_path / "t.csv").write_text(text, encoding="utf-8")
    document = scanned({"path": "t.csv"}, data=SPLIT_COLUMN)
    assert document["inputs"]["x"]["splits"]["test"] == {"missing": 2}
    assert document["drift"] == {}


def test_targets_of_a_regression_are_described(scanned):
    x = parts(numbers(4), numbers(1, 1), numbers(1, 2))
    document = scanned(**x, **parts([1.0, 2.0, 3.0, 6.0], [0.0], [9.0], name="y"), loss="mse")
    assert document["task"] == "regression"
    assert document["targets"]["mean"] == 3.0
    assert document["targets"]["deviation"] == pytest.approx(3.5**0.5)
    assert document["splits"]["train"] == {"samples": 4}


def test_the_document_is_json_without_nan(scanned, table):
    documents = [scanned(table, data=SPLIT_COLUMN), scanned({"dataset": "digits"})]
    for document in documents:
        again = json.loads(json.dumps(document, allow_nan=False))
        assert again == document
        assert set(document) == {
            "schema_version", "source", "task", "splits", "inputs", "targets", "copies", "skipped", "drift", "findings",
        }  # fmt: skip


def test_the_digits_have_nothing_to_mend(scanned):
    document = scanned({"dataset": "digits"})
    assert (document["findings"], document["skipped"]) == ([], [])
    assert document["inputs"]["image"]["splits"]["train"]["most"] == 16.0


# Distances of distributions


SAMPLES = {
    "far apart": ([1, 2, 3], [10, 11]),
    "ties": ([1, 1, 2, 2, 3], [1, 2, 2, 2, 3, 3]),
    "equal": ([1, 2, 3], [1, 2, 3]),
    "one each": ([1], [1]),
    "other sizes": (np.random.default_rng(0).normal(size=100), np.random.default_rng(1).normal(0.3, 2, size=37)),
    "whole numbers": (np.random.default_rng(0).integers(0, 5, 200), np.random.default_rng(1).integers(1, 6, 90)),
}


@pytest.mark.parametrize("name", SAMPLES)
def test_the_statistic_of_smirnov_is_that_of_scipy(name):
    stats = pytest.importorskip("scipy.stats")  # comes with scikit-learn
    one, other = (np.asarray(values, np.float64) for values in SAMPLES[name])
    expected = stats.ks_2samp(one, other).statistic
    assert smirnov(one, other) == pytest.approx(expected, abs=1e-12)
    assert smirnov(other, one) == pytest.approx(expected, abs=1e-12)


def test_the_statistic_of_smirnov_by_hand():
    # At 1 a third of the first is there and nothing of the second; from 2 on they differ by a third.
    assert smirnov(np.array([1.0, 2.0, 3.0]), np.array([2.0, 3.0, 4.0])) == pytest.approx(1 / 3)


def test_the_total_variation_by_hand():
    # a: 2/3 and 1/2, b: 1/3 and 0, c: 0 and 1/2; (1/6 + 1/3 + 1/2) / 2.
    one, other = np.array(["a", "a", "b"]), np.array(["c", "a"])
    assert total_variation(one, other) == pytest.approx(0.5)
    assert total_variation(one, one) == 0.0
    assert total_variation(one, np.array(["x"])) == 1.0


@pytest.mark.parametrize("distance", [smirnov, total_variation])
def test_nothing_has_no_distance(distance):
    assert distance(np.empty(0), np.ones(3)) is None
    assert distance(np.ones(3), np.empty(0)) is None


# Drift


def drifting(shift, count=400):
    x = parts(numbers(count), numbers(100, 1), numbers(count, 2, shift))
    return {**x, **parts(np.arange(count) % 2, np.arange(100) % 2, np.arange(count) % 2, name="y")}


def test_drift_of_numbers_is_found_when_planted(scanned):
    document = scanned(**drifting(1.0))
    assert document["drift"]["x"] > 0.3
    [message] = findings(document, "warning")
    shown = f"{document['drift']['x']:.2f}"
    assert message == f"'x' is distributed otherwise in test than in training (distance {shown} of 1)"


def test_no_drift_is_told_where_there_is_none(scanned):
    document = scanned(**drifting(0.0))
    assert 0 < document["drift"]["x"] < 0.15
    assert document["findings"] == []


def test_a_small_test_split_is_held_to_its_own_noise(scanned):
    x = parts(numbers(400), numbers(50, 1), numbers(12, 6))
    document = scanned(**x, **parts(np.arange(400) % 2, np.arange(50) % 2, np.arange(12) % 2, name="y"))
    assert document["drift"]["x"] > 0.15  # 0.33, of chance: 1.63 sqrt(1/400 + 1/12) = 0.48
    assert document["findings"] == []


def test_drift_of_one_number_of_many_is_found(scanned):
    """A mean over features of very different sizes would hide it."""
    random = np.random.default_rng(0)
    x = [(random.random((count, 4)) * [1, 1, 1e5, 10]).astype(np.float32) for count in (400, 100, 400)]
    x[2][:, 1] += 1
    y = parts(np.arange(400) % 2, np.arange(100) % 2, np.arange(400) % 2, name="y")
    document = scanned(**parts(*x), **y)
    assert document["drift"]["x"] == 1.0
    assert len(findings(document, "warning")) == 1


def categories(shares, count, seed):
    names = np.array([f"c{index}" for index in range(len(shares))])
    return names[np.random.default_rng(seed).choice(len(shares), count, p=shares)]


def table_of(tmp_path, train, test):
    for name, values in (("train", train), ("test", test)):
        rows = [f"{value},{index / len(values):.6f},{index % 2}" for index, value in enumerate(values)]
        (tmp_path / f"{name}.csv").write_text("\n".join(["word,number,label", *rows]), encoding="utf-8")
    return {"path": "train.csv", "test_path": "test.csv", "columns": {"word": "category"}}


KEEP = {"split": {"duplicates": "keep"}}
"""Rows of few values are often equal."""


def test_drift_of_a_category_is_found_when_planted(scanned, tmp_path):
    document = scanned(table_of(tmp_path, categories([0.5, 0.5], 600, 0), categories([0.1, 0.9], 300, 1)), data=KEEP)
    assert document["drift"]["word"] == pytest.approx(0.4, abs=0.08)
    assert any("'word' is distributed otherwise" in message for message in findings(document, "warning"))


@pytest.mark.parametrize(("many", "count"), [(3, 300), (150, 300), (150, 100)])
def test_a_category_of_one_distribution_does_not_drift(scanned, tmp_path, many, count):
    """Of many categories, each is rare, and their shares differ by chance alone: that is no drift."""
    shares = np.full(many, 1 / many)
    document = scanned(table_of(tmp_path, categories(shares, 1000, 0), categories(shares, count, 1)), data=KEEP)
    assert not [message for message in findings(document, "warning") if "distributed otherwise" in message]


def test_drift_of_texts_is_that_of_their_lengths(scanned):
    short, long = ([word * (1 + index % 9) for index in range(300)] for word in ("ab ", "abcdefgh "))
    x = parts([f"{text}{i}" for i, text in enumerate(short)], ["a", "b"], [f"{t}{i}" for i, t in enumerate(long)])
    document = scanned(**x, **parts(np.arange(300) % 2, [0, 1], np.arange(300) % 2, name="y"))
    assert document["drift"]["text"] > 0.5
    assert any("'text' is distributed otherwise" in message for message in findings(document, "warning"))


def test_drift_of_images_is_that_of_their_brightness(scanned):
    random = np.random.default_rng(0)
    dark, bright = (random.integers(low, low + 100, (300, 4, 4), dtype=np.uint8) for low in (0, 150))
    y = parts(np.arange(300) % 2, [0, 1], np.arange(300) % 2, name="y")
    document = scanned(**parts(dark, dark[:2] + 1, bright), **y)
    assert document["drift"]["image"] == 1.0


# Classes


def test_imbalance_is_found_above_ten_to_one(scanned):
    for rare, expected in ((30, 0), (20, 1)):
        y = np.concatenate([np.zeros(300, int), np.ones(rare, int)])
        count = len(y)
        document = scanned(**parts(numbers(count), numbers(2, 1), numbers(2, 2)), **parts(y, [0, 1], [0, 1], name="y"))
        messages = [message for message in findings(document, "warning") if "times the samples" in message]
        assert len(messages) == expected
    assert messages == ["the class '0' has 15 times the samples of '1'"]


def test_a_class_that_training_lacks_is_an_error(scanned):
    document = scanned(
        x=numbers(50), y=np.repeat([0, 1, 2], [20, 20, 10]), data={"split": {"by": "order", "test": 0.2}}
    )
    assert "train has no sample of the class 2" in findings(document, "error")


def test_few_training_samples_are_a_note(scanned):
    document = scanned(**parts(numbers(100), numbers(9, 1), numbers(9, 2)),
                       **parts(np.arange(100) % 2, np.arange(9) % 2, np.arange(9) % 2, name="y"))  # fmt: skip
    assert findings(document, "note") == ["training has 100 samples: all of them calibrate an int8 file"]


# Leaks: a test sample that was copied into training, in every kind of source


def class_folders(tmp_path, classes, ending):
    """Files to write, 12 a class for training and 4 for test."""
    for split, count in (("train", 12), ("test", 4)):
        for name in classes:
            folder = tmp_path / "data" / split / name
            folder.mkdir(parents=True)
            yield from (folder / f"{index}{ending}" for index in range(count))


def image_folder(tmp_path):
    random = np.random.default_rng(0)
    for file in class_folders(tmp_path, ("cat", "dog"), ".png"):
        Image.fromarray(random.integers(0, 255, (6, 6, 3), np.uint8)).save(file)
    shutil.copy(tmp_path / "data/test/dog/3.png", tmp_path / "data/train/cat/stray.png")
    return {"path": "data"}, ["data/test/dog/3.png (test)", "data/train/cat/stray.png ("]


def text_folder(tmp_path):
    for file in class_folders(tmp_path, ("ham", "spam"), ".txt"):
        file.write_text(" ".join(file.parts[-3:]), encoding="utf-8")
    shutil.copy(tmp_path / "data/test/ham/1.txt", tmp_path / "data/train/spam/stray.txt")
    return {"path": "data"}, ["data/test/ham/1.txt (test)", "data/train/spam/stray.txt ("]


def sound_folder(tmp_path):
    soundfile = pytest.importorskip("soundfile")
    random = np.random.default_rng(0)
    for file in class_folders(tmp_path, ("no", "yes"), ".wav"):
        soundfile.write(file, random.uniform(-0.5, 0.5, 80), 8000)
    shutil.copy(tmp_path / "data/test/no/2.wav", tmp_path / "data/train/no/stray.wav")
    return {"path": "data"}, ["data/test/no/2.wav (test)", "data/train/no/stray.wav ("]


def two_tables(tmp_path):
    rows = {split: [f"{i / 3 + shift:.4f},w{i % 5},{'ab'[i % 2]}" for i in range(count)]
            for split, count, shift in (("train", 40, 0), ("test", 10, 100))}  # fmt: skip
    rows["train"].insert(6, rows["test"][4])
    for split, lines in rows.items():
        (tmp_path / f"{split}.csv").write_text("\n".join(["number,word,label", *lines]), encoding="utf-8")
    return {"path": "train.csv", "test_path": "test.csv"}, ["train.csv row 8 (", "test.csv row 6 (test)"]


def one_table(tmp_path):
    rows = [f"{i / 3:.4f},{'ab'[i % 2]},{'train' if i < 30 else 'test'}" for i in range(40)]
    rows.append("10.0000,a,train")  # row 32 is the 31st: 30 / 3
    (tmp_path / "t.csv").write_text("\n".join(["number,label,part", *rows]), encoding="utf-8")
    return {"path": "t.csv"}, ["t.csv row 32 (test)", "t.csv row 42 ("]


def arrays(tmp_path):
    x = {"train": numbers(40), "test": numbers(10, 1)}
    x["train"][5] = x["test"][7]
    np.savez(tmp_path / "a.npz", x_train=x["train"], x_test=x["test"], y_train=np.arange(40) % 2,
             y_test=np.arange(10) % 2)  # fmt: skip
    return {"path": "a.npz"}, ["y_test[7] (test)", "y_train[5] ("]


def user_function(tmp_path):
    code = """
import numpy as np

def load():
    x = np.arange(60, dtype=np.float32).reshape(60, 1)
    x[3] = x[55]
    y = np.arange(60) % 2
    return {"x_train": x[:50], "x_test": x[50:], "y_train": y[:50], "y_test": y[50:]}
"""
    (tmp_path / "leaky_data.py").write_text(code, encoding="utf-8")
    return {"python": "leaky_data:load"}, ["y_test[5] (test)", "y_train[3] ("]


KINDS = {
    "a folder of images": image_folder,
    "a folder of texts": text_folder,
    "a folder of sounds": sound_folder,
    "two tables": two_tables,
    "a table with a column of the split": one_table,
    "arrays": arrays,
    "a user's function": user_function,
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_test_sample_in_training_is_found_and_named(kind, dataset, tmp_path):
    source, names = KINDS[kind](tmp_path)
    split = {"by": "column", "column": "part"} if kind == "a table with a column of the split" else {}
    for duplicates in ("drop", "keep"):
        data = dataset(source, split={**split, "duplicates": duplicates})
        document = scan(data)
        copies = document["copies"]
        kept = int(duplicates == "keep")
        found = (copies["samples_with_a_copy"], copies["across_splits"], copies["dropped"], copies["kept"])
        assert found == (2, 1, 1 - kept, kept)
        [pair] = copies["first"]
        for shown, name in zip(sorted(pair), sorted(names), strict=True):
            assert name in shown
        [message] = findings(document, "error" if kept else "warning")[:1]
        assert all(shown in message for shown in pair)
        kept_words = "1 samples of training or validation have a copy in another split: "
        assert message.startswith(kept_words if kept else "1 copies of test or validation samples are left out")


@pytest.mark.parametrize("kind", KINDS)
def test_a_copy_is_refused_where_the_spec_says_so(kind, dataset, tmp_path):
    source, _ = KINDS[kind](tmp_path)
    split = {"by": "column", "column": "part"} if kind == "a table with a column of the split" else {}
    with pytest.raises(DataError, match="1 samples of training are copies of test samples"):
        _ = dataset(source, split={**split, "duplicates": "error"}).splits


def test_a_sample_that_is_left_out_is_called_so(scanned):
    x = parts(numbers(20), numbers(8, 1), numbers(8, 2))
    x["x_train"][3], x["x_validation"][1] = x["x_test"][0], x["x_test"][5]
    labels = parts(np.arange(20) % 2, np.arange(8) % 2, np.arange(8) % 2, name="y")
    copies = scanned(**x, **labels)["copies"]
    assert copies["first"] == [
        ["y_train[3] (train, left out)", "y_test[0] (test)"],
        ["y_validation[1] (validation, left out)", "y_test[5] (test)"],
    ]
    assert (copies["across_splits"], copies["dropped"], copies["kept"]) == (2, 2, 0)


def test_copies_inside_training_are_counted_and_no_leak(scanned):
    x = parts(numbers(20), numbers(8, 1), numbers(8, 2))
    x["x_train"][3] = x["x_train"][4] = x["x_train"][5]
    labels = parts(np.arange(20) % 2, np.arange(8) % 2, np.arange(8) % 2, name="y")
    document = scanned(**x, **labels)
    assert (document["copies"]["samples_with_a_copy"], document["copies"]["across_splits"]) == (3, 0)
    assert findings(document, "error") == []
    assert findings(document, "warning") == [
        "3 samples have an equal one of another class: y_train[3] (1) = y_train[4] (0)"
    ]
    assert document["copies"]["contradicting"] == 3


def test_equal_rows_of_a_table_may_be_of_two_classes(scanned, tmp_path):
    rows = ["1,2,a", "1,2,b", *(f"{index},{index % 7},{'ab'[index % 2]}" for index in range(2, 60))]
    (tmp_path / "t.csv").write_text("x,z,label\n" + "\n".join(rows), encoding="utf-8")
    document = scanned({"path": "t.csv"}, data={"split": {"test": 0.2, "validation": 0.1}})
    assert any("2 samples have an equal one of another class: t.csv row 2 (a)" in m for m in findings(document, "note"))


def test_classes_that_look_alike_are_told(scanned):
    names = np.asarray(["dog", "dog ", "cat"])
    x = parts(numbers(30), numbers(9, 1), numbers(9, 2))
    labels = parts(*(names[np.arange(count) % 3] for count in (30, 9, 9)), name="y")
    assert "classes look alike: 'dog' and 'dog '" in findings(scanned(**x, **labels), "warning")


def test_letters_of_both_cases_are_classes_of_their_own(scanned):
    names = np.asarray(["a", "A", "b"])
    x = parts(numbers(30), numbers(9, 1), numbers(9, 2))
    labels = parts(*(names[np.arange(count) % 3] for count in (30, 9, 9)), name="y")
    assert not any("alike" in message for message in findings(scanned(**x, **labels), "warning"))


def test_the_scan_of_recorded_splits_is_the_scan_of_the_first_time(dataset, tmp_path):
    """A resumed run scans again, and takes its splits from its own record."""
    source, _ = arrays(tmp_path)
    for duplicates in ("drop", "keep"):
        first, again = (dataset(source, split={"duplicates": duplicates}) for _ in range(2))
        before = scan(first)
        again.use_stored_splits(first.record())
        assert scan(again) == before


def test_only_the_first_copies_are_named_and_all_are_counted(scanned):
    x = parts(numbers(60), numbers(8, 1), numbers(40, 2))
    x["x_train"][:30] = x["x_test"][:30]
    labels = parts(np.arange(60) % 2, np.arange(8) % 2, np.arange(40) % 2, name="y")
    document = scanned(**x, **labels, data={"split": {"duplicates": "keep"}})
    assert (document["copies"]["across_splits"], document["copies"]["kept"]) == (30, 30)
    assert len(document["copies"]["first"]) == 10
    [message] = findings(document, "error")
    assert message.count(" = ") == 5
    assert message.endswith("; and 25 more")


def test_a_great_many_copies_are_counted_in_time(scanned):
    """Every sample of 200,000 has a copy: a pass over all of them for each would take an hour."""
    base = np.arange(100_000, dtype=np.float32).reshape(-1, 1)
    x = {"x_train": np.concatenate([base, base[:50_000]]), "x_test": base[50_000:]}
    y = {"y_train": np.arange(150_000) % 2, "y_test": np.arange(50_000) % 2}
    document = scanned(**x, **y, data={"split": {"duplicates": "keep"}})
    assert (document["copies"]["samples_with_a_copy"], document["copies"]["across_splits"]) == (200_000, 50_000)


def test_a_speaker_on_both_sides_is_found_and_named(dataset, tmp_path):
    soundfile = pytest.importorskip("soundfile")
    random = np.random.default_rng(0)
    for split, who in (("train", ("ann", "bob", "eve")), ("test", ("bob", "zoe"))):
        for name in who:
            for word in ("no", "yes"):
                folder = tmp_path / "data" / split / word
                folder.mkdir(parents=True, exist_ok=True)
                for index in range(4):
                    soundfile.write(folder / f"{name}_{index}.wav", random.uniform(-0.5, 0.5, 80), 8000)
    data = dataset({"path": "data", "group": "^([a-z]+)_"})
    with pytest.raises(DataError, match=r"the group 'bob' stands in (train|validation) and in test"):
        _ = data.splits


# Damage


def test_files_that_were_skipped_are_named_with_their_reason(scanned, tmp_path):
    source, _ = image_folder(tmp_path)
    (tmp_path / "data/train/cat/5.png").write_bytes(b"")
    (tmp_path / "data/train/dog/2.png").write_bytes(b"no image")
    document = scanned({**source, "on_error": "skip", "max_skipped": 2})
    assert [item["name"].rsplit("data/")[1] for item in document["skipped"]] == ["train/cat/5.png", "train/dog/2.png"]
    assert document["skipped"][0]["reason"] == "it is empty (0 bytes)"
    message = next(m for m in findings(document, "warning") if "cannot be read" in m)
    assert "2 files cannot be read and are left out" in message
    assert "5.png: it is empty (0 bytes)" in message


# The schema of the inputs


def described(dataset, source, name, **data):
    found = dataset(source, **data)
    return describe_input(name, found.split("train"), found.source)


def test_the_schema_of_a_number_has_its_range_and_whether_it_may_be_missing(dataset, table):
    info = described(dataset, table, "size_in_m", **SPLIT_COLUMN)
    assert (info.dtype, info.shape, info.kind, info.original) == ("float32", (1,), "number", "size in m")
    assert (info.minimum, info.maximum, info.missing) == (1.0, 4.0, True)
    info = described(dataset, table, "score", **SPLIT_COLUMN)
    assert (info.minimum, info.maximum, info.missing, info.original) == (5.0, 8.0, False, None)


def test_the_schema_of_a_category_lists_those_of_training_only(dataset, table):
    info = described(dataset, table, "city", **SPLIT_COLUMN)
    assert (info.dtype, info.categories, info.missing) == ("string", ("Bern", "Chur"), True)
    assert (info.minimum, info.maximum) == (None, None)


def test_a_category_of_too_many_values_is_not_listed(dataset, tmp_path):
    rows = [f"c{index},{index},{index % 2}" for index in range(2000)]
    (tmp_path / "t.csv").write_text("\n".join(["word,number,label", *rows]), encoding="utf-8")
    info = described(dataset, {"path": "t.csv", "columns": {"word": "category"}}, "word")
    assert (info.kind, info.categories, info.missing) == ("category", (), False)


def test_the_schema_of_an_image_is_that_of_its_files(dataset, tmp_path):
    source, _ = image_folder(tmp_path)
    info = described(dataset, source, "image")
    assert (info.shape, info.kind, info.dtype) == ((6, 6, 3), "image", "float32")
    assert 0 <= info.minimum < info.maximum <= 255


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ({"missing": 0, "least": -1.0, "most": 12345.678, "mean": 0.5}, "-1 to 12,345.7, mean 0.5"),
        ({"missing": 0, "least": 0, "most": 1484705.0, "mean": 2e13}, "0 to 1,484,705, mean 2e+13"),
        ({"missing": 0, "distinct": 3, "most_frequent": {}}, "3 categories"),
        ({"missing": 0, "characters": {"least": 1, "mean": 2.0, "most": 9}}, "1 to 9 characters"),
        ({"missing": 4}, "-"),
    ],
    ids=["numbers", "large numbers", "categories", "texts", "nothing"],
)
def test_values_are_shown_in_words(found, words):
    assert shown_values(found) == words


@pytest.mark.parametrize(
    ("shift", "told"), [pytest.param(0.0, False, id="normal alike"), pytest.param(2.0, True, id="normal moved")]
)
def test_anomalies_are_no_drift_of_the_test_set(shift, told, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    odd = np.full(60, 9.0, np.float32)[:, np.newaxis] + numbers(60, 3)
    states = {"train": ["good"] * 200, "validation": ["good"] * 40, "test": ["good"] * 100 + ["odd"] * 60}
    values = (numbers(200, 0), numbers(40, 1), np.concatenate([numbers(100, 2, shift), odd]))
    np.savez("a.npz", **parts(*values), **parts(*states.values(), name="y"))
    spec = {
        "name": "s",
        "data": {"source": {"path": "a.npz"}},
        "model": {"layers": [{"Dense": {"units": 1}}]},
        "train": {"loss": "mse", "anomaly": {"normal": "good"}},
    }
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(spec), encoding="utf-8")
    document = scan(Dataset(load_spec("s.yaml")))
    assert any("distributed otherwise" in finding["message"] for finding in document["findings"]) is told
    assert (document["drift"]["x"] > 0.5) is told

"""`mltool init --from` and `--template`: a spec for data that are there, and it trains without an edit."""

import csv
import wave
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pyarrow import csv as arrow_csv
from pyarrow import parquet

from mltool.pipeline.starting_spec import templates
from mltool.spec.load import load_spec


@pytest.fixture
def random():
    return np.random.default_rng(5)


def write_table(path, rows):
    with Path(path).open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return path


def houses(random, count=120):
    rows = [["rooms", "area m2", "town", "id", "price"]]
    for number in range(count):
        rooms, area = int(random.integers(1, 6)), float(random.uniform(20, 200))
        price = f"{1000 * rooms + 30 * area + random.normal(0, 5):.2f}"
        rows.append([rooms if number % 9 else "", f"{area:.1f}", ["Ulm", "Bonn"][number % 2], f"h{number}x", price])
    return write_table("houses.csv", rows)


def people(random, count=120):
    rows = [["age", "job", "note", "income"]]
    for number in range(count):
        age = int(random.integers(18, 80))
        job = ["clerk", "nurse", "?"][number % 3]
        note = f"works {['hard', 'well', 'late'][number % 3]} and lives at number {number} now"
        rows.append([age, job, note, ">50K" if age > 45 else "<=50K"])
    return write_table("people.csv", rows)


def messages(random, count=60):
    words = {"ham": "see you at home tonight", "spam": "win a free prize now"}
    labels = random.choice(["ham", "spam"], count)
    rows = ([label, f"{words[label]} {int(random.integers(1000))} times"] for label in labels)
    return write_table("sms.csv", [["label", "text"], *rows])


def pictures(random, sizes=((24, 24),)):
    for number in range(60):
        label = ["dark", "light", "mid"][number % 3]
        folder = Path("pictures", label)
        folder.mkdir(parents=True, exist_ok=True)
        height, width = sizes[number % len(sizes)]
        level = {"dark": 40, "light": 220, "mid": 128}[label]
        pixels = random.integers(level - 30, level + 30, (height, width, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return "pictures"


def sounds(random, *, flat=True, rate=8000):
    Path("sounds").mkdir()
    for number in range(48):
        label = ["high", "low"][number % 2]
        times = np.arange(int(rate * (0.3 + 0.01 * (number % 5)))) / rate
        tone = np.sin(2 * np.pi * {"high": 2000, "low": 300}[label] * times) + random.normal(0, 0.05, len(times))
        file = Path("sounds", f"{label}_{number}.wav") if flat else Path("sounds", label, f"{number}.wav")
        file.parent.mkdir(exist_ok=True)
        with wave.open(str(file), "wb") as opened:
            opened.setnchannels(1)
            opened.setsampwidth(2)
            opened.setframerate(rate)
            opened.writeframes((tone * 8000).astype("<i2").tobytes())
    return "sounds"


def texts(random):
    for number in range(48):
        label = ["bad", "good"][number % 2]
        Path("texts", label).mkdir(parents=True, exist_ok=True)
        Path("texts", label, f"{number}.txt").write_text(f"a {label} day, number {random.integers(1000)}")
    return "texts"


def series(random):
    level = np.repeat([0.0, 1.0], 30)
    x = random.normal(level[:, None, None], 0.2, (60, 40, 2)).astype(np.float32)
    order = random.permutation(60)
    np.savez("series.npz", x=x[order], y=np.asarray(["rest", "move"])[level.astype(int)][order])
    return "series.npz"


def arrays_in_a_folder(random):
    x = random.normal(0, 1, (80, 5)).astype(np.float32)
    Path("arrays").mkdir()
    np.save("arrays/x.npy", x)
    np.save("arrays/y.npy", (x[:, 0] > 0).astype(int))
    return "arrays"


def vectors_under_other_names(random):
    x = random.normal(0, 1, (80, 5)).astype(np.float32)
    np.savez("vectors.npz", features=x, labels=(x[:, 0] > 0).astype(int))
    return "vectors.npz"


def several_values(random):
    x = random.normal(0, 1, (80, 5)).astype(np.float32)
    np.savez("values.npz", x=x, y=x[:, :2] * 3 + 1)
    return "values.npz"


def several_labels(random):
    x = random.normal(0, 1, (80, 5)).astype(np.float32)
    np.savez("labels.npz", x=x, y=(x[:, :3] > 0).astype(int))
    return "labels.npz"


KINDS = {
    "a table with a value to predict": (houses, "root_mean_squared_error"),
    "a table of numbers, categories and texts": (people, "accuracy"),
    "messages in a table": (messages, "accuracy"),
    "pictures in folders": (pictures, "accuracy"),
    "pictures of several sizes": (lambda random: pictures(random, ((24, 24), (30, 50), (64, 40))), "accuracy"),
    "sounds with labels in their names": (sounds, "accuracy"),
    "sounds in folders": (lambda random: sounds(random, flat=False), "accuracy"),
    "texts in folders": (texts, "accuracy"),
    "series in an npz": (series, "accuracy"),
    "arrays in a folder": (arrays_in_a_folder, "accuracy"),
    "vectors under other names": (vectors_under_other_names, "accuracy"),
    "several values a sample": (several_values, "root_mean_squared_error"),
    "several labels a sample": (several_labels, "accuracy"),
}


@pytest.mark.parametrize(("make", "metric"), KINDS.values(), ids=KINDS)
def test_the_spec_trains_without_an_edit(make, metric, random, mltool):
    data = make(random)
    ran = mltool("init", "my.yaml", "--from", data)
    assert ran.code == 0, ran.err
    assert ran.out == "wrote my.yaml; train it: mltool run my.yaml\n"
    assert mltool("check", "my.yaml", "--data", "-q").code in (0, 4)  # 4: a tiny split that lacks a class
    trained = mltool("train", "my.yaml", "--set", "train.epochs=2", "--json", "-q")
    assert trained.code == 0, trained.err
    assert metric in trained.document["metrics"] or f"val_{metric}" in trained.document["metrics"]
    assert load_spec("my.yaml").limits.metric == metric


def test_kinds_of_columns_and_missing_marks_are_written_down(random, mltool):
    people(random)
    ran = mltool("init", "my.yaml", "--from", "people.csv")
    source = load_spec("my.yaml").data.source
    assert source.target == "income"
    assert source.columns == {"age": "number", "job": "category", "note": "text"}
    assert "?" in source.missing
    assert "" in source.missing
    assert "the target is the last column, 'income'" in ran.err
    assert "'?' is taken for a missing value" in ran.err


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_column_that_counts_the_rows_is_left_out(ending, mltool):
    rows = [[number + 100, number, number % 7, f"{number * 1.5:.1f}"] for number in range(60)]
    rows[5][1] = 99  # this one only looks like it
    write_table("t.csv", [["id", "other", "week day", "price"], *rows])
    if ending == "parquet":
        parquet.write_table(arrow_csv.read_csv("t.csv"), "t.parquet")
    ran = mltool("init", "my.yaml", "--from", f"t.{ending}")
    assert f"t.{ending}: 'id' counts the rows: left out (data.source.columns)" in ran.err
    assert load_spec("my.yaml").data.source.columns == {"id": "ignore", "other": "number", "week day": "number"}


def test_the_only_input_stays_though_it_counts_the_rows(mltool):
    write_table("t.csv", [["month", "price"], *([number, f"{number * 1.5:.1f}"] for number in range(60))])
    assert mltool("init", "my.yaml", "--from", "t.csv").code == 0
    assert load_spec("my.yaml").data.source.columns == {"month": "number"}


@pytest.mark.parametrize(("make", "told"), [(messages, True), (pictures, False)], ids=["text", "images"])
def test_what_stays_outside_of_a_file_is_told_where_it_does(make, told, random, mltool):
    mltool("init", "my.yaml", "--from", make(random))
    text = Path("my.yaml").read_text()
    assert "part of the model, so it is inside every file that comes out" in text
    assert ("(but for words, which LiteRT does not take" in text) is told


@pytest.mark.parametrize("name", ["label", "Target", "CLASS", "y"])
def test_a_target_is_known_by_its_name(name, mltool):
    write_table("t.csv", [[name, "a", "b"], *([["x", "z"][i % 2], i, i * 2.5] for i in range(60))])
    assert mltool("init", "my.yaml", "--from", "t.csv").code == 0
    assert load_spec("my.yaml").data.source.target == name


def test_the_target_may_be_named(mltool):
    write_table("t.csv", [["a", "b", "c"], *([i * 0.5, ["x", "z"][i % 2], i * 2] for i in range(60))])
    assert mltool("init", "my.yaml", "--from", "t.csv", "--target", "a").code == 0
    spec = load_spec("my.yaml")
    assert spec.data.source.target == "a"
    assert spec.train.loss.name == "MeanSquaredError"


@pytest.mark.parametrize(
    ("values", "loss"),
    [
        pytest.param(range(60), "MeanSquaredError", id="many numbers"),
        pytest.param([1, 2, 3] * 20, "SparseCategoricalCrossentropy", id="few whole numbers"),
        pytest.param([0.5, 1.5] * 30, "MeanSquaredError", id="fractions"),
        pytest.param(["1.0", "2.0"] * 30, "BinaryCrossentropy", id="two whole numbers written as fractions"),
        pytest.param([f"c{i % 30}" for i in range(60)], "SparseCategoricalCrossentropy", id="many words"),
    ],
)
def test_what_is_predicted_decides_the_loss(values, loss, mltool):
    write_table("t.csv", [["a", "y"], *([i * 1.5, value] for i, value in enumerate(values))])
    ran = mltool("init", "my.yaml", "--from", "t.csv")
    assert ran.code == 0, ran.err
    assert load_spec("my.yaml").train.loss.name == loss


def test_folders_that_are_called_by_numbers_are_classes(mltool):
    for number in range(25):
        folder = Path("plates", str(number))
        folder.mkdir(parents=True)
        for copy in range(4):
            (folder / f"{copy}.txt").write_text(f"plate {number} copy {copy}")
    assert mltool("init", "my.yaml", "--from", "plates").code == 0
    assert load_spec("my.yaml").train.loss.name == "SparseCategoricalCrossentropy"


def test_the_remarks_of_a_table_are_made_once(random, mltool):
    houses(random)
    err = mltool("init", "my.yaml", "--from", "houses.csv").err
    assert err.count("the target is the last column, 'price'") == 1
    assert err.count("houses.csv: target price; number: rooms, area m2; category: town (data.source") == 1


def test_numbers_that_are_not_written_as_such_are_told_once(mltool):
    rows = [f"{index % 40},{index % 5};{index % 2};{index}" for index in range(120)]
    Path("t.csv").write_text("price;label;id\n" + "\n".join(rows) + "\n")
    ran = mltool("init", "my.yaml", "--from", "t.csv")
    assert ran.err.count("fields are separated by ';'") == 1
    assert ran.err.count("'price' holds numbers that are not written as such, as '") == 1
    source = load_spec("my.yaml").data.source
    assert (source.separator, source.columns) == (";", {"price": "category", "id": "ignore"})
    document = mltool("check", "my.yaml", "--data", "--json").document["scan"]
    told = [finding["message"] for finding in document["findings"]]
    assert any("'price' holds numbers that are not written as such" in message for message in told)


def test_arrays_whose_names_end_like_a_split_are_inputs(mltool):
    x = np.random.default_rng(1).normal(size=(60, 2)).astype(np.float32)
    np.savez("a.npz", x=x, std_dev=x, is_valid=np.ones((60, 1), np.float32), y=np.arange(60) % 2)
    assert mltool("init", "my.yaml", "--from", "a.npz").code == 0
    assert list(load_spec("my.yaml").data.inputs) == ["x", "std_dev", "is_valid"]
    assert mltool("check", "my.yaml", "--data", "-q").code == 0
    np.savez("b.npz", x_train=x, x_val=x[:9] + 1, x_test=x[:8] + 2, y_train=np.arange(60) % 2, y_val=np.arange(9) % 2,
             y_test=np.arange(8) % 2)  # fmt: skip
    assert mltool("init", "b.yaml", "--from", "b.npz").code == 0
    splits = mltool("check", "b.yaml", "--data", "--json").document["scan"]["splits"]
    assert [splits[name]["samples"] for name in ("train", "validation", "test")] == [60, 9, 8]


def test_integers_that_numbers_cannot_tell_apart_are_left_out(mltool):
    rows = [[2**60 + 2 * index, index % 7, ["x", "z"][index % 2]] for index in range(60)]
    write_table("t.csv", [["account", "a", "label"], *rows])
    parquet.write_table(arrow_csv.read_csv("t.csv"), "t.parquet")
    for name in ("t.csv", "t.parquet"):
        ran = mltool("init", f"{name}.yaml", "--from", name)
        assert ran.err.count("column 'account' holds integers that numbers cannot tell apart: left out") == 1
        assert load_spec(f"{name}.yaml").data.source.columns == {"account": "ignore", "a": "number"}


def test_paths_are_relative_to_the_spec(random, mltool):
    pictures(random)
    Path("specs").mkdir()
    assert mltool("init", "specs/my.yaml", "--from", "pictures").code == 0
    assert "path: ../pictures" in Path("specs/my.yaml").read_text()
    assert mltool("check", "specs/my.yaml", "--data", "-q").code == 0


def test_the_file_is_named_after_the_data(random, mltool):
    pictures(random)
    assert mltool("init", "--from", "pictures", "--json").document["spec"] == "pictures.yaml"
    assert mltool("init", "--from", "pictures/").code == 2  # there already


REFUSED = {
    "nothing there": (lambda: "nothing", "nothing is not there", 4),
    "a kind of its own": (lambda: Path("x.bin").write_text("x") and "x.bin", "is of no kind that mltool reads", 4),
    "one class": (
        lambda: write_table("t.csv", [["a", "y"], *([i, "x"] for i in range(60))]),
        "all samples are of one class, 'x'",
        4,
    ),
    "few samples": (
        lambda: write_table("t.csv", [["a", "y"], *([i * i, "xz"[i % 2]] for i in range(6))]),
        "t.csv has 6 samples: too few to train, to choose and to test on; 20 are the fewest",
        4,
    ),
    "ragged rows": (
        lambda: Path("t.csv").write_text("a,y\n1,2\n1,2,3\n") and "t.csv",
        "t.csv, row 3: 3 fields, the header has 2",
        4,
    ),
}


@pytest.mark.parametrize(("make", "message", "code"), REFUSED.values(), ids=REFUSED)
def test_data_that_cannot_be_learned_from_leave_no_spec(make, message, code, mltool):
    ran = mltool("init", "my.yaml", "--from", make())
    assert (ran.code, message in ran.err) == (code, True), ran.err
    assert "Traceback" not in ran.err
    assert not Path("my.yaml").exists()


def test_files_without_labels_are_refused_with_the_cure(mltool):
    Path("sounds").mkdir()
    for name in ("one", "two"):
        Path("sounds", f"{name}.wav").write_bytes(b"RIFF")
    ran = mltool("init", "my.yaml", "--from", "sounds")
    assert ran.code == 4
    assert "lie in no folder of a class, and their names tell none; make a folder a class" in ran.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param(["--target", "a"], "--target is for --from; add --from DATA", id="a target without data"),
        pytest.param(["--from", "x", "--template", "adult"], "two ways to a spec; take one", id="both"),
        pytest.param(["--template", "nothing"], "there is no template 'nothing'; there are: adult,", id="no template"),
    ],
)
def test_options_that_do_not_fit_are_a_usage_error(arguments, message, mltool):
    ran = mltool("init", "my.yaml", *arguments)
    assert (ran.code, message in ran.err) == (2, True), ran.err
    assert not Path("my.yaml").exists()


def test_a_file_must_be_named_where_nothing_else_does(mltool):
    ran = mltool("init")
    assert (ran.code, ran.err) == (2, "error: name a FILE to write; mltool init my.yaml\n")


@pytest.mark.parametrize("template", sorted(templates()))
def test_every_template_is_a_spec(template, mltool):
    assert mltool("init", "--template", template).code == 0
    (file,) = Path().glob("*.yaml")
    assert load_spec(file, needs_files=False).name == file.stem


def test_the_code_of_a_template_comes_along_and_overwrites_nothing(mltool):
    assert mltool("init", "my.yaml", "--template", "mnist_step").code == 0
    assert sorted(path.name for path in Path().iterdir()) == ["mnist_step.py", "my.yaml"]
    assert load_spec("my.yaml").train.step.python == f"{Path('mnist_step.py').absolute()}:train_step"
    assert mltool("init", "again.yaml", "--template", "mnist_step").code == 0  # it is the same code
    Path("mnist_step.py").write_text("mine = 1\n", encoding="utf-8")
    ran = mltool("init", "third.yaml", "--template", "mnist_step")
    assert ran.code == 2
    assert ran.err.endswith(
        "mnist_step.py is there already; init overwrites nothing; write the spec into another folder\n"
    )
    assert not Path("third.yaml").exists()
    assert Path("mnist_step.py").read_text(encoding="utf-8") == "mine = 1\n"


def test_the_shipped_specs_are_templates():
    assert {"starter", "digits", "spoken_digits", "adult", "cifar10"} <= set(templates())

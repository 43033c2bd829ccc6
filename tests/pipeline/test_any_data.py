"""Data with words in them, all the way: steps outside of the file where LiteRT takes no text, and the report."""

import csv
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

from mltool import console
from mltool.cli.main import main
from mltool.runs.run import Run

NASTY = "<script>alert(1)</script>"
"""A class that would run in a page that does not escape it."""

TABLE = {
    "name": "people",
    "data": {
        "source": {"path": "people.csv", "target": "answer", "group": "house", "weight": "weight"},
        "batch_size": 64,
    },
    "model": {
        "preprocess": "auto",
        "layers": [
            {"Concatenate": {"inputs": ["numbers", "categories", "texts"]}},
            {"Dense": {"units": 16, "activation": "relu", "name": "first"}},
            {"Dense": {"units": 3}},
        ],
    },
    "train": {
        "epochs": 12,
        "optimizer": {"Adam": {"learning_rate": 2e-2}},
        "loss": {"SparseCategoricalCrossentropy": {"from_logits": True}},
        "metrics": ["accuracy"],
        "class_weights": "balanced",
    },
    "convert": [{"quantize": "int8"}, {"quantize": "none"}],
}


def write_people(path, count=600):
    random = np.random.default_rng(3)
    with Path(path).open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["age", "hours-per-week", "town", "note", "house", "weight", "answer"])
        for number in range(count):
            age, town = float(random.uniform(20, 80)), ["Ulm", "Bonn", "Köln", ""][int(random.integers(4))]
            mood = ["glad", "sad", "calm"][int(random.integers(3))]
            answer = NASTY if age > 60 else "yes" if mood == "glad" else "no"
            hours = "" if number % 7 == 0 else f"{random.uniform(0, 60):.1f}"
            rows.writerow(
                [f"{age:.2f}", hours, town, f"is {mood} today, {number}", f"h{number // 3}", 1 + number % 2, answer]
            )


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    """A run of the whole chain on a table of numbers, categories and texts."""
    folder = tmp_path_factory.mktemp("people")
    write_people(folder / "people.csv")
    (folder / "people.yaml").write_text(yaml.safe_dump(TABLE, sort_keys=False), encoding="utf-8")
    console._settings = console._Settings()
    with pytest.raises(SystemExit, match=r"^0$"):
        main(["run", str(folder / "people.yaml"), "--run-dir", str(folder / "run"), "-q"])
    return Run.open(folder / "run")


def test_the_chain_ends_well_and_the_words_are_looked_up_outside(people):
    report = json.loads(people.report_file.read_text())
    assert report["failure"] is None
    assert report["evaluation"]["metrics"]["accuracy"] > 0.85
    assert [item["path"].rsplit("/", 1)[1] for item in report["artifacts"]] == ["int8.tflite", "none.tflite"]
    for item in report["artifacts"]:
        assert len(item["outside"]) == 2


def test_input_json_and_the_vocabularies_say_how(people):
    schema = json.loads((people.lite_folder / "input.json").read_text())
    inputs = {info["name"]: info for info in schema["inputs"]}
    assert inputs["hours_per_week"]["original"] == "hours-per-week"
    assert inputs["hours_per_week"]["missing"] is True
    assert inputs["age"]["missing"] is False
    assert sorted(inputs["town"]["categories"]) == ["Bonn", "Köln", "Ulm"]
    steps = {step["input"]: step for step in schema["preprocessing"] if step["takes_text"]}
    assert set(steps) == {"town", "note"}
    words = json.loads((people.lite_folder / steps["note"]["vocabulary"]).read_text(encoding="utf-8"))
    assert {"glad", "sad", "calm"} <= set(words["tokens"])


def test_a_copied_lite_folder_answers_a_table_as_the_keras_model_does(people, tmp_path, capfd):
    shutil.copytree(people.lite_folder, tmp_path / "lite")
    source = people.directory.parent / "people.csv"

    def answers(artifact):
        console._settings = console._Settings()
        with pytest.raises(SystemExit, match=r"^0$"):
            main(["predict", str(artifact), "--input", str(source), "--json", "-q"])
        return json.loads(capfd.readouterr().out)["predictions"]

    keras, float_file, int8 = (
        answers(file) for file in (people.keras_file, tmp_path / "lite/none.tflite", tmp_path / "lite/int8.tflite")
    )
    assert [item["id"] for item in keras] == list(range(2, 602))
    expected, found = (np.asarray([item["probabilities"] for item in part]) for part in (keras, float_file))
    np.testing.assert_allclose(found, expected, atol=1e-4)
    same = [one["answer"] == other["answer"] for one, other in zip(keras, int8, strict=True)]
    assert np.mean(same) > 0.97


@pytest.mark.parametrize(
    ("row", "message"),
    [
        pytest.param(
            "30,10,Rome,is sad,h,1,yes",
            "'town' has values that training had not: 'Rome', in new.csv row 2",
            id="a new town",
        ),
        pytest.param(",10,Ulm,is sad,h,1,yes", "'age' is missing (NaN) in new.csv row 2", id="a missing number"),
        pytest.param("old,10,Ulm,is sad,h,1,yes", "row 2: 'age' is 'old', a number is expected", id="a word"),
    ],
)
def test_rows_that_training_never_saw_are_refused(people, row, message, tmp_path, capfd):
    (tmp_path / "new.csv").write_text(f"age,hours-per-week,town,note,house,weight,answer\n{row}\n")
    console._settings = console._Settings()
    with pytest.raises(SystemExit, match=r"^4$"):
        main(["predict", str(people.lite_folder / "int8.tflite"), "--input", str(tmp_path / "new.csv")])
    err = capfd.readouterr().err
    assert message in err
    assert "Traceback" not in err


def test_a_new_category_is_answered_when_it_is_allowed(people, tmp_path, capfd):
    (tmp_path / "new.csv").write_text("age,hours-per-week,town,note\n70,10,Rome,is sad\n", encoding="utf-8")
    console._settings = console._Settings()
    file = str(people.lite_folder / "int8.tflite")
    with pytest.raises(SystemExit, match=r"^0$"):
        main(["predict", file, "--input", str(tmp_path / "new.csv"), "--allow-unseen", "--json"])
    out, err = capfd.readouterr()
    assert json.loads(out)["predictions"][0]["answer"] == NASTY
    assert "'town' has values that training had not: 'Rome'" in err


def test_no_house_stands_in_two_splits(people):
    splits = people.load_splits()
    houses = [set((splits[f"{name}_ids"] // 3).tolist()) for name in ("train", "validation", "test")]
    assert [
        len(one & other) for one, other in ((houses[0], houses[1]), (houses[0], houses[2]), (houses[1], houses[2]))
    ] == [0, 0, 0]


def test_run_resume_makes_what_is_missing_and_nothing_twice(people, tmp_path, capfd):
    shutil.copytree(people.directory, tmp_path / "run")
    run = Run.open(tmp_path / "run")
    shutil.rmtree(run.lite_folder)
    before = run.keras_file.stat().st_mtime_ns
    console._settings = console._Settings()
    with pytest.raises(SystemExit, match=r"^0$"):
        main(["run", "--resume", str(run.directory), "-q"])
    assert run.keras_file.stat().st_mtime_ns == before
    assert (run.lite_folder / "int8.tflite").is_file()
    assert str(run.directory) in capfd.readouterr().out


# The report


@pytest.fixture(scope="module")
def page(people):
    return people.report_page_file.read_text(encoding="utf-8")


def test_the_page_needs_no_network_and_runs_nothing_of_the_data(page):
    assert NASTY not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    outside = [link for link in re.findall(r"(?:https?:)?//[\w.]+", page) if "www.w3.org" not in link]
    outside = [link for link in outside if not re.search(r"purl\.org|creativecommons", link)]
    assert outside == []
    assert "@import" not in page
    assert not re.search(r"url\((?!#)", page)
    assert re.findall(r"<(?:script|link|iframe)\b", page) == []


def test_the_page_tells_what_the_run_recorded(people, page):
    accuracy = json.loads(people.evaluation_file.read_text())["metrics"]["accuracy"]
    assert f"{accuracy:.4g}" in page
    for word in ("int8", "hours-per-week", "town", "people.csv"):
        assert word in page, word
    assert page.count("<svg") >= 3


def test_the_confusion_matrix_is_that_of_scikit_learn(people):
    metrics = pytest.importorskip("sklearn.metrics")
    from mltool.evaluation.metrics import confusion_matrix
    from mltool.report.predictions import load_predictions
    from mltool.report.tables import class_rows

    (found,) = load_predictions(people).values()
    expected = metrics.confusion_matrix(found.targets, found.answers, labels=[0, 1, 2])
    np.testing.assert_array_equal(confusion_matrix(found.targets, found.answers, 3), expected)
    rows = class_rows(expected, people.input_schema.outputs[0].labels)
    precision, recall, f1, support = metrics.precision_recall_fscore_support(
        found.targets, found.answers, labels=[0, 1, 2]
    )
    assert len(rows) == 3
    for row, *values in zip(rows, precision, recall, f1, support, strict=True):
        shown = [row.precision, row.recall, row.f1, row.samples]
        np.testing.assert_allclose(shown, values)


def test_parts_that_a_run_has_not_are_left_out(people, tmp_path):
    from mltool.report.page import report

    shutil.copytree(people.directory, tmp_path / "run")
    run = Run.open(tmp_path / "run")
    shutil.rmtree(run.lite_folder)
    for file in (run.evaluation_file, run.predictions_file, run.scan_file):
        file.unlink()
    page = report(run, tmp_path / "page.html").read_text(encoding="utf-8")
    assert "Artifacts" not in page
    assert "people" in page


def test_a_damaged_part_is_named(people, tmp_path, capfd):
    shutil.copytree(people.directory, tmp_path / "run")
    (tmp_path / "run" / "scan.json").write_text("{")
    console._settings = console._Settings()
    with pytest.raises(SystemExit, match=r"^5$"):
        main(["report", str(tmp_path / "run")])
    assert "scan.json is damaged" in capfd.readouterr().err

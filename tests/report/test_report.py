"""The page of a run: what it tells, that it stands alone, and what it does without."""

import base64
import io
import json
import re
import shutil
import xml.etree.ElementTree as ET
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import artifacts
import numpy as np
import pytest
import yaml
from PIL import Image
from sklearn.metrics import confusion_matrix as sklearn_matrix
from sklearn.metrics import precision_recall_fscore_support

from mltool.conversion.convert import convert
from mltool.conversion.explain.advice import explanation
from mltool.conversion.explain.records import LayerError
from mltool.errors import ArtifactError, VerificationError
from mltool.evaluation.evaluate import evaluate
from mltool.evaluation.metrics import confusion_matrix
from mltool.report import plots
from mltool.report.data_section import data_section, scan_pictures
from mltool.report.page import report
from mltool.report.pictures import as_bytes, png_uri
from mltool.report.predictions import load_predictions
from mltool.report.tables import Mistake, class_rows, worst_mistakes
from mltool.runs.lite import LiteFolder
from mltool.runs.run import Run
from mltool.spec.load import load_spec
from mltool.training.train import train


class Page(HTMLParser):
    """What a reader of the page meets: headings, rows of tables, text, and every tag with its attributes."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.headings, self.rows, self.words = [], [], [], []
        self._within = ""
        self.feed(text)
        self.text = " ".join(self.words)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._within = tag
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        self._within = ""

    def handle_data(self, data):
        if self._within in ("h2", "h3"):
            self.headings.append(data)
        if self._within in ("td", "th"):
            self.rows[-1][-1] += data
        if self._within != "style" and data.strip():
            self.words.append(data.strip())

    def table(self, head):
        """The rows below the one that begins with this word, up to the next head."""
        start = next(index for index, row in enumerate(self.rows) if row[0] == head)
        width = len(self.rows[start])
        found = []
        for row in self.rows[start + 1 :]:
            if row[0] in ("artifact", "class", "layer", "input") or len(row) != width:
                break
            found.append(row)
        return found


def page_of(run, tmp_path):
    return Page(report(run, tmp_path / "page.html").read_text(encoding="utf-8"))


def svgs(text):
    return [ET.fromstring(found) for found in re.findall(r"<svg.*?</svg>", text, re.DOTALL)]


def texts_of(svg):
    return ["".join(element.itertext()).strip() for element in svg.iter("{http://www.w3.org/2000/svg}text")]


ANSWERS = ["Answers on the test split", "Farthest from the truth"]
SECTIONS = ["Artifacts", "Limits", "Training", *ANSWERS, "Model", "Data", "Spec"]


def test_the_page_of_a_whole_run_has_every_section(run):
    page = report(run)
    assert page == run.report_page_file
    found = Page(page.read_text(encoding="utf-8"))
    assert found.headings == SECTIONS
    assert f"{run.manifest['name']} · {run.id}" in found.words
    assert "359" in found.words  # test samples, on a card
    assert "trained" in found.words


def test_a_page_is_the_same_bytes_when_it_is_made_again(run, tmp_path):
    first, second = (report(run, tmp_path / name).read_bytes() for name in ("a.html", "b.html"))
    assert first == second


def test_artifacts_and_limits_are_those_of_the_records(run, tmp_path):
    page = page_of(run, tmp_path)
    lite = LiteFolder(run.lite_folder)
    records = [lite.load_record(name) for name in lite.names()]
    assert len(records) == 7
    rows = page.table("artifact")
    assert [row[0] for row in rows] == [record.name for record in records]
    for row, record in zip(rows, records, strict=True):
        size = f"{record.bytes / 1000:,.1f} kB"
        expected = [size, f"{record.metric['value']:.4f}", f"{record.metric['drop']:+.4f}"]
        assert [*row[2:5], row[-1]] == [*expected, "verified"]
    checks = [row for row in page.rows if len(row) == 4 and row[-1] in ("kept", "broken")]
    assert len(checks) == sum(len(record.checks) for record in records)
    assert [
        "int8",
        "max_size",
        f"{(run.lite_folder / 'int8.tflite').stat().st_size:,} bytes, at most 100,000",
        "kept",
    ] in checks


def test_a_large_metric_is_told_without_ten_thousandths(run, tmp_path):
    file = run.lite_folder / "int8.json"
    record = json.loads(file.read_text())
    record["metric"] |= {"value": 52812.99004, "drop": -51.18996}
    file.write_text(json.dumps(record))
    [row] = [row for row in page_of(run, tmp_path).table("artifact") if row[0] == "int8"]
    assert row[3:5] == ["52,813.0", "-51.2"]


def test_what_measured_the_latency_is_named(run, tmp_path):
    runtime = LiteFolder(run.lite_folder).load_record("int8").runtime
    assert runtime.startswith("LiteRT ")
    assert f"one call of {runtime}" in page_of(run, tmp_path).text


def test_a_broken_limit_and_a_rejected_file_are_told(run, tmp_path):
    spec = yaml.safe_load(run.spec_file.read_text())
    spec["convert"] = [{"quantize": "int8", "name": "small", "limits": {"max_size": 1000}}]
    run.spec_file.write_text(yaml.safe_dump(spec, sort_keys=False))
    with pytest.raises(VerificationError, match="max_size"):
        convert(run)
    page = page_of(run, tmp_path)
    assert [row[-1] for row in page.table("artifact")].count("rejected") == 1
    [broken] = [row for row in page.rows if row[-1] == "broken"]
    assert broken[:2] == ["small", "max_size"]
    failure = page.words.index(next(word for word in page.words if "max_size: " in word))
    assert failure < page.words.index("Artifacts")


# What scikit-learn says


def test_the_confusion_matrix_is_that_of_scikit_learn(run, tmp_path):
    (predictions,) = load_predictions(run).values()
    truth, answers = predictions.targets, predictions.outputs.argmax(axis=1)
    expected = sklearn_matrix(truth, answers, labels=range(10))
    assert np.array_equal(confusion_matrix(truth, predictions.answers, 10), expected)
    page = page_of(run, tmp_path)
    precision, recall, f1, support = precision_recall_fscore_support(truth, answers, labels=range(10), zero_division=0)
    columns = (range(10), support, precision, recall, f1)
    shown = [[str(a), str(b), *(f"{value:.3f}" for value in rest)] for a, b, *rest in zip(*columns, strict=True)]
    assert page.table("class") == shown


def test_the_picture_of_the_matrix_holds_its_numbers():
    counts = np.array([[30, 2, 0], [1, 1200, 4], [0, 0, 7]])
    svg = ET.fromstring(plots.confusion(counts, ["cat", "dog", "a very long name of a class"]))
    shown = texts_of(svg)
    assert [text for text in shown if text.replace(",", "").isdigit()] == ["30", "2", "1", "1,200", "4", "7"]
    assert shown.count("cat") == shown.count("a very long name …") == 2
    assert {"answer", "truth"} <= set(shown)


def test_a_class_that_was_never_answered_has_no_precision():
    truth, answers = np.array([0, 0, 1, 1]), np.array([0, 0, 0, 0])
    rows = class_rows(confusion_matrix(truth, answers, 3), ("a", "b", "c"))
    assert [(row.samples, row.precision, row.recall) for row in rows] == [
        (2, 0.5, 1.0),
        (2, None, 0.0),
        (0, None, None),
    ]
    assert rows[0].f1 == pytest.approx(2 / 3)
    assert rows[1].f1 is rows[2].f1 is None


def test_the_mistakes_are_the_greatest_shares_of_a_class():
    counts = np.array([[80, 20, 0, 0], [0, 9, 0, 1], [2, 3, 5, 0], [0, 0, 0, 0]])
    found = worst_mistakes(counts, ("a", "b", "c", "never"))
    assert found == [Mistake("c", "b", 3, 10), Mistake("a", "b", 20, 100), Mistake("c", "a", 2, 10)]
    assert worst_mistakes(np.eye(3, dtype=int), ("a", "b", "c")) == []


def test_the_page_says_what_was_taken_for_what(run, tmp_path):
    targets = np.load(run.predictions_file)["targets"][:40]
    fours = np.flatnonzero(targets == 4)
    made_up(run, scores(targets, {fours[0]: (9, 3.0)}))
    assert f"4 for 9 (1 of {len(fours)})" in page_of(run, tmp_path).text


# The data


def scanned(drift, **inputs):
    """A scan of 200 training samples."""
    found = {
        name: {"original": name, "kind": kind, "dtype": "float32", "shape": shape, "splits": {"train": train}}
        for name, (kind, shape, train) in inputs.items()
    }
    splits = {"train": {"samples": 200, "classes": {"a": 150, "b": 50}}}
    return {"splits": splits, "inputs": found, "drift": drift, "findings": []}


def test_columns_have_no_shape_and_the_share_of_missing_values_is_told():
    numbers = {"least": 0.0, "most": 1484705.0, "mean": 189690.2, "missing": 50}
    document = scanned(
        {"pay": 0.01}, pay=("number", [1], numbers), job=("category", [1], {"distinct": 9, "missing": 0})
    )
    section = data_section({**document, "targets": {"least": 1, "most": 3, "mean": 2}}, "price")
    assert section["heads"] == ["input", "kind", "values in training", "missing", "drift"]
    assert section["rows"] == [
        ["pay", "number", "0 to 1,484,705, mean 189,690", "50 (25.0%)", "0.010"],
        ["job", "category", "9 categories", "0", "-"],
        ["price", "target", "1 to 3, mean 2", "0", "-"],
    ]


def test_images_keep_their_shape_in_the_table_of_inputs():
    image = ("image", [32, 32, 3], {"least": 0, "most": 255, "mean": 120, "missing": 0})
    section = data_section(scanned({"image": 0.01}, image=image), None)
    assert section["rows"] == [["image", "image", "32x32x3", "0 to 255, mean 120", "0", "0.010"]]
    assert [picture["name"] for picture in section["pictures"]] == ["samples of every class"]


def test_the_drift_of_several_inputs_is_a_picture_with_the_farthest_first():
    values = {"distinct": 9, "missing": 0}
    inputs = {name: ("category", [1], values) for name in ("near", "far", "between")}
    document = scanned({"near": 0.01, "far": 0.4, "between": 0.2}, **inputs)
    pictures = {name: svg for name, _, svg in scan_pictures(document)}
    shown = texts_of(ET.fromstring(pictures["drift"]))
    assert [text for text in shown if text in inputs] == ["far", "between", "near"]
    assert "a warning from 0.15 on" in shown


# A page that stands alone


def test_nothing_refers_to_the_network(run, tmp_path):
    text = report(run, tmp_path / "page.html").read_text(encoding="utf-8")
    page = Page(text)
    assert not {"script", "link", "iframe", "object", "embed", "base", "form", "a"} & {tag for tag, _ in page.tags}
    for tag, attributes in page.tags:
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            if name.startswith("xmlns"):
                continue
            if name in ("src", "href", "xlink:href"):
                assert value.startswith(("data:image/png;base64,", "#")), (tag, name, value[:80])
            elif tag != "img":
                assert "//" not in value, (tag, name, value[:80])
    bare = re.sub(r'src="data:[^"]*"|xmlns(:\w+)?="[^"]*"', "", text)
    assert len(page.tags) > 500
    assert not re.search(r"https?:|@import|//|url\((?!#)", bare)


def test_the_page_is_light_or_dark_and_fits_a_phone(run, tmp_path):
    text = report(run, tmp_path / "page.html").read_text(encoding="utf-8")
    assert "prefers-color-scheme: dark" in text
    assert ("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}) in Page(text).tags
    assert "#01010" not in text
    pictures = svgs(text)
    assert len(pictures) == 6  # loss, accuracy, matrix, parameters, MACs, classes
    assert not any({"width", "height"} & set(picture.attrib) for picture in pictures)
    used = set(re.findall(r"var\((--\w+)\)", text))
    defined = set(re.findall(r"(--\w+):", text))
    assert used <= defined
    assert {"--first", "--second", "--text", "--font"} <= used


EVIL = "<script>alert(1)</script>"
EVIL_COLUMN = '<img src=x onerror="alert(2)">'


@pytest.fixture(scope="module")
def evil_run(tmp_path_factory):
    """A table whose name, columns, categories and classes are tags, and whose labels are noise: many wrong answers."""
    folder = tmp_path_factory.mktemp("evil & <b>")
    random = np.random.default_rng(0)
    quoted = EVIL_COLUMN.replace('"', '""')
    rows = [
        f'{random.normal():.4f},"{["<i>", "</td>", "x"][i % 3]}","{[EVIL, "b"][random.integers(2)]}"'
        for i in range(200)
    ]
    (folder / "<u>.csv").write_text("\n".join([f'"{quoted}",word,label', *rows]), encoding="utf-8")
    layers = [{"Dense": {"units": 2, "name": "out"}}]
    spec = {
        "name": "evil",
        "data": {"source": {"path": str(folder / "<u>.csv")}},
        "model": {"preprocess": "auto", "layers": layers},
        "train": {"epochs": 1, "loss": artifacts.LOGITS, "metrics": ["accuracy"]},
    }
    (folder / "spec.yaml").write_text(yaml.safe_dump(spec), encoding="utf-8")
    made = Run.create(load_spec(folder / "spec.yaml"), folder / "run")
    train(made)
    evaluate(made)
    return made.directory


def test_names_that_are_tags_are_escaped(evil_run, tmp_path):
    text = report(Run.open(evil_run), tmp_path / "page.html").read_text(encoding="utf-8")
    page = Page(text)
    assert EVIL not in text
    assert EVIL_COLUMN not in text
    assert not {"script", "i", "u"} & {tag for tag, _ in page.tags}
    assert page.table("class")[0][0] == EVIL
    assert page.table("input")[0][0] == EVIL_COLUMN
    assert "instead of" in page.text
    assert any(EVIL in texts_of(svg) for svg in svgs(text)) or any(
        "<script>" in t for s in svgs(text) for t in texts_of(s)
    )
    for tag, attributes in page.tags:
        assert not any(name.startswith("on") for name in attributes), tag


def test_a_table_shows_its_worst_rows_as_text(evil_run, tmp_path):
    run = Run.open(evil_run)
    page = page_of(run, tmp_path)
    assert "Farthest from the truth" in page.headings
    assert ("div", {"class": "examples wide"}) in page.tags
    assert re.search(r"<u>\.csv row \d+", page.text)
    assert "word: " in page.text


# The worst answers


def made_up(run, outputs, ids=None):
    """Writes predictions of the first samples of the test split."""
    kept = np.load(run.predictions_file)
    rows = np.arange(len(outputs))
    arrays = {"ids": kept["ids"][rows], "targets": kept["targets"][rows], "outputs": np.asarray(outputs, np.float32)}
    np.savez(run.predictions_file, **arrays)
    return arrays


def scores(targets, wrong):
    """Logits that answer right, but for some rows: {row: (answer, how sure)}."""
    outputs = np.eye(10)[targets] * 9
    for row, (answer, sure) in wrong.items():
        outputs[row] = 0
        outputs[row, answer] = sure
    return outputs


def test_the_surest_of_the_wrong_answers_come_first(run, tmp_path):
    targets = np.load(run.predictions_file)["targets"][:40]
    others = (targets + 3) % 10
    wrong = {4: (others[4], 2.0), 9: (others[9], 8.0), 30: (others[30], 5.0)}
    arrays = made_up(run, scores(targets, wrong))
    text = report(run, tmp_path / "page.html").read_text(encoding="utf-8")
    expected = [f"sample {arrays['ids'][row]}" for row in (9, 30, 4)]
    assert re.findall(r'<img alt="(sample \d+)"', text) == expected
    shown = re.findall(
        r'<b>(\d)</b><span class="faint"> instead of </span><b>(\d)</b><span class="faint">, (\d+%)', text
    )
    # e^8 / (e^8 + 9) and so on: the softmax of one score and nine zeros.
    assert shown == [
        (str(others[row]), str(targets[row]), sure) for row, sure in ((9, "100%"), (30, "94%"), (4, "45%"))
    ]
    first = re.search(r'src="data:image/png;base64,([^"]+)"', text)[1]
    digits = np.load(Path(plots.__file__).parents[1] / "data/digits.npz")
    image = digits["x"][arrays["ids"][9]].reshape(8, 8).astype(float)
    with Image.open(io.BytesIO(base64.b64decode(first))) as picture:
        found = np.asarray(picture)
    assert np.array_equal(found, (image / image.max() * 255).astype(np.uint8))


def test_at_most_twelve_are_shown(run, tmp_path):
    targets = np.load(run.predictions_file)["targets"][:40]
    made_up(run, scores(targets, {row: ((targets[row] + 1) % 10, 3.0) for row in range(30)}))
    text = report(run, tmp_path / "page.html").read_text(encoding="utf-8")
    assert text.count('<img alt="sample') == 12


def test_where_every_answer_is_right_that_is_said(run, tmp_path):
    targets = np.load(run.predictions_file)["targets"][:40]
    made_up(run, scores(targets, {}))
    page = page_of(run, tmp_path)
    assert "Every answer on the test split is right." in page.words
    assert "Farthest from the truth" not in page.headings


def test_a_regression_has_a_picture_of_its_answers_and_no_matrix(made_pair, tmp_path):
    run = artifacts.copied(made_pair, tmp_path)
    evaluate(run)
    text = report(run, tmp_path / "page.html").read_text(encoding="utf-8")
    page = Page(text)
    assert page.headings.count("Answers on the test split") == 1
    assert not [row for row in page.rows if row[0] == "class"]
    assert any("truth: the target" in texts_of(svg) for svg in svgs(text))
    (predictions,) = load_predictions(run).values()
    errors = np.abs(predictions.outputs - predictions.targets).max(axis=1)
    worst = int(predictions.ids[errors.argmax()])
    assert re.findall(r'<div class="faint">(sample \d+)</div>', text)[0] == f"sample {worst}"
    assert "left: " in page.text
    assert "right: " in page.text


# What is missing leaves its part out


@pytest.mark.parametrize(
    ("gone", "sections"),
    [
        ("lite", {"Artifacts", "Limits"}),
        ("metrics.jsonl", {"Training"}),
        ("predictions.npz", {"Answers on the test split", "Farthest from the truth"}),
        ("scan.json", {"Data"}),
        ("model.json", {"Model"}),
        ("evaluation.json", set()),
        ("report.json", set()),
        ("splits.npz", {"Farthest from the truth"}),
    ],
    ids=["no conversion", "no curves", "no evaluation", "no scan", "no model", "no metrics", "no report", "no splits"],
)
def test_what_a_run_has_not_is_left_out(gone, sections, run, tmp_path):
    path = run.directory / gone
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    page = page_of(run, tmp_path)
    assert page.headings == [name for name in SECTIONS if name not in sections]


def test_a_run_that_was_never_trained_has_a_page_of_its_spec(digits_spec, tmp_path):
    run = Run.create(load_spec(digits_spec), tmp_path / "new")
    page = page_of(run, tmp_path)
    assert page.headings == ["Spec"]
    assert "created" in page.words
    assert "SparseCategoricalCrossentropy" in page.text


def test_without_the_data_no_samples_are_shown_and_it_is_said(evil_run, tmp_path):
    shutil.copytree(evil_run.parent, tmp_path / "copy")
    run = Run.open(tmp_path / "copy/run")
    table = tmp_path / "copy/<u>.csv"
    spec = run.spec_file.read_text().replace(str(evil_run.parent), str(tmp_path / "copy"))
    run.spec_file.write_text(spec)
    table.write_text(table.read_text().replace("x", "y"))
    page = page_of(run, tmp_path)
    assert "Farthest from the truth" not in page.headings
    assert any(word.startswith("No samples are shown: ") for word in page.words)
    table.unlink()
    assert any("is not here, so no samples are shown." in word for word in page_of(run, tmp_path).words)
    assert page.table("class")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("predictions.npz", "no archive"),
        ("metrics.jsonl", '{"loss": 1}'),
        ("metrics.jsonl", "[1]"),
        ("scan.json", "{"),
        ("scan.json", '{"schema_version": 1}'),
        ("scan.json", "[1]"),
        ("model.json", "{"),
        ("model.json", "[1]"),
        ("model.json", '{"layers": []}'),
        ("model.json", '{"layers": [{"layer": "a"}]}'),
        ("evaluation.json", "nothing"),
        ("evaluation.json", '{"metrics": [1]}'),
        ("report.json", "{"),
        ("lite/int8.json", "{"),
        ("lite/int8.tflite", "another file"),
        ("lite/int8.explain.json", "{"),
        ("lite/int8.explain.json", '{"name": "int8"}'),
    ],
)
def test_a_damaged_file_is_named(name, content, run, tmp_path):
    (run.directory / name).write_text(content)
    with pytest.raises(ArtifactError, match=re.escape(name.rpartition("/")[2])) as caught:
        report(run, tmp_path / "page.html")
    assert caught.value.exit_code == 5
    assert not (tmp_path / "page.html").exists()


# The model


def test_the_layers_and_their_costs_are_those_of_the_summary(run, tmp_path):
    page = page_of(run, tmp_path)
    rows = {row[0]: row[1:] for row in page.table("layer")}
    assert rows["first"] == ["Conv2D", "6x6x8", "80", "80", f"{36 * 8 * 9:,}", f"{4 * 288:,}", "288"]
    assert rows["scores"][:4] == ["Dense", "10", "2,890", "2,890"]
    assert "2,970, of them 2,970 trainable" in page.words
    assert "multiply-accumulates of the largest layers, one sample" in page.words


def test_a_size_of_another_type_is_damage(run, tmp_path):
    document = json.loads(run.model_summary_file.read_text(encoding="utf-8"))
    run.model_summary_file.write_text(json.dumps(document | {"macs": "many"}))
    with pytest.raises(ArtifactError, match=r"model\.json is damaged: a size is no integer"):
        report(run, tmp_path / "page.html")


def test_a_picture_of_the_largest_layers_shows_a_dozen():
    texts = texts_of(ET.fromstring(plots.sizes({f"layer_{i}": 100 - i for i in range(30)}, "MACs")))
    assert [text for text in texts if text.startswith("layer_")] == [f"layer_{i}" for i in range(plots.MOST_SIZES)]
    assert "MACs" in texts


# The error of every layer


def explain_int8(run, **changed):
    """Writes what `convert --explain` would of int8: one layer that lost its channels, and one after it."""
    known = {"dtype": "int8", "scale": 0.02, "snr_db": 4.0, "range_use": 0.5}
    channels = {"channels": 4, "dead_channels": 3, "channel_ranges": (1.0, 5e4), "channels_op": "QUANTIZE"}
    first = LayerError("first", ("first",), (), "CONV_2D", varying_snr_db=2.5, own_noise=0.6, channels_scale=200.0)
    last = LayerError("scores", ("scores",), ("first",), "FULLY_CONNECTED", varying_snr_db=2.25, **known)
    found = explanation("int8", 64, [replace(first, **known, **channels), last])
    document = replace(found, sha256=LiteFolder(run.lite_folder).load_record("int8").sha256).to_json()
    (run.lite_folder / "int8.explain.json").write_text(json.dumps(document | changed))


def test_the_error_of_every_layer_is_told_with_what_to_try(run, tmp_path):
    explain_int8(run)
    text = report(run, tmp_path / "page.html").read_text(encoding="utf-8")
    page = Page(text)
    assert page.headings == [*SECTIONS[:2], "Error by layer: int8", *SECTIONS[2:]]
    rows = {row[0]: row[1:] for row in page.table("layer")}
    assert rows["first"] == ["int8", "4.0", "2.5", "60 %", "50 %", "0 %", "3 of 4", "channels"]
    assert rows["scores"][-1] == "inherited"
    assert "The answers are lost, the most in layer 'first'" in page.text
    assert "Keep it in float: keep_float: [first]." in page.words
    [picture] = [texts for texts in map(texts_of, svgs(text)) if "dB; lost below 13" in texts]
    assert [word for word in picture if word in ("first", "scores")] == ["first", "scores"]  # who is to blame first
    assert "2 dB, channels" in picture


def test_what_was_measured_of_an_older_file_is_not_told(run, tmp_path):
    explain_int8(run, sha256="0" * 64)
    assert page_of(run, tmp_path).headings == SECTIONS


def test_a_picture_of_the_errors_shows_two_dozen_layers_and_no_exact_one_at_its_length():
    values = {f"layer_{i}": (20.0, "none") for i in range(40)} | {"layer_0": (200.0, "none")}
    texts = texts_of(ET.fromstring(plots.ratios(values, 13.0)))
    assert [text for text in texts if text.startswith("layer_")] == [f"layer_{i}" for i in range(plots.MOST_RATIOS)]
    assert "200" not in texts


# Curves


def curves_drawn(run, tmp_path, monkeypatch):
    drawn = []
    keep = plots.curves
    monkeypatch.setattr(plots, "curves", lambda *arguments: drawn.append(arguments) or keep(*arguments))
    report(run, tmp_path / "page.html")
    return drawn


def test_curves_are_those_of_the_metrics(run, tmp_path, monkeypatch):
    lines = [json.loads(line) for line in run.metrics_file.read_text().splitlines()]
    loss, accuracy = curves_drawn(run, tmp_path, monkeypatch)
    assert loss[:3] == ([1, 2, 3], [line["loss"] for line in lines], [line["val_loss"] for line in lines])
    assert accuracy[2] == [line["val_accuracy"] for line in lines]
    assert loss[3] == run.manifest["best_epoch"]


def test_an_epoch_that_was_told_twice_counts_as_it_was_told_last(run, tmp_path, monkeypatch):
    with run.metrics_file.open("a") as file:
        for epoch, value in ((2, 0.25), (4, None)):
            print(
                json.dumps({"epoch": epoch, "loss": value, "val_loss": value, "accuracy": 1, "val_accuracy": 1}),
                file=file,
            )
    loss, _ = curves_drawn(run, tmp_path, monkeypatch)
    assert loss[0] == [1, 2, 3, 4]
    assert loss[1][1] == 0.25
    assert np.isnan(loss[1][3])


def test_a_line_that_a_killed_process_left_half_is_no_epoch(run, tmp_path, monkeypatch):
    with run.metrics_file.open("a") as file:
        file.write('{"epoch": 4, "lo')
    loss, _ = curves_drawn(run, tmp_path, monkeypatch)
    assert loss[0] == [1, 2, 3]


def test_curves_of_one_epoch_are_points():
    one, many = (plots.curves(range(1, count + 1), [0.5] * count, [0.6] * count, None) for count in (1, 9))
    assert [len(re.findall(r"<use [^>]*var\(--first\)", svg)) for svg in (one, many)] == [2, 0]  # the other: the legend


# Pictures


def test_a_picture_in_the_page_is_the_image():
    image = np.random.default_rng(0).integers(0, 255, (5, 1, 3), np.uint8)
    head, _, data = png_uri(image).partition(",")
    assert head == "data:image/png;base64"
    with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
        assert np.array_equal(np.asarray(picture), image)


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (np.array([0, 100, 255], np.uint8), [0, 100, 255]),
        (np.array([0, 8, 16], np.uint8), [0, 127, 255]),
        (np.array([-1.0, 0.0, 1.0]), [0, 127, 255]),
        (np.array([3.0, 3.0]), [0, 0]),
    ],
    ids=["bytes", "small bytes", "floats", "one value"],
)
def test_an_image_of_any_range_is_shown(image, expected):
    shown = as_bytes(image)
    assert (shown.dtype, shown.tolist()) == (np.uint8, expected)


@pytest.mark.parametrize("name", [r"$\bad$", "$a$ $b$", "日本", "<&>\"'", "_^{}", ""])
def test_a_name_of_a_class_may_hold_what_it_likes(name, recwarn):
    for svg in (plots.confusion(np.eye(2, dtype=int), [name, "b"]), plots.bars({"train": {name: 1, "b": 2}})):
        assert not name or name in texts_of(ET.fromstring(svg))
    assert not list(recwarn)


def test_a_matrix_of_many_classes_has_no_room_for_numbers_and_names():
    few, more, many = (plots.confusion(np.eye(n, dtype=int), [f"c{i}" for i in range(n)]) for n in (20, 30, 50))
    assert [texts_of(ET.fromstring(svg)).count("1") for svg in (few, more, many)] == [20, 0, 0]
    assert ["c7" in texts_of(ET.fromstring(svg)) for svg in (few, more, many)] == [True, True, False]


@pytest.mark.parametrize(
    "values", [np.zeros((5, 1)), np.arange(9000.0), np.ones((300, 3))], ids=["flat", "long", "wide"]
)
def test_a_series_is_a_small_line(values):
    svg = ET.fromstring(plots.line(values))
    assert texts_of(svg) == []
    assert len(ET.tostring(svg)) < 30_000


def test_a_line_of_a_sound_keeps_its_peaks():
    values = np.zeros((9000, 1))
    values[4501] = 1.0
    svg = ET.fromstring(plots.line(values))
    [path] = [p for p in svg.iter("{http://www.w3.org/2000/svg}path") if "--first" in p.attrib.get("style", "")]
    heights = [float(y) for y in re.findall(r"[ML] [\d.]+ ([\d.]+)", path.attrib["d"])]
    assert max(heights) - min(heights) > 0.5 * float(svg.attrib["viewBox"].split()[3])


def test_samples_of_every_class_have_their_names_and_one_axis_of_time():
    svg = plots.lines([("left", np.zeros((50, 1))), ("right", np.arange(50.0))])
    shown = texts_of(ET.fromstring(svg))
    assert [shown.count(text) for text in ("left", "right", "sample in time")] == [1, 1, 1]


def test_a_scatter_of_many_answers_draws_two_thousand_of_them():
    truth = np.linspace(0, 1, 20_000)
    svg = plots.scatter(truth, truth**2, "price in $")
    assert 2000 <= svg.count("<use ") < 2100
    assert "truth: price in $" in texts_of(ET.fromstring(svg))

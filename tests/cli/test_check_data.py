"""`mltool check --data`: what it prints, writes and refuses."""

import json
import shutil
import sys
import xml.etree.ElementTree as ET

import jsonschema
import numpy as np
import pytest
from PIL import Image

MODEL = (
    "model: {layers: [Flatten, {Dense: {units: 2}}]}\n"
    "train: {loss: {SparseCategoricalCrossentropy: {from_logits: true}}, metrics: [accuracy]}\n"
)


def write_spec(path, source, more=""):
    path.write_text(f"name: small\ndata: {{source: {{{source}}}{more}}}\n{MODEL}", encoding="utf-8")


def write_images(folder, count=12, shape=(6, 6, 3)):
    random = np.random.default_rng(0)
    for split, number in (("train", count), ("test", 4)):
        for name in ("cat", "dog"):
            (folder / split / name).mkdir(parents=True)
            for index in range(number):
                image = random.integers(0, 255, shape, np.uint8)
                Image.fromarray(image).save(folder / split / name / f"{index}.png")


@pytest.fixture
def images(tmp_path, spec):
    """A folder of 32 images with splits, and the spec of it."""
    write_images(tmp_path / "images")
    write_spec(spec, "path: images")
    return tmp_path / "images"


@pytest.fixture
def leak(images):
    """A test sample that was copied into training."""
    shutil.copy(images / "test/dog/3.png", images / "train/cat/stray.png")
    return "images/test/dog/3.png (test)"


DOCUMENT = {
    "type": "object",
    "required": ["spec", "name", "ok", "scan"],
    "additionalProperties": False,
    "properties": {
        "spec": {"const": "my.yaml"},
        "name": {"const": "small"},
        "ok": {"const": True},
        "scan": {
            "type": "object",
            "required": ["schema_version", "source", "task", "splits", "inputs", "copies", "skipped", "findings"],
            "properties": {
                "splits": {"required": ["train", "validation", "test"]},
                "drift": {"additionalProperties": {"type": "number", "minimum": 0, "maximum": 1}},
                "findings": {
                    "items": {
                        "required": ["level", "message", "hint"],
                        "properties": {"level": {"enum": ["error", "warning", "note"]}},
                    }
                },
            },
        },
    },
}


def test_the_digits_are_shown_and_nothing_is_to_mend(mltool, spec):
    ran = mltool("check", "my.yaml", "--data")
    lines = ran.out.splitlines()
    assert (ran.code, lines[-1]) == (0, "nothing to mend was found")
    assert lines[0] == "digits"
    assert lines[1].split() == ["split", "samples", *"0123456789"]
    cells = next(line.split() for line in lines if line.startswith(" train "))
    assert cells[:2] == ["train", "1,294"]
    assert sum(map(int, cells[2:])) == 1294
    row = next(line.split() for line in lines if line.startswith(" image "))
    assert row[:7] == ["image", "image", "8x8x1", "0", "to", "16,", "mean"]


def test_without_data_nothing_is_read(mltool, spec):
    write_spec(spec, "path: nowhere.npz")
    assert mltool("check", "my.yaml").code == 0
    ran = mltool("check", "my.yaml", "--data")
    assert ran.code == 4
    assert "nowhere.npz is not there" in ran.err


def test_with_json_the_scan_is_one_document(mltool, spec):
    ran = mltool("check", "my.yaml", "--data", "--json")
    assert ran.code == 0
    jsonschema.validate(ran.document, DOCUMENT)
    assert ran.document["scan"]["splits"]["test"]["samples"] == 359


def test_tensorflow_is_not_imported_for_it(mltool, images, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow", None)  # an import of it fails
    assert mltool("check", "my.yaml", "--data", "--output", "scan").code == 0


def test_an_override_reaches_the_data(mltool, images):
    ran = mltool("check", "my.yaml", "--data", "--json", "--set", "data.source.max_samples=10")
    assert sum(ran.document["scan"]["splits"][split]["samples"] for split in ("train", "validation")) == 10


def test_a_leak_that_is_left_out_is_a_warning(mltool, leak):
    ran = mltool("check", "my.yaml", "--data")
    assert ran.code == 0
    line = next(line for line in ran.out.splitlines() if line.startswith("warning: 1 copies"))
    assert leak in line
    assert "train/cat/stray.png (train, left out)" in line


def test_a_leak_that_stays_is_exit_code_4(mltool, leak, spec):
    write_spec(spec, "path: images", ", split: {duplicates: keep}")
    ran = mltool("check", "my.yaml", "--data")
    assert ran.code == 4
    assert ran.err.startswith("error: 1 samples of training or validation have a copy in another split: ")
    assert leak in ran.err
    assert ran.out.splitlines()[1].split() == ["split", "samples", "cat", "dog"]
    ran = mltool("check", "my.yaml", "--data", "--json")
    assert ran.code == ran.document["error"]["code"] == 4
    assert leak in ran.document["error"]["messages"][0]["message"]


def test_the_scan_is_written_also_where_it_is_an_error(mltool, leak, spec, tmp_path):
    write_spec(spec, "path: images", ", split: {duplicates: keep}")
    assert mltool("check", "my.yaml", "--data", "-o", "scan").code == 4
    assert (tmp_path / "scan/scan.json").is_file()


def test_damage_is_exit_code_4_and_named(mltool, images):
    (images / "train/cat/5.png").write_bytes(b"")
    (images / "test/dog/1.png").write_bytes((images / "test/dog/1.png").read_bytes()[:60])
    ran = mltool("check", "my.yaml", "--data")
    assert ran.code == 4
    assert "2 files cannot be read" in ran.err
    assert "train/cat/5.png: it is empty (0 bytes)" in ran.err
    assert "test/dog/1.png: it is damaged" in ran.err
    assert "Traceback" not in ran.err


def test_a_finding_that_is_an_error_is_exit_code_4(mltool, spec, tmp_path):
    rows = [f"{index},{index % 2},{'train' if index < 8 else 'validation'}" for index in range(10)]
    (tmp_path / "t.csv").write_text("\n".join(["x,label,part", *rows, ",1,test", "5,0,test"]), encoding="utf-8")
    write_spec(spec, "path: t.csv", ", split: {by: column, column: part}")
    ran = mltool("check", "my.yaml", "--data")
    assert ran.code == 4
    assert ran.err.splitlines()[-1] == ("error: 'x' is missing in validation or test, never in training; fill it in")


# What is written


def test_the_scan_and_its_pictures_are_written(mltool, images, tmp_path):
    ran = mltool("check", "my.yaml", "--data", "--output", "found/scan", "--json")
    assert ran.code == 0
    folder = tmp_path / "found/scan"
    assert sorted(path.name for path in folder.iterdir()) == ["classes.svg", "image.png", "scan.json"]
    assert json.loads((folder / "scan.json").read_text(encoding="utf-8")) == ran.document["scan"]
    with Image.open(folder / "image.png") as sheet:
        assert sheet.size == (100, 60)  # ten by six of 6 pixels and 4 between them


def test_the_picture_of_the_classes_is_svg_that_stands_alone(mltool, images, tmp_path):
    mltool("check", "my.yaml", "--data", "--output", "scan")
    text = (tmp_path / "scan/classes.svg").read_text(encoding="utf-8")
    root = ET.fromstring(text)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    shown = {"".join(element.itertext()).strip() for element in root.iter("{http://www.w3.org/2000/svg}text")}
    assert {"cat", "dog", "train", "validation", "test", "samples"} <= shown
    assert "var(" not in text


def test_the_contact_sheet_shows_every_image_once_in_the_order_of_the_classes(mltool, spec, tmp_path):
    """Images of one gray each: class 0 of 10 to 19, class 1 of 100 to 109, mixed in the file."""
    grays = np.asarray([value for pair in zip(range(100, 110), range(10, 20), strict=True) for value in pair])
    x = np.broadcast_to(grays[:, None, None], (20, 5, 5)).astype(np.uint8)
    extra = np.arange(200, 208, dtype=np.uint8)[:, None, None] * np.ones((1, 5, 5), np.uint8)
    np.savez(tmp_path / "a.npz", x_train=x, x_validation=extra[:4], x_test=extra[4:], y_train=[1, 0] * 10,
             y_validation=[0, 1] * 2, y_test=[0, 1] * 2)  # fmt: skip
    write_spec(spec, "path: a.npz")
    assert mltool("check", "my.yaml", "--data", "--output", "scan").code == 0
    with Image.open(tmp_path / "scan/image.png") as sheet:
        pixels = np.asarray(sheet.convert("L"))
    shown = [int(pixels[9 * (place // 10) + 2, 9 * (place % 10) + 2]) for place in range(60)]
    assert shown == [*range(10, 20), *range(100, 110), *[255] * 40]


def test_images_of_small_values_are_stretched_to_be_seen(mltool, spec, tmp_path):
    mltool("check", "my.yaml", "--data", "--output", "scan")
    with Image.open(tmp_path / "scan/image.png") as sheet:
        tile = np.asarray(sheet.convert("L"))[:8, :8]
    assert tile.max() == 239  # 15 of 16: the digits reach 16 of 255


@pytest.mark.parametrize("shape", [(20, 6, 6, 5), (20, 6, 1, 3), (20, 6, 6, 2)], ids=["5 channels", "narrow", "2"])
def test_images_of_any_shape_end_in_no_traceback(shape, mltool, spec, tmp_path):
    x = np.random.default_rng(0).integers(0, 255, shape, np.uint8)
    np.savez(tmp_path / "a.npz", x=x, y=np.arange(20) % 2)
    write_spec(spec, "path: a.npz")
    ran = mltool("check", "my.yaml", "--data", "--output", "scan")
    assert (ran.code, "Traceback" in ran.err) == (0, False)
    assert (tmp_path / "scan/image.png").is_file() == (shape[-1] == 3)


def test_names_of_classes_may_hold_what_they_like(mltool, spec, tmp_path):
    rows = [f"{index / 7},{name}" for index in range(20) for name in (r"$\bad$ <b>&", "日本")]
    (tmp_path / "t.csv").write_text("\n".join(["x,label", *rows]), encoding="utf-8")
    write_spec(spec, "path: t.csv")
    ran = mltool("check", "my.yaml", "--data", "--output", "scan")
    assert (ran.code, ran.err.count("Warning")) == (0, 0)
    root = ET.parse(tmp_path / "scan/classes.svg").getroot()
    shown = {"".join(element.itertext()).strip() for element in root.iter("{http://www.w3.org/2000/svg}text")}
    assert {r"$\bad$ <b>&", "日本"} <= shown


@pytest.mark.parametrize("name", ["[/b]", "[red]a", ":smile:", "a, b; c"])
def test_names_of_classes_are_shown_as_they_are(name, mltool, spec, tmp_path):
    rows = [f'{index / 7},"{label}"' for index in range(20) for label in (name, "other")]
    (tmp_path / "t.csv").write_text("\n".join(["x,label", *rows]), encoding="utf-8")
    write_spec(spec, "path: t.csv")
    ran = mltool("check", "my.yaml", "--data")
    assert ran.code == 0
    assert name in next(line for line in ran.out.splitlines() if line.startswith(" split "))


def test_a_table_has_no_picture_but_that_of_its_classes(mltool, spec, tmp_path):
    rows = [f"{index / 7},{index % 2}" for index in range(40)]
    (tmp_path / "t.csv").write_text("\n".join(["x,label", *rows]), encoding="utf-8")
    write_spec(spec, "path: t.csv")
    mltool("check", "my.yaml", "--data", "--output", "scan")
    assert sorted(path.name for path in (tmp_path / "scan").iterdir()) == ["classes.svg", "scan.json"]


# What is refused


def test_nothing_is_overwritten(mltool, images, tmp_path):
    (tmp_path / "scan").mkdir()
    (tmp_path / "scan/mine.txt").write_text("mine")
    ran = mltool("check", "my.yaml", "--data", "--output", "scan")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == "error: scan is there already; check overwrites nothing; name another folder\n"
    assert [path.name for path in (tmp_path / "scan").iterdir()] == ["mine.txt"]
    ran = mltool("check", "my.yaml", "--data", "--output", "my.yaml", "--json")
    assert ran.code == ran.document["error"]["code"] == 2


def test_an_empty_folder_may_be_written_to(mltool, images, tmp_path):
    (tmp_path / "scan").mkdir()
    assert mltool("check", "my.yaml", "--data", "--output", "scan").code == 0
    assert (tmp_path / "scan/scan.json").is_file()


def test_output_needs_data(mltool, spec, tmp_path):
    ran = mltool("check", "my.yaml", "--output", "scan")
    assert (ran.code, ran.err) == (2, "error: --output is for --data; add --data\n")
    assert not (tmp_path / "scan").exists()


def test_a_folder_that_cannot_be_made_is_the_machine_s(mltool, images, tmp_path):
    (tmp_path / "file").write_text("")
    ran = mltool("check", "my.yaml", "--data", "--output", "file/scan")
    assert ran.code == 10
    assert "cannot write" in ran.err
    assert "Traceback" not in ran.err


def test_a_mistake_in_the_spec_is_told_before_the_data_are_read(mltool, spec):
    write_spec(spec, "path: nowhere.npz, colour: gray")
    ran = mltool("check", "my.yaml", "--data")
    assert ran.code == 3
    assert "colour" in ran.err

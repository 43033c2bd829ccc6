"""`mltool check --data` on sources of every kind: leaks, speakers, drift, damage, found and named."""

import csv
import json
import shutil
import wave
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

LAYERS = "model: {preprocess: auto, layers: [%s{Dense: {units: 2}}]}\n"
TRAIN = "train: {loss: {SparseCategoricalCrossentropy: {from_logits: true}}, metrics: [accuracy]}\n"


def write_spec(source, *, flat="Flatten, ", split=""):
    Path("my.yaml").write_text(
        f"name: small\ndata: {{source: {source}{split}}}\n{LAYERS % flat}{TRAIN}", encoding="utf-8"
    )


def images():
    """Two classes; one test image is a copy of a training image."""
    random = np.random.default_rng(0)
    for split, count in (("train", 20), ("test", 6)):
        for number in range(count):
            folder = Path("data", split, ["cat", "dog"][number % 2])
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(random.integers(0, 255, (8, 8, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    shutil.copy("data/test/cat/0.png", "data/train/cat/stolen.png")
    write_spec("{path: data}")
    return "stolen.png", "test/cat/0.png"


def sounds():
    random = np.random.default_rng(0)
    for split, count in (("train", 20), ("test", 6)):
        for number in range(count):
            file = Path("data", split, ["cat", "dog"][number % 2], f"{number}.wav")
            file.parent.mkdir(parents=True, exist_ok=True)
            with wave.open(str(file), "wb") as opened:
                opened.setparams((1, 2, 8000, 0, "NONE", ""))
                opened.writeframes(random.integers(-9000, 9000, 2000).astype("<i2").tobytes())
    shutil.copy("data/test/dog/1.wav", "data/train/dog/stolen.wav")
    write_spec("{path: data}")
    return "stolen.wav", "test/dog/1.wav"


def texts():
    for split, count in (("train", 20), ("test", 6)):
        for number in range(count):
            file = Path("data", split, ["cat", "dog"][number % 2], f"{number}.txt")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"{split} text number {number}")
    shutil.copy("data/test/dog/1.txt", "data/train/dog/stolen.txt")
    write_spec("{path: data}", flat="")
    return "stolen.txt", "test/dog/1.txt"


def tables():
    rows = [["a", "b", "label"], *([i, i * 0.5, "xy"[i % 2]] for i in range(30))]
    for name, part in (
        ("train.csv", rows),
        ("test.csv", [rows[0], *([100 + i, 1, "xy"[i % 2]] for i in range(5)), rows[8]]),
    ):
        with Path(name).open("w", newline="") as file:
            csv.writer(file).writerows(part)
    write_spec("{path: train.csv, test_path: test.csv}", flat="")
    return "train.csv row 9", "test.csv row 7"


def arrays():
    x = np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32)
    x[28] = x[3]
    y = np.arange(30) % 2
    np.savez("data.npz", x_train=x[:24], y_train=y[:24], x_test=x[24:], y_test=y[24:])
    write_spec("{path: data.npz}", flat="")
    return "y_train[3]", "y_test[4]"


@pytest.mark.parametrize("make", [images, sounds, texts, tables, arrays])
def test_a_test_sample_in_training_is_found_and_named(make, mltool):
    copy, original = make()
    ran = mltool("check", "my.yaml", "--data", "--json")
    assert ran.code == 0, ran.out
    (finding,) = (item for item in ran.document["scan"]["findings"] if "copies" in item["message"])
    assert copy in finding["message"]
    assert original in finding["message"]
    assert finding["level"] == "warning"  # it is left out of training
    assert ran.document["scan"]["copies"]["across_splits"] == 1


@pytest.mark.parametrize("make", [images, sounds, texts, tables, arrays])
def test_a_copy_that_is_kept_is_an_error(make, mltool):
    make()
    ran = mltool("check", "my.yaml", "--data", "--set", "data.split.duplicates=keep")
    assert ran.code == 4
    assert "error: 1 samples of training or validation have a copy in another split" in ran.err
    assert "Traceback" not in ran.err


def test_a_speaker_on_both_sides_is_named(mltool):
    for split, speakers in (("train", ["ann", "bob", "cid", "dan"]), ("test", ["bob", "eve"])):
        for number in range(20):
            file = Path(
                "data", split, ["cat", "dog"][number // 4 % 2], f"{speakers[number % len(speakers)]}_{number}.txt"
            )
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"{split} {number}")
    write_spec("{path: data, group: '^([a-z]+)_'}", flat="")
    ran = mltool("check", "my.yaml", "--data")
    assert ran.code == 4
    assert "the group 'bob' stands in train and in test" in ran.err


def test_the_document_has_counts_ranges_and_drift_worked_out_by_hand(mltool):
    x = np.asarray([[0.0], [2.0], [4.0], [6.0]] * 10, np.float32) + np.arange(40)[:, None] / 1000
    shifted = x[:16] + 100
    np.savez("data.npz", x_train=x, y_train=np.arange(40) % 2, x_test=shifted, y_test=np.arange(16) % 2)
    write_spec("{path: data.npz}", flat="", split=", split: {validation: 0.5}")
    scan = mltool("check", "my.yaml", "--data", "--json").document["scan"]
    assert [scan["splits"][name]["samples"] for name in ("train", "validation", "test")] == [20, 20, 16]
    assert scan["splits"]["test"]["classes"] == {"0": 8, "1": 8}
    found = scan["inputs"]["x"]["splits"]["test"]
    assert found["least"] == pytest.approx(float(shifted.min()))
    assert found["most"] == pytest.approx(float(shifted.max()))
    assert found["mean"] == pytest.approx(float(shifted.mean(dtype=np.float64)))
    assert found["deviation"] == pytest.approx(float(shifted.std(dtype=np.float64)))
    assert scan["drift"]["x"] == 1.0  # disjoint
    assert any("'x' is distributed otherwise in test" in item["message"] for item in scan["findings"])


def test_nothing_is_found_where_nothing_is(mltool):
    x = np.random.default_rng(1).normal(size=(400, 3)).astype(np.float32)
    np.savez("data.npz", x=x, y=np.arange(400) % 2)
    write_spec("{path: data.npz}", flat="")
    ran = mltool("check", "my.yaml", "--data")
    assert ran.code == 0
    assert "nothing to mend was found" in ran.out


def test_an_imbalance_is_told_with_the_cure(mltool):
    x = np.random.default_rng(1).normal(size=(400, 3)).astype(np.float32)
    np.savez("data.npz", x=x, y=(np.arange(400) % 20 == 0).astype(int))
    write_spec("{path: data.npz}", flat="")
    out = mltool("check", "my.yaml", "--data").out
    assert "warning: the class '0' has 20 times the samples of '1'; train.class_weights: balanced" in out


def test_pictures_and_the_document_are_written_once(mltool):
    images()
    ran = mltool("check", "my.yaml", "--data", "--output", "scan")
    assert ran.code == 0
    written = sorted(path.name for path in Path("scan").iterdir())
    assert "scan.json" in written
    assert any(name.endswith((".png", ".svg")) for name in written)
    assert json.loads(Path("scan/scan.json").read_text())["splits"]["test"]["samples"] == 6
    again = mltool("check", "my.yaml", "--data", "--output", "scan")
    assert (again.code, "check overwrites nothing" in again.err) == (2, True)


def test_an_output_needs_data(mltool, spec):
    ran = mltool("check", str(spec), "--output", "scan")
    assert (ran.code, "--output is for --data" in ran.err) == (2, True)


def test_damaged_files_are_named_and_may_be_skipped(mltool):
    images()
    Path("data/train/dog/empty.png").write_bytes(b"")
    Path("data/train/dog/text.jpg").write_text("no image")
    ran = mltool("check", "my.yaml", "--data")
    assert ran.code == 4
    assert "2 files cannot be read" in ran.err
    assert "empty.png: it is empty (0 bytes)" in ran.err
    assert "text.jpg" in ran.err
    skipping = ("--set", "data.source.on_error=skip")
    document = mltool("check", "my.yaml", "--data", *skipping, "--json").document["scan"]
    assert [Path(item["name"]).name for item in document["skipped"]] == ["empty.png", "text.jpg"]
    assert mltool("check", "my.yaml", "--data", *skipping, "--set", "data.source.max_skipped=1").code == 4

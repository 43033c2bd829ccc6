"""Samples without labels: tables and arrays, as `predict` is given them."""

import logging
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mltool.data.given import read_given
from mltool.data.sources.audio import load_audio
from mltool.data.sources.images import load_images
from mltool.errors import DataError
from mltool.runs.input_schema import InputInfo, InputSchema, OutputInfo

INPUTS = (
    InputInfo("age", "float32", (1,), 17.0, 90.0, kind="number"),
    InputInfo("hours_per_week", "float32", (1,), 0.0, 99.0, kind="number", original="hours-per-week", missing=True),
    InputInfo("job", "string", (1,), None, None, kind="category", missing=True),
    InputInfo("note", "string", (), None, None, kind="text"),
)
VALUE = OutputInfo("y", (1,), "regression", "values")
SCHEMA = InputSchema(INPUTS, (VALUE,), missing_markers=("?", ""))


def test_columns_are_found_by_their_own_names_and_others_are_left_out(tmp_path, caplog):
    caplog.set_level(logging.INFO, "mltool")
    file = tmp_path / "new.csv"
    file.write_text('job,id,hours-per-week,note,age\nclerk,1,40,"two\nlines",30\n?,2,?,b,41\n')
    given = read_given(file, SCHEMA)
    assert given.inputs["age"].tolist() == [[30.0], [41.0]]
    np.testing.assert_array_equal(given.inputs["hours_per_week"], np.float32([[40], [np.nan]]))
    assert given.inputs["job"].tolist() == [["clerk"], [""]]
    assert given.inputs["note"].tolist() == ["two\nlines", "b"]
    assert given.numbers == [2, 4]
    assert "new.csv: the model takes no id" in caplog.text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(
            "age,note\n1,b\n",
            "has no 'hours-per-week', 'job', which the model takes; it has: age, note",
            id="no column",
        ),
        pytest.param(
            "age,hours-per-week,job,note\nold,1,a,b\n", "row 2: 'age' is 'old', a number is expected", id="a word"
        ),
        pytest.param("age,hours-per-week,job,note\n", "has a header and no rows", id="no rows"),
    ],
)
def test_tables_that_do_not_fit_are_refused(content, message, tmp_path):
    file = tmp_path / "new.csv"
    file.write_text(content)
    with pytest.raises(DataError, match=message):
        read_given(file, SCHEMA)


def test_a_table_needs_to_know_its_columns(tmp_path):
    with pytest.raises(DataError, match=r"no input\.json says what its columns are; give a \.npz"):
        read_given(Path("new.csv"), None)


# Files


def schema_of(info):
    return InputSchema((info,), (VALUE,))


def write_pictures(folder):
    random = np.random.default_rng(0)
    for number, size in enumerate(((20, 30), (40, 10), (16, 16), (9, 50))):
        file = folder / ["cat", "dog"][number % 2] / f"{number}.png"
        file.parent.mkdir(exist_ok=True, parents=True)
        Image.fromarray(random.integers(0, 255, (*size, 3), dtype=np.uint8)).save(file)


@pytest.mark.parametrize("resize", ["stretch", "crop", "pad"])
@pytest.mark.parametrize("color", ["rgb", "gray"])
def test_pictures_come_to_the_model_as_in_training(tmp_path, resize, color):
    write_pictures(tmp_path)
    source = load_images({"": tmp_path}, size=(16, 24), resize=resize, color=color)
    trained = source.inputs["image"]
    assert source.resize == resize
    info = InputInfo("image", "float32", trained.shape[1:], 0.0, 255.0, kind="image", resize=source.resize)
    given = read_given(tmp_path, schema_of(info))
    np.testing.assert_array_equal(given.inputs["image"], trained[:])
    assert [Path(name).name for name in given.numbers] == ["0.png", "2.png", "1.png", "3.png"]
    one = read_given(tmp_path / "dog" / "1.png", schema_of(info))
    np.testing.assert_array_equal(one.inputs["image"][0], trained[2])


def test_a_picture_of_another_size_is_refused_where_training_brought_none_to_a_size(tmp_path):
    write_pictures(tmp_path)
    info = InputInfo("image", "float32", (16, 16, 3), 0.0, 255.0, kind="image")
    assert read_given(tmp_path / "cat" / "2.png", schema_of(info)).inputs["image"].shape == (1, 16, 16, 3)
    with pytest.raises(DataError, match=r"0\.png is 20x30, every image of training is 16x16; bring"):
        read_given(tmp_path / "cat" / "0.png", schema_of(info))


def test_sounds_come_to_the_model_as_in_training(tmp_path):
    soundfile = pytest.importorskip("soundfile")
    random = np.random.default_rng(0)
    for number, rate in enumerate((8000, 16000, 11025, 8000)):
        file = tmp_path / ["cat", "dog"][number % 2] / f"{number}.wav"
        file.parent.mkdir(exist_ok=True)
        soundfile.write(file, random.uniform(-0.5, 0.5, (rate // 2 + 100 * number, 1 + number % 2)), rate)
    trained = load_audio({"": tmp_path}, sample_rate=8000, seconds=0.5)
    info = InputInfo("audio", "float32", (4000,), -1.0, 1.0, kind="audio", sample_rate=8000)
    np.testing.assert_array_equal(read_given(tmp_path, schema_of(info)).inputs["audio"], trained.inputs["audio"][:])


def test_texts_are_read_from_files(tmp_path):
    (tmp_path / "a.txt").write_text("\ufeffgrüß dich", encoding="utf-8")
    info = InputInfo("text", "string", (), None, None, kind="text")
    assert read_given(tmp_path / "a.txt", schema_of(info)).inputs["text"].tolist() == ["grüß dich"]
    (tmp_path / "b.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match=r"b\.txt cannot be read: no UTF-8 at byte 0"):
        read_given(tmp_path, schema_of(info))


@pytest.mark.parametrize(
    ("info", "name", "message"),
    [
        pytest.param(InputInfo("x", "float32", (3,), 0.0, 1.0, kind="series"), "a.png", "takes series", id="series"),
        pytest.param(
            InputInfo("image", "float32", (8, 8, 3), 0, 1, kind="image"), "gone.png", "is not there", id="gone"
        ),
        pytest.param(InputInfo("image", "float32", (8, 8, 3), 0, 1, kind="image"), "", "holds no images", id="none"),
    ],
)
def test_files_that_the_model_does_not_take_are_refused(info, name, message, tmp_path):
    with pytest.raises(DataError, match=message):
        read_given(tmp_path / name, schema_of(info))


def test_a_fifo_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "x.npy")
    with pytest.raises(DataError, match=r"x\.npy cannot be read: it is no plain file"):
        read_given(tmp_path / "x.npy", SCHEMA)

"""What a path holds, told by its ending or by what lies in it."""

import os
import zipfile

import pytest

from mltool.data.sources.kinds import ENDINGS, kind_at
from mltool.errors import DataError
from mltool.spec.data import FOLDER_KINDS


def made(path, names):
    """A folder, or a .zip, of empty files: nothing is read to tell the kind."""
    if path.suffix.lower() == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name in names:
                archive.writestr(name, b"")
        return path
    for name in names:
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).touch()
    return path


def test_every_kind_of_a_folder_has_endings():
    assert set(ENDINGS) == set(FOLDER_KINDS)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.npz", "npz"),
        ("a.NPZ", "npz"),
        ("a.npy", "npz"),
        ("a.csv", "table"),
        ("a.Tsv", "table"),
        ("a.parquet", "table"),
    ],
)
def test_a_file_tells_its_kind_by_its_ending(name, expected, tmp_path):
    (tmp_path / name).touch()
    assert kind_at(tmp_path / name) == expected


@pytest.mark.parametrize(
    ("kind", "ending"), [(kind, ending) for kind, endings in ENDINGS.items() for ending in endings]
)
@pytest.mark.parametrize("place", ["folder", "a.zip", "A.ZIP", "folder.csv"])
@pytest.mark.parametrize("change", [str.lower, str.upper, str.title])
def test_a_folder_or_zip_tells_its_kind_by_what_it_holds(kind, ending, place, change, tmp_path):
    path = made(tmp_path / place, [f"a/1{change(ending)}", "a/notes.md", "b/2" + ending])
    assert kind_at(path) == kind


@pytest.mark.parametrize("place", ["folder", "a.zip"])
def test_files_of_several_kinds_must_be_told_apart(place, tmp_path):
    path = made(tmp_path / place, ["a/1.png", "a/2.JPG", "a/1.wav"])
    expected = (
        r"holds files of several kinds: 2 images, 1 audio; take the others away, or say which: data\.source\.kind"
    )
    with pytest.raises(DataError, match=expected) as caught:
        kind_at(path)
    assert caught.value.exit_code == 4


@pytest.mark.parametrize("place", ["folder", "a.zip"])
def test_a_text_beside_the_folders_of_the_classes_is_none_of_them(place, tmp_path):
    made(tmp_path / place, ["README.txt", "a/1.png", "b/2.png"])
    assert kind_at(tmp_path / place) == "images"


@pytest.mark.parametrize("place", ["folder", "a.zip"])
@pytest.mark.parametrize("names", [["a/notes.md"], ["a/.1.png"]], ids=["others", "hidden"])
def test_a_folder_of_none_of_them_is_said(place, names, tmp_path):
    with pytest.raises(DataError, match=r"holds no images, audio or text files; their endings: \.png, \.jpg"):
        kind_at(made(tmp_path / place, names))


@pytest.mark.parametrize("name", ["a.xlsx", "a", "a.png", "csv"])
def test_a_file_of_no_kind_is_said(name, tmp_path):
    (tmp_path / name).touch()
    with pytest.raises(DataError, match=r"is of no kind that mltool reads; give a \.npz, \.csv, .* or a folder"):
        kind_at(tmp_path / name)


@pytest.mark.parametrize("name", ["pipe", "pipe.zip", "pipe.csv"])
def test_a_fifo_is_refused_and_not_waited_for(name, tmp_path):
    os.mkfifo(tmp_path / name)
    with pytest.raises(DataError, match=r"is no plain file|is of no kind"):
        kind_at(tmp_path / name)


def test_a_file_called_zip_that_is_none_is_said(tmp_path):
    (tmp_path / "a.zip").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match=r"a\.zip cannot be read as \.zip: File is not a zip file; make it again"):
        kind_at(tmp_path / "a.zip")

"""A file or folder is written whole or not at all."""

import errno
import hashlib
import json
import os

import pytest

from mltool.errors import MachineError
from mltool.runs.atomic import hash_of, sha256_of, write_json, write_text, writing, writing_folder


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_text_is_written_as_it_is_into_folders_that_were_not_there(tmp_path):
    target = tmp_path / "a" / "b" / "c.txt"
    write_text(target, "größe\r\n")
    assert target.read_bytes() == "größe\r\n".encode()
    assert names(target.parent) == ["c.txt"]


def test_until_it_is_whole_the_old_file_stands(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")
    with writing(target) as temporary:
        temporary.write_text("half")
        assert target.read_text() == "old"
        assert temporary.parent == tmp_path, "a rename is one step on one file system only"
    assert target.read_text() == "half"
    assert names(tmp_path) == ["a.txt"]


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(RuntimeError, match="in the middle"), writing(target) as temporary:
        temporary.write_text("half")
        raise RuntimeError("in the middle")
    assert target.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EDQUOT], ids=["full", "read-only", "quota"])
def test_a_disk_that_takes_no_more_is_said(code, tmp_path):
    with pytest.raises(MachineError, match=os.strerror(code)) as caught, writing(tmp_path / "a") as temporary:
        temporary.write_text("half")
        raise OSError(code, os.strerror(code))
    assert caught.value.exit_code == 10
    assert names(tmp_path) == []


def test_a_parent_that_is_a_file_is_said(tmp_path):
    (tmp_path / "a").write_text("")
    with pytest.raises(MachineError, match=r"cannot write .*: (Not a directory|File exists)"):
        write_text(tmp_path / "a" / "b.txt", "")


def test_a_folder_replaces_another_whole(tmp_path):
    target = tmp_path / "model"
    target.mkdir()
    (target / "old").write_text("")
    with writing_folder(target) as temporary:
        (temporary / "sub").mkdir()
        (temporary / "sub" / "new").write_text("x")
        assert names(target) == ["old"]
    assert names(target) == ["sub"]
    assert names(tmp_path) == ["model"]


def test_a_failure_leaves_the_old_folder_and_nothing_else(tmp_path):
    target = tmp_path / "model"
    target.mkdir()
    (target / "old").write_text("")
    with pytest.raises(RuntimeError, match="in the middle"), writing_folder(target) as temporary:
        (temporary / "new").write_text("x")
        raise RuntimeError("in the middle")
    assert names(target) == ["old"]
    assert names(tmp_path) == ["model"]


def test_a_folder_that_cannot_take_its_place_puts_the_old_one_back(tmp_path, monkeypatch):
    target = tmp_path / "model"
    target.mkdir()
    (target / "old").write_text("")
    rename = type(target).rename

    def refuse(path, new):
        if path.name.endswith(".part"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return rename(path, new)

    monkeypatch.setattr(type(target), "rename", refuse)
    with pytest.raises(MachineError, match="cannot write"), writing_folder(target) as temporary:
        (temporary / "new").write_text("x")
    assert names(target) == ["old"]


def test_json_has_no_nan_and_no_infinity(tmp_path):
    write_json(tmp_path / "a.json", {"a": [float("nan"), 1.5, -float("inf")], "b": ({"c": float("inf")},), "d": "ü"})
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert json.loads(text) == {"a": [None, 1.5, None], "b": [{"c": None}], "d": "ü"}
    assert "ü" in text


def test_the_hash_of_a_file_is_its_sha256(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")  # FIPS 180-2, appendix B.1
    assert sha256_of(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    (tmp_path / "b").write_bytes(b"x" * (1 << 21))
    assert sha256_of(tmp_path / "b") == hashlib.sha256(b"x" * (1 << 21)).hexdigest()


def test_the_hash_of_a_folder_knows_contents_names_and_places(tmp_path):
    def folder(name, files):
        for file, text in files.items():
            path = tmp_path / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return sha256_of(tmp_path / name)

    one = folder("one", {"a": "1", "s/b": "2"})
    assert folder("same", {"s/b": "2", "a": "1"}) == one
    others = [{"a": "1", "s/b": "3"}, {"a": "1", "s/c": "2"}, {"a": "1", "b": "2"}, {"a": "1"}, {"a": "2", "s/b": "1"}]
    assert len({one, *(folder(f"other{i}", files) for i, files in enumerate(others))}) == 6


def test_the_hash_of_a_document_does_not_know_the_order_of_its_keys():
    assert hash_of({"a": 1, "b": [1, 2]}) == hash_of({"b": [1, 2], "a": 1})
    assert hash_of({"a": 1, "b": [1, 2]}) != hash_of({"a": 1, "b": [2, 1]})

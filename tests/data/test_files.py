"""Files of a folder and of a .zip: what counts, what they are called, and what is refused."""

import os
import random
import socket
import stat
import struct
import zipfile
from pathlib import Path

import pytest

from mltool.data.sources.files import FolderTree, ZipTree, labelled_files, open_tree, printable
from mltool.errors import DataError

PNG = (".png", ".jpg")


def fill(folder, *names):
    """Files that hold their own names."""
    for name in names:
        path = Path(os.fsdecode(os.fsencode(folder)), name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.fsencode(name))
    return folder


def packed(path, names, **options):
    """A .zip of files that hold their own names; a name that ends in a slash is a folder."""
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name in names:
            archive.writestr(name, b"" if name.endswith("/") else name.encode())
    return path


def labelled(path, **more):
    paths = {"": path} if isinstance(path, Path) else path
    return labelled_files(paths, PNG, "images", **{"label": None, "group": None, **more})


def shown(files):
    """label of every name, in their order."""
    return dict(zip([name for _, name in files.files], files.labels.tolist(), strict=True))


# What counts


def test_files_are_in_alphabetical_order_whatever_the_disk_says(tmp_path):
    names = ["b/2.png", "b/10.png", "a/z.png", "B/1.png", "a/sub/1.png"]
    assert FolderTree(fill(tmp_path, *names), PNG).names == sorted(names)


def test_endings_count_in_any_case_and_others_do_not(tmp_path):
    names = ["a/1.png", "a/2.PNG", "a/3.Jpg", "a/4.txt", "a/5", "a/png", "a/6.png.bak"]
    assert FolderTree(fill(tmp_path, *names), PNG).names == ["a/1.png", "a/2.PNG", "a/3.Jpg"]


def test_files_of_other_endings_are_told(tmp_path, caplog):
    caplog.set_level("INFO")
    labelled(fill(tmp_path / "f", "a/1.png", "b/2.png", "b/3.tiff", "b/4.TIFF", "b/README"))
    assert "f: files that are no images are left out: 2 .tiff, 1 without an ending" in caplog.text


def test_what_a_mac_leaves_behind_is_left_out(tmp_path, caplog):
    files = labelled(fill(tmp_path, "a/1.png", "b/2.png", "__MACOSX/a/1.png", "a/.DS_Store"))
    assert shown(files) == {"a/1.png": "a", "b/2.png": "b"}
    assert not caplog.text


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ["train/a/1.png", "test/a/1.png", "extra/a/1.png"],
            "and the folder 'extra' is none; call it train",
        ),
        (["train/a/1.png", "train/b/1.png", "test1/1.png"], "and the folder 'test1' is none"),
        (["train/a/1.png", "test/b/1.png", "1.png"], "and a file beside it is none"),
    ],
)
def test_a_split_beside_what_is_none_is_refused(names, message, tmp_path):
    with pytest.raises(DataError, match=f"holds folders of classes, so it is a split, {message}"):
        labelled(fill(tmp_path, *names))


@pytest.mark.parametrize("below", ["", "2020/"])
def test_a_class_may_be_called_train(below, tmp_path):
    names = [f"{name}/{below}{number}.png" for number, name in enumerate(["bus", "train", "car"])]
    assert sorted(shown(labelled(fill(tmp_path, *names))).values()) == ["bus", "car", "train"]


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_hidden_files_and_folders_are_left_out(kind, tmp_path):
    names = ["a/1.png", "a/.2.png", ".git/3.png", "a/.thumbs/4.png", "__MACOSX/._1.png"]
    if kind == "zip":
        assert open_tree(packed(tmp_path / "a.zip", names), PNG, "images").names == ["a/1.png"]
    else:
        assert open_tree(fill(tmp_path / "a", *names[:-1]), PNG, "images").names == ["a/1.png"]


def test_a_file_gives_its_bytes(tmp_path):
    fill(tmp_path / "folder", "a/1.png")
    path = packed(tmp_path / "a.zip", ["a/1.png"])
    for tree in (FolderTree(tmp_path / "folder", PNG), ZipTree(path, PNG)):
        assert tree.read("a/1.png") == b"a/1.png"


@pytest.mark.parametrize(
    "names",
    [
        pytest.param(["a/1.png", "b/2.PNG", "b/10.png"], id="classes"),
        pytest.param(["train/a/1.png", "test/b/2.png", "test/a/1.png", "train/b/3.png"], id="splits"),
        pytest.param(["data/a/1.png", "data/b/2.png"], id="one folder around all"),
        pytest.param(["train/a/1.png", "train/b/2.png"], id="one split around all"),
        pytest.param(["a/deep/1.png", "b/deep/er/2.png"], id="deep"),
        pytest.param(["ä ö/1 2.png", "b/ü\n.png"], id="spaces, umlauts, line ends"),
    ],
)
def test_a_zip_is_what_the_folder_is(names, tmp_path):
    folder, path = fill(tmp_path / "folder", *names), packed(tmp_path / "a.zip", names)
    of_folder, of_zip = labelled(folder), labelled(path)
    assert shown(of_folder) == shown(of_zip)
    assert {key: ids.tolist() for key, ids in of_folder.given.items()} == {
        key: ids.tolist() for key, ids in of_zip.given.items()
    }
    assert [of_folder.read(i) for i in range(len(names))] == [of_zip.read(i) for i in range(len(names))]


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_zip_of_any_compression_is_read(method, tmp_path):
    path = packed(tmp_path / "a.zip", ["a/1.png"], compression=method)
    assert ZipTree(path, PNG).read("a/1.png") == b"a/1.png"


# Labels, groups, splits


def test_the_label_is_the_folder_at_the_top(tmp_path):
    found = labelled(fill(tmp_path, "dog/1.png", "cat/old/1.png", "cat/2.png"))
    assert shown(found) == {"cat/2.png": "cat", "cat/old/1.png": "cat", "dog/1.png": "dog"}
    assert found.given == {}
    assert found.groups is None


def test_files_are_called_by_their_whole_path(tmp_path):
    assert labelled(fill(tmp_path, "a/1.png", "b/2.png")).names == [f"{tmp_path}/a/1.png", f"{tmp_path}/b/2.png"]


def test_label_and_group_are_patterns_of_the_name(tmp_path):
    folder = fill(tmp_path, "7_ann_0.png", "deep/3_bob_1.png")
    found = labelled(folder, label=r"^(\d)_", group=r"_([a-z]+)_")
    assert shown(found) == {"7_ann_0.png": "7", "deep/3_bob_1.png": "3"}
    assert found.groups.tolist() == ["ann", "bob"]


def test_a_pattern_with_a_slash_sees_the_path(tmp_path):
    folder = fill(tmp_path, "ann/cat/1.png", "bob/dog/2.png")
    found = labelled(folder, label=r"/([a-z]+)/", group=r"^([a-z]+)/")
    assert found.labels.tolist() == ["cat", "dog"]
    assert found.groups.tolist() == ["ann", "bob"]


def test_a_pattern_without_a_group_is_taken_whole(tmp_path):
    assert labelled(fill(tmp_path, "x7.png", "x8.png"), label=r"\d").labels.tolist() == ["7", "8"]


@pytest.mark.parametrize(
    ("folders", "expected"),
    [
        pytest.param(["train", "validation", "test"], ["train", "validation", "test"], id="by their names"),
        pytest.param(["Training", "VAL", "Testing"], ["train", "validation", "test"], id="in other words"),
        pytest.param(["train", "dev"], ["train", "validation"], id="without a test set"),
    ],
)
def test_folders_bring_splits(folders, expected, tmp_path):
    found = labelled(fill(tmp_path, *(f"{top}/{label}/1.png" for top in folders for label in "ab")))
    assert list(found.given) == expected
    for folder, split in zip(folders, expected, strict=True):
        names = [found.files[i][1] for i in found.given[split]]
        assert names == [f"{folder}/a/1.png", f"{folder}/b/1.png"]
    assert sorted(set(found.labels.tolist())) == ["a", "b"]


def test_a_class_called_test_beside_other_classes_is_a_class(tmp_path):
    found = labelled(fill(tmp_path, "test/1.png", "other/1.png"))
    assert found.given == {}
    assert found.labels.tolist() == ["other", "test"]


def test_splits_of_paths_of_their_own(tmp_path):
    all_else, test = fill(tmp_path / "x", "a/1.png", "b/1.png"), fill(tmp_path / "y", "b/1.png", "a/1.png")
    found = labelled({"": all_else, "test": test})
    assert found.labels.tolist() == ["a", "b", "a", "b"]
    assert {split: ids.tolist() for split, ids in found.given.items()} == {"train": [0, 1], "test": [2, 3]}
    assert found.read(2) == b"a/1.png"


# Names


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        pytest.param(b"a b.png", "a b.png", id="space"),
        pytest.param(b"a\nb.png", r"a\nb.png", id="line end"),
        pytest.param(b"a\x1b[31m.png", r"a\x1b[31m.png", id="colors of a terminal"),
        pytest.param(b"\xff\xe4.png", r"\xff\xe4.png", id="no UTF-8"),
        pytest.param("ä猫.png".encode(), "ä猫.png", id="letters of the world"),
    ],
)
def test_any_name_is_read_and_shown_on_one_line(name, expected, tmp_path):
    folder = fill(tmp_path, os.fsdecode(b"a/" + name), "b/1.png")
    found = labelled(folder)
    assert found.read(0) == b"a/" + name
    assert found.names[0] == f"{tmp_path}/a/{expected}"
    assert printable(os.fsdecode(name)) == expected


@pytest.mark.parametrize(
    ("folder", "expected"),
    [
        pytest.param(b"a\nb", r"'a\\\\nb' cannot be a label; use one line of UTF-8 text", id="line end"),
        pytest.param(b"caf\xe9", r"'caf\\\\xe9' cannot be a label; use one line", id="no UTF-8"),
    ],
)
def test_a_class_that_labels_txt_cannot_hold_is_refused(folder, expected, tmp_path):
    with pytest.raises(DataError, match=expected):
        labelled(fill(tmp_path, os.fsdecode(folder + b"/1.png"), "b/1.png"))


def test_a_class_may_have_spaces(tmp_path):
    assert labelled(fill(tmp_path, "hot dog/1.png", " b/1.png")).labels.tolist() == [" b", "hot dog"]


# What is refused


def dangling(folder):
    (folder / "a/2.png").symlink_to(folder / "gone.png")


def loop_of_a_file(folder):
    (folder / "a/2.png").symlink_to("2.png")


def loop_of_a_folder(folder):
    (folder / "a/2").symlink_to("..")


def linked_class(folder):
    (folder / "b").symlink_to("a")


def fifo(folder):
    os.mkfifo(folder / "a/2.png")


def listening(folder):
    place = Path.cwd()
    os.chdir(folder / "a")  # the path of a socket may have 107 bytes
    try:
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind("2.png")
    finally:
        os.chdir(place)


def empty_class(folder):
    (folder / "b").mkdir()


def class_of_others(folder):
    fill(folder, "b/read.me")


def empty_class_of_a_split(folder):
    fill(folder, "train/a/1.png", "test/a/1.png")
    (folder / "a/1.png").rename(folder / "train/a/0.png")
    (folder / "a").rmdir()
    (folder / "test/b").mkdir()


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        pytest.param(
            dangling, r"/a/2\.png cannot be read: No such file.*; take it away, or mend the link", id="dangling"
        ),
        pytest.param(
            loop_of_a_file, r"/a/2\.png cannot be read: Too many levels of symbolic links", id="loop of links"
        ),
        pytest.param(loop_of_a_folder, r"/a/2 is a link to a folder, which is not followed", id="loop of folders"),
        pytest.param(linked_class, r"/b is a link to a folder, .*; put the folder itself there", id="linked class"),
        pytest.param(fifo, r"/a/2\.png is no plain file; take it away", id="FIFO"),
        pytest.param(listening, r"/a/2\.png is no plain file", id="socket"),
        pytest.param(empty_class, "the folder b holds no images; fill it, or take it away", id="empty class"),
        pytest.param(class_of_others, "the folder b holds no images", id="class of other files"),
        pytest.param(empty_class_of_a_split, "the folder test/b holds no images", id="empty class of a split"),
    ],
)
def test_what_a_folder_may_not_hold_is_named(spoil, expected, tmp_path):
    folder = fill(tmp_path / "x", "a/1.png")
    spoil(folder)
    with pytest.raises(DataError, match=expected) as caught:
        labelled(folder)
    assert caught.value.exit_code == 4


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_closed_folder_is_named(tmp_path):
    folder = fill(tmp_path, "a/1.png", "b/1.png")
    (folder / "b").chmod(0)
    try:
        with pytest.raises(DataError, match=r"/b cannot be read: Permission denied; give it read permission"):
            labelled(folder)
    finally:
        (folder / "b").chmod(0o700)


def test_a_folder_that_the_system_refuses_is_named(tmp_path, monkeypatch):
    folder, scandir = fill(tmp_path, "a/1.png", "b/1.png"), os.scandir

    def refusing(path):
        if str(path).endswith("/b"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    with pytest.raises(DataError, match=r"/b cannot be read: Permission denied"):
        labelled(folder)


def test_a_link_to_a_file_is_that_file(tmp_path):
    folder = fill(tmp_path / "x", "a/1.png", "b/1.png")
    (folder / "a/2.png").symlink_to(fill(tmp_path, "far.png") / "far.png")
    assert labelled(folder).read(1) == b"far.png"


@pytest.mark.parametrize(
    ("names", "options", "expected"),
    [
        pytest.param([], {}, r"holds no images \(\.png, \.jpg\); name the folder that holds them", id="nothing"),
        pytest.param(["a/1.txt"], {}, "holds no images", id="other files"),
        pytest.param(["1.png", "a/2.png"], {}, r"/1\.png lies in no folder of a class; put it into one", id="no class"),
        pytest.param(
            ["a/x1.png", "a/2.png"],
            {"label": r"^x(\d)"},
            r"/a/2\.png: data\.source\.label '\^x\(\\\\d\)' does not match its name; change the pattern",
            id="no label",
        ),
        pytest.param(["a/1.png"], {"group": "_(.*)"}, r"data\.source\.group .* does not match", id="no group"),
        pytest.param(["a/1.png"], {"label": r"^(x)?1"}, r"data\.source\.label .* does not match", id="group left out"),
        pytest.param(["a/1.png"], {"label": r"^()1"}, "'' cannot be a label", id="label without letters"),
    ],
)
@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_files_without_what_is_asked_are_named(kind, names, options, expected, tmp_path):
    (tmp_path / "x").mkdir()
    path = packed(tmp_path / "a.zip", names) if kind == "zip" else fill(tmp_path / "x", *names)
    with pytest.raises(DataError, match=expected) as caught:
        labelled(path, **options)
    assert caught.value.exit_code == 4


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        pytest.param(["a/1.png", "b/"], "the folder b holds no images", id="empty class"),
        pytest.param(["a/1.png", "b/read.me"], "the folder b holds no images", id="class of other files"),
        pytest.param(["x/a/1.png", "x/b/1.png", "x/c/"], "the folder c holds no images", id="below one folder"),
        pytest.param(["train/a/1.png", "test/a/1.png", "test/b/"], "the folder test/b holds no", id="class of a split"),
    ],
)
def test_an_empty_class_in_a_zip_is_named(names, expected, tmp_path):
    with pytest.raises(DataError, match=expected):
        labelled(packed(tmp_path / "a.zip", names))


def test_an_empty_folder_below_a_class_or_a_hidden_one_does_no_harm(tmp_path):
    names = ["a/1.png", "b/1.png", "a/old/", ".x/", "b/.x/"]
    assert labelled(packed(tmp_path / "a.zip", names)).labels.tolist() == ["a", "b"]
    folder = fill(tmp_path / "x", *names[:2])
    for name in names[2:]:
        (folder / name).mkdir()
    assert labelled(folder).labels.tolist() == ["a", "b"]


@pytest.mark.parametrize(
    "name", ["../1.png", "a/../../1.png", "/etc/1.png", "\\a\\1.png", "..\\1.png", "C:\\1.png", "../1.txt"]
)
def test_a_zip_that_climbs_out_of_its_folder_is_refused(name, tmp_path):
    path = packed(tmp_path / "a.zip", ["a/1.png", name])
    with pytest.raises(
        DataError, match=r"a\.zip: the name '.*1\....' climbs out of the folder; do not trust"
    ) as caught:
        open_tree(path, PNG, "images")
    assert caught.value.exit_code == 4


def bomb(path, size=20_000_000):
    with zipfile.ZipFile(path, "w", compression=zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        archive.writestr("a/0.png", b"fine")
        archive.writestr("a/1.png", bytes(size))
    return path


def test_a_zip_bomb_is_refused_unread(tmp_path):
    with pytest.raises(DataError, match=r"a\.zip: a/1\.png unpacks from 19,\d{3} to 20,000,000 bytes; do not trust"):
        open_tree(bomb(tmp_path / "a.zip"), PNG, "images")


def test_what_packs_well_and_is_small_is_no_bomb(tmp_path):
    assert len(open_tree(bomb(tmp_path / "a.zip", 1_000_000), PNG, "images").read("a/1.png")) == 1_000_000


def changed_entry(path, *, offset, value, layout):
    """Changes a field of the last entry of the directory (PKWARE's APPNOTE, 4.3.12)."""
    content = bytearray(path.read_bytes())
    struct.pack_into(layout, content, content.rindex(b"PK\x01\x02") + offset, value)
    path.write_bytes(content)
    return path


def test_a_bomb_that_lies_about_its_size_does_not_fill_the_memory(tmp_path):
    import tracemalloc

    path = changed_entry(bomb(tmp_path / "a.zip"), offset=24, value=1000, layout="<I")
    tree = open_tree(path, PNG, "images")
    tracemalloc.start()
    with pytest.raises(OSError, match=r"damaged in the \.zip: Bad CRC-32"):
        tree.read("a/1.png")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2_000_000


def test_an_encrypted_zip_is_refused(tmp_path):
    path = changed_entry(packed(tmp_path / "a.zip", ["a/1.png"]), offset=8, value=1, layout="<H")
    with pytest.raises(DataError, match=r"a\.zip: a/1\.png is encrypted; unpack it first"):
        open_tree(path, PNG, "images")


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda content: b"", id="empty"),
        pytest.param(lambda content: b"not a zip", id="text"),
        pytest.param(lambda content: content[: len(content) // 2], id="cut off"),
        pytest.param(lambda content: content.replace(b"PK\x01\x02", b"XX\x01\x02"), id="directory overwritten"),
        pytest.param(lambda content: content[:-30] + bytes(30), id="end overwritten"),
    ],
)
def test_a_damaged_zip_is_said(damage, tmp_path):
    path = packed(tmp_path / "a.zip", ["a/1.png", "b/1.png"])
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=r"a\.zip cannot be read as \.zip: .*; make it again") as caught:
        open_tree(path, PNG, "images")
    assert caught.value.exit_code == 4


def test_a_fifo_called_zip_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.zip")
    with pytest.raises(DataError, match=r"a\.zip is no plain file"):
        open_tree(tmp_path / "a.zip", PNG, "images")


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
@pytest.mark.parametrize("byte", [3, 9, 20, -3])
def test_damage_inside_a_zip_is_an_error_of_the_file(method, byte, tmp_path):
    path, content = tmp_path / "a.zip", random.Random(1).randbytes(64)
    with zipfile.ZipFile(path, "w", compression=method) as archive:
        archive.writestr("a/1.png", content)
    raw = bytearray(path.read_bytes())
    start = 30 + len("a/1.png")  # of the packed bytes, after the local header
    end = raw.index(b"PK\x01\x02")
    place = start + byte if byte >= 0 else end + byte
    raw[place] ^= 0xFF
    path.write_bytes(raw)
    with pytest.raises(OSError, match=r"damaged in the \.zip: "):
        ZipTree(path, PNG).read("a/1.png")


def test_a_link_inside_a_zip_is_not_followed(tmp_path):
    link = zipfile.ZipInfo("a/1.png")
    link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(DataError, match=r"a\.zip: a/1\.png is a link; put the file itself there"):
        ZipTree(tmp_path / "a.zip", PNG)
    assert ZipTree(tmp_path / "a.zip", (".jpg",)).names == []  # what is not read is no harm


def test_a_name_that_stands_twice_in_a_zip_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("a/1.png", b"first")
        archive.writestr("a/1.png", b"second")
    with pytest.raises(DataError, match=r"a\.zip: a/1\.png stands twice in it"):
        ZipTree(tmp_path / "a.zip", PNG)


def test_names_of_windows_in_a_zip_are_folders(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in ("cat\\1.png", "dog\\2.png"):
            entry = zipfile.ZipInfo("x")
            entry.filename = name
            archive.writestr(entry, b"bytes")
    tree = ZipTree(tmp_path / "a.zip", PNG)
    assert tree.names == ["cat/1.png", "dog/2.png"]
    assert tree.read("dog/2.png") == b"bytes"

"""The files of a folder, or of a .zip of one: their names, labels, groups, and bytes."""

import functools
import logging
import lzma
import os
import re
import stat
import struct
import threading
import zipfile
import zlib
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol

import numpy as np

from mltool.data.source import Array, can_be_label
from mltool.errors import DataError

logger = logging.getLogger("mltool")

MAX_RATIO = 1000
"""A file of a .zip that unpacks to more than this many times its size is taken for a bomb."""

RATIO_FREE_BYTES = 1_000_000
"""A file of a .zip that unpacks to less is harmless whatever its ratio: a black image packs very well."""

SPLIT_FOLDERS = {"train": "train", "training": "train", "val": "validation", "valid": "validation",
                 "validation": "validation", "dev": "validation", "test": "test", "testing": "test"}  # fmt: skip
"""Names of folders that bring a split."""


class FileTree(Protocol):
    """Files by their names below a folder, with `/` between the parts, in alphabetical order.

    Attributes:
        origin: of the folder, for messages.
        names: of the files that count.
        others: how many files of other endings there are.
    """

    origin: str
    names: Sequence[str]
    others: Counter[str]

    def read(self, name: str) -> bytes:
        """The bytes of a file.

        Raises:
            OSError: if it cannot be read.
        """
        ...


class FolderTree:
    """The files of a folder; hidden ones (a name that begins with a dot) and other endings are left out.

    A single folder at its top that holds the folders of the classes is left out of the names, as in a .zip.

    Args:
        folder: that holds them.
        endings: of the files that count, in small letters, with the dot.

    Raises:
        DataError: if a file is no plain file (a FIFO, a socket, a device), a link leads nowhere or to a folder, or a
            folder cannot be read.
    """

    def __init__(self, folder: Path, endings: Sequence[str]) -> None:
        found: list[str] = []
        seen: list[str] = []
        self.others: Counter[str] = Counter()
        wanted = tuple(endings)
        for name, entry in _visible(folder):
            if entry.is_dir(follow_symlinks=False):
                seen.append(name)
            # Not followed: a loop would never end. Not left out in silence either: a class would be missing.
            elif entry.is_symlink() and Path(entry).is_dir():
                message = f"{printable(entry.path)} is a link to a folder, which is not followed"
                raise DataError(message, "put the folder itself there, or take the link away")
            elif entry.name.lower().endswith(wanted):
                if not entry.is_file(follow_symlinks=False):  # known without asking the disk again
                    _require_plain(entry.path)
                found.append(name)
            else:
                self.others[PurePosixPath(entry.name).suffix.lower()] += 1
        only = _only_folder(found)
        self._folder = folder / only
        self.origin = str(self._folder)
        self.names: Sequence[str] = sorted(name.removeprefix(only) for name in found)
        self.empty_folders = _empty_folders(self.names, seen, only)

    def read(self, name: str) -> bytes:
        """See `FileTree`."""
        # Paths of pathlib, and buffers, take as long as decoding a small image.
        with open(f"{self._folder}/{name}", "rb", buffering=0) as file:  # noqa: PTH123
            return file.readall()


def _visible(folder: Path) -> Iterator[tuple[str, "os.DirEntry[str]"]]:
    """Name below the folder, and entry, of all that is not hidden; links are not followed.

    Raises:
        DataError: if a folder cannot be read.
    """
    pending = [(str(folder), "")]
    while pending:
        path, inside = pending.pop()
        try:
            with os.scandir(path) as listing:
                shown = (entry for entry in listing if not entry.name.startswith((".", "__MACOSX")))
                entries = sorted(shown, key=lambda entry: entry.name)
        except OSError as error:
            message = f"{printable(str(error.filename))} cannot be read: {error.strerror}"
            raise DataError(message, "give it read permission") from error
        for entry in entries:
            name = f"{inside}{entry.name}"
            if entry.is_dir(follow_symlinks=False):
                pending.append((entry.path, f"{name}/"))
            yield name, entry


def _require_plain(path: str | Path) -> None:
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116
    except OSError as error:
        raise DataError(
            f"{printable(str(path))} cannot be read: {error.strerror}", "take it away, or mend the link"
        ) from error
    if not stat.S_ISREG(mode):
        raise DataError(f"{printable(str(path))} is no plain file", "take it away")


def _only_folder(names: Sequence[str]) -> str:
    """The single folder at the top that holds folders of files, with a slash; nothing where there are several."""
    parts = [name.split("/") for name in names]
    top = {found[0] for found in parts}
    return f"{next(iter(top))}/" if len(top) == 1 and all(len(found) > 2 for found in parts) else ""


def _empty_folders(names: Sequence[str], folders: Collection[str], only: str) -> list[str]:
    """Folders at the top (or below a split's folder) that hold no file that counts; `only` is left out of the names."""
    used: set[str] = set()
    for folder in {name.rpartition("/")[0] for name in names}:
        parts_of = folder.split("/")
        used |= {"/".join(parts_of[:depth]) for depth in range(1, len(parts_of) + 1)}
    inside = [name.removeprefix(only) for name in folders if f"{name}/" != only]
    parts = {name: PurePosixPath(name).parts for name in inside}
    splits = {name for name, found in parts.items() if len(found) == 1 and name.lower() in SPLIT_FOLDERS}
    classes = {name for name, found in parts.items() if len(found) == 1 or (len(found) == 2 and found[0] in splits)}
    return sorted(classes - splits - used)


class ZipTree:
    """The files of a .zip, read without unpacking it to disk; a single folder at its top is left out of the names.

    Args:
        path: the .zip.
        endings: of the files that count, in small letters, with the dot.

    Raises:
        DataError: if it is damaged or encrypted, a name climbs out of the folder, or a file unpacks to a bomb.
    """

    def __init__(self, path: Path, endings: Sequence[str]) -> None:
        self.origin = str(path)
        self.others: Counter[str] = Counter()
        self._path = path
        self._local = threading.local()
        _require_plain(path)
        try:
            with zipfile.ZipFile(path) as archive:
                entries = archive.infolist()
        except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError) as error:
            raise DataError(f"{path} cannot be read as .zip: {error}", "make it again") from error
        kept: dict[str, zipfile.ZipInfo] = {}
        folders: set[str] = set()
        for entry in entries:
            _require_safe(path, entry)
            place = PurePosixPath(entry.filename.replace("\\", "/"))  # as some programs of Windows write it
            if any(part.startswith((".", "__MACOSX")) for part in place.parts):
                continue
            folders |= {parent.as_posix() for parent in (place / "x" if entry.is_dir() else place).parents} - {"."}
            if entry.is_dir() or entry.filename.endswith("\\"):
                continue
            if not entry.filename.lower().endswith(tuple(endings)):
                self.others[place.suffix.lower()] += 1
            elif stat.S_ISLNK(entry.external_attr >> 16):
                name = printable(place.as_posix())
                raise DataError(f"{path}: {name} is a link", "put the file itself there, or take the link away")
            elif place.as_posix() in kept:
                name = printable(place.as_posix())
                raise DataError(f"{path}: {name} stands twice in it", "only one of them would be read: make it again")
            else:
                kept[place.as_posix()] = entry
        only = _only_folder(list(kept))
        self._entries = {name.removeprefix(only): entry for name, entry in kept.items()}
        self.names: Sequence[str] = sorted(self._entries)
        self.empty_folders = _empty_folders(self.names, folders, only)

    def read(self, name: str) -> bytes:
        """See `FileTree`; every thread has a handle of its own, because they share none safely."""
        if not hasattr(self._local, "archive"):
            self._local.archive = zipfile.ZipFile(self._path)
        entry = self._entries[name]
        try:
            with self._local.archive.open(entry) as file:
                # Not all that there is: it can be more than the .zip says, and fill the memory.
                data: bytes = file.read(entry.file_size + 1)
        except NotImplementedError as error:
            raise OSError(f"packed in a way that is not read: {error}") from error
        except _DAMAGES as error:
            raise OSError(f"damaged in the .zip: {error}") from error
        if len(data) != entry.file_size:
            raise OSError(f"damaged in the .zip: {len(data):,} of {entry.file_size:,} bytes")
        return data


_DAMAGES = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, OSError, RuntimeError, EOFError, ValueError)
"""What `zipfile` and its decompressors raise for damaged bytes; NotImplementedError is a RuntimeError."""


def _require_safe(path: Path, entry: zipfile.ZipInfo) -> None:
    name = entry.filename
    if name.startswith(("/", "\\")) or ".." in re.split(r"[/\\]", name) or re.match(r"^[A-Za-z]:", name):
        raise DataError(f"{path}: the name {printable(name)!r} climbs out of the folder", "do not trust this file")
    if entry.file_size > max(RATIO_FREE_BYTES, MAX_RATIO * entry.compress_size):
        message = f"{path}: {printable(name)} unpacks from {entry.compress_size:,} to {entry.file_size:,} bytes"
        raise DataError(message, "do not trust this file")
    if entry.flag_bits & 0x1:
        raise DataError(f"{path}: {printable(name)} is encrypted", "unpack it first")


def open_tree(path: Path, endings: Sequence[str], what: str) -> FolderTree | ZipTree:
    """The files of a folder or a .zip.

    Args:
        path: of the folder or the .zip.
        endings: of the files that count.
        what: they are, for the message.

    Raises:
        DataError: if there are none, or a folder of a class is empty.
    """
    tree = FolderTree(path, endings) if path.is_dir() else ZipTree(path, endings)
    if not tree.names:
        raise DataError(f"{path} holds no {what} ({', '.join(endings)})", "name the folder that holds them")
    if tree.empty_folders:
        shown = ", ".join(printable(name) for name in tree.empty_folders[:5])
        raise DataError(f"{path}: the folder {shown} holds no {what}", "fill it, or take it away")
    return tree


@dataclass(frozen=True)
class LabelledFiles:
    """Files with what their names tell.

    Attributes:
        trees: that they lie in.
        files: (tree, name) of each.
        names: for messages.
        labels: [files] text.
        groups: [files] text, or None.
        given: the splits that the folders bring.
    """

    trees: Sequence[FileTree]
    files: Sequence[tuple[int, str]]
    names: Sequence[str]
    labels: Array
    groups: Array | None
    given: Mapping[str, Array]

    def read(self, position: int) -> bytes:
        """The bytes of a file."""
        tree, name = self.files[position]
        return self.trees[tree].read(name)


def files_without_labels(path: Path, endings: Sequence[str], what: str) -> LabelledFiles:
    """One file, or all files of a folder or .zip, whatever folders they lie in.

    Args:
        path: of the file, the folder or the .zip.
        endings: of the files that count.
        what: they are, for messages.

    Raises:
        DataError: if there are none.
    """
    if path.is_dir() or path.suffix.lower() == ".zip":
        tree: FileTree = open_tree(path, endings, what)
    elif not path.exists():
        raise DataError(f"{path} is not there", f"name {what}, or a folder of them")
    else:
        _require_plain(path)
        tree = _OneFile(path)
    names = [printable(f"{tree.origin}/{name}") for name in tree.names]
    return LabelledFiles([tree], [(0, name) for name in tree.names], names, np.full(len(names), ""), None, {})


class _OneFile:
    """A file as the only one of its folder."""

    def __init__(self, path: Path) -> None:
        self.origin, self._path, self.others = str(path.parent), path, Counter[str]()
        self.names: Sequence[str] = [path.name]

    def read(self, name: str) -> bytes:
        """See `FileTree`."""
        return self._path.read_bytes()


def labelled_files(
    paths: Mapping[str, Path],
    endings: Sequence[str],
    what: str,
    *,
    label: str | None,
    group: str | None,
    has_labels: bool = True,
) -> LabelledFiles:
    """All files of the paths, with labels, groups and splits.

    Args:
        paths: by split; "" for all samples, or the training samples where there are others.
        endings: of the files that count.
        what: they are, for messages.
        label: pattern whose first group is the label in a file's name; the folder when None.
        group: pattern whose first group is the group.
        has_labels: whether names tell labels; without, labels are "" and folders are no classes.

    Raises:
        DataError: if a file has no label or no group, or a label cannot be text.
    """
    trees = [open_tree(path, endings, what) for path in paths.values()]
    files: list[tuple[int, str]] = []
    splits: list[str] = []
    inside: list[str] = []
    for number, (split, tree) in enumerate(zip(paths, trees, strict=True)):
        if tree.others:
            counts = tree.others.most_common(5)
            shown = ", ".join(f"{count} {printable(ending) or 'without an ending'}" for ending, count in counts)
            logger.info("%s: files that are no %s are left out: %s", tree.origin, what, shown)
        own = _split_folders(tree, label if has_labels else "") if split == "" else {}
        for name in tree.names:
            parts = name.split("/")
            files.append((number, name))
            splits.append(own.get(parts[0], "train" if own or len(paths) > 1 else "") if split == "" else split)
            inside.append("/".join(parts[1:]) if parts[0] in own else name)
    names = [printable(f"{trees[tree].origin}/{name}") for tree, name in files]
    found = np.asarray(splits)
    return LabelledFiles(
        trees,
        files,
        names,
        labels=np.asarray([_label(name, inside[i], label, names[i]) for i, (_, name) in enumerate(files)])
        if has_labels
        else np.full(len(files), ""),
        groups=np.asarray([_matched(group, name, "group", names[i]) for i, (_, name) in enumerate(files)])
        if group
        else None,
        given={split: np.flatnonzero(found == split) for split in ("train", "validation", "test") if split in splits},
    )


def _split_folders(tree: FileTree, label: str | None) -> dict[str, str]:
    """Folders at the top that bring a split, if all of them do.

    Raises:
        DataError: if only some of them do, and they hold folders: their names would be taken for classes.
    """
    tops = {name.partition("/")[0] if "/" in name else "" for name in tree.names}
    found = {top: SPLIT_FOLDERS[top.lower()] for top in sorted(tops) if top.lower() in SPLIT_FOLDERS}
    if found and tops - set(found):
        nested = next((name for name in tree.names if name.count("/") > 1 and name.partition("/")[0] in found), None)
        others = [name for name in tree.names if name.partition("/")[0] not in found]
        # Of folders of classes that hold folders themselves, one may be called `test`.
        is_mixed = len(set(found.values())) > 1 or any(name.count("/") < 2 for name in others)
        if nested is not None and is_mixed and label is None:
            split, other = nested.partition("/")[0], sorted(tops - set(found))[0]
            named = f"the folder {printable(other)!r}" if other else "a file beside it"
            message = f"{tree.origin}: {split!r} holds folders of classes, so it is a split, and {named} is none"
            raise DataError(message, "call it train, validation or test, or take it away; or set data.source.label")
        return {}
    return found if len(set(found.values())) > 1 else {}


def _label(name: str, inside: str, pattern: str | None, shown: str) -> str:
    parts = inside.split("/")
    if not pattern and len(parts) < 2:
        raise DataError(f"{shown} lies in no folder of a class", "put it into one, or set data.source.label")
    label = _matched(pattern, name, "label", shown) if pattern else parts[0]
    if not _can_be_label(label):
        message = f"{shown}: {printable(label)!r} cannot be a label"
        raise DataError(message, "use one line of UTF-8 text")
    return label


_can_be_label = functools.lru_cache(maxsize=1000)(can_be_label)


def _matched(pattern: str, name: str, what: str, shown: str) -> str:
    """The first group of the pattern in the file's name, or in its path where the pattern has a slash."""
    found = re.search(pattern, name if "/" in pattern else PurePosixPath(name).name)
    if found is None or (found.re.groups and found[1] is None):
        raise DataError(f"{shown}: data.source.{what} {pattern!r} does not match its name", "change the pattern")
    return found[1] if found.re.groups else found[0]


def printable(name: str) -> str:
    """A file's name as a message can hold it: bytes that are no UTF-8, and line ends, are escaped."""
    if name.isprintable():
        return name
    text = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)

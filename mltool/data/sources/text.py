"""Samples in a folder of .txt files, or a .zip of one."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mltool.data.cache import listed
from mltool.data.source import Array, Skipped, Source, checked_source
from mltool.data.sources.files import LabelledFiles, files_without_labels, labelled_files
from mltool.data.sources.kinds import ENDINGS
from mltool.errors import DataError

MAX_TEXT_BYTES = 4_000_000_000
"""numpy holds every text in as many characters as the longest, 4 bytes each: more than this is refused."""


def load_text(paths: Mapping[str, Path], *, label: str | None = None, group: str | None = None) -> Source:
    """Reads the texts of a folder; the label of each is its folder.

    Args:
        paths: the folder or .zip (key ""), and those of splits that have one of their own.
        label: pattern whose first group is the label in a file's name; the folder when None.
        group: pattern whose first group is the group.

    Raises:
        DataError: if a file is empty or no UTF-8, or there are none.
    """
    files = labelled_files(paths, ENDINGS["text"], "text files", label=label, group=group)
    texts, bad = _read_all(files)
    if bad:
        raise DataError(f"{len(bad)} files cannot be read: {listed(bad)}", "save them as UTF-8, or take them away")
    longest = max(range(len(texts)), key=lambda index: len(texts[index]))
    if 4 * len(texts[longest]) * len(texts) > MAX_TEXT_BYTES:
        message = (
            f"{files.names[longest]} has {len(texts[longest]):,} characters: too long beside {len(texts):,} others"
        )
        raise DataError(message, "cut long texts into several files")
    return checked_source(
        str(paths[""]),
        {"text": np.asarray(texts)},
        files.labels,
        files.given,
        kinds={"text": "text"},
        groups=files.groups,
        names=files.names,
        target_name="folder" if label is None else "label",
    )


def read_texts(path: Path) -> tuple[Array, list[str]]:
    """Texts without labels: str [texts], and the names of the files.

    Raises:
        DataError: naming the first that is empty or no UTF-8.
    """
    files = files_without_labels(path, ENDINGS["text"], "text files")
    texts, bad = _read_all(files)
    if bad:
        raise DataError(f"{bad[0].name} cannot be read: {bad[0].reason}", "save it as UTF-8, or take it away")
    return np.asarray(texts), list(files.names)


def _read_all(files: LabelledFiles) -> tuple[list[str], list[Skipped]]:
    texts: list[str] = []
    bad: list[Skipped] = []
    for position, name in enumerate(files.names):
        try:
            text = files.read(position).decode("utf-8-sig")
        except UnicodeDecodeError as error:
            bad.append(Skipped(name, f"no UTF-8 at byte {error.start}"))
            continue
        except OSError as error:
            bad.append(Skipped(name, str(error)))
            continue
        if not text.strip():
            bad.append(Skipped(name, "it is empty"))
        texts.append(text)
    return texts, bad

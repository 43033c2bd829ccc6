"""What a path holds, told by its ending or by the endings of the files in it."""

from collections import Counter
from pathlib import Path, PurePosixPath

from mltool.data.sources.files import FolderTree, ZipTree
from mltool.errors import DataError
from mltool.spec.data import SAVED_SET, SAVED_SETS, Kind, kind_of_path
from mltool.spec.features import RECORD_NAME

ENDINGS: dict[Kind, tuple[str, ...]] = {
    "images": (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp"),
    "audio": (".wav", ".flac", ".ogg"),
    "text": (".txt",),
}
"""Endings of the files of every kind that is a folder, in small letters."""


def kind_at(path: Path) -> Kind:
    """The kind of what lies at a path.

    Raises:
        DataError: if it is none that mltool reads, or a folder of several.
    """
    found = kind_of_path(str(path))
    if found is not None and path.is_file():
        return found
    if not path.is_dir() and path.suffix.lower() != ".zip":
        raise DataError(
            f"{path} is of no kind that mltool reads",
            "give a .npz, .csv, .tsv, .parquet or .tfrecord file, or a folder (or .zip) of images, .wav or .txt files, "
            "or of .npy or .tfrecord files",
        )
    if path.is_dir() and any(path.glob("*.npy")):
        return "npz"
    if path.is_dir() and any((path / name).is_file() for name in (SAVED_SET, SAVED_SETS)):
        return "huggingface"
    if path.is_dir() and any(RECORD_NAME.search(file.name) for file in path.iterdir()):
        return "tfrecord"
    every = tuple(ending for endings in ENDINGS.values() for ending in endings)
    tree = FolderTree(path, every) if path.is_dir() else ZipTree(path, every)
    endings = Counter(PurePosixPath(name).suffix.lower() for name in tree.names)
    kinds: dict[Kind, int] = {
        kind: sum(endings[ending] for ending in own) for kind, own in ENDINGS.items() if any(endings[e] for e in own)
    }
    texts = [name for name in tree.names if name.lower().endswith(ENDINGS["text"])]
    if len(kinds) > 1 and texts and not any("/" in name for name in texts):
        del kinds["text"]  # a README.txt beside the folders of the classes
    if not kinds:
        raise DataError(f"{path} holds no images, audio or text files", f"their endings: {', '.join(every)}")
    if len(kinds) > 1:
        shown = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
        message = f"{path} holds files of several kinds: {shown}"
        raise DataError(message, "take the others away, or say which: data.source.kind")
    return next(iter(kinds))

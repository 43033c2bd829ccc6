"""Writes that are whole or absent: to a temporary name beside the target, flushed to the disk, then renamed."""

import contextlib
import errno
import hashlib
import json
import math
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mltool.errors import DiskError


def cannot_write(target: Path, error: OSError) -> DiskError:
    """What to raise where something cannot be written, from the system's error."""
    is_full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    hint = "free space, or choose another disk" if is_full else "choose another folder, or change who may write there"
    return DiskError(
        f"{'disk full: ' if is_full else ''}cannot write {target}: {error.strerror or error}",
        hint,
    )


@contextlib.contextmanager
def writing(target: Path) -> Iterator[Path]:
    """Gives a temporary file name; on success it becomes `target`, on any failure it is gone.

    Raises:
        DiskError: if the disk is full, read-only, or the folder may not be written.
    """
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        _flush(temporary)
        temporary.replace(target)
    except OSError as error:
        raise cannot_write(target, error) from error
    finally:
        with contextlib.suppress(OSError):  # where the folder could not be made, there is nothing to remove
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def writing_folder(target: Path) -> Iterator[Path]:
    """As `writing`, for a folder; a folder that is there is replaced in one step.

    Raises:
        DiskError: if the disk is full, read-only, or the folder may not be written.
    """
    mark = uuid.uuid4().hex[:8]
    temporary, old = target.with_name(f".{target.name}.{mark}.part"), target.with_name(f".{target.name}.{mark}.old")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        for file in temporary.rglob("*"):
            if file.is_file():
                _flush(file)
        _swap(temporary, target, old)
    except OSError as error:
        raise cannot_write(target, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def _swap(new: Path, target: Path, old: Path) -> None:
    """Puts `new` where `target` is; if that fails, what was there comes back."""
    if target.exists():
        target.rename(old)
    try:
        new.rename(target)
    except OSError:
        if old.exists():
            old.rename(target)
        raise


def _flush(file: Path) -> None:
    with file.open("rb+") as opened:
        os.fsync(opened.fileno())


def write_text(target: Path, text: str) -> None:
    """Writes UTF-8 text, whole or not at all."""
    with writing(target) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_json(target: Path, document: Any) -> None:
    """Writes a JSON document, whole or not at all; NaN and infinity become null, which every reader takes."""
    write_text(target, json.dumps(finite(document), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def finite(value: Any) -> Any:
    """The value with NaN and infinities as None: JSON (RFC 8259, section 6) has neither."""
    if isinstance(value, float) and (not math.isfinite(value)):
        return None
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, or of a folder: over the relative names and the contents of its files, in order of name."""
    digest = hashlib.sha256()
    if path.is_dir():
        # By the text: Windows sorts paths without regard to capital letters.
        for file in sorted((file for file in path.rglob("*") if file.is_file()), key=lambda file: file.as_posix()):
            digest.update(file.relative_to(path).as_posix().encode() + b"\0")
            digest.update(bytes.fromhex(sha256_of(file)))
        return digest.hexdigest()
    with path.open("rb") as opened:
        while block := opened.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def hash_of(document: Any) -> str:
    """SHA-256 of a JSON document, independent of the order of keys."""
    text = json.dumps(document, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()

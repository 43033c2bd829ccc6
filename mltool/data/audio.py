"""Samples in a folder of sound files, or a .zip of one: a folder a class, or a pattern in the names."""

import io
import logging
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mltool import extras
from mltool.data.cache import FileArray, UnreadableError
from mltool.data.files import LabelledFiles, labelled_files
from mltool.data.kinds import ENDINGS
from mltool.data.source import Array, Source, checked_source
from mltool.errors import DataError

logger = logging.getLogger("mltool")


@dataclass(frozen=True)
class _Header:
    sample_rate: int
    frames: int


def load_audio(
    paths: Mapping[str, Path],
    *,
    sample_rate: int | None = None,
    seconds: float | None = None,
    label: str | None = None,
    group: str | None = None,
) -> Source:
    """The sounds of a folder, decoded when they are asked for: float32 [samples], -1 to 1, one channel.

    Several channels become their mean; another rate is resampled; what is longer than `seconds` is cut off at the end,
    what is shorter is followed by silence.

    Args:
        paths: the folder or .zip (key ""), and those of splits that have one of their own.
        sample_rate: per second; that of the files when None.
        seconds: length of a sample; that of the longest file when None.
        label: pattern whose first group is the label in a file's name; the folder when None.
        group: pattern whose first group is the group.

    Raises:
        DataError: if the files differ in rate and `sample_rate` is None, or there are none.
    """
    files = labelled_files(paths, ENDINGS["audio"], "sound files", label=label, group=group)
    headers = _headers(files)
    there = [header for header in headers if header is not None]
    if not there:
        raise DataError(f"none of the {len(headers)} files can be read (first: {files.names[0]})", "are they sounds?")
    rate = sample_rate or _common_rate(files, there)
    longest = max(header.frames / header.sample_rate for header in there)
    if seconds is None:
        logger.info(
            "every sound is made %.3g s long, as the longest (data.source.seconds says another length)", longest
        )
    length = max(1, round((seconds or longest) * rate))
    sounds = FileArray(len(files.files), _decoder(files, rate, length), (length,), np.float32, files.names)
    return checked_source(
        str(paths[""]),
        {"audio": sounds},
        files.labels,
        files.given,
        kinds={"audio": "audio"},
        groups=files.groups,
        names=files.names,
        sample_rate=rate,
        target_name="folder" if label is None else "label",
    )


def _headers(files: LabelledFiles) -> list[_Header | None]:
    def header(position: int) -> _Header | None:
        try:
            with _open(files.read(position)) as sound:
                return _Header(sound.samplerate, sound.frames)
        except (UnreadableError, OSError):
            return None  # told when it is decoded

    with ThreadPoolExecutor() as pool:
        return list(pool.map(header, range(len(files.files)), chunksize=64))


def _common_rate(files: LabelledFiles, headers: list[_Header]) -> int:
    rates = Counter(header.sample_rate for header in headers)
    if len(rates) > 1:
        shown = ", ".join(f"{count} of {rate} Hz" for rate, count in rates.most_common(3))
        message = f"{files.trees[0].origin}: the files have {len(rates)} sample rates: {shown}"
        raise DataError(message, f"set data.source.sample_rate, such as {min(rates)}")
    return next(iter(rates))


def _open(data: bytes) -> Any:
    """A sound whose samples are not decoded yet.

    Raises:
        UnreadableError: if it is none, or has no samples.
    """
    if not data:
        raise UnreadableError("it is empty (0 bytes)")
    soundfile = extras.require("soundfile")
    try:
        sound = soundfile.SoundFile(io.BytesIO(data))
    except (soundfile.SoundFileError, TypeError) as error:
        raise UnreadableError(f"it is no sound that can be read: {error}") from error
    if sound.frames == 0:
        raise UnreadableError("it has no samples (0 frames)")
    return sound


def _decoder(files: LabelledFiles, rate: int, length: int) -> Callable[[int], Array]:
    def decode(position: int) -> Array:
        soundfile = extras.require("soundfile")
        with _open(files.read(position)) as sound:
            try:
                # No more than is kept: a file of an hour costs what its first second costs.
                wanted = -(-length * sound.samplerate // rate) + sound.samplerate // 10
                samples = sound.read(frames=min(wanted, sound.frames), dtype="float32", always_2d=True)
            except soundfile.SoundFileError as error:
                raise UnreadableError(f"it is damaged: {error}") from error
            declared = min(wanted, sound.frames)
            if len(samples) < declared:
                raise UnreadableError(f"it is cut off: {len(samples)} of {declared} samples")
            found_rate = sound.samplerate
        mono = samples.mean(axis=1)
        if not np.isfinite(mono).all():
            raise UnreadableError("it holds NaN or infinity")
        if found_rate != rate:
            mono = extras.require("soxr").resample(mono, found_rate, rate)
        kept = np.zeros(length, np.float32)
        kept[: len(mono)] = mono[:length]
        return kept

    return decode

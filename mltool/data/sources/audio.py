"""Samples in a folder of sound files, or a .zip of one: a folder a class, or a pattern in the names."""

import io
import logging
import math
import re
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mltool import extras
from mltool.data.cache import FileArray, UnreadableError, one_by_one
from mltool.data.source import Array, Source, checked_source
from mltool.data.sources.files import LabelledFiles, files_without_labels, labelled_files
from mltool.data.sources.kinds import ENDINGS
from mltool.errors import DataError

logger = logging.getLogger("mltool")

MAX_PEAK = 8.0
"""Floating-point sound may go a little over full scale (1), and is clipped; what goes farther is in other units."""

UNKNOWN_BYTES = 0x7FFFF000
"""A recorder that streams cannot know the size when it writes the header, and writes one like this, or more."""

UNKNOWN_END = 0x7F000000
"""The same of the forms that `_end_of` knows: the sizes that they are given instead begin here."""

RATES = (1000, 384_000)
"""Sample rates that sound can have; a damaged header would make a second an hour."""

FAR_LONGER = 10
"""Times the median length from which on the longest sound is a mistake rather than the length of a sample."""

_TAIL_SECONDS = 0.1
"""Read behind the end of a sample before it is resampled, far longer than the filter: its end is as in the whole."""

_DATA_SIZE = re.compile(r"^data : (\d+) \(should be (\d+)\)", re.MULTILINE)
"""What libsndfile notes where the file of a WAV is not as long as its header says."""


@dataclass(frozen=True)
class SoundHeader:
    """What a file says of itself before it is decoded.

    Attributes:
        sample_rate: per second.
        frames: samples of a channel.
        channels: of the sound.
    """

    sample_rate: int
    frames: int
    channels: int

    @property
    def seconds(self) -> float:
        """How long it is."""
        return self.frames / self.sample_rate


def load_audio(
    paths: Mapping[str, Path],
    *,
    sample_rate: int | None = None,
    seconds: float | None = None,
    label: str | None = None,
    group: str | None = None,
) -> Source:
    """The sounds of a folder, decoded when they are asked for: float32 [samples], -1 to 1, one channel.

    WAV (8, 16, 24, 32 bits, floating point, mu-law ...), FLAC and OGG. Several channels become their mean; another
    rate is resampled (soxr, high quality); what is longer than `seconds` is cut off at the end, what is shorter is
    followed by silence. All of this is said.

    Args:
        paths: the folder or .zip (key ""), and those of splits that have one of their own.
        sample_rate: per second; that of the files when None.
        seconds: length of a sample; that of the longest file, up to a hundredth, when None.
        label: pattern whose first group is the label in a file's name; the folder when None.
        group: pattern whose first group is the group.

    Raises:
        DataError: if the files differ in rate and `sample_rate` is None, or there are none.
    """
    files = labelled_files(paths, ENDINGS["audio"], "sound files", label=label, group=group)
    headers = _headers(files)
    rate = sample_rate or _common_rate(files, headers)
    longest = max(headers, key=lambda position: headers[position].seconds)
    asked, seconds = seconds, seconds or _in_hundredths(headers[longest].seconds)
    _tell(headers, rate, seconds, "" if asked else files.names[longest])
    length = max(1, round(seconds * rate))
    sounds = FileArray(len(files.files), one_by_one(_Decoder(files, rate, length)), (length,), np.float32, files.names)
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


def read_sounds(path: Path, length: int, sample_rate: int) -> tuple[Array, list[str]]:
    """Sounds without labels, as a model takes them.

    Args:
        path: a sound file, or a folder or .zip of them.
        length: of a sample, in steps of `sample_rate`.
        sample_rate: per second.

    Returns:
        float32 [sounds, length], and the names of the files.

    Raises:
        DataError: naming the first that cannot be read.
    """
    files = files_without_labels(path, ENDINGS["audio"], "sound files")
    decode = _Decoder(files, sample_rate, length)
    sounds = FileArray(len(files.files), one_by_one(decode), (length,), np.float32, files.names)[:]
    _tell(_headers(files), sample_rate, length / sample_rate, "")
    return sounds, list(files.names)


def sound_headers(path: Path) -> list[SoundHeader]:
    """What the files of a folder or .zip say of themselves, as far as they can be read.

    Raises:
        DataError: if there are none.
    """
    return list(_headers(files_without_labels(path, ENDINGS["audio"], "sound files")).values())


def _headers(files: LabelledFiles) -> dict[int, SoundHeader]:
    """The headers of all files that can be read, by position.

    Raises:
        DataError: if there are none.
    """

    def header(position: int) -> SoundHeader | None:
        try:
            with _open(files.read(position)) as sound:
                return SoundHeader(sound.samplerate, sound.frames, sound.channels)
        except (UnreadableError, OSError):
            return None  # told when it is decoded

    with ThreadPoolExecutor() as pool:
        read = pool.map(header, range(len(files.files)))
        found = {position: header for position, header in enumerate(read) if header is not None}
    if not found:
        raise DataError(
            f"none of the {len(files.files)} files can be read (first: {files.names[0]})", "are they sounds?"
        )
    return found


def _common_rate(files: LabelledFiles, headers: Mapping[int, SoundHeader]) -> int:
    rates = Counter(header.sample_rate for header in headers.values())
    if len(rates) > 1:
        shown = ", ".join(f"{count} of {rate} Hz" for rate, count in rates.most_common(3))
        rarest = next(p for p, header in headers.items() if header.sample_rate == rates.most_common()[-1][0])
        message = f"{files.trees[0].origin}: the files have {len(rates)} sample rates: {shown}"
        message += f" ({headers[rarest].sample_rate} Hz: {files.names[rarest]})"
        raise DataError(message, f"set data.source.sample_rate, such as {min(rates)}")
    return next(iter(rates))


def _in_hundredths(seconds: float) -> float:
    """Rounded up: spectrograms of an even length need smaller tables of where their frames begin."""
    return math.ceil(seconds * 100 - 1e-6) / 100


def _tell(headers: Mapping[int, SoundHeader], rate: int, seconds: float, longest: str) -> None:
    """Remarks on what is done to the files: none of it is seen in the samples."""
    found, total = list(headers.values()), len(headers)
    if longest:
        median = float(np.median([header.seconds for header in found]))
        logger.log(
            logging.WARNING if seconds > FAR_LONGER * median else logging.INFO,
            "every sound is made %.3g s long, as the longest, %s (their median is %.3g s; data.source.seconds says "
            "another length)",
            seconds,
            longest,
            median,
        )
    several = sum(header.channels > 1 for header in found)
    if several:
        logger.info("%d of %d sounds have several channels: their mean is taken", several, total)
    resampled = Counter(header.sample_rate for header in found if header.sample_rate != rate)
    if resampled:
        rates = ", ".join(f"{count} of {other} Hz" for other, count in resampled.most_common(3))
        logger.info("%d of %d sounds are resampled to %d Hz: %s", resampled.total(), total, rate, rates)
    cut = sum(round(header.seconds * rate) > round(seconds * rate) for header in found)
    if cut:
        logger.info("%d of %d sounds are longer than %.3g s: the rest is cut off", cut, total, seconds)


def _open(data: bytes) -> Any:
    """A sound whose samples are not decoded yet.

    Raises:
        UnreadableError: if it is none, is cut off, or has no samples.
    """
    if not data:
        raise UnreadableError("it is empty (0 bytes)")
    soundfile = extras.require("soundfile")
    try:
        sound = soundfile.SoundFile(io.BytesIO(data))
    except soundfile.LibsndfileError as error:
        raise UnreadableError(f"it is no sound that can be read: {error.error_string}") from error
    # libsndfile takes what is there for the whole, and only notes that the header says more.
    size = _DATA_SIZE.search(sound.extra_info)
    if size and int(size[2]) < int(size[1]) < UNKNOWN_BYTES:
        raise UnreadableError(f"it is cut off: {int(size[2]):,} of {int(size[1]):,} bytes of sound are there")
    if len(data) + 1 < (end := _end_of(data)) < UNKNOWN_END:  # AIFF may leave out the byte that fills a pair
        raise UnreadableError(f"it is cut off: {len(data):,} of {end:,} bytes are there")
    if "lacks an end-of-stream" in sound.extra_info:
        raise UnreadableError("it is cut off: its last page is missing")
    if not RATES[0] <= sound.samplerate <= RATES[1]:
        raise UnreadableError(f"its header says {sound.samplerate:,} samples a second, which no sound has")
    if sound.frames == 0:
        raise UnreadableError("it has no samples (0 frames)")
    return sound


def _end_of(data: bytes) -> int:
    """The length that the header of RF64 (EBU Tech 3306), W64 (Sonic Foundry) or AIFF gives; 0 of another file."""
    match data[:4]:
        case b"RF64" if data[12:16] == b"ds64":
            return int.from_bytes(data[20:28], "little") + 8
        case b"riff":
            return int.from_bytes(data[16:24], "little")
        case b"FORM":
            return int.from_bytes(data[4:8], "big") + 8
    return 0


class _Decoder:
    """From the position of a file to its sample.

    Args:
        files: to read.
        sample_rate: of the sample, per second.
        length: of the sample, in steps of that rate.
    """

    def __init__(self, files: LabelledFiles, sample_rate: int, length: int) -> None:
        self._files, self._rate, self._length = files, sample_rate, length
        self._told_clipping = False

    def __call__(self, position: int) -> Array:
        """float32 [length].

        Raises:
            UnreadableError: if the file is damaged, or holds no sound.
        """
        with _open(self._files.read(position)) as sound:
            mono, rate = self._read(sound), sound.samplerate
        if not np.isfinite(mono).all():
            raise UnreadableError("it holds NaN or infinity")
        peak = float(np.abs(mono).max())
        if peak > MAX_PEAK:
            raise UnreadableError(f"its values reach {peak:,.6g}: floating-point sound lies between -1 and 1")
        if peak > 1 and not self._told_clipping:
            self._told_clipping = True
            logger.warning("%s is louder than full scale and is clipped; so are others like it", self._name(position))
        if rate != self._rate:
            mono = extras.require("soxr").resample(mono, rate, self._rate)
        kept = np.zeros(self._length, np.float32)
        kept[: len(mono)] = mono[: self._length]
        return kept.clip(-1, 1, out=kept)  # resampling may ring over full scale, too

    def _read(self, sound: Any) -> Array:
        """What is kept of a sound, in its own rate: a file of an hour costs what its first second costs."""
        soundfile = extras.require("soundfile")
        most = -(-self._length * sound.samplerate // self._rate) + round(_TAIL_SECONDS * sound.samplerate)
        wanted = min(most, sound.frames)
        try:
            samples: Array = sound.read(frames=wanted, dtype="float32", always_2d=True)
        except soundfile.LibsndfileError as error:
            raise UnreadableError(f"it is damaged: {error.error_string}") from error
        if len(samples) < wanted:
            raise UnreadableError(f"it is cut off: {len(samples):,} of {wanted:,} samples are there")
        mean: Array = samples.mean(axis=1)
        return mean

    def _name(self, position: int) -> str:
        return self._files.names[position]

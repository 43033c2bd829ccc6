"""Plain PNGs, decoded many at once by TensorFlow where the command has imported it anyway; all else is left to Pillow.

Pillow takes twice the processor's time for a small image, and holds the interpreter's lock for most of it. Plain are 8
bits a channel, gray or RGB, without what turns or masks pixels: there is one way only to decode these, and a test holds
both decoders to the same bits. TensorFlow (libpng) refuses all damage that Pillow refuses, and more: wrong checksums of
pixels, a missing end. What it refuses goes to Pillow, whose word counts.
"""

import functools
import struct
import sys
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from mltool import extras
from mltool.data.source import Array

MOST_BYTES = 1 << 18
"""Of an image, of its pixels: for larger ones Pillow's threads are fast enough, and many at once would fill memory."""

_FEW, _MANY = 32, 128
"""Images of one call, a node of the graph for each: many take 13 % less time, and 0.05 s more to trace (measured)."""

_BEGIN = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
_HEADER = struct.Struct(">II5B")
_CHUNK = struct.Struct(">I4s")
_FIRST_CHUNK = len(_BEGIN) + _HEADER.size + 4

_CHANNELS = {(8, 0, 0, 0, 0): 1, (8, 2, 0, 0, 0): 3}
"""Bit depth, color type, compression, filter and interlace method (PNG 3rd edition, 11.2.1) of what is plain."""

_HARMLESS = {b"gAMA": 4, b"cHRM": 32, b"sRGB": 1, b"pHYs": 9, b"tIME": 7}
"""Chunks that change no pixel, and their bytes (as above, 11.3); text is taken where it is of a known program."""


def plain_shape(data: bytes) -> tuple[int, int, int] | None:
    """Height, width and channels of a plain PNG, None for all else; whether pixels are whole, only decoding tells."""
    if not data.startswith(_BEGIN) or not _is_whole(data, 8, _FIRST_CHUNK):
        return None
    width, height, *kind = _HEADER.unpack_from(data, len(_BEGIN))
    channels = _CHANNELS.get(tuple(kind))
    if channels is None or not width or not height or not _is_harmless(data):
        return None
    return height, width, channels


def _is_harmless(data: bytes) -> bool:
    """Whether its chunks are pixels, and those that change no pixel; to its end, with nothing behind it."""
    place, end = _FIRST_CHUNK, len(data) - 12
    while place < end:
        size, name = _CHUNK.unpack_from(data, place)
        after = place + 12 + size
        if name != b"IDAT":
            text = name == b"tEXt" and data.startswith((b"date:", b"Software\0"), place + 8)
            # Of these chunks, libpng takes a wrong checksum in silence.
            if not (text or _HARMLESS.get(name) == size) or not _is_whole(data, place, after):
                return False
        place = after
    return place == end and data.endswith(b"\0\0\0\0IEND\xaeB`\x82")


def _is_whole(data: bytes, place: int, after: int) -> bool:
    """Whether a chunk, size and name and checksum included, is there, and as it was written."""
    return zlib.crc32(data[place + 4 : after - 4]).to_bytes(4, "big") == data[after - 4 : after]


def is_worthwhile(shape: Sequence[int]) -> bool:
    """Whether images of this shape are decoded here: small ones, where TensorFlow is imported already."""
    return sys.modules.get("tensorflow") is not None and int(np.prod(shape)) <= MOST_BYTES


def is_plain(data: bytes, shape: Sequence[int]) -> bool:
    """Whether it is a plain PNG of this shape; also one that hides megabytes is not."""
    return len(data) <= 2 * MOST_BYTES and plain_shape(data) == tuple(shape)


def decode_plain(contents: Sequence[bytes], shape: Sequence[int]) -> Array | None:
    """Pixels of plain PNGs of one shape, uint8 [images, height, width, channels].

    Args:
        contents: the files.
        shape: height, width and channels, as `plain_shape` tells.

    Returns:
        None where one of them, or more, is damaged, or where they are too few for it.
    """
    if len(contents) <= _FEW // 2:
        return None
    tf = extras.tensorflow()
    size = _MANY if len(contents) > _MANY // 2 else _FEW
    decode = _decoder(shape[2], size)
    parts = []
    for start in range(0, len(contents), size):
        part = list(contents[start : start + size])
        filled = part + part[:1] * (size - len(part))
        try:
            parts.append(decode(tf.constant(filled)).numpy()[: len(part)])
        except tf.errors.InvalidArgumentError:
            return None
    return np.concatenate(parts) if len(parts) > 1 else parts[0]


@functools.cache
def _decoder(channels: int, size: int) -> Any:
    """A graph that decodes a batch; its nodes do without the interpreter, and run side by side."""
    tf = extras.tensorflow()

    def decode(contents: Any) -> Any:
        with tf.device("CPU:0"):
            return tf.stack([tf.io.decode_png(content, channels) for content in tf.unstack(contents)])

    signature = [tf.TensorSpec([size], tf.string)]
    return tf.function(decode, input_signature=signature, autograph=False).get_concrete_function()

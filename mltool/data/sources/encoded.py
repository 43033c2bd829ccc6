"""Encoded images that lie in records or cells instead of files of their own."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from mltool.data.cache import FileArray
from mltool.data.sources.files import LabelledFiles


@dataclass(frozen=True)
class Reading:
    """How images are brought to one shape; see `mltool.data.sources.images.load_images`."""

    size: tuple[int, int] | None = None
    resize: Literal["stretch", "crop", "pad"] = "stretch"
    color: Literal["rgb", "gray"] | None = None


class _Cells:
    """Encoded images as the files of a folder; see `FileTree`."""

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self.origin = ""
        self.names: Sequence[str] = ()
        self._read = read
        self.others = Counter[str]()

    def read(self, name: str) -> bytes:
        """The bytes of one; the name is its position."""
        return self._read(int(name))


def as_files(read: Callable[[int], bytes], names: Sequence[str]) -> LabelledFiles:
    """Encoded images as files without labels.

    Args:
        read: from a position to the bytes of an image.
        names: of all of them, for messages.
    """
    numbers = [(0, str(position)) for position in range(len(names))]
    return LabelledFiles([_Cells(read)], numbers, names, np.empty(0, np.str_), None, {})


def encoded_images(read: Callable[[int], bytes], names: Sequence[str], reading: Reading) -> FileArray:
    """Images that are decoded when they are asked for: uint8 [height, width, channels].

    Args:
        read: from a position to the bytes of an image.
        names: of all of them, for messages.
        reading: how they are brought to one shape.

    Raises:
        DataError: if none of the first can be read.
    """
    from mltool.data.sources.images import image_array

    return image_array(as_files(read, names), reading.size, reading.resize, reading.color)

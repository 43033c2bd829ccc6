"""Samples in a folder of images, or a .zip of one: a folder a class."""

import io
import logging
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import numpy as np

from mltool import extras
from mltool.data.cache import FileArray, UnreadableError
from mltool.data.files import LabelledFiles, labelled_files
from mltool.data.kinds import ENDINGS
from mltool.data.source import Array, Source, checked_source
from mltool.errors import DataError

logger = logging.getLogger("mltool")

MAX_PIXELS = 100_000_000
"""An image of more is taken for a bomb: a file of 40 kB can unpack to gigabytes."""

Color = Literal["rgb", "gray"]
Resize = Literal["stretch", "crop", "pad"]

_GRAY_MODES = ("1", "L", "LA", "I", "I;16", "I;16B", "I;16L", "F")
"""Pillow's modes of one channel, without transparency or with it."""


def load_images(
    paths: Mapping[str, Path],
    *,
    size: tuple[int, int] | None = None,
    resize: Resize = "stretch",
    color: Color | None = None,
    label: str | None = None,
    group: str | None = None,
) -> Source:
    """The images of a folder, decoded when they are asked for: uint8 [height, width, channels], 0 to 255.

    A photograph is turned as its EXIF orientation says, as every viewer shows it; transparency is laid on black; of an
    animation the first frame counts; 16 bits a channel become 8.

    Args:
        paths: the folder or .zip (key ""), and those of splits that have one of their own.
        size: height and width that every image is brought to; that of the files when None.
        resize: how (bilinear): stretched; cut to the middle; or padded with black.
        color: channels; rgb when None, or gray where every file is gray.
        label: pattern whose first group is the label in a file's name; the folder when None.
        group: pattern whose first group is the group.

    Raises:
        DataError: if the files differ in size and `size` is None, or there are none.
    """
    files = labelled_files(paths, ENDINGS["images"], "images", label=label, group=group)
    headers = _headers(files)
    read = [header for header in headers if header is not None]
    size = size or _common_size(files, headers)
    channels = 1 if color == "gray" or (color is None and read and all(gray for _, gray in read)) else 3
    decode = _decoder(files, size, resize, "L" if channels == 1 else "RGB")
    images = FileArray(len(files.files), decode, (*size, channels), np.uint8, files.names)
    return checked_source(
        str(paths[""]),
        {"image": images},
        files.labels,
        files.given,
        kinds={"image": "image"},
        groups=files.groups,
        names=files.names,
        target_name="folder" if label is None else "label",
    )


def _headers(files: LabelledFiles) -> list[tuple[tuple[int, int], bool] | None]:
    """Height and width of every image, and whether it is gray; None for one that cannot be read."""

    def header(position: int) -> tuple[tuple[int, int], bool] | None:
        try:
            with _open(files.read(position)) as image:
                turned = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)  # lies on its side
                width, height = image.size[::-1] if turned else image.size
                return (height, width), image.mode in _GRAY_MODES
        except (UnreadableError, OSError):
            return None  # told when it is decoded

    with ThreadPoolExecutor() as pool:
        return list(pool.map(header, range(len(files.files)), chunksize=64))


def _common_size(files: LabelledFiles, headers: list[tuple[tuple[int, int], bool] | None]) -> tuple[int, int]:
    sizes = Counter(header[0] for header in headers if header is not None)
    if not sizes:
        raise DataError(f"none of the {len(headers)} images can be read (first: {files.names[0]})", "are they images?")
    if len(sizes) > 1:
        shown = ", ".join(f"{count} of {h}x{w}" for (h, w), count in sizes.most_common(3))
        raise DataError(
            f"{files.trees[0].origin}: the images have {len(sizes)} sizes: {shown}",
            "set data.source.image_size: [H, W]",
        )
    return next(iter(sizes))


def _open(data: bytes) -> Any:
    """An image whose pixels are not decoded yet.

    Raises:
        UnreadableError: if it is none, or a bomb.
    """
    if not data:
        raise UnreadableError("it is empty (0 bytes)")
    pillow = extras.require("PIL.Image")
    try:
        image = pillow.open(io.BytesIO(data))
    except pillow.DecompressionBombError as error:
        raise UnreadableError(f"it is too large: {error}") from error
    except (pillow.UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        raise UnreadableError("it is no image that can be read") from error
    if image.width * image.height > MAX_PIXELS:
        raise UnreadableError(f"it is too large: {image.width}x{image.height} pixels")
    return image


def _decoder(files: LabelledFiles, size: tuple[int, int], resize: Resize, mode: str) -> Callable[[int], Array]:
    channels = len(mode)

    def decode(position: int) -> Array:
        with _open(files.read(position)) as image:
            try:
                ready = _converted(image, mode)
            # Pillow's decoders raise what their formats invent: OSError for a truncated file, ValueError, SyntaxError.
            except (OSError, ValueError, SyntaxError, EOFError, IndexError) as error:
                raise UnreadableError(f"it is damaged: {error}") from error
            if ready.size != size[::-1]:
                ready = _resized(ready, size[::-1], resize)
            return np.asarray(ready, np.uint8).reshape(*size, channels)

    return decode


def _converted(image: Any, mode: str) -> Any:
    """Upright, in 8 bits a channel, without transparency."""
    if image.format in ("JPEG", "WEBP", "PNG", "MPO") and image.getexif().get(0x0112, 1) != 1:
        image = extras.require("PIL.ImageOps").exif_transpose(image)
    if image.mode.startswith("I") or image.mode == "F":
        # 16 bits: Pillow's own conversion cuts them off at 255.
        values = np.asarray(image)
        image = extras.require("PIL.Image").fromarray((values.clip(0, 65535) // 256).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        black = extras.require("PIL.Image").new("RGBA", image.size, (0, 0, 0, 255))
        image = extras.require("PIL.Image").alpha_composite(black, image)
    return image if image.mode == mode else image.convert(mode)


def _resized(image: Any, size: tuple[int, int], resize: Resize) -> Any:
    """An image of another size, bilinear; `size` is width and height."""
    ops, bilinear = extras.require("PIL.ImageOps"), extras.require("PIL.Image").Resampling.BILINEAR
    match resize:
        case "stretch":
            return image.resize(size, bilinear)
        case "crop":
            return ops.fit(image, size, bilinear)
        case "pad":
            return ops.pad(image, size, bilinear)

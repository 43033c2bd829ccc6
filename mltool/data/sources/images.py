"""Samples in a folder of images, or a .zip of one: a folder a class."""

import io
import logging
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np

from mltool import extras
from mltool.data.cache import FileArray, UnreadableError, unreadable
from mltool.data.source import Array, Source, checked_source
from mltool.data.sources.files import LabelledFiles, files_without_labels, labelled_files
from mltool.data.sources.kinds import ENDINGS
from mltool.data.sources.png import decode_plain, is_plain, is_worthwhile, plain_shape
from mltool.errors import DataError

logger = logging.getLogger("mltool")

MAX_PIXELS = 100_000_000
"""An image of more is taken for a bomb: a file of 40 kB can unpack to gigabytes."""

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP")
"""What is decoded, whatever a file is called: Pillow would also start Ghostscript for a file of PostScript."""

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
    masks: Path | None = None,
    classes: Sequence[str] | None = None,
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
        masks: folder or .zip with a mask for every image, which then are the targets; see `masks.py`.
        classes: names of the classes of masks; their numbers when None.

    Raises:
        DataError: if there are none, or none can be read, or a mask does not fit its image. That files differ in size
            while `size` is None is found when they are decoded.
    """
    files = labelled_files(paths, ENDINGS["images"], "images", label=label, group=group, has_labels=masks is None)
    images = image_array(files, size, resize, color)
    targets = files.labels
    if masks is not None:
        from mltool.data.sources.masks import load_masks

        targets = load_masks(files, masks, size=size, resize=resize, num_classes=len(classes or ()))
    return checked_source(
        str(paths[""]),
        {"image": images},
        targets,
        files.given,
        kinds={"image": "image"},
        groups=files.groups,
        names=files.names,
        target_name="mask" if masks else "folder" if label is None else "label",
        resize=resize if size else None,
    )


def image_array(files: LabelledFiles, size: tuple[int, int] | None, resize: Resize, color: Color | None) -> FileArray:
    """Images that are decoded when they are asked for; see `load_images`.

    Raises:
        DataError: if none of the first can be read.
    """
    look = _first_look(files)
    mode = "L" if color == "gray" or (color is None and look.num_gray == look.num_files) else "RGB"
    if color is None and 0 < look.num_gray < look.num_files:
        logger.info(
            "%d of the first %d images are gray, others in color: all are taken as rgb (data.source.color)",
            look.num_gray,
            look.num_files,
        )
    decode = _decoder(files, size, resize, mode, look, may_be_colored=color is not None or mode == "RGB")
    return _array(files, decode, (*(size or look.size), len(mode)))


def read_images(path: Path, shape: tuple[int, ...], resize: Resize | None) -> tuple[Array, list[str]]:
    """Images without labels, as a model takes them.

    Args:
        path: an image, or a folder or .zip of them.
        shape: height, width and channels.
        resize: how training brought its images to that size; None where they had it.

    Returns:
        uint8 [images, height, width, channels], and the names of the files.

    Raises:
        DataError: naming the first that cannot be read, or is of another size.
    """
    files = files_without_labels(path, ENDINGS["images"], "images")
    mode = "L" if shape[2] == 1 else "RGB"
    size = (shape[0], shape[1])
    like = _Look("every image of training", size, 0, 0)
    hint = f"bring it to {size[0]}x{size[1]} (height x width) first, as those of training were"
    decode = _decoder(files, size if resize else None, resize or "stretch", mode, like, may_be_colored=True, hint=hint)
    return _array(files, decode, shape)[:], list(files.names)


def _array(files: LabelledFiles, decode: Callable[[int, bytes], Array], shape: tuple[int, ...]) -> FileArray:
    """Images of a shape: plain PNGs that have it are decoded many at once, all others one by one."""

    def decode_many(positions: Sequence[int], out: Array) -> dict[int, str]:
        at_once = len(positions) > 1 and is_worthwhile(shape)
        plain: dict[int, bytes] = {}

        def read(row: int) -> None:
            data = files.read(positions[row])
            if at_once and is_plain(data, shape):
                plain[row] = data
            else:
                out[row] = decode(positions[row], data)

        def read_plain(row: int) -> None:
            out[row] = decode(positions[row], plain[row])

        bad = unreadable(read, positions, range(len(positions)))
        pixels = decode_plain(list(plain.values()), shape) if plain else None
        if pixels is None:
            return bad | unreadable(read_plain, positions, plain)
        out[list(plain)] = pixels
        return bad

    return FileArray(len(files.files), decode_many, shape, np.uint8, files.names)


def image_sizes(path: Path) -> list[tuple[int, int]]:
    """Height and width of every image of a folder or .zip that can be read, without decoding it."""
    return sizes_of(files_without_labels(path, ENDINGS["images"], "images"))


def sizes_of(files: LabelledFiles) -> list[tuple[int, int]]:
    """See `image_sizes`."""
    return [size for _, size, _ in _headers(files)]


def _headers(files: LabelledFiles) -> Iterator[tuple[str, tuple[int, int], bool]]:
    """Name, height and width, and whether it is gray, of every file that can be opened; pixels stay undecoded."""
    for name, position in zip(files.names, range(len(files.files)), strict=True):
        try:
            data = files.read(position)
            plain = plain_shape(data)
            if plain is not None and plain[0] * plain[1] <= MAX_PIXELS:
                yield name, plain[:2], plain[2] == 1
                continue
            image = open_image(data)
        except (UnreadableError, OSError):
            continue  # told when it is decoded
        with image:
            yield name, upright_size(image), image.mode in _GRAY_MODES


@dataclass(frozen=True)
class _Look:
    """What the first headers tell: name, height and width of the first image, and how many are gray."""

    name: str
    size: tuple[int, int]
    num_files: int
    num_gray: int


LOOKED_AT = 256
"""Files whose headers are read first, to tell size and color: all of them would cost half of the decoding."""

_RAISED = (OSError, ValueError, SyntaxError, EOFError, IndexError, KeyError, TypeError, OverflowError, RuntimeError,
           AssertionError, struct.error)  # fmt: skip
"""What Pillow raises for damaged bytes, as its formats invent it: found by changing bytes of whole files."""


def _first_look(files: LabelledFiles) -> _Look:
    """What the first images that can be read are.

    Raises:
        DataError: if none can be read.
    """
    found = list(islice(_headers(files), LOOKED_AT))
    if not found:
        raise DataError(
            f"none of the {len(files.files)} images can be read (first: {files.names[0]})", "are they images?"
        )
    name, size, _ = found[0]
    return _Look(name, size, len(found), sum(is_gray for _, _, is_gray in found))


def upright_size(image: Any) -> tuple[int, int]:
    """Height and width as a viewer shows it."""
    return tuple(image.size) if _orientation(image) in (5, 6, 7, 8) else tuple(image.size[::-1])


def _orientation(image: Any) -> Any:
    """How a viewer turns it (Exif 2.32, tag 0x0112): 1 to 8; 1, as it is, where that is not said or is damaged."""
    if image.format not in ("JPEG", "WEBP", "PNG", "MPO"):
        return 1
    try:
        return image.getexif().get(0x0112, 1)
    except _RAISED:
        return 1  # the pixels can be whole; whether they are shows when they are decoded


def open_image(data: bytes) -> Any:
    """An image whose pixels are not decoded yet.

    Raises:
        UnreadableError: if it is none, or a bomb.
    """
    if not data:
        raise UnreadableError("it is empty (0 bytes)")
    pillow = extras.require("PIL.Image")
    try:
        image = pillow.open(io.BytesIO(data), formats=FORMATS)
    except pillow.DecompressionBombError as error:
        raise UnreadableError(f"it is too large: {error}") from error
    except _RAISED as error:
        raise UnreadableError("it is no image that can be read (PNG, JPEG, BMP, GIF, WebP)") from error
    if image.width * image.height > MAX_PIXELS:
        raise UnreadableError(f"it is too large: {image.width}x{image.height} pixels")
    return image


def _decoder(
    files: LabelledFiles,
    size: tuple[int, int] | None,
    resize: Resize,
    mode: str,
    first: _Look,
    *,
    may_be_colored: bool,
    hint: str = "set data.source.image_size: [H, W]",
) -> Callable[[int, bytes], Array]:
    height, width = size or first.size

    def decode(position: int, data: bytes) -> Array:
        with open_image(data) as image:
            colored = image.mode not in _GRAY_MODES
            ready = _converted(upright(image), mode)
        if colored and not may_be_colored:
            message = f"{files.names[position]} is in color, the first {LOOKED_AT} images are gray"
            raise DataError(message, "set data.source.color: rgb, or gray")
        if ready.size != (width, height):
            if size is None:
                found = f"{ready.size[1]}x{ready.size[0]}, {first.name} is {height}x{width}"
                raise DataError(f"{files.names[position]} is {found}", hint)
            ready = _resized(ready, (width, height), resize)
        return np.asarray(ready, np.uint8).reshape(height, width, len(mode))

    return decode


_TURNS = {2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE", 6: "ROTATE_270",
          7: "TRANSVERSE", 8: "ROTATE_90"}  # fmt: skip
"""EXIF orientation to Pillow's name of what sets it upright, as in `PIL.ImageOps.exif_transpose`, which also writes the
EXIF data anew, and fails where they are damaged."""


def upright(image: Any) -> Any:
    """An open image with its pixels, turned as a viewer shows it.

    Raises:
        UnreadableError: if it is damaged.
    """
    try:
        image.load()  # here, not when its pixels are asked for: the file is closed by then
    except _RAISED as error:
        raise UnreadableError(f"it is damaged: {error}") from error
    turn = _TURNS.get(_orientation(image))
    return image if turn is None else image.transpose(extras.require("PIL.Image").Transpose[turn])


def _converted(image: Any, mode: str) -> Any:
    """In 8 bits a channel, without transparency."""
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
    return _brought_to(image, size, resize, extras.require("PIL.Image").Resampling.BILINEAR)


def resized_to_nearest(mask: Array, size: tuple[int, int], resize: Resize) -> Array:
    """A mask as its image is resized, but no number between those of two classes comes into being.

    Args:
        mask: uint8 [height, width].
        size: height and width that it is brought to.
        resize: how; `pad` pads with 0.
    """
    pillow = extras.require("PIL.Image")
    image = pillow.fromarray(mask)
    return np.asarray(_brought_to(image, size[::-1], resize, pillow.Resampling.NEAREST))


def _brought_to(image: Any, size: tuple[int, int], resize: Resize, resampling: Any) -> Any:
    ops = extras.require("PIL.ImageOps")
    match resize:
        case "stretch":
            return image.resize(size, resampling)
        case "crop":
            return ops.fit(image, size, resampling)
        case "pad":
            return ops.pad(image, size, resampling)

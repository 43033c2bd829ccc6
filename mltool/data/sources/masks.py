"""Masks: the class of every pixel of an image, in files beside the images or in an array."""

import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

import numpy as np

from mltool.data.cache import FileArray, UnreadableError, listed, one_by_one
from mltool.data.scratch import AT_ONCE
from mltool.data.source import Array, Skipped, Source, batches_of, can_be_label, first_of
from mltool.data.sources.files import LabelledFiles, files_without_labels, printable
from mltool.data.sources.images import Resize, open_image, resized_to_nearest, upright, upright_size
from mltool.data.sources.kinds import ENDINGS
from mltool.errors import DataError, Message, SpecError

logger = logging.getLogger("mltool")

MOST_CLASSES = 256
"""What a byte a pixel tells apart."""

_MOST_NAMED = 5
"""Files that a message names."""

_INDEX_MODES = ("1", "L", "P", "I", "I;16", "I;16B", "I;16L")
"""Pillow's modes whose pixels are one whole number; of a palette they are its numbers, not its colors."""


def are_masks(targets: Array) -> bool:
    """Whether targets are a class for every pixel: whole numbers of [samples, height, width], of more than a pixel."""
    rows = targets[..., 0] if targets.ndim == 4 and targets.shape[3] == 1 else targets
    return rows.ndim == 3 and rows.dtype.kind in "uib" and rows.shape[1] * rows.shape[2] > 1


def with_masks(source: Source, classes: Sequence[str] | None) -> Source:
    """The source with its masks as uint8 [samples, height, width], and the names of their classes.

    Args:
        source: whose targets are masks, see `are_masks`.
        classes: names of the numbers 0, 1, 2 ...; those of the source, or the numbers themselves, when None.

    Raises:
        DataError: naming the first sample with a number that is no class, or whose image has another size.
    """
    targets = source.targets[..., 0] if source.targets.ndim == 4 else source.targets
    for name, array in source.inputs.items():
        if source.kinds.get(name) == "image" and array.shape[1:3] != targets.shape[1:]:
            found, wanted = (_size(shape[0], shape[1]) for shape in (targets.shape[1:], array.shape[1:]))
            raise DataError(
                f"{source.origin}: the masks are {found}, the images of {name!r} {wanted}", "give both one size"
            )
    names = tuple(classes or source.classes)
    most = _greatest(source, targets, len(names))
    if not names:
        names = tuple(map(str, range(most + 1)))
    _require_names(source.origin, names)
    return replace(source, targets=targets.astype(np.uint8, copy=False), classes=names)


def _greatest(source: Source, targets: Array, num_classes: int) -> int:
    """The greatest number of a pixel; 0 classes stand for as many as there are.

    Raises:
        DataError: if one is no class.
    """
    most, start = 0, 0
    size = max(1, AT_ONCE // int(np.prod(targets.shape[1:])))
    for part in batches_of(targets, size=size):
        bad = (part >= (num_classes or MOST_CLASSES - 1)) | (part < 0)
        if bad.any():
            row = int(np.flatnonzero(bad.reshape(len(part), -1).any(axis=1))[0])
            raise no_class(source.name_of(start + row), int(part[row][bad[row]][0]), num_classes)
        most, start = max(most, int(part.max())), start + len(part)
    return most


def _require_names(origin: str, names: Sequence[str]) -> None:
    bad = [name for name in names if not can_be_label(name)]
    if bad:
        message = Message(
            f"{bad[0]!r} cannot be the name of a class", "use one line of text", key="data.source.classes"
        )
        raise SpecError(message)
    if len(names) > MOST_CLASSES:
        text = f"{len(names)} classes; a mask tells {MOST_CLASSES} apart"
        raise SpecError(Message(text, "join some", key="data.source.classes"))
    if len(names) < 2:
        raise DataError(f"{origin}: all pixels are of one class, {names[0]!r}", "there is nothing to learn")


def no_class(name: str, value: int, num_classes: int) -> DataError:
    """What is wrong with a pixel whose number is no class.

    Args:
        name: of the sample.
        value: of the pixel.
        num_classes: that the spec names; 0 where it names none.
    """
    known = f"the classes are numbered 0 to {num_classes - 1}" if num_classes else "classes are numbered from 0"
    hint = "write the number of its class: data.source.classes names 0, 1, 2 ..."
    if value == MOST_CLASSES - 1:
        # As data sets of the field mark edges, and drawing programs white.
        hint = "pixels that are not labelled are not in this version: give them a class; write white as 1"
    return DataError(f"{name} has a pixel of {value}; {known}", hint)


def load_masks(
    images: LabelledFiles, path: Path, *, size: tuple[int, int] | None, resize: Resize, num_classes: int
) -> Array:
    """The masks of images, resized as these are.

    Args:
        images: files, in their order.
        path: of the folder or .zip of masks.
        size: height and width that images are brought to; None where they stay as they are.
        resize: how.
        num_classes: that the spec names; 0 where it names none.

    Returns:
        uint8 [images, height, width]: the class of every pixel.

    Raises:
        DataError: naming images without a mask, masks without an image, of another size than their image, with a pixel
            that is no class, or that cannot be read.
    """
    masks = files_without_labels(path, ENDINGS["images"], "masks")
    order = _paired(images, masks, path)
    first = _first_size(images) if size is None else size

    def decode(position: int) -> Array:
        image_size = _size_of(images, position)
        mask, name = _decoded(masks.read(order[position])), masks.names[order[position]]
        if image_size is not None and image_size != mask.shape:
            found = f"{name} is {_size(*mask.shape)}, its image {images.names[position]} is {_size(*image_size)}"
            raise DataError(found, "draw the mask in the size of its image: height x width")
        # Before it is resized, and made bytes of: either could lose the pixel.
        bad = mask[(mask >= (num_classes or MOST_CLASSES - 1)) | (mask < 0)]
        if bad.size:
            raise no_class(name, int(bad[0]), num_classes)
        small = mask.astype(np.uint8)
        if small.shape == first:
            return small
        if size is None:
            found = f"{images.names[position]} is {_size(*mask.shape)}, {images.names[0]} is {_size(*first)}"
            raise DataError(found, "set data.source.image_size: [H, W]")
        return resized_to_nearest(small, size, resize)

    names = [masks.names[place] for place in order]
    files = FileArray(len(order), one_by_one(decode), first, np.uint8, names)
    found, bad = files.read_all(range(len(order)))
    if bad:
        shown = listed([Skipped(names[position], reason) for position, reason in bad.items()])
        count = "mask cannot" if len(bad) == 1 else "masks cannot"
        raise DataError(f"{len(bad)} {count} be read: {shown}", "mend them, or take them and their images away")
    return found


def _paired(images: LabelledFiles, masks: LabelledFiles, path: Path) -> list[int]:
    """Positions of the masks in the order of the images, by their names without endings.

    Raises:
        DataError: naming files that have no partner, or two.
    """
    image_names, mask_names = ([_stem(name) for _, name in files.files] for files in (images, masks))
    for names, files, what in ((image_names, images, "images"), (mask_names, masks, "masks")):
        twice = [name for name, count in Counter(names).items() if count > 1]
        if twice:
            both = " and ".join(file for file, name in zip(files.names, names, strict=True) if name == twice[0])
            raise DataError(f"two {what} are called {printable(twice[0])!r}: {both}", "give each a name of its own")
    place = {name: index for index, name in enumerate(mask_names)}
    alone = [images.names[index] for index, name in enumerate(image_names) if name not in place]
    if alone:
        raise _partners(alone, "images have no mask", f"a mask is {path}/NAME.png, NAME as that of the image")
    known = set(image_names)
    alone = [masks.names[index] for index, name in enumerate(mask_names) if name not in known]
    if alone:
        raise _partners(alone, "masks have no image", "take them away, or add the images")
    return [place[name] for name in image_names]


def _partners(names: Sequence[str], what: str, hint: str) -> DataError:
    if len(names) == 1:
        what = what.replace("images have", "image has").replace("masks have", "mask has")
    return DataError(f"{len(names)} {what}: {first_of(names, _MOST_NAMED, len(names))}", hint)


def _stem(name: str) -> str:
    return str(PurePosixPath(name).with_suffix(""))


def _decoded(data: bytes) -> Array:
    """Whole numbers [height, width] of a mask.

    Raises:
        UnreadableError: if it is none: in color, of compressed values, or damaged.
    """
    with open_image(data) as image:
        if image.format == "JPEG":
            raise UnreadableError("it is a JPEG, which changes the numbers of pixels: write it as PNG")
        if image.mode not in _INDEX_MODES:
            hint = "write the number of its class into every pixel, in one channel or a palette"
            raise UnreadableError(f"it is in color ({image.mode}): {hint}")
        return np.asarray(upright(image)).astype(np.int64)


def _size_of(images: LabelledFiles, position: int) -> tuple[int, int] | None:
    """Height and width of an image; None where it cannot be opened, which is told when it is decoded."""
    try:
        with open_image(images.read(position)) as image:
            return upright_size(image)
    except (UnreadableError, OSError):
        return None


def _first_size(images: LabelledFiles) -> tuple[int, int]:
    sizes: Iterable[tuple[int, int] | None] = (_size_of(images, position) for position in range(len(images.files)))
    found = next((size for size in sizes if size is not None), None)
    if found is None:
        raise DataError(
            f"none of the {len(images.files)} images can be read (first: {images.names[0]})", "are they images?"
        )
    return found


def _size(height: int, width: int) -> str:
    return f"{height}x{width}"

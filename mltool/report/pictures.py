"""Pictures of samples and of a scan, as files or inside of a page."""

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np

from mltool import extras
from mltool.data.dataset import Dataset
from mltool.report import plots
from mltool.report.data_section import scan_pictures
from mltool.runs.atomic import write_text, writing
from mltool.training.trials.rate_test import RateTest

SHEET = (6, 10)
"""Rows and columns of a contact sheet."""

MOST_LINES = 24
"""Samples of a picture of sounds or series."""


def png_uri(image: Any) -> str:
    """uint8 [height, width, 1 or 3] as a picture inside of a page."""
    buffer = io.BytesIO()
    _picture(image).save(buffer, format="PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def as_bytes(image: Any) -> Any:
    """An image of any range as uint8: bytes as they are, all else stretched to 0 to 255."""
    if image.dtype == np.uint8 and image.max() > 32:
        return image
    low, high = float(image.min()), float(image.max())
    return ((image - low) / ((high - low) or 1.0) * 255).astype(np.uint8)


def _picture(image: Any) -> Any:
    """uint8 [height, width, 1 or 3] as Pillow has it."""
    return extras.require("PIL.Image").fromarray(image[..., 0] if image.shape[-1] == 1 else image)


def write_pictures(document: dict[str, Any], data: Dataset, folder: Path) -> list[Path]:
    """Pictures beside `scan.json`: samples of every class by split, drift, some images, sounds or series.

    Args:
        document: of `scan`.
        data: that was scanned.
        folder: to write to.

    Raises:
        MachineError: if it cannot be written.
    """
    written: list[Path] = []
    drawn = [(name, svg) for name, _, svg in scan_pictures(document)]
    drawn += [
        (name, plots.lines(_one_of_every_class(data, name)))
        for name in data.source.inputs
        if data.source.kinds.get(name) in ("audio", "series")
    ]
    for name, svg in drawn:
        written.append(folder / f"{name}.svg")
        write_text(written[-1], _alone(svg))
    for name, array in data.source.inputs.items():
        if data.source.kinds.get(name) == "image" and array.shape[-1] in (1, 3):
            written.append(folder / f"{name}.png")
            with writing(written[-1]) as temporary:
                _contact_sheet(data, name).save(temporary, format="PNG")
    return written


def write_rates_picture(result: RateTest, file: Path) -> None:
    """The picture of a test of learning rates.

    Raises:
        MachineError: if it cannot be written.
    """
    write_text(file, _alone(plots.rates(result.learning_rates, result.losses, result.smoothed, result.suggestion)))


def _one_of_every_class(data: Dataset, name: str) -> list[tuple[str, Any]]:
    """The first training sample of every class, at most `MOST_LINES`; of values the first few."""
    train = data.splits.train
    if data.classes is None:
        return [(data.source.name_of(int(number)), data.source.inputs[name][[number]][0]) for number in train[:6]]
    targets = data.classes[train]
    firsts = [(label, train[targets == number][:1]) for number, label in enumerate(data.labels[:MOST_LINES])]
    return [(label, data.source.inputs[name][ids][0]) for label, ids in firsts if len(ids)]


def _contact_sheet(data: Dataset, name: str) -> Any:
    """Training images side by side, evenly taken, class after class, each at most 96 pixels wide.

    Of images with masks, each stands left of its mask, in a color a class.
    """
    rows, columns = SHEET
    train, has_masks = data.splits.train, data.task == "segmentation"
    if data.classes is not None:
        train = train[np.argsort(data.classes[train], kind="stable")]
    count = rows * columns // 2 if has_masks else rows * columns
    chosen = train[np.linspace(0, len(train) - 1, min(len(train), count)).astype(int)]
    images = list(as_bytes(data.source.inputs[name][chosen]))
    if has_masks:
        masks = [colored(mask) for mask in data.targets[chosen]]
        images = [picture for pair in zip(images, masks, strict=True) for picture in pair]
    side = min(96, max(images[0].shape[:2]))
    sheet = extras.require("PIL.Image").new("RGB", (columns * (side + 4), rows * (side + 4)), "white")
    for place, image in enumerate(images):
        picture = _picture(image).convert("RGB")
        picture.thumbnail((side, side))
        sheet.paste(picture, ((place % columns) * (side + 4), (place // columns) * (side + 4)))
    return sheet


_COLORS = np.asarray([(0, 0, 0), (230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178),
                      (213, 94, 0), (204, 121, 167)], np.uint8)  # fmt: skip
"""Of the first classes, told apart by color-blind people too: Wong, "Points of view: Color blindness", Nat. Methods 8,
2011; they come again for more classes."""


def colored(mask: Any) -> Any:
    """The numbers of classes, uint8 [height, width], as uint8 [height, width, 3]; the first class is black."""
    return _COLORS[np.where(mask == 0, 0, (mask.astype(np.int64) - 1) % (len(_COLORS) - 1) + 1)]


_LIGHT = {
    **{"--text": "#1b1f24", "--faint": "#5f6873", "--first": "#1f6feb", "--second": "#d9730d", "--third": "#1a7f37"},
    "--font": "sans-serif",
}
"""What the variables of `plots` are outside of the page."""


def _alone(svg: str) -> str:
    """A picture outside of the page, with colors of its own."""
    for variable, value in _LIGHT.items():
        svg = svg.replace(f"var({variable})", value)
    return svg

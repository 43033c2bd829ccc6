"""Pictures of samples and of a scan, as files or inside of a page."""

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np

from mltool import extras
from mltool.data.dataset import Dataset
from mltool.report import plots

SHEET = (6, 10)
"""Rows and columns of a contact sheet."""


def png_uri(image: Any) -> str:
    """uint8 [height, width, 1 or 3] as a picture inside of a page."""
    buffer = io.BytesIO()
    extras.require("PIL.Image").fromarray(np.squeeze(image)).save(buffer, format="PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def write_pictures(document: dict[str, Any], data: Dataset, folder: Path) -> list[Path]:
    """Pictures beside `scan.json`: samples of every class by split, and a contact sheet of images.

    Args:
        document: of `scan`.
        data: that was scanned.
        folder: to write to.
    """
    written: list[Path] = []
    classes = {name: split["classes"] for name, split in document["splits"].items() if "classes" in split}
    if classes:
        written.append(folder / "classes.svg")
        written[-1].write_text(_alone(plots.bars(classes)), encoding="utf-8")
    for name, array in data.source.inputs.items():
        if data.source.kinds.get(name) == "image" and array.dtype == np.uint8:
            written.append(folder / f"{name}.png")
            _contact_sheet(data, name).save(written[-1])
    return written


def _contact_sheet(data: Dataset, name: str) -> Any:
    """Training images side by side, class after class in turn, each at most 96 pixels wide."""
    rows, columns = SHEET
    train = data.splits.train
    order = np.argsort(data.targets[train].reshape(len(train), -1)[:, 0], kind="stable") if data.labels else train * 0
    chosen = train[order][np.linspace(0, len(train) - 1, rows * columns).astype(int)] if data.labels else train[:60]
    images = data.source.inputs[name][np.sort(chosen)]
    pillow = extras.require("PIL.Image")
    side = min(96, max(images.shape[1:3]))
    sheet = pillow.new("RGB", (columns * (side + 4), rows * (side + 4)), "white")
    for place, image in enumerate(images):
        picture = pillow.fromarray(np.squeeze(image)).convert("RGB")
        picture.thumbnail((side, side))
        sheet.paste(picture, ((place % columns) * (side + 4), (place // columns) * (side + 4)))
    return sheet


_LIGHT = {
    **{"--text": "#1b1f24", "--faint": "#8a929b", "--first": "#1f6feb", "--second": "#d9730d", "--third": "#1a7f37"},
    "--font": "sans-serif",
}


def _alone(svg: str) -> str:
    """A picture outside of the page, with colors of its own."""
    colors = {
        "--text": "#1b1f24",
        "--faint": "#8a929b",
        "--first": "#1f6feb",
        "--second": "#d9730d",
        "--third": "#1a7f37",
    }
    for variable, color in colors.items():
        svg = svg.replace(f"var({variable})", color)
    return svg.replace("<svg ", '<svg xmlns:xlink="http://www.w3.org/1999/xlink" ', 1)

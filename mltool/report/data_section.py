"""The scan of the data, as the page and the pictures beside `scan.json` tell it."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from mltool import extras
from mltool.data.describe import shown_input, shown_values
from mltool.report import plots

Picture = tuple[str, str, str]
"""Name of a file without its ending, what it shows, and the SVG."""


def scan_pictures(document: Mapping[str, Any]) -> Iterator[Picture]:
    """Pictures of the numbers of a scan: samples of every class, and the drift of several inputs.

    Args:
        document: of `scan`.
    """
    classes = {name: split["classes"] for name, split in document["splits"].items() if "classes" in split}
    if classes and len(next(iter(classes.values()))) <= plots.MOST_CLASSES:
        what = "pixels" if document.get("task") == "segmentation" else "samples"
        yield "classes", f"{what} of every class", plots.bars(classes, what)
    drift = {document["inputs"][name]["original"]: value for name, value in document["drift"].items()}
    if len(drift) > 1:
        yield "drift", "drift of every input, from training to test", plots.drift(drift)


def data_section(document: Mapping[str, Any], target: Any) -> dict[str, Any] | None:
    """What the page says of the data; None where they were not scanned.

    Args:
        document: of `scan`, or empty.
        target: `data.source.target` of the spec.
    """
    if not document:
        return None
    markup = extras.require("markupsafe").Markup
    rows = [_row(document, name) for name in document["inputs"]]
    if document.get("targets"):
        name = target if isinstance(target, str) else ", ".join(target or ()) or "the target"
        rows.append([name, "target", "-", shown_values(document["targets"]), "0", "-"])
    heads = ["input", "kind", "shape", "values in training", "missing", "drift"]
    if all(row[2] in ("1", "-") for row in rows):  # columns of a table: nothing to tell
        rows, heads = [[*row[:2], *row[3:]] for row in rows], [*heads[:2], *heads[3:]]
    return {
        "findings": document["findings"],
        "pictures": [{"name": what, "svg": markup(svg)} for _, what, svg in scan_pictures(document)],
        "heads": heads,
        "rows": rows,
    }


def _row(document: Mapping[str, Any], name: str) -> list[str]:
    *shown, drift = shown_input(document, name)
    info, samples = document["inputs"][name], document["splits"]["train"]["samples"]
    count, values = info["splits"]["train"]["missing"], max(1, samples * math.prod(info["shape"]))
    return [*shown, f"{count:,} ({count / values:.1%})" if count else "0", drift]

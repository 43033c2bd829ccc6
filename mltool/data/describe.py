"""What the inputs of a model are, told by the training data: the schema that later samples are held against."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from mltool.data.dataset import Samples
from mltool.data.source import Source
from mltool.runs.input_schema import InputInfo

MAX_CATEGORIES = 1000
"""Categories that are listed; a column of more is nearly a name for every sample."""


def describe_input(name: str, train: Samples, source: Source) -> InputInfo:
    """Type, shape, range and categories of one input.

    Args:
        name: of the input.
        train: the training samples.
        source: that they come from.
    """
    array = train.inputs[name]
    is_text = array.dtype.kind == "U"
    kind = source.kinds.get(name, "")
    categories: tuple[str, ...] = ()
    low = high = None
    missing = False
    if is_text and kind == "category":
        found = np.unique(np.concatenate([np.unique(batch) for batch in train.batches(name)]))
        missing = bool((found == "").any())
        categories = tuple(found[found != ""].tolist()) if len(found) <= MAX_CATEGORIES else ()
    elif is_text:
        missing = any(bool((batch == "").any()) for batch in train.batches(name))
    else:
        low, high, missing = _range(name, train)
    return InputInfo(
        name=name,
        dtype="string" if is_text else "float32",
        shape=tuple(array.shape[1:]),
        minimum=low,
        maximum=high,
        kind=kind,
        original=source.originals.get(name),
        missing=missing,
        categories=categories,
        sample_rate=source.sample_rate if kind == "audio" else None,
        resize=source.resize if kind == "image" else None,
        columns=source.windows.columns if source.windows else (),
        time=source.windows.time if source.windows else None,
        group=source.windows.group if source.windows else None,
    )


def _range(name: str, train: Samples) -> tuple[float | None, float | None, bool]:
    """Least and greatest value, and whether some are missing."""
    lows, highs, missing = [], [], False
    for batch in train.batches(name):
        holes = np.isnan(batch) if batch.dtype.kind == "f" else np.zeros(1, bool)
        missing = missing or bool(holes.any())
        if not holes.all():
            lows.append(float(np.nanmin(batch)))
            highs.append(float(np.nanmax(batch)))
    return (min(lows), max(highs), missing) if lows else (None, None, missing)


def shown_input(document: Mapping[str, Any], name: str) -> tuple[str, str, str, str, str]:
    """An input of a scan in words: what the source calls it, kind, shape, values in training, and drift."""
    info, drift = document["inputs"][name], document["drift"].get(name)
    shape = "x".join(map(str, info["shape"])) or "-"
    shown = "-" if drift is None else f"{drift:.3f}"
    return info["original"], info["kind"] or info["dtype"], shape, shown_values(info["splits"]["train"]), shown


def shown_values(found: Mapping[str, Any]) -> str:
    """The values of an input in one split of a scan, in words."""
    if "least" in found:
        least, most, mean = (_number(found[key]) for key in ("least", "most", "mean"))
        return f"{least} to {most}, mean {mean}"
    if "distinct" in found:
        return f"{found['distinct']:,} categories"
    if "characters" in found:
        return f"{found['characters']['least']:,} to {found['characters']['most']:,} characters"
    return "-"


def _number(value: float) -> str:
    """Six digits; all that are before the point of a number that a person would write out."""
    return f"{value:,.0f}" if 1e6 <= abs(value) < 1e12 else f"{value:,.6g}"

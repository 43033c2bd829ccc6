"""The error of every layer as the rows of a table, for a terminal and for the page."""

from mltool.conversion.explain.advice import share
from mltool.conversion.explain.records import Explanation, LayerError
from mltool.conversion.explain.statistics import MOST_SNR

COLUMNS = ("layer", "type", "SNR dB", "varying", "own noise", "range use", "cut off", "dead channels", "cause")
"""Heads of the columns; `varying` is the ratio of what varies from sample to sample."""

MOST_LAYERS = 12
"""Rows of a table on a terminal; the report has all of them."""


def rows(found: Explanation, most: int | None = None) -> list[list[str]]:
    """A row for every layer: first those that are to blame, then those of which the least is left.

    Args:
        found: the errors of a file.
        most: rows at most; all of them when left out.
    """
    return [_row(layer, found.causes.get(layer.layer, "none")) for layer in worst_first(found)[:most]]


def worst_first(found: Explanation) -> list[LayerError]:
    """The layers in the order of the findings, the others by what is left; what could not be measured comes last."""
    place = {one.layer: index for index, one in reversed(list(enumerate(found.findings)))}

    def key(layer: LayerError) -> tuple[float, float]:
        left = layer.varying_snr_db
        return place.get(layer.layer, len(found.findings)), MOST_SNR + 1 if left is None else left

    return sorted(found.layers, key=key)


def lines(found: Explanation) -> list[str]:
    """What is said of the file: the verdict, then what is wrong and what to try, a line each."""
    return [f"{found.name}: {found.verdict}", *(f"- {one.message}; {one.advice}" for one in found.findings)]


def _row(layer: LayerError, cause: str) -> list[str]:
    if layer.snr_db is None or layer.varying_snr_db is None:
        return [layer.layer, "-", "-", "-", "-", "-", "-", "-", "not found in the file"]
    return [
        layer.layer,
        layer.dtype if layer.weight_dtype in (None, layer.dtype) else f"{layer.dtype}, weights {layer.weight_dtype}",
        _decibel(layer.snr_db),
        _decibel(layer.varying_snr_db),
        share(layer.own_noise),
        "-" if layer.range_use is None else share(layer.range_use),
        share(layer.saturation) if layer.scale is not None else "-",
        f"{layer.dead_channels} of {layer.channels}" if layer.dead_channels else "0",
        cause if cause != "none" else "",
    ]


def _decibel(value: float) -> str:
    return "exact" if value >= MOST_SNR else f"{value:.1f}"

"""The model, layer by layer, as the page tells it from what training wrote down; without TensorFlow."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mltool import extras
from mltool.inspection.model_summary import ModelSummary, load_summary
from mltool.inspection.model_text import COLUMNS, shown_layer, shown_totals
from mltool.report import plots


def model_section(file: Path) -> dict[str, Any] | None:
    """What the page says of the model; None where the run has no such file.

    Args:
        file: `model.json` of a run.

    Raises:
        ArtifactError: if it is damaged.
    """
    if not file.is_file():
        return None
    summary = load_summary(file)
    markup = extras.require("markupsafe").Markup
    return {
        "heads": COLUMNS,
        "rows": [shown_layer(layer) for layer in summary.layers],
        "totals": [{"what": what, "value": value} for what, value in shown_totals(summary)],
        "pictures": [{"name": name, "svg": markup(svg)} for name, svg in _pictures(summary)],
    }


def _pictures(summary: ModelSummary) -> Iterator[tuple[str, str]]:
    """Where the parameters and the multiply-accumulates are; none of what only one layer has."""
    parameters = {layer.layer: layer.parameters for layer in summary.sorted_by("parameters").layers}
    macs = {layer.layer: layer.macs or 0 for layer in summary.sorted_by("macs").layers}
    for name, unit, sizes in (
        ("parameters of the largest layers", "parameters", parameters),
        ("multiply-accumulates of the largest layers, one sample", "MACs", macs),
    ):
        shown = {layer: size for layer, size in sizes.items() if size}
        if len(shown) > 1:
            yield name, plots.sizes(shown, unit)

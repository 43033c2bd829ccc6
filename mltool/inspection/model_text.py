"""A model's summary in words, for the terminal and the report."""

from mltool.inspection.graph import Shape
from mltool.inspection.model_summary import Bytes, LayerSummary, ModelSummary

COLUMNS = ("layer", "class", "output", "parameters", "trainable", "MACs", "float32 bytes", "int8 bytes")
"""Heads of the cells of `shown_layer`; the last two are of the output."""


def shown_layer(layer: LayerSummary) -> tuple[str, ...]:
    """The cells of a layer, one for every column."""
    return (
        layer.layer,
        layer.class_name,
        ", ".join(map(_shape, layer.output_shapes)),
        f"{layer.parameters:,}",
        f"{layer.trainable_parameters:,}",
        "not counted" if layer.macs is None else f"{layer.macs:,}",
        _number(layer.activation_bytes.float32),
        _number(layer.activation_bytes.int8),
    )


def shown_totals(summary: ModelSummary) -> list[tuple[str, str]]:
    """Totals as pairs: what, and how much of it, with what it means."""
    missing = [f"{layer.layer} ({layer.not_counted})" for layer in summary.layers if layer.macs is None]
    where = f" at {summary.peak_layer!r}" if summary.peak_layer else ""
    totals = [
        ("parameters", f"{summary.parameters:,}, of them {summary.trainable_parameters:,} trainable"),
        ("MACs", f"{summary.macs:,} a sample{', and what was not counted' if missing else ''}"),
        ("weights", _bytes(summary.weight_bytes)),
        (
            "peak activations",
            f"{_bytes(summary.peak_activation_bytes)}{where}: the most that is alive at once, "
            "layers one after the other, one sample",
        ),
        ("all activations", f"{_bytes(summary.all_activation_bytes)}: outputs of all layers together, one sample"),
    ]
    return totals + ([("not counted", "; ".join(missing))] if missing else [])


def _shape(shape: Shape) -> str:
    return "x".join("?" if length is None else str(length) for length in shape) or "scalar"


def _bytes(size: Bytes) -> str:
    if size.float32 is None:
        return "not known: a length is told only when the model runs"
    return f"{size.float32:,} bytes in float32, {_number(size.int8)} in int8"


def _number(value: int | None) -> str:
    return "?" if value is None else f"{value:,}"

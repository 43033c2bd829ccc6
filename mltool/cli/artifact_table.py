"""The table of artifacts that `convert` and `run` print: scheme, size, metric, drop, agreement, latency."""

from collections.abc import Sequence

from mltool import console
from mltool.runs.lite import LiteRecord
from mltool.spec.convert import default_name


def artifact_table(records: Sequence[LiteRecord], title: str = "") -> str:
    """The table as text.

    Args:
        records: of the artifacts, in the order of the rows.
        title: over the table.
    """
    metric = next((record.metric.get("name") for record in records if record.metric.get("name")), None)
    columns = ["artifact", "scheme", "size", metric or "metric", "drop", "agreement", "p50/p90 ms"]
    rows = [_row(record) for record in records]
    if not all(_verified(record) == "yes" for record in records):
        columns.append("verified")
        rows = [[*row, _verified(record)] for row, record in zip(rows, records, strict=True)]
    return console.table(columns, rows, title=title)


def _verified(record: LiteRecord) -> str:
    """Whether a file was run against its model, and on what, where these were no samples of the world."""
    if not record.verified:
        return "accuracy unknown" if record.accuracy_unknown else "no"
    return "made-up samples" if record.source.get("held_out") == "generated" else "yes"


def _row(record: LiteRecord) -> list[str]:
    """One artifact; narrow enough for a terminal of 80 columns."""
    metric, latency, agreement = record.metric, record.latency_ms, record.agreement
    value, drop, same = metric.get("value"), metric.get("drop"), agreement.get("same_answer")
    return [
        record.name,
        default_name(record.quantize, record.io),
        f"{record.bytes / 1e3:.1f} kB",
        "-" if value is None else f"{value:.4f}",
        "-" if drop is None else f"{drop:+.4f}",
        "-" if same is None else f"{same:.4f}",
        f"{latency['p50']:.3f}/{latency['p90']:.3f}" if latency else "-",
    ]

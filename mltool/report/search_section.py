"""What `quantize: auto` tried, as the page tells it: the front, what each step bought, every file."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mltool import extras
from mltool.errors import ArtifactError
from mltool.report import plots

HEADS = ("file", "step", "size", "loses", "p90 ms", "seconds", "state")
"""Of the table of all files."""


def search_sections(files: Iterable[Path]) -> list[dict[str, Any]]:
    """A section for every search.

    Args:
        files: where what was tried would lie.

    Raises:
        ArtifactError: if one is damaged.
    """
    return [_section(file) for file in files if file.is_file()]


def _section(file: Path) -> dict[str, Any]:
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
        trials = document["trials"]
        points = [_point(trial, document) for trial in trials if trial["bytes"] is not None]
        return {
            "name": file.name.removesuffix(".search.json"),
            "winner": document["winner"],
            "minimize": document["minimize"],
            "samples": document["samples"],
            "host": document["host"],
            "steps": document["steps"],
            "svg": _picture(points, document, trials) if points else "",
            "heads": HEADS,
            "rows": [_row(trial, document) for trial in trials],
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(f"{file} is damaged: {error}", "convert again with --force") from error


def _picture(points: list[tuple[str, float, float, str]], document: Mapping[str, Any], trials: Any) -> Any:
    metric = next((trial["metric"].get("name") for trial in trials if trial["metric"].get("name")), None)
    cost = "ms, 90th percentile of a call" if document["minimize"] == "latency" else "bytes"
    loss = f"drop of {metric} on validation" if metric else "mean error"
    return extras.require("markupsafe").Markup(plots.front(points, cost, loss, document.get("most_lost")))


def _point(trial: Mapping[str, Any], document: Mapping[str, Any]) -> tuple[str, float, float, str]:
    drop = trial["metric"].get("drop")
    loss = drop if drop is not None else trial["agreement"].get("mean_error", 0.0)
    cost = trial["p90_latency_ms"] if document["minimize"] == "latency" else trial["bytes"]
    return trial["name"], float(cost), float(loss), _state(trial, document)


def _state(trial: Mapping[str, Any], document: Mapping[str, Any]) -> str:
    if trial["name"] == document["winner"]:
        return "winner"
    if not trial["kept"]:
        return "unsure" if trial.get("unsure") else "broken"
    return "front" if trial["on_front"] else "kept"


def _row(trial: Mapping[str, Any], document: Mapping[str, Any]) -> list[str]:
    drop, latency = trial["metric"].get("drop"), trial["p90_latency_ms"]
    why = trial["error"] or trial.get("unsure") or "; ".join(trial["broken"])
    return [
        trial["name"],
        trial["step"],
        "-" if trial["bytes"] is None else f"{trial['bytes'] / 1e3:,.1f} kB",
        "-" if drop is None else f"{drop:+.4f}",
        "-" if latency is None else f"{latency:.3f}",
        f"{trial['seconds']:.1f}",
        why or _state(trial, document),
    ]

"""The table of `convert --quantize auto`: what was tried, what each step bought, and the winner."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from mltool import console


def search_tables(made: Sequence[Any]) -> list[str]:
    """A table for every file that was searched for.

    Args:
        made: what `convert` returned.
    """
    from mltool.runs.lite import LiteFolder
    from mltool.spec.load import flow_yaml

    tables = []
    for item in made:
        file = LiteFolder(item.path.parent).search_file(item.record.name)
        if file.is_file():
            document = json.loads(file.read_text(encoding="utf-8"))
            tables += [*_told(document), f"made again by: convert: [{flow_yaml(item.record.entry)}]"]
    return tables


def _told(document: Mapping[str, Any]) -> list[str]:
    columns = ["tried", "size", "loses", "p90 ms", "", "why not"]
    rows = [_row(trial, trial["name"] == document["winner"]) for trial in document["trials"]]
    steps = [
        f"{step['step']}: {step['tried']} files in {step['seconds']:.1f} s; "
        + (f"the best so far is {step['best']}" if step["best"] else "nothing keeps the limits yet")
        for step in document["steps"]
    ]
    return [console.table(columns, rows), *steps]


def _row(trial: Mapping[str, Any], won: bool) -> list[str]:
    size, latency = trial["bytes"], trial["p90_latency_ms"]
    drop = trial["metric"].get("drop")
    mark = "winner" if won else "front" if trial["on_front"] and trial["kept"] else ""
    by_chance = "may keep max_drop by chance" if trial["unsure"] else ""
    reason = trial["error"] or by_chance or "; ".join(broken.partition(":")[0] for broken in trial["broken"])
    return [
        trial["name"],
        "-" if size is None else f"{size / 1e3:.1f} kB",
        "-" if drop is None else f"{drop:+.4f}",
        "-" if latency is None else f"{latency:.3f}",
        mark,
        reason[:60],
    ]

"""The tables of the conversion benchmark as markdown."""

from collections.abc import Callable, Sequence
from typing import Any

from models import MODELS

Row = dict[str, Any]
Parts = dict[str, dict[str, Row]]
Cell = Callable[[Parts, str, str], str]


def markdown(parts: Parts) -> str:
    """All tables: a row a model, a column a scheme; then what failed, in mltool's words.

    Args:
        parts: `converted`, `bare` and `twice`, each a row by `model/scheme`.
    """
    tables = [
        ("Drop in points (share of samples with the same answer)", "converted", _quality),
        ("The same of the bare converter's file", "bare", _quality),
        ("Size in kB", "converted", _size),
        ("Size as a share of the bare converter's", "converted", _ratio),
        ("Operators by the type that they compute in", "converted", _read_back),
        ("Seconds of the whole command", "converted", _seconds),
        ("Two conversions from two exports", "twice", _twice),
    ]
    texts = [f"## {title}\n\n{_grid(parts, part, cell)}" for title, part, cell in tables if parts[part]]
    texts.append(_failures("What mltool refused or rejected", parts["converted"]))
    texts.append(_failures("Where the bare converter failed by the book", parts["bare"]))
    return "\n\n".join(text for text in texts if text) + "\n"


def _grid(parts: Parts, part: str, cell: Cell) -> str:
    rows = parts[part]
    schemes = list(dict.fromkeys(key.split("/")[1] for key in rows))
    head = ["model", "float", *schemes]
    lines = [_line(head), _line(["---"] * len(head))]
    for name in (name for name in MODELS if any(key.startswith(f"{name}/") for key in rows)):
        keys = [f"{name}/{scheme}" for scheme in schemes]
        cells = [cell(parts, part, key) if key in rows else "" for key in keys]
        lines.append(_line([MODELS[name].title, _reference(parts["converted"], name), *cells]))
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _reference(rows: dict[str, Row], name: str) -> str:
    """The metric of the Keras model, from whichever row has it."""
    found = (row["metric"] for key, row in rows.items() if key.startswith(f"{name}/") and row.get("metric"))
    metric = next(found, None)
    return f"{metric['name']} {metric['reference']:.4f} ({metric['samples']:,})" if metric else ""


def _failed(row: Row) -> str:
    """Exits 7 and 8 are mltool's own words; anything else that leaves no file is an accident."""
    return {7: "refused", 8: "rejected"}.get(row.get("exit", 0), "failed")


def _quality(parts: Parts, part: str, key: str) -> str:
    row = parts[part][key]
    metric, agreement = row.get("metric"), row.get("agreement")
    if not metric or metric.get("drop") is None:
        return "not run" if "bytes" in row and not row.get("exit") else _failed(row)
    same = (agreement or {}).get("same_answer")
    shown = f"{100 * metric['drop']:+.2f}" + ("" if same is None else f" ({100 * same:.1f} %)")
    return f"**{shown}, rejected**" if row.get("exit") else shown


def _size(parts: Parts, part: str, key: str) -> str:
    row = parts[part][key]
    shown = f"{row['bytes'] / 1e3:.1f}" if "bytes" in row else ""
    return " ".join(part for part in (shown, f"({_failed(row)})" if row.get("exit") else "") if part)


def _ratio(parts: Parts, part: str, key: str) -> str:
    ours, theirs = parts[part][key].get("bytes"), parts["bare"].get(key, {}).get("bytes")
    if ours is None:
        return _failed(parts[part][key])
    helped = " with a flag" if "error" in parts["bare"].get(key, {}) else ""
    return "no bare" if theirs is None else f"{ours / theirs:.3f}{helped}"


def _read_back(parts: Parts, part: str, key: str) -> str:
    row = parts[part][key]
    found = row.get("read_back")
    if not found:
        return _failed(row) if row.get("exit") else ""
    total = sum(found["operators"].values())
    counts = {kind: round(share * total) for kind, share in found["operator_share_by_dtype"].items()}
    return ", ".join(f"{count} {kind}" for kind, count in counts.items() if kind != "edge")


def _seconds(parts: Parts, part: str, key: str) -> str:
    seconds = parts[part][key].get("seconds")
    return "" if seconds is None else f"{seconds:.0f}"


def _twice(parts: Parts, part: str, key: str) -> str:
    row = parts[part][key]
    return "identical" if row["identical"] else "not made" if None in row["sha256"] else "**different**"


def _failures(title: str, rows: dict[str, Row]) -> str:
    found = [f"- `{key}`{_exit(row)}: {row['error']}{_rest(row)}" for key, row in rows.items() if row.get("error")]
    return f"## {title}\n\n" + "\n".join(found) if found else ""


def _exit(row: Row) -> str:
    return f" (exit {row['exit']})" if row.get("exit") else ""


def _rest(row: Row) -> str:
    """What comes after the message: the hint, but for where the file lies, or how a recurrent layer went through."""
    hint = row.get("hint", "")
    if hint and not hint.startswith("the file is in "):
        return f" (hint: {hint})"
    if "bytes" in row and "error" in row and "exit" not in row:
        return "; made with `_experimental_default_to_single_batch_in_tensor_list_ops`" + (
            ", and runs single samples only" if "whole_batches" in row else ""
        )
    return ""

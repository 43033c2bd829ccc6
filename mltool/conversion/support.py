"""What each quantization scheme does with each operator of a `.tflite` file: a table that was measured.

The numbers stand in `support.json`; `python tests/conversion/support_table.py` writes it, and a test makes it anew.
"""

import functools
import json
from pathlib import Path
from typing import Any

from mltool.errors import UsageError

PAGE = Path(__file__).with_name("support.json")

QUANTIZED, FLOAT, REFUSED = "quantized", "float", "refused"
"""It computes with, or is stored in, fewer bits; it stays float beside quantized ones; no such file can be made."""

TARGETS = {
    "litert": ("float16", "dynamic", "int8", "int8-io", "int16x8", "int4", "weight-only"),
    "integer-only": ("int8-io",),
}
"""The schemes that a kind of device can run: LiteRT on a CPU has float kernels for all that stays float."""

SYMBOLS = {QUANTIZED: "yes", FLOAT: "float", REFUSED: "-"}
"""How a cell of the text is written."""


@functools.cache
def support_document() -> dict[str, Any]:
    """The whole table: `measured_with` (versions), `targets` (schemes), `operators` (scheme to verdict by operator)."""
    return {**json.loads(PAGE.read_text(encoding="utf-8")), "targets": TARGETS}


def table(scheme: str) -> dict[str, str]:
    """What one scheme does, `quantized`, `float` or `refused`, by operator.

    Raises:
        UsageError: if the table has no such scheme.
    """
    if scheme not in TARGETS["litert"]:
        raise UsageError(f"the support table has no scheme {scheme!r}", f"one of: {', '.join(TARGETS['litert'])}")
    return {op: row[scheme] for op, row in support_document()["operators"].items()}


def rows() -> list[tuple[str, ...]]:
    """The operator and its verdict under each scheme, in the order of `TARGETS["litert"]`."""
    operators = support_document()["operators"]
    return [(op, *(row[scheme] for scheme in TARGETS["litert"])) for op, row in operators.items()]


def row_text(op: str) -> str:
    """The row of one operator in a line, for messages; empty for one that the table does not have."""
    row = support_document()["operators"].get(op)
    if row is None:
        return ""
    return f"{op}: {', '.join(f'{scheme} {SYMBOLS[row[scheme]]}' for scheme in TARGETS['litert'])}"


def support_text() -> str:
    """The table for people, with a line on what it means."""
    lines = [("operator", *TARGETS["litert"]), *((op, *map(SYMBOLS.__getitem__, cells)) for op, *cells in rows())]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    body = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    versions = ", ".join(f"{name} {version}" for name, version in support_document()["measured_with"].items())
    head = "yes: quantized; float: stays float, which LiteRT runs; -: refused, an integer-only file cannot hold it"
    return "\n".join([f"{head}\nmeasured with {versions}", "", *body])

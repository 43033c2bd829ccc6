"""The error of quantized files layer by layer, as the page tells it of what `--explain` measured."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mltool import extras
from mltool.conversion.explain.advice import LOST_DB
from mltool.conversion.explain.records import Explanation
from mltool.conversion.explain.rows import COLUMNS, rows, worst_first
from mltool.errors import ArtifactError
from mltool.report import plots
from mltool.runs.lite import LiteRecord


def explain_sections(files: Iterable[tuple[LiteRecord, Path]]) -> list[dict[str, Any]]:
    """A section for every file whose layers were measured.

    Args:
        files: records, and where the explanation of each would lie.

    Raises:
        ArtifactError: if an explanation is damaged.
    """
    found = ((record, _load(path)) for record, path in files if path.is_file())
    return [_section(explained) for record, explained in found if explained.sha256 in ("", record.sha256)]


def _load(path: Path) -> Explanation:
    try:
        return Explanation.from_json(json.loads(path.read_text(encoding="utf-8")), str(path))
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path} is damaged: {error}", "convert again with --explain") from error


def _section(found: Explanation) -> dict[str, Any]:
    ranked = [layer for layer in worst_first(found) if layer.varying_snr_db is not None]
    ratios = {layer.layer: (layer.varying_snr_db or 0.0, found.causes.get(layer.layer, "none")) for layer in ranked}
    shown = f", the worst {plots.MOST_RATIOS} of {len(ratios)}" if len(ratios) > plots.MOST_RATIOS else ""
    markup = extras.require("markupsafe").Markup
    return {
        "name": found.name,
        "verdict": _sentence(found.verdict),
        "is_good": not found.findings,
        "findings": [{"message": _sentence(one.message), "advice": _sentence(one.advice)} for one in found.findings],
        "caption": f"signal to noise of what varies, by layer{shown}",
        "svg": markup(plots.ratios(ratios, LOST_DB)) if ratios else "",
        "heads": COLUMNS,
        "rows": rows(found),
        "samples": found.samples,
    }


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."

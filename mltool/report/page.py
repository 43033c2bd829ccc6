"""`report.html`: what a run recorded, in one page that opens by double click, without a network."""

import json
from pathlib import Path
from typing import Any

from mltool import extras
from mltool.errors import ArtifactError, UsageError
from mltool.report import plots
from mltool.report.answer_section import answer_sections
from mltool.report.data_section import data_section
from mltool.report.explain_section import explain_sections
from mltool.report.model_section import model_section
from mltool.report.predictions import load_predictions
from mltool.report.search_section import search_sections
from mltool.runs.atomic import write_text
from mltool.runs.lite import LiteFolder, LiteRecord
from mltool.runs.run import Run
from mltool.training.records import read_lines

_OURS = b'<meta name="generator" content="mltool">'
"""What a page begins with: no other file is overwritten."""


def report(run: Run, output: Path | None = None) -> Path:
    """Writes the page of a run; parts that the run has not are left out.

    Args:
        run: trained or not; nothing of it is run again.
        output: where; `report.html` in the run when left out.

    Returns:
        The page.

    Raises:
        UsageError: if the file is there and is no such page.
        ArtifactError: if a file of the run is damaged.
        MissingExtraError: if the plotting library is not installed.
    """
    page = output or run.report_page_file
    if page.is_file() and _OURS not in page.read_bytes()[:1000]:
        raise UsageError(f"{page} is there already and is no page of mltool", "name another file")
    jinja = extras.require("jinja2")
    environment = jinja.Environment(autoescape=True, undefined=jinja.StrictUndefined, trim_blocks=True)
    environment.filters["share"] = lambda value: "-" if value is None else f"{value:.3f}"
    template = environment.from_string(Path(__file__).with_name("page.html.j2").read_text(encoding="utf-8"))
    write_text(page, template.render(**_content(run)))
    return page


def _content(run: Run) -> dict[str, Any]:
    manifest, records = run.manifest, _records(run)
    return {
        "name": manifest.get("name", run.id),
        "run_id": run.id,
        "created": str(manifest.get("created", ""))[:19].replace("T", " "),
        "seed": manifest.get("seed"),
        "source": manifest.get("data", {}).get("source", ""),
        "cards": _cards(run, manifest),
        "spec": run.spec_file.read_text(encoding="utf-8"),
        "environment": json.dumps(manifest.get("environment", {}), indent=2, ensure_ascii=False),
        **_artifacts(run, records),
        "explained": explain_sections(_explained(run, records)),
        "searched": search_sections(
            file for folder in (run.lite_folder, run.lite_folder / "rejected") for file in LiteFolder(folder).searches()
        ),
        "curves": _curves(run, manifest),
        "answers": answer_sections(run, load_predictions(run)),
        "model": model_section(run.model_summary_file),
        "scan": data_section(
            _read_json(run.scan_file, splits=dict, inputs=dict, drift=dict, findings=list),
            run.spec.data.source.target,
        ),
    }


def _read_json(path: Path, **parts: type) -> dict[str, Any]:
    """A document of the run; empty where it has none.

    Args:
        path: of it.
        parts: keys that it must have, and what they hold.

    Raises:
        ArtifactError: if it is damaged.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path} is damaged: {error}", "make it again") from error
    lacking = [
        key for key, kind in parts.items() if not isinstance(document, dict) or not isinstance(document.get(key), kind)
    ]
    if lacking or not isinstance(document, dict):
        raise ArtifactError(f"{path} is damaged: it lacks {', '.join(lacking) or 'its keys'}", "make it again")
    return document


def _cards(run: Run, manifest: dict[str, Any]) -> list[dict[str, str]]:
    evaluation = _read_json(run.evaluation_file, metrics=dict)
    cards = [
        {"what": f"{name}, test", "value": _shown_number(value)}
        for name, value in evaluation.get("metrics", {}).items()
    ]
    cards += [
        {"what": f"{name} samples", "value": f"{split['samples']:,}"}
        for name, split in manifest.get("data", {}).get("splits", {}).items()
    ]
    if manifest.get("epochs"):
        cards.append({"what": "epochs", "value": str(manifest["epochs"])})
    cards.append({"what": "status", "value": str(manifest.get("status", "created"))})
    return cards


def _shown_number(value: float | None) -> str:
    """Four digits, and as many as there are before the point."""
    return "-" if value is None else f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _records(run: Run) -> list[tuple[LiteRecord, bool]]:
    """Every `.tflite` file, and whether it was kept.

    Raises:
        ArtifactError: if a record is damaged, or a file is not the one that it is of.
    """
    kept, rejected = LiteFolder(run.lite_folder), LiteFolder(run.lite_folder / "rejected")
    found = [(kept.require_unchanged(name), True) for name in kept.names()]
    return found + [(rejected.load_record(name), False) for name in rejected.names()]


def _explained(run: Run, records: list[tuple[LiteRecord, bool]]) -> list[tuple[LiteRecord, Path]]:
    """Every `.tflite` file, and where the error of its layers would lie."""
    return [
        (record, LiteFolder(run.lite_folder if kept else run.lite_folder / "rejected").explain_file(record.name))
        for record, kept in records
    ]


def _artifacts(run: Run, records: list[tuple[LiteRecord, bool]]) -> dict[str, Any]:
    metric = next((record.metric.get("name") for record, _ in records if record.metric.get("name")), "metric")
    rows = [
        {
            "cells": _cells(record),
            "verified": _state(record, kept) == "verified",
            "state": _state(record, kept),
        }
        for record, kept in records
    ]
    checks = [{"artifact": record.name, **check} for record, _ in records for check in record.checks]
    failure = [message["message"] for message in _read_json(run.report_file).get("failure") or []]
    failure = failure or [record.error for record, kept in records if not kept and record.error]
    if run.manifest.get("error"):
        failure.append(str(run.manifest["error"]))
    runtimes = sorted({str(record.runtime) for record, _ in records if record.latency_ms and record.runtime})
    heads = ["artifact", "scheme", "size", str(metric), "drop", "agreement", "p50 / p90 ms", "state"]
    found = {"artifacts": rows, "checks": checks, "artifact_heads": heads, "failure": failure}
    return {**found, "runtimes": ", ".join(runtimes)}


def _state(record: LiteRecord, kept: bool) -> str:
    if not kept:
        return "rejected"
    random = record.accuracy_unknown or record.calibration.get("split") == "random"
    # A flag alone proves nothing: what was verified has been measured.
    return "accuracy unknown" if random else "verified" if record.verified and record.checks else "not verified"


def _cells(record: LiteRecord) -> list[str]:
    value, drop, same = record.metric.get("value"), record.metric.get("drop"), record.agreement.get("same_answer")
    latency = record.latency_ms
    digits = 4 if value is None or abs(value) < 1000 else 1  # of dollars, ten-thousandths say nothing
    return [
        record.name,
        f"{record.quantize}{'' if record.io == 'float32' else f', {record.io} ends'}",
        f"{record.bytes / 1e3:,.1f} kB",
        "-" if value is None else f"{value:,.{digits}f}",
        "-" if drop is None else f"{drop:+,.{digits}f}",
        "-" if same is None else f"{same:.4f}",
        f"{latency['p50']:.3f} / {latency['p90']:.3f}" if latency else "-",
    ]


def _curves(run: Run, manifest: dict[str, Any]) -> list[dict[str, Any]]:
    lines = read_lines(run.metrics_file)
    if not all(isinstance(line, dict) and "epoch" in line for line in lines):
        raise ArtifactError(f"{run.metrics_file} is damaged: a line is no epoch", "train again")
    # A resumed run may tell an epoch twice: the last word counts.
    by_epoch = {line["epoch"]: line for line in lines}
    epochs = sorted(by_epoch)
    names = [name for name in (lines[0] if lines else {}) if f"val_{name}" in lines[0]]
    markup = extras.require("markupsafe").Markup
    return [
        {
            "name": name,
            "svg": markup(
                plots.curves(
                    epochs,
                    [_number(by_epoch[epoch].get(name)) for epoch in epochs],
                    [_number(by_epoch[epoch].get(f"val_{name}")) for epoch in epochs],
                    manifest.get("best_epoch"),
                )
            ),
        }
        for name in names
    ]


def _number(value: Any) -> float:
    return float("nan") if value is None else float(value)

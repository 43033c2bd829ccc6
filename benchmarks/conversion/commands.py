"""`mltool convert` on a copy of a run, and what it said, scheme by scheme."""

import json
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from models import mltool

Row = dict[str, Any]

HALF = "auto-0.5"
"""A search that may lose half a percent, where `auto` may lose what the limits of the spec say."""

ENTRIES: dict[str, Row] = {HALF: {"quantize": "auto", "name": HALF, "limits": {"max_drop": "0.5%"}}}
"""Of the spec, where a scheme is more than its name."""

KEPT = ("bytes", "sha256", "metric", "agreement", "read_back", "verified")
"""Of the record beside a file."""


def copy_of(run: Path, folder: Path, *, with_saved_model: bool = True) -> Path:
    """The run without its `.tflite` files, so that nobody else's copy of it is disturbed.

    Args:
        run: its directory.
        folder: of the copies; one that is there already is used again.
        with_saved_model: False where it is to be exported anew.
    """
    target = folder / run.name
    if not target.is_dir():
        left_out = ["lite", "events", "checkpoints", *([] if with_saved_model else ["saved_model"])]
        shutil.copytree(run, target, ignore=shutil.ignore_patterns(*left_out), symlinks=True)
    return target


def convert(run: Path, scheme: str) -> Row:
    """One scheme by a command of its own; of a file that was rejected the figures too."""
    _forget(run, [scheme])
    started = time.perf_counter()
    done = mltool(["convert", str(run), "--quantize", scheme, "--json", "--force"])
    seconds = round(time.perf_counter() - started, 1)
    document = document_of(done.stdout)
    if document is None:
        return {"exit": done.returncode, "error": "no JSON document", "said": done.stderr[-2000:]}
    messages = document.get("error", {}).get("messages", [])
    return {"exit": done.returncode, "seconds": seconds, **_said(messages), **_figures(run, scheme)}


def convert_together(run: Path, schemes: Sequence[str]) -> dict[str, Row]:
    """All schemes by one command, which starts TensorFlow once; the `convert` section of the copy is replaced.

    All but `qat`, which a spec refuses where the model cannot be trained on.
    """
    if "qat" in schemes and len(schemes) > 1:
        rest = [scheme for scheme in schemes if scheme != "qat"]
        rows = {**convert_together(run, rest), "qat": convert(run, "qat")}
        return {scheme: rows[scheme] for scheme in schemes}
    spec_file = run / "spec.yaml"
    spec = yaml.safe_load(spec_file.read_text(encoding="utf-8"))
    spec["convert"] = [ENTRIES.get(scheme, {"quantize": scheme}) for scheme in schemes]
    spec_file.write_text(yaml.safe_dump(spec, sort_keys=False), encoding="utf-8")
    _forget(run, schemes)
    done = mltool(["convert", str(run), "--json", "--force"])
    document = document_of(done.stdout)
    if document is None:
        return {
            name: {"exit": done.returncode, "error": "no JSON document", "said": done.stderr[-2000:]}
            for name in schemes
        }
    messages = document.get("error", {}).get("messages", [])
    rows = {}
    for scheme in schemes:
        own = [message for message in messages if message["message"].startswith(f"{scheme}: ")]
        figures = _figures(run, scheme)
        if not figures.get("verified"):
            own = own or messages
        # The code of the command is that of the first failure: 8 where there is a file of the right scheme, else 7.
        rows[scheme] = {"exit": (8 if figures.get("read_back") else 7) if own else 0, **_said(own), **figures}
    return rows


def _forget(run: Path, schemes: Sequence[str]) -> None:
    """What an earlier conversion left must not be taken for this one's."""
    for scheme in schemes:
        for folder in (run / "lite", run / "lite" / "rejected"):
            (folder / f"{scheme}.json").unlink(missing_ok=True)


def _said(messages: Sequence[dict[str, Any]]) -> Row:
    if not messages:
        return {}
    return {
        "error": "; ".join(message["message"] for message in messages),
        "hint": "; ".join(dict.fromkeys(message.get("hint") or "" for message in messages)),
    }


def _figures(run: Path, scheme: str) -> Row:
    """Of the file that is there, kept or rejected."""
    for folder in (run / "lite", run / "lite" / "rejected"):
        file = folder / f"{scheme}.json"
        if file.is_file():
            record = json.loads(file.read_text(encoding="utf-8"))
            broken = [check["message"] for check in record["checks"] if not check["kept"]]
            return {**{key: record[key] for key in KEPT}, "broken": broken}
    return {}


def document_of(text: str) -> Row | None:
    """JSON, or None."""
    try:
        found: Row = json.loads(text)
    except ValueError:
        return None
    return found

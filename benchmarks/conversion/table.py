"""Every trained model under every scheme: what `mltool convert` makes of it, and what the bare converter makes.

    python benchmarks/conversion/models.py --data DATA --runs RUNS          trains them
    python benchmarks/conversion/table.py RUNS --output table.json          fills the table, and prints it
    python benchmarks/conversion/table.py RUNS --output table.json --schemes int4,qat --models gru,resnet8 --again
    python benchmarks/conversion/table.py RUNS --output table.json --twice  converts in two copies, compares the bytes

Each conversion is a process of its own (`mltool convert RUN --quantize SCHEME --json --force`) on a copy of the run,
with the limits of its spec. What is in the JSON file already is not made again without --again, so that it can be
stopped at any time. Files are left in --work; without it they go with the temporary folder.
"""

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import bare
from models import MODELS, mltool
from table_text import markdown

SCHEMES = ("none", "dynamic", "float16", "int8", "int8-io")

Row = dict[str, Any]


class Table:
    """The JSON file that a table is kept in.

    Args:
        path: of the file; read where it is there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        for part in ("converted", "bare", "twice"):
            self.document.setdefault(part, {})

    def has(self, part: str, key: str) -> bool:
        """Whether a row is there."""
        return key in self.document[part]

    def put(self, part: str, key: str, row: Row) -> None:
        """Keeps a row, and the file at once."""
        self.document[part][key] = row
        made = self.path.with_suffix(".part")
        made.write_text(json.dumps(self.document, indent=1) + "\n", encoding="utf-8")
        made.replace(self.path)


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
    """Runs `mltool convert`, and gathers what it said, of a file that it rejected too."""
    record_file, rejected = (run / "lite" / part / f"{scheme}.json" for part in ("", "rejected"))
    rejected.unlink(missing_ok=True)
    started = time.perf_counter()
    done = mltool(["convert", str(run), "--quantize", scheme, "--json", "--force"])
    row: Row = {"exit": done.returncode, "seconds": round(time.perf_counter() - started, 1)}
    document = _document(done.stdout)
    if document is None:
        return {**row, "error": "no JSON document", "said": done.stderr[-2000:]}
    if "error" in document:
        messages = document["error"]["messages"]
        row["error"] = "; ".join(message["message"] for message in messages)
        row["hint"] = "; ".join(message.get("hint") or "" for message in messages)
    file = rejected if done.returncode else record_file
    if file.is_file():
        record = json.loads(file.read_text(encoding="utf-8"))
        row |= {key: record[key] for key in ("bytes", "sha256", "metric", "agreement", "read_back", "verified")}
        row["broken"] = [check["message"] for check in record["checks"] if not check["kept"]]
    return row


def _document(text: str) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads(text)
    except ValueError:
        return None
    return found


def call_bare(*words: str) -> tuple[list[Row], str]:
    """A command of `bare.py`, in a process of its own: its rows, and how it ended where it ended badly."""
    command = [sys.executable, str(Path(bare.__file__)), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    rows: list[Row] = [json.loads(line) for line in done.stdout.splitlines()]
    if not done.returncode:
        return rows, ""
    last = (done.stderr.strip().splitlines() or [""])[-1]
    return rows, f"killed by signal {-done.returncode}" if done.returncode < 0 else f"exit {done.returncode}: {last}"


def bare_rows(run: Path, schemes: Sequence[str], folder: str) -> dict[str, Row]:
    """What the bare converter makes of a run, by scheme."""
    prepared, problem = call_bare("prepare", str(run), folder)
    if not prepared:
        return {scheme: {"error": problem} for scheme in schemes}
    found: dict[str, Row] = {}
    while left := [scheme for scheme in schemes if scheme not in found]:
        rows, problem = call_bare("convert", folder, *left)
        found |= {row["scheme"]: row for row in rows}
        if problem and len(rows) < len(left):  # the next one crashed it; those after it have another try
            found[left[len(rows)]] = {"error": problem}
    files = [str(Path(folder) / f"{scheme}.tflite") for scheme, row in found.items() if "bytes" in row]
    for row in call_bare("measure", str(run), *files)[0] if files else ():
        found[row["scheme"]] |= row
    return found


def compare_twice(run: Path, scheme: str) -> Row:
    """Converts in two copies of a run, each of which exports its own SavedModel, and compares the files."""
    hashes: list[str | None] = []
    for _ in range(2):
        with tempfile.TemporaryDirectory() as folder:
            copy = copy_of(run, Path(folder), with_saved_model=False)
            # Rejected files count too: what is compared is what was made, not whether it was good enough.
            mltool(["convert", str(copy), "--quantize", scheme, "--json", "--force"])
            files = sorted((copy / "lite").glob(f"**/{scheme}.tflite"))
            hashes.append(hashlib.sha256(files[0].read_bytes()).hexdigest() if files else None)
    return {"sha256": hashes, "identical": hashes[0] is not None and hashes[0] == hashes[1]}


def fill(arguments: argparse.Namespace, table: Table, work: Path) -> None:
    """Every row that is asked for and not there."""
    for name in arguments.models:
        run = arguments.runs / name
        if not (run / "model.keras").is_file():
            print(f"{name}: not trained, left out", file=sys.stderr)
            continue
        for scheme in arguments.schemes:
            key, part = f"{name}/{scheme}", "twice" if arguments.twice else "converted"
            if table.has(part, key) and not arguments.again:
                continue
            row = compare_twice(run, scheme) if arguments.twice else convert(copy_of(run, work), scheme)
            table.put(part, key, row)
            print(f"{key}: {row.get('error') or ('identical' if row.get('identical') else '')}", file=sys.stderr)
        asked = [scheme for scheme in arguments.schemes if scheme in bare.SCHEMES]
        missing = [scheme for scheme in asked if arguments.again or not table.has("bare", f"{name}/{scheme}")]
        if missing and arguments.bare and not arguments.twice:
            with tempfile.TemporaryDirectory() as folder:
                for scheme, row in bare_rows(copy_of(run, work), missing, folder).items():
                    table.put("bare", f"{name}/{scheme}", row)


def main() -> None:
    """Fills the table, and prints it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, help="the folder with the runs of models.py")
    parser.add_argument("--output", type=Path, required=True, help="JSON file of the table; the same name with .md too")
    parser.add_argument("--schemes", type=lambda text: text.split(","), default=list(SCHEMES))
    parser.add_argument("--models", type=lambda text: text.split(","), default=list(MODELS))
    parser.add_argument("--again", action="store_true", help="rows that are there already, too")
    parser.add_argument("--twice", action="store_true", help="compare the bytes of two conversions instead")
    parser.add_argument("--no-bare", dest="bare", action="store_false", help="without the bare converter")
    parser.add_argument("--work", type=Path, help="where the copies of the runs go, and stay")
    arguments = parser.parse_args()
    if unknown := [name for name in arguments.models if name not in MODELS]:
        parser.error(f"no model is called {', '.join(unknown)}; there are {', '.join(MODELS)}")
    table = Table(arguments.output)
    with tempfile.TemporaryDirectory() as scratch:
        work = arguments.work or Path(scratch)
        work.mkdir(parents=True, exist_ok=True)
        fill(arguments, table, work)
    text = markdown(table.document)
    arguments.output.with_suffix(".md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()

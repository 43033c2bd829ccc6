"""Every trained model under every scheme: what `mltool convert` makes of it, and what the bare converter makes.

    python benchmarks/conversion/models.py --data DATA --runs RUNS          trains them
    python benchmarks/conversion/table.py RUNS --output table.json          fills the table, and prints it
    python benchmarks/conversion/table.py RUNS --output table.json --schemes int4,qat --models gru,resnet8 --again
    python benchmarks/conversion/table.py RUNS --output table.json --twice  converts in two copies, compares the bytes

Each conversion is a process of its own (`mltool convert RUN --quantize SCHEME --json --force`) on a copy of the run,
with the limits of its spec, auto-0.5 with `max_drop: 0.5%`. What is in the JSON file already is not made again without
--again, so that it can be stopped at any time. Files are left in --work; without it they go with the temporary folder.
"""

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import bare
from commands import ENTRIES, HALF, Row, convert, convert_together, copy_of
from models import MODELS
from table_text import markdown

SCHEMES = (
    *("none", "dynamic", "float16", "int8", "int8-io", "int8-tensor", "int16x8", "int4", "int4-block32"),
    *("weight-only", "qat", "auto", HALF),
)


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

    def put_all(self, part: str, name: str, rows: dict[str, Row]) -> None:
        """Keeps rows of a model by scheme, and the file at once."""
        for scheme, row in rows.items():
            self.document[part][f"{name}/{scheme}"] = row
            print(f"{part} {name}/{scheme}: {row.get('error') or 'done'}", file=sys.stderr)
        made = self.path.with_suffix(".part")
        made.write_text(json.dumps(self.document, indent=1) + "\n", encoding="utf-8")
        made.replace(self.path)


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


def compare_twice(run: Path, schemes: Sequence[str]) -> dict[str, Row]:
    """Converts in two copies of a run, each of which exports its own SavedModel, and compares the files."""
    hashes: list[dict[str, str | None]] = []
    for _ in range(2):
        with tempfile.TemporaryDirectory() as folder:
            copy = copy_of(run, Path(folder), with_saved_model=False)
            convert_together(copy, schemes)
            hashes.append({scheme: _hash_of(copy / "lite", scheme) for scheme in schemes})
    first, second = hashes
    return {
        scheme: {
            "sha256": [first[scheme], second[scheme]],
            "identical": first[scheme] is not None and first[scheme] == second[scheme],
        }
        for scheme in schemes
    }


def _hash_of(folder: Path, scheme: str) -> str | None:
    """Rejected files count too: what is compared is what was made, not whether it was good enough."""
    files = sorted(folder.glob(f"**/{scheme}.tflite"))
    return hashlib.sha256(files[0].read_bytes()).hexdigest() if files else None


def fill(arguments: argparse.Namespace, table: Table, work: Path) -> None:
    """Every row that is asked for and not there."""
    for name in arguments.models:
        run = arguments.runs / name
        if not (run / "model.keras").is_file():
            print(f"{name}: not trained, left out", file=sys.stderr)
            continue
        part = "twice" if arguments.twice else "converted"
        missing = [key for key in arguments.schemes if arguments.again or not table.has(part, f"{name}/{key}")]
        if missing and arguments.twice:
            table.put_all(part, name, compare_twice(run, missing))
        elif missing and arguments.together:
            table.put_all(part, name, convert_together(copy_of(run, work), missing))
        else:
            for scheme in missing:
                one = convert_together(copy_of(run, work), [scheme]) if scheme in ENTRIES else None
                table.put_all(part, name, one or {scheme: convert(copy_of(run, work), scheme)})
        asked = [scheme for scheme in arguments.schemes if scheme in bare.SCHEMES]
        missing = [scheme for scheme in asked if arguments.again or not table.has("bare", f"{name}/{scheme}")]
        if missing and arguments.bare and not arguments.twice:
            with tempfile.TemporaryDirectory() as folder:
                table.put_all("bare", name, bare_rows(copy_of(run, work), missing, folder))


def main() -> None:
    """Fills the table, and prints it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, help="the folder with the runs of models.py")
    parser.add_argument("--output", type=Path, required=True, help="JSON file of the table; the same name with .md too")
    parser.add_argument("--schemes", type=lambda text: text.split(","), default=list(SCHEMES))
    parser.add_argument("--models", type=lambda text: text.split(","), default=list(MODELS))
    parser.add_argument("--again", action="store_true", help="rows that are there already, too")
    parser.add_argument("--twice", action="store_true", help="compare the bytes of two conversions instead")
    parser.add_argument("--together", action="store_true", help="one command a model instead of one a scheme: quicker")
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

"""A table larger than it should be in memory: bytes of memory a row, and rows/s against `make_csv_dataset`.

    python benchmarks/large_table.py                    2 GB of CSV (12 million rows), and half of them
    python benchmarks/large_table.py --rows 1000000     smaller

The memory is the peak of the whole process (resident pages, those of files too) while data are read, hashed, split,
scanned and run through once, above what it was when everything was imported; its growth is what 12 million rows take
more than 6 million, a row. The speed of `tf.data.experimental.make_csv_dataset`, with its defaults and the same batch
size, is that of its first 400,000 rows. Every figure comes from a process of its own.
"""

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from mltool import extras

BATCH_SIZE = 128
BARE_ROWS = 400_000
BLOCK = 500_000

SPEC = """\
name: large
data: {{source: {{path: {path}, target: label}}, cache: disk, batch_size: {batch_size}}}
model:
  preprocess: auto
  layers: [{{Concatenate: {{inputs: [numbers, categories]}}}}, {{Dense: {{units: 1}}}}]
train: {{loss: {{BinaryCrossentropy: {{from_logits: true}}}}}}
"""


def write_table(path: Path, rows: int) -> None:
    """16 columns of numbers, 3 of categories, a label: 169 bytes a row."""
    pa, csv = extras.require("pyarrow"), extras.require("pyarrow.csv")
    random = np.random.default_rng(0)
    words = np.asarray([f"cat{number}" for number in range(20)])
    writer = None
    with pa.OSFile(str(path), "wb") as file:
        for start in range(0, rows, BLOCK):
            count = min(BLOCK, rows - start)
            columns: dict[str, Any] = {
                f"n{i}": random.normal(size=count).astype(np.float32).round(6) for i in range(16)
            }
            columns |= {f"c{i}": words[random.integers(0, 20, count)] for i in range(3)}
            table = pa.table({**columns, "label": random.integers(0, 2, count)})
            writer = writer or csv.CSVWriter(file, table.schema)
            writer.write(table)
        if writer is not None:
            writer.close()


def measure_ours(path: Path) -> dict[str, float]:
    """Peak memory in bytes above that before, seconds until the first batch, of an epoch, and of a part of the next."""
    from mltool.data.dataset import Dataset
    from mltool.data.pipeline import Pipeline
    from mltool.data.scan import scan
    from mltool.spec.load import load_spec

    extras.tensorflow(), extras.keras(), extras.require("pyarrow.csv")
    with tempfile.TemporaryDirectory() as folder:
        spec = Path(folder) / "large.yaml"
        spec.write_text(SPEC.format(path=path, batch_size=BATCH_SIZE), encoding="utf-8")
        loaded = load_spec(spec)
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here on
    before, started = _memory("VmRSS"), time.perf_counter()
    data = Dataset(loaded)
    data.record()
    scan(data)
    pipeline = Pipeline(data.split("train"), BATCH_SIZE, seed=1)
    opened = time.perf_counter() - started
    started = time.perf_counter()
    for _ in pipeline.epoch(0):
        pass
    first, started = time.perf_counter() - started, time.perf_counter()
    for _ in itertools.islice(pipeline.epoch(1), BARE_ROWS // BATCH_SIZE):
        pass
    later = time.perf_counter() - started
    rows, peak = data.source.num_samples, _memory("VmHWM") - before
    return {"rows": rows, "peak": peak, "opened": opened, "first": first, "later": later}


def measure_bare(path: Path) -> dict[str, float]:
    """Rows of a second."""
    tf = extras.tensorflow()
    started, count = time.perf_counter(), 0
    dataset = tf.data.experimental.make_csv_dataset(str(path), BATCH_SIZE, label_name="label", num_epochs=1)
    for _ in dataset:
        count += BATCH_SIZE
        if count >= BARE_ROWS:
            break
    return {"rows_per_second": count / (time.perf_counter() - started)}


def _memory(key: str) -> int:
    """Bytes, from the kernel's status of this process."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key))
    return int(line.split()[1]) * 1024


def main() -> None:
    """Runs the benchmark and prints its figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=12_000_000)
    parser.add_argument("--measure", nargs=2, metavar=("ours|bare", "CSV"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        what, path = arguments.measure
        print(json.dumps((measure_ours if what == "ours" else measure_bare)(Path(path))))
        return
    with tempfile.TemporaryDirectory() as folder:
        whole, half = Path(folder) / "whole.csv", Path(folder) / "half.csv"
        write_table(whole, arguments.rows)
        write_table(half, arguments.rows // 2)
        print(f"{whole.stat().st_size:,} bytes, {arguments.rows:,} rows of 20 columns, batches of {BATCH_SIZE}")
        report(_child("ours", whole), _child("ours", half), _child("bare", whole))


def _child(what: str, path: Path) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, __file__, "--measure", what, str(path)], check=True, capture_output=True, text=True
    )
    return json.loads(done.stdout.splitlines()[-1])  # type: ignore[no-any-return]


def report(ours: dict[str, float], half: dict[str, float], bare: dict[str, float]) -> None:
    """Prints memory a row, and speeds."""
    growth = (ours["peak"] - half["peak"]) / (ours["rows"] - half["rows"])
    peaks = " and ".join(f"{part['peak'] / 2**20:,.0f}" for part in (half, ours))
    print(f"memory: {peaks} MB above the imports; {growth:.1f} bytes a row")
    speed = bare["rows_per_second"]
    whole = ours["rows"] / (ours["opened"] + ours["first"])
    later = BARE_ROWS / ours["later"]
    print(f"make_csv_dataset: {speed:,.0f} rows/s")
    print(f"mltool: {ours['opened']:.0f} s to the first batch; all of it and the first epoch {whole:,.0f} rows/s, "
          f"ratio {whole / speed:.1f}; later epochs {later:,.0f} rows/s, ratio {later / speed:.1f}")  # fmt: skip


if __name__ == "__main__":
    main()

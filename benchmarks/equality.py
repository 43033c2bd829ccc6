"""Equality of strategies: one spec on one device, on replicas and in worker processes; the largest difference.

    python benchmarks/equality.py
    python benchmarks/equality.py --columns "mirrored 2,mirrored 4"      without worker processes

Losses are summed over the true global batch, so what is left is the order of floating-point sums. Two rows are not
equal by nature, and stand here for that: Dropout draws per replica, and BatchNormalization that is not synchronized
normalizes every share by itself.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

DENSE: dict[str, Any] = {"Dense": {"units": 10}}
CONVOLUTION: dict[str, Any] = {
    "Conv2D": {"filters": 8, "kernel_size": 3, "use_bias": False, "kernel_regularizer": "L2"}
}
PLAIN = [CONVOLUTION, "ReLU", "Flatten", DENSE]
NORMALIZED = [CONVOLUTION, "BatchNormalization", "ReLU", "Flatten", DENSE]
UNSYNCHRONIZED = [CONVOLUTION, {"BatchNormalization": {"synchronized": False}}, "ReLU", "Flatten", DENSE]

SGD, ADAM = {"SGD": {"learning_rate": 0.1}}, {"Adam": {"learning_rate": 0.003}}
ROWS: dict[str, dict[str, Any]] = {
    "plain SGD": {"layers": PLAIN, "optimizer": SGD},
    "Adam": {"layers": PLAIN, "optimizer": ADAM},
    "EMA": {"layers": PLAIN, "optimizer": {"Adam": {"learning_rate": 0.003, "use_ema": True, "ema_momentum": 0.9}}},
    "clipping": {"layers": PLAIN, "optimizer": {"SGD": {"learning_rate": 0.1, "global_clipnorm": 0.05}}},
    "accumulation": {"layers": PLAIN, "optimizer": ADAM, "accumulate": 2},
    "synchronized BatchNormalization": {"layers": NORMALIZED, "optimizer": SGD},
    "BatchNormalization, not synchronized": {"layers": UNSYNCHRONIZED, "optimizer": SGD},
    "Dropout": {"layers": [CONVOLUTION, "ReLU", "Flatten", {"Dropout": {"rate": 0.3}}, DENSE], "optimizer": SGD},
}
COLUMNS: dict[str, Any] = {
    "mirrored 2": {"mirrored": {"devices": ["CPU:0", "CPU:1"]}},
    "mirrored 4": {"mirrored": {"devices": ["CPU:0", "CPU:1", "CPU:2", "CPU:3"]}},
    "multi_worker 2": 2,
    "multi_worker 3": 3,
}


def spec_of(row: dict[str, Any], strategy: Any) -> dict[str, Any]:
    """Two epochs of the digits: 1,293 samples in batches of 64, so that the last one has 13."""
    options = {name: value for name, value in row.items() if name != "layers"}
    return {
        "name": "equality",
        "seed": 7,
        "data": {"source": {"dataset": "digits"}, "batch_size": 64},
        "model": {"preprocess": [{"Rescaling": {"scale": 0.0625}}], "layers": row["layers"]},
        "train": {
            "epochs": 2,
            "keep": "last",
            "loss": {"SparseCategoricalCrossentropy": {"from_logits": True}},
            "metrics": ["accuracy"],
            "strategy": strategy,
            **options,
        },
    }


def run(row: str, column: str | None, folder: Path) -> tuple[list["np.ndarray[Any, Any]"], dict[str, float]]:
    """Trains; gives the weights and the results of the last epoch."""
    column_of = COLUMNS.get(column or "", "auto")
    workers = column_of if isinstance(column_of, int) else None
    file = folder / "spec.yaml"
    file.write_text(json.dumps(spec_of(ROWS[row], "multi_worker" if workers else column_of)), encoding="utf-8")
    target = folder / f"{row} {column}".replace(" ", "-").replace(",", "")
    verb = ["launch", str(file), "--workers", str(workers)] if workers else ["train", str(file)]
    command = [sys.executable, "-m", "mltool.cli.main", *verb, "--run-dir", str(target)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ, check=False)
    if done.returncode:
        raise SystemExit(f"{row}, {column}: exit {done.returncode}\n{done.stderr[-2000:]}")
    import keras

    weights = keras.models.load_model(target / "model.keras", compile=False).get_weights()
    last = json.loads((target / "metrics.jsonl").read_text().splitlines()[-1])
    return weights, {name: last[name] for name in ("loss", "accuracy", "val_loss", "val_accuracy")}


def main() -> None:
    """Measures, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--columns", default=",".join(COLUMNS))
    parser.add_argument("--rows", default=";".join(ROWS), help="separated by semicolons")
    arguments = parser.parse_args()
    columns, rows = arguments.columns.split(","), arguments.rows.split(";")
    print("largest difference of a weight / of a loss or metric, to one device")
    print(f"| {'':36} | " + " | ".join(f"{column:18}" for column in columns) + " |")
    print(f"|{'-' * 38}|" + f"{'-' * 20}|" * len(columns))
    for row in rows:
        cells = []
        with tempfile.TemporaryDirectory() as folder:
            weights, results = run(row, None, Path(folder))
            for column in columns:
                others, other_results = run(row, column, Path(folder))
                pairs = zip(weights, others, strict=True)
                of_weights = max(float(np.abs(one - other).max()) for one, other in pairs)
                of_results = max(abs(results[name] - other_results[name]) for name in results)
                cells.append(f"{of_weights:.1e} / {of_results:.1e}")
        print(f"| {row:36} | " + " | ".join(f"{cell:18}" for cell in cells) + " |", flush=True)


if __name__ == "__main__":
    main()

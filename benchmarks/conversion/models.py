"""The ten models of the conversion benchmark, and the training of each: `mltool train` on `specs/NAME.yaml`.

    python benchmarks/conversion/models.py --data DATA --runs RUNS [NAME ...]

DATA is a folder with the files of the table below; RUNS gets a run directory a model. What is trained already is left
alone. Seeds are in the specs.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

SPECS = Path(__file__).parent / "specs"


@dataclass(frozen=True)
class Model:
    """One row of the benchmark.

    Attributes:
        name: of the spec and of the run.
        title: in the tables.
        data: what `--set` gives the spec, as files of the data folder by key.
    """

    name: str
    title: str
    data: dict[str, str]


_IMAGES, _SOUNDS, _TEXTS = "cifar10_png_8k.zip", "fsdd_wav_1500.zip", "sms_spam.csv"
_PATH = "data.source.path"

MODELS: dict[str, Model] = {
    model.name: model
    for model in (
        Model("lstm", "LSTM, GunPoint", {_PATH: "timeseries/GunPoint.npz"}),
        Model("gru", "GRU, BasicMotions", {_PATH: "timeseries/BasicMotions.npz"}),
        Model("adult_mlp", "MLP, adult, raw", {_PATH: "adult_train.csv", "data.source.test_path": "adult_test.csv"}),
        Model("autoencoder", "autoencoder, sounds", {_PATH: _SOUNDS}),
        Model("text", "bag of words, SMS", {_PATH: _TEXTS}),
        Model("transformer", "Transformer, SMS", {_PATH: _TEXTS}),
        Model("ds_cnn", "DS-CNN, sounds", {_PATH: _SOUNDS}),
        Model("mobilenet_v2", "MobileNetV2-0.35, 96x96", {_PATH: _IMAGES}),
        Model("mobilenet_v1", "MobileNetV1-0.25, 96x96", {_PATH: _IMAGES}),
        Model("resnet8", "ResNet8, CIFAR-10", {_PATH: _IMAGES}),
    )
}
"""By name, the quickest to train first."""


def train_command(model: Model, data: Path, run: Path) -> list[str]:
    """The words of the command line."""
    given = [word for key, file in model.data.items() for word in ("--set", f"{key}={data / file}")]
    return ["train", str(SPECS / f"{model.name}.yaml"), *given, "--run-dir", str(run)]


def mltool(words: Sequence[str], *, quiet: bool = True) -> subprocess.CompletedProcess[str]:
    """Runs mltool in a process of its own."""
    command = [sys.executable, "-m", "mltool.cli.main", *words]
    stderr = subprocess.PIPE if quiet else None
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=stderr, text=True, check=False)


def main() -> None:
    """Trains what is not there yet, and prints the metrics on the test split."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(MODELS)}; all when left out")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--runs", type=Path, required=True)
    arguments = parser.parse_args()
    if unknown := [name for name in arguments.names if name not in MODELS]:
        parser.error(f"no model is called {', '.join(unknown)}; there are {', '.join(MODELS)}")
    for name in arguments.names or MODELS:
        run = arguments.runs / name
        started, how = time.perf_counter(), "trained before"
        if not (run / "model.keras").is_file():
            words = train_command(MODELS[name], arguments.data.absolute(), run)
            print("mltool " + " ".join(words), file=sys.stderr)
            if mltool([*words, "--quiet"], quiet=False).returncode:
                raise SystemExit(f"{name}: mltool train failed; what it said is above")
            how = f"trained in {time.perf_counter() - started:.0f} s"
        found = json.loads(mltool(["evaluate", str(run), "--json"]).stdout)
        metrics = ", ".join(f"{key} {value:.4f}" for key, value in found["metrics"].items())
        print(f"{name}: {metrics} on {found['samples']:,} test samples; {how}; {run}", flush=True)


if __name__ == "__main__":
    main()

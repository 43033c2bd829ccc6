"""Training throughput and memory: mltool against loops written by hand, Keras' `fit`, and PyTorch.

    python benchmarks/training_loop.py --torch-python torchvenv/bin/python     two MLPs, small CNN, LSTM; random samples
    python benchmarks/training_loop.py configs/digits.yaml                     a spec of classes, with one input

Every contestant trains the same model on the same samples in a process of its own. In a round each runs one epoch while
the others wait, in an order that moves on from round to round, so that a machine whose speed drifts favors nobody. The
figure is the median of the ratios of a round, and how far they go; above 1 mltool is faster. Memory is the most that a
process held, its libraries included.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from turns import Player, Turn

from mltool.data.dataset import Dataset
from mltool.spec.load import load_spec

CONTESTANTS = ("mltool", "chunked", "chunked, samples shuffled", "step", "fit", "torch")
MEANINGS = {
    "mltool": "mltool's loop",
    "chunked": "by hand: an epoch in one @tf.function, one gather a batch",
    "chunked, samples shuffled": "the same, from_tensor_slices and shuffle",
    "step": "by hand: one @tf.function step called from Python",
    "fit": "Keras' fit",
    "torch": "PyTorch, eager",
}
MODELS: dict[str, dict[str, Any]] = {
    "small mlp": {
        "shape": (32768, 64),
        "layers": [{"Dense": {"units": 64, "activation": "relu"}}, {"Dense": {"units": 10}}],
    },
    "mlp": {
        "shape": (32768, 784),
        "layers": [{"Dense": {"units": 128, "activation": "relu"}}, {"Dense": {"units": 10}}],
    },
    "cnn": {
        "shape": (1024, 32, 32, 3),
        "layers": [
            {"Conv2D": {"filters": 32, "kernel_size": 3, "activation": "relu"}},
            "MaxPooling2D",
            {"Conv2D": {"filters": 64, "kernel_size": 3, "activation": "relu"}},
            "MaxPooling2D",
            {"Conv2D": {"filters": 64, "kernel_size": 3, "activation": "relu"}},
            "Flatten",
            {"Dense": {"units": 64, "activation": "relu"}},
            {"Dense": {"units": 10}},
        ],
    },
    "lstm": {"shape": (4096, 32, 8), "layers": [{"LSTM": {"units": 32}}, {"Dense": {"units": 10}}]},
}
"""`training_in_torch.py` has the same layers. What a step costs beside its arithmetic shows in the small MLP."""
LEARNING_RATE = 1e-3
HELD_OUT = 128
"""Samples of validation and test, which a spec must have."""


def write_spec(name: str, folder: Path, batch_size: int) -> Path:
    """Random samples whose class follows from them, and a spec of the model for them."""
    random = np.random.default_rng(0)
    samples, *shape = MODELS[name]["shape"]
    x = random.standard_normal((samples + 2 * HELD_OUT, *shape), dtype=np.float32)
    y = (x.reshape(len(x), -1) @ random.standard_normal((int(np.prod(shape)), 10), dtype=np.float32)).argmax(1)
    parts = {"train": slice(None, samples), "validation": slice(samples, -HELD_OUT), "test": slice(-HELD_OUT, None)}
    np.savez(
        folder / "data.npz",
        **{f"{key}_{part}": {"x": x, "y": y}[key][rows] for part, rows in parts.items() for key in "xy"},
    )
    spec = {
        "name": name.replace(" ", "_"),
        "data": {"source": {"path": str(folder / "data.npz")}, "batch_size": batch_size},
        "model": {"layers": MODELS[name]["layers"]},
        "train": {
            "optimizer": {"Adam": {"learning_rate": LEARNING_RATE}},
            "loss": {"SparseCategoricalCrossentropy": {"from_logits": True}},
            "metrics": ["accuracy"],
        },
    }
    (folder / "spec.yaml").write_text(json.dumps(spec), encoding="utf-8")
    return folder / "spec.yaml"


def write_samples(spec: Path, folder: Path) -> tuple[int, int]:
    """The training samples of a spec, for those that do not know mltool; gives their number and the batch size."""
    checked = load_spec(spec)
    train = Dataset(checked).split("train")
    (values,) = train.inputs.values()
    np.save(folder / "x.npy", np.asarray(values[:], np.float32))
    np.save(folder / "y.npy", np.asarray(train.targets[:], np.int64))
    return len(train), checked.data.batch_size


def players(name: str, spec: Path, folder: Path, batch_size: int, arguments: argparse.Namespace) -> Iterator[Player]:
    """Starts the contestants, all at once."""
    here = Path(__file__).parent
    environment = {**os.environ, "TF_ENABLE_ONEDNN_OPTS": "0", "TF_CPP_MIN_LOG_LEVEL": "2"}
    for contestant in arguments.contestants:
        if contestant != "torch":
            words = [sys.executable, here / "training_in_tensorflow.py", contestant, spec, folder, arguments.threads]
        elif arguments.torch_python and name in MODELS:
            script = here / "training_in_torch.py"
            words = [arguments.torch_python, script, name, folder, batch_size, LEARNING_RATE, arguments.threads]
        else:
            why = "--torch-python is not given" if name in MODELS else "it knows no specs"
            print(f"{name}: without PyTorch, as {why}", file=sys.stderr)
            continue
        yield Player(contestant, [str(word) for word in words], environment)


def measure(name: str, spec: Path | None, arguments: argparse.Namespace) -> dict[str, Any]:
    """All contestants on one model."""
    with tempfile.TemporaryDirectory() as made, ExitStack() as stack:
        folder = Path(made)
        spec = spec or write_spec(name, folder, arguments.batch_size)
        samples, batch_size = write_samples(spec, folder)
        versions: dict[str, str] = {}
        playing = []
        for player in players(name, spec, folder, batch_size, arguments):
            stack.callback(player.stop)
            playing.append(player)
        for player in playing:
            versions |= player.versions()
        for player in playing * arguments.warm_up:  # compiles, and finds the length of a chunk
            player.turn()
        turns: dict[str, list[Turn]] = {player.name: [] for player in playing}
        for number in range(arguments.rounds):
            first = number % len(playing)
            for player in playing[first:] + playing[:first]:
                turns[player.name].append(player.turn())
    rows = {contestant: row_of(turns["mltool"], own, samples) for contestant, own in turns.items()}
    return {"model": name, "samples": samples, "batch_size": batch_size, "versions": versions, "contestants": rows}


def row_of(ours: Sequence[Turn], theirs: Sequence[Turn], samples: int) -> dict[str, float]:
    """The figures of a contestant."""
    ratios = [their.seconds / our.seconds for our, their in zip(ours, theirs, strict=True)]
    return {
        "samples_per_second": samples / statistics.median(turn.seconds for turn in theirs),
        "ratio": statistics.median(ratios),
        "ratio_min": min(ratios),
        "ratio_max": max(ratios),
        "peak_bytes": theirs[-1].peak_bytes,
        "loss": theirs[-1].loss,
    }


def text_of(found: dict[str, Any], arguments: argparse.Namespace) -> str:
    """The table of a model."""
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    lines = [
        f"{found['model']}: {found['samples']:,} samples an epoch, batch {found['batch_size']},"
        f" {arguments.rounds} rounds, {arguments.threads} threads each, oneDNN off; {versions}",
        f"  {'':58} {'samples/s':>10} {'mltool is':>10} {'(least to most)':>17} {'peak':>8} {'loss':>7}",
    ]
    for name, row in found["contestants"].items():
        spread = f"({row['ratio_min']:.3f} to {row['ratio_max']:.3f})"
        lines.append(
            f"  {MEANINGS[name]:58} {row['samples_per_second']:10,.0f} {row['ratio']:10.3f} {spread:>17}"
            f" {row['peak_bytes'] / 1e6:5.0f} MB {row['loss']:7.4f}"
        )
    return "\n".join(lines)


def main() -> None:
    """Measures, and prints a table a model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("specs", nargs="*", type=Path, help="instead of the models")
    parser.add_argument("--models", type=lambda text: text.split(","), default=list(MODELS))
    parser.add_argument("--contestants", type=lambda text: text.split("/"), default=list(CONTESTANTS))
    parser.add_argument("--rounds", type=int, default=15, help="epochs of each that count")
    parser.add_argument("--warm-up", type=int, default=4, help="epochs of each before")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--torch-python", help="a Python that has torch; without, PyTorch is left out")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    asked: list[tuple[str, Path | None]] = [(spec.stem, spec) for spec in arguments.specs]
    everything = []
    for name, spec in asked or [(name, None) for name in arguments.models]:
        everything.append(measure(name, spec, arguments))
        if not arguments.json:
            print(text_of(everything[-1], arguments), flush=True)
    if arguments.json:
        about = {"threads": arguments.threads, "onednn": False, "rounds": arguments.rounds}
        print(json.dumps({**about, "models": everything}, indent=2))


if __name__ == "__main__":
    main()

"""Training on one GPU: `mltool train` with JAX and PyTorch, and the same ResNet written by hand in PyTorch.

    python benchmarks/gpu_other_backends.py --output /tmp/gpu --data cifar10_8k.npz
    python benchmarks/gpu_other_backends.py --output /tmp/try --width 4 --samples 300 --epochs 2     on a CPU, to try it

Needs JAX and PyTorch, and no TensorFlow. `--data` has uint8 images of 32x32x3 and labels of 0 to 9 as `x_train`,
`y_train`, `x_test`, `y_test`; without it they are random. All learn from the same samples in batches of one size, with
Adam, for the same number of epochs, without augmentation; the last tenth of the training samples validates. Samples per
second are the median over the epochs after the first two, of training steps alone: nothing is compiled there any more.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mltool import extras
from mltool.training.records import read_lines

WARM_UP = 2
"""Epochs that compile, or choose algorithms."""

BLOCKS = (2, 2, 2, 2)
"""Of each width, twice as wide every time: ResNet-18 (He et al., 2015, table 1), its first layer for small images."""

LEARNING_RATE, EPSILON, MOMENTUM = 1e-3, 1e-3, 0.99
"""Of Adam; and what Keras' BatchNormalization has."""


@dataclass
class Row:
    """What one training gave.

    Attributes:
        name: of it.
        samples_per_second: steady, of training steps.
        accuracy: of the validation samples after the last epoch.
        seconds: of all, starting and compiling included.
        error: why there are no figures.
    """

    name: str
    samples_per_second: float | None = None
    accuracy: float | None = None
    seconds: float = 0.0
    error: str | None = None


def layers_of(width: int) -> list[Any]:
    """The ResNet as a spec has it."""
    layers: list[Any] = [*_conv("stem", width, 3, 1, [])]
    previous = "stem_relu"
    for stage, blocks in enumerate(BLOCKS):
        for block in range(blocks):
            name, stride = f"s{stage}b{block}", 2 if stage and not block else 1
            filters = width * 2**stage
            layers += _conv(f"{name}_one", filters, 3, stride, [previous])
            layers += _conv(f"{name}_two", filters, 3, 1, [], is_last=True)
            shortcut = previous
            if stride > 1:
                layers += _conv(f"{name}_down", filters, 1, stride, [previous], is_last=True)
                shortcut = f"{name}_down_norm"
            layers += [{"Add": {"name": f"{name}_add", "inputs": [f"{name}_two_norm", shortcut]}}]
            layers += [{"ReLU": {"name": f"{name}_relu"}}]
            previous = f"{name}_relu"
    return [*layers, {"GlobalAveragePooling2D": {"name": "pool"}}, {"Dense": {"units": 10, "name": "answer"}}]


def _conv(name: str, filters: int, size: int, stride: int, inputs: list[str], *, is_last: bool = False) -> list[Any]:
    """A convolution, its normalization and, but where something is added first, its ReLU."""
    arguments = {"filters": filters, "kernel_size": size, "strides": stride, "padding": "same", "use_bias": False}
    own = {**arguments, "name": name, **({"inputs": inputs} if inputs else {})}
    norm = [{"BatchNormalization": {"name": f"{name}_norm"}}]
    return [{"Conv2D": own}, *norm, *([] if is_last else [{"ReLU": {"name": f"{name}_relu"}}])]


def spec_of(data: Path, options: argparse.Namespace, backend: str, precision: str) -> dict[str, Any]:
    """The spec of a training."""
    return {
        "name": "gpu",
        "seed": 1,
        "data": {
            "source": {"path": str(data)},
            "split": {"by": "order", "validation": 0.1},
            "batch_size": options.batch_size,
        },
        "model": {"preprocess": [{"Rescaling": {"scale": 1 / 255}}], "layers": layers_of(options.width)},
        "train": {
            "backend": backend,
            "precision": precision,
            "epochs": options.epochs,
            "keep": "last",
            "optimizer": {"Adam": {"learning_rate": LEARNING_RATE}},
            "loss": {"SparseCategoricalCrossentropy": {"from_logits": True}},
            "metrics": ["accuracy"],
        },
    }


def by_mltool(data: Path, options: argparse.Namespace, backend: str, precision: str) -> Row:
    """Runs `mltool train`."""
    name = f"mltool {backend} {precision}"
    file = options.output / f"{backend}_{precision}.yaml"
    file.write_text(json.dumps(spec_of(data, options, backend, precision)), encoding="utf-8")
    run = options.output / f"{backend}_{precision}-{time.time_ns()}"
    command = [sys.executable, "-m", "mltool.cli.main", "train", str(file), "--run-dir", str(run)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    (options.output / f"{backend}_{precision}.log").write_text(done.stdout + done.stderr, encoding="utf-8")
    lines = read_lines(run / "metrics.jsonl")
    if done.returncode:
        return Row(name, error=f"exit {done.returncode}: {' '.join(done.stderr.split())[-300:]}")
    rates = [line["samples_per_second"] for line in lines[WARM_UP:]]
    return Row(name, statistics.median(rates), lines[-1]["val_accuracy"])


def by_hand(data: Path, options: argparse.Namespace, *, precision: str, compiles: bool = False) -> Row:
    """The same in PyTorch, as its documentation has it: channels last, autocast, batches copied from pinned memory."""
    torch = extras.require("torch")
    torch.manual_seed(1)
    torch.backends.cudnn.benchmark = True
    torch.set_float32_matmul_precision("high")  # TensorFloat-32, as JAX and TensorFlow take it
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with np.load(data) as stored:
        images = torch.from_numpy(stored["x_train"]).permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)
        labels = torch.from_numpy(stored["y_train"].reshape(-1).astype(np.int64))
    count = len(labels) - round(0.1 * len(labels))
    model = _resnet(options.width).to(device, memory_format=torch.channels_last)
    run_model = torch.compile(model) if compiles else model
    optimizer = torch.optim.Adam(model.parameters(), LEARNING_RATE, eps=1e-7)
    loss_of = torch.nn.CrossEntropyLoss()
    cast = torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")

    def batch(rows: Any) -> tuple[Any, Any]:
        taken = images[rows], labels[rows]
        if device.type == "cuda":
            taken = taken[0].pin_memory(), taken[1].pin_memory()
        return taken[0].to(device, non_blocking=True).float() / 255, taken[1].to(device, non_blocking=True)

    rates = []
    for _ in range(options.epochs):
        model.train()
        order = torch.randperm(count)
        started = time.perf_counter()
        for rows in order.split(options.batch_size):
            inputs, targets = batch(rows)
            optimizer.zero_grad(set_to_none=True)
            with cast:
                loss = loss_of(run_model(inputs), targets)
            loss.backward()
            optimizer.step()
        loss.item()  # waits for the device
        rates.append(count / (time.perf_counter() - started))
    model.eval()
    with torch.no_grad(), cast:
        inputs, targets = batch(torch.arange(count, len(labels)))
        accuracy = float((run_model(inputs).argmax(1) == targets).float().mean())
    name = f"by hand PyTorch {precision}{' compiled' if compiles else ''}"
    return Row(name, statistics.median(rates[WARM_UP:]), accuracy)


def _resnet(width: int) -> Any:
    """`layers_of` in PyTorch, with Keras' initial weights and normalization."""
    torch = extras.require("torch")
    nn: Any = torch.nn
    module: Any = nn.Module

    class Block(module):  # type: ignore[misc]
        def __init__(self, before: int, filters: int, stride: int) -> None:
            super().__init__()
            self.body = nn.Sequential(
                *conv(before, filters, 3, stride), nn.ReLU(inplace=True), *conv(filters, filters, 3, 1)
            )
            self.shortcut = nn.Sequential(*conv(before, filters, 1, stride)) if stride > 1 else nn.Identity()

        def forward(self, inputs: Any) -> Any:
            return torch.relu(self.body(inputs) + self.shortcut(inputs))

    def conv(before: int, filters: int, size: int, stride: int) -> list[Any]:
        made = nn.Conv2d(before, filters, size, stride, padding=size // 2, bias=False)
        nn.init.xavier_uniform_(made.weight)
        return [made, nn.BatchNorm2d(filters, eps=EPSILON, momentum=1 - MOMENTUM)]

    layers = [*conv(3, width, 3, 1), nn.ReLU(inplace=True)]
    before = width
    for stage, blocks in enumerate(BLOCKS):
        for block in range(blocks):
            layers.append(Block(before, width * 2**stage, 2 if stage and not block else 1))
            before = width * 2**stage
    answer = nn.Linear(before, 10)
    nn.init.xavier_uniform_(answer.weight)
    nn.init.zeros_(answer.bias)
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), answer)


def data_of(options: argparse.Namespace) -> Path:
    """The file of the data; random ones are written, with labels that the mean color tells of."""
    if options.data is not None:
        return Path(options.data).resolve()
    numbers, count = np.random.default_rng(1), options.samples
    images = numbers.integers(0, 256, (count + count // 3, 32, 32, 3), dtype=np.uint8)
    labels = numbers.integers(0, 10, len(images))
    images = np.clip(images * 0.7 + labels[:, None, None, None] * 7, 0, 255).astype(np.uint8)
    file: Path = options.output / "random.npz"
    np.savez(file, x_train=images[:count], y_train=labels[:count], x_test=images[count:], y_test=labels[count:])
    return file


def timed(name: str, train: Callable[[], Row]) -> Row:
    """What a training gave, or why it failed: the others go on."""
    started = time.perf_counter()
    try:
        row = train()
    except Exception as error:  # whatever a backend raises
        row = Row(name, error=f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")
    row.seconds = time.perf_counter() - started
    return row


def told(row: Row) -> str:
    """A line of the table."""
    rate = "-" if row.samples_per_second is None else f"{row.samples_per_second:,.0f}"
    accuracy = "-" if row.accuracy is None else f"{row.accuracy:.3f}"
    return f"{row.name:36} {rate:>12} {accuracy:>9} {row.seconds:8.1f}  {row.error or ''}".rstrip()


def device_name() -> str:
    """The GPU."""
    torch = extras.require("torch")
    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else "cpu"


def main() -> None:
    """Trains all, one after the other, and writes the table after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder for the table, specs, logs and runs")
    parser.add_argument("--data", help=".npz of images; random ones when left out")
    parser.add_argument("--samples", type=int, default=6000, help="random training images")
    parser.add_argument("--width", type=int, default=64, help="filters of the first stage")
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--epochs", type=int, default=10, help=f"more than {WARM_UP}")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    options.output = options.output.resolve()
    data = data_of(options)
    trainings: dict[str, Callable[[], Row]] = {
        f"mltool {backend} {precision}": lambda b=backend, p=precision: by_mltool(data, options, b, p)  # type: ignore[misc]
        for backend, precision in (("jax", "mixed_bfloat16"), ("jax", "float32"), ("torch", "mixed_bfloat16"))
    }
    trainings |= {
        "by hand PyTorch bfloat16": lambda: by_hand(data, options, precision="bfloat16"),
        "by hand PyTorch float32": lambda: by_hand(data, options, precision="float32"),
        "by hand PyTorch bfloat16 compiled": lambda: by_hand(data, options, precision="bfloat16", compiles=True),
    }
    rows: list[Row] = []
    print(f"{'':36} {'samples/s':>12} {'accuracy':>9} {'seconds':>8}", flush=True)
    for name, train in trainings.items():
        rows.append(timed(name, train))
        print(told(rows[-1]), flush=True)
        (options.output / "table.json").write_text(
            json.dumps({"options": {**vars(options), "output": str(options.output)}, "rows": [asdict(r) for r in rows]})
        )
    print(device_name())


if __name__ == "__main__":
    main()

"""Trained and converted runs, made once a session; tests that change one take a copy.

The folders whose tests use them import the fixtures into their `conftest.py`.
"""

import functools
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from mltool.conversion.convert import convert
from mltool.evaluation.evaluate import evaluate
from mltool.runs.run import Run
from mltool.spec.load import load_spec
from mltool.training.train import train

LOGITS = {"SparseCategoricalCrossentropy": {"from_logits": True}}

DIGITS: dict[str, Any] = {
    "name": "digits",
    "data": {"source": {"dataset": "digits"}},
    "model": {
        "preprocess": [{"Rescaling": {"scale": 0.0625}}],
        "layers": [
            {"Conv2D": {"filters": 8, "kernel_size": 3, "activation": "relu", "name": "first"}},
            "Flatten",
            {"Dense": {"units": 10, "name": "scores"}},
        ],
    },
    "train": {"epochs": 3, "optimizer": {"Adam": {"learning_rate": 5e-3}}, "loss": LOGITS, "metrics": ["accuracy"]},
    "convert": [
        {"quantize": "none"},
        {"quantize": "dynamic"},
        {"quantize": "float16"},
        {"quantize": "int8"},
        {"quantize": "int8-io"},
        {"quantize": "none", "batch": 5, "name": "five"},
        {"quantize": "none", "batch": "dynamic", "name": "free"},
    ],
    "limits": {"metric": "accuracy", "min": 0.8, "max_drop": "2%", "max_size": "100 KB"},
}


def _make(base: Path, spec: dict[str, Any]) -> Path:
    folder = base / "made" / spec["name"]
    folder.mkdir(parents=True)
    (folder / "spec.yaml").write_text(yaml.safe_dump(spec, sort_keys=False), encoding="utf-8")
    run = Run.create(load_spec(folder / "spec.yaml"), folder / "20260101-000000-made")
    train(run)
    return run.directory


@functools.cache
def digits_run(base: Path) -> Path:
    """A CNN of the digits with every scheme, one file of a fixed batch of 5, and one of a free batch."""
    directory = _make(base, DIGITS)
    evaluate(Run.open(directory))
    convert(Run.open(directory))
    return directory


@functools.cache
def table_run(base: Path) -> Path:
    """Raw features of very different sizes through a Normalization; not converted yet."""
    numbers = np.random.default_rng(0)
    x = numbers.random((600, 4)) * [1, 100_000, 1, 10]
    classes = (x[:, 0] + x[:, 2] > 1).astype(np.int64) + (x[:, 3] > 5)
    np.savez(base / "table.npz", x=x.astype(np.float32), y=classes)
    layers = [{"Dense": {"units": 16, "activation": "relu", "name": "hidden"}}, {"Dense": {"units": 3, "name": "out"}}]
    model = {"preprocess": [{"Normalization": {"name": "normal"}}], "layers": layers}
    data = {"source": {"path": str(base / "table.npz")}}
    changed = {"name": "table", "data": data, "model": model, "convert": [{"quantize": "int8"}], "limits": {}}
    return _make(base, {**DIGITS, **changed, "train": {**DIGITS["train"], "epochs": 12}})


@functools.cache
def pair_run(base: Path) -> Path:
    """Two inputs, one output, a regression; exported and converted to int8."""
    numbers = np.random.default_rng(1)
    left, right = (numbers.random((300, size)).astype(np.float32) for size in (3, 2))
    np.savez(base / "pair.npz", a=left, b=right, y=(left.sum(1) - right.sum(1)).astype(np.float32))
    inputs = {"left": {"array": "a"}, "right": {"array": "b"}}
    layers = [
        {"Dense": {"units": 8, "name": "one", "inputs": ["left"]}},
        {"Dense": {"units": 8, "name": "two", "inputs": ["right"]}},
        {"Concatenate": {"inputs": ["one", "two"]}},
        {"Dense": {"units": 1, "name": "value"}},
    ]
    spec = {
        "name": "pair",
        "data": {"source": {"path": str(base / "pair.npz")}, "inputs": inputs},
        "model": {"layers": layers},
        "train": {"epochs": 3, "loss": "mse", "metrics": [{"mae": {"name": "distance"}}, "mse"]},
        "convert": [{"quantize": "none"}, {"quantize": "int8"}],
        "limits": {"max_drop": 0.05},
    }
    directory = _make(base, spec)
    convert(Run.open(directory))
    return directory


def copied(made: Path, into: Path) -> Run:
    """A copy that a test may change, where `./runs` is looked for."""
    target = into / "runs" / made.parent.name / made.name
    shutil.copytree(made, target)
    return Run.open(target)


def changed_json(file: Path, **entries: Any) -> None:
    """Replaces keys of a JSON file."""
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | entries), encoding="utf-8")


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits, converted with every scheme; not to be changed."""
    return digits_run(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="session")
def made_pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two inputs; not to be changed."""
    return pair_run(tmp_path_factory.getbasetemp())


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Run:
    """A copy of the digits, to change."""
    return copied(made, tmp_path)

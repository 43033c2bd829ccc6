"""A spec for every task, on small generated data: learned in seconds, and never without a mistake."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from mltool.runs.run import Run
from mltool.spec.load import load_spec

SAMPLES = 240
LOGITS = {"SparseCategoricalCrossentropy": {"from_logits": True}}
SIDED = {"BinaryCrossentropy": {"from_logits": True}}


def write_arrays(path: Path) -> Path:
    """An .npz of features `x`, images `image`, and targets of every task; noisy, so that none is learned to the end."""
    numbers = np.random.default_rng(11)
    x = numbers.normal(size=(SAMPLES, 5)).astype(np.float32)
    noisy = x + numbers.normal(size=x.shape) / 2
    masks = np.zeros((SAMPLES, 8, 8), np.int64)
    for mask, corner in zip(masks, numbers.integers(0, 5, (SAMPLES, 2)), strict=True):
        rows, columns = (slice(place, place + 4) for place in corner)
        mask[rows, columns] = 1 + corner.sum() % 2
    np.savez(
        path,
        x=x,
        image=(masks[..., np.newaxis] * 60 + numbers.integers(0, 90, (SAMPLES, 8, 8, 1))).astype(np.uint8),
        kind=np.clip(np.floor(noisy[:, 0] * 2 + 3), 0, 6).astype(np.int64),
        side=(noisy[:, 1] > 0.2).astype(np.int64),
        labels=(noisy[:, :3] > [0, 0.5, -0.5]).astype(np.int64),
        value=(100 + 10 * noisy[:, 0]).astype(np.float32),
        size=np.stack([noisy[:, :2].sum(axis=1), 50 * noisy[:, 2] - 7], axis=1).astype(np.float32),
        odd=np.where(noisy[:, 4] > 1.2, "odd", "good"),
        mask=masks,
        weight=numbers.random(SAMPLES) + 0.5,
    )
    return path


def _of(target: str, units: int, loss: Any, **train: Any) -> dict[str, Any]:
    layers = [{"Dense": {"units": 12, "activation": "relu"}}, {"Dense": {"units": units, "name": "answer"}}]
    return {"target": target, "layers": layers, "train": {"loss": loss, **train}}


_SEVERAL = {
    "kind": {"loss": LOGITS, "metrics": ["accuracy"], "weight": 2.0},
    "side": {"loss": SIDED},
    "size": {"loss": "MeanSquaredError", "weight": 0.5},
}

TASKS: dict[str, dict[str, Any]] = {
    "classification": _of("kind", 7, LOGITS),
    "binary": _of("side", 1, SIDED, metrics=["Precision", "Recall", "accuracy", {"F1Score": {"threshold": 0.5}}]),
    "multi_label": _of("labels", 3, SIDED, metrics=["accuracy", "Recall"]),
    "regression": _of("value", 1, "MeanSquaredError"),
    "regression of several values": _of("size", 2, "MeanAbsoluteError", metrics=["MeanSquaredError"]),
    "anomaly": {
        **_of("odd", 5, "MeanSquaredError", anomaly={"normal": "good", "quantile": 0.9}),
        "layers": [{"Dense": {"units": 2}}, {"Dense": {"units": 5, "name": "answer"}}],
    },
    "several outputs": {
        "target": {"kind": "kind", "side": "side", "size": "size"},
        "layers": [
            {"Dense": {"units": 12, "activation": "relu", "name": "trunk"}},
            {"Dense": {"units": 7, "name": "kind", "inputs": ["trunk"]}},
            {"Dense": {"units": 1, "name": "side", "inputs": ["trunk"]}},
            {"Dense": {"units": 2, "name": "size", "inputs": ["trunk"]}},
        ],
        "train": {"outputs": _SEVERAL},
    },
    "segmentation": {
        "target": "mask",
        "input": "image",
        "preprocess": [{"Rescaling": {"scale": 0.00392157}}],
        "layers": [
            {"Conv2D": {"filters": 4, "kernel_size": 3, "padding": "same", "activation": "relu"}},
            {"Conv2D": {"filters": 3, "kernel_size": 3, "padding": "same", "name": "answer"}},
        ],
        "train": {"loss": LOGITS},
    },
}


def spec_of(task: str, arrays: Path, **train: Any) -> dict[str, Any]:
    """A whole spec, as plain data that a test may change.

    Args:
        task: of `TASKS`.
        arrays: what `write_arrays` wrote.
        train: keys that replace those of the train section.
    """
    parts = copy.deepcopy(TASKS[task])
    name = parts.get("input", "x")
    model = {"layers": parts["layers"], **({"preprocess": parts["preprocess"]} if "preprocess" in parts else {})}
    return {
        "name": task.replace(" ", "-"),
        "seed": 5,
        "data": {
            "source": {"path": str(arrays), "target": parts["target"]},
            "inputs": {name: {"array": name}},
            "batch_size": 32,
        },
        "model": model,
        "train": {"epochs": 6, "optimizer": {"Adam": {"learning_rate": 0.02}}, **parts["train"], **train},
        "convert": [{"quantize": "int8"}],
        "limits": {"max_drop": "50%"},  # what these tests hold is that numbers are right, not that they are good
    }


def new_run(spec: dict[str, Any], folder: Path, name: str = "run") -> Run:
    """A run of a spec, not trained yet."""
    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump(spec, sort_keys=False), encoding="utf-8")
    return Run.create(load_spec(file), folder / name)

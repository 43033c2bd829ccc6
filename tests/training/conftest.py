"""Small made data, specs of them, and runs of those specs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from mltool.runs.run import Run
from mltool.spec.load import load_spec

SAMPLES = 150


@pytest.fixture(scope="session")
def arrays(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An .npz of 150 samples: images `x`, features `f`, classes `y`, two-sided `side`, values `value`."""
    numbers = np.random.default_rng(0)
    images, features = numbers.random((SAMPLES, 8, 8, 1)).astype(np.float32), numbers.random((SAMPLES, 4))
    path = tmp_path_factory.mktemp("arrays") / "arrays.npz"
    np.savez(
        path,
        x=images,
        f=features.astype(np.float32),
        y=(features[:, 0] * 3).astype(np.int64),
        side=(features[:, 0] > features[:, 1]).astype(np.int64),
        value=np.stack([features.sum(axis=1), features[:, 0]], axis=1).astype(np.float32),
    )
    return path


@pytest.fixture
def hard(arrays: Path) -> dict[str, Any]:
    """A spec with everything that has a state: dropout, batch statistics, augmentation, callbacks, best weights.

    The 108 training samples are 4 steps of 32, the last one of 12; 12 validation samples are one step.
    """
    return {
        "name": "hard",
        "seed": 3,
        "data": {
            "source": {"path": str(arrays)},
            "batch_size": 32,
            "augment": [
                {"RandomTranslation": {"height_factor": 0.2, "width_factor": 0.2}},
                {"MixUp": {"alpha": 0.4}},
                "CutMix",
            ],
        },
        "model": {
            "layers": [
                {"Conv2D": {"filters": 4, "kernel_size": 3, "strides": 2}},
                "BatchNormalization",
                "ReLU",
                "Flatten",
                {"Dropout": {"rate": 0.3}},
                {"Dense": {"units": 3}},
            ]
        },
        "train": {
            "epochs": 3,
            "optimizer": {"Adam": {"learning_rate": 0.01}},
            "loss": {"SparseCategoricalCrossentropy": {"from_logits": True}},
            "metrics": ["accuracy", {"F1Score": {"average": "macro"}}],
            "callbacks": [
                {"ReduceLROnPlateau": {"patience": 1, "factor": 0.5, "min_delta": 10.0}},
                {"EarlyStopping": {"patience": 2, "min_delta": 10.0, "restore_best_weights": True}},
            ],
        },
    }


@pytest.fixture
def features(arrays: Path) -> dict[str, Any]:
    """A spec of the four features: one Dense layer, quick to trace."""
    return {
        "name": "features",
        "data": {"source": {"path": str(arrays)}, "inputs": {"f": {"array": "f"}}, "batch_size": 32},
        "model": {"layers": [{"Dense": {"units": 3}}]},
        "train": {
            "epochs": 2,
            "optimizer": {"Adam": {"learning_rate": 0.01}},
            "loss": {"SparseCategoricalCrossentropy": {"from_logits": True}},
            "metrics": ["accuracy"],
        },
    }


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Run]:
    """A new run of a spec that is given as a map."""

    def make(spec: dict[str, Any], name: str = "run") -> Run:
        file = tmp_path / f"{name}.yaml"
        file.write_text(yaml.safe_dump(spec, sort_keys=False), encoding="utf-8")
        return Run.create(load_spec(file), tmp_path / name)

    return make

"""Small models that no run trained, as files of every kind, with data for them; and children that stay warm.

The folders whose tests use them import the fixtures.
"""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from mltool.child import Child

CLASSES, WIDTH, SAMPLES = 3, 64, 1500

JAX = """
import numpy as np
from pathlib import Path

W = dict(np.load(Path(__file__).with_name("weights.npz")))


def make():
    import jax

    def apply(weights, x):
        hidden = jax.nn.relu(x @ weights["w0"] + weights["b0"])
        hidden = jax.nn.relu(hidden @ weights["w1"] + weights["b1"])
        return hidden @ weights["w2"] + weights["b2"]

    return apply, W, np.ones((2, 4), "float32")
"""

SPEC = """\
data: {{source: {{path: {data}}}}}
train: {{loss: {{SparseCategoricalCrossentropy: {{from_logits: true}}}}, metrics: [accuracy]}}
"""


def dense_weights(seed: int = 0) -> dict[str, np.ndarray]:
    """Of 4 values -> 64 -> 64 -> 3 classes."""
    numbers, sizes = np.random.default_rng(seed), (4, WIDTH, WIDTH, CLASSES)
    found = {}
    for layer, (taken, given) in enumerate(itertools.pairwise(sizes)):
        found[f"w{layer}"] = numbers.normal(0, taken**-0.5, (taken, given)).astype("float32")
        found[f"b{layer}"] = numbers.normal(0, 0.1, given).astype("float32")
    return found


def dense_answers(weights: dict[str, np.ndarray], x: np.ndarray) -> np.ndarray:
    """What it answers, by numpy alone."""
    hidden = np.maximum(x @ weights["w0"] + weights["b0"], 0)
    hidden = np.maximum(hidden @ weights["w1"] + weights["b1"], 0)
    return hidden @ weights["w2"] + weights["b2"]


def write_tflite(saved_model: Path, path: Path, batch: int | None = 1) -> Path:
    """The float file of a SavedModel."""
    from mltool.conversion.engines.converter import convert_saved_model

    convert_saved_model(
        saved_model=str(saved_model),
        signature="serving_default",
        output=str(path),
        quantize="none",
        io="float32",
        batch=batch,
        representative=None,
        keep_float=[],
        layer_names=[],
    )
    return path


@pytest.fixture(scope="session")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder: dense.keras, dense.h5, dense (a SavedModel), dense.tflite, nets.py, data.npz, data.yaml.

    The labels are what the model answers, every tenth another one: its accuracy is near 0.9.
    """
    import keras

    root = tmp_path_factory.mktemp("foreign")
    weights, numbers = dense_weights(), np.random.default_rng(1)
    layers = keras.layers
    stack = [
        keras.Input((4,), name="x"),
        layers.Dense(WIDTH, activation="relu", name="first"),
        layers.Dense(WIDTH, activation="relu", name="second"),
        layers.Dense(CLASSES, name="scores"),
    ]
    model = keras.Sequential(stack)
    model.set_weights(list(weights.values()))
    model.save(root / "dense.keras")
    model.save(root / "dense.h5")
    model.export(root / "dense", verbose=False)
    write_tflite(root / "dense", root / "dense.tflite")
    x = numbers.normal(0, 1, (4 * SAMPLES, 4)).astype("float32")
    # Those whose class is the clearest: no scheme that works answers another one.
    ranked = np.sort(dense_answers(weights, x), axis=1)
    x = x[np.argsort(ranked[:, -2] - ranked[:, -1])[:SAMPLES]]
    y = dense_answers(weights, x).argmax(1)
    y[::10] = (y[::10] + 1) % CLASSES
    np.savez(root / "data.npz", x=x, y=y)
    np.savez(root / "weights.npz", **weights)
    (root / "nets.py").write_text(JAX)
    (root / "data.yaml").write_text(SPEC.format(data="data.npz"))
    return root


@pytest.fixture(scope="module")
def warm_children() -> Iterator[list[Child]]:
    """Two processes for all tests of a file: TensorFlow is imported once."""
    with Child() as converter, Child() as interpreter:
        yield [converter, interpreter]


@pytest.fixture
def stay_warm(warm_children: list[Child], monkeypatch: pytest.MonkeyPatch) -> None:
    """Conversions of models take these."""
    from contextlib import nullcontext

    from mltool.conversion import convert_model

    turn: list[int] = []

    def next_child() -> Any:
        turn.append(1)
        return nullcontext(warm_children[len(turn) % 2 - 1])

    monkeypatch.setattr(convert_model, "Child", next_child)


@pytest.fixture
def convert_it(stay_warm: None, tmp_path: Path) -> Callable[..., Any]:
    """Converts to schemes, by name what came of each."""
    from mltool.conversion.convert_model import convert_model
    from mltool.spec.convert import ConvertSpec
    from mltool.spec.load import load_task_spec

    def run(source: Any, *schemes: Any, data: Path | None = None, **options: Any) -> Any:
        entries = [
            ConvertSpec.model_validate(scheme if isinstance(scheme, dict) else {"quantize": scheme})
            for scheme in schemes
        ]
        spec = load_task_spec(data) if data else None
        made = convert_model(source, entries, options.pop("output", tmp_path / "lite"), spec=spec, **options)
        return SimpleNamespace(
            folder=tmp_path / "lite", **{item.record.name.replace("-", "_"): item.record for item in made}
        )

    return run

"""A spec of digits and one run of it that is trained once a session."""

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mltool import extras

if TYPE_CHECKING:
    from mltool.runs.run import Run

# Before a test file imports Keras at its top: a process and its children must compute by the same kernels.
extras.prepare_tensorflow()

DIGITS = """\
name: tiny
seed: 7
data: {source: {dataset: digits}, batch_size: 100}
model:
  preprocess: [{Rescaling: {scale: 0.0625}}]
  layers:
    - Conv2D: {filters: 4, kernel_size: 3, strides: 2, activation: relu, name: first}
    - Flatten
    - Dense: {units: 10, name: scores}
train:
  epochs: 4
  optimizer: {Adam: {learning_rate: 1e-2}}
  loss: {SparseCategoricalCrossentropy: {from_logits: true}}
  metrics: [accuracy]
convert: [{quantize: int8}]
"""


@pytest.fixture(scope="session")
def digits_spec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model of the embedded digits, as a spec file."""
    path = tmp_path_factory.mktemp("spec") / "tiny.yaml"
    path.write_text(DIGITS, encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def trained_run(digits_spec: Path, tmp_path_factory: pytest.TempPathFactory) -> "Run":
    """A finished run of `digits_spec`: do not change it, copy its folder."""
    from mltool.runs.run import Run
    from mltool.spec.load import load_spec
    from mltool.training.train import train

    run = Run.create(load_spec(digits_spec), tmp_path_factory.mktemp("runs") / "tiny")
    train(run)
    return run

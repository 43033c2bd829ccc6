"""A working directory with runs in it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from mltool.runs.run import Run
from mltool.spec.load import load_spec
from mltool.spec.spec import Spec

TEXT = """
name: small
seed: 7
data: {source: {dataset: digits}}
model: {layers: [Flatten, {Dense: {units: 10}}]}
train: {loss: {SparseCategoricalCrossentropy: {from_logits: true}}, metrics: [accuracy]}
"""


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Spec:
    monkeypatch.chdir(tmp_path)
    Path("s.yaml").write_text(TEXT, encoding="utf-8")
    return load_spec("s.yaml")


@pytest.fixture
def run(spec: Spec) -> Run:
    return Run.create(spec)


@pytest.fixture
def train() -> Callable[[Run], Run]:
    """Leaves in a run what training leaves, as far as finding a run goes."""

    def train(run: Run) -> Run:
        run.keras_file.write_bytes(b"weights")
        run.record_artifact(run.keras_file)
        run.update(status="trained")
        return run

    return train


@pytest.fixture
def trained(run: Run, train: Callable[[Run], Run]) -> Run:
    return train(run)

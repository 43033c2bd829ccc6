"""Running mltool in this process: its exit code and what it prints."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mltool import console
from mltool.cli.main import main


@dataclass(frozen=True)
class Ran:
    """What a command left."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """The one document of --json."""
        return json.loads(self.out)


@pytest.fixture
def mltool(capfd: pytest.CaptureFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ran]:
    """Runs a command in an empty working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(console, "_settings", console._Settings())

    def run(*arguments: str) -> Ran:
        with pytest.raises(SystemExit, match=r"^\d+$") as ended:
            main(list(arguments))
        return Ran(int(ended.value.code), *capfd.readouterr())

    return run


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    """A spec that is right."""
    path = tmp_path / "my.yaml"
    path.write_text(
        "name: small\ndata: {source: {dataset: digits}}\nmodel: {layers: [Flatten, {Dense: {units: 10}}]}\n"
        "train: {loss: {SparseCategoricalCrossentropy: {from_logits: true}}, metrics: [accuracy]}\n"
    )
    return path

"""A spec that is right, and what becomes of it with one thing changed."""

import copy
import textwrap
from pathlib import Path

import pytest
import yaml

from mltool.errors import Message, SpecError
from mltool.spec.load import load_spec
from mltool.spec.spec import Spec

GOOD = {
    "name": "small",
    "data": {"source": {"dataset": "digits"}},
    "model": {"layers": ["Flatten", {"Dense": {"units": 10, "name": "top"}}]},
    "train": {"loss": {"SparseCategoricalCrossentropy": {"from_logits": True}}, "metrics": ["accuracy"]},
}


class Bench:
    """Writes specs into a folder and checks them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, text: str, name: str = "s.yaml") -> Path:
        path = self.folder / name
        path.write_text(textwrap.dedent(text), encoding="utf-8")
        return path

    def good(self, changes: dict | None = None) -> Path:
        """GOOD, with values replaced by dotted path; ... takes a key out."""
        data = copy.deepcopy(GOOD)
        for key, value in (changes or {}).items():
            *above, last = key.split(".")
            node = data
            for part in above:
                node = node[int(part)] if isinstance(node, list) else node.setdefault(part, {})
            if value is ...:
                del node[last]
            else:
                node[int(last) if isinstance(node, list) else last] = value
        return self.write(yaml.safe_dump(data, sort_keys=False))

    def load(self, changes: dict | None = None, overrides: tuple[str, ...] = ()) -> Spec:
        return load_spec(self.good(changes), overrides)

    def refusals(self, path: Path, overrides: tuple[str, ...] = ()) -> tuple[Message, ...]:
        with pytest.raises(SpecError, match=r"\S") as caught:
            load_spec(path, overrides)
        assert caught.value.exit_code == 3
        return caught.value.messages

    def refused(self, changes: dict | None = None, overrides: tuple[str, ...] = ()) -> list[str]:
        """`key: message; hint` of every mistake."""
        found = self.refusals(self.good(changes), overrides)
        return [str(Message(message.message, message.hint, key=message.key)) for message in found]


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.chdir(tmp_path)
    return Bench(tmp_path)

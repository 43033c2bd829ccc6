"""The sections of a spec that training depends on: a run goes on with those that it began with."""

import json
from collections.abc import Iterator
from typing import Any

from mltool.errors import ArtifactError, Message
from mltool.runs.atomic import finite
from mltool.runs.run import Run
from mltool.spec.spec import Spec, to_plain


def training_sections(spec: Spec) -> dict[str, Any]:
    """All that training depends on, as JSON has it."""
    sections = {"seed": spec.seed, "data": spec.data, "model": spec.model, "train": spec.train}
    found: dict[str, Any] = json.loads(json.dumps(finite(to_plain(sections)), default=str))
    return found


def require_same_spec(run: Run, spec: Spec) -> None:
    """A run goes on as it began, or not at all: half of its steps by another spec are nobody's training.

    Raises:
        ArtifactError: if data, model, train or seed of the run's spec.yaml changed since it began; with every key.
    """
    began, now = run.manifest.get("training_sections"), training_sections(spec)
    if began is None or began == now:
        return
    file, hint = str(run.spec_file), f"train it anew: mltool train {run.spec_file}"
    if not isinstance(began, dict):
        raise ArtifactError(f"{file} began with an older mltool, which kept no more than a hash of it", hint)
    before, after = (dict(_flat(sections)) for sections in (began, now))
    changed = [key for key in dict.fromkeys([*before, *after]) if before.get(key) != after.get(key)]
    details = [
        Message(f"was {before.get(key, _ABSENT)} when training began, is {after.get(key, _ABSENT)}", file=file, key=key)
        for key in changed
    ]
    raise ArtifactError([Message(f"{file} was changed since training began", hint), *details])


_ABSENT = "not there"


def _flat(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """What is in maps and lists, by dotted keys, as text."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    if not items:
        yield path, json.dumps(value, ensure_ascii=False)
    for key, item in items:
        yield from _flat(item, f"{path}.{key}" if path else str(key))

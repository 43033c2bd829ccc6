"""Reads a spec: YAML, overrides, paths, sections; every mistake in one answer, and no TensorFlow."""

import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from mltool.errors import Message, SpecError
from mltool.spec.backbones import weights_file
from mltool.spec.convert import is_recipe
from mltool.spec.include import read_spec_file
from mltool.spec.messages import message_at, to_message
from mltool.spec.mistakes import check_spec
from mltool.spec.overrides import Overrides, apply_overrides
from mltool.spec.spec import Spec, to_plain
from mltool.yaml_reader import Document, parse_value


def load_spec(path: str | Path, overrides: Sequence[str] = (), *, needs_files: bool = True) -> Spec:
    """Reads and checks the spec at `path`.

    Args:
        path: a YAML file.
        overrides: `a.b=c`, merged in before the check, as `--set` does.
        needs_files: whether the files that the model begins from must be there; those of a run may be gone.

    Raises:
        SpecError: with every mistake of the file and the overrides.
    """
    _refuse_run(Path(path))
    document = read_spec_file(Path(path))
    applied = apply_overrides(document.data, overrides)
    spec = _check(applied.data, document, applied)
    if needs_files:
        _require_files(spec, document, applied)
    return spec


def _refuse_run(path: Path) -> None:
    if os.path.isfile(path / "run.json"):  # noqa: PTH113  Path's raises where a name is too long or may not be looked at
        hint = f"go on with it: mltool train --resume {shlex.quote(str(path))}; or name its {path / 'spec.yaml'}"
        raise SpecError(Message("is the directory of a run", hint, str(path)))


def load_data_spec(path: str | Path, base: Spec) -> Spec:
    """The data of one spec for the model of another: `data` and `seed` of the file, all else of `base`.

    What shares samples out for training and conversion alone is left out: nothing is trained or calibrated on these.

    Args:
        path: a YAML file with a section `data`; its other sections are not read.
        base: the spec of a run.

    Raises:
        SpecError: with every mistake of the section.
    """
    document = read_spec_file(Path(path))
    if "data" not in document.data:
        raise SpecError(Message("has no section data", "name a spec of data", document.file, 1, 1, "data"))
    rest = to_plain(base)
    rest["train"].pop("class_weights", None)
    taken = {key: document.data[key] for key in ("data", "seed") if key in document.data}
    data = {**rest, "convert": [], "limits": {}, **taken}
    return _check(data, document, Overrides(data))


def load_task_spec(path: str | Path) -> Spec:
    """The data of a model that no spec describes, and what its outputs are.

    Args:
        path: a YAML file with the sections `data` and `train`, of which the loss tells what the outputs are and the
            metrics what is measured; or a whole spec. What its `model` says is not looked at.

    Raises:
        SpecError: with every mistake of these sections.
    """
    document = read_spec_file(Path(path))
    wanted = {"data": "say where samples come from", "train": "write train: {loss: ..., metrics: [...]}"}
    for section, hint in wanted.items():
        if section not in document.data:
            raise SpecError(Message(f"has no section {section}", hint, document.file, 1, 1, section))
    data = {"name": "model", **document.data}
    if "model" not in data:
        data["model"] = {"layers": _stand_ins(data["train"], data["data"])}
    return _check(data, document, Overrides(data))


def _stand_ins(train: Any, data: Any) -> list[Any]:
    """A last layer for every output: what a section `model` would end in."""
    outputs = train.get("outputs") if isinstance(train, dict) else None
    losses = outputs if isinstance(outputs, dict) else {"": train}
    inputs = data.get("inputs") if isinstance(data, dict) else None
    # Of several inputs the first layer has to take one; which, is all the same to what stands in for a model.
    taken = {"inputs": list(inputs)[:1]} if isinstance(inputs, dict) and len(inputs) > 1 else {}
    return [
        {
            "Dense": {
                "units": 1,
                **({"name": name} if name else {}),
                "activation": _activation_for(head),
                **(taken if place == 0 else {}),
            }
        }
        for place, (name, head) in enumerate(losses.items())
    ]


def _activation_for(head: Any) -> str:
    """The activation that a loss takes, so that the stand-in is no mistake."""
    loss = head.get("loss") if isinstance(head, dict) else None
    name, arguments = next(iter(loss.items()), ("", None)) if isinstance(loss, dict) else (str(loss), None)
    from_logits = isinstance(arguments, dict) and arguments.get("from_logits") is True
    if from_logits or "entropy" not in str(name).lower():
        return "linear"
    return "sigmoid" if str(name).lower().startswith("binary") else "softmax"


def _check(data: dict[str, Any], document: Document, overrides: Overrides) -> Spec:
    found = check_spec(data)
    if isinstance(found, Spec):
        return found
    messages = [to_message(error, document, overrides.origin_of) for error in found]
    # Overrides first, then the file from top to bottom.
    raise SpecError(sorted(dict.fromkeys(messages), key=lambda m: (m.line or 0, m.column or 0)))


def _require_files(spec: Spec, document: Document, overrides: Overrides) -> None:
    weights, hint = (
        "write weights: none to begin with random ones",
        "a recipe is a JSON file; the path is relative to this one",
    )
    missing = [
        message_at(("model", *layer.place, "weights"), f"{file} is not there", weights, document, overrides.origin_of)
        for layer in (*spec.model.preprocess_layers, *spec.model.layers)
        if (file := weights_file(layer.layer.name, layer.layer.arguments)) and not Path(file).is_file()
    ]
    missing += [
        message_at(
            ("convert", index, "quantize"), f"{entry.quantize} is not there", hint, document, overrides.origin_of
        )
        for index, entry in enumerate(spec.convert)
        if is_recipe(entry.quantize) and not Path(entry.quantize).is_file()
    ]
    if missing:
        raise SpecError(dict.fromkeys(missing))


def dump_spec(spec: Spec) -> str:
    """The resolved spec as YAML that `load_spec` reads back as an equal spec."""
    return yaml.dump(to_plain(spec), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


def flow_yaml(value: Any) -> str:
    """Plain data in one line of YAML, as `{filters: 16}`, that a spec reads back as it was."""
    text: str = yaml.dump(
        value, Dumper=_Dumper, default_flow_style=True, sort_keys=False, allow_unicode=True, width=1_000_000
    )
    return text.strip().removesuffix("...").strip()


class _Dumper(yaml.SafeDumper):
    """Quotes text that YAML 1.2 would read as something else: PyYAML decides that by YAML 1.1."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    plain = "\n" not in text and isinstance(_read_back(text), str)
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if plain else '"')


def _read_back(text: str) -> Any:
    try:
        return parse_value(text, "")
    except SpecError:
        return None


_Dumper.add_representer(str, _represent_text)

"""Writes `catalogue.json` and `catalogue_docs.json` from the installed Keras: `python -m mltool.spec.write_catalogue`.

To be run when the supported version of Keras changes, or the table of types does; a test holds the files equal to what
this makes. Nothing of the package needs it at run time.
"""

import inspect
import json
import re
from collections.abc import Iterator
from types import ModuleType
from typing import Any, Final

from mltool.spec.argument_table import BY_CLASS, BY_NAME, BY_SUFFIX, NOT_IN_A_SPEC, REFUSED
from mltool.spec.catalogue_entries import CATALOGUE_FILE, DOCS_FILE

_MODULES: Final[dict[str, str]] = {
    "layer": "layers",
    "optimizer": "optimizers",
    "loss": "losses",
    "metric": "metrics",
    "schedule": "optimizers.schedules",
    "callback": "callbacks",
    "initializer": "initializers",
    "regularizer": "regularizers",
    "constraint": "constraints",
    "activation": "activations",
}

# What Keras' base class takes through `**kwargs`; `input_shape` is left out: the shapes come from the data.
_EVERY_LAYER: Final[dict[str, list[Any]]] = {
    "name": ["name|null", None],
    "dtype": ["dtype|null", None],
    "trainable": ["bool", True],
    "activity_regularizer": ["regularizer|null", None],
    "autocast": ["bool", True],
}
_COMMON_DOCS: Final[dict[str, str]] = {
    "name": "Name of this object; of a layer, unique in the model.",
    "dtype": "Dtype or dtype policy of computations and weights.",
    "trainable": "Whether training changes the weights.",
    "activity_regularizer": "Regularizer of the layer's output.",
    "autocast": "Whether float inputs are cast to the layer's dtype.",
}

_BACKBONE_DOCS: Final[dict[str, str]] = {
    "weights": "Before training: none (random), a file that Keras saved (.weights.h5, .keras, .h5; relative to the"
    " spec), or imagenet, which Keras downloads.",
    "until": "Name of the layer whose output is taken; what comes after it is cut off.",
    "classes": "Outputs of the top.",
    "classifier_activation": "Of the top; null gives logits.",
    "include_preprocessing": "Whether scaling is part of the model, which takes pixels from 0 to 255 then.",
    "include_top": "Whether the layers that answer with classes are there; false gives features.",
    "pooling": "Without the top: avg or max over all positions; null gives [height, width, channels].",
    "name": _COMMON_DOCS["name"],
}

# `compile` reads these from the loss and the shapes; a class `Accuracy` compares for equality and is rarely meant.
_RESOLVED_BY_LOSS: Final[dict[str, tuple[str, str]]] = {
    "accuracy": ("acc", "The accuracy that fits the loss: binary, categorical or sparse categorical."),
    "crossentropy": ("ce", "The crossentropy that fits the loss: binary, categorical or sparse categorical."),
}


def main() -> None:
    """Writes both files beside this one."""
    catalogue, docs = make_catalogue()
    CATALOGUE_FILE.write_text(catalogue, encoding="utf-8")
    DOCS_FILE.write_text(docs, encoding="utf-8")


def make_catalogue() -> tuple[str, str]:
    """The texts of `catalogue.json` and `catalogue_docs.json`, one object of Keras a line."""
    import keras

    entries: dict[str, dict[str, Any]] = {}
    docs: dict[str, dict[str, Any]] = {}
    for kind in _MODULES:
        objects = dict(public_objects(kind))
        aliases = _aliases(kind, objects)
        entries[kind] = {
            name: _entry(kind, name, subject, sorted(aliases[name] - {name})) for name, subject in objects.items()
        }
        docs[kind] = {name: _docs(subject, entries[kind][name]) for name, subject in objects.items()}
    entries["backbone"] = {name: _backbone(name, function) for name, function in public_backbones()}
    docs["backbone"] = {name: _backbone_docs(entries["backbone"][name], f) for name, f in public_backbones()}
    for name, (alias, text) in _RESOLVED_BY_LOSS.items():
        entries["metric"][name] = {"aliases": [alias], "arguments": {}}
        docs["metric"][name] = {"": text}
    return _dump({"keras": keras.__version__, "refused": REFUSED, **entries}), _dump(docs)


def public_objects(kind: str) -> Iterator[tuple[str, Any]]:
    """Canonical name and class (of activations: function) of all that a spec may use of a kind, sorted."""
    import keras

    module: Any = keras
    for part in _MODULES[kind].split("."):
        module = getattr(module, part)
    for name in sorted(dir(module)):
        subject = getattr(module, name)
        if _is_object(kind, subject) and name not in REFUSED[kind] and _is_canonical(name, subject, module):
            yield name, subject


def public_backbones() -> Iterator[tuple[str, Any]]:
    """Name and function of every model of `keras.applications`, sorted."""
    import keras

    for name in sorted(dir(keras.applications)):
        if inspect.isfunction(getattr(keras.applications, name)):
            yield name, getattr(keras.applications, name)


def _backbone(name: str, function: Any) -> dict[str, Any]:
    """As `_entry`; the shape comes from the layer before, and weights must be said."""
    parameters = inspect.signature(function).parameters.values()
    arguments: dict[str, list[Any]] = {"weights": [BY_NAME["backbone.weights"]]}
    for parameter in parameters:
        if parameter.name not in ("input_shape", "input_tensor", "weights", "name"):
            arguments[parameter.name] = [argument_type("backbone", name, parameter), parameter.default]
    return {"arguments": arguments | {"until": ["str|null", None], "name": _EVERY_LAYER["name"]}, "call": ["inputs"]}


def _backbone_docs(entry: dict[str, Any], function: Any) -> dict[str, str]:
    ours = {name: text for name, text in _BACKBONE_DOCS.items() if name in entry["arguments"]}
    return _docs(function, entry) | ours


def _is_object(kind: str, subject: Any) -> bool:
    if kind == "activation":
        return inspect.isfunction(subject) and subject.__name__ not in ("get", "serialize", "deserialize")
    return inspect.isclass(subject)


def _is_canonical(name: str, subject: Any, module: ModuleType) -> bool:
    """Whether this is the name to keep where one class is public under several."""
    if hasattr(module, subject.__name__):
        return bool(name == subject.__name__)
    return name == min(public for public in dir(module) if getattr(module, public) is subject)


def _aliases(kind: str, objects: dict[str, Any]) -> dict[str, set[str]]:
    """All names of each object: Keras' public ones and those that its `get()` functions resolve."""
    canonical = {id(subject): name for name, subject in objects.items()}
    by_plain_name = {_plain(name): name for name in objects}
    found: dict[str, set[str]] = {name: set() for name in objects}
    for alias, subject in _known_names(kind):
        # A loss resolves to a function (`mse` to `mean_squared_error`) whose class is named alike.
        name = canonical.get(id(subject)) or by_plain_name.get(_plain(subject.__name__))
        if name is not None and alias not in (*REFUSED[kind], *_reserved(kind)):
            found[name].add(alias)
    return found


def _known_names(kind: str) -> Iterator[tuple[str, Any]]:
    """Public names, and the tables behind `get()`, which Keras does not export."""
    import importlib

    module = importlib.import_module(f"keras.{_MODULES[kind]}")
    for name in dir(module):
        if _is_object(kind, getattr(module, name)):
            yield name, getattr(module, name)
    if kind in ("layer", "schedule", "callback"):
        return
    table = importlib.import_module(f"keras.src.{_MODULES[kind]}").ALL_OBJECTS_DICT
    yield from table.items()


def _reserved(kind: str) -> tuple[str, ...]:
    return tuple(_RESOLVED_BY_LOSS) if kind == "metric" else ()


def _plain(name: str) -> str:
    return name.replace("_", "").lower()


def _entry(kind: str, name: str, subject: Any, aliases: list[str]) -> dict[str, Any]:
    # A partial of an activation cannot be saved by Keras (tried with 3.15), so activations take no arguments.
    arguments = {} if kind == "activation" else _arguments(kind, name, subject)
    entry: dict[str, Any] = {"aliases": aliases} if aliases else {}
    entry["arguments"] = arguments
    if kind == "layer":
        entry["call"] = _call_arguments(subject)
    return entry


def _arguments(kind: str, name: str, subject: Any) -> dict[str, list[Any]]:
    """`{name: [type]}` of required arguments, `{name: [type, default]}` of the others."""
    parameters = _parameters(subject.__init__)
    found: dict[str, list[Any]] = {}
    for parameter in parameters:
        if parameter.kind is inspect.Parameter.VAR_KEYWORD and kind == "layer":
            found.update({key: value for key, value in _EVERY_LAYER.items() if key not in found})
        elif parameter.kind not in (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL):
            kept = argument_type(kind, name, parameter)
            found[parameter.name] = [kept] if _is_required(parameter) else [kept, parameter.default]
    return {key: value for key, value in found.items() if f"{name}.{key}" not in NOT_IN_A_SPEC}


def argument_type(kind: str, class_name: str, parameter: inspect.Parameter) -> str:
    """The type of one argument, in the language of `argument_types`: from the tables, else from the default."""
    name = parameter.name
    found = BY_CLASS.get(f"{class_name}.{name}") or BY_NAME.get(f"{kind}.{name}") or BY_NAME.get(name)
    found = found or next((kept for suffix, kept in BY_SUFFIX.items() if name.endswith(suffix)), None)
    found = found or _type_of_default(parameter.default)
    if parameter.default is None and "null" not in found.split("|") and found != "any":
        found += "|null"
    rank = re.search(r"(\d)D", class_name)
    return found.replace("{rank}", rank[1] if rank else "")


def _type_of_default(default: Any) -> str:
    return {bool: "bool", int: "int", float: "number", str: "str"}.get(type(default), "any")


def _call_arguments(layer: Any) -> list[str]:
    return [parameter.name for parameter in _parameters(layer.call) if _is_required(parameter)]


def _parameters(function: Any) -> list[inspect.Parameter]:
    return list(inspect.signature(function).parameters.values())[1:]


def _is_required(parameter: inspect.Parameter) -> bool:
    return parameter.default is inspect.Parameter.empty and parameter.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD


def _docs(subject: Any, entry: dict[str, Any]) -> dict[str, str]:
    """First line of the docstring under "", first sentence of each argument's description under its name."""
    text = inspect.getdoc(subject) or ""
    described = {**_COMMON_DOCS, **_argument_docs(text)}
    summary = _first_sentence(text.split("\n\n")[0])
    return {"": summary} | {name: described[name] for name in entry["arguments"] if name in described}


def _argument_docs(docstring: str) -> dict[str, str]:
    """Reads the `Args:` section of a Google-style docstring."""
    section = re.search(r"^Args:\n(?P<body>(?:(?: +.*)?\n?)*)", docstring, re.MULTILINE)
    if section is None:
        return {}
    found = re.findall(r"^ {4}(\w+)(?: \(.*?\))?: (.*(?:\n(?: {5,}.*)?)*)", section["body"], re.MULTILINE)
    return {name: _first_sentence(text.split("\n\n")[0]) for name, text in found}


def _first_sentence(text: str) -> str:
    """One line of at most 200 characters, up to the first full stop that ends a sentence."""
    line = " ".join(text.split())
    sentence = re.split(r"(?<=[a-z0-9`)\"']\.) (?=[A-Z`])", line, maxsplit=1)[0]
    return sentence if len(sentence) <= 200 else sentence[:197] + "..."


def _dump(kinds: dict[str, Any]) -> str:
    """JSON with one object of Keras a line: short, and a change of Keras is a readable difference."""
    lines = []
    for kind, entries in kinds.items():
        if not isinstance(entries, dict):
            lines.append(f"{json.dumps(kind)}: {json.dumps(entries)}")
            continue
        rows = [f"  {json.dumps(name)}: {_compact(entry)}" for name, entry in sorted(entries.items())]
        lines.append(f"{json.dumps(kind)}: {{\n" + ",\n".join(rows) + "\n}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _compact(entry: Any) -> str:
    return json.dumps(entry, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


if __name__ == "__main__":
    main()

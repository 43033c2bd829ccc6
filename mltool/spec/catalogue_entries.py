"""The shipped catalogue of Keras, read: which objects there are, what they are called, and what arguments they take."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal, get_args

from mltool.spec.architectures import ARCHITECTURE_DOCS, ARCHITECTURES
from mltool.spec.argument_types import Alternative, parse_type
from mltool.spec.blocks import AUGMENTATIONS, BLOCK_DOCS, BLOCKS, GRAPH
from mltool.spec.schedules import SCHEDULE_DOCS, SCHEDULES

Kind = Literal[
    "layer",
    "optimizer",
    "loss",
    "metric",
    "schedule",
    "callback",
    "initializer",
    "regularizer",
    "constraint",
    "activation",
]
"""What sort of thing of Keras a name means; some names (`BinaryCrossentropy`) exist in several kinds."""

KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
CATALOGUE_FILE: Final = Path(__file__).with_name("catalogue.json")
DOCS_FILE: Final = Path(__file__).with_name("catalogue_docs.json")

OUR_LAYERS: Final = BLOCKS | GRAPH | AUGMENTATIONS | ARCHITECTURES
"""Entries of ours beside Keras' own layers."""


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument of a constructor."""

    type: str
    """In the language of `argument_types`."""
    required: bool
    default: Any
    """None where `required`."""

    @property
    def alternatives(self) -> tuple[Alternative, ...]:
        """The type, parsed."""
        return parse_type(self.type)


@dataclass(frozen=True, slots=True)
class Entry:
    """One class of Keras; of kind `activation`, one function."""

    name: str
    aliases: tuple[str, ...]
    arguments: Mapping[str, Argument]
    call: tuple[str, ...]
    """Required tensor arguments of a layer's `call`, in order."""

    @property
    def required(self) -> tuple[str, ...]:
        """Names of the arguments that have no default."""
        return tuple(name for name, argument in self.arguments.items() if argument.required)


@cache
def load_entry(kind: Kind, name: str) -> Entry | None:
    """The object that `name` (canonical, or one of Keras' short names) means, or None."""
    canonical = known_names(kind).get(name)
    if canonical is None:
        return None
    raw = _read_catalogue()[kind][canonical]
    arguments = {
        key: Argument(type=value[0], required=len(value) == 1, default=value[1] if len(value) == 2 else None)
        for key, value in raw["arguments"].items()
    }
    return Entry(canonical, tuple(raw.get("aliases", ())), arguments, tuple(raw.get("call", ())))


@cache
def known_names(kind: Kind) -> dict[str, str]:
    """Canonical name by every name that a spec may use: canonical ones first, then Keras' aliases."""
    entries = _read_catalogue()[kind]
    aliases = {alias: name for name, raw in entries.items() for alias in raw.get("aliases", ())}
    return {name: name for name in entries} | {alias: name for alias, name in aliases.items() if alias not in entries}


def refused_names(kind: Kind) -> dict[str, str]:
    """Public names of Keras that a spec may not use, with the reason."""
    refused: dict[str, str] = _read_catalogue()["refused"][kind]
    return refused


@cache
def backbones() -> frozenset[str]:
    """Names of the Keras Applications, which stand among the layers and are models."""
    return frozenset(_read_catalogue()["backbone"])


@cache
def no_keras_layers() -> frozenset[str]:
    """Names that stand among the layers and are none of Keras' layers: ours, and the Keras Applications."""
    return backbones() | frozenset(OUR_LAYERS)


@cache
def load_docs() -> dict[str, dict[str, dict[str, str]]]:
    """Descriptions by kind, object and argument ("" is the object itself); only the JSON Schema needs them."""
    docs: dict[str, dict[str, dict[str, str]]] = json.loads(DOCS_FILE.read_text(encoding="utf-8"))
    docs["layer"] |= docs["backbone"] | BLOCK_DOCS | ARCHITECTURE_DOCS
    docs["schedule"] |= SCHEDULE_DOCS
    return docs


@cache
def _read_catalogue() -> dict[str, Any]:
    catalogue: dict[str, Any] = json.loads(CATALOGUE_FILE.read_text(encoding="utf-8"))
    catalogue["layer"] |= catalogue["backbone"] | OUR_LAYERS
    catalogue["schedule"] |= SCHEDULES
    return catalogue

"""`preprocess: auto`: the layers that the kind of an input asks for."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from mltool.spec.catalogue import KerasObject
from mltool.spec.model import LayerSpec

if TYPE_CHECKING:
    from mltool.models.preprocess import ModelInput

MAX_TOKENS = 4000
"""Words of a text that are told apart."""

_CHAINS: dict[str, tuple[tuple[str, dict[str, object]], ...]] = {
    "number": (("Normalization", {}),),
    "category": (("StringLookup", {"output_mode": "one_hot"}),),
    "text": (("TextVectorization", {"max_tokens": MAX_TOKENS, "output_mode": "multi_hot"}),),
    "audio": (("LogMel", {}), ("Normalization", {})),
    "image": (("Rescaling", {"scale": 1 / 255}),),
    "series": (("Normalization", {}),),
    "": (("Normalization", {}),),
}
"""Layers for every kind of input."""

_WORDS = {"number": "numbers", "category": "categories", "text": "texts"}


def auto_preprocess(inputs: "Mapping[str, ModelInput]") -> dict[str, tuple[LayerSpec, ...]]:
    """Keys of `preprocess` and their layers, as the spec would have them.

    Args:
        inputs: of the model, by name.
    """
    chains: dict[str, tuple[LayerSpec, ...]] = {}
    for name, info in inputs.items():
        word = _WORDS.get(info.kind, name)
        key = word if word not in inputs and len(inputs) > 1 else name
        chains.setdefault(key, _layers(info.kind, key))
        if info.missing and not chains[key][0].layer.name.startswith("Fill"):
            chains[key] = (LayerSpec(f"fill_missing_of_{key}", KerasObject("FillMissing", {})), *chains[key])
    return chains


def _layers(kind: str, key: str) -> tuple[LayerSpec, ...]:
    named = {
        "Normalization": "normalization",
        "StringLookup": "string_lookup",
        "TextVectorization": "text_vectorization",
    }
    return tuple(
        LayerSpec(f"{named.get(layer, layer.lower())}_of_{key}", KerasObject(layer, dict(arguments)))
        for layer, arguments in _CHAINS.get(kind, ())
    )

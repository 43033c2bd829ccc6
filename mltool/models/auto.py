"""`preprocess: auto`: the layers that the kind of an input asks for."""

import math
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
    "audio": (("Normalization", {}),),
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
        chains.setdefault(key, _layers_of_sound(info.sample_rate, key) if info.sample_rate else _layers(info.kind, key))
        if info.missing and not chains[key][0].layer.name.startswith("Fill"):
            chains[key] = (LayerSpec(f"fill_missing_of_{key}", KerasObject("FillMissing", {})), *chains[key])
    return chains


def _layers_of_sound(sample_rate: int, key: str) -> tuple[LayerSpec, ...]:
    """A log-mel spectrogram of frames of about 32 ms, one every 16 ms, normalized.

    32 ms is what speech recognition takes (20 to 40 ms: Paliwal et al., "Preference for 20-40 ms window duration in
    speech analysis", ICSPCS 2010); the nearest power of two, because LiteRT's FFT takes no other length. Below 8 kHz 40
    bands would be narrower than the bins of the FFT.
    """
    bands = 40 if sample_rate >= 8000 else 20
    length = 2 ** round(math.log2(sample_rate * 0.032))
    mel = KerasObject("LogMel", {"fft_length": length, "sequence_stride": length // 2, "num_mel_bins": bands})
    return LayerSpec(f"log_mel_of_{key}", mel), *_layers("series", key)


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

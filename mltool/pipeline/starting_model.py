"""A model to start from, for what the data hold: lines of YAML, small enough for a laptop and for int8."""

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from mltool.data.source import Source, batches_of
from mltool.models.auto import auto_preprocess
from mltool.models.preprocess import ModelInput

Layer = dict[str, dict[str, Any]] | str
"""A layer as a spec has it: `Name`, or `{Name: {arguments}}`."""


_NORMALIZED: Layer = {"BatchNormalization": {"momentum": 0.9}}
"""Keras' 0.99 takes some 500 steps to know the data, which is all of the training where these are few: until then
validation guesses, and the best epoch is taken for a bad one. On 1,152 photographs validation was at 50 % for seven
epochs with 0.99, and at 80 % after two with 0.9."""


@dataclass(frozen=True)
class StartingModel:
    """What the spec says of the model and its training.

    Attributes:
        preprocess: by key of `model.preprocess`.
        layers: the layers.
        learning_rate: of Adam.
        steps: that training takes, about.
        augment: of `data`.
    """

    preprocess: dict[str, list[Layer]]
    layers: list[Layer]
    learning_rate: float
    steps: int
    augment: tuple[Layer, ...] = ()


def starting_model(source: Source, units: int) -> StartingModel:
    """A model for the inputs of a source.

    Args:
        source: all samples.
        units: outputs.
    """
    chains = _preprocess(source)
    head: list[Layer] = [{"Dense": {"units": units}}]
    name, array = next(iter(source.inputs.items()))
    kinds = {source.kinds.get(key, "") for key in source.inputs}
    if len(source.inputs) == 1:
        match source.kinds.get(name, ""):
            case "image":
                return StartingModel(chains, [*_pictures(array.shape[1], array.shape[2]), *head], 2e-3, 2000)
            case "audio":
                frames, bands = _spectrogram(chains, array.shape[1])
                augment: tuple[Layer, ...] = ({"RandomShift": {"factor": 0.1}}, {"RandomNoise": {"factor": 0.01}})
                return StartingModel(chains, [*_pictures(frames, bands, flat=True), *head], 2e-3, 2000, augment)
            case "series":
                return StartingModel(chains, [*_steps(array.shape[1]), *head], 2e-3, 900)
    layers: list[Layer] = []
    if len(chains) > 1:
        layers.append({"Concatenate": {"inputs": list(chains)}})
    elif len(source.inputs) == 1 and len(array.shape) > 2:
        layers.append("Flatten")
    if kinds == {"text"}:
        layers += [{"Dense": {"units": 16, "activation": "relu", "name": "first"}}, {"Dropout": {"rate": 0.3}}]
        return StartingModel(chains, [*layers, *head], 1e-3, 700)
    layers += [
        {"Dense": {"units": 64, "activation": "relu", "name": "first"}},
        {"Dropout": {"rate": 0.2}},
        {"Dense": {"units": 64, "activation": "relu", "name": "second"}},
    ]
    return StartingModel(chains, [*layers, *head], 2e-3, 4000)


def _preprocess(source: Source) -> dict[str, list[Layer]]:
    """What `preprocess: auto` means for these data, written out, so that it can be changed."""
    infos = {
        name: ModelInput(
            shape=tuple(array.shape[1:]),
            dtype="string" if array.dtype.kind == "U" else "float32",
            kind=source.kinds.get(name, ""),
            batches=functools.partial(batches_of, array),
            missing=source.kinds.get(name) == "number" and bool(np.isnan(array[:]).any()),
            sample_rate=source.sample_rate,
        )
        for name, array in source.inputs.items()
    }
    chains = auto_preprocess(infos)
    # Pixels that are no bytes have a range of their own.
    return {
        key: [
            "Normalization" if _is_rescaling(layer) and not _are_bytes(source) else _written(layer) for layer in layers
        ]
        for key, layers in chains.items()
    }


def _is_rescaling(layer: Any) -> bool:
    return bool(layer.layer.name == "Rescaling")


def _are_bytes(source: Source) -> bool:
    return all(array.dtype == "uint8" for array in source.inputs.values())


def _written(layer: Any) -> Layer:
    arguments = dict(layer.layer.arguments)
    return {layer.layer.name: arguments} if arguments else str(layer.layer.name)


def _pictures(height: int, width: int, *, flat: bool = False) -> Iterator[Layer]:
    """Convolutions with pooling until about 4 pixels are left. Normalized before the activation: int8 needs that."""
    stages = min(5, max(1, int(math.log2(max(min(height, width) / 4, 1)))))
    for stage in range(stages):
        filters = min(16 * 2**stage, 64)
        yield {
            "Conv2D": {
                "filters": filters,
                "kernel_size": 3,
                "padding": "same",
                "use_bias": False,
                "name": f"conv_{stage + 1}",
            }
        }
        yield _NORMALIZED
        yield "ReLU"
        yield "MaxPooling2D"
    # Where in time something was said matters; where in a picture something is, less so.
    yield "Flatten" if flat or stages < 3 else "GlobalAveragePooling2D"
    yield {"Dropout": {"rate": 0.4 if flat else 0.3}}


def _steps(steps: int) -> Iterator[Layer]:
    """The fully convolutional network of Wang, Yan and Oates (IJCNN 2017), slimmer."""
    for number, (filters, size) in enumerate(((32, 8), (64, 5), (32, 3)), start=1):
        arguments = {"filters": filters, "kernel_size": min(size, steps), "padding": "same", "use_bias": False}
        yield {"Conv1D": {**arguments, "name": f"conv_{number}"}}
        yield _NORMALIZED
        yield "ReLU"
    yield "GlobalAveragePooling1D"


def _spectrogram(chains: dict[str, list[Layer]], length: int) -> tuple[int, int]:
    """Frames and bands of the LogMel block of a sound."""
    (chain,) = chains.values()
    block = chain[0]
    assert isinstance(block, dict)  # noqa: S101  for mypy; `auto` begins the chain of sound with LogMel and arguments
    arguments = block["LogMel"]
    return 1 + (length - arguments["fft_length"]) // arguments["sequence_stride"], arguments["num_mel_bins"]

"""The preprocessing steps of a built model, as `input.json` records them."""

from collections.abc import Iterable
from typing import Any

from mltool import extras
from mltool.runs.input_schema import PreprocessStep

_COMPUTES = (
    "output_mode", "num_oov_indices", "mask_token", "oov_token", "max_tokens", "standardize", "split", "ngrams",
    "output_sequence_length", "pad_to_max_tokens", "num_bins", "salt", "bin_boundaries", "scale", "offset", "axis",
    "height", "width", "invert", "vocabulary_dtype",
)  # fmt: skip
"""Arguments that say what a preprocessing layer computes; the others say how it was built."""


def steps_of(model: Any, layer_names: Iterable[str]) -> tuple[PreprocessStep, ...]:
    """The layers between the inputs and the layers of the spec.

    Args:
        model: of `build_model`.
        layer_names: names of the spec's own layers; all others preprocess.
    """
    keras = extras.keras()
    own = set(layer_names)
    layers = [layer for layer in model.layers if not isinstance(layer, keras.layers.InputLayer)]
    # A layer of text is a step wherever the spec has it: LiteRT cannot run it.
    return tuple(step for layer in layers if (step := _step(layer)).name not in own or step.takes_text)


def _step(layer: Any) -> PreprocessStep:
    keras = extras.keras()
    taken = layer._inbound_nodes[-1].input_tensors
    config = layer.get_config() if not isinstance(layer, keras.Model) else {}
    computes = {key: config[key] for key in _COMPUTES if key in config}
    arguments = {key: value for key, value in getattr(layer, "block_arguments", computes).items() if _is_plain(value)}
    inputs = {name for tensor in taken for name in _origins(tensor)}
    return PreprocessStep(
        name=layer.name,
        class_name=getattr(layer, "block", type(layer).__name__),
        input=next(iter(inputs)) if len(inputs) == 1 else "",
        takes_text=any(str(tensor.dtype) == "string" for tensor in taken),
        arguments=arguments,
        vocabulary=f"{layer.name}.vocabulary.json" if hasattr(layer, "get_vocabulary") else None,
    )


def _origins(tensor: Any) -> set[str]:
    """Names of the model's inputs that a tensor is made of."""
    operation, node, _ = tensor._keras_history
    if isinstance(operation, extras.keras().layers.InputLayer):
        return {operation.name}
    # Not `operation.input`: of a block, a model of its own, that is its input, not what it was called with.
    return {name for source in operation._inbound_nodes[node].input_tensors for name in _origins(source)}


def _is_plain(value: Any) -> bool:
    return (
        value is None
        or isinstance(value, bool | int | float | str)
        or (isinstance(value, list | tuple) and all(isinstance(item, int | float | str) for item in value))
    )

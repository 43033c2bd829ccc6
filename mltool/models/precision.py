"""Precision: the types in which the layers of a model compute while it is trained."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mltool import extras


@contextmanager
def computing_in(policy: str) -> Iterator[None]:
    """Layers that are made inside compute in `policy`: float32, mixed_float16 or mixed_bfloat16.

    Weights are float32 in all of them (Micikevicius et al., "Mixed Precision Training", ICLR 2018, arXiv:1710.03740).
    """
    config = extras.keras().config
    before = config.dtype_policy()
    config.set_dtype_policy(policy)
    try:
        yield
    finally:
        config.set_dtype_policy(before)


def in_float32(outputs: Any) -> Any:
    """Outputs of a model in float32: losses and metrics of half precision lose digits, or overflow."""
    keras = extras.keras()
    return keras.tree.map_structure(
        lambda value: keras.ops.cast(value, "float32") if keras.backend.is_float_dtype(value.dtype) else value, outputs
    )


def make_float32(model: Any) -> None:
    """Lets every layer of a trained model compute in float32: what is deployed must not depend on a GPU's types."""
    for layer in model._flatten_layers():
        layer.dtype_policy = "float32"

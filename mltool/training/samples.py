"""What training does to its samples: augmentation, mixing, weights of classes."""

import numpy as np

from mltool.data.augment import Augmentation, MaskedAugmentation, build_augmentation, build_masked_augmentation
from mltool.data.dataset import Dataset, Samples, class_counts
from mltool.data.mixing import Mixing, build_mixing
from mltool.data.random_layers import RANDOM_LAYERS
from mltool.data.source import Array
from mltool.errors import Message, SpecError
from mltool.models.keras_objects import build_keras
from mltool.spec.blocks import MIXERS
from mltool.spec.spec import Spec


def augment_of(spec: Spec, data: Dataset) -> Augmentation | MaskedAugmentation | None:
    """Keras' random layers of the spec as one function of a sample (and its mask); None where there are none."""
    layers = [
        RANDOM_LAYERS[thing.name](**thing.arguments)
        if thing.name in RANDOM_LAYERS
        else build_keras(thing, "layers", at=f"data.augment.{index}.{thing.name}")
        for index, thing in enumerate(spec.data.augment)
        if thing.name not in MIXERS
    ]
    if not layers:
        return None
    build = build_masked_augmentation if data.task == "segmentation" else build_augmentation
    return build(layers, spec.seed, sample_shape=next(iter(data.input_shapes.values())))


_TAKE_NUMBERS_FOR_NAMES = ("CategoryEncoding", "Embedding", "IntegerLookup", "TextTransformer")
"""Layers to which a number between two others means a third thing."""


def mix_of(spec: Spec, train: Samples) -> Mixing | None:
    """MixUp and CutMix of the spec as one function of a batch; None where there are none.

    Raises:
        SpecError: if the model takes inputs that are no amounts.
    """
    things = {i: thing for i, thing in enumerate(spec.data.augment) if thing.name in MIXERS}
    if not things:
        return None
    for layer in (*spec.model.preprocess_layers, *spec.model.layers):
        if layer.layer.name in _TAKE_NUMBERS_FOR_NAMES:
            message = f"what {layer.name!r} ({layer.layer.name}) takes are no amounts, and cannot be mixed"
            index, thing = next(iter(things.items()))
            raise SpecError(Message(message, f"leave {thing.name} out", key=f"data.augment.{index}.{thing.name}"))
    layers = [build_keras(thing, "layers", at=f"data.augment.{i}.{thing.name}") for i, thing in things.items()]
    return build_mixing(layers, spec.seed, train.inputs, first=min(things))


def class_weights_of(spec: Spec, data: Dataset, train: Samples) -> Array | None:
    """How much a training sample of every class counts; None where all count alike.

    `balanced`: samples / (classes * samples of the class), as scikit-learn's `compute_class_weight` has it (King and
    Zeng, "Logistic regression in rare events data", 2001).
    """
    asked = spec.train.class_weights
    if asked is None:
        return None
    if isinstance(asked, str):
        counts = class_counts(train.targets, len(data.labels))
        weights: Array = (len(train) / (len(data.labels) * np.maximum(counts, 1))).astype(np.float32)
        return weights
    return np.asarray([asked.get(label, 1.0) for label in data.labels], dtype=np.float32)

"""Which layers `data.augment` takes, and in which order."""

from collections.abc import Iterator, Sequence
from typing import Final

from mltool.spec.blocks import AUGMENTATIONS, KERAS_AUGMENTATIONS, MIXERS
from mltool.spec.catalogue import UNREADABLE, KerasObject, Problem

_PLACES: Final = {
    **dict.fromkeys(("AutoContrast", "CLAHE", "CenterCrop", "Rescaling", "Resizing"), "preprocess"),
    **dict.fromkeys(("AlphaDropout", "Dropout", "GaussianDropout", "GaussianNoise"), "layers"),
}
"""Where in `model` a layer belongs that looks like an augmentation: what draws nothing must be there in evaluation too,
and what drops or adds while training alone does so inside of a model by itself."""


def misfits_of_augment(layers: Sequence[KerasObject]) -> Iterator[Problem]:
    """What is wrong with the layers of `data.augment`: those that are none, and samples after batches."""
    mixer: str | None = None
    for index, layer in enumerate(layers):
        if layer == UNREADABLE:
            continue
        if layer.name in MIXERS:
            mixer = layer.name
            alpha = layer.arguments.get("alpha", 1)
            if not alpha > 0:
                yield Problem((index, layer.name, "alpha"), False, f"must be greater than 0 (got {alpha})", "write 0.2")
        elif layer.name == "AugMix":
            # Keras chooses its chains while the graph is traced: once for a whole training, and anew on resuming.
            message = "AugMix cannot be made repeatable: Keras draws its chains from Python's own generator"
            yield Problem((index,), False, message, "use RandAugment")
        elif not (layer.name.startswith("Random") or layer.name in (*AUGMENTATIONS, *KERAS_AUGMENTATIONS)):
            yield Problem((index,), False, f"{layer.name!r} is not an augmentation", _hint(layer.name))
        elif mixer is not None:
            message = f"{layer.name} sees samples, and {mixer} before it has mixed them"
            yield Problem((index,), False, message, f"write {mixer} after it")


def _hint(name: str) -> str:
    if name in _PLACES:
        return f"write it under model.{_PLACES[name]}"
    return f"use Keras' Random... layers, {', '.join((*KERAS_AUGMENTATIONS, *AUGMENTATIONS))}, {' or '.join(MIXERS)}"


MOVES_MASKS: Final = (
    *("RandomCrop", "RandomFlip", "RandomPerspective", "RandomRotation", "RandomShear", "RandomTranslation"),
    "RandomZoom",
)
"""Layers of Keras that move a mask as its image, to the nearest pixel; a test holds them to the same pixels."""

_MOVES_IMAGES_ALONE: Final = {
    "RandAugment": "some of its layers would move the image and not its mask",
    "RandomElasticTransform": "Keras bends the mask otherwise than the image",
    "RandomShift": "it moves sound and series",
    "SpecAugment": "it silences sound and series",
}
"""Layers that cannot be used beside masks, and why. All others leave every pixel where it is, and masks as they are."""


def misfits_with_masks(layers: Sequence[KerasObject]) -> Iterator[Problem]:
    """What is wrong with the layers of `data.augment` where every image has a mask."""
    for index, layer in enumerate(layers):
        if layer == UNREADABLE:
            continue
        if layer.name in MIXERS:
            yield Problem(
                (index,), False, f"{layer.name} mixes a class an image, and masks have one a pixel", "leave it out"
            )
        elif layer.name in _MOVES_IMAGES_ALONE:
            hint = f"those that move both: {', '.join(MOVES_MASKS)}"
            message = f"{layer.name} cannot be used with masks: {_MOVES_IMAGES_ALONE[layer.name]}"
            yield Problem((index,), False, message, hint)
        elif layer.name in MOVES_MASKS and layer.arguments.get("fill_value"):
            message = f"would fill the mask too, with the class {layer.arguments['fill_value']}"
            hint = "leave it out: 0 is black, and the first class; or write fill_mode: reflect"
            yield Problem((index, layer.name, "fill_value"), False, message, hint)

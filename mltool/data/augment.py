"""Augmentation by Keras' random layers and ours, repeatable per (seed, epoch, sample), whatever was drawn before."""

from collections.abc import Callable, Sequence
from typing import Any

from mltool import extras
from mltool.errors import Message, SpecError
from mltool.spec.augment import MOVES_MASKS

Augmentation = Callable[[Any, Any, Any], Any]
"""(sample, epoch, id) -> sample: float32 [...], and two int64 scalars."""

MaskedAugmentation = Callable[[Any, Any, Any, Any], Any]
"""(sample, mask, epoch, id) -> (sample, mask): the mask uint8 [height, width], moved as the sample is."""

_GENERATOR_NAMES = ("generator", "seed_generator")
"""Where Keras' random layers keep their seed generator."""


def build_augmentation(layers: Sequence[Any], seed: int, *, sample_shape: tuple[int, ...]) -> Augmentation:
    """A function that runs the layers on one sample.

    Args:
        layers: Keras' random layers, or those of `random_layers.py`; their generators are replaced.
        seed: of the run.
        sample_shape: without the batch axis; must come out as it went in.

    Raises:
        SpecError: if a layer cannot be made repeatable, does not take the samples, or changes their shape.
    """
    tf = extras.tensorflow()
    generators = take_over(layers)

    def augment(sample: Any, epoch: Any, sample_id: Any) -> Any:
        sample_seed = tf.random.fold_in(tf.stack([tf.cast(seed, tf.int64), epoch]), sample_id)
        for index, (layer, generator) in enumerate(zip(layers, generators, strict=True)):
            generator.begin(tf.random.fold_in(sample_seed, index))
            sample = layer(sample[tf.newaxis], training=True)[0]
        return sample

    _require_same_shape(augment, sample_shape)
    return augment


def build_masked_augmentation(layers: Sequence[Any], seed: int, *, sample_shape: tuple[int, ...]) -> MaskedAugmentation:
    """The same for images with masks: what moves the pixels of an image moves its mask alike, to the nearest pixel.

    Args:
        layers: that `spec/augment.py` allows with masks.
        seed: of the run.
        sample_shape: of an image: height, width, channels.

    Raises:
        SpecError: as `build_augmentation`.
    """
    tf = extras.tensorflow()
    generators = take_over(layers)

    def augment(sample: Any, mask: Any, epoch: Any, sample_id: Any) -> Any:
        sample_seed = tf.random.fold_in(tf.stack([tf.cast(seed, tf.int64), epoch]), sample_id)
        image, moved = sample[tf.newaxis], tf.cast(mask, tf.float32)[tf.newaxis, ..., tf.newaxis]
        for index, (layer, generator) in enumerate(zip(layers, generators, strict=True)):
            generator.begin(tf.random.fold_in(sample_seed, index))
            if type(layer).__name__ in MOVES_MASKS:
                both = layer({"images": image, "segmentation_masks": moved}, training=True)
                image, moved = both["images"], both["segmentation_masks"]
            else:
                image = layer(image, training=True)
        return image[0], tf.cast(tf.round(moved[0, ..., 0]), tf.uint8)

    def without_mask(sample: Any, epoch: Any, sample_id: Any) -> Any:
        return augment(sample, tf.zeros(sample_shape[:2], tf.uint8), epoch, sample_id)[0]

    _require_same_shape(without_mask, sample_shape)
    return augment


def take_over(layers: Sequence[Any], *, first: int = 0) -> list[Any]:
    """Puts a generator of ours into every layer; `begin(seed)` makes what the layer draws next a function of the seed.

    Args:
        layers: Keras' random layers, or those of `random_layers.py`.
        first: place of the first of them in `data.augment`, for messages.

    Returns:
        One generator a layer.

    Raises:
        SpecError: if a layer draws from elsewhere.
    """
    tf, keras = extras.tensorflow(), extras.keras()

    class FoldedSeeds(keras.random.SeedGenerator):  # type: ignore[misc, name-defined]
        """Gives seeds that are functions of one; Keras' own counts calls, and its layers take no seed tensor."""

        def __init__(self) -> None:
            super().__init__(seed=0)
            self.begin(None)

        def begin(self, seed: Any) -> None:
            self.first_seed, self.draws = seed, 0

        def next(self, ordered: bool = True) -> Any:
            self.draws += 1
            return tf.random.fold_in(self.first_seed, self.draws)

    return [_replace_generators(layer, FoldedSeeds(), first + index) for index, layer in enumerate(layers)]


def _replace_generators(layer: Any, generator: Any, index: int) -> Any:
    """Puts a generator where the layer, and every layer inside of it, keeps its own."""
    seeds = extras.keras().random.SeedGenerator
    # Keras has no public way to the layers inside of a layer.
    for part in layer._flatten_layers() if hasattr(layer, "_flatten_layers") else [layer]:
        # A generator under another name would go on counting calls, and resuming would be inexact in silence.
        strange = [
            name for name, value in vars(part).items() if isinstance(value, seeds) and name not in _GENERATOR_NAMES
        ]
        if strange:
            raise _refusal(layer, index, f"cannot be made repeatable: it draws from {strange[0]!r}")
        for name in _GENERATOR_NAMES:
            if hasattr(part, name):
                setattr(part, name, generator)
    return generator


def _require_same_shape(augment: Augmentation, sample_shape: tuple[int, ...]) -> None:
    tf = extras.tensorflow()
    number = tf.constant(0, tf.int64)
    try:
        shape = tuple(augment(tf.zeros(sample_shape), number, number).shape)
    # Keras' and TensorFlow's layers raise whatever they meet first.
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        message = Message(f"the layers do not take samples of shape {sample_shape}", reason, key="data.augment")
        raise SpecError(message) from error
    if shape != sample_shape:
        text = f"the layers turn samples of shape {sample_shape} into {shape}; evaluation has no such step"
        raise SpecError(Message(text, "keep the shape", key="data.augment"))


def _refusal(layer: Any, index: int, message: str) -> SpecError:
    name = type(layer).__name__
    return SpecError(Message(f"{name} {message}", "take another layer", key=f"data.augment.{index}.{name}"))

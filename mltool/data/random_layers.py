"""Augmentations of ours (`spec/blocks.py`) for sound and series, where Keras has layers for images only.

They are called as Keras' random layers are, [1, steps, ...] in and out, and draw every number from a seed of their
generator, so that `augment.py` makes them repeatable per (seed, epoch, sample).

Masks over a spectrogram (SpecAugment) are none of them: the spectrogram is made inside of the model. There, Keras' own
`Dropout: {noise_shape: [null, null, BANDS, 1]}` behind LogMel drops whole bands, in training only.
"""

from collections.abc import Callable
from typing import Any

from mltool import extras


class RandomShift:
    """Moves a sample along its first axis, earlier or later.

    Args:
        factor: the farthest, as a share of the length; every distance up to it is as likely as any other.
        fill_mode: what comes in at the end that falls free: `constant` (zeros: silence), `nearest` (the last value), or
            `wrap` (what went out at the other end).
    """

    generator: Any = None

    def __init__(self, factor: float, fill_mode: str = "constant") -> None:
        self.factor, self.fill_mode = factor, fill_mode

    def __call__(self, inputs: Any, training: bool = True) -> Any:
        """float32 [1, steps, ...]."""
        tf = extras.tensorflow()
        steps = inputs.shape[1]
        most = round(self.factor * steps)
        shift = tf.random.stateless_uniform((), self.generator.next(), -most, most + 1, dtype=tf.int32)
        wanted = tf.range(steps) - shift
        if self.fill_mode == "wrap":
            return tf.gather(inputs, wanted % steps, axis=1)
        moved = tf.gather(inputs, tf.clip_by_value(wanted, 0, steps - 1), axis=1)
        if self.fill_mode == "nearest":
            return moved
        inside = tf.reshape((wanted >= 0) & (wanted < steps), (1, steps, *([1] * (inputs.shape.rank - 2))))
        return tf.where(inside, moved, tf.zeros_like(moved))


class RandomNoise:
    """Adds white Gaussian noise, of another strength for every sample.

    Args:
        factor: the greatest standard deviation, in the units of the samples (full scale of sound is 1); every one from
            0 up to it is as likely as any other.
    """

    generator: Any = None

    def __init__(self, factor: float) -> None:
        self.factor = factor

    def __call__(self, inputs: Any, training: bool = True) -> Any:
        """float32 [1, steps, ...]."""
        tf = extras.tensorflow()
        deviation = tf.random.stateless_uniform((), self.generator.next(), 0.0, self.factor)
        return inputs + deviation * tf.random.stateless_normal(tf.shape(inputs), self.generator.next())


RANDOM_LAYERS: dict[str, Callable[..., Any]] = {"RandomNoise": RandomNoise, "RandomShift": RandomShift}
"""Name in the spec to what builds it."""

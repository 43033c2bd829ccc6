"""Mixtures of the samples of a batch by Keras' MixUp and CutMix, repeatable per (seed, epoch, batch).

What a batch is follows from (seed, epoch, position) already, so the position of its first sample is all that a draw
needs beside seed and epoch: a resumed training mixes what the uncut one would have mixed.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mltool import extras
from mltool.data.augment import take_over
from mltool.data.source import ArrayLike
from mltool.errors import Message, SpecError

Mixing = Callable[[Any, Any, Any], Any]
"""(batch, epoch, position) -> batch: (inputs, targets, weights), and two int64 scalars; the position is that of the
batch's first sample in the order of the epoch."""


@dataclass(frozen=True)
class _Mixture:
    """A batch laid over itself.

    Attributes:
        inputs: of the model, mixed.
        partners: [samples], the other sample in each of them.
        shares: float32 [samples] in [0, 1], how much of each is the sample itself.
    """

    inputs: dict[str, Any]
    partners: Any
    shares: Any


def build_mixing(layers: Sequence[Any], seed: int, inputs: Mapping[str, ArrayLike], *, first: int = 0) -> Mixing:
    """A function that mixes every batch by one of the layers; where there are several, each is as likely.

    Values are mixed as their inputs are, and give (inputs, targets, weights) again. Of classes each mixture has two,
    and both count: (inputs, targets, weights, mixed) with `mixed`

    - `targets`: int64 [samples], class numbers of the partners,
    - `weights`: float32 [samples], what the loss against them counts; a weight stays with its target, so both `weights`
      are the weight of a sample times its share,
    - `leads`: bool [samples], whether the partner has the greater share.

    Args:
        layers: Keras' MixUp and CutMix; their generators are replaced.
        seed: of the run.
        inputs: of the model, as the source has them.
        first: place of the first of the layers in `data.augment`.

    Raises:
        SpecError: if a layer does not take the inputs.
    """
    tf = extras.tensorflow()
    for index, layer in enumerate(layers):
        _require_fit(layer, inputs, f"data.augment.{first + index}.{type(layer).__name__}")
    generators = take_over(layers, first=first)

    def mix(batch: Any, epoch: Any, position: Any) -> Any:
        taken, targets, weights = batch
        batch_seed = tf.random.fold_in(tf.stack([tf.cast(seed, tf.int64), epoch]), position)

        def by(index: int) -> Any:
            # After the layers that see samples, whose draws are folded the same way.
            generators[index].begin(tf.random.fold_in(batch_seed, first + index))
            mixture = _MIX[type(layers[index]).__name__](layers[index], taken)
            return mixture.inputs, tf.cast(mixture.partners, tf.int64), mixture.shares

        choice = tf.random.stateless_uniform((), batch_seed, 0, len(layers), dtype=tf.int32)
        found = tf.switch_case(choice, [lambda index=index: by(index) for index in range(len(layers))])
        mixed = {name: tf.ensure_shape(value, taken[name].shape) for name, value in found[0].items()}
        return mixed, *_with_partners(targets, weights, found[1], found[2])

    return mix


def _with_partners(targets: Any, weights: Any, partners: Any, shares: Any) -> tuple[Any, ...]:
    tf = extras.tensorflow()
    others, others_weights = tf.gather(targets, partners), tf.gather(weights, partners)
    if targets.dtype.is_floating:
        column = tf.reshape(shares, (-1, *([1] * (targets.shape.rank - 1))))
        return column * targets + (1 - column) * others, shares * weights + (1 - shares) * others_weights
    mixed = {"targets": others, "weights": (1 - shares) * others_weights, "leads": shares < 0.5}
    return targets, shares * weights, mixed


def _mix_up(layer: Any, inputs: Mapping[str, Any]) -> _Mixture:
    """A mixture is share * x_i + (1 - share) * x_j, with share from Beta(alpha, alpha), drawn for every sample.

    Zhang, Cisse, Dauphin and Lopez-Paz, "mixup: Beyond Empirical Risk Minimization", ICLR 2018, arXiv:1710.09412,
    section 2. All inputs of a sample are mixed alike.
    """
    tf = extras.tensorflow()
    # Keras' layer takes images only; what has another shape is a picture of one row to it.
    flat = {name: tf.reshape(value, (tf.shape(value)[0], -1, 1, 1)) for name, value in inputs.items()}
    drawn = layer.get_random_transformation(next(iter(flat.values())), training=True)
    mixed = {
        name: tf.reshape(layer.transform_images(value, drawn, training=True), tf.shape(inputs[name]))
        for name, value in flat.items()
    }
    return _Mixture(mixed, drawn["permutation_order"], drawn["mix_weight"])


def _cut_mix(layer: Any, inputs: Mapping[str, Any]) -> _Mixture:
    """A box of the partner on every image; the share is the area outside of it.

    Yun et al., "CutMix: Regularization Strategy to Train Strong Classifiers with Localizable Features", ICCV 2019,
    arXiv:1905.04899, section 3.1: sides of the image's times sqrt(1 - share), share from Beta(alpha, alpha). As Keras
    has it, alpha is drawn from `factor` for every batch ([1, 1] gives the paper's 1), and a box lies inside of the
    image whole.
    """
    tf = extras.tensorflow()
    ((name, images),) = inputs.items()
    drawn = layer.get_random_transformation(images, training=True)
    # Counted, not the share that was drawn: a box has whole pixels.
    shares = 1 - tf.reduce_mean(tf.cast(drawn["batch_masks"], tf.float32), axis=[1, 2, 3])
    return _Mixture({name: layer.transform_images(images, drawn, training=True)}, drawn["permutation_order"], shares)


_MIX: dict[str, Callable[[Any, Mapping[str, Any]], _Mixture]] = {"CutMix": _cut_mix, "MixUp": _mix_up}
"""How a layer of Keras is used, by its class; `spec/blocks.py` has the same names."""


def _require_fit(layer: Any, inputs: Mapping[str, ArrayLike], key: str) -> None:
    name = type(layer).__name__
    texts = [input_name for input_name, array in inputs.items() if array.dtype.kind == "U"]
    if texts:
        message = f"{name} mixes numbers, and the input {texts[0]!r} is text"
        raise SpecError(Message(message, f"leave {name} out", key=key))
    shapes = [tuple(array.shape[1:]) for array in inputs.values()]
    if name == "CutMix" and (len(shapes) != 1 or len(shapes[0]) != 3):
        found = ", ".join(map(str, shapes))
        hint = "take MixUp, or leave it out"
        raise SpecError(Message(f"CutMix takes images, and samples are of shape {found}", hint, key=key))

"""Keras' MixUp and CutMix: what is mixed, with what, and that a batch alone decides."""

import numpy as np
import pytest

from mltool.data.augment import build_augmentation
from mltool.data.dataset import Samples
from mltool.data.mixing import build_mixing
from mltool.data.pipeline import Pipeline
from mltool.errors import SpecError

COUNT = 22
IMAGES = np.random.default_rng(0).uniform(0, 255, (COUNT, 8, 6, 3)).astype(np.float32)
CLASSES = np.arange(COUNT)
WEIGHTS = np.linspace(0.5, 2, COUNT).astype(np.float32)
SAMPLES = Samples({"image": IMAGES}, CLASSES, CLASSES + 30, WEIGHTS)


def layer_of(name, **arguments):
    import keras

    return getattr(keras.layers, name)(**arguments)


MIXERS = {"mixup": ("MixUp", {"alpha": 1.0}), "cutmix": ("CutMix", {}), "both": None}


def mixers(words):
    return (
        [layer_of(name, **arguments) for name, arguments in filter(None, MIXERS.values())]
        if words == "both"
        else [layer_of(MIXERS[words][0], **MIXERS[words][1])]
    )


def batches(layers, samples=SAMPLES, *, epoch=0, first_step=0, seed=7, order=1, batch_size=8, augment=None):
    """The batches of an epoch as numpy."""
    import tensorflow as tf

    mix = build_mixing(layers, seed, samples.inputs)
    found = Pipeline(samples, batch_size, seed=order, augment=augment, mix=mix).epoch(epoch, first_step)
    return [tf.nest.map_structure(np.asarray, batch) for batch in found]


def shares_of(targets, weights, mixed):
    """How much of each sample is itself, told by its weight."""
    own = weights / WEIGHTS[targets]
    np.testing.assert_allclose(own + mixed["weights"] / WEIGHTS[mixed["targets"]], 1, atol=1e-5)
    return own


def test_mixup_is_a_weighted_mean_of_two_samples_and_both_targets_count_by_their_shares():
    seen = []
    for inputs, targets, weights, mixed in batches([layer_of("MixUp", alpha=1.0)]):
        shares = shares_of(targets, weights, mixed)
        assert sorted(mixed["targets"]) == sorted(targets)  # every sample of the batch is a partner once
        np.testing.assert_array_equal(mixed["leads"], shares < 0.5)
        column = shares[:, None, None, None]
        expected = column * IMAGES[targets] + (1 - column) * IMAGES[mixed["targets"]]
        np.testing.assert_allclose(inputs["image"], expected, rtol=1e-4, atol=1e-3)
        seen += shares.tolist()
    assert len(set(seen)) == COUNT  # a share of its own for every sample
    assert np.ptp(seen) > 0.5


@pytest.mark.parametrize("alpha", [0.2, 1.0, 8.0])
def test_the_shares_of_mixup_have_the_variance_of_their_beta(alpha):
    many = Samples({"x": np.zeros((2000, 1), np.float32)}, np.arange(2000), np.arange(2000))
    ((_, _, weights, _),) = batches([layer_of("MixUp", alpha=alpha)], many, batch_size=2000)
    assert weights.mean() == pytest.approx(0.5, abs=0.05)
    assert weights.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.1)


def test_cutmix_puts_a_box_of_the_partner_on_the_image_and_shares_by_its_pixels():
    boxes = 0
    for inputs, targets, weights, mixed in batches([layer_of("CutMix", factor=[1.0, 1.0])]):
        shares = shares_of(targets, weights, mixed)
        for image, own, other, share in zip(inputs["image"], targets, mixed["targets"], shares, strict=True):
            pasted = (image != IMAGES[own]).all(axis=-1)
            if own == other:
                continue
            np.testing.assert_array_equal(image, np.where(pasted[..., None], IMAGES[other], IMAGES[own]))
            rows, columns = np.nonzero(pasted.any(axis=1))[0], np.nonzero(pasted.any(axis=0))[0]
            assert pasted.sum() == len(rows) * len(columns)  # one box
            assert share == pytest.approx(1 - pasted.mean(), abs=1e-5)
            boxes += pasted.any()
    assert boxes > COUNT / 2


@pytest.mark.parametrize("words", MIXERS)
def test_a_later_first_step_mixes_the_batches_that_are_left_alike(words):
    whole, late = batches(mixers(words), epoch=3), batches(mixers(words), epoch=3, first_step=1)
    assert len(late) == len(whole) - 1 == 2
    for one, other in zip(whole[1:], late, strict=True):
        np.testing.assert_array_equal(one[0]["image"], other[0]["image"])
        np.testing.assert_array_equal(one[2], other[2])
        np.testing.assert_array_equal(one[3]["targets"], other[3]["targets"])


@pytest.mark.parametrize("words", MIXERS)
def test_every_epoch_seed_and_batch_draws_its_own(words):
    def drawn(**changes):
        shares = [batch[2] / WEIGHTS[batch[1]] for batch in batches(mixers(words), **changes)]
        return np.concatenate(shares).round(5)  # without what the division left

    first = drawn()
    assert not np.array_equal(first[:8], first[8:16])
    assert not np.array_equal(first, drawn(epoch=1))
    assert not np.array_equal(first, drawn(seed=8))
    np.testing.assert_array_equal(first, drawn())


def test_of_several_mixers_every_batch_takes_one():
    kinds = set()
    for epoch in range(4):
        for inputs, targets, _, mixed in batches(mixers("both"), epoch=epoch):
            of_two = (inputs["image"] == IMAGES[targets]) | (inputs["image"] == IMAGES[mixed["targets"]])
            kinds.add("cutmix" if of_two.all() else "mixup")
    assert kinds == {"cutmix", "mixup"}


def test_values_are_mixed_as_their_inputs_are():
    values = np.stack([CLASSES, -CLASSES], axis=1).astype(np.float32)
    samples = Samples({"x": values.copy(), "z": values[:, 0].copy()}, values, CLASSES, WEIGHTS)
    for inputs, targets, weights in batches([layer_of("MixUp", alpha=1.0)], samples):
        np.testing.assert_allclose(targets, inputs["x"], atol=1e-4)
        np.testing.assert_allclose(targets[:, 0], inputs["z"], atol=1e-4)
        # Of equal steps from weight to weight, so that the mixed weight tells the mixed value.
        np.testing.assert_allclose(weights, 0.5 + 1.5 * targets[:, 0] / (COUNT - 1), atol=1e-4)


def test_samples_are_augmented_before_they_are_mixed():
    augment = build_augmentation([layer_of("RandomBrightness", factor=[-1.0, -1.0])], 7, sample_shape=IMAGES.shape[1:])
    dark = batches([layer_of("MixUp")], augment=augment)
    assert len(dark) == 3
    assert all((batch[0]["image"] == 0).all() for batch in dark)


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("MixUp", np.asarray(["a", "b"]), r"augment\.2\.MixUp: MixUp mixes numbers, and the input 'a' is text; leave"),
        (
            "CutMix",
            np.zeros((2, 9, 2)),
            r"augment\.2\.CutMix: CutMix takes images, and samples are of shape \(9, 2\)",
        ),
    ],
    ids=["text", "series"],
)
def test_inputs_that_cannot_be_mixed_are_refused(name, array, message):
    with pytest.raises(SpecError, match=message):
        build_mixing([layer_of(name)], 7, {"a": array}, first=2)

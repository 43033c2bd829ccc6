"""Keras' random layers, repeatable per (seed, epoch, sample)."""

import numpy as np
import pytest

from mltool.data.augment import build_augmentation
from mltool.data.dataset import Samples
from mltool.data.order import epoch_order
from mltool.data.pipeline import Pipeline
from mltool.data.random_layers import RandomNoise, RandomShift, SpecAugment
from mltool.errors import SpecError
from mltool.spec.blocks import AUGMENTATIONS, KERAS_AUGMENTATIONS
from mltool.spec.catalogue import names

SHAPE = (8, 8, 3)
LAYERS = {
    "RandAugment": {},
    "RandomBrightness": {"factor": 0.3},
    "RandomColorDegeneration": {"factor": 0.5},
    "RandomColorJitter": {"brightness_factor": 0.3, "contrast_factor": 0.3, "saturation_factor": 0.3},
    "RandomContrast": {"factor": 0.3},
    "RandomCrop": {"height": 6, "width": 6},
    "RandomElasticTransform": {"factor": 1.0},
    "RandomErasing": {"factor": 1.0},
    "RandomFlip": {},
    "RandomGaussianBlur": {"factor": 1.0, "sigma": 1.0},
    "RandomGrayscale": {"factor": 0.5},
    "RandomHue": {"factor": 0.5},
    "RandomInvert": {"factor": 0.5},
    "RandomPerspective": {"factor": 1.0},
    "RandomPosterization": {"factor": 4},
    "RandomRotation": {"factor": 0.3},
    "RandomSaturation": {"factor": 0.5},
    "RandomSharpness": {"factor": 0.5},
    "RandomShear": {"x_factor": 0.3, "y_factor": 0.3},
    "RandomTranslation": {"height_factor": 0.3, "width_factor": 0.3},
    "RandomZoom": {"height_factor": 0.3},
    "Solarization": {"threshold_factor": 0.5},
}
IMAGES = np.random.default_rng(0).uniform(0, 255, (12, *SHAPE)).astype(np.float32)
SAMPLES = Samples({"image": IMAGES}, np.arange(12), np.arange(12) + 30)


def layer_of(name):
    import keras

    return getattr(keras.layers, name)(**LAYERS[name])


def augmentation(*layers, seed=7):
    import keras

    # A crop has to come back to the size of the samples; layers that draw nothing are welcome.
    resize = [keras.layers.Resizing(8, 8, interpolation="nearest")]
    return build_augmentation([*layers, *resize], seed, sample_shape=SHAPE)


def by_target(augment, *, epoch, batch_size=5, seed=1, first_step=0):
    """The augmented images by their class, which no augmentation touches."""
    found = {}
    for inputs, targets, _ in Pipeline(SAMPLES, batch_size, seed=seed, augment=augment).epoch(epoch, first_step):
        found |= {int(t): image for t, image in zip(targets, np.asarray(inputs["image"]), strict=True)}
    return found


def test_the_list_is_that_of_the_catalogue():
    named = [name for name in names("layer") if name.startswith("Random") and name not in AUGMENTATIONS]
    assert sorted(LAYERS) == sorted([*named, *KERAS_AUGMENTATIONS])


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_gives_the_same_sample_the_same_picture_whatever_else_was_drawn(name):
    whole = by_target(augmentation(layer_of(name)), epoch=2)
    assert len(whole) == 12
    again = by_target(augmentation(layer_of(name)), epoch=2, batch_size=4, seed=99)
    for target, image in whole.items():
        np.testing.assert_array_equal(image, again[target])


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_draws_anew_for_every_epoch_seed_and_sample(name):
    import tensorflow as tf

    image = tf.constant(IMAGES[0])

    def drawn(augment, epoch, sample_id):
        return np.asarray(augment(image, tf.constant(epoch, tf.int64), tf.constant(sample_id, tf.int64))).tobytes()

    augment, other = augmentation(layer_of(name)), augmentation(layer_of(name), seed=8)
    assert len({drawn(augment, epoch, 5) for epoch in range(12)}) > 1
    assert len({drawn(augment, 0, sample_id) for sample_id in range(12)}) > 1
    assert [drawn(other, epoch, 5) for epoch in range(12)] != [drawn(augment, epoch, 5) for epoch in range(12)]


def test_a_later_first_step_gives_the_samples_that_are_left_the_same_pictures():
    augment = augmentation(layer_of("RandomTranslation"), layer_of("RandomFlip"))
    whole, late = by_target(augment, epoch=1), by_target(augment, epoch=1, first_step=2)
    assert set(late) == set(epoch_order(1, 1, 12)[10:].tolist())
    for target, image in late.items():
        np.testing.assert_array_equal(image, whole[target])


def test_layers_of_one_kind_draw_their_own_numbers():
    import tensorflow as tf

    zero, image = tf.constant(0, tf.int64), tf.constant(IMAGES[0])
    one = augmentation(layer_of("RandomBrightness"))
    two = augmentation(layer_of("RandomBrightness"), layer_of("RandomBrightness"))
    first = np.asarray(one(image, zero, zero))
    twice = np.asarray(one(tf.constant(first), zero, zero))
    assert not np.array_equal(np.asarray(two(image, zero, zero)), twice)


def test_a_layer_that_draws_from_a_generator_of_another_name_is_refused():
    import keras

    class Strange(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.dice = keras.random.SeedGenerator(1)

        def call(self, inputs, training=True):
            return inputs + keras.random.uniform((), seed=self.dice)

    message = r"data\.augment\.0\.Strange: Strange cannot be made repeatable: it draws from 'dice'; take another layer"
    with pytest.raises(SpecError, match=message):
        build_augmentation([Strange()], 7, sample_shape=SHAPE)


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("RandomCrop", (8, 8, 3), r"turn samples of shape \(8, 8, 3\) into \(6, 6, 3\).*keep the shape"),
        ("RandomFlip", (8,), r"data\.augment: the layers do not take samples of shape \(8,\)"),
    ],
    ids=["another shape", "no image"],
)
def test_layers_that_do_not_fit_the_samples_are_refused(name, shape, message):
    with pytest.raises(SpecError, match=message):
        build_augmentation([layer_of(name)], 7, sample_shape=shape)


# Sound and series: layers of ours


SOUND = np.arange(1, 21, dtype=np.float32)
ZERO_TO = [(epoch, sample_id) for epoch in range(4) for sample_id in range(10)]


def drawn_of(layer, sample=SOUND, *, seed=7, draws=ZERO_TO):
    import tensorflow as tf

    augment = build_augmentation([layer], seed, sample_shape=sample.shape)
    numbers = [(tf.constant(epoch, tf.int64), tf.constant(sample_id, tf.int64)) for epoch, sample_id in draws]
    return [np.asarray(augment(tf.constant(sample), *number)) for number in numbers]


@pytest.mark.parametrize("fill_mode", ["constant", "nearest", "wrap"])
def test_a_shift_moves_the_sample_by_up_to_its_factor_either_way(fill_mode):
    def moved(shift):
        whole = np.roll(SOUND, shift)
        filled = {"constant": 0, "nearest": SOUND[0] if shift > 0 else SOUND[-1]}.get(fill_mode, whole)
        free = np.arange(20) < shift if shift > 0 else np.arange(20) >= 20 + shift
        return np.where(free, filled, whole).tolist()

    possible = {shift: moved(shift) for shift in range(-4, 5)}
    found = [sample.tolist() for sample in drawn_of(RandomShift(0.2, fill_mode))]
    assert all(sample in possible.values() for sample in found)
    assert {shift for shift, sample in possible.items() if sample in found} == set(range(-4, 5))


def test_a_shift_moves_all_channels_of_a_series_together():
    series = np.stack([SOUND, -SOUND], axis=1)
    found = drawn_of(RandomShift(0.5), series)
    assert len({sample[:, 0].tobytes() for sample in found}) > 5
    assert all(np.array_equal(sample[:, 0], -sample[:, 1]) for sample in found)


def test_noise_is_white_and_of_another_strength_for_every_sample():
    silence = np.zeros(4000, np.float32)
    found = np.stack(drawn_of(RandomNoise(0.1), silence))
    strengths = found.std(axis=1)
    assert strengths.max() < 0.105
    assert strengths.min() < 0.02
    assert 0.03 < strengths.mean() < 0.07  # half of the factor, by its definition
    loudest = found[strengths.argmax()]
    assert abs(loudest.mean()) < 0.01
    assert abs(np.corrcoef(loudest[1:], loudest[:-1])[0, 1]) < 0.06


NOISE = np.random.default_rng(3).normal(size=400).astype(np.float32)


def runs_of(masked):
    """Lengths of the stretches of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], masked, [False]]).astype(int)))
    return edges[1::2] - edges[::2]


def test_a_time_mask_silences_one_stretch_of_every_width_up_to_its_factor():
    noise = NOISE - NOISE.mean()
    draws = [(0, sample_id) for sample_id in range(400)]
    found = drawn_of(SpecAugment(num_time_masks=1, time_factor=0.02, num_frequency_masks=0), noise, draws=draws)
    masked = np.abs(np.stack(found)) < 1e-6
    widths = masked.sum(axis=1)
    assert all(len(runs_of(row)) <= 1 for row in masked)
    np.testing.assert_allclose(np.stack(found)[~masked], np.broadcast_to(noise, masked.shape)[~masked], atol=1e-6)
    counts = np.bincount(widths, minlength=9)
    assert len(counts) == 9  # 0 to 8 of 400, each as likely
    assert counts.min() > 25
    starts = masked.argmax(axis=1)[widths > 0]
    assert np.quantile(starts, [0.1, 0.5, 0.9]) == pytest.approx([40, 200, 360], abs=30)


def test_a_frequency_mask_silences_one_band_and_leaves_the_others_as_they_were():
    found = np.stack(drawn_of(SpecAugment(num_time_masks=0, num_frequency_masks=1, frequency_factor=0.1), NOISE))
    spectra, whole = np.fft.rfft(found), np.fft.rfft(NOISE)
    masked = np.abs(spectra) < 1e-3
    assert all(len(runs_of(row)) <= 1 for row in masked)
    np.testing.assert_allclose(spectra[~masked], np.broadcast_to(whole, masked.shape)[~masked], atol=1e-3)
    widths = masked.sum(axis=1)
    assert widths.max() <= 20  # a tenth of 201 frequencies
    assert len(set(widths)) > 8


@pytest.mark.parametrize("steps", [1, 2, 33], ids=["one step", "two steps", "an odd number"])
def test_masks_of_a_series_leave_its_mean_and_cover_all_channels(steps):
    series = NOISE[: 2 * steps].reshape(steps, 2) + np.float32([300, -5])
    for sample in drawn_of(SpecAugment(num_time_masks=1, time_factor=1.0, frequency_factor=1.0), series):
        assert sample.shape == series.shape
        mean = series.mean(axis=0)
        silent = np.abs(sample - mean) < 1e-3
        assert (silent[:, 0] == silent[:, 1]).all()
        assert np.abs(sample - mean).max() < 20


@pytest.mark.parametrize("layer", [RandomShift(0.3), RandomNoise(0.1), SpecAugment()], ids=["shift", "noise", "masks"])
def test_layers_of_ours_draw_by_seed_epoch_and_sample_alone(layer):
    here, backwards, other = drawn_of(layer), drawn_of(layer, draws=ZERO_TO[::-1])[::-1], drawn_of(layer, seed=8)
    np.testing.assert_array_equal(here, backwards)
    assert not np.array_equal(here, other)
    assert len({sample.tobytes() for sample in here}) > 5


def test_layers_of_ours_run_in_the_pipeline():
    sounds = Samples({"audio": np.zeros((6, 50), np.float32)}, np.arange(6), np.arange(6))
    augment = build_augmentation([RandomNoise(0.1)], 7, sample_shape=(50,))
    batches = [
        np.concatenate(
            [np.asarray(inputs["audio"]) for inputs, _, _ in Pipeline(sounds, 4, augment=augment).epoch(epoch)]
        )
        for epoch in (0, 0, 1)
    ]
    np.testing.assert_array_equal(batches[0], batches[1])
    assert not np.array_equal(batches[0], batches[2])
    assert (batches[0].std(axis=1) > 0).all()

"""Batches in the order that (seed, epoch) says, from any step on."""

import gc
import weakref

import numpy as np
import pytest

from mltool.data.dataset import Samples
from mltool.data.order import epoch_order
from mltool.data.pipeline import Pipeline

SAMPLES = Samples(
    {"image": np.arange(10 * 4, dtype=np.uint8).reshape(10, 2, 2), "meta": np.arange(10.0)[:, np.newaxis]},
    np.arange(10) + 100,
    np.arange(10) + 50,
)


def batches(pipeline: Pipeline, epoch: int, first_step: int = 0) -> list[tuple[dict[str, np.ndarray], np.ndarray]]:
    return [
        ({name: np.asarray(array) for name, array in inputs.items()}, np.asarray(targets))
        for inputs, targets, _ in pipeline.epoch(epoch, first_step)
    ]


@pytest.mark.parametrize("epoch", [0, 1, 5])
def test_every_sample_comes_once_in_the_order_of_the_epoch(epoch):
    found = batches(Pipeline(SAMPLES, 4, seed=3), epoch)
    assert [len(targets) for _, targets in found] == [4, 4, 2]
    order = epoch_order(3, epoch, 10)
    np.testing.assert_array_equal(np.concatenate([targets for _, targets in found]), SAMPLES.targets[order])
    for name, array in SAMPLES.inputs.items():
        joined = np.concatenate([inputs[name] for inputs, _ in found])
        assert joined.dtype == np.float32
        np.testing.assert_array_equal(joined, array[order])


def test_epochs_differ_and_come_back():
    pipeline = Pipeline(SAMPLES, 4, seed=3)
    first, second, again = (np.concatenate([t for _, t in batches(pipeline, epoch)]) for epoch in (0, 1, 0))
    assert first.tolist() != second.tolist()
    np.testing.assert_array_equal(first, again)


@pytest.mark.parametrize("first_step", [0, 1, 2, 3])
@pytest.mark.parametrize("augmented", [False, True], ids=["as they are", "augmented"])
def test_a_first_step_skips_exactly_the_steps_before(first_step, augmented):
    augment = (lambda sample, epoch, sample_id: sample + float(1000) * tf_float(sample_id)) if augmented else None
    pipeline = Pipeline(SAMPLES, 4, seed=3, augment=augment)
    whole = batches(pipeline, 2)
    for (inputs, targets), (expected, classes) in zip(
        batches(pipeline, 2, first_step), whole[first_step:], strict=True
    ):
        np.testing.assert_array_equal(targets, classes)
        for name in expected:
            np.testing.assert_array_equal(inputs[name], expected[name])


def tf_float(value):
    import tensorflow as tf

    return tf.cast(value, tf.float32)


def test_without_a_seed_samples_keep_their_order():
    found = batches(Pipeline(SAMPLES, 3), 7)
    assert [targets.tolist() for _, targets in found] == [[100, 101, 102], [103, 104, 105], [106, 107, 108], [109]]


@pytest.mark.parametrize(("batch_size", "steps"), [(1, 10), (3, 4), (5, 2), (10, 1), (64, 1)])
def test_steps_count_the_uneven_last_batch(batch_size, steps):
    assert Pipeline(SAMPLES, batch_size).steps == steps


def test_augmentation_sees_the_first_input_with_epoch_and_id_and_no_other():
    import tensorflow as tf

    def augment(sample, epoch, sample_id):
        return tf.zeros_like(sample) + tf.cast(100 * epoch + sample_id, tf.float32)

    found = batches(Pipeline(SAMPLES, 4, seed=3, augment=augment), 2)
    order = epoch_order(3, 2, 10)
    image, meta = (np.concatenate([inputs[name] for inputs, _ in found]) for name in ("image", "meta"))
    np.testing.assert_array_equal(image[:, 0, 0], 200 + SAMPLES.ids[order])
    np.testing.assert_array_equal(meta, SAMPLES.inputs["meta"][order])


def test_a_pipeline_keeps_no_array_of_its_samples():
    # Of an address that TensorFlow could not share: it copies.
    array = np.zeros(4 * 10 * 8 + 64 + 4, np.uint8)
    start = -array.ctypes.data % 64 + 4
    values = array[start : start + 4 * 10 * 8].view(np.float32).reshape(10, 8)
    kept, samples = weakref.ref(values), Samples({"x": values}, np.arange(10), np.arange(10))
    pipeline = Pipeline(samples, 4)
    assert len(batches(pipeline, 0)) == 3
    del values, samples
    gc.collect()
    assert kept() is None

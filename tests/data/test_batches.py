"""Batches of numpy against those of tf.data."""

import numpy as np
import pytest

from mltool.data.batches import Batches
from mltool.data.dataset import Samples
from mltool.data.pipeline import Pipeline

NUMBERS = np.random.default_rng(3)
WEIGHTS = NUMBERS.random(11).astype(np.float32)
CLASSES = NUMBERS.integers(0, 3, 11)
OF_TWO = np.zeros(11, dtype=[("a", np.int64), ("b", np.float32, (2,))])
OF_TWO["a"], OF_TWO["b"] = CLASSES, NUMBERS.random((11, 2))


@pytest.mark.parametrize(
    ("targets", "weights", "class_weights"),
    [
        pytest.param(CLASSES, None, None, id="classes"),
        pytest.param(CLASSES, WEIGHTS, np.asarray([1, 5, 0.5], np.float32), id="weighed"),
        pytest.param(OF_TWO, WEIGHTS, None, id="two outputs"),
    ],
)
@pytest.mark.parametrize("seed", [None, 4], ids=["as they are", "shuffled"])
def test_the_batches_of_an_epoch_are_those_of_tf_data_from_any_step_on(targets, weights, class_weights, seed):
    inputs = {"x": NUMBERS.integers(0, 255, (11, 4, 4, 1)).astype(np.uint8), "f": NUMBERS.random((11, 2))}
    samples = Samples(inputs, targets, np.arange(11), weights)
    ours = Batches(samples, 4, seed=seed, class_weights=class_weights)
    theirs = Pipeline(samples, 4, seed=seed, class_weights=class_weights)
    assert ours.steps == theirs.steps == 3
    for first, left in ((0, 3), (2, 1)):
        pairs = list(zip(ours.epoch(1, first), theirs.epoch(1, first), strict=True))
        assert len(pairs) == left
        for one, other in pairs:
            flat = [_flat(batch) for batch in (one, other)]
            assert list(flat[0]) == list(flat[1])
            for name in flat[0]:
                assert flat[0][name].dtype == flat[1][name].dtype
                np.testing.assert_array_equal(flat[0][name], flat[1][name])


def _flat(batch):
    inputs, targets, weights = batch
    of_targets = targets if isinstance(targets, dict) else {"": targets}
    named = {**inputs, **{f"target {name}": values for name, values in of_targets.items()}, "weights": weights}
    return {name: np.asarray(values) for name, values in named.items()}

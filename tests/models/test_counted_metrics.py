"""Metrics count what is real of a batch that is filled up, whatever shape they want their weights in."""

from typing import Any

import numpy as np
import pytest

from mltool.errors import SpecError
from mltool.models.metrics import build_metric, targets_for, update_metric
from mltool.spec.catalogue import KerasObject
from mltool.spec.own_things import OwnThing

NUMBERS = np.random.default_rng(1)
MASKS = NUMBERS.integers(0, 3, (4, 2, 5))
SHARES = NUMBERS.dirichlet((1, 1, 1), (4, 2, 5)).astype(np.float32)


def result(metric: KerasObject, samples: int, real: list[float] | None) -> float:
    import keras

    built = build_metric(metric, "segmentation", num_classes=3)
    targets = targets_for(metric, keras.ops.convert_to_tensor(MASKS[:samples]), 3, "segmentation")
    weights: Any = None if real is None else keras.ops.convert_to_tensor(real, "float32")
    update_metric(built, metric, targets, keras.ops.convert_to_tensor(SHARES[:samples]), real=weights)
    return float(np.asarray(built.result()))


@pytest.mark.parametrize(
    "metric",
    [
        KerasObject("accuracy", {}),
        KerasObject("OneHotMeanIoU", {}),
        KerasObject("OneHotIoU", {"num_classes": 3, "target_class_ids": [0, 2]}),
        KerasObject("MeanIoU", {"num_classes": 3, "sparse_y_true": False, "sparse_y_pred": False}),
        KerasObject("Precision", {"thresholds": 0.4}),
        KerasObject("AUC", {}),
    ],
    ids=lambda metric: metric.name,
)
def test_pixels_of_samples_that_fill_a_batch_up_count_nothing(metric):
    assert 0 < result(metric, 2, None) < 1
    assert result(metric, 4, [1, 1, 0, 0]) == pytest.approx(result(metric, 2, None), abs=1e-6)
    assert result(metric, 4, None) != pytest.approx(result(metric, 2, None), abs=1e-6)


def test_a_metric_of_the_users_without_weights_is_refused(tmp_path, monkeypatch):
    code = """
import keras

class Deaf(keras.metrics.Metric):
    def update_state(self, y_true, y_pred):
        pass
"""
    (tmp_path / "weightless.py").write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(SpecError, match="weightless:Deaf takes no sample_weight in update_state; write "):
        build_metric(OwnThing("python", {}, reference="weightless:Deaf"), "classification", num_classes=3, at="m")

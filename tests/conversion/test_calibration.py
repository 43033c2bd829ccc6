"""The representative dataset: training data only, every class, sound."""

from dataclasses import dataclass, field

import numpy as np
import pytest

from mltool.conversion.calibration import Calibration, draw_random, draw_representative, require_sound
from mltool.data.dataset import Samples
from mltool.data.source import Source
from mltool.data.splits import Splits
from mltool.errors import DataError
from mltool.evaluation.verify import require_from_training
from mltool.runs.input_schema import InputInfo, InputSchema, OutputInfo


@dataclass
class Data:
    """What is drawn from: 300 samples, every third a test sample, classes of 75, 20 and 5 %."""

    classes: np.ndarray | None = field(default_factory=lambda: np.repeat([0, 1, 2], [225, 60, 15]))
    hashes: np.ndarray = field(default_factory=lambda: np.arange(1000, 1300, dtype=np.uint64))
    splits: Splits = field(
        default_factory=lambda: Splits(
            np.flatnonzero(np.arange(300) % 3 == 0), np.flatnonzero(np.arange(300) % 3 == 1), np.arange(2, 300, 3)
        )
    )

    source: Source = field(default_factory=lambda: Source("here", {}, np.zeros(300)))

    def take(self, ids):
        targets = np.zeros(len(ids)) if self.classes is None else self.classes[ids]
        return Samples({"x": np.zeros((len(ids), 1))}, targets, ids)


def test_every_class_is_drawn_in_proportion_the_same_way_every_time():
    drawn = draw_representative(Data(), 40, seed=1, ranges={})
    assert np.bincount(drawn.samples.targets).tolist() == [30, 8, 2]
    assert drawn.hashes.tolist() == (drawn.samples.ids + 1000).tolist()
    assert drawn.samples.ids.tolist() == draw_representative(Data(), 40, seed=1, ranges={}).samples.ids.tolist()
    assert drawn.samples.ids.tolist() != draw_representative(Data(), 40, seed=2, ranges={}).samples.ids.tolist()


def test_no_more_is_drawn_than_there_is_and_values_need_no_classes():
    assert len(draw_representative(Data(classes=None), 500, seed=1, ranges={}).samples) == 100


def test_copies_of_held_out_samples_are_passed_over():
    """`duplicates: keep` leaves them in the training split."""
    data = Data()
    data.hashes[data.splits.train[:50]] = data.hashes[data.splits.test[:50]]
    drawn = draw_representative(data, 100, seed=1, ranges={})
    assert set(drawn.samples.ids) == set(data.splits.train[50:])


def test_samples_that_lack_a_number_calibrate_nothing():
    holes = np.zeros((300, 1), np.float32)
    holes[:60:3] = np.nan
    data = Data(source=Source("here", {"x": holes}, np.zeros(300), kinds={"x": "number"}))
    drawn = draw_representative(data, 500, seed=1, ranges={})
    assert set(drawn.samples.ids) == set(range(60, 300, 3))


def test_too_few_training_samples_are_refused():
    data = Data(splits=Splits(np.arange(7), np.arange(31, 60), np.arange(60, 300)))
    with pytest.raises(DataError, match="needs 8 training samples, there are 7"):
        draw_representative(data, 128, seed=1, ranges={})


def test_few_training_samples_all_calibrate_with_a_remark(caplog):
    data = Data(splits=Splits(np.arange(31), np.arange(31, 60), np.arange(60, 300)))
    assert len(draw_representative(data, 128, seed=1, ranges={}).samples) == 31
    assert "only 31 training samples calibrate" in caplog.text


@pytest.mark.parametrize(
    ("ids", "hashes", "message"),
    [
        pytest.param([0, 3], [0, 3], None, id="clean"),
        pytest.param([0, 3], [0, 2], "1 calibration samples are not the training samples of that number", id="edited"),
        pytest.param([0, 7], [1, 2], "1 of 2 calibration samples are test samples .first: 7.", id="a test id"),
        pytest.param(
            [0, 3], [1, 70], "1 of 2 calibration samples are test samples .first: 3.", id="a test sample's copy"
        ),
        pytest.param([5, 3], [1, 2], "1 of 2 calibration samples are validation samples", id="validation"),
        pytest.param([0, 99], [1, 2], "1 calibration samples are in no split .first: 99.", id="from nowhere"),
    ],
)
def test_calibration_comes_from_training(ids, hashes, message):
    stored = {
        "train_ids": np.arange(5), "train_hashes": np.arange(5, dtype=np.uint64),
        "validation_ids": np.array([5, 6]), "validation_hashes": np.array([50, 60], dtype=np.uint64),
        "test_ids": np.array([7, 8]), "test_hashes": np.array([70, 80], dtype=np.uint64),
    }  # fmt: skip
    arrays = np.asarray(ids), np.asarray(hashes, dtype=np.uint64)
    if message is None:
        require_from_training(*arrays, stored)
    else:
        with pytest.raises(DataError, match=message):
            require_from_training(*arrays, stored)


def calibrating(values, width=1):
    x = np.repeat(np.asarray(values, dtype=np.float32)[:, None], width, axis=1)
    samples = Samples({"x": x}, np.zeros(len(values)), np.arange(len(values)))
    return Calibration(samples, np.arange(len(values), dtype=np.uint64), {"x": (0.0, 1.0)})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        pytest.param([0.5] * 7, r"needs 8 samples \(got 7\)", id="few"),
        pytest.param([0.5] * 40 + [np.nan], "'x' hold NaN or infinity", id="NaN"),
        pytest.param([0.5] * 40 + [np.inf], "'x' hold NaN or infinity", id="infinity"),
        pytest.param([0.5] * 40 + [1.5], "'x' span 0.5 to 1.5, training data 0 to 1", id="above"),
        pytest.param([0.5] * 40 + [-1], "'x' span -1 to 0.5, training data 0 to 1", id="below"),
    ],
)
def test_unsound_samples_are_refused(values, message):
    with pytest.raises(DataError, match=message):
        require_sound(calibrating(values))


def test_sound_samples_reach_to_the_edges():
    require_sound(calibrating([0.0, 1.0] * 20))


def test_an_input_that_never_changes_calibrates_no_scale(caplog):
    with pytest.raises(DataError, match=r"'x' are all 0\.5, training data 0 to 1") as caught:
        require_sound(calibrating([0.5] * 40, width=4))
    assert caught.value.exit_code == 4
    # One column of a table may be rare: 128 rows without a capital gain are no mistake.
    require_sound(calibrating([0.5] * 40))
    assert "'x' are all 0.5" in caplog.text


def test_statistics_tell_range_coverage_and_outliers():
    values = [0.25] * 99 + [0.75]
    document = calibrating(values).to_json()
    found = document["statistics"]["x"]
    mean = 0.255  # by hand: (99 * 0.25 + 0.75) / 100
    assert found["mean"] == pytest.approx(mean, abs=1e-6)
    assert found["deviation"] == pytest.approx(0.04974937, abs=1e-6)  # sqrt(0.99 * 0.01) * 0.5
    assert found["coverage"] == pytest.approx(0.5)
    assert found["outliers"] == pytest.approx(0.01)  # 0.495 / 0.0497 = 9.9 deviations away
    assert (found["minimum"], found["maximum"]) == (0.25, 0.75)
    assert (found["training_minimum"], found["training_maximum"]) == (0.0, 1.0)
    assert document["split"] == "train"


def schema(*inputs):
    return InputSchema(tuple(inputs), (OutputInfo("scores", (3,), "classification", "logits"),))


def test_random_numbers_fill_the_range_of_training_and_nothing_else():
    found = draw_random(schema(InputInfo("x", "float32", (2, 3), -4.0, 2.0)), 500, seed=1)
    x = found.samples.inputs["x"]
    assert x.shape == (500, 2, 3)
    assert -4 <= x.min() < -3.9
    assert 1.9 < x.max() <= 2
    assert found.to_json()["split"] == "random"
    assert "ids" not in found.to_json()
    np.testing.assert_array_equal(
        x, draw_random(schema(InputInfo("x", "float32", (2, 3), -4.0, 2.0)), 500, seed=1).samples.inputs["x"]
    )


def test_no_random_text_is_made_up():
    with pytest.raises(DataError, match="no random samples can be drawn for 'words'"):
        draw_random(schema(InputInfo("words", "string", (), None, None)), 50, seed=1)

"""The test of learning rates: what it trains, where it stops, what it suggests, and that it leaves no run."""

import json
import math
import os
import signal
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from mltool.errors import MachineError, TrainingError
from mltool.report.pictures import write_rates_picture
from mltool.runs.find import all_runs
from mltool.runs.rate_test import RateTestFolder
from mltool.spec.load import load_spec
from mltool.spec.spec import Spec
from mltool.training.trials import rate_test
from mltool.training.trials.rate_test import STEPS, find_learning_rate, judge_rates


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RateTestFolder:
    monkeypatch.chdir(tmp_path)
    return RateTestFolder.choose("small")


def spec_of(data: dict[str, Any], tmp_path: Path) -> Spec:
    file = tmp_path / "spec.yaml"
    file.write_text(yaml.safe_dump(data, sort_keys=False), encoding="utf-8")
    return load_spec(file)


def quadratic(features: dict[str, Any], tmp_path: Path, **optimizer: Any) -> Spec:
    """One weight, pulled to 3 by every sample: the loss is (3 - w) ** 2, the gradient 2 (w - 3).

    A second column tells the samples apart, for the splits; the model does not see it. By 0.001 they differ: of what is
    learned to the last bit nothing could diverge.
    """
    path = tmp_path / "ones.npz"
    inputs = np.stack([np.ones(100), np.arange(100)], axis=1).astype(np.float32)
    np.savez(path, x=inputs, y=np.float32(3) + np.resize([0.001, -0.001], 100).astype(np.float32))
    features["data"] = {"source": {"path": str(path), "target": "y"}, "batch_size": 10}
    dense = {"Dense": {"units": 1, "use_bias": False, "kernel_initializer": "zeros"}}
    features["model"] = {"preprocess": [{"Rescaling": {"scale": [1.0, 0.0]}}], "layers": [dense]}
    features["train"] = {"optimizer": {"SGD": optimizer}, "loss": "MeanSquaredError", "scale_target": "none"}
    return spec_of(features, tmp_path)


def test_every_step_is_of_its_learning_rate_and_it_stops_where_the_loss_diverges(features, tmp_path, folder):
    result = find_learning_rate(quadratic(features, tmp_path), folder)
    weight, expected = 0.0, []
    for number in range(len(result.losses)):
        expected.append((3 - weight) ** 2)
        rate = 1e-6 * 1e7 ** (number / (STEPS - 1))
        assert result.learning_rates[number] == pytest.approx(rate)
        weight -= rate * 2 * (weight - 3)
    learning = np.asarray(expected) > 0.1
    assert 100 < np.argmin(learning) < 180
    np.testing.assert_allclose(result.losses[: np.argmin(learning)], np.asarray(expected)[: np.argmin(learning)], 0.02)
    assert result.diverged
    # Above a rate of 1 the weight moves away from 3: the last steps are there, and no more of them than it needs.
    assert 1 < result.learning_rates[-1] < 10
    assert result.suggestion == pytest.approx(result.lowest / 10)


def test_a_schedule_of_the_spec_plays_no_part(features, tmp_path, folder):
    plain = find_learning_rate(quadratic(features, tmp_path), folder)
    rate = {"OneCycle": {"learning_rate": 0.3}}
    scheduled = find_learning_rate(quadratic(features, tmp_path, learning_rate=rate), folder)
    assert scheduled == plain


def test_it_leaves_the_curve_and_no_run(features, tmp_path, folder):
    features["train"] |= {"phases": [{"epochs": 1, "freeze": ["dense/bias"]}, {"epochs": 2}]}
    del features["train"]["epochs"], features["train"]["optimizer"]
    result = find_learning_rate(spec_of(features, tmp_path), folder)
    write_rates_picture(result, folder.picture_file)
    written = json.loads(folder.curve_file.read_text())
    assert written["suggestion"] == result.suggestion
    assert len(written["losses"]) == len(written["learning_rates"]) == len(result.smoothed)
    assert sorted(file.name for file in folder.directory.iterdir()) == ["learning_rates.json", "learning_rates.svg"]
    assert all_runs() == []
    picture = folder.picture_file.read_text()
    assert f"suggested: {result.suggestion:.2g}" in picture
    assert "learning rate" in picture
    assert "$" not in picture
    assert "var(" not in picture


def test_a_mean_of_weights_that_begins_in_a_later_phase_plays_no_part(features, tmp_path, folder):
    optimizer = features["train"].pop("optimizer")
    features["train"]["phases"] = [{"epochs": count, "optimizer": optimizer} for count in (1, 3)]
    del features["train"]["epochs"]
    features["train"] |= {"keep": "average", "average_from": 3}
    assert find_learning_rate(spec_of(features, tmp_path), folder).suggestion > 0


def test_a_signal_ends_it_and_nothing_is_left(features, tmp_path, folder, monkeypatch):
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    monkeypatch.setattr(rate_test, "_raise_rates", lambda setup: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(KeyboardInterrupt, match="SIGTERM"):
        find_learning_rate(spec_of(features, tmp_path), folder)
    assert [path for path in temporary.iterdir() if "autograph" not in path.name] == []  # TensorFlow's, till the end


def test_the_lowest_is_of_the_smoothed_loss_and_the_last_that_is_no_number_does_not_count():
    rates = [10.0**power for power in range(-5, 1)]
    losses = [4.0, 3.0, 2.0, 1.0, 3.0, math.nan]
    result = judge_rates(rates, losses)
    weights = [0.95**age for age in range(3, -1, -1)]
    assert result.smoothed[3] == pytest.approx(sum(np.multiply(weights, losses[:4])) / sum(weights))
    assert (result.lowest, result.diverged) == (1e-2, True)
    assert result.suggestion == pytest.approx(1e-3)


def test_a_loss_below_zero_diverges_when_it_rises_by_three_times_its_lowest():
    assert not judge_rates([1e-3, 1e-2], [-1.0, -0.5]).diverged
    assert judge_rates([1e-3, 1e-2], [-0.1, 9.0]).diverged


def test_a_loss_that_never_falls_is_an_error_and_the_curve_is_there(features, tmp_path, folder):
    features["train"]["optimizer"] = {"SGD": {"clipvalue": 1e-12}}
    with pytest.raises(TrainingError, match=r"the loss fell at no learning rate from 1e-06 to 10; .* the curve is in"):
        find_learning_rate(spec_of(features, tmp_path), folder)
    assert folder.curve_file.is_file()


def test_a_step_that_is_not_finite_is_the_last_and_has_no_loss(features, tmp_path, folder):
    quadratic(features, tmp_path)
    features["model"]["preprocess"] = [{"Rescaling": {"scale": [1e18, 0.0]}}]
    with pytest.raises(TrainingError, match="the loss fell at no learning rate"):
        find_learning_rate(spec_of(features, tmp_path), folder)
    losses = json.loads(folder.curve_file.read_text())["losses"]
    # 9 at the weight of 0; a millionth of its gradient is 6e12, and 6e30 squared no float32.
    assert losses == [pytest.approx(9.0, rel=1e-3), None]


def test_nothing_is_overwritten(tmp_path):
    (tmp_path / "taken").write_text("mine")
    for place in (tmp_path, tmp_path / "taken"):
        with pytest.raises(MachineError, match="is there already; nothing is overwritten; choose another --run-dir"):
            RateTestFolder.choose("small", place)

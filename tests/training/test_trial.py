"""A trial: what it tells is what the training would be, and nothing of it is left."""

import tempfile

import pytest

from mltool.errors import DataError, MachineError, SpecError
from mltool.spec.load import load_spec
from mltool.training.trials.trial import Pace, Trial, try_training


@pytest.fixture
def spec_of(tmp_path):
    def write(spec):
        import yaml

        (tmp_path / "s.yaml").write_text(yaml.safe_dump(spec, sort_keys=False))
        return load_spec(tmp_path / "s.yaml")

    return write


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """The folder of temporary files, which must be empty at the end."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def test_a_trial_tells_what_the_training_will_be(features, spec_of, temporary):
    """A Dense layer of 4 x 3 weights and 3 biases under Adam, 108 training samples in batches of 32."""
    result = try_training(spec_of(features))
    assert result.parameters == result.trainable_parameters == 15
    assert result.weight_bytes == 60
    # Two moments of every weight, an int64 count of steps and a float32 learning rate.
    assert result.optimizer_bytes == 2 * 60 + 8 + 4
    # Of a sample, 4 inputs and 3 scores.
    assert result.activation_bytes == 32 * 4 * (4 + 3)
    assert result.peak_bytes > 100e6, "TensorFlow alone takes more"
    assert result.devices == ["/device:CPU:0"]
    assert result.gpu_bytes == {}
    assert (result.batch_size, result.epochs) == (32, 2)
    assert (result.training.steps, result.validation.steps) == (4, 1)
    assert 0 < result.training.step_seconds < result.training.compile_seconds
    assert 1 <= result.training.chunk <= 4
    of_epochs = 2 * (4 * result.training.step_seconds + result.validation.step_seconds)
    compiling = result.training.compile_seconds + result.validation.compile_seconds
    assert result.expected_seconds == pytest.approx(of_epochs + compiling)
    assert [path for path in temporary.iterdir() if "autograph" not in path.name] == []  # TensorFlow's, till the end


def test_a_trial_of_phases_counts_what_the_first_trains_and_compiles_each(features, spec_of):
    features["model"]["layers"] = [{"Dense": {"units": 5, "name": "body"}}, {"Dense": {"units": 3, "name": "head"}}]
    optimizer = features["train"].pop("optimizer")
    del features["train"]["epochs"]
    features["train"]["phases"] = [
        {"epochs": 3, "freeze": ["body"], "optimizer": optimizer},
        {"epochs": 4, "optimizer": optimizer},
    ]
    result = try_training(spec_of(features))
    assert (result.parameters, result.trainable_parameters, result.epochs) == (25 + 18, 18, 7)
    of_epochs = 7 * (4 * result.training.step_seconds + result.validation.step_seconds)
    compiling = 2 * result.training.compile_seconds + result.validation.compile_seconds
    assert result.expected_seconds == pytest.approx(of_epochs + compiling)


def test_the_short_last_batch_counts_as_what_it_is(features, spec_of, monkeypatch):
    """108 training samples in batches of 64: a step is a second by this clock, so 54 samples are."""
    features["data"]["batch_size"] = 64

    def timed(loop, pipeline, run_steps, batches, count):
        return float(count)

    monkeypatch.setattr("mltool.training.trials.trial._timed", timed)
    monkeypatch.setattr("mltool.training.trials.trial.Chunks", WholeEpochs)
    result = try_training(spec_of(features))
    assert (result.training.step_seconds, result.training.samples_per_second) == (1.0, 54.0)


class WholeEpochs:
    def next_length(self, left):
        return left

    def took(self, count, seconds):
        pass


def test_a_model_that_does_not_fit_is_no_mistake_of_the_spec(features, spec_of, monkeypatch):
    """TensorFlow's error where a variable is made; of a build, not of a step."""
    import tensorflow as tf

    def exhausted(*_, **__):
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor with shape[4,2000000000]")

    monkeypatch.setattr("keras.src.backend.Variable._initialize_with_initializer", exhausted)
    with pytest.raises(
        MachineError, match=r"it does not fit: out of memory: OOM when allocating tensor with shape\[4,2"
    ):
        try_training(spec_of(features))


def test_what_would_stop_the_training_stops_its_trial_and_leaves_nothing(features, spec_of, temporary):
    with pytest.raises(SpecError, match="gives \\(4,\\) a sample, the data have 3 classes"):
        try_training(spec_of(features | {"model": {"layers": [{"Dense": {"units": 4}}]}}))
    with pytest.raises(DataError, match=r"gone\.npz"):
        try_training(load_gone(features, spec_of))
    assert [path for path in temporary.iterdir() if "autograph" not in path.name] == []  # TensorFlow's, till the end


def load_gone(features, spec_of):
    spec = spec_of(features)
    return spec.model_copy(
        update={
            "data": spec.data.model_copy(update={"source": spec.data.source.model_copy(update={"path": "gone.npz"})})
        }
    )


def test_the_few_lines_of_a_trial():
    pace = Pace(steps=100, compile_seconds=2.5, step_seconds=0.004, samples_per_second=15_900.0, chunk=75)
    trial = Trial(
        **{"parameters": 6090, "trainable_parameters": 90, "weight_bytes": 24_360, "optimizer_bytes": 720},
        **{"activation_bytes": None, "peak_bytes": 812_000_000, "devices": ["/device:CPU:0", "/device:GPU:0"]},
        **{"gpu_bytes": {"GPU:0": {"current": 1, "peak": 3_100_000_000}}, "batch_size": 64, "epochs": 30},
        **{"training": pace, "validation": Pace(9, 1.0, 0.002, 16_000.0, 9), "expected_seconds": 7_500.0},
    )
    assert trial.text().splitlines() == [
        "parameters   6,090 (90 trainable)",
        "memory       weights 24 KB, optimizer 1 KB, activations of a batch about unknown",
        "             peak: process 812 MB, GPU:0 3.1 GB",
        "devices      /device:CPU:0, /device:GPU:0",
        "step         4 ms, 15,900 samples/s in batches of 64; 75 steps a call; 2.5 s to compile",
        "to expect    2.1 h for 30 epochs of 100 steps and 9 of validation",
    ]

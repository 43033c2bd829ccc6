"""Training for a conversion, from a run to the file that is made of it."""

import hashlib
import io
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from artifacts import DIGITS, _make

from mltool.child import Child
from mltool.conversion.aware.train import TRAIN_AWARE
from mltool.conversion.read_back import read_back
from mltool.conversion.workbench import CONVERTER, TRAINED_PER_TENSOR
from mltool.errors import ConversionError, TrainingError
from mltool.evaluation.evaluate import evaluate_predictor, run_data
from mltool.inference.open import open_predictor
from mltool.inspection.flatbuffer import read_flatbuffer
from mltool.runs.run import Run

pytestmark = pytest.mark.slow

SPEC: dict[str, Any] = {
    **DIGITS,
    "name": "aware",
    "data": {"source": {"dataset": "digits"}},
    "model": {
        "preprocess": [{"Rescaling": {"scale": 0.0625, "offset": -0.5}}],
        "layers": [
            {"Conv2D": {"filters": 8, "kernel_size": 3, "use_bias": False, "name": "first"}},
            {"BatchNormalization": {"name": "norm"}},
            {"ReLU": {"name": "relu"}},
            {"DepthwiseConv2D": {"kernel_size": 3, "activation": "relu", "name": "deep"}},
            {"Flatten": {"name": "flat"}},
            {"Dense": {"units": 10, "name": "scores"}},
        ],
    },
    "convert": [{"quantize": "int8"}],
}


@pytest.fixture(scope="session")
def digits_aware(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CNN with BatchNormalization and a depthwise layer; not to be changed."""
    return _make(tmp_path_factory.getbasetemp(), SPEC)


@pytest.fixture(scope="module")
def child() -> Iterator[Child]:
    """One process for all: the toolkit changes what `tf.keras` is where it is imported."""
    with Child() as warm:
        yield warm


@pytest.fixture
def train(child: Child, digits_aware: Path, tmp_path: Path) -> Any:
    """Trains an epoch in the child; gives the answer and the folder."""

    def run(name: str, **asked: Any) -> tuple[dict[str, Any], Path]:
        folder = tmp_path / name
        arguments = {"epochs": 1, "learning_rate": 1e-3, **asked}
        return child.call(TRAIN_AWARE, run=str(digits_aware), folder=str(folder), **arguments), folder

    return run


@pytest.fixture
def convert(digits_aware: Path, tmp_path: Path) -> Any:
    """The int8 file of what a training left, read back, and its accuracy."""

    def make(answer: dict[str, Any], folder: Path, granularity: str = "channel") -> tuple[Path, Any, float]:
        run, file = Run.open(digits_aware), folder / "aware.tflite"
        data = run_data(run)
        np.savez(tmp_path / "samples.npz", **data.split("train").first(64))
        names = answer["layer_names"]
        with Child() as other:
            other.call(
                CONVERTER,
                saved_model=str(folder / "saved_model"),
                signature="serving_default",
                output=str(file),
                quantize="int8",
                io="float32",
                batch=1,
                representative=str(tmp_path / "samples.npz"),
                keep_float=[],
                layer_names=names,
                granularity=granularity,
            )
        found = read_back(
            file,
            quantize="int8",
            io="float32",
            layer_names=names,
            preprocess_layers=answer["preprocess_layers"],
            granularity=granularity,
            free_granularity=TRAINED_PER_TENSOR,
        )
        return file, found, accuracy(run, data, file)

    return make


def accuracy(run: Run, data: Any, artifact: Path) -> float:
    """On the test split."""
    with open_predictor(artifact) as predictor:
        return evaluate_predictor(run, predictor, data.split("test"), artifact).metrics["accuracy"]


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def weights_in(file: Path) -> bytes:
    """The weights of a `.keras` file."""
    return zipfile.ZipFile(file).read("model.weights.h5")


def test_fake_quantization_gives_an_int8_file_that_answers_better_than_the_float_model_did(
    train: Any, convert: Any, digits_aware: Path
) -> None:
    answer, folder = train("qat", epochs=2)
    file, found, score = convert(answer, folder)
    assert answer["left"] == {"rescaling": "scales raw inputs"}
    assert answer["quantized"] == ["first", "norm", "relu", "deep", "flat", "scores"]
    assert found.float_islands == ()
    assert found.per_channel
    assert found.operators.keys() >= {"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"}

    run = Run.open(digits_aware)
    data = run_data(run)
    before, plain = accuracy(run, data, run.keras_file), accuracy(run, data, folder / "model.keras")
    assert score > before + 0.01, "two more epochs should show"
    assert abs(score - plain) < 0.03
    # The ranges are those that training learned, and not calibration's: of the kernel, the largest weight of a channel.
    scales = np.array(next(t.scales for t in read_flatbuffer(file, []).constants if t.shape == (1, 3, 3, 8)))
    assert len(scales) == 8
    assert len(np.unique(scales)) == 8


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bytes_and_another_gives_others(train: Any) -> None:
    (one, first), (two, second), (_, third) = train("a", seed=5), train("b", seed=5), train("c", seed=6)
    assert weights_in(first / "model.keras") == weights_in(second / "model.keras")
    assert [line["loss"] for line in one["history"]] == [line["loss"] for line in two["history"]]
    assert weights_in(first / "model.keras") != weights_in(third / "model.keras")


@pytest.mark.slow
def test_pruned_and_clustered_weights_stay_so_under_fake_quantization(train: Any, convert: Any) -> None:
    answer, folder = train("all", prune=0.75, cluster=8)
    assert [line["stage"] for line in answer["history"]] == ["prune", "cluster", "quantize"]
    for name in ("first", "scores"):
        measured = answer["weights"][name]
        assert measured["sparsity"] == pytest.approx(0.75, abs=0.02), name
        assert measured["values"] <= 8, name
    assert answer["weights"]["deep"]["sparsity"] < 0.1, "a depthwise layer is left alone"

    file, found, _ = convert(answer, folder)
    assert found.float_islands == ()
    dense = next(t for t in read_flatbuffer(file, []).constants if t.shape == (10, 128))
    assert dense.dtype == "int8"
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(file)
    assert len(packed.getvalue()) < 0.75 * file.stat().st_size


def test_one_scale_a_tensor_is_what_the_file_has(train: Any, convert: Any) -> None:
    answer, folder = train("tensor", granularity="tensor")
    assert "norm" not in answer["layer_names"], "folded first"
    # The converter is not asked for it: the ranges are trained.
    file, found, _ = convert(answer, folder, "tensor")
    assert not found.per_channel
    assert [len(t.scales) for t in read_flatbuffer(file, []).constants if len(t.shape) == 4] == [1, 1]


@pytest.mark.slow
def test_two_of_four_weights_are_zero(train: Any) -> None:
    answer, folder = train("half", prune="2:4", quantize=False)
    import keras

    kernel = np.asarray(keras.models.load_model(folder / "model.keras").get_layer("scores").kernel)
    blocks = (kernel.T.reshape(-1, 4) != 0).sum(axis=1)
    assert blocks.max() == 2
    assert answer["weights"]["first"]["sparsity"] < 0.1, "one input channel cannot be cut into fours"
    assert answer["quantized"] == []


@pytest.mark.slow
def test_what_is_kept_float_has_no_fake_quantization(train: Any) -> None:
    answer, _ = train("kept", keep_float=["first"])
    assert answer["left"]["first"] == "keep_float"
    assert answer["left"]["norm"] == "follows 'first', which has no fake quantization"
    assert "first" not in answer["quantized"]


@pytest.mark.parametrize(
    ("asked", "error", "message"),
    [
        pytest.param({"learning_rate": 1e30}, TrainingError, "take a smaller learning_rate", id="diverged"),
        pytest.param({"keep_float": ["nobody"]}, ConversionError, "names no layer: .'nobody'", id="no such layer"),
        pytest.param({"quantize": False}, ConversionError, "nothing to train for", id="nothing"),
        pytest.param({"cluster": 5000}, ConversionError, "cluster: 5000 fits no layer", id="too many clusters"),
    ],
)
def test_what_cannot_be_trained_is_told(train: Any, asked: dict[str, Any], error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        train("wrong", **asked)

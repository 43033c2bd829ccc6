"""Training with JAX and PyTorch: what they learn, where they stop and go on, and what TensorFlow says of it."""

import contextlib
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from mltool import extras
from mltool.conversion.convert import convert
from mltool.errors import ArtifactError, MachineError, MissingExtraError, SpecError, TrainingError
from mltool.evaluation.evaluate import evaluate
from mltool.evaluation.other_backend import check_under_tensorflow
from mltool.evaluation.verify import verify
from mltool.exporting.export import export
from mltool.inference.keras_predictor import load_keras_model
from mltool.runs.arrays import read_npz
from mltool.runs.rate_test import RateTestFolder
from mltool.runs.run import Run
from mltool.training.records import read_lines
from mltool.training.train import train
from mltool.training.trials.rate_test import find_learning_rate
from mltool.training.trials.trial import try_training

DEADLINE_SECONDS = 240
TORCH = pytest.param("torch", marks=[pytest.mark.slow, pytest.mark.skipif(not extras.has("torch"), reason="no torch")])
BACKENDS = ["jax", TORCH]
EPOCHS = 12


def digits(backend: str) -> dict:
    """A spec of everything that has a state: statistics, dropout, a learning rate that falls."""
    return {
        "name": "digits",
        "seed": 7,
        "data": {"source": {"dataset": "digits"}, "batch_size": 100},
        "model": {
            "preprocess": ["Normalization"],
            "layers": [
                {"Conv2D": {"filters": 4, "kernel_size": 3, "strides": 2}},
                "BatchNormalization",
                "ReLU",
                "Flatten",
                {"Dropout": {"rate": 0.2}},
                {"Dense": {"units": 10}},
            ],
        },
        "train": {
            "backend": backend,
            "epochs": EPOCHS,
            "optimizer": {"Adam": {"learning_rate": 0.01}},
            "loss": {"SparseCategoricalCrossentropy": {"from_logits": True}},
            "metrics": ["accuracy"],
            "callbacks": [{"ReduceLROnPlateau": {"patience": 1, "factor": 0.9, "min_delta": 10.0}}],
        },
        "convert": [{"quantize": "int8"}],
    }


@pytest.fixture(scope="module", params=BACKENDS)
def uncut(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Digits, trained; do not change it, copy its folder."""
    folder = tmp_path_factory.mktemp(request.param)
    process = start("train", spec_file(folder, digits(request.param)), "--run-dir", folder / "run")
    out, err = process.communicate(timeout=DEADLINE_SECONDS)
    assert process.returncode == 0, err
    assert f"epoch {EPOCHS}/{EPOCHS}  loss " in err
    assert f"trained {EPOCHS} epochs" in out
    return Run.open(folder / "run")


def spec_file(folder: Path, spec: dict) -> Path:
    file = folder / "spec.yaml"
    file.write_text(json.dumps(spec), encoding="utf-8")
    return file


# A shell that runs the tests in the background has SIGINT ignored, and children inherit that.
COMMAND = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from mltool.cli.main import main
main()
"""


def start(*arguments: str | Path) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", COMMAND, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def untimed(run: Run) -> list[dict]:
    """The lines of metrics.jsonl without what no two runs share."""
    assert all(line["seconds"] > 0 for line in read_lines(run.metrics_file))
    return [line | {"seconds": 0.0, "samples_per_second": 0.0} for line in read_lines(run.metrics_file)]


def copied(run: Run, folder: Path) -> Run:
    shutil.copytree(run.directory, folder / "run")
    return Run.open(folder / "run")


CHUNKS_OF_JAX = """
from mltool import extras

extras.use_backend("jax")
import keras
import numpy as np
from mltool.spec.catalogue import KerasObject
from mltool.spec.outputs import OutputSpec
from mltool.training.loops.head import Head
from mltool.training.loops.other_loop import JaxLoop

inputs = keras.Input((3,), name="x")
model = keras.Model(inputs, keras.layers.Dense(1)(inputs))
output = OutputSpec.model_construct(loss=KerasObject("MeanSquaredError"), metrics=())
heads = [Head("", output, task="regression", shape=(1,))]
loop = JaxLoop(model, keras.optimizers.SGD(0.1), heads=lambda: heads)

def batch(size):
    return {"x": np.ones((size, 3), "float32")}, np.zeros((size, 1), "float32"), np.ones(size, "float32")

chunks = ([4], [4, 4], [4, 3], [4, 4, 3])
print([int(loop.train_steps(map(batch, sizes), len(sizes))[1][-1]) for sizes in chunks])
"""


def test_jax_tells_the_chunks_in_which_it_compiled_a_step_for_a_size_of_batches():
    command, environ = [sys.executable, "-c", CHUNKS_OF_JAX], os.environ | {"KERAS_BACKEND": "jax"}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert done.stdout == "[1, 0, 1, 0]\n", done.stderr


def test_a_run_tells_what_it_was_trained_with_and_that_tensorflow_answers_the_same(uncut):
    manifest, backend = uncut.manifest, uncut.spec.train.backend
    assert manifest["status"] == "trained"
    assert manifest["backend"]["name"] == manifest["environment"]["backend"] == backend
    assert 0 <= manifest["backend"]["difference"] <= 1e-5
    assert manifest["environment"]["versions"][backend] == extras.version_of(backend)
    assert manifest["environment"]["devices"]
    assert manifest["environment"]["command"][0] == "-c"
    assert [line["epoch"] for line in read_lines(uncut.metrics_file)] == list(range(1, EPOCHS + 1))
    for folder in ("train", "validation"):
        assert list((uncut.events_folder / folder).glob("events.out.tfevents.*"))
    determinism = {"jit_compile": backend == "jax", "deterministic": True}
    assert manifest["environment"]["determinism"] == determinism
    assert read_lines(uncut.metrics_file)[-1]["val_accuracy"] > 0.8
    assert {path.name for path in uncut.checkpoints_folder.iterdir()} >= {f"best-{manifest['best_epoch'] - 1}.npz"}


def test_digits_go_through_export_int8_and_verify(uncut, tmp_path):
    run = copied(uncut, tmp_path)
    assert evaluate(run).metrics["accuracy"] > 0.8
    assert export(run).agreement.same_answer == 1.0
    convert(run)
    assert [verdict.name for verdict in verify(run)] == ["int8"]


@pytest.mark.parametrize(
    "number",
    [
        pytest.param(signal.SIGINT, id="Ctrl-C"),
        pytest.param(signal.SIGKILL, id="kill -9"),
    ],
)
@pytest.mark.slow
def test_a_training_that_was_cut_ends_with_the_bits_of_the_uncut_one(uncut, number, tmp_path):
    directory = tmp_path / "run"
    process = start("train", spec_file(tmp_path, digits(uncut.spec.train.backend)), "--run-dir", directory)
    deadline = time.monotonic() + DEADLINE_SECONDS
    while len(read_lines(directory / "metrics.jsonl")) < 2:
        assert time.monotonic() < deadline, "nothing came"
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=0.005)
            raise AssertionError(process.communicate())
    process.send_signal(number)
    _, err = process.communicate(timeout=DEADLINE_SECONDS)
    run = Run.open(directory)
    if number == signal.SIGINT:
        assert process.returncode == 130, err
        assert "SIGINT: stopped at epoch" in err
        assert run.status == "interrupted"
    assert len(read_lines(run.metrics_file)) < EPOCHS
    train(run)
    assert run.status == "trained"
    answers, expected = read_npz(run.backend_answers_file), read_npz(uncut.backend_answers_file)
    for name in expected:
        np.testing.assert_array_equal(answers[name], expected[name])
    assert untimed(run) == untimed(uncut)


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_another_backend_learns_what_tensorflow_learns(backend, features, make_run):
    """From weights that are no random numbers, with an uneven last batch, a penalty, phases and weighed classes."""
    features["model"]["layers"] = [
        {"Dense": {"units": 4, "kernel_initializer": "Identity", "kernel_regularizer": {"L2": {"l2": 0.01}}}},
        {"BatchNormalization": {"momentum": 0.8}},
        "ReLU",
        {"Dense": {"units": 3, "kernel_initializer": "Zeros"}},
    ]
    features["train"] |= {
        "phases": [
            {"epochs": 2, "optimizer": {"Adam": {"learning_rate": 0.01}}, "freeze": ["dense"]},
            {"epochs": 2, "optimizer": {"SGD": {"learning_rate": 0.1, "momentum": 0.9}}},
        ],
        "class_weights": "balanced",
        "metrics": ["accuracy", {"F1Score": {"average": "macro"}}],
    }
    del features["train"]["epochs"], features["train"]["optimizer"]
    found = []
    for name in ("tensorflow", backend):
        features["train"]["backend"] = name
        run = make_run(features, name)
        train(run)
        found.append(untimed(run))
    assert len(found[0]) == 4
    assert found[0][-1]["loss"] < found[0][0]["loss"]
    for one, other in zip(*found, strict=True):
        assert list(one) == list(other)
        np.testing.assert_allclose(list(one.values()), list(other.values()), rtol=2e-5, atol=1e-6)


DIVERGING = {
    "layers": [{"Dense": {"units": 3, "kernel_initializer": "Zeros"}}],
    "optimizer": {"SGD": {"learning_rate": 3e38}},
}


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_step_that_is_not_finite_changes_nothing_and_ends_the_training(backend, features, make_run):
    """The first step leaves weights of 1e37, with which the second one overflows."""
    features["model"] = {"layers": DIVERGING["layers"]}
    features["train"] |= {"backend": backend, "optimizer": DIVERGING["optimizer"], "epochs": 3}
    run = make_run(features)
    with pytest.raises(
        TrainingError, match=r"the loss, or a gradient, is not finite in step [1-4] of epoch 1; lower the learning rate"
    ):
        train(run)
    assert run.manifest["status"] == "failed"
    assert not run.keras_file.exists()


@pytest.mark.parametrize("backend", ["tensorflow", *BACKENDS])
def test_gradients_that_no_scale_of_the_loss_makes_finite_end_the_training(backend, features, make_run):
    """Gradients of 1e12 are no float16. A scale of 2 ** 15 is below 1e-4 after 29 steps, which are 4 an epoch."""
    steep = {"Dense": {"units": 3, "kernel_initializer": {"Identity": {"gain": 1e14}}}}
    features["model"]["layers"] = [{"Dense": {"units": 3, "kernel_initializer": "Zeros"}}, steep]
    features["train"] |= {"backend": backend, "epochs": 9, "precision": "mixed_float16"}
    with pytest.raises(TrainingError, match="the loss, or a gradient, is not finite in step 2 of epoch 8"):
        train(make_run(features))


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_learning_rates_and_decay_are_those_of_tensorflow(backend, features, make_run):
    """A schedule in epochs with its warm-up, factors by pattern, weights that do not decay, averaged weights."""
    features["model"]["layers"] = [
        {"Dense": {"units": 4, "kernel_initializer": "Identity", "activation": "tanh"}},
        {"Dense": {"units": 3, "kernel_initializer": "Zeros"}},
    ]
    schedule = {"Cosine": {"learning_rate": 0.05, "warmup_epochs": 1, "cycle_epochs": 1.5, "cycle_decay": 0.5}}
    features["train"] |= {
        "epochs": 5,
        "keep": "last",
        "optimizer": {"AdamW": {"learning_rate": schedule, "weight_decay": 0.1, "use_ema": True, "ema_momentum": 0.9}},
        "learning_rates": {"dense/.*": 0.1},
        "no_weight_decay": [".*/bias"],
    }
    found = []
    for name in ("tensorflow", backend):
        features["train"]["backend"] = name
        run = make_run(features, name)
        train(run)
        found.append((untimed(run), load_keras_model(run.keras_file).get_weights()))
    assert len({line["learning_rate"] for line in found[0][0]}) == 5
    for one, other in zip(*(lines for lines, _ in found), strict=True):
        np.testing.assert_allclose(list(one.values()), list(other.values()), rtol=2e-5, atol=1e-6)
    for one, other in zip(*(weights for _, weights in found), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_mixed_precision_learns_what_float32_learns_and_leaves_a_float32_model(backend, features, make_run):
    hidden = {"Dense": {"units": 8, "activation": "relu", "kernel_initializer": "Identity"}}
    features["model"]["layers"] = [hidden, {"Dense": {"units": 3, "kernel_initializer": "Zeros"}}]
    features["train"] |= {"backend": backend, "epochs": 6, "optimizer": ADAM}
    losses = []
    for precision in ("float32", "mixed_bfloat16", "mixed_float16"):
        features["train"]["precision"] = precision
        run = make_run(features, precision)
        train(run)
        losses.append(read_lines(run.metrics_file)[-1]["loss"])
        model = load_keras_model(run.keras_file)
        assert {layer.dtype_policy.name for layer in model.layers} == {"float32"}
        assert run.manifest["backend"]["difference"] <= 1e-5
    assert len(set(losses)) == 3
    assert losses[1:] == pytest.approx([losses[0]] * 2, rel=0.02)
    assert losses[0] < 0.9 * np.log(3)


ADAM = {"Adam": {"learning_rate": 0.05}}


@pytest.mark.parametrize(
    ("use", "message"),
    [
        pytest.param(lambda run: train(run, profile=True), "a profile is taken of TensorFlow's steps", id="profile"),
        pytest.param(lambda run: try_training(run.spec), "a trial runs TensorFlow's steps", id="trial"),
        pytest.param(
            lambda run: find_learning_rate(run.spec, RateTestFolder(run.directory)),
            "--find-lr runs TensorFlow's steps",
            id="test of learning rates",
        ),
    ],
)
def test_what_only_tensorflow_can_do_is_exit_3_and_told(use, message, features, make_run):
    features["train"]["backend"] = "jax"
    with pytest.raises(SpecError, match=f"{message}, and this spec trains with jax") as caught:
        use(make_run(features))
    assert caught.value.exit_code == 3
    assert caught.value.messages[0].key == "train.backend"


def test_a_backend_that_is_not_installed_is_exit_9_and_leaves_no_run(features, make_run, monkeypatch):
    features["train"]["backend"] = "torch"
    run = make_run(features)
    monkeypatch.setattr(extras, "has", lambda module: module != "torch")
    with pytest.raises(MissingExtraError, match=r"this needs torch, .*pip install 'mltool-tf\[torch\]'") as caught:
        train(run)
    assert caught.value.exit_code == 9
    assert not run.directory.exists()


@pytest.mark.parametrize(
    ("variable", "value", "backend", "message"),
    [
        ("KERAS_BACKEND", "torch", "tensorflow", "KERAS_BACKEND is 'torch' in the environment, and this needs 'tens"),
        ("KERAS_BACKEND", "torch", "jax", "KERAS_BACKEND is 'torch' .* runs on 'jax', .* write train.backend: torch"),
        ("KERAS_BACKEND", "tensorflow", "jax", "KERAS_BACKEND is 'tensorflow' .*unset KERAS_BACKEND$"),
        ("TF_USE_LEGACY_KERAS", "1", "tensorflow", "TF_USE_LEGACY_KERAS is '1' in the environment: that is Keras 2"),
        ("TF_USE_LEGACY_KERAS", "True", "jax", "TF_USE_LEGACY_KERAS is 'True' in the environment: that is Keras 2"),
    ],
)
def test_an_environment_that_asks_for_another_keras_is_exit_10(variable, value, backend, message, monkeypatch):
    monkeypatch.setitem(extras._GIVEN, variable, value)
    with pytest.raises(MachineError, match=message) as caught:
        extras.require_environment(backend)
    assert caught.value.exit_code == 10


def test_every_verb_that_imports_keras_heeds_the_environment(trained_run):
    command = [sys.executable, "-m", "mltool.cli.main", "evaluate", str(trained_run.directory)]
    done = subprocess.run(command, env={"KERAS_BACKEND": "jax"}, capture_output=True, text=True, check=False)
    assert done.returncode == 10
    assert "KERAS_BACKEND is 'jax' in the environment, and this needs 'tensorflow'" in done.stderr


def test_an_environment_that_asks_for_what_the_spec_says_leaves_only_the_check_for_later(uncut, tmp_path, monkeypatch):
    monkeypatch.setitem(extras._GIVEN, "KERAS_BACKEND", "jax")
    run = copied(uncut, tmp_path)
    run.update(backend={"difference": None})
    extras.require_environment("jax")
    check_under_tensorflow(run)
    assert "difference" not in run.manifest["backend"]


def test_a_model_of_a_machine_without_tensorflow_is_checked_before_it_is_exported(uncut, tmp_path, monkeypatch, caplog):
    run = copied(uncut, tmp_path)
    run.update(backend={"difference": None})
    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING, "mltool"):
        patch.setattr(extras, "has", lambda module: module != "tensorflow")
        patch.setattr(logging.getLogger("mltool"), "propagate", True)
        check_under_tensorflow(run)
    assert "not checked under TensorFlow here, as it is not installed" in caplog.text
    assert "difference" not in run.manifest["backend"]
    with np.load(run.backend_answers_file) as kept:
        answers = dict(kept)
    name = next(iter(answers))
    largest = np.abs(answers[name]).max()
    for off, is_refused in ((3e-5, True), (3e-6, False)):
        changed = answers[name].copy()
        changed[100, 3] += off * largest
        np.savez(run.backend_answers_file, **{name: changed})
        if is_refused:
            with pytest.raises(ArtifactError, match=r"answers under TensorFlow otherwise than under .*off by [23]"):
                export(run)
            assert not run.saved_model_folder.exists()
    export(run)
    assert run.manifest["backend"]["difference"] == pytest.approx(3e-6, abs=1e-6)


def test_answers_that_are_gone_are_told(uncut, tmp_path):
    run = copied(uncut, tmp_path)
    run.update(backend={"difference": None})
    run.backend_answers_file.unlink()
    with pytest.raises(ArtifactError, match=r"backend_answers\.npz is missing or damaged"):
        check_under_tensorflow(run)


def test_text_is_refused_where_only_the_data_tell_of_it(tmp_path, make_run):
    rows = "\n".join(f"{word},{number},{number % 2}" for number, word in enumerate(["red", "green", "blue"] * 20))
    (tmp_path / "t.csv").write_text(f"color,size,y\n{rows}\n", encoding="utf-8")
    spec = {
        "name": "table",
        "data": {"source": {"path": "t.csv", "target": "y"}},
        "model": {"preprocess": "auto", "layers": [{"Dense": {"units": 1}}]},
        "train": {"backend": "jax", "epochs": 1, "loss": {"BinaryCrossentropy": {"from_logits": True}}},
    }
    run = make_run(spec)
    with pytest.raises(SpecError, match="text is for TensorFlow alone, and 'color' is text"):
        train(run)
    assert not run.directory.exists()

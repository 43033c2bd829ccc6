"""Phases: what is frozen stays as it was, each has its own optimizer, and a cut anywhere changes no bit."""

import json
from typing import Any

import numpy as np
import pytest
from cuts import interrupt_at
from training.test_resume import assert_same_end, lines

from mltool.errors import ArtifactError, Interrupted, SpecError
from mltool.inspection.model_summary import load_summary
from mltool.runs.run import Run
from mltool.training.checkpoints import Checkpoints, State
from mltool.training.setup import build_setup
from mltool.training.train import train

ADAM = {"Adam": {"learning_rate": 0.01}}


@pytest.fixture
def two_phases(hard: dict[str, Any]) -> dict[str, Any]:
    """The hard spec: the head alone, with Adam, then all but a bias, with SGD and momentum."""
    hard["train"].pop("epochs"), hard["train"].pop("optimizer")
    hard["train"]["callbacks"] = [{"ReduceLROnPlateau": {"patience": 1, "factor": 0.5, "min_delta": 10.0}}]
    hard["train"]["phases"] = [
        {"epochs": 2, "optimizer": ADAM, "freeze": ["conv2d", "batch_.*"]},
        {"epochs": 2, "optimizer": {"SGD": {"learning_rate": 0.05, "momentum": 0.9}}, "freeze": ["dense/bias"]},
    ]
    return hard


def by_path(model: Any) -> dict[str, np.ndarray]:
    return {variable.path: np.asarray(variable) for variable in model.variables if "seed" not in variable.path}


def trained_and_begun(run: Run) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], Any]:
    """The weights before training and after, by path, and the model as plain Keras loads it."""
    import keras

    begun = by_path(build_setup(run).loop.model)
    train(run)
    model = keras.models.load_model(run.keras_file, compile=False)
    return begun, by_path(model), model


def changed(before: dict[str, np.ndarray], after: dict[str, np.ndarray]) -> set[str]:
    assert set(before) == set(after)
    return {path for path in before if not np.array_equal(before[path], after[path])}


def test_what_a_phase_freezes_stays_bit_for_bit_and_batch_statistics_with_it(two_phases, make_run):
    two_phases["train"]["phases"] = two_phases["train"]["phases"][:1]
    begun, ended, model = trained_and_begun(make_run(two_phases))
    assert changed(begun, ended) == {"dense/kernel", "dense/bias"}
    # The file holds the model of the spec, not the phase: as such everything is trainable, and so it is summed up.
    assert len(model.trainable_variables) == 6


def test_a_single_weight_can_be_frozen_and_what_is_not_frozen_learns(two_phases, make_run):
    two_phases["train"]["phases"] = two_phases["train"]["phases"][1:]
    run = make_run(two_phases)
    begun, ended, _ = trained_and_begun(run)
    assert set(begun) - changed(begun, ended) == {"dense/bias"}
    summary = load_summary(run.model_summary_file)
    # Of 4 filters of 3x3, batch normalization of 4, and 3 units of 3x3x4 features: 40 + 8 + 8 + 111, 8 not trainable.
    assert (summary.parameters, summary.trainable_parameters) == (167, 159)


def test_each_phase_has_its_own_optimizer_and_the_lines_say_which_phase(two_phases, make_run):
    two_phases["train"]["callbacks"] = []
    run = make_run(two_phases)
    result = train(run)
    found = lines(run)
    assert [line["phase"] for line in found] == [1, 1, 2, 2]
    assert [line["epoch"] for line in found] == [1, 2, 3, 4]
    assert [line["step"] for line in found] == [4, 8, 12, 16]
    assert [line["learning_rate"] for line in found] == pytest.approx([0.01, 0.01, 0.05, 0.05])
    assert "phase" not in result.metrics
    newest = sorted(run.checkpoints_folder.glob("step-*.npz"))[-1]
    names = " ".join(np.load(newest).files)
    assert "sgd/" in names
    assert "adam" not in names


def test_a_phase_alone_is_the_training_without_phases(features, make_run):
    plain = make_run(features, "plain")
    features["train"] |= {"phases": [{"epochs": features["train"].pop("epochs"), "optimizer": ADAM}]}
    del features["train"]["optimizer"]
    phased = make_run(features, "phased")
    train(plain), train(phased)
    without = [{key: value for key, value in line.items() if key != "phase"} for line in lines(phased)]
    assert without == lines(plain)


def test_early_stopping_ends_the_phase_and_the_next_begins_anew_from_the_best(features, make_run, monkeypatch):
    del features["train"]["epochs"], features["train"]["optimizer"]
    # A rate at which the second epoch is worse than the first, so that the best is not the last.
    wild = {"SGD": {"learning_rate": 500.0}}
    features["train"]["callbacks"] = [
        {"EarlyStopping": {"patience": 2, "min_delta": 1e9, "mode": "min", "restore_best_weights": True}}
    ]
    features["train"]["phases"] = [{"epochs": 9, "optimizer": wild}, {"epochs": 2, "freeze": ["dense/bias"]}]
    loaded = []
    load_best = Checkpoints.load_best
    monkeypatch.setattr(
        Checkpoints,
        "load_best",
        lambda self, epoch, variables: loaded.append(epoch) or load_best(self, epoch, variables),
    )
    run = make_run(features)
    train(run)
    assert [line["phase"] for line in lines(run)] == [1, 1, 1, 2, 2]
    losses = [line["val_loss"] for line in lines(run)]
    assert loaded == [int(np.argmin(losses[:3])), int(np.argmin(losses))]
    assert run.manifest["stopped"] is None
    assert run.manifest["best_epoch"] == 1 + int(np.argmin(losses))


def test_a_backbone_is_frozen_by_the_paths_of_its_layers(hard, make_run):
    hard["model"] = {
        "preprocess": [{"Resizing": {"height": 32, "width": 32}}],
        "layers": [
            {"MobileNet": {"alpha": 0.25, "weights": "none", "until": "conv_pw_2_relu", "name": "backbone"}},
            "GlobalAveragePooling2D",
            {"Dense": {"units": 3}},
        ],
    }
    hard["data"]["augment"] = []
    del hard["train"]["epochs"], hard["train"]["optimizer"]
    hard["train"]["phases"] = [
        {"epochs": 1, "freeze": ["backbone"]},
        {"epochs": 1, "freeze": ["backbone/conv1.*", "backbone/conv_.w_1(_.*)?"]},
    ]
    begun, ended, model = trained_and_begun(make_run(hard))
    begins = ("conv_dw_2", "conv_pw_2", "dense")
    assert {path.split("/")[0] for path in changed(begun, ended)} == {
        *("conv_dw_2", "conv_dw_2_bn", "conv_pw_2", "conv_pw_2_bn", "dense"),
    }
    assert {path for path in begun if path.startswith(begins)} == changed(begun, ended)
    assert [layer.name for layer in model.layers if hasattr(layer, "layers")] == ["backbone"]


# Chunks of one step: 4 of training and 1 of validation an epoch; 10 is the first of the second phase.
CUTS = {
    "in the first phase": 3,
    "in the last validation of the first phase": 9,
    "in the first step of the second": 10,
    "in the second phase": 16,
}


@pytest.fixture(scope="module")
def uncut() -> dict[str, Run]:
    return {}


@pytest.mark.parametrize("chunk", CUTS.values(), ids=CUTS)
def test_a_training_cut_in_any_phase_ends_as_the_uncut_one(two_phases, make_run, uncut, monkeypatch, chunk):
    if not uncut:
        uncut["run"] = make_run(two_phases, "uncut")
        train(uncut["run"])
    run = make_run(two_phases)
    with monkeypatch.context() as patched:
        interrupt_at(patched, chunk)
        with pytest.raises(Interrupted, match="SIGTERM: stopped at epoch"):
            train(run)
    train(run)
    assert_same_end(run, uncut["run"])


def test_a_checkpoint_of_before_phases_is_in_the_middle_of_its_only_one(tmp_path):
    Checkpoints(tmp_path).save(State(epoch=3), [])
    (file,) = tmp_path.glob("step-*.npz")
    state = json.loads(np.load(file)["state"].tobytes())
    del state["phase_epoch"]
    np.savez(file, state=np.frombuffer(json.dumps(state).encode(), np.uint8))
    assert Checkpoints(tmp_path).load([]) == State(epoch=3, phase_epoch=3)


WRONG = {
    "no such weight": (
        ["dense/bia"],
        r"phases\.0\.freeze\.0: no layer with weights.* matches 'dense/bia'; did you mean 'dense/bias'",
    ),
    "a layer without weights": (["re_lu"], r"freeze\.0: no layer with weights.* matches 're_lu'"),
    "inside of a layer that has nothing so called": (
        ["dense", "dense/blocks_[0-9]+_.*"],
        r"freeze\.1: .*; the whole path must match; there are: dense/kernel, dense/bias",
    ),
    "everything": (["conv2d", "batch_normalization", "dense"], r"phases\.0\.freeze: freezes every weight of the model"),
}


@pytest.mark.parametrize(("freeze", "message"), WRONG.values(), ids=WRONG)
def test_a_pattern_that_cannot_be_meant_is_an_error_before_training(two_phases, make_run, freeze, message):
    two_phases["train"]["phases"][0]["freeze"] = freeze
    with pytest.raises(SpecError, match=message):
        train(make_run(two_phases))


def test_a_run_whose_weights_cannot_be_read_leaves_nothing_behind(hard, make_run, tmp_path):
    (tmp_path / "w.keras").write_bytes(b"no zip")
    layer = {"MobileNet": {"alpha": 0.25, "weights": str(tmp_path / "w.keras"), "until": "conv1", "name": "backbone"}}
    hard["model"] = {
        "preprocess": [{"Resizing": {"height": 32, "width": 32}}],
        "layers": [layer, "Flatten", {"Dense": {"units": 3}}],
    }
    run = make_run(hard)
    with pytest.raises(ArtifactError, match=r"w\.keras is damaged"):
        train(run)
    assert not run.directory.exists()

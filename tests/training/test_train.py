"""`train` end to end on small made data: every task, what is kept, what is written, and what fails."""

import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from mltool.errors import DataError, SpecError, TrainingError
from mltool.runs.run import Run
from mltool.spec.data import SourceSpec
from mltool.spec.load import load_spec
from mltool.training import beginning, setup
from mltool.training.records import append_line, keep_lines, read_lines
from mltool.training.train import train

TASKS = {
    "binary": ("side", {"BinaryCrossentropy": {"from_logits": True}}, 1, ["accuracy", "AUC"]),
    "binary with a sigmoid": ("side", "BinaryCrossentropy", {"units": 1, "activation": "sigmoid"}, ["accuracy"]),
    "regression": ("value", "MeanSquaredError", 2, ["MeanAbsoluteError", "R2Score"]),
    "one-hot": (
        "y",
        {"CategoricalCrossentropy": {"from_logits": True}},
        3,
        ["accuracy", {"F1Score": {"average": "macro"}}],
    ),
    "softmax": ("y", "SparseCategoricalCrossentropy", {"units": 3, "activation": "softmax"}, ["accuracy", "Precision"]),
}


@pytest.mark.parametrize(("target", "loss", "units", "metrics"), TASKS.values(), ids=TASKS.keys())
def test_every_task_learns(features, make_run, target, loss, units, metrics):
    features["data"]["source"]["target"] = target
    dense = units if isinstance(units, dict) else {"units": units}
    features["model"]["layers"] = [{"Dense": {"units": 16, "activation": "relu"}}, {"Dense": dense}]
    features["train"] |= {
        "loss": loss,
        "metrics": metrics,
        "epochs": 30,
        "optimizer": {"Adam": {"learning_rate": 0.02}},
    }
    run = make_run(features)
    result = train(run)
    lines = read_lines(run.metrics_file)
    assert len(lines) == result.epochs == 30
    assert lines[-1]["loss"] < 0.7 * lines[0]["loss"]
    assert lines[-1]["val_loss"] < 0.8 * lines[0]["val_loss"]
    assert set(result.metrics) == set(lines[-1]) - {"epoch", "step", "seconds", "samples_per_second", "learning_rate"}
    assert np.isfinite(list(result.metrics.values())).all()


def test_the_figures_that_are_told_are_those_of_the_epoch_that_was_kept(features, make_run):
    features["train"] |= {"epochs": 12, "optimizer": {"Adam": {"learning_rate": 30.0}}}
    run = make_run(features)
    result = train(run)
    lines = read_lines(run.metrics_file)
    best = min(range(12), key=lambda index: lines[index]["val_loss"])
    assert best < 11, "the last epoch is the best one: this proves nothing"
    assert result.best_epoch == best + 1
    assert result.metrics["val_loss"] == lines[best]["val_loss"]


def test_a_run_that_cannot_begin_leaves_nothing(features, make_run, tmp_path):
    features["train"]["class_weights"] = {"nobody": 2.0}
    run = make_run(features)
    with pytest.raises(SpecError, match="no class is called 'nobody'"):
        train(run)
    assert not run.directory.exists()


def test_what_a_run_did_not_make_stays(features, make_run, tmp_path, monkeypatch):
    """A folder that was there, and a run that was opened again."""
    features["train"]["class_weights"] = {"nobody": 2.0}
    (tmp_path / "run").mkdir()
    run = make_run(features)
    with pytest.raises(SpecError, match="no class is called 'nobody'"):
        train(run)
    assert list((tmp_path / "run").iterdir()) == []
    opened = Run.open(make_run(features, "other").directory)
    with pytest.raises(SpecError, match="no class is called 'nobody'"):
        train(opened)
    assert opened.spec_file.is_file()
    assert opened.status == "failed"


def test_a_file_that_is_damaged_while_it_is_trained_on_is_named(tmp_path):
    pillow = pytest.importorskip("PIL.Image")
    for number in range(40):
        folder = tmp_path / "images" / "ab"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        pillow.fromarray(np.full((8, 8, 3), number, np.uint8)).save(folder / f"{number:02}.png")

    spec = tmp_path / "s.yaml"
    spec.write_text(
        """
name: s
data: {source: {path: images}, cache: none, batch_size: 4, split: {test: 0.1, validation: 0.1}}
model: {layers: [Flatten, {Dense: {units: 2}}]}
train: {epochs: 3, loss: {SparseCategoricalCrossentropy: {from_logits: true}}}
"""
    )
    run = Run.create(load_spec(spec), tmp_path / "run")
    begun = beginning.record_setup

    def record(*arguments):
        begun(*arguments)
        for file in (tmp_path / "images").rglob("*.png"):
            file.write_bytes(b"junk")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mltool.training.train.record_setup", record)
        with pytest.raises(DataError, match=r"images/[ab]/\d\d\.png cannot be read: it is no image") as caught:
            train(run)
    assert caught.value.exit_code == 4

    assert run.status == "failed"


def test_a_finished_run_tells_all_that_it_was_made_of(trained_run):
    manifest = trained_run.manifest
    assert manifest["status"] == "trained"
    assert manifest["error"] is None
    assert manifest["epochs"] == 4
    assert manifest["input"]["inputs"] == [
        {
            **{"name": "image", "dtype": "float32", "shape": [8, 8, 1], "minimum": 0.0, "maximum": 16.0},
            **{
                "kind": "image",
                "original": None,
                "missing": False,
                "categories": [],
                "sample_rate": None,
                "resize": None,
                **{"columns": [], "time": None, "group": None},
            },
        }
    ]
    assert manifest["input"]["outputs"][0]["labels"] == list("0123456789")
    assert [(step["name"], step["class_name"]) for step in manifest["input"]["preprocessing"]] == [
        ("rescaling", "Rescaling")
    ]
    assert {"mltool", "python", "tensorflow", "keras", "numpy"} <= set(manifest["environment"]["versions"])
    assert manifest["environment"]["replicas"] == 1
    assert trained_run.require_unchanged(trained_run.keras_file) == trained_run.keras_file
    assert [line["step"] for line in read_lines(trained_run.metrics_file)] == [13, 26, 39, 52]


def test_weights_of_the_last_or_of_the_best_epoch_are_kept(features, make_run):
    """A learning rate that jumps away after the first epoch makes the first one the best."""
    steps = {"PiecewiseConstantDecay": {"boundaries": [4], "values": [0.05, 5.0]}}
    features["train"] |= {"epochs": 3, "optimizer": {"SGD": {"learning_rate": steps}}}
    one_epoch = with_train(features, epochs=1, optimizer={"SGD": {"learning_rate": 0.05}})
    best, last = with_train(features, keep="best"), with_train(features, keep="last")
    runs = {name: make_run(spec, name) for name, spec in {"one": one_epoch, "best": best, "last": last}.items()}
    results = {name: train(run) for name, run in runs.items()}
    assert [results[name].best_epoch for name in ("one", "best", "last")] == [1, 1, None]
    kept = {name: weights_of(run) for name, run in runs.items()}
    np.testing.assert_array_equal(kept["best"][0], kept["one"][0])
    assert np.abs(kept["last"][0] - kept["one"][0]).max() > 1


def with_train(spec: dict[str, Any], **changed: Any) -> dict[str, Any]:
    return spec | {"train": spec["train"] | changed}


def weights_of(run: Any) -> list[np.ndarray]:
    import keras

    return keras.models.load_model(run.keras_file, compile=False).get_weights()


def test_the_best_epoch_is_told_by_the_monitor_of_early_stopping(features, make_run):
    features["train"]["callbacks"] = [{"EarlyStopping": {"monitor": "val_accuracy", "patience": 30}}]
    features["train"]["epochs"] = 8
    run = make_run(features)
    result = train(run)
    accuracies = [line["val_accuracy"] for line in read_lines(run.metrics_file)]
    assert result.best_epoch == 1 + int(np.argmax(accuracies))


def test_a_loss_that_is_no_number_fails_the_run(features, make_run):
    features["data"]["source"]["target"] = "value"
    features["model"]["layers"] = [{"Dense": {"units": 2}}]
    features["train"] |= {"loss": "MeanSquaredError", "metrics": [], "optimizer": {"SGD": {"learning_rate": 1e30}}}
    run = make_run(features)
    with pytest.raises(
        TrainingError,
        match=r"a gradient, is not finite in step \d of epoch 1: .*; lower the learning rate",
    ) as found:
        train(run)
    assert found.value.exit_code == 6
    assert run.status == "failed"
    assert run.manifest["error"] == str(found.value)
    assert not run.keras_file.exists()


MISFITS = {
    "as many units as classes": (
        {"layers": [{"Dense": {"units": 4, "name": "out"}}]},
        r"model\.layers\.0\.Dense: the last layer 'out' gives \(4,\) a sample, the data have 3 classes; make it",
    ),
    "a layer for images": (
        {"layers": [{"Conv2D": {"filters": 2, "kernel_size": 3, "name": "c"}}, {"Dense": {"units": 3}}]},
        r"model\.layers\.0\.Conv2D: the layer 'c' does not fit its input of shape \(None, 4\)",
    ),
}


@pytest.mark.parametrize(("model", "message"), MISFITS.values(), ids=MISFITS.keys())
def test_a_model_that_does_not_fit_fails_before_training(features, make_run, model, message):
    run = make_run(features | {"model": model})
    with pytest.raises(SpecError, match=message):
        train(run)
    assert not run.directory.exists()


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ({"RandomCrop": {"height": 6, "width": 6}}, r"data\.augment: .* \(8, 8, 1\) into \(6, 6, 1\)"),
        ({"RandomSaturation": {"factor": 0.5}}, r"data\.augment: the layers do not take samples of shape \(8, 8, 1\)"),
    ],
    ids=["changes the shape", "wants colors"],
)
def test_an_augmentation_that_does_not_fit_fails_before_training(hard, make_run, layer, message):
    hard["data"]["augment"] = [layer]
    with pytest.raises(SpecError, match=message):
        train(make_run(hard))


def test_numbers_that_stand_for_names_are_not_mixed(features, make_run):
    features["data"]["augment"] = ["MixUp"]
    embedding = {"Embedding": {"input_dim": 9, "output_dim": 2}}
    features["model"] = {"layers": [embedding, "Flatten", {"Dense": {"units": 3}}]}
    message = r"data\.augment\.0\.MixUp: what 'embedding' \(Embedding\) takes are no amounts, and cannot be mixed"
    with pytest.raises(SpecError, match=message):
        train(make_run(features))


def test_a_regression_learns_from_mixed_values(features, make_run):
    features["data"]["augment"] = ["MixUp"]
    features["data"]["source"]["target"] = "value"
    features["model"] = {"layers": [{"Dense": {"units": 2}}]}
    features["train"] |= {"loss": "MeanSquaredError", "metrics": ["MeanAbsoluteError"], "epochs": 24}
    features["train"]["optimizer"] = {"Adam": {"learning_rate": 0.1}}
    run = make_run(features)
    train(run)
    errors = [json.loads(line)["val_mean_absolute_error"] for line in run.metrics_file.read_text().splitlines()]
    assert errors[-1] < errors[0] / 3


def test_lines_of_epochs_are_json_also_when_a_metric_is_none(tmp_path):
    file = tmp_path / "metrics.jsonl"
    append_line(file, {"epoch": 1, "auc": float("nan")})
    append_line(file, {"epoch": 2, "auc": 0.5})
    assert [json.loads(line) for line in file.read_text().splitlines()] == [
        {"epoch": 1, "auc": None},
        {"epoch": 2, "auc": 0.5},
    ]


def test_half_a_line_and_later_epochs_are_taken_out(tmp_path):
    file = tmp_path / "metrics.jsonl"
    file.write_bytes(b'{"epoch": 1}\n{"epoch": 2}\n{"epoch": 3, "lo\xff')
    assert read_lines(file) == [{"epoch": 1}, {"epoch": 2}]
    keep_lines(file, 1)
    assert file.read_text() == '{"epoch": 1}\n'
    assert read_lines(tmp_path / "none.jsonl") == []


def test_a_resumed_run_counts_the_copies_that_were_left_out_before(tmp_path):
    x = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
    x[50:53] = x[:3]
    y = np.arange(60) % 2
    np.savez(tmp_path / "data.npz", x_train=x[:50], y_train=y[:50], x_test=x[50:], y_test=y[50:])
    run = trained(tmp_path, "{path: data.npz}")
    assert run.manifest["data"]["dropped_copies"] == 3
    run.update(status="training")
    train(run)
    assert run.manifest["data"]["dropped_copies"] == 3


def test_a_table_of_texts_records_its_markers_too(tmp_path):
    rows = "".join(f"{'ab'[i % 2]},the word {i} is number {i}\n" for i in range(60))
    (tmp_path / "data.csv").write_text(f"label,text\n{rows}", encoding="utf-8")
    assert trained(tmp_path, "{path: data.csv, missing: ['-']}").input_schema.missing_markers == ("-",)


def trained(folder, source):
    """A run of one epoch of a small model."""
    (folder / "my.yaml").write_text(
        f"name: small\ndata: {{source: {source}}}\nmodel: {{preprocess: auto, layers: [{{Dense: {{units: 2}}}}]}}\n"
        "train: {epochs: 1, loss: {SparseCategoricalCrossentropy: {from_logits: true}}, metrics: [accuracy]}\n"
    )
    run = Run.create(load_spec(folder / "my.yaml"), folder / "run")
    train(run)
    return run


class OpenedError(Exception):
    """Raised where the data would be read."""


@pytest.mark.parametrize(
    ("path", "asked"), [("PHOTOS", ["tensorflow"]), ("PHOTOS.zip", ["tensorflow"]), ("DATA.npz", []), ("DATA.csv", [])]
)
def test_tensorflow_is_there_before_a_folder_is_read(path, asked, monkeypatch):
    def read(spec):
        raise OpenedError

    found = []
    monkeypatch.setattr(setup, "open_dataset", read)
    monkeypatch.setattr(setup.extras, "tensorflow", lambda: found.append("tensorflow"))
    with pytest.raises(OpenedError):
        setup.open_data(None, SimpleNamespace(data=SimpleNamespace(source=SourceSpec(path=path))))
    assert found == asked

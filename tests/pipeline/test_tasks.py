"""Tasks beyond one class a sample, all the way: trained, cut, converted, verified, told on a page, and asked."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tasks
from cuts import interrupt_at

from mltool import console
from mltool.cli.main import main
from mltool.errors import Interrupted
from mltool.inference.keras_predictor import load_keras_model
from mltool.pipeline.chain import run_chain
from mltool.report.page import report
from mltool.runs.run import Run
from mltool.training.train import train


@pytest.fixture(scope="module")
def arrays(tmp_path_factory) -> Path:
    return tasks.write_arrays(tmp_path_factory.mktemp("arrays") / "arrays.npz")


@pytest.fixture
def predicted(capfd, monkeypatch):
    """What `mltool predict --json` says of the first test samples."""
    monkeypatch.setattr(console, "_settings", console._Settings())

    def ask(artifact: Path, count: int) -> list[dict[str, Any]]:
        capfd.readouterr()
        with pytest.raises(SystemExit, match=r"^0$"):
            main(["predict", str(artifact), "-n", str(count), "--json"])
        found: list[dict[str, Any]] = json.loads(capfd.readouterr().out)["predictions"]
        assert len(found) == count
        return found

    return ask


def chained(spec: dict[str, Any], folder: Path) -> tuple[Run, dict[str, Any], dict[str, np.ndarray], str]:
    """A run of the whole chain that holds; its outputs as input.json has them, its vectors, and its page."""
    run = tasks.new_run(spec, folder)
    result = run_chain(run)
    assert result.failure is None
    (record,) = result.records
    assert (record.name, record.verified, record.read_back["quantize"]) == ("int8", True, "int8")
    assert [verdict.kept for verdict in result.verdicts] == [True]
    outputs = json.loads((run.lite_folder / "input.json").read_text(encoding="utf-8"))["outputs"]
    names = [output["name"] for output in outputs]
    assert list(record.read_back["outputs"]) == names
    if len(names) > 1:
        assert list(record.agreement["outputs"]) == names
    with np.load(run.lite_folder / "vectors.npz") as file:
        vectors = dict(file)
    page = report(run, folder / "page.html").read_text(encoding="utf-8")
    return run, {output["name"]: output for output in outputs}, vectors, page


def headings(page: str) -> list[str]:
    return re.findall(r"<h2[^>]*>(.*?)</h2>", page)


def rows(page: str) -> list[list[str]]:
    found = re.findall(r"<tr>(.*?)</tr>", page, re.DOTALL)
    return [re.findall(r"<td[^>]*>(?:<[^>]*>)*([^<]*)", row) for row in found]


@pytest.mark.slow
def test_several_labels_a_sample_go_all_the_way(arrays, tmp_path, predicted):
    spec = tasks.spec_of("multi_label", arrays)
    spec["data"]["source"]["classes"] = ["wet", "sunny", "old"]
    run, outputs, vectors, page = chained(spec, tmp_path)
    assert outputs["answer"]["task"] == "multi_label"
    assert outputs["answer"]["labels"] == ["wet", "sunny", "old"]
    assert (run.lite_folder / "labels.txt").read_text(encoding="utf-8").split() == ["wet", "sunny", "old"]
    assert vectors["keras"].shape == vectors["artifact:int8"].shape == vectors["targets"].shape == (32, 3)
    for found, logits, truth in zip(
        predicted(run.lite_folder / "int8.tflite", 4), vectors["artifact:int8"], vectors["targets"], strict=False
    ):
        assert found["answer"] == [
            name for name, logit in zip(("wet", "sunny", "old"), logits, strict=True) if logit > 0
        ]
        assert found["truth"] == [name for name, one in zip(("wet", "sunny", "old"), truth, strict=True) if one]
        np.testing.assert_allclose(found["probabilities"], 1 / (1 + np.exp(-logits)), atol=1e-5)
    with np.load(run.predictions_file) as kept:
        counts = kept["targets"].sum(axis=0).astype(int)
    told = {row[0]: row[1] for row in rows(page) if row and row[0] in ("wet", "sunny", "old")}
    assert told == {name: str(count) for name, count in zip(("wet", "sunny", "old"), counts, strict=True)}
    assert "Answers on the test split" in headings(page)


def test_several_outputs_go_all_the_way(arrays, tmp_path, predicted):
    run, outputs, vectors, page = chained(tasks.spec_of("several outputs", arrays), tmp_path)
    assert {name: (one["task"], one["shape"]) for name, one in outputs.items()} == {
        "kind": ("classification", [7]),
        "side": ("binary", [1]),
        "size": ("regression", [2]),
    }
    assert (run.lite_folder / "labels-kind.txt").read_text(encoding="utf-8").split() == list("0123456")
    assert (run.lite_folder / "labels-side.txt").read_text(encoding="utf-8").split() == ["0", "1"]
    assert not (run.lite_folder / "labels-size.txt").exists()
    for key in ("keras", "artifact:int8", "targets"):
        assert vectors[key].dtype.names == ("kind", "side", "size")
    for found, values in zip(predicted(run.lite_folder / "int8.tflite", 3), vectors["artifact:int8"], strict=False):
        assert found["answer"]["kind"] == str(values["kind"].argmax())
        assert found["answer"]["side"] == str(int(values["side"][0] > 0))
        assert found["answer"]["size"] == pytest.approx(values["size"].tolist())
        assert set(found["probabilities"]) == {"kind", "side"}
        assert set(found["outputs"]) == {"size"}
        assert set(found["truth"]) == {"kind", "side", "size"}
    assert [h for h in headings(page) if h.startswith("Answers")] == [
        f"Answers on the test split: {name}" for name in outputs
    ]
    assert "answers over the truth" in page
    assert len(re.findall("confusion matrix, rows the truth", page)) == 2
    assert {f"{name}: same_answer" for name in ("kind", "side")} <= {row[1] for row in rows(page) if len(row) == 4}


def test_anomalies_go_all_the_way(arrays, tmp_path, predicted):
    run, outputs, vectors, page = chained(tasks.spec_of("anomaly", arrays), tmp_path)
    threshold = outputs["answer"]["threshold"]
    assert threshold > 0
    assert (run.lite_folder / "labels.txt").read_text(encoding="utf-8").split() == ["normal", "anomaly"]
    assert vectors["artifact:int8"].shape == (32, 5)
    asked = predicted(run.lite_folder / "int8.tflite", 12)
    for found, difference in zip(asked, vectors["artifact:int8"], strict=False):
        assert found["score"] == pytest.approx(np.square(difference).mean(), rel=1e-5)
        assert found["answer"] == ("anomaly" if found["score"] > threshold else "normal")
    assert {found["truth"] for found in asked} == {"normal", "anomaly"}
    assert "scores of the test samples" in page
    assert "times the threshold" in page


SHAPES: dict[str, Any] = {
    "name": "shapes",
    "data": {"source": {"dataset": "shapes", "max_samples": 200}},
    "model": {
        "preprocess": [{"Rescaling": {"scale": 0.00392157}}],
        "layers": [{"UNet": {"filters": [4, 8], "units": 4}}],
    },
    "train": {"epochs": 2, "optimizer": {"Adam": {"learning_rate": 0.01}}, "loss": tasks.LOGITS},
    "convert": [{"quantize": "int8"}],
    "limits": {"max_drop": "50%"},
}


@pytest.mark.slow
def test_masks_go_all_the_way(tmp_path, predicted):
    run, outputs, vectors, page = chained(SHAPES, tmp_path)
    labels = ["background", "circle", "square", "triangle"]
    assert outputs["u_net"]["task"] == "segmentation"
    assert (run.lite_folder / "labels.txt").read_text(encoding="utf-8").split() == labels
    assert vectors["artifact:int8"].shape == (32, 32, 32, 4)
    for found, values in zip(predicted(run.lite_folder / "int8.tflite", 2), vectors["artifact:int8"], strict=False):
        mask = values.argmax(axis=-1)
        np.testing.assert_array_equal(found["mask"], mask)
        assert found["answer"] == {name: float((mask == number).mean()) for number, name in enumerate(labels)}
        assert sum(found["truth"].values()) == pytest.approx(1)
    with np.load(run.predictions_file) as kept:
        pixels = np.bincount(kept["targets"].reshape(-1), minlength=4)
    told = {row[0]: row[1] for row in rows(page) if row and row[0] in labels}
    assert told == {name: f"{count:,}" for name, count in zip(labels, pixels, strict=True)}
    assert "confusion matrix, of pixels" in page
    assert page.count("data:image/png") >= 2


def keras_of(run: Run) -> Any:
    return load_keras_model(run.keras_file)


def metrics_of(run: Run) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in run.metrics_file.read_text(encoding="utf-8").splitlines()]
    times = ("seconds", "samples_per_second")
    return [{name: value for name, value in line.items() if name not in times} for line in found]


def test_a_training_of_several_outputs_that_was_cut_ends_as_the_uncut_one(arrays, tmp_path, monkeypatch):
    spec = tasks.spec_of("several outputs", arrays, epochs=2)
    uncut, cut = (tasks.new_run(spec, tmp_path, name) for name in ("uncut", "cut"))
    train(uncut)
    with monkeypatch.context() as patched:
        interrupt_at(patched, 9)  # of 6 steps an epoch and one of validation: in the second epoch
        with pytest.raises(Interrupted, match="stopped at epoch 2, step "):
            train(cut)
    train(Run.open(cut.directory))
    for one, other in zip(keras_of(uncut).get_weights(), keras_of(cut).get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert metrics_of(uncut) == metrics_of(cut)
    assert uncut.manifest["input"] == cut.manifest["input"]


def by_hand(run: Run, arrays: Path, split: str, *, weighted: bool) -> dict[str, float]:
    """The losses of a split by the weights that are kept, with numpy."""
    with np.load(arrays) as data, np.load(run.splits_file) as splits:
        ids, train_ids = splits[f"{split}_ids"], splits["train_ids"]
        x, kind, side, size = (data[name][ids] for name in ("x", "kind", "side", "size"))
        weights = data["weight"][ids] if weighted else np.ones(len(ids))
        deviation = data["size"][train_ids].std(axis=0)
    outputs = {name: np.asarray(value, np.float64) for name, value in keras_of(run)(x).items()}
    logits = outputs["kind"] - outputs["kind"].max(axis=1, keepdims=True)
    of_kind = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(ids)), kind]
    of_side = np.log1p(np.exp(np.where(side == 1, -1, 1) * outputs["side"][:, 0]))
    of_size = (((outputs["size"] - size) / deviation) ** 2).mean(axis=1)
    means = {
        f"{name}_loss": float((weights * one).mean())
        for name, one in (("kind", of_kind), ("side", of_side), ("size", of_size))
    }
    return {"loss": 2 * means["kind_loss"] + means["side_loss"] + 0.5 * means["size_loss"], **means}


@pytest.mark.parametrize("weighted", [pytest.param(False, id="plain"), pytest.param(True, id="weights of samples")])
def test_the_loss_of_several_outputs_is_their_weighted_sum(weighted, arrays, tmp_path):
    """One batch that is the whole epoch, by a step so small that no weight changes."""
    still = {"SGD": {"learning_rate": 1e-30}}
    spec = tasks.spec_of("several outputs", arrays, epochs=1, optimizer=still)
    spec["data"]["batch_size"] = tasks.SAMPLES
    if weighted:
        spec["data"]["source"]["weight"] = "weight"
    run = tasks.new_run(spec, tmp_path)
    train(run)
    (line,) = metrics_of(run)
    for split, prefix in (("train", ""), ("validation", "val_")):
        expected = by_hand(run, arrays, split, weighted=weighted)
        assert {name: line[prefix + name] for name in expected} == pytest.approx(expected, rel=1e-5)


def test_the_best_epoch_may_be_that_of_one_output(arrays, tmp_path):
    stopping = {"EarlyStopping": {"monitor": "val_side_loss", "patience": 20, "restore_best_weights": True}}
    fast = {"Adam": {"learning_rate": 0.2}}  # so that it gets worse again
    run = tasks.new_run(
        tasks.spec_of("several outputs", arrays, epochs=8, optimizer=fast, callbacks=[stopping]), tmp_path
    )
    train(run)
    losses = [line["val_side_loss"] for line in metrics_of(run)]
    assert run.manifest["best_epoch"] == int(np.argmin(losses)) + 1 < 8
    assert by_hand(run, arrays, "validation", weighted=False)["side_loss"] == pytest.approx(min(losses), rel=1e-4)


TWO_DEVICES = """
import sys
from pathlib import Path
from mltool import extras
tf = extras.tensorflow()
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from mltool.runs.run import Run
from mltool.training import setup
from mltool.training.train import train
setup.build_strategy = lambda spec: tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
train(Run.open(Path(sys.argv[1])))
"""


@pytest.mark.slow
@pytest.mark.parametrize("task", ["several outputs", "multi_label", "anomaly", "segmentation"])
def test_two_devices_learn_as_one(task, arrays, tmp_path):
    one, two = (tasks.new_run(tasks.spec_of(task, arrays, epochs=2), tmp_path, name) for name in ("one", "two"))
    train(one)
    command = [sys.executable, "-c", TWO_DEVICES, str(two.directory)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=os.environ, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(two.manifest["environment"]["devices"]) == 2
    for mine, theirs in zip(keras_of(one).get_weights(), keras_of(two).get_weights(), strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-4)
    assert [line["learning_rate"] for line in metrics_of(two)] == pytest.approx([0.02, 0.02])
    for line, other in zip(metrics_of(one), metrics_of(two), strict=True):
        assert line == pytest.approx(other, rel=1e-3)

"""Models of the user's own, all the way: int8 and verified, cut and resumed, every verb in a process of its own."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from cuts import interrupt_at

from mltool.errors import Interrupted
from mltool.inference.keras_predictor import load_keras_model
from mltool.pipeline.chain import run_chain
from mltool.runs.run import Run
from mltool.spec.load import load_spec
from mltool.training.train import train

NETS = Path(__file__).parents[1] / "models" / "own_nets.py"

SPEC: dict[str, Any] = {
    "name": "own",
    "seed": 7,
    "data": {"source": {"dataset": "digits"}, "batch_size": 100},
    "model": {"preprocess": [{"Rescaling": {"scale": 0.0625}}], "arguments": {"width": 16}},
    "train": {
        "epochs": 4,
        "optimizer": {"Adam": {"learning_rate": 0.02}},
        "loss": {"SparseCategoricalCrossentropy": {"from_logits": True}},
        "metrics": ["accuracy"],
    },
    "convert": [{"quantize": "int8"}],
}


def spec_file(folder: Path, function: str, **train_section: Any) -> Path:
    """The spec with a function of own_nets.py, which lies beside it."""
    shutil.copy(NETS, folder / "nets.py")
    model = SPEC["model"] | {"python": f"nets:{function}"}
    path = folder / f"{function}.yaml"
    spec = SPEC | {"model": model, "train": SPEC["train"] | train_section}
    path.write_text(yaml.safe_dump(spec, sort_keys=False), encoding="utf-8")
    return path


@pytest.mark.parametrize("function", ["functional", "module"])
def test_the_whole_chain_holds(function, tmp_path):
    result = run_chain(Run.create(load_spec(spec_file(tmp_path, function)), tmp_path / "run"))
    assert result.failure is None
    assert result.evaluation.metrics["accuracy"] > 0.7
    (record,) = result.records
    assert (record.name, record.verified, record.outside) == ("int8", True, [])
    assert record.agreement["same_answer"] > 0.95
    assert [verdict.kept for verdict in result.verdicts] == [True]
    assert record.bytes < 8000


def verb(*words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mltool.cli.main", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=folder, env=os.environ, check=False)


@pytest.mark.slow
def test_every_verb_works_in_a_process_of_its_own_and_refuses_changed_code(tmp_path):
    spec_file(tmp_path, "subclassed", epochs=2)
    for words in (
        "check subclassed.yaml",
        "train subclassed.yaml --run-dir run",
        "evaluate run",
        "export run",
        "convert run --quantize int8",
        "verify run",
        "predict run -n 2",
    ):
        done = verb(*words.split(), folder=tmp_path)
        assert done.returncode == 0, f"{words}\n{done.stderr}"
    nets = tmp_path / "nets.py"
    nets.write_text(nets.read_text(encoding="utf-8") + "# changed\n", encoding="utf-8")
    done = verb("evaluate", "run", "--json", folder=tmp_path)
    (message,) = json.loads(done.stdout)["error"]["messages"]
    assert done.returncode == 5
    assert re.search(r"nets\.py:subclassed was changed since training began", message["message"])
    assert message["hint"].startswith("restore the file, or train anew: mltool train")
    # What holds no code is run as before.
    assert verb("predict", "run/lite/int8.tflite", "-n", "2", folder=tmp_path).returncode == 0


@pytest.mark.parametrize("function", ["sequential", "subclassed", "decorated"])
def test_a_training_that_was_cut_ends_as_the_uncut_one(function, tmp_path, monkeypatch):
    (tmp_path / "cut").mkdir()
    file = spec_file(tmp_path, function, epochs=2)
    if function == "decorated":
        file.write_text(re.sub(r"  arguments:\n    width: 16\n", "", file.read_text()), encoding="utf-8")
    uncut, cut = Run.create(load_spec(file), tmp_path / "uncut"), Run.create(load_spec(file), tmp_path / "cut")
    train(uncut)
    with monkeypatch.context() as patched:
        interrupt_at(patched, 18)  # in the second epoch, of 13 steps and validation
        with pytest.raises(Interrupted, match="stopped at epoch 2, step "):
            train(cut)
    train(Run.open(cut.directory))
    first, second = (load_keras_model(run.keras_file).variables for run in (uncut, cut))
    assert len(first) == len(second) > 1
    for one, other in zip(first, second, strict=True):
        if one.name != "seed_generator_state":  # not in a .keras file
            np.testing.assert_array_equal(one.numpy(), other.numpy())
    assert uncut.manifest["input"] == cut.manifest["input"]


PAIR = {
    "name": "pair",
    "data": {"source": {"path": "pair.npz"}, "inputs": {"image": {"array": "a"}, "meta": {"array": "b"}}},
    "model": {"preprocess": {"meta": ["Normalization"]}, "python": "nets:two_module"},
    "train": {"epochs": 2, "loss": {"SparseCategoricalCrossentropy": {"from_logits": True}}, "metrics": ["accuracy"]},
    "convert": [{"quantize": "int8"}],
}


@pytest.mark.parametrize("function", ["two_module", "two_functional"])
@pytest.mark.slow
def test_two_inputs_go_all_the_way(function, tmp_path):
    random = np.random.default_rng(1)
    shutil.copy(NETS, tmp_path / "nets.py")
    image, meta = random.normal(size=(400, 4, 4, 1)), random.normal(3, 2, size=(400, 3))
    np.savez(tmp_path / "pair.npz", a=image.astype("f4"), b=meta.astype("f4"), y=np.arange(400) % 10)
    model = PAIR["model"] | {"python": f"nets:{function}"}
    (tmp_path / "pair.yaml").write_text(yaml.safe_dump(PAIR | {"model": model}), encoding="utf-8")
    assert run_chain(Run.create(load_spec(tmp_path / "pair.yaml"), tmp_path / "run")).failure is None


REGRESSION = {
    "name": "houses",
    "data": {"source": {"path": "houses.csv", "target": "price"}},
    "model": {"preprocess": "auto", "python": "nets:columns"},
    "train": {"epochs": 3, "loss": "MeanSquaredError", "metrics": ["MeanAbsoluteError"]},
    "convert": [{"quantize": "none"}],
}
COLUMNS = """
import tensorflow as tf

class Columns(tf.Module):
    def __init__(self):
        super().__init__()
        self.w = None
    def __call__(self, features):
        if self.w is None:
            self.w = tf.Variable(tf.zeros((features.shape[1], 1)))
        return features @ self.w

def columns(): return Columns()
"""


def test_preprocess_auto_gives_a_table_as_one_tensor_and_text_stays_outside(tmp_path):
    random = np.random.default_rng(1)
    rows = [f"{random.uniform(30, 90):.1f},{town},{number}" for number, town in enumerate(["Ulm", "Bonn"] * 100)]
    (tmp_path / "houses.csv").write_text("\n".join(["size,town,price", *rows]), encoding="utf-8")
    (tmp_path / "nets.py").write_text(COLUMNS, encoding="utf-8")
    (tmp_path / "houses.yaml").write_text(yaml.safe_dump(REGRESSION), encoding="utf-8")
    result = run_chain(Run.create(load_spec(tmp_path / "houses.yaml"), tmp_path / "run"))
    assert result.failure is None
    assert len(result.records[0].outside) == 1


LAYERS = NETS.with_name("own_layers.py")

OWN_THINGS: dict[str, Any] = {
    "model": {
        "preprocess": [{"Rescaling": {"scale": 0.0625}}],
        "layers": [
            "Flatten",
            {"python": "mine:dense", "arguments": {"units": 16}},
            {"python": "mine:Scale", "arguments": {"factor": 2}, "name": "scaled"},
            {"Dense": {"units": 10}},
        ],
    },
    "train": {
        "epochs": 4,
        "optimizer": {"Adam": {"learning_rate": 0.02}},
        "loss": {"python": "mine:weighted", "task": "classification", "from_logits": True},
        "metrics": [{"python": "mine:right", "better": "greater"}],
    },
}


@pytest.mark.slow
def test_layers_losses_and_metrics_of_ones_own_go_all_the_way(tmp_path):
    shutil.copy(LAYERS, tmp_path / "mine.py")
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(SPEC | OWN_THINGS, sort_keys=False), encoding="utf-8")
    for words in ("run own.yaml --run-dir run", "evaluate run/lite/int8.tflite"):
        done = verb(*words.split(), folder=tmp_path)
        assert done.returncode == 0, f"{words}\n{done.stderr}"
    assert "Scale" in verb("inspect", "run", folder=tmp_path).stdout
    record = json.loads((tmp_path / "run" / "lite" / "int8.json").read_text(encoding="utf-8"))
    assert record["metric"]["name"] == "right"
    assert record["metric"]["value"] > 0.9
    assert record["metric"]["drop"] == pytest.approx(record["metric"]["reference"] - record["metric"]["value"])
    mine = tmp_path / "mine.py"
    mine.write_text(mine.read_text(encoding="utf-8") + "# changed\n", encoding="utf-8")
    for words in ("verify run", "evaluate run/lite/int8.tflite"):
        done = verb(*words.split(), folder=tmp_path)
        assert done.returncode == 5, f"{words}\n{done.stderr}"
        assert "was changed since training began" in done.stderr
    # What holds no code is run as before.
    assert verb("predict", "run/lite/int8.tflite", "-n", "2", folder=tmp_path).returncode == 0

"""The shipped pair of specs: a backbone learns, another training takes it up in two phases, and it becomes int8."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from mltool.models.weight_files import choose, read_models
from mltool.pipeline.chain import run_chain
from mltool.runs.run import Run
from mltool.spec.load import load_spec
from mltool.training.train import train

CONFIGS = Path(__file__).parents[2] / "configs"
DIGITS = "data.source={dataset: digits, classes: [CLASSES]}"


def backbone_of(run):
    models = read_models(run.keras_file)
    assert {model.name for model in models} == {"", "backbone"}
    return {name: arrays for name, arrays in choose(models, "backbone", []).layers.items() if arrays}


@pytest.mark.slow
def test_the_shipped_specs_of_pretraining_and_fine_tuning_run_on_digits(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(CONFIGS, tmp_path / "configs")
    first = load_spec("configs/pretrain.yaml", [DIGITS.replace("CLASSES", "'0','1','2','3','4'"), "train.epochs=1"])
    pretrained = Run.create(first, tmp_path / "pretrained")
    train(pretrained)
    overrides = [
        DIGITS.replace("CLASSES", "'5','6','7','8','9'"),
        "model.layers.0.MobileNet.weights=pretrained/model.keras",
        *("train.phases.0.epochs=1", "train.phases.1.epochs=1", "train.keep=last", "limits.max_drop=null"),
    ]
    run = Run.create(load_spec("configs/finetune.yaml", overrides), tmp_path / "tuned")
    result = run_chain(run)
    assert [record.name for record in result.records] == ["int8"]
    assert list(run.manifest["model"]["weights"]) == [str(pretrained.keras_file)]
    before, after = backbone_of(pretrained), backbone_of(run)
    assert set(before) == set(after)
    same = {name for name in before if all(map(np.array_equal, before[name], after[name]))}
    frozen = {name for name in before if re.fullmatch(r"conv1(_bn)?|conv_[dp]w_[1-5](_bn)?", name)}
    assert len(frozen) == 22
    assert same == frozen

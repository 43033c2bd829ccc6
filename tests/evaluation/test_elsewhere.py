"""The model of a run on other data, and an endpoint with the model of the run: the same figures by the same code."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from mltool.errors import ArtifactError, DataError, SpecError, UsageError
from mltool.evaluation.evaluate import evaluate
from mltool.exporting.export import export
from mltool.runs.run import Run
from mltool.spec.load import load_spec
from mltool.training.train import train

sys.path.append(str(Path(__file__).parents[1] / "inference"))

NUMBERS = np.random.default_rng(3)


def points(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Three classes that four numbers tell apart."""
    random = np.random.default_rng(seed)
    y = random.integers(0, 3, count)
    return (random.normal(0, 0.3, (count, 4)) + y[:, None]).astype(np.float32), y


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A trained and exported run of classes that are called 2, 1 and 0 in this order."""
    folder = tmp_path_factory.mktemp("elsewhere")
    x, y = points(300, 1)
    np.savez(folder / "old.npz", x=x, y=y)
    spec = {
        "name": "three",
        "seed": 5,
        "data": {"source": {"path": "old.npz", "classes": ["2", "1", "0"]}},
        "model": {"layers": [{"Dense": {"units": 3, "name": "scores"}}]},
        "train": {
            "epochs": 8,
            "optimizer": {"Adam": {"learning_rate": 0.1}},
            "loss": {"SparseCategoricalCrossentropy": {"from_logits": True}},
            "metrics": ["accuracy", {"SparseTopKCategoricalAccuracy": {"k": 2, "name": "top2"}}],
            "class_weights": {"0": 2.0},
        },
    }
    (folder / "old.yaml").write_text(yaml.safe_dump(spec), encoding="utf-8")
    run = Run.create(load_spec(folder / "old.yaml"), folder / "run")
    train(run)
    evaluate(run)
    export(run)
    return folder


@pytest.fixture
def newer(folder, tmp_path):
    """Writes a spec of other data; the rest of it is another model's."""
    shutil.copy(folder / "old.npz", tmp_path / "old.npz")

    def write(x: np.ndarray, y: np.ndarray, **sections) -> Path:
        np.savez(tmp_path / "new.npz", x=x, y=y)
        spec = {"name": "other", "data": {"source": {"path": "new.npz"}}, "model": {"layers": ["Nonsense"]}, **sections}
        path = tmp_path / "new.yaml"
        path.write_text(yaml.safe_dump(spec), encoding="utf-8")
        return path

    return write


def by_hand(run: Run, x: np.ndarray, y: np.ndarray) -> float:
    """The share of right answers, of the weights as they are; outputs are the classes 2, 1, 0."""
    import keras

    kernel, bias = (weight.numpy() for weight in keras.models.load_model(run.keras_file).weights)
    return float((2 - (x @ kernel + bias).argmax(axis=1) == y).mean())


def test_all_samples_of_other_data_are_measured_with_the_classes_of_the_run(folder, newer):
    run = Run.open(folder / "run")
    kept = run.evaluation_file.read_bytes()
    x, y = points(90, 2)
    result = evaluate(run, data_spec=newer(x, y), split="all")
    assert (result.split, result.samples, result.seen_in_training) == ("all", 90, 0)
    assert result.metrics["accuracy"] == pytest.approx(by_hand(run, x, y))
    assert result.metrics["accuracy"] > 0.7
    assert result.to_json()["data"].endswith("new.yaml")
    assert run.evaluation_file.read_bytes() == kept  # the reference of every drop


def test_fewer_classes_are_fine_and_the_test_split_is_that_of_the_other_spec(folder, newer):
    run = Run.open(folder / "run")
    x, y = points(200, 4)
    x, y = x[y != 1], y[y != 1]
    spec = newer(x, y, data={"source": {"path": "new.npz"}, "split": {"by": "order", "test": 0.25}})
    result = evaluate(run, data_spec=spec, by="label", confidence=0.9)
    assert result.samples == round(len(y) / 4)
    last = slice(len(y) - result.samples, None)
    assert result.metrics["accuracy"] == pytest.approx(by_hand(run, x[last], y[last]))
    assert {part.value for part in result.slices} == {"0", "2"}
    low, high = result.intervals["accuracy"]
    assert low <= result.metrics["accuracy"] <= high


def test_samples_of_the_training_are_counted_and_told(folder, newer, caplog):
    run = Run.open(folder / "run")
    x, y = points(300, 1)
    trained = run.load_splits()["train_ids"]
    new_x, new_y = points(20, 7)
    spec = newer(np.concatenate([new_x, x[trained[:7]]]), np.concatenate([new_y, y[trained[:7]]]))
    assert evaluate(run, data_spec=spec, split="all").seen_in_training == 7
    assert "7 of 27 samples are equal to training samples of the run" in caplog.text


def test_a_class_that_the_run_does_not_know_is_named(folder, newer):
    x, y = points(60, 2)
    y[5] = 7
    with pytest.raises(DataError, match=r"the model knows no class '7' \(first: .*5\); it knows 2, 1, 0") as found:
        evaluate(Run.open(folder / "run"), data_spec=newer(x, y), split="all")
    assert found.value.exit_code == 4


def test_numbers_that_are_no_classes_are_refused_and_not_cut_off(folder, newer):
    x, y = points(60, 2)
    with pytest.raises(DataError, match=r"the targets are not classes \(first: [0-9.]+\); use a loss of regression"):
        evaluate(Run.open(folder / "run"), data_spec=newer(x, y + 0.25), split="all")


def test_a_model_that_answers_with_nan_has_no_figures(folder, tmp_path):
    import keras

    run = Run.open(shutil.copytree(folder / "run", tmp_path / "run"))
    model = keras.models.load_model(run.keras_file)
    model.weights[1].assign([np.nan, 0, 0])
    model.save(run.keras_file)
    run.record_artifact(run.keras_file)
    with pytest.raises(ArtifactError, match=r"model\.keras answers with NaN or infinity") as found:
        evaluate(run)
    assert found.value.exit_code == 5


def test_values_of_other_columns_are_told_or_refused(tmp_path, caplog):
    x = NUMBERS.normal(size=(80, 3))
    rows = np.column_stack([x, 2 * x[:, 0], x[:, 1] - x[:, 2]])
    np.savetxt(tmp_path / "t.csv", rows, "%g", ",", header="a,b,c,up,down", comments="")
    spec = {
        "name": "values",
        "data": {"source": {"path": "t.csv", "target": ["up", "down"]}},
        "model": {"preprocess": "auto", "layers": [{"Dense": {"units": 2}}]},
        "train": {"epochs": 1, "loss": "mse"},
    }

    def written(target) -> Path:
        spec["data"]["source"]["target"] = target
        (tmp_path / "t.yaml").write_text(yaml.safe_dump(spec), encoding="utf-8")
        return tmp_path / "t.yaml"

    run = Run.create(load_spec(written(["up", "down"])), tmp_path / "run")
    train(run)
    with pytest.raises(DataError, match="the targets are down, up; the model gives up, down; name them as the model"):
        evaluate(run, data_spec=written(["down", "up"]))
    spec["model"]["layers"] = [{"Dense": {"units": 1}}]
    spec["data"]["source"]["columns"] = {"down": "ignore"}
    one = Run.create(load_spec(written("up")), tmp_path / "one")
    train(one)
    np.savetxt(tmp_path / "t.csv", rows, "%g", ",", header="a,b,c,new,down", comments="")
    assert evaluate(one, data_spec=written("new"), split="all").samples == 80
    assert "the targets are new; the model gives up" in caplog.text


def test_inputs_of_another_shape_or_name_are_refused(folder, newer, tmp_path):
    run = Run.open(folder / "run")
    x, y = points(60, 2)
    with pytest.raises(DataError, match=r"new\.npz: 'x' has samples of shape \(3,\); the model takes \(4,\)"):
        evaluate(run, data_spec=newer(x[:, :3], y))
    data = {"source": {"path": "new.npz"}, "inputs": {"points": {"array": "x"}}}
    with pytest.raises(DataError, match="has the inputs points; the model takes x; name them under"):
        evaluate(run, data_spec=newer(x, y, data=data))
    with pytest.raises(DataError, match="'x' is read as category; the model takes float32"):
        evaluate(run, data_spec=newer(x.astype(str), y))


def test_windows_of_columns_in_another_order_are_refused(tmp_path):
    """They have the shape that the model takes, and every number of them would mean something else."""
    rows = np.stack([np.sin(np.arange(120) / 5), np.arange(120)], axis=1)
    source = {"path": "old.csv", "target": "load", "window": {"length": 8}}
    spec = {
        "name": "windows",
        "data": {"source": source, "split": {"by": "order"}},
        "model": {"layers": ["Flatten", {"Dense": {"units": 1}}]},
        "train": {"epochs": 1, "loss": "mse"},
    }
    (tmp_path / "old.yaml").write_text(yaml.safe_dump(spec), encoding="utf-8")
    np.savetxt(tmp_path / "old.csv", rows, "%g", ",", header="load,heat", comments="")
    run = Run.create(load_spec(tmp_path / "old.yaml"), tmp_path / "run")
    train(run)
    source["path"] = "new.csv"
    (tmp_path / "new.yaml").write_text(yaml.safe_dump(spec), encoding="utf-8")
    np.savetxt(tmp_path / "new.csv", rows, "%g", ",", header="load,heat", comments="")
    assert evaluate(run, data_spec=tmp_path / "new.yaml").samples == evaluate(run).samples
    np.savetxt(tmp_path / "new.csv", rows[:, ::-1], "%g", ",", header="heat,load", comments="")
    with pytest.raises(DataError, match="'series' has the columns heat, load; the model takes load, heat"):
        evaluate(run, data_spec=tmp_path / "new.yaml")


def test_mistakes_in_the_data_of_the_spec_have_their_line(folder, newer):
    x, y = points(60, 2)
    with pytest.raises(SpecError, match=r"new\.yaml:\d+:\d+: data\.batch_size: ") as found:
        evaluate(Run.open(folder / "run"), data_spec=newer(x, y, data={"source": {"path": "new.npz"}, "batch_size": 0}))
    assert len(found.value.messages) == 1


def test_other_splits_of_the_run_itself(folder):
    run = Run.open(folder / "run")
    kept = run.evaluation_file.read_bytes()
    result = evaluate(run, split="validation")
    assert (result.split, result.samples) == ("validation", len(run.load_splits()["validation_ids"]))
    assert run.evaluation_file.read_bytes() == kept
    with pytest.raises(UsageError, match="all samples of a run are those that it learned from"):
        evaluate(run, split="all")


@pytest.fixture(scope="module")
def served(folder):
    from serving import serving

    with serving(folder / "run" / "saved_model" / "1") as found:
        yield found


def test_an_endpoint_has_the_figures_of_the_model_that_it_serves(folder, served, newer):
    run = Run.open(folder / "run")
    kept = run.evaluation_file.read_bytes()
    here, there = evaluate(run), evaluate(run, served.url)
    assert dict(there.metrics) == dict(here.metrics)
    np.testing.assert_allclose(there.outputs, here.outputs, atol=1e-5)
    assert there.to_json()["artifact"] == served.url
    assert there.runtime.startswith("TensorFlow Serving")
    assert json.loads(run.evaluation_file.read_text()) == json.loads(kept)
    x, y = points(90, 2)
    other = evaluate(run, served.url, data_spec=newer(x, y), split="all")
    assert other.metrics["accuracy"] == pytest.approx(by_hand(run, x, y))


def test_an_endpoint_of_another_model_is_exit_5(folder, served):
    from dataclasses import replace

    run = Run.open(folder / "run")
    schema = run.input_schema
    try:
        for changed, message in (
            (
                replace(schema, outputs=(replace(schema.outputs[0], shape=(4,)),)),
                r"takes and gives x -> scores \[3\]; x -> scores \[4\] is expected",
            ),
            (replace(schema, inputs=(replace(schema.inputs[0], shape=(5,)),)), r"takes 'x' as float32 \[4\]; .* \[5\]"),
        ):
            run.update(input=changed.to_json())
            from mltool.evaluation.evaluate import output_of
            from mltool.inference.open import open_predictor

            with open_predictor(served.url) as predictor, pytest.raises(ArtifactError, match=message):
                output_of(predictor, {"x": points(3, 1)[0]}, changed, served.url)
    finally:
        run.update(input=schema.to_json())


def test_the_commands_take_an_address_or_say_that_they_take_files(folder, served, monkeypatch, capfd):
    from mltool import console
    from mltool.cli.main import main

    monkeypatch.chdir(folder)
    monkeypatch.setattr(console, "_settings", console._Settings())

    def said(*words: str) -> tuple[int, dict]:
        with pytest.raises(SystemExit) as ended:
            main([*words, "--json"])
        return int(ended.value.code or 0), json.loads(capfd.readouterr().out)

    code, document = said("evaluate", served.url, "--run", "run")
    assert (code, document["artifact"], document["split"]) == (0, served.url, "test")
    code, document = said("evaluate", served.url)
    assert (code, document["error"]["messages"][0]["hint"]) == (2, "write --run RUN, or --run latest")
    code, document = said("predict", served.url, "--run", "run", "-n", "3")
    assert code == 0
    assert [prediction["answer"] for prediction in document["predictions"]] == [
        prediction["truth"] for prediction in document["predictions"]
    ]
    for words in (("verify", served.url), ("benchmark", served.url)):
        code, document = said(*words)
        assert code == 2
        assert "not an endpoint" in document["error"]["messages"][0]["message"]
    code, document = said("evaluate", "run", "--run", "run")
    assert (code, document["error"]["messages"][0]["hint"]) == (2, "leave --run out")

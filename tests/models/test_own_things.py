"""`{python: "my_layers:Scale"}` where a Keras thing stands: found without running it, trained and kept."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from mltool.conversion.entries import limits_of
from mltool.errors import ArtifactError, SpecError, UsageError
from mltool.evaluation.evaluate import evaluate
from mltool.inference.keras_predictor import load_keras_model
from mltool.models.build import build_model, call_model
from mltool.models.preprocess import ModelInput
from mltool.runs.atomic import sha256_of
from mltool.runs.run import Run
from mltool.spec.load import dump_spec, load_spec
from mltool.training.train import train

CODE = Path(__file__).with_name("own_layers.py")
NUMBERS = np.random.default_rng(4)
LOGITS = {"SparseCategoricalCrossentropy": {"from_logits": True}}
TOP = {"Dense": {"units": 10}}


@pytest.fixture
def spec_of(tmp_path):
    """A spec of digits with these layers, loss and metrics; other keys of sections as they are given."""
    shutil.copy(CODE, tmp_path / "mine.py")

    def make(layers: Any = None, *, loss: Any = LOGITS, metrics: Any = ("accuracy",), **more: Any) -> Any:
        train_section = {"epochs": 1, "optimizer": {"Adam": {"learning_rate": 0.01}}, "loss": loss}
        spec = {
            "name": "own",
            "seed": 7,
            "data": {"source": {"dataset": "digits", "max_samples": 400}, "batch_size": 100},
            "model": {"layers": layers or ["Flatten", TOP], **more.pop("model", {})},
            "train": {**train_section, "metrics": list(metrics), **more.pop("train", {})},
            **more,
        }
        path = tmp_path / "s.yaml"
        path.write_text(yaml.safe_dump(spec, sort_keys=False), encoding="utf-8")
        return load_spec(path)

    return make


def own(called: str, **entry: Any) -> dict[str, Any]:
    return {"python": f"mine:{called}", **entry}


def inputs_of(**arrays: np.ndarray) -> dict[str, ModelInput]:
    return {
        name: ModelInput(array.shape[1:], "float32", "", lambda array=array: iter([array]))
        for name, array in arrays.items()
    }


def output_of(spec: Any, **arrays: np.ndarray) -> tuple[Any, np.ndarray]:
    model = build_model(spec.model, inputs_of(**arrays), name="net")
    return model, np.asarray(call_model(model, arrays, training=False))


def test_a_class_is_called_with_its_arguments_and_bears_the_name_of_the_spec(spec_of):
    x = NUMBERS.normal(size=(3, 8, 8, 1)).astype(np.float32)
    spec = spec_of(["Flatten", own("Scale", arguments={"factor": 3}, name="scaled")])
    model, found = output_of(spec, image=x)
    np.testing.assert_allclose(found, 3 * x.reshape(3, 64), rtol=1e-6)
    assert model.get_layer("scaled").shown_class == "Scale"
    assert len(model.trainable_variables) == 1
    assert [layer.name for layer in spec.model.layers] == ["flatten", "scaled"]


def test_a_function_gives_a_layer_and_the_layer_is_called_after_it(spec_of):
    spec = spec_of(["Flatten", own("dense", arguments={"units": 4}), TOP])
    assert [layer.name for layer in spec.model.layers] == ["flatten", "dense", "dense_1"]
    model, _ = output_of(spec, image=np.ones((2, 8, 8, 1), np.float32))
    assert model.get_layer("dense").output.shape == (None, 4)


@pytest.mark.parametrize(("name", "expected"), [("Gate", None), ("Mean", 2.0)])
def test_several_inputs_come_one_an_argument_or_as_a_list(name, expected, spec_of):
    a, b = np.full((2, 4), 3, np.float32), np.full((2, 4), 1, np.float32)
    data = {"source": {"path": "p.npz"}, "inputs": {"a": {}, "b": {}}}
    spec = spec_of([own(name, inputs=["a", "b"])], data=data)
    model, found = output_of(spec, a=a, b=b)
    if expected is None:
        kernel, bias = (weight.numpy() for weight in model.weights)
        np.testing.assert_allclose(found, (a @ kernel + bias) / (1 + np.exp(-1)), rtol=1e-5)
    else:
        np.testing.assert_array_equal(found, np.full((2, 4), expected))
        # Keras tells a layer inside of another whether it trains.
        assert not np.asarray(call_model(model, {"a": a, "b": b}, training=True)).any()


def test_a_layer_in_a_block_is_another_one_each_time_and_shared_it_is_the_same(spec_of):
    scale = own("Scale", arguments={"factor": 2})
    block = {"Block": {"name": "twice", "repeat": 2, "layers": [scale]}}
    spec = spec_of(["Flatten", block, {"Shared": {"layer": "twice", "name": "again"}}])
    model, found = output_of(spec, image=np.ones((2, 8, 8, 1), np.float32))
    assert (found == 2**3).all() or (found == 2**4).all()
    assert len(model.trainable_variables) == 2


def test_preprocessing_of_ones_own_learns_from_training_data(spec_of, tmp_path):
    spec = spec_of(model={"preprocess": [{"Rescaling": {"scale": 2.0}}, own("Center")]})
    x = NUMBERS.normal(5, 1, size=(40, 8, 8, 1)).astype(np.float32)
    model = build_model(spec.model, inputs_of(image=x), name="net")
    assert float(model.get_layer("center").layer.mean.numpy()) == pytest.approx(2 * x.mean(), rel=1e-5)
    run = Run.create(spec, tmp_path / "run")
    train(run)
    assert [step.name for step in run.input_schema.preprocessing] == ["rescaling", "center"]
    assert float(load_keras_model(run.keras_file).get_layer("center").layer.mean.numpy()) > 1


def test_a_layer_for_every_column_comes_back_as_it_was_trained(spec_of, tmp_path):
    rows = [f"{number % 7},{number % 5},{number % 2}" for number in range(200)]
    (tmp_path / "t.csv").write_text("\n".join(["a,b,y", *rows]), encoding="utf-8")
    data = {"source": {"path": "t.csv", "target": "y", "columns": {"a": "category", "b": "category"}}}
    lookup = {"StringLookup": {"output_mode": "one_hot", "name": "look"}}
    preprocess = {"categories": [lookup, own("Scale", arguments={"factor": 2}, name="scaled")]}
    layers = [{"Dense": {"units": 2, "inputs": ["categories"]}}]
    run = Run.create(spec_of(layers, data=data, model={"preprocess": preprocess}), tmp_path / "run")
    train(run)
    names = [layer.name for layer in load_keras_model(run.keras_file).layers]
    assert {"scaled_a", "scaled_b"} <= set(names)


def test_a_trained_layer_loads_by_the_spec_of_its_run_alone(spec_of, tmp_path):
    import keras

    layers = ["Flatten", own("Scale", arguments={"factor": 2, "start": "glorot_uniform"}, name="scaled"), TOP]
    layers[1]["arguments"]["start"] = "ones"
    run = Run.create(spec_of(layers), tmp_path / "run")
    train(run)
    assert run.manifest["model"]["code"] == {f"{tmp_path / 'mine.py'}:Scale": sha256_of(CODE)}
    first, second = load_keras_model(run.keras_file), load_keras_model(run.keras_file)
    x = NUMBERS.integers(0, 17, (5, 8, 8, 1)).astype(np.float32)
    np.testing.assert_array_equal(np.asarray(first(x)), np.asarray(second(x)))
    kernel = first.get_layer("scaled").layer.kernel.numpy()
    assert np.ptp(kernel) > 0.01  # trained, not as made
    dense = first.get_layer("dense")
    expected = (x.reshape(5, 64) * kernel * 2) @ dense.kernel.numpy() + dense.bias.numpy()
    np.testing.assert_allclose(np.asarray(first(x)), expected, rtol=1e-4)
    with pytest.raises(TypeError, match=r"(?s)Could not locate class 'OwnLayer'"):
        keras.models.load_model(run.keras_file)
    copied = shutil.copy(run.keras_file, tmp_path / "alone.keras")
    with pytest.raises(ArtifactError, match="lies in no run of one; leave it in its run, or take the SavedModel"):
        load_keras_model(Path(copied))


def test_losses_and_metrics_get_what_is_promised(spec_of, tmp_path):
    loss = own("weighted", arguments={"weight": 2}, task="classification", from_logits=True)
    metrics = [
        own("right", better="greater"),
        "accuracy",
        own("Hits", arguments={"step": 0.5}, name="half_hits"),
        own("largest"),
        own("largest", name="largest_logit", from_logits=True),
    ]
    run = Run.create(spec_of(loss=loss, metrics=metrics), tmp_path / "run")
    train(run)
    found = evaluate(run)
    assert list(found.metrics)[:5] == ["right", "accuracy", "half_hits", "largest", "largest_logit"]
    assert found.metrics["right"] == pytest.approx(found.metrics["accuracy"], abs=1e-6)
    assert found.metrics["half_hits"] == pytest.approx(found.metrics["accuracy"] * found.samples / 2, abs=1e-3)
    logits = found.outputs.astype(np.float64)
    softmax = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert found.metrics["largest"] == pytest.approx(softmax.max(axis=1).mean(), rel=1e-5)
    assert found.metrics["largest_logit"] == pytest.approx(logits.max(axis=1).mean(), rel=1e-5)
    line = json.loads(run.metrics_file.read_text().splitlines()[-1])
    assert line["val_right"] == pytest.approx(line["val_accuracy"], abs=1e-6)
    # Twice the crossentropy of Keras.
    plain = Run.create(spec_of(), tmp_path / "plain")
    train(plain)
    other = json.loads(plain.metrics_file.read_text().splitlines()[0])
    assert line["loss"] > 1.5 * other["loss"]
    assert (run.input_schema.outputs[0].task, run.input_schema.outputs[0].activation) == ("classification", "logits")


def test_a_loss_class_of_a_regression_and_its_metric(spec_of, tmp_path):
    x = NUMBERS.normal(size=(200, 3)).astype(np.float32)
    np.savez(tmp_path / "r.npz", x=x, y=x.sum(axis=1))
    loss = own("Huberlike", arguments={"delta": 0.5}, task="regression")
    metrics = [own("off_by", arguments={"power": 2}, better="lower"), "MeanSquaredError"]
    data = {"source": {"path": "r.npz"}}
    spec = spec_of([{"Dense": {"units": 1}}], loss=loss, metrics=metrics, data=data, limits={"max_drop": "50%"})
    run = Run.create(spec, tmp_path / "run")
    train(run)
    found = evaluate(run).metrics
    assert found["off_by"] == pytest.approx(found["mean_squared_error"], rel=1e-5)
    (output,) = run.input_schema.outputs
    assert (output.task, output.activation) == ("regression", "values")


def test_a_binary_loss_sees_a_column_of_0_and_1(spec_of, tmp_path):
    x = np.random.default_rng(8).normal(size=(200, 3)).astype(np.float32)  # the same, whatever tests ran before
    np.savez(tmp_path / "b.npz", x=x, y=(x.sum(axis=1) > 0).astype(np.int64))
    layers = [{"Dense": {"units": 1, "activation": "sigmoid"}}]
    spec = spec_of(layers, loss=own("binary", task="binary"), data={"source": {"path": "b.npz"}}, train={"epochs": 60})
    run = Run.create(spec, tmp_path / "run")
    train(run)
    assert run.input_schema.outputs[0].activation == "probabilities"
    assert evaluate(run).metrics["accuracy"] > 0.7


def test_changed_code_is_refused_where_it_would_run(spec_of, tmp_path):
    metrics = [own("right", better="greater")]
    run = Run.create(spec_of(metrics=metrics), tmp_path / "run")
    train(run)
    with (tmp_path / "mine.py").open("a", encoding="utf-8") as file:
        file.write("# changed\n")
    with pytest.raises(ArtifactError, match=r"mine\.py:right was changed since training began: .*; restore the file"):
        evaluate(run)
    run.update(status="interrupted")
    with pytest.raises(ArtifactError, match=r"mine\.py:right was changed since training began"):
        train(run)


def test_a_metric_without_keras_needs_an_extra(spec_of, tmp_path, monkeypatch):
    from mltool import extras
    from mltool.errors import MissingExtraError
    from mltool.evaluation.metrics import measure

    run = Run.create(spec_of(metrics=[own("right", better="greater")]), tmp_path / "run")
    train(run)

    def missing() -> Any:
        raise MissingExtraError("this needs tensorflow, which is not installed", "pip install 'mltool-tf[train]'")

    monkeypatch.setattr(extras, "tensorflow", missing)
    with pytest.raises(MissingExtraError, match=r"pip install 'mltool-tf\[train\]'") as found:
        measure(run.spec.train.measures, np.zeros((2, 10), np.float32), np.zeros(2, np.int64), run.input_schema)
    assert found.value.exit_code == 9


def test_a_resolved_spec_reads_back_as_it_was(spec_of, tmp_path):
    spec = spec_of(
        ["Flatten", own("Scale", arguments={"factor": 2}), own("Mean", inputs=["scale"], name="mean"), TOP],
        loss=own("weighted", task="classification", from_logits=True),
        metrics=[own("right", better="greater", name="r")],
        model={"preprocess": [own("Center")]},
    )
    (tmp_path / "elsewhere").mkdir()
    copy = tmp_path / "elsewhere" / "spec.yaml"
    copy.write_text(dump_spec(spec), encoding="utf-8")
    assert load_spec(copy) == spec
    assert len(spec.code) == 5


CHECKED = {
    "no module": ({"layers": [own("Scale") | {"python": "mime:Scale"}]}, r"model\.layers\.0\.python: no module 'mime'"),
    "a typo": ({"layers": [own("Scal")]}, r"layers\.0\.python: mine\.py has no function 'Scal'; did you mean 'Scale'"),
    "no reference": ({"layers": [{"python": 3}]}, r"layers\.0\.python: must be module:function \(got 3\)"),
    "a missing keyword": ({"layers": [own("Scale")]}, "Scale needs the argument 'factor'; add arguments: {factor"),
    "an unknown keyword": (
        {"layers": [own("Scale", arguments={"factr": 2})]},
        r"arguments\.factr: Scale takes no argument 'factr'; did you mean 'factor'",
    ),
    "arguments beside": (
        {"layers": [own("Mean", factor=2)]},
        r"layers\.0\.factor: no key of a layer of yours; known: python, arguments, name, inputs; keywords of yours",
    ),
    "a list of arguments": ({"layers": [own("Scale", arguments=[2])]}, r"arguments: must be a map of keywords"),
    "a name used twice": (
        {"layers": [own("Mean", name="a"), own("Mean", name="a")]},
        r"layers\.1\.name: the name 'a' is used twice",
    ),
    "an unknown input": (
        {"layers": ["Flatten", "ReLU", own("Mean", inputs=["flattn", "re_lu"])]},
        r"layers\.2\.inputs\.0: no layer or input is called 'flattn'; did you mean 'flatten'",
    ),
    "inputs under preprocess": (
        {"model": {"preprocess": [own("Center", inputs=["a"])]}},
        r"preprocess\.0\.inputs: no key of a layer of yours",
    ),
    "inside of a layer": (
        {"layers": [{"TimeDistributed": {"layer": own("Mean")}}]},
        r"layer\.python: a layer of yours cannot stand here in this version",
    ),
    "an optimizer": (
        {"train": {"optimizer": own("dense")}},
        r"train\.optimizer\.python: an optimizer of yours cannot stand here in this version",
    ),
    "an augmentation": (
        {"data": {"source": {"dataset": "digits"}, "augment": [own("dense")]}},
        r"data\.augment\.0\.python: a layer of yours cannot stand here",
    ),
    "a loss without a task": (
        {"loss": own("binary")},
        r"train\.loss\.task: a loss of yours must say its task: .*; add task: classification",
    ),
    "an unknown task": ({"loss": own("binary", task="ranking")}, r"loss\.task: must be classification, binary or reg"),
    "logits of a regression": (
        {"loss": own("binary", task="regression", from_logits=True), "metrics": ["mae"]},
        r"loss\.from_logits: a regression gives no logits",
    ),
    "a word for a boolean": (
        {"loss": own("binary", task="binary", from_logits="yes")},
        r"from_logits: must be true or false \(got 'yes'\)",
    ),
    "logits where probabilities are": (
        {"loss": own("weighted", task="classification")},
        r"loss\.from_logits: the last layer 'dense' has no activation.*; write from_logits: true",
    ),
    "a keyword of the loss": (
        {"loss": own("weighted", task="classification", from_logits=True, arguments={"wight": 1})},
        r"arguments\.wight: weighted takes no argument 'wight'; did you mean 'weight'",
    ),
    "a direction that is none": ({"metrics": [own("right", better="more")]}, r"better: must be greater or lower"),
    "a drop of what is not known": (
        {"metrics": [own("right")]},
        r"metrics\.0\.python: limits\.max_drop must know whether more of right is better; add better: greater",
    ),
    "a monitor of what is not known": (
        {
            "metrics": ["accuracy", own("right")],
            "train": {"callbacks": [{"EarlyStopping": {"monitor": "val_right"}}]},
        },
        r"callbacks\.0\.EarlyStopping: whether more of val_right is better is not known; write mode: max",
    ),
    "two of one name": (
        {"metrics": ["accuracy", own("right"), own("right")]},
        r"metrics\.2\.name: the name 'right' is used twice",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("changes", "message"), CHECKED.values(), ids=CHECKED.keys())
def test_check_tells_what_can_be_told_without_running_it(changes, message, spec_of):
    changes = dict(changes)
    with pytest.raises(SpecError, match=message) as found:
        spec_of(changes.pop("layers", None), **changes)
    assert found.value.exit_code == 3
    assert all(m.line and m.column and m.file.endswith("s.yaml") for m in found.value.messages)
    assert len(found.value.messages) == 1


def test_a_direction_is_asked_for_only_where_it_is_needed(spec_of):
    spec_of(metrics=["accuracy", own("right")])
    spec_of(metrics=[own("right")], limits={"max_drop": None, "min": 0.5})
    spec_of(metrics=[own("right")], limits={"metric": "right", "max_drop": None})
    stopping = {"EarlyStopping": {"monitor": "val_right", "mode": "max"}}
    spec_of(metrics=["accuracy", own("right")], train={"callbacks": [stopping]})


def test_a_drop_asked_for_on_the_command_line_needs_the_direction_too(spec_of):
    spec = spec_of(metrics=[own("right"), "accuracy"], limits={"max_drop": None}, convert=[{"quantize": "int8"}])
    with pytest.raises(UsageError, match="--max-drop must know whether more of right is better; write better: greater"):
        limits_of(spec.convert[0], spec, {"max_drop": "1%"})
    assert limits_of(spec.convert[0], spec, {"max_drop": "1%", "metric": "accuracy"}).max_drop is not None
    assert limits_of(spec.convert[0], spec, {"min": 0.5}).max_drop is None


def test_overrides_and_includes_replace_a_thing_of_keras_whole(spec_of, tmp_path, monkeypatch):
    spec_of()
    monkeypatch.chdir(tmp_path)
    text = "train.loss={python: 'mine:weighted', task: classification, from_logits: true}"
    found = load_spec("s.yaml", [text])
    assert found.train.loss.to_spec() == {
        "python": f"{tmp_path / 'mine.py'}:weighted",
        "task": "classification",
        "from_logits": True,
    }
    base = "include: s.yaml\ntrain: {loss: {python: 'mine:weighted', task: classification, from_logits: true}}\n"
    (tmp_path / "above.yaml").write_text(base, encoding="utf-8")
    assert load_spec("above.yaml") == found
    back = load_spec("above.yaml", ["train.loss={SparseCategoricalCrossentropy: {from_logits: true}}"])
    assert back.train.loss.name == "SparseCategoricalCrossentropy"
    assert load_spec("s.yaml", ["model.layers=['Flatten', {python: 'mine:Mean'}, {Dense: {units: 10}}]"]).code == (
        f"{tmp_path / 'mine.py'}:Mean",
    )


@pytest.mark.parametrize("values", [3, 5])
def test_a_loss_for_every_output_is_told_from_one_for_every_sample(values, spec_of, tmp_path):
    """Also where the model gives as many values as there are samples to try it out with."""
    np.savez(tmp_path / "r.npz", x=NUMBERS.normal(size=(100, 3)).astype("f4"), y=np.ones((100, values), "f4"))
    data, loss = {"source": {"path": "r.npz"}}, own("one_an_output", task="regression")
    run = Run.create(spec_of([{"Dense": {"units": values}}], loss=loss, metrics=["mae"], data=data), tmp_path / "run")
    with pytest.raises(SpecError, match=r"loss\.python: .*one_an_output returned shape \(\d,\) for \d samples"):
        train(run)


WRONG = {
    "no layer": ({"layers": [own("no_layer")]}, r"layers\.0\.python: .*no_layer returned int, and no layer"),
    "a class from a function": ({"layers": [own("the_class")]}, "returned the class Mean, and no layer"),
    "a class of nothing": ({"layers": [own("NoLayer")]}, "NoLayer is a class, and no layer of Keras; name a keras.la"),
    "an error of its own": ({"layers": [own("raises")]}, r"raises raised RuntimeError: no luck; see line \d+ of mine"),
    "an error in its call": ({"layers": [own("Fails"), "Flatten", TOP]}, r"\('?.*Fails\), given .* raised OSError: "),
    "two tensors": ({"layers": [own("Two"), "Flatten", TOP]}, r"gives tuple; one tensor is expected"),
    "no graph": (
        {"layers": [own("EagerOnly"), "Flatten", TOP]},
        r"EagerOnly\), given .* raised AttributeError: 'SymbolicTensor' object has no attribute 'numpy'; see line",
    ),
    "lost samples": ({"layers": ["Flatten", TOP, own("Rows")]}, r"model\.layers: .*gives 1 answers for 3 samples"),
    "a variable that Keras does not see": (
        {"layers": ["Flatten", own("Loose"), TOP]},
        r"model\.layers: .* uses the variable 'mine:0', and does not hold it",
    ),
    "a loss that is none": ({"loss": own("NoLayer", task="classification", from_logits=True)}, "and no loss of Keras"),
    "one loss of a batch": ({"loss": "one_number"}, r"loss\.python: .*returned shape \(\) for 3 samples; return a val"),
    "a list of losses": ({"loss": "no_tensor"}, "no_tensor returned list; a tensor is expected"),
    "a loss without a gradient": ({"loss": "without_gradient"}, "no gradient comes through .*without_gradient"),
    "a loss that is no graph": ({"loss": "needs_eager"}, r"needs_eager raised .*numpy.*; see line \d+ of mine"),
    "a loss that raises": ({"loss": "breaks"}, r"breaks raised KeyError: 'nothing there'; see line \d+ of mine"),
    "a metric that is none": ({"metrics": [own("NoLayer", better="lower")]}, "and no metric of Keras"),
    "one value of a batch": ({"metrics": ["accuracy", own("one_mean")]}, r"metrics\.1\.python: .*returned shape \(\)"),
    "a metric that raises": ({"metrics": ["accuracy", own("breaks")]}, "breaks raised KeyError"),
}  # fmt: skip


@pytest.mark.parametrize(("changes", "message"), WRONG.values(), ids=WRONG.keys())
def test_what_code_does_wrong_is_told_before_training(changes, message, spec_of, tmp_path):
    changes = dict(changes)
    if isinstance(changes.get("loss"), str):
        np.savez(tmp_path / "r.npz", x=NUMBERS.normal(size=(100, 3)).astype("f4"), y=np.arange(100.0))
        more = {"loss": own(changes["loss"], task="regression"), "data": {"source": {"path": "r.npz"}}}
        changes = {"layers": [{"Dense": {"units": 1}}], "metrics": ["mae"], **more}
    run = Run.create(spec_of(changes.pop("layers", None), **changes), tmp_path / "run")
    with pytest.raises(SpecError, match=message) as found:
        train(run)
    assert found.value.exit_code == 3
    assert found.value.messages[0].key
    assert not run.directory.exists()  # the same command works once the code is mended

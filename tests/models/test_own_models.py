"""`model: {python: "nets:build"}`: models of the user's own, found without running them, trained and kept as others."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from mltool.data.sources.user_function import load_function
from mltool.errors import ArtifactError, SpecError
from mltool.inference.keras_predictor import load_keras_model
from mltool.models.build import build_model, call_model
from mltool.models.own_model import HOLDER
from mltool.models.preprocess import ModelInput
from mltool.runs.atomic import sha256_of
from mltool.runs.run import Run
from mltool.spec.load import dump_spec, load_spec
from mltool.training.train import train

NETS = Path(__file__).with_name("own_nets.py")
NUMBERS = np.random.default_rng(4)

RUNS_AT_IMPORT = "raise SystemExit('it was run')\ndef build(): ...\n"


@pytest.fixture
def spec_of(tmp_path):
    """A spec of digits with an own model; other keys of `model` and of the spec as they are given."""
    shutil.copy(NETS, tmp_path / "nets.py")
    (tmp_path / "runs_at_import.py").write_text(RUNS_AT_IMPORT, encoding="utf-8")
    (tmp_path / "broken.py").write_text("def f(:\n", encoding="utf-8")

    def make(python: Any, arguments: Any = None, *, more: dict[str, Any] | None = None, **model: Any) -> Any:
        section = {"preprocess": [{"Rescaling": {"scale": 0.0625}}], "python": python, **model}
        spec = {
            "name": "own",
            "seed": 7,
            "data": {"source": {"dataset": "digits", "max_samples": 400}, "batch_size": 100},
            "model": {**section, **({} if arguments is None else {"arguments": arguments})},
            "train": {
                "epochs": 1,
                "optimizer": {"Adam": {"learning_rate": 0.01}},
                "loss": {"SparseCategoricalCrossentropy": {"from_logits": True}},
                "metrics": ["accuracy"],
            },
            **(more or {}),
        }
        path = tmp_path / "s.yaml"
        path.write_text(yaml.safe_dump(spec, sort_keys=False), encoding="utf-8")
        return load_spec(path)

    return make


def inputs_of(**arrays: np.ndarray) -> dict[str, ModelInput]:
    return {
        name: ModelInput(array.shape[1:], "float32", "", lambda array=array: iter([array]))
        for name, array in arrays.items()
    }


def holder_in(model: Any) -> Any:
    """The user's model inside of a built one."""
    layer = model.get_layer("own_model")
    return layer.model if type(layer).__name__ == HOLDER else layer


@pytest.mark.parametrize("name", ["functional", "sequential", "subclassed", "module", "with_my_activation"])
def test_an_own_model_answers_as_the_model_that_was_returned(name, spec_of):
    x = NUMBERS.integers(0, 17, (6, 8, 8, 1)).astype(np.float32)
    model = build_model(spec_of(f"nets:{name}").model, inputs_of(image=x), name="net")
    found = np.asarray(call_model(model, {"image": x}, training=False))
    expected = np.asarray(holder_in(model)(x * 0.0625, training=False))
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert np.ptp(found) > 0.01


@pytest.mark.parametrize("name", ["two_functional", "two_subclassed", "two_module"])
def test_several_inputs_come_by_name(name, spec_of):
    image, meta = NUMBERS.normal(size=(6, 4, 4, 1)).astype(np.float32), NUMBERS.normal(size=(6, 3)).astype(np.float32)
    preprocess = {"image": [{"Rescaling": {"scale": 0.5}}]}
    more = {"data": {"source": {"path": "p.npz"}, "inputs": {"image": {}, "meta": {}}}}
    spec = spec_of(f"nets:{name}", preprocess=preprocess, more=more)
    model = build_model(spec.model, inputs_of(image=image, meta=meta), name="net")
    found = np.asarray(call_model(model, {"image": image, "meta": meta}, training=False))
    held = holder_in(model)
    taken = [meta, image * 0.5] if name == "two_functional" else {"image": image * 0.5, "meta": meta}
    np.testing.assert_allclose(found, np.asarray(held(taken)), atol=1e-6)


def test_the_arguments_are_its_keywords(spec_of):
    x = NUMBERS.normal(size=(2, 8, 8, 1)).astype(np.float32)
    spec = spec_of("nets:functional", {"width": 3, "classes": 4}).model
    assert build_model(spec, inputs_of(image=x), name="net").output_shape == (None, 4)


def test_variables_of_a_module_are_trained_and_counted(spec_of, tmp_path):
    run = Run.create(spec_of("nets:module"), tmp_path / "run")
    train(run)
    kept = {variable.name: variable for variable in holder_in(load_keras_model(run.keras_file)).variables}
    # 400 samples less 20 % and 10 %: 288 are 3 steps; tracing and trying out must not have counted.
    assert int(next(v for name, v in kept.items() if "steps" in name)) == 3
    assert run.manifest["model"]["code"] == {f"{tmp_path / 'nets.py'}:module": sha256_of(NETS)}
    assert run.manifest["input"]["outputs"][0]["name"] == "own_model"


@pytest.mark.parametrize("name", ["functional", "sequential", "compiled"])
def test_a_model_of_keras_own_things_loads_in_plain_keras(name, spec_of, tmp_path):
    import keras

    run = Run.create(spec_of(f"nets:{name}"), tmp_path / "run")
    train(run)
    (tmp_path / "nets.py").unlink()
    x = NUMBERS.integers(0, 17, (5, 8, 8, 1)).astype(np.float32)
    plain = keras.models.load_model(run.keras_file)
    assert plain.get_layer("own_model").name == "own_model"
    assert np.asarray(plain(x)).shape == (5, 10)


@pytest.mark.parametrize("name", ["subclassed", "decorated"])
def test_what_plain_keras_cannot_build_is_built_by_its_function(name, spec_of, tmp_path):
    import keras

    run = Run.create(spec_of(f"nets:{name}"), tmp_path / "run")
    train(run)
    x = NUMBERS.integers(0, 17, (5, 8, 8, 1)).astype(np.float32)
    first, second = load_keras_model(run.keras_file), load_keras_model(run.keras_file)
    assert holder_in(first) is not holder_in(second)
    np.testing.assert_array_equal(np.asarray(first(x)), np.asarray(second(x)))
    with pytest.raises(TypeError, match=r"(?s)Could not locate class 'OwnModel'"):
        keras.models.load_model(run.keras_file)
    copied = shutil.copy(run.keras_file, tmp_path / "alone.keras")
    with pytest.raises(ArtifactError, match="that a function of yours builds, and lies in no run of one; leave it in"):
        load_keras_model(Path(copied))


def test_changed_code_is_refused_where_it_would_run(spec_of, tmp_path):
    run = Run.create(spec_of("nets:module"), tmp_path / "run")
    train(run)
    with (tmp_path / "nets.py").open("a", encoding="utf-8") as file:
        file.write("# changed\n")
    message = (
        r"nets\.py:module was changed since training began: sha256 .*; restore the file, or train anew: mltool train"
    )
    with pytest.raises(ArtifactError, match=message) as found:
        load_keras_model(run.keras_file)
    assert found.value.exit_code == 5
    run.update(status="interrupted")
    with pytest.raises(ArtifactError, match=message):
        train(run)


def test_checking_runs_nothing(spec_of):
    assert spec_of("runs_at_import:build").model.python.endswith("runs_at_import.py:build")


def test_a_resolved_spec_reads_back_as_it_was(spec_of, tmp_path):
    spec = spec_of("nets:functional", {"width": 3})
    (tmp_path / "elsewhere").mkdir()
    copy = tmp_path / "elsewhere" / "spec.yaml"
    copy.write_text(dump_spec(spec), encoding="utf-8")
    assert load_spec(copy) == spec
    assert "layers" not in yaml.safe_load(copy.read_text(encoding="utf-8"))["model"]


CHECKED = {
    "no function": ("nets", None, {}, r"model\.python: must be module:function \(got 'nets'\)"),
    "no module": ("nest:functional", None, {}, "no module 'nest' lies beside the spec or is installed"),
    "a typo": ("nets:functionl", None, {}, r"nets\.py has no function 'functionl'; did you mean 'functional'"),
    "no Python": ("broken:f", None, {}, r"model\.python: broken\.py cannot be read as Python"),
    "an unknown keyword": (
        "nets:functional",
        {"widht": 3},
        {},
        r"arguments\.widht: functional takes no argument 'widht'; did you mean 'width'",
    ),
    "a missing keyword": ("nets:needs", None, {}, r"python: needs needs the argument 'depth'; add arguments: {depth:"),
    "keywords of a class": ("nets:Net", {"with": 3}, {}, "Net takes no argument 'with'; did you mean 'width'"),
    "layers too": ("nets:functional", None, {"layers": ["Flatten"]}, r"model\.python: stands in place of layers"),
    "neither": (None, None, {}, r"model\.layers: is missing; add layers: \[Flatten, .*\], or python: module:function"),
    "arguments alone": (None, {"a": 1}, {"layers": ["Flatten"]}, r"model\.arguments: are for python, which is not set"),
    "arguments that are no map": ("nets:functional", [1], {}, r"model\.arguments: must be a map \(got \[1\]\)"),
}  # fmt: skip


@pytest.mark.parametrize(("python", "arguments", "model", "message"), CHECKED.values(), ids=CHECKED.keys())
def test_check_tells_what_can_be_told_without_running_it(python, arguments, model, message, spec_of):
    with pytest.raises(SpecError, match=message) as found:
        spec_of(python, arguments, **model)
    assert found.value.exit_code == 3
    assert all(m.line and m.column and m.file.endswith("s.yaml") for m in found.value.messages)


def test_a_wrong_reference_hides_no_other_mistake(spec_of):
    with pytest.raises(SpecError) as found:
        spec_of("nets:functionl", {"width": 3}, more={"seed": -1})
    assert sorted(m.key for m in found.value.messages) == ["model.python", "seed"]


def test_an_input_may_not_be_called_as_the_layer(spec_of):
    more = {"data": {"source": {"path": "p.npz"}, "inputs": {"own_model": {}}}}
    with pytest.raises(
        SpecError, match=r"data\.inputs\.own_model: 'own_model' is the name of an input and of the model"
    ):
        spec_of("nets:functional", more=more)
    x = NUMBERS.normal(size=(2, 8, 8, 1)).astype(np.float32)
    spec = spec_of("nets:functional").model
    with pytest.raises(SpecError, match=r"model\.python: 'own_model', the name of its layer, is the name of an input"):
        build_model(spec, inputs_of(own_model=x), name="net")


WRONG = {
    "a keyword that only running tells": ("keywords", {"widht": 3}, "raised TypeError: .*unexpected keyword"),
    "an error of its own": ("fails", None, "fails raised RuntimeError: no luck; see line \\d+ of nets.py"),
    "the end of the process": ("leaves", None, "leaves raised SystemExit: 0"),
    "nothing": ("nothing", None, "nothing returned NoneType; return a keras.Model, or a tf.Module with __call__"),
    "a class": ("a_class", None, "returned the class Net; .*: call it"),
    "a layer": ("a_layer", None, "returned keras.src.layers.core.dense.Dense; return a keras.Model"),
    "a module that cannot be called": ("not_callable", None, "returned a tf.Module without __call__"),
    "Keras inside of a module": ("keras_in_module", None, "holds Dense of Keras, which it would not train"),
    "another shape": (
        "for_other_images", None, r"for_other_images takes .* \(28, 28, 1\), the data have image \(8, 8, 1\)",
    ),
    "integers": ("integers", None, "takes int32 of '.*', float32 is given; leave dtype out of its keras.Input"),
    "several outputs": ("two_outputs", None, "gives 2 outputs, one is expected"),
    "names of inputs": ("two_functional", None, r"takes meta \(3,\), image \(4, 4, 1\), the data have image \(8, 8"),
    "other classes": ("functional", {"classes": 4}, r"gives \(4,\) a sample, the data have 10 classes; make it"),
    "numpy": ("gives_numpy", None, r"does not take image \(8, 8, 1\): AttributeError: .*; see line \d+ of nets.py"),
    "integers as answers": ("gives_integers", None, "gives int32, float32 is expected"),
    "a matrix that does not fit": ("wrong_matrix", None, "cannot be trained as a graph: ValueError: Dimensions must"),
    "no batch axis": ("no_batch", None, r"gives \(5,\) a sample"),
    "a variable that Keras does not see": ("loose_variable", None, "uses the variable 'mine:0', and does not hold it"),
    "no gradient": ("no_gradient", None, "no gradient reaches the variables"),
    "nothing to train": ("nothing_to_train", None, "has nothing to train"),
    "another model each time": ("another_each_time", None, "cannot be saved and loaded: .*; hold its layers in"),
}  # fmt: skip


@pytest.mark.parametrize(("function", "arguments", "message"), WRONG.values(), ids=WRONG.keys())
def test_what_a_function_does_wrong_is_told_before_training(function, arguments, message, spec_of, tmp_path):
    run = Run.create(spec_of(f"nets:{function}", arguments), tmp_path / "run")
    with pytest.raises(SpecError, match=rf"model\.python: .*{message}") as found:
        train(run)
    assert (found.value.exit_code, found.value.messages[0].key) == (3, "model.python")
    assert not run.directory.exists()  # the same command works once the function is mended


def test_random_numbers_that_no_checkpoint_holds_are_told(spec_of, tmp_path, caplog):
    run = Run.create(spec_of("nets:stateful_random"), tmp_path / "run")
    train(run)
    assert "draws random numbers that no checkpoint holds" in caplog.text


def test_what_a_function_prints_is_none_of_the_result(spec_of, tmp_path, capsys):
    train(Run.create(spec_of("nets:module"), tmp_path / "run"))
    printed = capsys.readouterr()
    assert "a print of the user's" in printed.err
    assert "a print of the user's" not in printed.out


def test_a_dataclass_of_the_user_finds_its_module(tmp_path):
    code = (
        "from __future__ import annotations\nfrom dataclasses import dataclass\n@dataclass\nclass A:\n    x: int = 3\n"
    )
    (tmp_path / "with_dataclass.py").write_text(f"{code}def make(): return A()\n", encoding="utf-8")
    assert load_function(f"{tmp_path / 'with_dataclass.py'}:make")().x == 3

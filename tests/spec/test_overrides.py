"""`--set KEY=VALUE`: merged in before the check, by the same rules as a file, with its own place in messages."""

import pytest

from mltool.errors import SpecError


def of(spec, key):
    """The value at a dotted path."""
    for part in key.split("."):
        spec = spec[int(part)] if part.isdigit() else getattr(spec, part)
    return spec


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        pytest.param("train.epochs=3", "train.epochs", 3, id="a number"),
        pytest.param("name=other", "name", "other", id="a word"),
        pytest.param("name='2024'", "name", "2024", id="a number in quotes is text"),
        pytest.param(
            "data.split.validation=2e-1", "data.split.validation", 0.2, id="a section that the file leaves out"
        ),
        pytest.param("data.split={validation: 0.3}", "data.split.validation", 0.3, id="a map is merged"),
        pytest.param(
            "train.optimizer.Adam.learning_rate=1e-2",
            "train.optimizer.arguments",
            {"learning_rate": 0.01},
            id="an argument",
        ),
        pytest.param(
            "model.layers.1.Dense.units=12", "model.layers.1.layer.arguments", {"units": 12}, id="an item of a list"
        ),
        pytest.param("model.layers.0=Activation", "model.layers.0.layer.name", ..., id="an item of a list, whole"),
        pytest.param("convert=[{quantize: int8}]", "convert.0.quantize", "int8", id="a list is replaced"),
        pytest.param("limits.max_drop=1%", "limits.max_drop.relative", True, id="a percentage"),
        pytest.param(" train.epochs =3", "train.epochs", 3, id="spaces around the key"),
    ],
)
def test_an_override_replaces_one_value(override, key, value, bench):
    if value is ...:
        with pytest.raises(SpecError, match="missing argument 'activation'"):
            bench.load(overrides=(override,))
        return
    assert of(bench.load(overrides=(override,)), key) == value


def test_a_map_is_merged_and_its_other_keys_stay(bench):
    spec = bench.load({"train.epochs": 7}, ("train={keep: last}",))
    assert (spec.train.epochs, spec.train.keep, spec.train.loss.name) == (7, "last", "SparseCategoricalCrossentropy")


def test_the_last_of_two_overrides_counts(bench):
    assert bench.load(overrides=("train.epochs=3", "train.epochs=4")).train.epochs == 4


def test_a_list_is_replaced_whole(bench):
    spec = bench.load({"train.metrics": ["accuracy", "mae"]}, ("train.metrics=[mse]",))
    assert [metric.name for metric in spec.train.metrics] == ["MeanSquaredError"]


@pytest.mark.parametrize("override", ["train.optimizer.SGD.momentum=0.9", "train.optimizer={SGD: {momentum: 0.9}}"])
@pytest.mark.parametrize("name", ["Adam", "adam"])
def test_a_keras_object_of_another_name_is_replaced_whole(name, override, bench):
    spec = bench.load({"train.optimizer": {name: {"epsilon": 1e-6}}}, (override,))
    assert (spec.train.optimizer.name, spec.train.optimizer.arguments) == ("SGD", {"momentum": 0.9})


@pytest.mark.parametrize("override", ["train.optimizer.Adam.beta_1=0.8", "train.optimizer={Adam: {beta_1: 0.8}}"])
def test_a_keras_object_of_the_same_name_keeps_its_other_arguments(override, bench):
    spec = bench.load({"train.optimizer": {"Adam": {"epsilon": 1e-6}}}, (override,))
    assert spec.train.optimizer.arguments == {"epsilon": 1e-6, "beta_1": 0.8}


def test_a_name_without_arguments_gets_some(bench):
    spec = bench.load({"train.optimizer": "adam"}, ("train.optimizer.Adam.beta_1=0.8",))
    assert spec.train.optimizer.arguments == {"beta_1": 0.8}


@pytest.mark.parametrize(
    "override", ["data.source.path=a.npz", "data.source={path: a.npz}", "data={source: {path: a.npz}}"]
)
def test_a_path_is_relative_to_the_working_directory(override, bench, monkeypatch):
    spec_file = bench.good()
    (bench.folder / "below").mkdir()
    monkeypatch.chdir(bench.folder / "below")
    from mltool.spec.load import load_spec

    assert load_spec(spec_file, (override,)).data.source.path == str(bench.folder / "below" / "a.npz")


@pytest.mark.parametrize("override", ["data.source.dataset=mnist", "data.source={dataset: mnist}"])
def test_a_data_set_beats_the_path_in_the_file(override, bench):
    source = bench.load({"data.source": {"path": "a.npz", "kind": "npz"}}, (override,)).data.source
    assert (source.dataset, source.path) == ("mnist", None)


def test_a_path_beats_the_data_set_in_the_file(bench):
    spec = bench.load({"data.split": {"test": 0.2}}, ("data.source.path=a.npz",))
    assert spec.data.source.path == str(bench.folder / "a.npz")


# Mistakes


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        pytest.param("train.epochs", r"must be KEY=VALUE \(got 'train.epochs'\); write --set", id="no value"),
        pytest.param("=3", "must be KEY=VALUE", id="no key"),
        pytest.param("train..epochs=3", "must be KEY=VALUE", id="two dots"),
        pytest.param(
            "train.epochs=0",
            r"^--set train.epochs=0: train.epochs: must be greater than 0 \(got 0\)$",
            id="out of range",
        ),
        pytest.param(
            "train.epoch=3",
            "^--set train.epoch=3: train.epoch: unknown key; did you mean 'epochs'",
            id="an unknown key",
        ),
        pytest.param(
            "trian.epochs=3", "^--set trian.epochs=3: trian: unknown key; did you mean 'train'", id="an unknown section"
        ),
        pytest.param("convert.0.quantize=int8", "no list at convert, so no item 0", id="an item of no list"),
        pytest.param(
            "model.layers.7=Flatten", "model.layers is a list of 2; it has no item 7; count from 0", id="no such item"
        ),
        pytest.param("model.layers.last=Flatten", "has no item 'last'", id="a word as index"),
        pytest.param("model.layers.²=Flatten", "has no item '²'", id="a digit that is no number"),
        pytest.param("0=3", "there is no list at the top", id="an index at the top"),
        pytest.param("train.epochs=[3", "this bracket is never closed", id="no YAML"),
        pytest.param(
            "train.optimizer.SDG.momentum=0.9",
            "^--set .*unknown optimizer 'SDG'; did you mean 'SGD'",
            id="an unknown name",
        ),
        pytest.param("convert=[{target: micro}]", "^--set .*convert.0.target: not in this version", id="not built yet"),
        pytest.param("train={epochs: 0}", "^--set .*train.epochs: must be greater", id="inside a map"),
        pytest.param(
            "data.source={path: a.csv, image_size: [8, 8]}", "^--set .*is a key of images", id="a key of another kind"
        ),
        pytest.param("train.epochs=", r"must be a whole number \(got null\)", id="nothing"),
    ],
)
def test_a_wrong_override_is_its_own_place(override, expected, bench):
    found = bench.refusals(bench.good(), (override,))
    with pytest.raises(SpecError, match=expected):
        raise SpecError(found)
    assert {message.file for message in found} == {f"--set {override}"}


def test_a_mistake_of_the_file_keeps_its_place_beside_an_override(bench):
    path = bench.good({"train.epochs": 0})
    found = bench.refusals(path, ("train.keep=frist", "seed=1"))
    assert [(m.file, m.key) for m in found] == [("--set train.keep=frist", "train.keep"), (str(path), "train.epochs")]


def test_a_map_that_is_merged_is_not_blamed_for_the_rest_of_its_section(bench):
    path = bench.good({"train.epochs": 0})
    (found,) = bench.refusals(path, ("train={keep: last}",))
    assert found.file == str(path)


def test_all_wrong_overrides_are_answered_at_once(bench):
    found = bench.refusals(bench.good(), ("a", "b"))
    assert [message.file for message in found] == ["--set a", "--set b"]

"""`mltool inspect` of specs and runs: what it prints, sorts and refuses."""

import artifacts
import numpy as np
import pytest

from mltool.runs.run import Run


def test_a_spec_is_shown_layer_by_layer_with_totals(spec, mltool):
    ran = mltool("inspect", str(spec))
    assert (ran.code, ran.err) == (0, "")
    rows = [line.split() for line in ran.out.splitlines()]
    assert rows[0][:6] == ["layer", "class", "output", "parameters", "trainable", "MACs"]
    assert ["dense", "Dense", "10", "650", "650", "640", "40", "10"] in rows
    assert "MACs              640 a sample" in ran.out
    assert "650, of them 650 trainable" in ran.out
    assert "peak activations  512 bytes in float32, 128 in int8 at 'flatten'" in ran.out


def test_the_document_of_a_spec_is_one_and_whole(spec, mltool):
    ran = mltool("inspect", str(spec), "--json", "--set", "model.layers.1.Dense.units=20")
    assert ran.code == 3  # ten classes
    assert ran.document["error"]["messages"][0]["key"] == "model.layers.1.Dense"
    shown = mltool("inspect", str(spec), "--json").document
    assert set(shown) == {
        *("source", "name", "parameters", "trainable_parameters", "macs", "weight_bytes"),
        *("peak_activation_bytes", "peak_layer", "all_activation_bytes", "layers"),
    }
    assert [layer["layer"] for layer in shown["layers"]] == ["image", "flatten", "dense"]
    assert shown["layers"][2]["output_shapes"] == [[10]]
    assert shown["layers"][2]["activation_bytes"] == {"float32": 40, "int8": 10}


def test_sort_puts_the_largest_first(spec, mltool):
    for key, first in (("parameters", "dense"), ("macs", "dense"), ("activations", "image")):
        assert mltool("inspect", str(spec), "--sort", key, "--json").document["layers"][0]["layer"] == first
    ran = mltool("inspect", str(spec), "--sort", "size")
    assert ran.code == 2
    assert "'size' is not one of 'parameters', 'macs', 'activations'" in ran.err


def test_a_mistake_is_told_with_its_place_as_check_tells_it(spec, mltool):
    spec.write_text(spec.read_text().replace("units: 10", "unts: 10"))
    ran = mltool("inspect", str(spec))
    assert ran.code == 3
    assert ran.err == mltool("check", str(spec)).err
    assert "my.yaml:3:36: model.layers.1.Dense.unts: unknown argument; did you mean 'units'?" in ran.err


def test_data_that_are_missing_are_exit_code_4(spec, mltool):
    ran = mltool("inspect", str(spec), "--set", "data.source={path: nowhere.npz}", "--json")
    assert ran.code == ran.document["error"]["code"] == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("model.tflite", "--set", "a=1"), "--set is for a spec"),
        (("model.tflite", "--sort", "macs"), "--sort is for a spec or a run"),
        (("latest", "--set", "a=1"), "--set is for a spec"),
    ],
    ids=["set of a file", "sort of a file", "set of a run"],
)
def test_options_that_say_nothing_are_refused(arguments, message, mltool):
    ran = mltool("inspect", *arguments)
    assert ran.code == 2
    assert message in ran.err


@pytest.mark.parametrize("name", ["nowhere", "nowhere.tflite", "nowhere.keras"])
def test_what_is_not_there_is_exit_code_5(name, mltool):
    ran = mltool("inspect", name)
    assert ran.code == 5
    assert name in ran.err


def test_a_spec_that_is_not_there_is_told_as_check_tells_it(mltool):
    ran = mltool("inspect", "nowhere.yaml")
    checked = mltool("check", "nowhere.yaml")
    assert (ran.code, ran.err) == (checked.code, checked.err)


def test_the_spec_and_the_run_that_came_of_it_have_the_same_model(mltool, tmp_path, tmp_path_factory):
    run = artifacts.copied(artifacts.digits_run(tmp_path_factory.getbasetemp()), tmp_path)
    of_run = mltool("inspect", "latest", "--json").document
    of_spec = mltool("inspect", str(run.spec_file), "--json").document
    assert {**of_run, "source": None} == {**of_spec, "source": None}
    assert of_run["source"] == str(run.directory)
    assert mltool("inspect", run.id, "--json").document == mltool("inspect", str(run.directory), "--json").document


def test_a_run_without_a_model_is_told(spec, mltool, tmp_path):
    from mltool.spec.load import load_spec

    Run.create(load_spec(spec), tmp_path / "new")
    ran = mltool("inspect", "new")
    assert ran.code == 5
    assert "model.keras" in ran.err


def test_two_inputs_are_two_rows(mltool, tmp_path, tmp_path_factory):
    directory = artifacts.pair_run(tmp_path_factory.getbasetemp())
    shown = mltool("inspect", str(directory / "spec.yaml"), "--json").document
    rows = {layer["layer"]: (layer["class_name"], layer["macs"]) for layer in shown["layers"]}
    assert rows["left"] == rows["right"] == ("InputLayer", 0)
    assert (rows["one"], rows["two"], rows["value"]) == (("Dense", 24), ("Dense", 16), ("Dense", 16))
    assert rows["original_units"] == ("Rescaling", 1)


def test_a_table_with_preprocess_auto_has_the_shapes_that_its_data_give(mltool, tmp_path):
    numbers = np.random.default_rng(0)
    colors = ["red", "green", "blue"]
    lines = [f"{numbers.random():.3f},{colors[i % 3]},{'yes' if i % 2 else 'no'}" for i in range(60)]
    (tmp_path / "t.csv").write_text("\n".join(["size,color,bought", *lines]))
    (tmp_path / "t.yaml").write_text(
        "name: t\ndata: {source: {path: t.csv, target: bought}}\n"
        "model: {preprocess: auto, layers: [{Dense: {units: 1, activation: sigmoid}}]}\n"
        "train: {loss: binary_crossentropy}\n"
    )
    ran = mltool("inspect", "t.yaml", "--json")
    assert ran.code == 0, ran.out
    rows = {layer["layer"]: layer for layer in ran.document["layers"]}
    # Three colors, and one for all others; text has no bytes.
    assert rows["string_lookup_of_categories"]["output_shapes"] == [[4]]
    assert rows["color"]["activation_bytes"] == {"float32": 0, "int8": 0}
    assert rows["normalization_of_numbers"]["trainable_parameters"] == 0
    assert rows["dense"]["macs"] == 5
    assert not any(layer["not_counted"] for layer in rows.values())

"""Keras Applications in a spec, checked before TensorFlow is imported."""

import inspect
import subprocess
import sys

import pytest

from mltool.spec.catalogue_entries import backbones, load_docs, load_entry
from mltool.spec.load import dump_spec, load_spec
from mltool.spec.spec import to_plain

REFUSED = {
    "no word of weights": ({"MobileNetV2": {}}, "missing argument 'weights'; write MobileNetV2: {weights: ...}"),
    "null weights": ({"VGG16": {"weights": None}}, "weights: must be one of 'none', 'imagenet' or text (got null)"),
    "a file of another kind": (
        {"VGG16": {"weights": "vgg.ckpt"}},
        "VGG16.weights: must be none, imagenet, or a file that ends in .weights.h5, .keras, .h5 (got '",
    ),
    "a misspelt argument": (
        {"MobileNet": {"weights": "none", "alfa": 0.5}},
        "MobileNet.alfa: unknown argument; did you mean 'alpha'?",
    ),
    "an argument of another": (
        {"VGG16": {"weights": "none", "alpha": 0.5}},
        "unknown argument; known arguments: weights, include_top, pooling, classes, classifier_activation, until, name",
    ),
    "a misspelt name": ({"MobilNetV2": {"weights": "none"}}, "unknown layer 'MobilNetV2'; did you mean 'MobileNetV2'?"),
    "a width of nothing": ({"MobileNet": {"weights": "none", "alpha": 0}}, "must be a number greater than 0 (got 0)"),
    "classes of no top": (
        {"MobileNet": {"weights": "none", "include_top": False, "classes": 5}},
        "MobileNet.classes: has no effect with include_top: false; leave it out",
    ),
    "an activation of no top": (
        {"MobileNet": {"weights": "none", "include_top": False, "classifier_activation": None}},
        "classifier_activation: has no effect with include_top: false",
    ),
    "pooling under a top": (
        {"MobileNet": {"weights": "none", "pooling": "avg"}},
        "pooling: has no effect with include_top: true; write include_top: false",
    ),
    "pooling that is cut off": (
        {"MobileNet": {"weights": "none", "include_top": False, "pooling": "avg", "until": "conv1"}},
        "pooling: has no effect with until; leave it out",
    ),
    "classes that are not ImageNet's": (
        {"MobileNet": {"weights": "imagenet", "classes": 5}},
        "classes: the published weights answer with 1000 classes (got 5); write include_top: false",
    ),
    "a backbone inside of a layer": (
        {"TimeDistributed": {"layer": {"MobileNet": {"weights": "none"}}}},
        "layer: 'MobileNet' is no layer of Keras, and cannot stand inside of one",
    ),
    "a file that is not there": (
        {"MobileNet": {"weights": "gone.weights.h5"}},
        "gone.weights.h5 is not there; write weights: none to begin with random ones",
    ),
}


@pytest.mark.parametrize(("layer", "message"), REFUSED.values(), ids=REFUSED)
def test_a_mistake_is_told_at_its_place_with_a_cure(layer, message, bench):
    (found,) = bench.refusals(bench.good({"model.layers": [layer, {"Dense": {"units": 10}}]}))
    assert found.key.startswith("model.layers.0")
    assert found.line is not None
    assert message in str(found)


@pytest.mark.parametrize(
    ("top", "from_logits", "message"),
    [
        pytest.param({}, True, "ends in softmax", id="probabilities, as by default"),
        pytest.param({"classifier_activation": None}, False, "has no activation, so it gives logits", id="logits"),
    ],
)
def test_the_loss_must_take_what_the_top_gives(top, from_logits, message, bench):
    loss = {"SparseCategoricalCrossentropy": {"from_logits": from_logits}}
    layer = {"MobileNet": {"weights": "none", "classes": 10, **top}}
    (found,) = bench.refused({"model.layers": [layer], "train.loss": loss})
    assert message in found


def weights_of(spec):
    return spec.model.layers[0].layer.arguments["weights"]


def test_weights_are_relative_to_the_spec_and_in_set_to_the_working_directory(bench, tmp_path, monkeypatch):
    for folder in ("", "elsewhere"):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / "w.keras").write_bytes(b"")
    file = bench.good({"model.layers": [{"MobileNet": {"weights": "w.keras"}}, "Flatten", {"Dense": {"units": 10}}]})
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert weights_of(load_spec(file)) == str(tmp_path / "w.keras")
    elsewhere = str(tmp_path / "elsewhere/w.keras")
    assert weights_of(load_spec(file, ["model.layers.0.MobileNet.weights=w.keras"])) == elsewhere
    whole = "model.layers=[{MobileNet: {weights: w.keras, include_top: false}}, Flatten, {Dense: {units: 10}}]"
    assert weights_of(load_spec(file, [whole])) == elsewhere


def test_those_of_a_block_are_relative_to_the_file_that_has_it(bench, tmp_path):
    (tmp_path / "nets").mkdir()
    (tmp_path / "nets/w.keras").write_bytes(b"")
    bench.write("model: {blocks: {net: [{MobileNet: {weights: w.keras}}]}}", "nets/base.yaml")
    file = bench.good(
        {"include": "nets/base.yaml", "model.layers": [{"Block": {"use": "net"}}, {"Dense": {"units": 10}}]}
    )
    assert weights_of(load_spec(file)) == str(tmp_path / "nets/w.keras")


def test_the_resolved_spec_of_a_run_reads_back_when_the_file_is_gone(bench, tmp_path):
    weights = tmp_path / "w.keras"
    weights.write_bytes(b"")
    spec = bench.load({"model.layers": [{"MobileNet": {"weights": "w.keras"}}, {"Dense": {"units": 10}}]})
    weights.unlink()
    again = load_spec(bench.write(dump_spec(spec), "again.yaml"), needs_files=False)
    assert to_plain(again) == to_plain(spec)


def test_they_are_checked_without_tensorflow(bench):
    layers = [{"NASNetMobile": {"weights": "none", "classes": 10}}]
    path = bench.good({"model.layers": layers, "train.loss": "mse", "train.metrics": ["mae"]})
    program = (
        "import sys\nfrom mltool.spec.load import load_spec\n"
        f"assert load_spec({str(path)!r}).model.layers[0].name == 'nas_net_mobile'\n"
        "assert not {'keras', 'tensorflow', 'numpy', 'h5py'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_every_argument_is_described():
    assert len(backbones()) >= 38
    for name in backbones():
        assert set(load_docs()["layer"][name]) == set(load_entry("layer", name).arguments) | {""}


def test_all_of_keras_applications_are_there_with_all_their_arguments():
    import keras

    functions = {name: f for name, f in vars(keras.applications).items() if inspect.isfunction(f)}
    assert backbones() == set(functions)
    for name, function in functions.items():
        theirs = set(inspect.signature(function).parameters) - {"input_shape", "input_tensor"}
        assert set(load_entry("layer", name).arguments) == theirs | {"until"}

"""Keras Applications as layers: weights from every kind of file, other architectures refused, cut at a layer."""

import re
import urllib.error
from pathlib import Path

import numpy as np
import pytest
import yaml

from mltool import extras
from mltool.errors import ArtifactError, MachineError, SpecError
from mltool.models.backbones import warn_of_scaling
from mltool.models.build import build_model
from mltool.models.preprocess import ModelInput
from mltool.models.weight_files import choose, load_into, numbered_anew, read_models
from mltool.spec.catalogue_entries import backbones
from mltool.spec.model import ModelSpec

RANDOM = np.random.default_rng(0)
SHAPE = (32, 32, 3)
SMALL = "alpha: 0.25, include_top: false"


def built(layers, shape=SHAPE):
    values = np.zeros((2, *shape), np.float32)
    inputs = {"image": ModelInput(shape, "float32", "", lambda: iter([values]))}
    return build_model(ModelSpec.model_validate({"layers": yaml.safe_load(layers)}), inputs, name="net")


def randomize(model):
    for weight in model.weights:
        low = 0.1 if weight.path.endswith("moving_variance") else -0.5
        weight.assign(RANDOM.uniform(low, 0.5, weight.shape))


@pytest.fixture(scope="module")
def source():
    """Keras' own MobileNet with random weights."""
    model = extras.keras().applications.MobileNet(input_shape=SHAPE, alpha=0.25, include_top=False, weights=None)
    randomize(model)
    return model


def save_as_published(model, file):
    import h5py
    from keras.src.legacy.saving import legacy_h5_format

    with h5py.File(file, "w") as opened:
        legacy_h5_format.save_weights_to_hdf5_group(opened, model)


def save_in_another_model(model, file, name):
    """A model that has two backbones, the wanted one called `name`, as an earlier training leaves it."""
    keras = extras.keras()
    other = keras.applications.MobileNet(input_shape=SHAPE, alpha=0.25, include_top=False, weights=None)
    inner = keras.Model(model.input, model.output, name=name)
    inputs = keras.Input(SHAPE)
    both = keras.layers.Concatenate()([keras.Model(other.input, other.output, name="other")(inputs), inner(inputs)])
    keras.Model(inputs, keras.layers.Dense(3)(both)).save(file)


FILES = {
    "save_weights": ("w.weights.h5", lambda model, file: model.save_weights(file)),
    "save": ("w.keras", lambda model, file: model.save(file)),
    "as Keras Applications are published": ("w.h5", save_as_published),
    "in the model of an earlier run": ("w.keras", lambda m, file: save_in_another_model(m, file, "backbone")),
}


@pytest.mark.parametrize(("file", "save"), FILES.values(), ids=FILES)
def test_weights_come_from_every_kind_of_file_of_keras(source, tmp_path, file, save):
    save(source, tmp_path / file)
    model = built(f"[{{MobileNet: {{{SMALL}, weights: {tmp_path / file}, name: backbone}}}}]")
    values = RANDOM.normal(size=(3, *SHAPE)).astype(np.float32)
    np.testing.assert_array_equal(np.asarray(model(values)), np.asarray(source(values)))
    assert [layer.name for layer in model.layers] == ["image", "backbone"]
    assert model.get_layer("backbone").get_layer("conv_pw_3").trainable


def test_a_backbone_that_is_cut_takes_what_is_left_of_a_whole_one_and_of_a_cut_one(source, tmp_path):
    keras = extras.keras()
    source.save_weights(tmp_path / "whole.weights.h5")
    part = keras.Model(source.input, source.get_layer("conv_pw_3_relu").output)
    part.save(tmp_path / "part.keras")
    values = RANDOM.normal(size=(3, *SHAPE)).astype(np.float32)
    for file in ("whole.weights.h5", "part.keras"):
        model = built(f"[{{MobileNet: {{{SMALL}, weights: {tmp_path / file}, until: conv_pw_3_relu}}}}]")
        np.testing.assert_array_equal(np.asarray(model(values)), np.asarray(part(values)))
        assert "conv_dw_4" not in {layer.name for layer in model.layers[-1].layers}


WRONG = {
    "another width": (
        f"MobileNet: {{{SMALL.replace('0.25', '0.5')}, weights: FILE}}",
        SHAPE,
        r"the first layer that differs is 'conv1': its kernel is \(3, 3, 3, 8\) there, \(3, 3, 3, 16\) here",
    ),
    "images of one channel": (
        f"MobileNet: {{{SMALL}, weights: FILE}}",
        (32, 32, 1),
        r"'conv1': its kernel is \(3, 3, 3, 8\) there, \(3, 3, 1, 8\) here; write what it was built with",
    ),
    "another network": (
        "VGG16: {include_top: false, weights: FILE}",
        SHAPE,
        "differs is 'block1_conv1': it is not there",
    ),
    "more than it has": ("MobileNet: {alpha: 0.25, weights: FILE}", SHAPE, "differs is 'conv_preds': it is not there"),
    "no such layer": (
        f"MobileNet: {{{SMALL}, weights: FILE, until: conv_pw_3_rel}}",
        SHAPE,
        r"MobileNet\.until: MobileNet has no layer 'conv_pw_3_rel'; did you mean 'conv_pw_3_relu'",
    ),
    "small images": (
        "MobileNet: {include_top: false, weights: none}",
        (8, 8, 3),
        r"does not fit its input of shape \(None, 8, 8, 3\); MobileNet takes images of 32x32 and more:"
        r" put Resizing: {height: 32, width: 32} under model\.preprocess",
    ),
    "no images": (
        "MobileNet: {include_top: false, weights: none}",
        (8,),
        "it takes an image, .height, width, channels",
    ),
}


@pytest.mark.parametrize(("layer", "shape", "message"), WRONG.values(), ids=WRONG)
def test_what_does_not_fit_is_one_message_that_names_the_first_layer(source, tmp_path, layer, shape, message):
    file = tmp_path / "w.weights.h5"
    source.save_weights(file)
    with pytest.raises(SpecError, match=message) as caught:
        built(f"[{{{layer.replace('FILE', str(file))}}}]", shape)
    assert len(caught.value.messages) == 1
    assert str(caught.value).startswith("model.layers.0.")


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04"], ids=["empty", "text", "half a zip"])
@pytest.mark.parametrize("name", ["w.keras", "w.weights.h5"])
def test_a_damaged_file_is_exit_5(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ArtifactError, match="is damaged, or no file of Keras' weights") as caught:
        built(f"[{{MobileNet: {{{SMALL}, weights: {tmp_path / name}}}}}]")
    assert caught.value.exit_code == 5


def test_published_weights_that_cannot_be_downloaded_are_exit_10_and_stdout_stays_empty(monkeypatch, capsys, tmp_path):
    from keras.src.utils import file_utils

    def offline(*_, **__):
        raise urllib.error.URLError("no network")

    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setattr(file_utils, "urlretrieve", offline)
    # An alpha that nobody has in a cache.
    with pytest.raises(MachineError, match=r"weights of MobileNet cannot be downloaded: .*no network") as caught:
        built("[{MobileNet: {alpha: 0.5, include_top: false, weights: imagenet}}]", (128, 128, 3))
    assert caught.value.exit_code == 10
    assert "write model.layers.0.MobileNet.weights: FILE" in str(caught.value)
    assert capsys.readouterr().out == ""


SCALES = {
    "MobileNetV2, scaled": ("MobileNetV2", {"scale": 1 / 127.5, "offset": -1}, None),
    "MobileNetV2, to 1": (
        "MobileNetV2",
        {"scale": 1 / 255},
        r"\[-1, -1, -1\] and \[1, 1, 1\], and get \[0, 0, 0\] and \[1, 1, 1\]",
    ),
    "EfficientNetB0, pixels": ("EfficientNetB0", None, None),
    "EfficientNetB0, scaled": ("EfficientNetB0", {"scale": 1 / 255}, r"\[0, 0, 0\] and \[255, 255, 255\], and get"),
    # (0 - 0.485) / 0.229, ... as of torchvision: the mean and deviation of ImageNet.
    "DenseNet121, scaled": ("DenseNet121", {"scale": 1 / 255}, r"\[-2.12, -2.04, -1.8\] and \[2.25, 2.43, 2.64\]"),
}


@pytest.mark.parametrize(("function", "scaling", "message"), SCALES.values(), ids=SCALES)
def test_a_scale_that_published_weights_do_not_know_is_said(caplog, function, scaling, message):
    keras = extras.keras()
    inputs = keras.Input(SHAPE)
    tensor = keras.layers.Rescaling(**scaling)(inputs) if scaling else inputs
    warn_of_scaling(function, {"weights": "imagenet"}, tensor)
    assert re.search(message, caplog.text) if message else not caplog.text
    caplog.clear()
    warn_of_scaling(function, {"weights": "none"}, tensor)
    assert not caplog.text


def test_the_scaling_of_the_readme_is_that_of_densenet(caplog):
    keras = extras.keras()
    inputs = keras.Input(SHAPE)
    scaled = keras.layers.Normalization(mean=[123.675, 116.28, 103.53], variance=[3409.98, 3262.69, 3291.89])(inputs)
    warn_of_scaling("DenseNet121", {"weights": "imagenet"}, scaled)
    assert not caplog.text


def test_layers_without_names_are_numbered_as_in_a_new_process(tmp_path):
    keras = extras.keras()
    assert numbered_anew(["conv2d_9", "conv2d_94", "conv2d_10", "stem", "block_2_x"]) == {
        "conv2d": "conv2d_9",
        "conv2d_1": "conv2d_10",
        "conv2d_2": "conv2d_94",
        "stem": "stem",
        "block_2_x": "block_2_x",
    }

    def model():
        return keras.Sequential([keras.Input((4,)), keras.layers.Dense(4), keras.layers.Dense(4)])

    first, second = model(), model()
    randomize(first)
    first.save_weights(tmp_path / "w.weights.h5")
    (stored,) = read_models(tmp_path / "w.weights.h5")
    load_into(second.layers, choose([stored], "net", [layer.name for layer in second.layers]))
    for one, other in zip(first.get_weights(), second.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.slow
def test_names_inside_do_not_depend_on_what_was_built_before():
    layer = "[{Xception: {include_top: false, weights: none}}]"
    first, second = built(layer, (71, 71, 3)).layers[-1], built(layer, (71, 71, 3)).layers[-1]
    assert [one.name for one in first.layers[1:]] == [one.name for one in second.layers[1:]]
    assert "conv2d" in {one.name for one in second.layers}


MINIMUM = {"InceptionResNetV2": 75, "InceptionV3": 75, "Xception": 71}


@pytest.mark.slow  # about three minutes in all
@pytest.mark.parametrize("name", sorted(backbones()))
def test_every_application_is_keras_own(name):
    keras = extras.keras()
    size = MINIMUM.get(name, 32)
    model = built(f"[{{{name}: {{include_top: false, weights: none, pooling: avg, name: net_of}}}}]", (size, size, 3))
    keras.backend.clear_session()
    own = getattr(keras.applications, name)(include_top=False, weights=None, pooling="avg", input_shape=(size, size, 3))
    inner = model.get_layer("net_of")
    assert inner.count_params() == own.count_params() > 0
    assert [weight.shape for weight in inner.weights] == [weight.shape for weight in own.weights]
    assert [layer.name for layer in inner.layers[1:]] == [layer.name for layer in own.layers[1:]]


def _outside(folder: Path, how: str) -> Path:
    """A file of weights whose numbers lie in another one."""
    import h5py

    (folder / "secret").write_bytes(np.arange(4, dtype=np.float32).tobytes())
    with h5py.File(folder / "other.h5", "w") as other:
        other["numbers"] = np.arange(4, dtype=np.float32)
    with h5py.File(folder / "w.weights.h5", "w") as file:
        variables = file.create_group("layers/dense/vars")
        if how == "external":
            variables.create_dataset("0", (4,), np.float32, external=[(folder / "secret", 0, 16)])
        elif how == "virtual":
            layout = h5py.VirtualLayout((4,), np.float32)
            layout[:] = h5py.VirtualSource(folder / "other.h5", "numbers", (4,), np.float32)
            variables.create_virtual_dataset("0", layout)
        else:
            variables["0"] = h5py.ExternalLink(folder / "other.h5", "numbers")
    return folder / "w.weights.h5"


@pytest.mark.parametrize("how", ["external", "virtual", "link"])
def test_weights_that_lie_in_another_file_are_not_read(how, tmp_path):
    with pytest.raises(ArtifactError, match="its numbers lie in another file"):
        read_models(_outside(tmp_path, how))

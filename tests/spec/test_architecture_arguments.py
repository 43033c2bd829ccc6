"""Named architectures in a spec, checked before TensorFlow is imported."""

import subprocess
import sys

import pytest

from mltool.spec.architectures import ARCHITECTURE_DOCS, ARCHITECTURES

REFUSED = {
    "a name that is nearly one": ({"ResNet9": {}}, "unknown layer 'ResNet9'; did you mean 'ResNet8'?"),
    "an unknown argument": ({"ResNet8": {"unit": 10}}, "unknown argument; did you mean 'units'?"),
    "no outputs": ({"ResNet8": {"units": 0}}, "must be an integer greater than 0 or null (got 0)"),
    "a number in quotes": ({"DSCNN": {"units": "12"}}, "remove the quotes"),
    "a list for a number": ({"Autoencoder": {"hidden": [128]}}, "must be an integer greater than 0 (got [128])"),
    "a number for a list": ({"MLP": {"hidden": 64}}, "must be a list of integers greater than 0 (got 64)"),
    "an activation that is none": (
        {"MLP": {"units": 10, "activation": "softmix"}},
        "must be one of 'softmax', 'sigmoid' or null (got 'softmix'); did you mean 'softmax'?",
    ),
    "all left out": ({"CNN": {"dropout": 1.0}}, "must be a number of at least 0 and less than 1 (got 1.0)"),
    "no vocabulary": (
        {"TextTransformer": {}},
        "missing argument 'vocabulary_size'; write TextTransformer: {vocabulary_size: ...}",
    ),
    "no layers": ({"MLP": {"hidden": []}}, "hidden: must have at least one number (got []); write hidden: [64, 64]"),
    "an activation of features": (
        {"CNN": {"activation": "softmax"}},
        "activation: has no effect with units: null; write units: NUMBER, or leave activation out",
    ),
    "an activation of a bottleneck": (
        {"Autoencoder": {"decoder": False, "activation": "sigmoid"}},
        "activation: has no effect with decoder: false; write decoder: true, or leave activation out",
    ),
    "heads that do not share evenly": (
        {"TextTransformer": {"vocabulary_size": 9, "embed_dim": 30, "num_heads": 4}},
        "embed_dim: must be a multiple of num_heads, 4 (got 30); write embed_dim: 32",
    ),
    "a network inside of a layer": (
        {"TimeDistributed": {"layer": {"ResNet8": {}}}},
        "layer: 'ResNet8' is no layer of Keras, and cannot stand inside of one; write it as an item of its own",
    ),
}


@pytest.mark.parametrize(("layer", "message"), REFUSED.values(), ids=REFUSED)
def test_a_mistake_is_told_at_its_place_with_a_cure(layer, message, bench):
    (found,) = bench.refused({"model.layers": [layer, {"Dense": {"units": 10}}]})
    assert found.startswith("model.layers.0")
    assert message in found


LOSS = "train.loss.SparseCategoricalCrossentropy.from_logits"


@pytest.mark.parametrize(
    ("layer", "from_logits", "message"),
    [
        pytest.param({"CNN": {"units": 10}}, False, "has no activation, so it gives logits", id="logits"),
        pytest.param({"CNN": {"units": 10, "activation": "softmax"}}, True, "ends in softmax", id="probabilities"),
    ],
)
def test_the_loss_must_take_what_the_head_gives(layer, from_logits, message, bench):
    loss = {"SparseCategoricalCrossentropy": {"from_logits": from_logits}}
    (found,) = bench.refused({"model.layers": [layer], "train.loss": loss})
    assert found.startswith(LOSS)
    assert message in found
    assert bench.load({"model.layers": [{"CNN": {}}], "train.loss": loss})  # features: their activation is not known


def test_they_are_checked_without_tensorflow(bench):
    path = bench.good({"model.layers": [{"ResNet8": {"units": 10, "name": "net"}}]})
    program = (
        "import sys\nfrom mltool.spec.load import load_spec\n"
        f"assert load_spec({str(path)!r}).model.layers[0].name == 'net'\n"
        "assert not {'keras', 'tensorflow', 'numpy'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_every_argument_is_described():
    assert set(ARCHITECTURES) == set(ARCHITECTURE_DOCS)
    assert len(ARCHITECTURES) >= 10
    for name, entry in ARCHITECTURES.items():
        assert set(entry["arguments"]) - {"name"} == set(ARCHITECTURE_DOCS[name]) - {""}

"""Names of convert entries: a file is what its name says, and overwrites nothing else in lite/."""

import contextlib

import pytest

from mltool.errors import SpecError
from mltool.spec.load import load_spec


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        pytest.param([{"quantize": "dynamic", "name": "int8"}], "'int8' is the name of another scheme", id="a scheme"),
        pytest.param([{"quantize": "none", "name": "INT8"}], "'INT8' is the name of another scheme", id="in capitals"),
        pytest.param([{"quantize": "a/qat.json"}], "'qat' is the name of a scheme, which", id="a recipe"),
        pytest.param([{"quantize": "int8", "name": "input"}], "'input' is the name of another file", id="input.json"),
        pytest.param([{"quantize": "int8", "name": "w.vocabulary"}], "name of another file", id="a vocabulary"),
        pytest.param([{"name": "A"}, {"name": "a"}], "the name 'a' is used twice", id="capital letters"),
        pytest.param([{"quantize": "int8-io", "io": "uint8"}], "contradicts quantize: int8-io", id="int8-io"),
        pytest.param([{"io": ["int8"]}], "convert.0.io: must be", id="a list for io"),
        pytest.param([{"quantize": ["int8"]}], "convert.0.quantize: must be", id="a list for quantize"),
        pytest.param([{"quantize": {"int8": None}}], "convert.0.quantize: must be", id="a map for quantize"),
    ],
)
def test_a_wrong_entry_is_one_mistake(entries, expected, bench):
    found = bench.refused({"convert": entries})
    assert len(found) == 1, found
    assert expected in found[0]


@pytest.mark.parametrize("value", [[1], {"a": 1}, None, -1, 2.5, True, "ä", [[]], {}], ids=repr)
def test_whatever_stands_for_a_value_no_check_breaks(value, bench):
    """Every key of the shipped form, with every kind of value: an answer, never a traceback."""
    keys = [
        *("name", "seed", "data.source", "data.source.path", "data.split", "data.split.by", "data.batch_size"),
        *(
            "data.augment",
            "data.cache",
            "data.inputs",
            "data.source.labels",
            "data.source.classes",
            "data.source.label",
        ),
        *(
            "data.source.image_size",
            "data.source.columns",
            "data.source.missing",
            "data.source.python",
            "data.source.label",
            "include",
        ),
        *(
            "model",
            "model.preprocess",
            "model.layers",
            "train.loss",
            "train.metrics",
            "train.optimizer",
            "train.epochs",
        ),
        *("train.callbacks", "train.class_weights", "train.scale_target", "convert", "convert.0", "limits"),
        *("limits.max_drop", "limits.max_size", "limits.metric", "export", "serve"),
    ]
    for key in keys:
        answered(bench.good({key: value}))
    for key in ("quantize", "io", "name", "batch", "representative", "keep_float", "limits", "preprocess", "target"):
        answered(bench.good({"convert": [{key: value}]}))


def answered(path):
    with contextlib.suppress(SpecError):
        load_spec(path)

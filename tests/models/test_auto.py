"""`preprocess: auto` for numbers with heavy tails and categories of very many values."""

import numpy as np
import pytest

from mltool.models.auto import MAX_CATEGORIES, auto_preprocess, is_heavy_tailed
from mltool.models.build import build_model
from mltool.models.preprocess import ModelInput
from mltool.spec.model import ModelSpec

RANDOM = np.random.default_rng(1)
GAINS = np.where(RANDOM.random(6000) < 0.92, 0, RANDOM.lognormal(8, 1.2, 6000)).astype(np.float32)
NORMAL = RANDOM.normal(size=6000).astype(np.float32)


def batches(values, size=700):
    return lambda: (values[start : start + size, None] for start in range(0, len(values), size))


def number(values, kind="number", **more):
    return ModelInput((1,), "string" if values.dtype.kind == "U" else "float32", kind, batches(values), **more)


COLUMNS = {
    "mostly zeros": (GAINS, True),
    "a very long tail": (RANDOM.lognormal(0, 2.5, 6000), True),
    "a long tail that a normalization bears": (RANDOM.lognormal(0, 1, 6000), False),
    "a bell": (NORMAL, False),
    "an even spread": (RANDOM.uniform(size=6000), False),
    "a rare flag": (RANDOM.random(6000) < 0.01, False),
    "a few whole numbers": (np.minimum(RANDOM.geometric(0.9, 6000), 6), False),
    "one value": (np.full(6000, 3.0), False),
    "nothing but holes": (np.full(6000, np.nan), False),
    "mostly zeros with holes": (np.where(RANDOM.random(6000) < 0.3, np.nan, GAINS), True),
}


@pytest.mark.parametrize(("values", "heavy"), COLUMNS.values(), ids=COLUMNS)
def test_a_number_is_heavy_tailed_where_most_values_would_be_one_after_a_normalization(values, heavy):
    assert is_heavy_tailed(batches(values)()) == heavy


def test_a_long_column_is_judged_by_an_even_share_of_it():
    parts = 40 * [np.zeros(6000, np.float32), np.arange(6000, dtype=np.float32)]
    assert not is_heavy_tailed(parts)  # half zeros, half spread evenly, in alternating blocks
    assert is_heavy_tailed(40 * [GAINS])


def built(inputs):
    section = ModelSpec.model_validate(
        {"preprocess": "auto", "layers": [{"Activation": {"activation": "linear", "inputs": ["numbers"]}}]}
    )
    return build_model(section, inputs, name="auto")


def test_bins_of_quantiles_are_among_the_numbers_as_the_layers_take_them():
    inputs = {"gain": number(GAINS), "x": number(NORMAL)}
    assert [(key, layers[0].layer.name) for key, layers in auto_preprocess(inputs).items()] == [
        ("gain", "Discretization"),
        ("numbers", "Normalization"),
    ]
    model = built(inputs)
    values = {"gain": np.asarray([[0.0], [3000.0], [50_000.0]]), "x": np.full((3, 1), NORMAL.mean())}
    found = np.asarray(model(values))
    assert found.shape[1] == 1 + 64
    np.testing.assert_allclose(found[:, 0], 0, atol=1e-4)
    np.testing.assert_array_equal(found[:, 1:].sum(axis=1), 1)
    assert len(set(found[:, 1:].argmax(axis=1))) == 3


def test_a_heavy_tail_alone_and_one_with_holes_are_filled_and_binned():
    holes = np.where(RANDOM.random(6000) < 0.1, np.nan, GAINS).astype(np.float32)
    one, two = number(holes, missing=True), number(GAINS)
    assert [layer.layer.name for layer in auto_preprocess({"gain": one})["gain"]] == ["FillMissing", "Discretization"]
    found = np.asarray(built({"a": one, "b": two})({"a": np.full((1, 1), np.nan), "b": np.zeros((1, 1))}))
    assert found.sum() == 2


def test_of_a_category_with_very_many_values_the_most_frequent_are_told_apart():
    words = np.asarray([f"v{i % 3000 if i % 2 else i // 2 % 10}" for i in range(12_000)])
    inputs = {"word": number(words, "category"), "x": number(NORMAL)}
    section = ModelSpec.model_validate(
        {"preprocess": "auto", "layers": [{"Concatenate": {"inputs": ["categories", "numbers"]}}]}
    )
    model = build_model(section, inputs, name="auto")
    assert model.output_shape == (None, MAX_CATEGORIES + 1)
    vocabulary = model.get_layer("string_lookup_of_categories").get_vocabulary()
    assert set(vocabulary[1:11]) == {f"v{i}" for i in range(10)}

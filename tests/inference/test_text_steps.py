"""Steps that take text, in numpy: equal to Keras' layers, whatever their arguments."""

import itertools
import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from mltool.errors import ArtifactError, DataError
from mltool.inference.text_steps import TextStep, Vocabulary, load_vocabulary, reason_against
from mltool.models.steps import steps_of
from mltool.runs.input_schema import PreprocessStep

TRAINING = np.array(["hello world", "hello its tabs and lines äö é", "ÄÖ É a-b ab 123 123", "naïve"])
NEW = np.array(
    ["Hello, World! it's", "", "  tabs\tand\nlines ÄÖ É", "hello hello WORLD 123 a-b", "naïve façade…", "unseen words"]
)


def pair(layer, shape):
    """The step that a layer becomes, and a Keras model of the layer."""
    tensor = keras.Input(shape, dtype="string", name="text")
    model = keras.Model(tensor, layer(tensor))
    (step,) = steps_of(model, [])
    weights = layer._lookup_layer.idf_weights if step.arguments["output_mode"] == "tf_idf" else None
    tokens = [str(token) for token in layer.get_vocabulary(include_special_tokens=True)]
    return TextStep(step, Vocabulary(tokens, None if weights is None else np.asarray(weights))), model


@pytest.mark.parametrize("standardize", ["lower_and_strip_punctuation", "lower", "strip_punctuation", None])
@pytest.mark.parametrize("split", ["whitespace", "character"])
def test_text_vectorization_is_keras_own(standardize, split):
    for ngrams, mode, padded in itertools.product([None, 2, (1, 3)], ["int", "multi_hot", "count", "tf_idf"], [0, 1]):
        more = {"output_sequence_length": 5} if mode == "int" else {"pad_to_max_tokens": bool(padded)}
        layer = keras.layers.TextVectorization(
            max_tokens=40, standardize=standardize, split=split, ngrams=ngrams, output_mode=mode, **more
        )
        layer.adapt(TRAINING)
        step, model = pair(layer, ())
        expected = np.asarray(model(tf.constant(NEW)))
        np.testing.assert_allclose(step(NEW), expected, atol=1e-6, err_msg=f"{ngrams} {mode} {padded}")


@pytest.mark.parametrize("mode", ["one_hot", "int", "multi_hot", "count"])
@pytest.mark.parametrize("more", [{}, {"mask_token": ""}], ids=["no mask", "a mask"])
def test_string_lookup_is_keras_own(mode, more):
    layer = keras.layers.StringLookup(output_mode=mode, **more)
    layer.adapt(np.array([["a"], ["b"], ["b"]]))
    step, model = pair(layer, (1,))
    values = np.array([["a"], ["b"], ["never seen"], [""]])
    np.testing.assert_array_equal(step(values), np.asarray(model(tf.constant(values))))


def test_a_word_that_has_no_place_is_an_error_that_names_it():
    layer = keras.layers.StringLookup(output_mode="one_hot", num_oov_indices=0, vocabulary=["a", "b"])
    step, _ = pair(layer, (1,))
    np.testing.assert_array_equal(step(np.array([["b"]])), [[0, 1]])
    with pytest.raises(DataError, match="text: 'c' is not in the vocabulary"):
        step(np.array([["c"]]))


@pytest.mark.parametrize(
    ("class_name", "arguments", "reason"),
    [
        pytest.param("Hashing", {}, "is a Hashing: only StringLookup and TextVectorization", id="hashing"),
        pytest.param("StringLookup", {"num_oov_indices": 3}, "more than one place for unknown words", id="places"),
        pytest.param("StringLookup", {"invert": True}, "turns numbers into text", id="the other way"),
        pytest.param("TextVectorization", {"output_mode": "int"}, "set output_sequence_length", id="free length"),
        pytest.param("TextVectorization", {"output_mode": "count", "split": None}, "has split: None", id="no split"),
    ],
)
def test_what_cannot_be_done_outside_says_why(class_name, arguments, reason):
    step = PreprocessStep("words", class_name, "text", True, arguments, "words.vocabulary.json")
    assert reason in reason_against(step)
    with pytest.raises(ArtifactError, match="the step 'words'"):
        TextStep(step, Vocabulary(["[UNK]"]))


def test_a_vocabulary_is_read_back_as_it_was_written(tmp_path):
    written = Vocabulary(["[UNK]", 'a "b"\n', "ä"], np.float32([1.5, 0.25, 2]))
    path = tmp_path / "v.json"
    path.write_text(json.dumps(written.to_json()), encoding="utf-8")
    read = load_vocabulary(path)
    assert read.tokens == written.tokens
    np.testing.assert_array_equal(read.idf_weights, written.idf_weights)


@pytest.mark.parametrize("text", [None, "", "{", "[]", '{"tokens": 3}'], ids=["gone", "empty", "cut", "list", "number"])
def test_a_damaged_vocabulary_is_said(text, tmp_path):
    if text is not None:
        (tmp_path / "v.json").write_text(text)
    with pytest.raises(ArtifactError, match=r"v\.json is missing or damaged"):
        load_vocabulary(tmp_path / "v.json")

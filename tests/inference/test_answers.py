"""From outputs to probabilities and an answer."""

import warnings

import numpy as np
import pytest

from mltool.inference.answers import decide, probabilities
from mltool.runs.input_schema import OutputInfo


def output(task, activation, labels=()):
    return OutputInfo("out", (1,), task, activation, tuple(labels))


def test_logits_of_classes_become_a_softmax_without_overflow():
    found = probabilities(np.float32([[0, np.log(3)], [1000, -1000]]), output("classification", "logits", "ab"))
    np.testing.assert_allclose(found, [[0.25, 0.75], [1, 0]], atol=1e-7)


def test_a_logit_of_two_classes_becomes_a_sigmoid_without_overflow():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = probabilities(np.float32([[0], [np.log(3)], [1000], [-1000]]), output("binary", "logits", "ab"))
    np.testing.assert_allclose(found[:, 0], [0.5, 0.75, 1, 0], atol=1e-7)


@pytest.mark.parametrize(
    ("task", "activation", "outputs", "answers"),
    [
        pytest.param("classification", "logits", [[1, 2, 2], [3, 0, 0]], ["b", "a"], id="first of the largest"),
        pytest.param("binary", "logits", [[-0.1], [0], [0.1]], ["a", "a", "b"], id="logit above 0"),
        pytest.param("binary", "probabilities", [[0.4], [0.5], [0.6]], ["a", "a", "b"], id="probability above a half"),
        pytest.param("regression", "values", [[1.5], [2]], [1.5, 2.0], id="one value"),
        pytest.param("regression", "values", [[1.5, 2]], [[1.5, 2.0]], id="two values"),
    ],
)
def test_the_answer_is_a_label_or_values(task, activation, outputs, answers):
    labels = "" if task == "regression" else "abc"
    assert decide(np.float32(outputs), output(task, activation, labels)) == answers

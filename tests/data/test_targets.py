"""What targets mean: one-hot rows are classes, called as the source calls their columns."""

import numpy as np
import pytest

from mltool.data.source import Source
from mltool.data.targets import Meaning, encode
from mltool.errors import DataError

ROWS = [[0, 1, 0], [1, 0, 0], [0, 0, 1], [0, 1, 0]]


def source(targets, **more):
    return Source("here", {"x": np.zeros((len(targets), 1), np.float32)}, np.asarray(targets), **more)


@pytest.mark.parametrize(
    ("columns", "labels", "numbers"),
    [
        pytest.param((), ("0", "1", "2"), [1, 0, 2, 1], id="columns without names are numbered"),
        pytest.param(
            ("red", "green", "blue"), ("red", "green", "blue"), [1, 0, 2, 1], id="in the order of the columns"
        ),
    ],
)
def test_one_hot_columns_name_the_classes(columns, labels, numbers):
    meanings, targets = encode(source(ROWS, classes=columns), {"": "classification"}, None)
    assert meanings == {"": Meaning("classification", labels)}
    assert targets.tolist() == numbers


def test_one_hot_columns_are_found_among_the_classes_of_a_model():
    known = {"": ("blue", "green", "red")}
    _, targets = encode(source(ROWS, classes=("red", "green", "blue")), {"": "classification"}, None, known=known)
    assert targets.tolist() == [1, 2, 0, 1]


def test_rows_that_are_not_one_hot_are_refused():
    with pytest.raises(DataError, match=r"shape \(2, 2\); a class a sample, or one-hot rows"):
        encode(source([[1, 1], [0, 1]]), {"": "classification"}, None)

"""Samples without labels: tables and arrays, as `predict` is given them."""

import logging
from pathlib import Path

import numpy as np
import pytest

from mltool.data.given import read_given
from mltool.errors import DataError
from mltool.runs.input_schema import InputInfo, InputSchema

INPUTS = (
    InputInfo("age", "float32", (1,), 17.0, 90.0, kind="number"),
    InputInfo("hours_per_week", "float32", (1,), 0.0, 99.0, kind="number", original="hours-per-week", missing=True),
    InputInfo("job", "string", (1,), None, None, kind="category", missing=True),
    InputInfo("note", "string", (), None, None, kind="text"),
)
SCHEMA = InputSchema(INPUTS, "y", (1,), "regression", "values", (), missing_markers=("?", ""))


def test_columns_are_found_by_their_own_names_and_others_are_left_out(tmp_path, caplog):
    caplog.set_level(logging.INFO, "mltool")
    file = tmp_path / "new.csv"
    file.write_text('job,id,hours-per-week,note,age\nclerk,1,40,"two\nlines",30\n?,2,?,b,41\n')
    given = read_given(file, SCHEMA)
    assert given.inputs["age"].tolist() == [[30.0], [41.0]]
    np.testing.assert_array_equal(given.inputs["hours_per_week"], np.float32([[40], [np.nan]]))
    assert given.inputs["job"].tolist() == [["clerk"], [""]]
    assert given.inputs["note"].tolist() == ["two\nlines", "b"]
    assert given.numbers == [2, 4]
    assert "new.csv: the model takes no id" in caplog.text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param("age,job,note\n1,a,b\n", "has no column 'hours-per-week', which the model takes", id="no column"),
        pytest.param(
            "age,hours-per-week,job,note\nold,1,a,b\n", "row 2: 'age' is 'old', a number is expected", id="a word"
        ),
        pytest.param("age,hours-per-week,job,note\n", "has a header and no rows", id="no rows"),
    ],
)
def test_tables_that_do_not_fit_are_refused(content, message, tmp_path):
    file = tmp_path / "new.csv"
    file.write_text(content)
    with pytest.raises(DataError, match=message):
        read_given(file, SCHEMA)


def test_a_table_needs_to_know_its_columns(tmp_path):
    with pytest.raises(DataError, match=r"no input\.json says what its columns are; give a \.npz"):
        read_given(Path("new.csv"), None)

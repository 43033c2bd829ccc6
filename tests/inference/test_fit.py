"""Samples against the schema: what training never saw is said, or refused."""

import logging

import numpy as np
import pytest

from mltool.errors import DataError
from mltool.inference.fit import require_fit
from mltool.runs.input_schema import InputInfo, InputSchema, OutputInfo

AGE = InputInfo("age", "float32", (1,), 17.0, 90.0, kind="number")
RATE = InputInfo("rate", "float32", (1,), 0.0, 1.0, kind="number", original="rate (%)", missing=True)
JOB = InputInfo("job", "string", (1,), None, None, kind="category", missing=True, categories=("clerk", "nurse"))
TOWN = InputInfo("town", "string", (1,), None, None, kind="category", categories=("Bonn", "Ulm"))
IMAGE = InputInfo("image", "float32", (2, 2, 1), 0.0, 255.0, kind="image")


def held(info, values, **options):
    schema = InputSchema((info,), (OutputInfo("y", (1,), "regression", "values"),))
    array = np.asarray(values)
    require_fit({info.name: array.reshape(len(array), *info.shape)}, schema, **options)


@pytest.mark.parametrize(
    ("info", "values"),
    [
        pytest.param(AGE, [9.8, 97.2], id="numbers a little beyond the edges"),
        pytest.param(AGE, [20, 30], id="whole numbers"),
        pytest.param(RATE, [0.5, np.nan], id="a number that may be missing"),
        pytest.param(JOB, ["nurse", ""], id="a category that may be missing"),
        pytest.param(IMAGE, np.arange(4).reshape(1, 4) * 80, id="pixels"),
    ],
)
def test_what_training_had_is_taken_without_a_word(info, values, caplog):
    held(info, values)
    assert caplog.records == []


@pytest.mark.parametrize(
    ("info", "values", "message"),
    [
        pytest.param(AGE, [20.0, np.nan, np.nan], r"'age' is missing \(NaN\) in sample 1, sample 2; .*fill", id="NaN"),
        pytest.param(RATE, [0.5, -np.inf], r"'rate \(%\)' is infinite in sample 1; clean", id="infinity"),
        pytest.param(TOWN, ["Ulm", ""], r"'town' is missing in sample 1; training had a value", id="a missing word"),
        pytest.param(
            JOB,
            ["nurse", "pilot", "cook", "pilot"],
            r"'job' has values that training had not: 'cook', 'pilot', in sample 1, sample 2, sample 3; "
            r"known: clerk, nurse; or --allow-unseen",
            id="unseen categories",
        ),
    ],
)
def test_what_the_model_cannot_know_is_refused(info, values, message):
    with pytest.raises(DataError, match=message):
        held(info, values)


def test_only_the_first_samples_are_named_and_all_are_counted():
    with pytest.raises(DataError, match=r"in row 2, row 3, row 4 and 7 more"):
        held(TOWN, ["Rome"] * 10, name_of=lambda position: f"row {position + 2}")


def test_unseen_categories_may_be_allowed_and_are_told(caplog):
    held(JOB, ["pilot", "clerk"], allow_unseen=True)
    assert [(r.levelno, r.getMessage()) for r in caplog.records] == [
        (logging.WARNING, "'job' has values that training had not: 'pilot', in sample 0")
    ]


def test_numbers_outside_of_the_range_are_told_over_all_batches(caplog):
    values = np.full(3000, 50.0)
    values[[0, 2999]] = [1.0, 120.0]
    held(AGE, values)
    (record,) = caplog.records
    assert record.getMessage() == "'age' is outside of the range of training (17 to 90) in 2 of 3000 samples: 1 to 120"


def test_pixels_that_were_scaled_before_are_told(caplog):
    held(IMAGE, np.linspace(0, 1, 8).reshape(2, 4))
    assert "'image' lies in 0 to 1, training in 0 to 255: scaled before?" in caplog.text

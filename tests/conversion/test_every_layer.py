"""Every layer of the installed Keras from spec to `.tflite`, held against the page that says what becomes of it."""

import re

import pytest
from layer_cases import CASES
from layer_table import FLEX, OUTSIDE, PAGE, REFUSED, WORKS, Row, make_rows, page_of, public_classes

from mltool.spec.catalogue_entries import refused_names

ERROR = re.compile(r"(?<=works, )[0-9.e-]+|(?<=outside, )[0-9.e-]+")

ROOM = 1e-6
"""An error may be tenfold of what the page says, or this: other processors add up in another order."""


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return list(make_rows())


def test_every_public_layer_is_tried_or_refused_with_a_reason():
    found = public_classes()
    assert len(found) > 130
    assert set(found) == set(CASES) | set(refused_names("layer"))
    assert not set(CASES) & set(refused_names("layer"))


def test_the_page_has_a_row_for_every_layer():
    layers = re.findall(r"^\| (\w+)(?: \(.*?\))? \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert layers[1:] == sorted(public_classes())  # the first is the head


def test_the_readme_has_the_numbers_of_the_page():
    rows = [line.split(" | ") for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| ")][1:]
    built = [row for row in rows if row[2] == WORKS]
    converted = [row for row in built if row[4].startswith(WORKS)]
    readme = (PAGE.parents[1] / "README.md").read_text(encoding="utf-8")
    assert f"of {len(rows)}, {len(built)} are built, and {len(converted)} of those convert" in " ".join(readme.split())


@pytest.mark.slow
def test_the_page_says_what_becomes_of_every_layer(rows: list[Row]):
    """Rewritten by `python tests/conversion/layer_table.py`."""
    written, made = (text.splitlines() for text in (PAGE.read_text(encoding="utf-8"), page_of(rows)))
    assert [ERROR.sub("ERROR", line) for line in made] == [ERROR.sub("ERROR", line) for line in written]
    for new, old in zip(made, written, strict=True):
        for one, other in zip(ERROR.findall(new), ERROR.findall(old), strict=True):
            assert float(one) <= max(10 * float(other), ROOM), new


@pytest.mark.slow
def test_what_is_built_answers_alike_as_a_saved_model_and_as_a_file_where_there_is_one(rows: list[Row]):
    built = [row for row in rows if row.build.verdict == WORKS]
    assert len(built) > 120
    assert {row.saved_model.verdict for row in built if row.saved_model} == {WORKS}
    verdicts = {row.layer: row.lite.verdict for row in built if row.lite}
    assert len(verdicts) == len(built)
    assert set(verdicts.values()) == {WORKS, OUTSIDE, FLEX, REFUSED}
    assert sum(verdict == WORKS for verdict in verdicts.values()) > 100

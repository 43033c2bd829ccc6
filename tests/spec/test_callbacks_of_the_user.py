"""Callbacks of the user's and of Keras in a spec, checked without TensorFlow."""

import pytest

from mltool.spec.callbacks import CALLBACKS, REFUSED_CALLBACKS
from mltool.spec.catalogue import names
from mltool.spec.load import dump_spec, load_spec

CODE = "class Watch:\n    def __init__(self, every, quiet=False):\n        pass\n"


@pytest.fixture(autouse=True)
def code(tmp_path):
    (tmp_path / "mine.py").write_text(CODE, encoding="utf-8")


def test_a_callback_is_found_beside_the_spec_and_recorded_with_its_file(bench):
    own = {"python": "mine:Watch", "arguments": {"every": 2}}
    spec = bench.load({"train.callbacks": ["EarlyStopping", own, {**own, "arguments": {"every": 3}}]})
    assert spec.code == (f"{bench.folder / 'mine.py'}:Watch",)
    assert [callback.arguments for callback in spec.train.callbacks] == [{}, {"every": 2}, {"every": 3}]
    assert load_spec(bench.write(dump_spec(spec), "again.yaml")) == spec


@pytest.mark.parametrize(
    ("callback", "expected"),
    [
        pytest.param(
            {"python": "mine:Wach"},
            "python: mine.py has no function 'Wach'; did you mean 'Watch'?",
            id="a misspelt name",
        ),
        pytest.param(
            {"python": "mine:Watch", "arguments": {"evry": 2}},
            "arguments.evry: Watch takes no argument 'evry'; did you mean 'every'?",
            id="a keyword that it does not take",
        ),
        pytest.param(
            {"python": "mine:Watch"},
            "python: Watch needs the argument 'every'; add arguments: {every: ...}",
            id="a keyword that is missing",
        ),
        pytest.param(
            {"python": "mine:Watch", "every": 2},
            "every: no key of a callback of yours; known: python, arguments; keywords of yours go under arguments",
            id="a keyword in the wrong place",
        ),
    ],
)
def test_a_mistake_of_a_callback_is_one_message_for_each(callback, expected, bench):
    assert f"train.callbacks.0.{expected}" in bench.refused({"train.callbacks": [callback]})


def test_every_callback_of_keras_is_taken_or_refused_with_a_reason():
    assert {*CALLBACKS, *REFUSED_CALLBACKS} == set(names("callback"))


@pytest.mark.parametrize(
    "filename",
    ["../../x.csv", "logs/../../x.csv", "/tmp/x.csv", "~/x.csv", "~other/x.csv", ".", ""],
    ids=["above", "above by a folder", "absolute", "at home", "at home of another", "the folder itself", "nothing"],
)
def test_a_file_of_a_callback_outside_of_the_run_is_refused(filename, bench):
    assert bench.refused({"train.callbacks": [{"CSVLogger": {"filename": filename}}]}) == [
        f"train.callbacks.0.CSVLogger.filename: must be a file in callbacks/ of the run (got {filename!r});"
        " write filename: epochs.csv"
    ]


@pytest.mark.parametrize("filename", ["epochs.csv", "logs/epochs..csv"], ids=["a file", "a file in a folder"])
def test_a_file_of_a_callback_in_the_run_is_taken(filename, bench):
    (callback,) = bench.load({"train.callbacks": [{"CSVLogger": {"filename": filename}}]}).train.callbacks
    assert callback.arguments == {"filename": filename}

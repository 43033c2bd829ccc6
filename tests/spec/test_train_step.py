"""`train.step`: what it takes, what may not stand beside it, all of it told without TensorFlow."""

import pytest

from mltool.spec.load import dump_spec, load_spec

CODE = "def step(model, optimizer, loss, batch, rate=0.1):\n    pass\n\n\ndef needy(a, b, c, d, depth):\n    pass\n"
STEP = {"python": "mine:step"}


@pytest.fixture(autouse=True)
def code(tmp_path):
    (tmp_path / "mine.py").write_text(CODE, encoding="utf-8")


def test_a_step_is_found_beside_the_spec_and_recorded_with_its_file(bench):
    spec = bench.load({"train.step": {**STEP, "arguments": {"rate": 0.5}}})
    assert spec.train.step.python == f"{bench.folder / 'mine.py'}:step"
    assert spec.train.step.arguments == {"rate": 0.5}
    assert spec.code == (spec.train.step.python,)
    assert load_spec(bench.write(dump_spec(spec), "again.yaml")) == spec


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param(
            {"train.step": {"python": "mine:stepp"}},
            "train.step.python: mine.py has no function 'stepp'; did you mean 'step'?",
            id="a misspelt name",
        ),
        pytest.param({"train.step": {}}, "train.step.python: is missing", id="no name"),
        pytest.param(
            {"train.step": {**STEP, "arguments": {"rte": 1}}},
            "train.step.arguments.rte: step takes no argument 'rte'; did you mean 'rate'?",
            id="a keyword that it does not take",
        ),
        pytest.param(
            {"train.step": {"python": "mine:needy"}},
            "train.step.python: needy needs the argument 'depth'; add arguments: {depth: ...}",
            id="a keyword that is missing",
        ),
        pytest.param(
            {"train.step": STEP, "train.accumulate": 2},
            "train.accumulate: is done by mltool's step, and train.step is yours; leave it out, and sum",
            id="accumulation",
        ),
        pytest.param(
            {"train.step": STEP, "train.precision": "mixed_float16"},
            "train.precision: scales the loss in mltool's step, and train.step is yours; take mixed_bfloat16",
            id="a scaled loss",
        ),
        *(
            pytest.param(
                {"train.step": STEP, "train.on_nan": answer},
                "train.on_nan: needs a step that is looked at before it changes a weight, and train.step changes them "
                "itself; take stop",
                id=f"{answer} of a step that is not finite",
            )
            for answer in ("skip", "rollback")
        ),
        pytest.param(
            {"train.step": STEP, "train.jit_compile": True},
            "train.jit_compile: compiles mltool's step, and train.step is yours; leave it out",
            id="XLA",
        ),
    ],
)
def test_a_mistake_of_a_step_is_one_message(changes, expected, bench):
    found = bench.refused(changes)
    assert len(found) == 1, found
    assert found[0].startswith(expected)


def test_a_wrong_step_hides_no_other_mistake(bench):
    found = bench.refused({"train.step": {"python": "mine:stepp"}, "train.epochs": 0})
    assert [message.partition(":")[0] for message in found] == ["train.step.python", "train.epochs"]


@pytest.mark.parametrize("more", [{"train.precision": "mixed_bfloat16"}, {"train.jit_compile": False}, {}])
def test_what_may_stand_beside_a_step(more, bench):
    assert bench.load({"train.step": STEP, **more}).train.step is not None

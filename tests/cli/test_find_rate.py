"""`mltool train SPEC --find-lr`: what it prints, what it leaves, and what it goes with."""

from pathlib import Path

import pytest


def test_it_suggests_a_rate_and_leaves_a_curve_and_a_picture_but_no_run(mltool, spec):
    ran = mltool("train", str(spec), "--find-lr", "--json")
    assert ran.code == 0, ran.err
    assert ran.document.keys() == {"suggestion", "lowest", "diverged", "curve", "picture"}
    assert 1e-4 < ran.document["suggestion"] < 1
    assert ran.document["suggestion"] == pytest.approx(ran.document["lowest"] / 10)
    curve, picture = Path(ran.document["curve"]), Path(ran.document["picture"])
    assert curve.parent.parent == Path("runs/small").absolute()
    assert sorted(curve.parent.iterdir()) == [curve, picture]
    assert picture.read_text().startswith("<svg")
    ran = mltool("evaluate")
    assert (ran.code, "no run with a trained model" in ran.err) == (5, True)
    ran = mltool("train", "--resume")
    assert ran.code == 5


REFUSED = {
    "to resume": (("--resume",), 2, "--find-lr trains nothing, and --resume is for a run; leave --resume out"),
    "a folder that holds something": (("my.yaml", "--run-dir", "."), 10, "is there already; nothing is overwritten"),
    "a mistake in the spec": (("my.yaml", "--set", "train.epochs=0"), 3, "train.epochs: must be greater than 0"),
}


@pytest.mark.parametrize(("arguments", "code", "message"), REFUSED.values(), ids=REFUSED)
def test_what_it_refuses(mltool, spec, arguments, code, message):
    ran = mltool("train", *arguments, "--find-lr")
    assert (ran.code, ran.out) == (code, "")
    assert message in ran.err
    assert not Path("runs").exists()

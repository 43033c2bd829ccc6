"""`mltool check`."""

import pytest


def test_a_right_spec_is_ok(mltool, spec):
    ran = mltool("check", "my.yaml")
    assert (ran.code, ran.out, ran.err) == (0, "my.yaml: ok\n", "")


def test_with_json_a_right_spec_is_one_document(mltool, spec):
    ran = mltool("check", "my.yaml", "--json")
    assert (ran.code, ran.document) == (0, {"spec": "my.yaml", "name": "small", "ok": True})


def test_a_mistake_is_a_line_with_its_place(mltool, spec):
    spec.write_text(spec.read_text().replace("units", "unit"))
    ran = mltool("check", "my.yaml")
    assert ran.code == 3
    assert ran.err == "my.yaml:3:36: model.layers.1.Dense.unit: unknown argument; did you mean 'units'?\n"


def test_an_override_is_checked_with_the_file(mltool, spec):
    assert mltool("check", "my.yaml", "--set", "train.epochs=3", "--set", "seed=1").code == 0
    ran = mltool("check", "my.yaml", "--set", "train.epochs=none", "--set", "name=a b")
    assert ran.code == 3
    assert ran.err.splitlines()[0].startswith("--set name=a b: name: must match")
    assert ran.err.splitlines()[1] == "--set train.epochs=none: train.epochs: must be a whole number (got 'none')"


@pytest.mark.parametrize("option", ["-q", "-v"])
def test_a_mistake_is_said_however_quiet_or_loud(option, mltool, spec):
    spec.write_text("")
    assert "the file is empty" in mltool("check", "my.yaml", option).err

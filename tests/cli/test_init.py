"""`mltool init` and `mltool schema`: what they write is right, whole, and overwrites nothing."""

import json
from pathlib import Path
from typing import get_args

import pytest
from jsonschema import Draft202012Validator

from mltool.spec.callbacks import CALLBACKS
from mltool.spec.load import load_spec
from mltool.spec.train import TrainSpec
from mltool.yaml_reader import read_yaml


def test_the_first_spec_is_right_as_it_is(mltool):
    ran = mltool("init", "my.yaml")
    assert (ran.code, ran.out, ran.err) == (0, "wrote my.yaml; train it: mltool run my.yaml\n", "")
    spec = load_spec("my.yaml")
    assert spec.name == "my"
    assert spec.data.source.dataset == "digits"
    assert [entry.quantize for entry in spec.convert] == ["int8", "dynamic"]
    assert [path.name for path in Path().iterdir()] == ["my.yaml"]


def test_the_first_spec_shows_every_section_that_does_something(mltool):
    mltool("init", "my.yaml")
    written = set(read_yaml(Path("my.yaml")).data)
    assert written == {"version", "name", "seed", "data", "model", "train", "convert", "limits"}


def test_the_first_spec_names_every_callback_and_everything_to_keep(mltool):
    mltool("init", "my.yaml")
    train = Path("my.yaml").read_text(encoding="utf-8").partition("\ntrain:")[2].partition("\nconvert:")[0]
    kept = get_args(TrainSpec.model_fields["keep"].annotation)
    assert [name for name in (*CALLBACKS, "python", *kept) if name not in train] == []


@pytest.mark.parametrize(
    ("file", "name"),
    [
        pytest.param("keywords.yaml", "keywords", id="a word"),
        pytest.param("my model (2).yaml", "my-model-2", id="spaces"),
        pytest.param("2024.yaml", "2024", id="a number"),
        pytest.param("null.yaml", "null", id="a word of YAML"),
        pytest.param("数字.yaml", "model", id="letters of others"),
        pytest.param("_a_.yaml", "a", id="underscores around"),
        pytest.param("a.b.yaml", "a-b", id="a dot"),
        pytest.param(f"{'x' * 100}.yaml", "x" * 64, id="a long name"),
        pytest.param(f"{'x' * 63}-yz.yaml", "x" * 63, id="a long name with a dash at its end"),
    ],
)
def test_the_name_is_made_of_the_file(file, name, mltool):
    assert mltool("init", file).code == 0
    assert load_spec(file).name == name


def test_the_name_may_be_given(mltool):
    ran = mltool("init", "my.yaml", "--name", "other_1", "--json")
    assert ran.document == {"spec": "my.yaml", "name": "other_1"}
    assert load_spec("my.yaml").name == "other_1"


@pytest.mark.parametrize("name", ["a b", "", "-a", "x" * 65, "a\n", "ü"])
def test_a_name_that_no_spec_takes_is_refused(name, mltool):
    ran = mltool("init", "my.yaml", f"--name={name}")
    assert ran.code == 2
    assert "cannot be a name; use letters, digits" in ran.err
    assert not Path("my.yaml").exists()


def test_init_overwrites_nothing(mltool):
    Path("my.yaml").write_text("mine")
    ran = mltool("init", "my.yaml")
    assert ran.code == 2
    assert ran.err == "error: my.yaml is there already; init overwrites nothing; name another file\n"
    assert Path("my.yaml").read_text() == "mine"


def test_a_folder_that_cannot_be_written_is_exit_10(mltool):
    Path("file").write_text("")
    ran = mltool("init", "file/my.yaml")
    assert ran.code == 10
    assert "error: cannot write file/my.yaml" in ran.err


# The schema


def test_the_schema_is_one_document(mltool):
    ran = mltool("schema")
    assert (ran.code, ran.err) == (0, "")
    Draft202012Validator.check_schema(ran.document)
    assert mltool("schema", "--json").document == ran.document


def test_the_schema_stands_where_the_first_line_of_a_spec_looks_for_it(mltool):
    mltool("init", "my.yaml")
    first = Path("my.yaml").read_text().splitlines()[0]
    assert first == "# yaml-language-server: $schema=mltool.schema.json"
    assert mltool("schema", "--output", "mltool.schema.json").out == "wrote mltool.schema.json\n"
    schema = json.loads(Path("mltool.schema.json").read_text())
    assert list(Draft202012Validator(schema).iter_errors(read_yaml(Path("my.yaml")).data)) == []


def test_the_schema_overwrites_only_when_told_to(mltool):
    Path("s.json").write_text("mine")
    ran = mltool("schema", "-o", "s.json")
    assert ran.code == 2
    assert ran.err == "error: s.json is there already; overwrite it with --force, or name another file\n"
    assert Path("s.json").read_text() == "mine"
    assert mltool("schema", "-o", "s.json", "--force", "--json").document == {"file": "s.json"}
    assert json.loads(Path("s.json").read_text())["title"] == "mltool spec"


def test_a_name_with_a_line_end_is_written_so_that_the_spec_is_read(mltool):
    data = Path("odd\nname.csv")
    data.write_text("x,label\n" + "".join(f"{index},{'ab'[index % 2]}\n" for index in range(60)), encoding="utf-8")
    ran = mltool("init", "my.yaml", "--from", str(data))
    assert ran.code == 0, ran.err
    assert r"# For odd\nname.csv: 60 samples" in Path("my.yaml").read_text(encoding="utf-8")
    assert load_spec("my.yaml").data.source.path is not None
    assert mltool("check", "my.yaml", "--data").code == 0

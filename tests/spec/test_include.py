"""`include:`: a spec that builds on other files."""

import pytest

from mltool.errors import SpecError
from mltool.spec.load import dump_spec, load_spec

BASE = """name: base
data: {source: {path: ../arrays.npz}, batch_size: 32}
model: {layers: [Flatten, {Dense: {units: 10}}]}
train:
  epochs: 3
  optimizer: {Adam: {learning_rate: 0.1}}
  loss: {SparseCategoricalCrossentropy: {from_logits: true}}
  metrics: [accuracy]
"""


@pytest.fixture
def write(tmp_path):
    (tmp_path / "below").mkdir()

    def to(name, text):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    to("below/base.yaml", BASE)
    return to


def test_maps_are_merged_lists_replaced_and_the_including_file_wins(write, tmp_path):
    text = "include: below/base.yaml\nname: mine\nmodel: {layers: [{Dense: {units: 2}}]}\ntrain: {epochs: 5}\n"
    spec = load_spec(write("mine.yaml", text))
    assert (spec.name, spec.train.epochs, spec.data.batch_size) == ("mine", 5, 32)
    assert [layer.layer.name for layer in spec.model.layers] == ["Dense"]
    assert spec.train.optimizer.arguments == {"learning_rate": 0.1}
    assert spec.data.source.path == str(tmp_path / "below" / ".." / "arrays.npz")


def test_another_keras_object_replaces_the_included_one_whole(write):
    spec = load_spec(write("mine.yaml", "include: [below/base.yaml]\ntrain: {optimizer: {SGD: {momentum: 0.9}}}\n"))
    assert (spec.train.optimizer.name, spec.train.optimizer.arguments) == ("SGD", {"momentum": 0.9})


def test_the_later_of_two_files_wins_and_a_file_may_include_in_its_turn(write):
    write("below/more.yaml", "include: base.yaml\nseed: 1\ntrain: {epochs: 7}\n")
    write("last.yaml", "seed: 2\n")
    spec = load_spec(write("mine.yaml", "include: [below/more.yaml, last.yaml]\nname: mine\n"))
    assert (spec.seed, spec.train.epochs, spec.train.metrics[0].name) == (2, 7, "accuracy")


def test_a_data_set_by_name_beats_the_included_path(write):
    spec = load_spec(write("mine.yaml", "include: below/base.yaml\ndata: {source: {dataset: digits}}\n"))
    assert (spec.data.source.dataset, spec.data.source.path) == ("digits", None)


def test_the_resolved_spec_needs_the_other_files_no_more(write, tmp_path):
    spec = load_spec(write("mine.yaml", "include: below/base.yaml\nname: mine\n"))
    alone = write("alone.yaml", dump_spec(spec))
    (tmp_path / "below" / "base.yaml").unlink()
    assert load_spec(alone) == spec


def test_a_mistake_is_told_in_the_file_that_it_stands_in(write, tmp_path):
    write("below/base.yaml", BASE.replace("epochs: 3", "epochs: 0"))
    path = write("mine.yaml", "include: below/base.yaml\nnam: mine\n")
    with pytest.raises(SpecError) as caught:
        load_spec(path)
    places = {(message.file, message.line, message.column, message.key) for message in caught.value.messages}
    assert places == {
        (str(path), 2, 1, "nam"),
        (str(path.parent / "below/base.yaml"), 5, 11, "train.epochs"),
    }


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("include: none.yaml\n", r"mine\.yaml:1:10: include: none\.yaml is not there", id="no such file"),
        pytest.param("include: 3\n", r"mine\.yaml:1:10: include: must be a file or a list of files \(got 3\)", id="3"),
        pytest.param("include: [{a: b}]\n", "must be a file or a list of files", id="a map in the list"),
        pytest.param(
            "name: a\ninclude: mine.yaml\n", "2:10: include: mine.yaml includes this file in a circle", id="self"
        ),
        pytest.param(
            "include: other.yaml\n", r"other\.yaml:1:10: include: mine.yaml includes this file in a", id="two"
        ),
    ],
)
def test_a_wrong_include_is_told_with_its_place(text, expected, write):
    write("other.yaml", "include: mine.yaml\n")
    with pytest.raises(SpecError, match=expected):
        load_spec(write("mine.yaml", text))


def test_a_long_chain_of_files_is_no_circle(write):
    for number in range(12):
        write(f"{number}.yaml", f"include: {number + 1}.yaml\n")
    with pytest.raises(SpecError, match=r"9\.yaml would be file 10 of files that include one another; 9 are the most"):
        load_spec(write("mine.yaml", "include: 1.yaml\n"))


def test_a_set_cannot_include(write):
    with pytest.raises(SpecError, match="include: cannot be set from the command line"):
        load_spec(write("mine.yaml", BASE), ["include=below/base.yaml"])

"""Samples in a table: what is found in one, and what is wrong with the tables that people have."""

import csv
import logging

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from mltool.data.dataset import Dataset
from mltool.data.tables import table_file
from mltool.data.tables.table import identifiers, load_table
from mltool.errors import DataError
from mltool.spec.load import load_spec

MISSING = ("", "NA", "nan")


@pytest.fixture
def load(tmp_path):
    """Writes tables (text, bytes or Arrow) and reads them: the first one, and those of splits as keywords."""

    def load(content, *, name="t.csv", missing=MISSING, splits=None, **more):
        paths = {}
        for split, one in {"": content, **(splits or {})}.items():
            paths[split] = tmp_path / (f"{split}_{name}" if split else name)
            if isinstance(one, pa.Table):
                pyarrow.parquet.write_table(one, paths[split])
            else:
                paths[split].write_bytes(one if isinstance(one, bytes) else one.encode())
        return load_table(paths, missing=missing, **more)

    return load


def values(source, name):
    assert source.inputs[name].shape == (source.num_samples, 1)
    return source.inputs[name][:, 0].tolist()


MIXED = """\
age,city,words,label
31,Rome,a sunny day by the sea,yes
47.5,Oslo,rain falls on the fjord,no
-2e1,Rome,the train left too early,yes
"""


def test_every_column_becomes_an_input_of_its_kind(load):
    source = load(MIXED)
    assert source.kinds == {"age": "number", "city": "category", "words": "text"}
    assert values(source, "age") == [31, 47.5, -20]
    assert source.inputs["age"].dtype == np.float32
    assert values(source, "city") == ["Rome", "Oslo", "Rome"]
    assert source.inputs["words"].shape == (3,)
    assert source.inputs["words"][1] == "rain falls on the fjord"
    assert source.targets.tolist() == ["yes", "no", "yes"]
    assert (source.target_name, source.given, source.originals) == ("label", {}, {})
    assert source.weights is None
    assert source.groups is None


def test_the_plan_is_told_with_the_way_to_change_it(load, caplog):
    with caplog.at_level(logging.INFO, "mltool"):
        load(MIXED)
    assert "target label; number: age; category: city; text: words (data.source.columns says otherwise)" in caplog.text


def test_kinds_of_the_spec_beat_inferred_ones(load):
    source = load("code,city,label\n1,a,x\n2,b,y\n", kinds={"code": "category", "city": "ignore"})
    assert source.kinds == {"code": "category"}
    assert values(source, "code") == ["1", "2"]


def test_inputs_of_the_spec_take_their_columns_and_no_others(load):
    source = load(MIXED, inputs={"years": "age", "place": "city"})
    assert source.kinds == {"years": "number", "place": "category"}
    assert source.originals == {"years": "age", "place": "city"}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        pytest.param('a,label\n"x, y",p\nz,q\n', ["x, y", "z"], id="a separator in quotes"),
        pytest.param('a,label\n"say ""hi""",p\nz,q\n', ['say "hi"', "z"], id="quotes in quotes"),
        pytest.param('a,label\n"x\ny",p\nz,q\n', ["x\ny", "z"], id="a line end in quotes"),
        pytest.param('a,label\n5" pipe,p\nz,q\n', ['5" pipe', "z"], id="a quote inside of a field"),
        pytest.param('a,label\nz,p\ny,"q"', ["z", "y"], id="no line end at the end"),
        pytest.param("a,label\n  x ,p\ny\t,q\n", ["x", "y"], id="spaces around"),
        pytest.param("a , label\nx, p\ny, q\n", ["x", "y"], id="spaces around the names"),
        pytest.param("a,label\r\nx,p\r\ny,q\r\n", ["x", "y"], id="line ends of Windows"),
        pytest.param("a,label\rx,p\ry,q\r", ["x", "y"], id="line ends of old Macs"),
        pytest.param("\n\na,label\nx,p\n\ny,q\n\n", ["x", "y"], id="blank lines"),
        pytest.param(b"\xef\xbb\xbfa,label\nx,p\ny,q\n", ["x", "y"], id="a byte order mark"),
        pytest.param("a,label\nä,p\n日本,q\n", ["ä", "日本"], id="beyond ASCII"),
    ],
)
def test_fields_are_read_as_they_are_meant(content, expected, load):
    source = load(content)
    assert values(source, "a") == expected
    assert source.targets.tolist() == ["p", "q"]


def test_a_text_longer_than_pythons_csv_takes_is_read_and_leaves_its_limit_alone(load):
    before = csv.field_size_limit()
    source = load('a,b,label\n"' + "long\n" * 40_000 + '",1,p\ny,2,q\n')
    assert len(source.inputs["a"][0]) == 5 * 40_000 - 1
    assert list(source.names) == ["t.csv row 2", "t.csv row 40003"]
    assert csv.field_size_limit() == before


@pytest.mark.parametrize(
    ("content", "name", "more"),
    [
        pytest.param("a;b;label\n1,5;2;p\n2;3;q\n", "t.csv", {}, id="semicolons"),
        pytest.param("a\tb\tlabel\n1,5\t2\tp\n2\t3\tq\n", "t.csv", {}, id="tabs"),
        pytest.param("a|b|label\n1,5|2|p\n2|3|q\n", "t.csv", {}, id="bars"),
        pytest.param("a\tb\tlabel\n1,5\t2\tp\n2\t3\tq\n", "t.TSV", {}, id="tsv"),
        pytest.param("a:b:label\n1,5:2:p\n2:3:q\n", "t.csv", {"separator": ":"}, id="as the spec says"),
    ],
)
def test_separators_are_found(content, name, more, load):
    source = load(content, name=name, **more)
    assert values(source, "a") == ["1,5", "2"]  # a comma is no decimal point: a category
    assert values(source, "b") == [2, 3]


def test_a_separator_that_is_no_comma_is_told(load, caplog):
    with caplog.at_level(logging.INFO, "mltool"):
        load("a;label\n1;p\n2;q\n")
    assert "fields are separated by ';' (data.source.separator says another)" in caplog.text


def test_markers_are_missing_in_numbers_and_in_words(load):
    source = load("n,c,label\n1,x,p\nNA,NA,q\n,,p\n ? ,?,q\nnan,y,p\n", missing=("", "NA", "nan", "?"))
    np.testing.assert_array_equal(values(source, "n"), [1, np.nan, np.nan, np.nan, np.nan])
    assert values(source, "c") == ["x", "", "", "", "y"]


def test_a_column_that_is_missing_everywhere_is_left_out_and_told(load, caplog):
    source = load("a,b,label\nNA,1,p\n,2,q\n")
    assert list(source.inputs) == ["b"]
    assert "column 'a' is empty in every row: left out" in caplog.text


def test_a_marker_counts_in_numbers_of_parquet_too(load):
    table = pa.table({"n": [1.5, -999.0, None], "whole": [7, None, -999], "label": ["p", "q", "p"]})
    source = load(table, name="t.parquet", missing=("", "-999"))
    np.testing.assert_array_equal(values(source, "n"), [1.5, np.nan, np.nan])
    np.testing.assert_array_equal(values(source, "whole"), [7, np.nan, np.nan])


def test_columns_of_parquet_keep_what_they_are(load):
    table = pa.table(
        {
            "flag": [True, False, None],
            "city": pa.array(["Rome", "Oslo", "Rome"]).dictionary_encode(),
            "long": pa.array(["a", "b", None], pa.large_string()),
            "price": pa.array([1, 2, 3]).cast(pa.decimal128(22, 2)),
            "nothing": pa.nulls(3),
            "label": [2, 0, 2],
        }
    )
    source = load(table, name="t.parquet")
    assert source.kinds == {"flag": "category", "city": "category", "long": "category", "price": "number"}
    assert values(source, "flag") == ["true", "false", ""]
    assert values(source, "city") == ["Rome", "Oslo", "Rome"]
    assert values(source, "long") == ["a", "b", ""]
    assert values(source, "price") == [1, 2, 3]
    assert source.targets.dtype == np.int64
    assert source.targets.tolist() == [2, 0, 2]
    assert list(source.names) == ["t.parquet row 1", "t.parquet row 2", "t.parquet row 3"]


@pytest.mark.parametrize(
    ("header", "found"),
    [
        pytest.param("a,Label,y", "Label", id="label before y, in any case"),
        pytest.param("y,a,class", "class", id="class before y"),
        pytest.param("target,a,b", "target", id="target"),
        pytest.param("a,Y,b", "Y", id="y"),
    ],
)
def test_the_target_is_found_by_its_name(header, found, load, caplog):
    assert load(f"{header}\n1,2,3\n4,5,6\n").target_name == found
    assert "the target is the last column" not in caplog.text


def test_else_the_last_column_is_the_target_and_that_is_told(load, caplog):
    assert load("a,b,quality\n1,2,3\n4,5,6\n").target_name == "quality"
    assert "the target is the last column, 'quality' (data.source.target names another)" in caplog.text


def test_the_target_of_the_spec_beats_the_names(load):
    source = load("a,b,label\n1,2,3\n4,5,6\n", targets={"": "a"})
    assert source.targets.tolist() == ["1", "4"]
    assert list(source.inputs) == ["b", "label"]


def test_targets_of_a_regression_are_numbers(load):
    source = load("a,y\n1,2.5\n2,-3e2\n", values={""})
    assert source.targets.tolist() == [2.5, -300]
    assert source.targets.dtype == np.float32


def test_columns_for_weight_group_and_split_are_no_inputs(load):
    content = "a,w,g,s,label\n1,0,u,train,p\n2,1.5,u,Test,q\n3,2,v,VAL,p\n4,2,v,train,p\n"
    source = load(content, weight="w", group="g", split_column="s")
    assert list(source.inputs) == ["a"]
    assert source.weights.tolist() == [0, 1.5, 2, 2]
    assert source.weights.dtype == np.float32
    assert source.groups.tolist() == ["u", "u", "v", "v"]
    assert {name: ids.tolist() for name, ids in source.given.items()} == {
        "train": [0, 3],
        "validation": [2],
        "test": [1],
    }


NAMES = {
    "plain": "plain",
    "a b": "a_b",
    "A-B": "A_B_2",
    "1st": "column_1st",
    "class": "column_class",
    "_hidden": "hidden",
    "é": "column",
    "%": "column_2",
}


def test_names_of_inputs_are_identifiers_each_once_in_any_case():
    assert identifiers(list(NAMES)) == {name: column for column, name in NAMES.items()}


def test_a_name_that_is_no_identifier_keeps_its_original(load):
    source = load("hours per week,ok,label\n1,2,p\n3,4,q\n")
    assert list(source.inputs) == ["hours_per_week", "ok"]
    assert source.originals == {"hours_per_week": "hours per week"}


def test_files_of_splits_are_planned_by_the_training_rows(load):
    # The code looks like a number in the test file, and its columns come in another order with one more.
    source = load(
        "code,n,label\nx,1,p\ny,2,q\nx,3,p\n",
        splits={"validation": "code,n,label\nx,5,q\n", "test": "extra,label,n,code\n9,q,7,11\n9,p,8,12\n"},
    )
    assert source.kinds == {"code": "category", "n": "number"}
    assert values(source, "code") == ["x", "y", "x", "x", "11", "12"]
    assert values(source, "n") == [1, 2, 3, 5, 7, 8]
    assert source.targets.tolist() == ["p", "q", "p", "q", "q", "p"]
    assert {name: list(ids) for name, ids in source.given.items()} == {
        "train": [0, 1, 2],
        "validation": [3],
        "test": [4, 5],
    }
    assert [source.name_of(index) for index in (2, 3, 5)] == [
        "t.csv row 4",
        "validation_t.csv row 2",
        "test_t.csv row 3",
    ]


@pytest.mark.parametrize(
    ("test", "expected"),
    [
        pytest.param(
            "n,label\n1,p\n", r"test_t\.csv has no column 'code', t\.csv has; give both the same header", id="no"
        ),
        pytest.param(
            "code,n\nx,1\n", r"test_t\.csv has no column 'label', which data\.source\.target names", id="target"
        ),
        pytest.param("code,n,label\nx,1,p\ny,word,q\n", r"test_t\.csv, row 3: 'n' is 'word', a number", id="a word"),
    ],
)
def test_a_test_file_that_does_not_fit_is_said(test, expected, load):
    with pytest.raises(DataError, match=expected):
        load("code,n,label\nx,1,p\ny,2,q\n", splits={"test": test})


def test_a_test_file_cannot_have_a_column_of_splits(load):
    content = "a,s,label\n1,train,p\n2,test,q\n"
    with pytest.raises(DataError, match="brings splits of its own; leave test_path and validation_path out"):
        load(content, splits={"test": content}, split_column="s")


UP = "a,b,label\n1,x,p\n"

WRONG = {
    "an empty file": ("", {}, r"t\.csv is empty; it needs a header, and a row a sample"),
    "blank lines alone": ("\n \n\n", {}, r"t\.csv is empty"),
    "a header alone": ("a,b,label\n", {}, r"t\.csv has a header and no rows; it needs a row a sample"),
    "a header without a line end": ("a,b,label", {}, r"t\.csv has a header and no rows"),
    "a name twice": ("a,b,a\n1,2,3\n", {}, r"the column 'a' stands twice in the header; rename one of them"),
    "no name": ("a,,label\n1,2,3\n", {}, r"column 2 has no name; name it"),
    "too few fields": (UP + "2,y\n", {}, r"t\.csv, row 3: 2 fields, the header has 3; every row needs as many"),
    "too many fields": (UP + "2,y,q,r\n", {}, r"t\.csv, row 3: 4 fields, the header has 3; .* needs quotes"),
    "ragged below a quoted line end": ('a,b,label\n1,"x\n\ny",p\n2,y\n', {}, r"t\.csv, row 5: 2 fields"),
    "ragged far below": (UP + "1,x,p\n" * 60_000 + "\n2,y\n", {}, r"t\.csv, row 60004: 2 fields"),
    "a quote never closed": ('a,b,label\n1,"x,p\n2,y,q\n', {}, r"t\.csv, row 2: 2 fields.* needs quotes, in pairs"),
    "a quote never closed at the end": (
        UP + '2,y,"q\n3,z,p\n',
        {},
        r"t\.csv, row 3: a quote is opened and never closed; close it, or double it",
    ),
    "Latin-1": (UP.encode() + "2,é,q\n".encode("latin-1"), {}, r"t\.csv, row 3: 'b' is no UTF-8; save the file as"),
    "Latin-1 in the header": ("a,é,label\n1,x,p\n".encode("latin-1"), {}, r"t\.csv, row 1: column 2 is no UTF-8"),
    "UTF-16": (UP.encode("utf-16"), {}, r"t\.csv is no text file: it holds zero bytes; save it as UTF-8"),
    "no target": ("a,label\n1,p\n\n2,\n3,\n", {}, r"2 rows have no 'label' \(first: row 4\); fill them in, or take"),
    "infinity": ("a,label\n1,p\n-inf,q\n", {}, r"t\.csv, row 3: 'a' is '-inf'; a finite number is expected"),
    "beyond float32": ("a,label\n1,p\n1e39,q\n", {}, r"t\.csv, row 3: 'a' is '1e39'; a finite number"),
    "a word among numbers": (
        'a,b,label\n1,"x\ny",p\n\nten,z,q\n',
        {"kinds": {"a": "number"}},
        r"t\.csv, row 5: 'a' is 'ten', a number is expected; data\.source\.missing takes markers; .* \{a: category\}",
    ),
    "a word as target of a regression": (
        "a,y\n1,2\n2,two\n",
        {"values": {""}},
        r"t\.csv, row 3: 'y' is 'two', a number is expected; mend it, or use a loss of classes",
    ),
    "NaN as target of a regression": ("a,y\n1,2\n2,nan\n", {"values": {""}}, r"1 rows have no 'y' \(first: row 3\)"),
    "infinity as target": ("a,y\n1,2\n2,inf\n", {"values": {""}}, r"row 3: 'y' is 'inf'; a finite number"),
    "a negative weight": (
        "a,w,label\n1,1,p\n\n2,-0.5,q\n",
        {"weight": "w"},
        r"the weight of t\.csv row 4 is -0\.5; 0 or more is expected",
    ),
    "a missing weight": ("a,w,label\n1,1,p\n2,nan,q\n", {"weight": "w"}, r"the weight of t.csv row 3 is missing; 0 or"),
    "an infinite weight": ("a,w,label\n1,1,p\n2,inf,q\n", {"weight": "w"}, r"row 3: 'w' is 'inf'; a finite number"),
    "a word as weight": ("a,w,label\n1,1,p\n2,much,q\n", {"weight": "w"}, r"row 3: 'w' is 'much', a number .* 0 or more"),  # noqa: E501
    "no such weight": (UP, {"weight": "w"}, r"no column 'w', which data\.source\.weight names; it has: a, b, label"),
    "no such group": (UP, {"group": "labels"}, r"which data\.source\.group names; did you mean 'label'\?"),
    "no such split column": (UP, {"split_column": "s"}, r"no column 's', which data\.split\.column names"),
    "no such target": (UP, {"targets": {"": "lable"}}, r"which data\.source\.target names; did you mean 'label'\?"),
    "no such column": (UP, {"kinds": {"c": "text"}}, r"no column 'c', which data\.source\.columns names"),
    "no such input": (UP, {"inputs": {"x": "c"}}, r"no column 'c', which data\.inputs\.x names"),
    "an unknown split": (
        "a,s,label\n1,train,p\n2,tset,q\n",
        {"split_column": "s"},
        r"t\.csv, row 3: 's' is 'tset'; train, validation or test is expected",
    ),
    "nothing but the target": ("label\np\nq\n", {}, r"has no column that is an input; data\.source\.columns says"),
}  # fmt: skip


@pytest.mark.parametrize(("content", "more", "expected"), WRONG.values(), ids=WRONG.keys())
def test_what_is_wrong_is_said_with_row_and_column_and_cure(content, more, expected, load):
    with pytest.raises(DataError, match=expected) as caught:
        load(content, **more)
    assert caught.value.exit_code == 4
    assert "t.csv" in str(caught.value)


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        pytest.param([[1], [2]], r"t\.parquet: 'a' holds list<.*>; numbers or text are expected", id="lists"),
        pytest.param([{"x": 1}, {"x": 2}], r"'a' holds struct<x: int64>; numbers or text", id="maps"),
        pytest.param([b"\xff", b"b"], r"'a' holds binary; numbers or text are expected", id="bytes"),
        pytest.param([1.0, float("inf")], r"t\.parquet, row 2: 'a' is inf; a finite number", id="infinity"),
    ],
)
def test_columns_of_parquet_that_no_model_takes_are_said(column, expected, load):
    with pytest.raises(DataError, match=expected):
        load(pa.table({"a": column, "b": [1, 2], "label": ["p", "q"]}), name="t.parquet")


def test_an_infinite_class_in_parquet_is_said(load):
    with pytest.raises(DataError, match="the targets: 1 samples hold NaN or infinity"):
        load(pa.table({"a": [1, 2], "label": [0.0, float("inf")]}), name="t.parquet")


@pytest.mark.parametrize("content", [b"", b"PAR1", b"a,b\n1,2\n"], ids=["empty", "cut off", "text"])
def test_a_damaged_parquet_file_is_said(content, load):
    with pytest.raises(DataError, match=r"t\.parquet cannot be read as Parquet: "):
        load(content, name="t.parquet")


def test_a_folder_that_is_called_like_a_table_is_said(tmp_path):
    (tmp_path / "t.csv").mkdir()
    with pytest.raises(DataError, match=r"t\.csv is no plain file; name a \.csv, \.tsv or \.parquet file"):
        load_table({"": tmp_path / "t.csv"})


def test_texts_too_long_beside_the_others_are_refused(load, monkeypatch):
    monkeypatch.setattr(table_file, "MAX_TEXT_BYTES", 1000)
    assert load("a,label\n" + "x" * 100 + ",p\ny,q\n").num_samples == 2  # 2 texts of 100 characters of 4 bytes
    with pytest.raises(DataError, match=r"a text of 'a' has 100 characters: too long beside 3 rows; cut long texts"):
        load("a,label\n" + "x" * 100 + ",p\ny,q\nz,p\n")


LABELS_WITH_DOTS = "n,label\n" + "".join(f"{i},{('<=50K', '>50K', '<=50K.', '>50K.')[i % 4]}\n" for i in range(40))


def dataset_of(tmp_path, source):
    (tmp_path / "t.csv").write_text(LABELS_WITH_DOTS)
    (tmp_path / "s.yaml").write_text(
        f"name: s\ndata: {{source: {{path: t.csv{source}}}}}\nmodel: {{layers: [{{Dense: {{units: 2}}}}]}}\n"
        "train: {loss: {SparseCategoricalCrossentropy: {from_logits: true}}}\n"
    )
    return Dataset(load_spec(tmp_path / "s.yaml"))


def test_labels_that_end_in_a_dot_are_those_without_after_a_map(tmp_path):
    assert dataset_of(tmp_path, "").labels == ("<=50K", "<=50K.", ">50K", ">50K.")
    mapped = dataset_of(tmp_path, ", labels: {'<=50K.': '<=50K', '>50K.': '>50K'}")
    assert mapped.labels == ("<=50K", ">50K")
    assert mapped.targets.tolist() == [0, 1] * 20


def test_a_label_that_is_mapped_and_not_there_is_said(tmp_path):
    with pytest.raises(DataError, match=r"has no label '50K', which labels renames; it has: <=50K, <=50K\., >50K"):
        dataset_of(tmp_path, ", labels: {50K: '<=50K'}")


@pytest.mark.parametrize("on_disk", [False, True])
@pytest.mark.parametrize("first", [2**53, 12345678901234567890])
def test_integers_that_numbers_cannot_tell_apart_are_left_out_or_words(first, on_disk, tmp_path, caplog):
    path = tmp_path / "ids.csv"
    rows = [f"{first + index},{index % 7},{index % 2}" for index in range(20)]
    path.write_text("id,x,label\n" + "\n".join(rows) + "\n", encoding="utf-8")
    assert list(load_table({"": path}, targets={"": "label"}, on_disk=on_disk).inputs) == ["x"]
    assert "column 'id' holds integers that numbers cannot tell apart: left out" in caplog.text
    words = load_table({"": path}, targets={"": "label"}, kinds={"id": "category"}, on_disk=on_disk).inputs["id"]
    assert words[:3].reshape(-1).tolist() == [str(first), str(first + 1), str(first + 2)]
    numbers = load_table({"": path}, targets={"": "label"}, kinds={"id": "number"}, on_disk=on_disk).inputs["id"]
    assert numbers[0] == np.float32(first)


@pytest.mark.parametrize("values", [["10000000000000000", "0.5", "1.5"], ["9007199254740992", "18014398509481984", "4"],
                                    ["1e20", "2.5e17", "3"]])  # fmt: skip
def test_large_numbers_that_are_told_apart_are_numbers(values, tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("x,label\n" + "".join(f"{value},{index % 2}\n" for index, value in enumerate(values)))
    for on_disk in (False, True):
        assert load_table({"": path}, targets={"": "label"}, on_disk=on_disk).kinds == {"x": "number"}


def _with_column(tmp_path, values):
    path = tmp_path / "t.csv"
    rows = [f'"{value}",{index % 7},{index % 2}' for index, value in enumerate(values)]
    path.write_text("v,x,label\n" + "\n".join(rows) + "\n", encoding="utf-8")
    return load_table({"": path}, targets={"": "label"})


@pytest.mark.parametrize("written", ["{:d},{:03d}", "{:d},{:d}", "${:d}.{:d}", "{:d}.{:d} %"])
def test_numbers_that_are_not_written_as_such_are_told(written, tmp_path, caplog):
    # Hand check: 60 rows, each with a value of its own, so that the column would be left out as a name of the row.
    source = _with_column(tmp_path, [written.format(index + 1, (7 * index + 100) % 1000) for index in range(60)])
    assert list(source.inputs) == ["x"]
    first = written.format(1, 100)
    assert (
        f"'v' holds numbers that are not written as such, as '{first}', and counts as words; write them" in caplog.text
    )


def test_names_of_rows_are_left_out_of_small_tables_too(tmp_path, caplog):
    assert list(_with_column(tmp_path, [f"ticket {index}" for index in range(60)]).inputs) == ["x"]
    assert "column 'v' is another value in nearly every row: left out (columns: {v: category} or" in caplog.text


@pytest.mark.parametrize("values", [[f"n{index % 30}" for index in range(60)], ["10%", "20%"] * 30, ["1", "3+"] * 30])
def test_categories_are_taken_without_a_remark(values, tmp_path, caplog):
    assert _with_column(tmp_path, values).kinds["v"] == "category"
    assert "warning" not in caplog.text.lower()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        pytest.param("5.1,3.5,setosa\n" + "4.9,3.0,setosa\n5.0,3.1,other\n" * 5, "'5.1'", id="numbers"),
        pytest.param("ham,hello there\n" + "ham,how are you\nspam,buy this now\n" * 5, "'ham'", id="words"),
    ],
)
def test_a_file_without_a_header_is_told(text, shown, tmp_path, caplog):
    path = tmp_path / "t.csv"
    path.write_text(text)
    load_table({"": path}, targets={"": text.splitlines()[0].split(",")[0 if "ham" in text else -1]})
    assert f"t.csv: the first row names the columns, and {shown} looks like a value" in caplog.text


@pytest.mark.parametrize(
    "header",
    ["0,1,2,label", "2021,2020,2019,label", "400.5,410.5,90,label", "a,b,c,label", "2020,b,inf,label", "3,b,c,last"],
)
def test_names_that_are_numbers_in_order_are_names(header, tmp_path, caplog):
    path = tmp_path / "t.csv"
    path.write_text(header + "\n" + "1,2.5,3,x\n4,5.5,7,y\n8,9.5,9,y\n")
    load_table({"": path}, targets={"": header.rpartition(",")[2]})
    assert ("looks like a value" in caplog.text) == ("90" in header)


def test_columns_of_parquet_that_have_one_name_are_refused(tmp_path):
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    table = pa.table([pa.array([1, 2]), pa.array([3, 4]), pa.array(["a", "b"])], names=["x", "x", "label"])
    parquet.write_table(table, tmp_path / "t.parquet")
    for on_disk in (False, True):
        with pytest.raises(DataError, match="the column 'x' stands twice in the header; rename one of them"):
            load_table({"": tmp_path / "t.parquet"}, targets={"": "label"}, on_disk=on_disk)

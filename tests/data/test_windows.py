"""Windows over a table: rows and targets worked out by hand, cuts that none crosses, and splits that share no row."""

import logging
import re

import numpy as np
import pytest
import yaml

from mltool.data.dataset import Dataset
from mltool.data.describe import describe_input
from mltool.data.given import read_given
from mltool.data.scan import scan
from mltool.data.tables.windows import Window, load_windows
from mltool.errors import DataError, SpecError
from mltool.runs.input_schema import InputSchema, OutputInfo
from mltool.spec.load import load_spec

MISSING = ("", "NA")


@pytest.fixture
def load(tmp_path):
    """Writes a table and reads its windows."""

    def load(text, window=(3, 2, 1), *, target="load", **more):
        path = tmp_path / "t.csv"
        path.write_text(text, encoding="utf-8")
        return load_windows(path, Window(*window), target=target, missing=MISSING, **more)

    return load


@pytest.fixture
def spec(tmp_path):
    """A spec of windows over `t.csv`."""

    def make(rows=None, train=None, window=None, split=None, **source):
        if rows is not None:
            (tmp_path / "t.csv").write_text(rows, encoding="utf-8")
        asked = {"path": "t.csv", "target": "load", "window": window or {"length": 3, "horizon": 2}, **source}
        document = {
            "name": "s",
            "data": {"source": asked, "split": split or {"by": "order"}},
            "model": {"layers": ["Flatten", {"Dense": {"units": 2}}]},
            "train": {"loss": "mse", **(train or {})},
        }
        (tmp_path / "s.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")
        return load_spec(tmp_path / "s.yaml")

    return make


def table(count, head="load,heat", begin=0):
    """Rows of `load` 0, 1, 2 ... and `heat` 100, 101, 102 ..."""
    return head + "\n" + "".join(f"{i},{100 + i}\n" for i in range(begin, begin + count))


def loads(source):
    """What every window sees of `load`."""
    return source.inputs["series"][:][..., source.windows.columns.index("load")].astype(int).tolist()


# What a window holds


def test_a_window_is_rows_of_all_columns_and_its_target_the_next_of_one(load):
    source = load(table(8), (3, 2, 2))
    assert source.windows.columns == ("load", "heat")
    # Rows 0-2, 2-4 and, with its target in rows 7 and 8 that are not there, no third one from row 4.
    assert source.inputs["series"][:].tolist() == [
        [[0, 100], [1, 101], [2, 102]],
        [[2, 102], [3, 103], [4, 104]],
    ]
    assert source.targets.tolist() == [[3, 4], [5, 6]]
    assert (source.inputs["series"].dtype, source.targets.dtype) == (np.float32, np.float32)
    assert (source.kinds, source.target_name) == ({"series": "series"}, "load")
    assert list(source.names) == ["t.csv window from row 2", "t.csv window from row 4"]


def test_the_last_window_ends_with_the_table(load):
    assert load(table(8)).targets[-1].tolist() == [6, 7]


def test_windows_share_the_memory_of_the_rows(load):
    source = load(table(1000), (100, 1, 1))
    windows = source.inputs["series"]
    assert windows.shape == (900, 100, 2)
    rows = windows.stored_in[0]
    assert rows.base.nbytes == 1000 * 3 * 4  # load, heat and the target
    assert np.shares_memory(windows._windows, rows)
    assert windows[[5, 2]][:, 0, 0].tolist() == [5, 2]
    assert windows[7][0].tolist() == [7, 107]


def test_a_column_may_be_left_out_the_target_too(load):
    source = load(table(8), kinds={"load": "ignore"})
    assert source.windows.columns == ("heat",)
    assert source.targets[0].tolist() == [3, 4]


def test_words_are_refused_with_the_cure(load):
    text = "load,sky,day\n" + "".join(
        f"{i},{'blue' if i % 2 else 'gray'},{'mo' if i % 3 else 'tu'}\n" for i in range(9)
    )
    with pytest.raises(DataError) as raised:
        load(text)
    assert "'sky', 'day' hold words" in raised.value.messages[0].message
    assert "data.source.columns: {sky: ignore, day: ignore}" in raised.value.messages[0].hint
    assert load(text, kinds={"sky": "ignore", "day": "ignore"}).windows.columns == ("load",)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(
            {"target": "lod"}, "no column 'lod', which data.source.target names; did you mean 'load'", id="target"
        ),
        pytest.param({"group": "meter"}, "no column 'meter', which data.source.group names", id="group"),
        pytest.param({"time": "when"}, "no column 'when', which data.source.time names", id="time"),
        pytest.param(
            {"window": (7, 2, 1)}, "a window takes 9 rows .7 and a horizon of 2., and the longest .* has 8", id="long"
        ),
        pytest.param({"kinds": {"load": "ignore", "heat": "ignore"}}, "has no column that is an input", id="no input"),
    ],
)
def test_what_is_not_there_is_told(change, message, load):
    with pytest.raises(DataError) as raised:
        load(table(8), **change)
    told = raised.value.messages[0]
    assert re.search(message, f"{told.message}; {told.hint}")


def test_a_target_of_words_is_refused(load):
    with pytest.raises(DataError, match=r"row 3: 'load' is 'much', a number is expected"):
        load("load,heat\n1,1\nmuch,2\n3,3\n4,5\n5,4\n6,1\n")


# Series, time and cuts


def test_every_group_is_a_series_of_its_own_wherever_its_rows_stand(load):
    rows = "".join(f"{i},a,1{i}\n{10 + i},b,2{i}\n" for i in range(6))
    source = load("load,meter,heat\n" + rows, group="meter")
    assert loads(source) == [[0, 1, 2], [1, 2, 3], [10, 11, 12], [11, 12, 13]]
    assert source.targets.tolist() == [[3, 4], [4, 5], [13, 14], [14, 15]]
    assert source.groups.tolist() == ["a", "a", "b", "b"]
    assert source.name_of(3) == "t.csv window from row 5"
    assert "meter" not in source.windows.columns


@pytest.mark.parametrize(
    "write",
    [
        pytest.param(str, id="numbers"),
        pytest.param(lambda i: f"2026-02-{25 + i:02}" if i < 4 else f"2026-03-{i - 3:02}", id="dates"),
        pytest.param(lambda i: f"2026-11-25 {18 + i // 2}:{30 * (i % 2):02}:00", id="times"),
        pytest.param(lambda i: f"2026-11-25T18:0{i}:00Z", id="with a zone"),
    ],
)
def test_rows_are_sorted_by_time(write, load):
    order = [3, 0, 5, 1, 4, 2, 6]
    source = load("load,heat,when\n" + "".join(f"{i},{i * i},{write(i)}\n" for i in order), time="when")
    assert loads(source) == [[0, 1, 2], [1, 2, 3], [2, 3, 4]]
    assert source.name_of(0) == "t.csv window from row 3"  # where load is 0
    assert source.windows.columns == ("load", "heat")


@pytest.mark.parametrize(
    ("times", "message"),
    [
        pytest.param("1 2 3 3 4 5", "rows 4 and 5 have the same 'when'; .* data.source.group", id="twice"),
        pytest.param("1 2 3 x 4 5", "row 2: 'when' is '1'; write numbers, or dates as ISO 8601", id="a word"),
        pytest.param("1 2 NA 3 4 5", "row 4: 'when' is missing", id="missing"),
        pytest.param(
            "2026-01-01 2026-01-02 2026-01-03T00:00Z 2026-01-04 2026-01-05 2026-01-06",
            "row 4: 'when' is '2026-01-03T00:00Z'; others differ in time zone",
            id="zones",
        ),
        pytest.param(
            "01/31/2026 02/01/2026 02/02/2026 02/03/2026 02/04/2026 02/05/2026", "'01/31/2026'; write numbers", id="US"
        ),
    ],
)
def test_times_that_say_no_order_are_refused(times, message, load):
    rows = "".join(f"{i},{i % 3},{when}\n" for i, when in enumerate(times.split()))
    with pytest.raises(DataError) as raised:
        load("load,heat,when\n" + rows, time="when")
    told = raised.value.messages[0]
    assert re.search(message, f"{told.message}; {told.hint}")


def test_the_same_time_may_stand_in_two_series(load):
    rows = "".join(f"{i},{meter},{i}\n" for i in range(6) for meter in "ab")
    assert load("load,meter,when\n" + rows, time="when", group="meter").num_samples == 4


def test_no_window_crosses_a_gap(load, caplog):
    rows = "".join(f"{i},{i % 4},{i if i < 6 else i + 3}\n" for i in range(12))
    source = load("load,heat,when\n" + rows, time="when")
    assert loads(source) == [[0, 1, 2], [1, 2, 3], [6, 7, 8], [7, 8, 9]]
    assert "1 gaps in 'when', steps of more than 1.5 usual ones (first: before row 8)" in caplog.text


def test_months_have_no_gaps(load, caplog):
    rows = "".join(f"{i},{i % 4},2026-{i + 1:02}-01\n" for i in range(12))
    assert load("load,heat,when\n" + rows, time="when").num_samples == 8
    assert "gaps" not in caplog.text


@pytest.mark.parametrize("column", ["load", "heat"])
def test_no_window_holds_a_missing_value(column, load, caplog):
    cells = {"load": [str(i) for i in range(12)], "heat": [str(i % 5) for i in range(12)]}
    cells[column][5] = "NA"
    rows = "".join(f"{one},{other}\n" for one, other in zip(cells["load"], cells["heat"], strict=True))
    source = load("load,heat\n" + rows)
    assert loads(source) == [[0, 1, 2], [6, 7, 8], [7, 8, 9]]
    assert np.isfinite(source.targets).all()
    assert "1 rows have a missing value (first: row 7)" in caplog.text


# Splits


def rows_of(data, split):
    """The rows that the windows of a split touch, targets included; `load` counts them."""
    samples = data.split(split)
    series, targets = samples.inputs["series"][:][..., 0], samples.targets[:]
    return set(np.concatenate([series, targets], axis=1).astype(int).reshape(-1).tolist())


def test_the_last_rows_are_test_and_no_row_stands_in_two_splits(spec, caplog):
    caplog.set_level(logging.INFO, "mltool")
    data = Dataset(spec(table(100), split={"by": "order", "validation": 0.25, "test": 0.2}))
    # 100 rows: 80-99 are test, a quarter of the 80 others (60-79) validation; a window takes 5 rows.
    assert {name: len(ids) for name, ids in data.splits.ids().items()} == {"train": 56, "validation": 16, "test": 16}
    assert rows_of(data, "train") == set(range(60))
    assert rows_of(data, "validation") == set(range(60, 80))
    assert rows_of(data, "test") == set(range(80, 100))
    assert "8 windows lie across a boundary between splits, and are left out" in caplog.text


def test_by_order_the_end_of_every_group_is_test(spec):
    rows = "".join(f"{i},a\n" for i in range(50)) + "".join(f"{i},b\n" for i in range(100, 140))
    data = Dataset(spec("load,meter\n" + rows, group="meter", split={"by": "order", "validation": 0.25, "test": 0.2}))
    assert rows_of(data, "test") == {*range(40, 50), *range(132, 140)}
    assert rows_of(data, "validation") == {*range(30, 40), *range(124, 132)}
    assert rows_of(data, "train") == {*range(30), *range(100, 124)}


def test_at_random_groups_stay_whole_though_series_at_rest_are_equal(spec):
    # Every meter stands still at 0 for a while, as the sun does at night.
    rows = "".join(f"{max(0, i - 20) * (m + 1)},{m}\n" for m in range(10) for i in range(40))
    data = Dataset(spec("load,meter\n" + rows, group="meter", split={"by": "random"}))
    groups = {name: set(data.source.groups[ids].tolist()) for name, ids in data.splits.ids().items()}
    assert {name: len(found) for name, found in groups.items()} == {"train": 7, "validation": 1, "test": 2}
    assert not groups["train"] & groups["test"]
    assert not groups["train"] & groups["validation"]
    assert data.splits.dropped > 0  # windows at rest


def test_fewer_samples_keep_their_rows(spec):
    data = Dataset(spec(table(100), max_samples=40))
    assert data.source.num_samples == 40
    assert data.source.windows.firsts.tolist() == data.source.inputs["series"][:][:, 0, 0].astype(int).tolist()
    assert max(rows_of(data, "train")) < min(rows_of(data, "validation")) <= 79 < min(rows_of(data, "test"))


def test_an_empty_split_is_told(spec):
    with pytest.raises(DataError, match="the validation split is empty: its rows are fewer than the 5 of a window"):
        _ = Dataset(spec(table(40))).splits


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param({"split": {"by": "random"}}, r"data\.split\.by: windows share rows: .*by: order", id="random"),
        pytest.param({"split": {"by": "column", "column": "c"}}, "column is not for windows", id="column"),
        pytest.param({"target": None}, "needs the column that is forecast", id="no target"),
        pytest.param({"weight": "w"}, "weight: is not for windows", id="weight"),
        pytest.param({"test_path": "u.csv"}, "test_path: is not for windows", id="test"),
        pytest.param({"classes": ["a", "b"]}, "classes: is for classes", id="classes"),
        pytest.param(
            {"train": {"anomaly": {"normal": "a"}}},
            r"train\.anomaly: tells samples by their label, and windows have values",
            id="anomalies",
        ),
        pytest.param({"group": "load"}, "group: 'load' is target too", id="group"),
        pytest.param({"path": "x.npz"}, "window: is a key of table, and the source is npz", id="npz"),
        pytest.param({"window": {"length": 0}}, "greater than 0", id="length"),
        pytest.param(
            {"train": {"loss": {"SparseCategoricalCrossentropy": {"from_logits": True}}}},
            r"train\.loss: SparseCategoricalCrossentropy is for classes",
            id="loss",
        ),
    ],
)
def test_what_windows_cannot_have_is_refused_without_the_data(change, message, spec):
    with pytest.raises(SpecError, match=message):
        spec(**change)


def test_time_needs_a_window(tmp_path):
    (tmp_path / "s.yaml").write_text(
        "name: s\ndata: {source: {path: t.csv, target: y, time: when}}\nmodel: {layers: [{Dense: {units: 1}}]}\n"
        "train: {loss: mse}\n"
    )
    with pytest.raises(SpecError, match="time: is for windows, and there is no window"):
        load_spec(tmp_path / "s.yaml")


def test_rows_on_the_disk_give_the_same(spec, tmp_path):
    rows = "load,heat,when\n" + "".join(f"{i % 7},{i % 3},{(i * 7) % 100}\n" for i in range(100))
    whole = Dataset(spec(rows, time="when"))
    written = (tmp_path / "s.yaml").read_text().replace("data:", "data:\n  cache: disk")
    (tmp_path / "d.yaml").write_text(written)
    stored = Dataset(load_spec(tmp_path / "d.yaml"))
    assert isinstance(stored.source.inputs["series"].stored_in[0], np.memmap)
    assert stored.fingerprint == whole.fingerprint
    for name, ids in whole.splits.ids().items():
        np.testing.assert_array_equal(stored.splits.ids()[name], ids)
        np.testing.assert_array_equal(stored.split(name).inputs["series"][:], whole.split(name).inputs["series"][:])


def test_the_scan_takes_windows(spec):
    document = scan(Dataset(spec(table(100))))
    assert document["inputs"]["series"]["kind"] == "series"
    assert document["inputs"]["series"]["shape"] == [3, 2]
    # Rows 0 to 71, the last two of which are only forecast: heat is 100 to 169, load 0 to 169.
    assert document["inputs"]["series"]["splits"]["train"]["most"] == 169
    assert document["targets"]["most"] == 71


def test_windows_that_share_rows_are_no_proof_of_drift(spec):
    """Each row stands in five windows: by their number alone, two halves of noise would seem to differ."""
    random = np.random.default_rng(0)
    rows = "load\n" + "".join(f"{value:.4f}\n" for value in np.convolve(random.normal(size=720), np.ones(20), "valid"))
    document = scan(Dataset(spec(rows, window={"length": 40, "horizon": 1})))
    assert document["drift"]["series"] > 0.15
    assert [item["message"] for item in document["findings"] if "distributed" in item["message"]] == []
    shifted = "load\n" + "".join(f"{(i > 1500) * 9 + value:.4f}\n" for i, value in enumerate(random.normal(size=2000)))
    document = scan(Dataset(spec(shifted)))
    assert any("distributed otherwise" in item["message"] for item in document["findings"])


# Predict


@pytest.fixture
def schema(spec):
    """The record of a model of windows."""

    def make(rows, **source):
        data = Dataset(spec(rows, **source))
        info = describe_input("series", data.split("train"), data.source)
        made = InputSchema((info,), (OutputInfo("y", (2,), "regression", "values"),), missing_markers=MISSING)
        return InputSchema.from_json(made.to_json())

    return make


def test_a_table_is_forecast_from_its_last_rows(schema, tmp_path):
    file = tmp_path / "new.csv"
    file.write_text("heat,note,load\n" + "".join(f"{100 + i},x,{i}\n" for i in range(5)))
    given = read_given(file, schema(table(100)))
    assert given.inputs["series"].tolist() == [[[2, 102], [3, 103], [4, 104]]]
    assert given.name_of(0) == "new.csv after row 6"


def test_of_several_series_each_is_forecast_in_the_order_of_time(schema, tmp_path):
    rows = "".join(f"{i},{m},{i}\n" for m in "ab" for i in range(100))
    known = schema("load,meter,when\n" + rows, group="meter", time="when")
    file = tmp_path / "new.csv"
    file.write_text("load,meter,when\n4,a,4\n3,a,3\n15,b,5\n2,a,2\n14,b,4\n13,b,3\n1,a,1\n")
    given = read_given(file, known)
    assert given.inputs["series"][..., 0].tolist() == [[2, 3, 4], [13, 14, 15]]
    assert given.numbers == [2, 4]  # the lines of their last rows


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(
            "load,heat\n1,2\n2,3\n", "up to row 3, 2 rows stand without a gap .*; the model takes 3", id="short"
        ),
        pytest.param("load,heat\n1,2\n2,3\n3,4\nNA,5\n", "up to row 5, 0 rows stand", id="missing"),
        pytest.param("load\n1\n2\n3\n", "has no 'heat', which the model takes", id="no column"),
    ],
)
def test_a_table_that_is_no_window_is_refused(content, message, schema, tmp_path):
    known = schema(table(100))
    (tmp_path / "new.csv").write_text(content)
    with pytest.raises(DataError) as raised:
        read_given(tmp_path / "new.csv", known)
    told = raised.value.messages[0]
    assert re.search(message, f"{told.message}; {told.hint}")


# What it is for


@pytest.mark.slow
def test_a_trained_model_forecasts_far_better_than_the_last_value(spec, tmp_path):
    """A period of 24 rows and noise of deviation 0.1: repeating the last value for 12 rows errs by the sine's swing."""
    from mltool.evaluation.evaluate import evaluate
    from mltool.runs.run import Run
    from mltool.training.train import train

    random = np.random.default_rng(3)
    steps = np.arange(900)
    series = np.sin(2 * np.pi * steps / 24) + 0.1 * random.normal(size=900)
    rows = "load\n" + "".join(f"{value:.5f}\n" for value in series)
    made = spec(rows, window={"length": 24, "horizon": 12})
    document = yaml.safe_load((tmp_path / "s.yaml").read_text())
    document["model"]["layers"] = ["Flatten", {"Dense": {"units": 16, "activation": "relu"}}, {"Dense": {"units": 12}}]
    document["train"] |= {"epochs": 8, "optimizer": {"Adam": {"learning_rate": 0.01}}, "metrics": ["mae"]}
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")
    made = load_spec(tmp_path / "s.yaml")
    run = Run.create(made, tmp_path / "run")
    train(run)
    test = Dataset(made).split("test")
    last = np.abs(test.targets[:] - test.inputs["series"][:][:, -1]).mean()
    error = evaluate(run).metrics["mean_absolute_error"]
    assert last > 0.7
    # The noise alone errs by 0.1 * sqrt(2 / pi) = 0.08.
    assert 0.06 < error < last / 4

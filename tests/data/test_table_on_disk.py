"""Tables whose rows stay on the disk: what comes of them is what comes of tables in memory, bit for bit."""

import errno
import io
import os
import tempfile
from pathlib import Path

import numpy as np
import pytest

import mltool.data.sources.open as opening
from mltool.data.dataset import Dataset
from mltool.data.identity import content_hashes, groups_of_equal_samples
from mltool.data.pipeline import Pipeline
from mltool.data.scan import scan
from mltool.data.scratch import is_on_disk
from mltool.data.tables.columns import infer_kind
from mltool.data.tables.table import load_table
from mltool.errors import DataError, MachineError
from mltool.runs.run import Run
from mltool.spec.load import load_spec
from mltool.training.train import train

ROWS = 400
"""More than a block of the tests holds."""

SPEC = """\
name: rows
seed: 5
data: {{source: {{path: rows.csv, target: label}}, cache: {cache}, batch_size: 64}}
model:
  preprocess: auto
  layers:
    - Concatenate: {{inputs: [numbers, categories, texts]}}
    - Dense: {{units: 1}}
train:
  epochs: 2
  optimizer: {{Adam: {{learning_rate: 0.01}}}}
  loss: {{BinaryCrossentropy: {{from_logits: true}}}}
  metrics: [accuracy]
"""


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr("mltool.data.tables.text_table.BLOCK_BYTES", 2048)


def rows(seed=0, count=ROWS):
    random = np.random.default_rng(seed)
    for index in range(count):
        weight = "" if index % 50 == 7 else f"{random.normal():.4f}"
        color = random.choice(["red", "grün", "青 blue", ""])
        note = " ".join(random.choice(["one", "zwölf", "three", "четыре"], 5))
        # Every tenth row is a copy of the first.
        yield (
            "3,0.5,red,one two one two one,no"
            if index % 10 == 9
            else (f"{index % 17},{weight},{color},{note},{'yes' if index % 3 else 'no'}")
        )


def write_rows(path, lines):
    path.write_text("size,weight,color,note,label\n" + "\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def table(tmp_path):
    return write_rows(tmp_path / "rows.csv", rows())


def both(paths, **options):
    return [
        load_table(paths, targets={"": "label"}, missing=("",), on_disk=on_disk, **options) for on_disk in (False, True)
    ]


def assert_same(one, other):
    assert (one.kinds, one.given, list(one.names)) == (other.kinds, other.given, list(other.names))
    assert list(one.inputs) == list(other.inputs)
    for name in one.inputs:
        np.testing.assert_array_equal(other.inputs[name][:], one.inputs[name][:])
        assert other.inputs[name].shape == one.inputs[name].shape
    np.testing.assert_array_equal(other.targets, one.targets)
    hashes = [content_hashes(source.inputs) for source in (one, other)]
    np.testing.assert_array_equal(*hashes)
    groups = [groups_of_equal_samples(source.inputs, hashes[0]) for source in (one, other)]
    np.testing.assert_array_equal(*groups)
    assert (groups[0] != np.arange(len(groups[0]))).any()


def test_every_kind_of_column_is_read_alike(table):
    in_memory, on_disk = both({"": table})
    assert in_memory.kinds == {"size": "number", "weight": "number", "color": "category", "note": "text"}
    assert_same(in_memory, on_disk)
    assert all(map(is_on_disk, on_disk.inputs.values())) and is_on_disk(on_disk.targets)
    assert not any(map(is_on_disk, in_memory.inputs.values()))


def test_rows_at_any_positions_are_read_alike(table):
    in_memory, on_disk = both({"": table})
    for positions in (np.asarray([399, 0, 17, 17]), slice(390, None), 3):
        for name in in_memory.inputs:
            np.testing.assert_array_equal(on_disk.inputs[name][positions], in_memory.inputs[name][positions])


def test_files_of_splits_are_joined_alike(table, tmp_path):
    other = write_rows(tmp_path / "test.csv", (line.replace("dark blue", "ultramarine") for line in rows(1, 90)))
    in_memory, on_disk = both({"": table, "test": other})
    assert_same(in_memory, on_disk)
    assert on_disk.given == {"train": range(400), "test": range(400, 490)}
    positions = np.asarray([480, 0, 399, 400])
    for name in in_memory.inputs:
        np.testing.assert_array_equal(on_disk.inputs[name][positions], in_memory.inputs[name][positions])


def test_a_column_of_splits_is_read_alike(tmp_path):
    lines = [f"{index},{index % 7},{word}" for index, word in enumerate(["train", "val", "test", "train"] * 60)]
    path = tmp_path / "column.csv"
    path.write_text("n,label,part\n" + "\n".join(lines), encoding="utf-8")
    one, other = both({"": path}, split_column="part")
    assert {name: list(ids) for name, ids in one.given.items()} == {n: list(ids) for n, ids in other.given.items()}
    assert list(other.given["validation"][:3]) == [1, 5, 9]


def test_values_of_a_regression_are_read_alike(tmp_path):
    path = tmp_path / "values.csv"
    path.write_text("n,label\n" + "\n".join(f"{i},{i / 7:.5f}" for i in range(300)), encoding="utf-8")
    one, other = both({"": path}, values={""})
    np.testing.assert_array_equal(other.targets, one.targets)
    assert other.targets.dtype == np.float32 and is_on_disk(other.targets)


def test_parquet_is_read_alike(table, tmp_path):
    csv, parquet = pytest.importorskip("pyarrow.csv"), pytest.importorskip("pyarrow.parquet")
    parquet.write_table(csv.read_csv(table), tmp_path / "rows.parquet", row_group_size=50)
    assert_same(*both({"": tmp_path / "rows.parquet"}))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        pytest.param(lambda lines: [*lines[:350], "1,2", *lines[350:]], r"row 352: 2 fields.* has 5", id="ragged"),
        pytest.param(
            lambda lines: [*lines[:399], "1,many,red,one two three four five,no"],
            r"row 401: .*'many'.*number",
            id="word",
        ),
        pytest.param(lambda lines: [*lines[:380], "1,1,red,a b c d,"], r"1 rows have no 'label'.*row 382", id="label"),
        pytest.param(lambda lines: [*lines[:390], "1,1e39,red,a b c d,no"], r"row 392: 'weight'.*finite", id="large"),
    ],
)
def test_what_is_wrong_in_a_later_block_is_named_with_its_row(table, damage, message):
    write_rows(table, damage(list(rows())))
    with pytest.raises(DataError, match=message):
        load_table({"": table}, targets={"": "label"}, kinds={"weight": "number"}, missing=("",), on_disk=True)


def test_a_full_disk_is_said_and_leaves_nothing(table, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(MachineError, match=r"samples cannot be kept in .*No space left.*TMPDIR"):
        load_table({"": table}, targets={"": "label"}, on_disk=True)
    assert [path.name for path in tmp_path.iterdir()] == ["rows.csv"]


def datasets(tmp_path):
    write_rows(tmp_path / "rows.csv", rows())
    for cache in ("memory", "disk"):
        spec = tmp_path / f"{cache}.yaml"
        spec.write_text(SPEC.format(cache=cache), encoding="utf-8")
        yield Dataset(load_spec(spec))


def test_splits_fingerprint_scan_and_batches_are_the_same(tmp_path):
    in_memory, on_disk = datasets(tmp_path)
    assert is_on_disk(on_disk.source.inputs["size"])
    for split, ids in in_memory.splits.ids().items():
        np.testing.assert_array_equal(on_disk.splits.ids()[split], ids)
    assert in_memory.fingerprint == on_disk.fingerprint
    assert scan(in_memory) == scan(on_disk)
    records = [data.record() for data in (in_memory, on_disk)]
    assert records[0].keys() == records[1].keys()
    for name in records[0]:
        np.testing.assert_array_equal(records[1][name], records[0][name])
    epochs = [list(Pipeline(data.split("train"), 50, seed=3).epoch(1)) for data in (in_memory, on_disk)]
    for (inputs, targets, _), (inputs_of_disk, targets_of_disk, _) in zip(*epochs, strict=True):
        np.testing.assert_array_equal(targets_of_disk, targets)
        for name in inputs:
            np.testing.assert_array_equal(inputs_of_disk[name], inputs[name])


def test_training_ends_with_the_same_weights(tmp_path):
    write_rows(tmp_path / "rows.csv", rows())
    runs = []
    for cache in ("memory", "disk"):
        spec = tmp_path / f"{cache}.yaml"
        spec.write_text(SPEC.format(cache=cache), encoding="utf-8")
        runs.append(Run.create(load_spec(spec), tmp_path / cache))
        train(runs[-1])
    lines = [(Path(run.directory) / "metrics.jsonl").read_text().splitlines() for run in runs]
    assert len(lines[0]) == 2
    losses = [[line.split('"loss"')[1].split(",")[0] for line in each] for each in lines]
    assert losses[0] == losses[1]


@pytest.mark.parametrize(("limit", "on_disk"), [(100, True), (10**9, False)], ids=["large", "small"])
def test_auto_keeps_large_tables_on_the_disk(tmp_path, monkeypatch, limit, on_disk):
    monkeypatch.setattr(opening, "STREAMED_FROM_BYTES", limit)
    write_rows(tmp_path / "rows.csv", rows())
    spec = tmp_path / "auto.yaml"
    spec.write_text(SPEC.format(cache="auto"), encoding="utf-8")
    assert is_on_disk(Dataset(load_spec(spec)).source.inputs["size"]) is on_disk


def test_texts_of_several_pieces_are_found_at_any_place(table):
    in_memory, on_disk = both({"": table}, kinds={"size": "text"})
    for positions in (np.asarray([399, 0, 17, 0]), np.asarray([], int), slice(390, 400), slice(0, 9, 4), slice(5, 2)):
        np.testing.assert_array_equal(on_disk.inputs["note"][positions], in_memory.inputs["note"][positions])
        np.testing.assert_array_equal(on_disk.inputs["size"][positions], in_memory.inputs["size"][positions])
    with pytest.raises(IndexError):
        on_disk.inputs["note"][np.asarray([400])]


def test_words_below_numbers_make_a_column_of_words(tmp_path):
    lines = [f"{index % 9 if index < 390 else 'many'},{index % 2}" for index in range(ROWS)]
    path = tmp_path / "late.csv"
    path.write_text("size,label\n" + "\n".join(lines) + "\n", encoding="utf-8")
    for source in both({"": path}):
        assert source.kinds == {"size": "category"}
        assert source.inputs["size"][np.asarray([0, 395])].reshape(-1).tolist() == ["0", "many"]


def test_targets_are_words_where_one_of_a_later_piece_is_and_none_is_cut(tmp_path):
    lines = [f"{index},{'eleven' if index == 395 else index % 3}" for index in range(ROWS)]
    path = tmp_path / "late.csv"
    path.write_text("size,label\n" + "\n".join(lines) + "\n", encoding="utf-8")
    for source in both({"": path}):
        assert source.targets[393:397].tolist() == ["0", "1", "eleven", "0"]


def test_whole_numbers_of_parquet_that_are_declared_text_are_text(tmp_path):
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    table = pa.table({"c": [7, None, 10] * 9, "label": ["a", "b", "a"] * 9})
    parquet.write_table(table, tmp_path / "t.parquet", row_group_size=4)
    for source in both({"": tmp_path / "t.parquet"}, kinds={"c": "text"}):
        assert source.inputs["c"].dtype == np.dtype("U2")
        assert source.inputs["c"][:3].reshape(-1).tolist() == ["7", "", "10"]
        assert source.inputs["c"][np.asarray([26, 1])].reshape(-1).tolist() == ["10", ""]


def test_integers_that_numbers_cannot_tell_apart_are_refused(tmp_path):
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    table = pa.table({"id": [2**53 + 1, 2**53 + 3], "x": [0.5, 1.5], "label": ["a", "b"]})
    parquet.write_table(table, tmp_path / "t.parquet")
    for on_disk in (False, True):
        with pytest.raises(DataError, match=r"'id' holds integers beyond 2\*\*53.*columns: \{id: ignore\}"):
            load_table({"": tmp_path / "t.parquet"}, targets={"": "label"}, kinds={"id": "number"}, on_disk=on_disk)
        assert list(load_table({"": tmp_path / "t.parquet"}, targets={"": "label"}, on_disk=on_disk).inputs) == ["x"]


def test_line_ends_in_cells_are_the_same_at_the_edges_of_blocks(tmp_path):
    path = tmp_path / "ends.csv"
    lines = ["note,label", *(f'"{"a" * (index % 40)} b c\r\nd e f",{index % 2}' for index in range(ROWS))]
    path.write_bytes("\r\n".join(lines).encode())
    for source in both({"": path}, kinds={"note": "text"}):
        cells = source.inputs["note"][:].reshape(-1).tolist()
        assert cells == [f"{'a' * (index % 40)} b c\nd e f".strip() for index in range(ROWS)]


def test_what_a_column_holds_does_not_depend_on_its_pieces(monkeypatch):
    monkeypatch.setattr("mltool.data.tables.columns.MOST_DISTINCT", 30)
    monkeypatch.setattr("mltool.data.tables.columns._STEP", 64)
    # 40 words in 64 rows are enough to see: all below, of which each is new, are not looked at.
    cells = np.asarray([f"word{index % 40}" for index in range(64)] + [f"new{index}" for index in range(400)])
    for size in (1, 7, 63, 64, 65, 1000):
        pieces = [cells[start : start + size] for start in range(0, len(cells), size)]
        assert infer_kind("column", pieces) == "category", size


@pytest.mark.parametrize("writes", [0, 1, 2, 5])
def test_a_disk_that_is_full_while_rows_are_written_is_said(table, tmp_path, monkeypatch, writes):
    made = tempfile.TemporaryFile

    class Full(io.RawIOBase):
        """A file on a disk with room for a few writes."""

        def __init__(self):
            self.room = writes

        def writable(self):
            return True

        def write(self, data):
            self.room -= 1
            if self.room < 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return len(data)

    def temporary(*arguments, suffix="", **options):
        return io.BufferedWriter(Full(), 64) if suffix == ".arrow" else made(*arguments, suffix=suffix, **options)

    monkeypatch.setattr(tempfile, "TemporaryFile", temporary)
    with pytest.raises(MachineError, match=r"rows of a table cannot be kept in .*No space left.*TMPDIR"):
        load_table({"": table}, targets={"": "label"}, on_disk=True)


def test_a_quote_that_is_never_closed_is_named_in_a_large_file(tmp_path):
    lines = [f"{index},word {index},{index % 2}" for index in range(10 * ROWS)]
    lines[200] = '200,"word,0'
    path = tmp_path / "open.csv"
    path.write_text("size,note,label\n" + "\n".join(lines) + "\n", encoding="utf-8")
    for on_disk in (False, True):
        with pytest.raises(DataError, match=r"open\.csv, row 202: a quote is opened and never closed"):
            load_table({"": path}, targets={"": "label"}, on_disk=on_disk)

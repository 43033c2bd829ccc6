"""Data sets that Hugging Face's library saved: their columns, splits, classes and damages."""

import io
import json

import numpy as np
import pyarrow as pa
import pytest
import yaml
from PIL import Image

from mltool.cli.main import main
from mltool.data.dataset import open_dataset
from mltool.data.sources.described import Asked
from mltool.data.sources.encoded import Reading
from mltool.data.sources.huggingface import load_huggingface
from mltool.data.sources.kinds import kind_at
from mltool.errors import DataError
from mltool.spec.load import load_spec

VALUE = {"dtype": "float32", "_type": "Value"}
CLASSES = {"names": ["zebra", "ant"], "_type": "ClassLabel"}


def png(shade, size=(4, 4)):
    file = io.BytesIO()
    Image.new("RGB", size, (shade, 0, 0)).save(file, "PNG")
    return {"bytes": file.getvalue(), "path": None}


def saved(folder, columns, features, shards=1):
    """What Dataset.save_to_disk writes (datasets 5.2)."""
    folder.mkdir(parents=True, exist_ok=True)
    table = pa.table(columns)
    names = [f"data-{number:05}-of-{shards:05}.arrow" for number in range(shards)]
    size = -(-table.num_rows // shards)
    for number, name in enumerate(names):
        with pa.OSFile(str(folder / name), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
            writer.write_table(table.slice(number * size, size))
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name} for name in names]}))
    (folder / "dataset_info.json").write_text(json.dumps({"features": features}))
    return folder


def numbers(folder, labels, **more):
    x = pa.array([[float(i), -1.0] for i in range(len(labels))], pa.list_(pa.float32(), 2))
    features = {"x": {"feature": VALUE, "length": 2, "_type": "List"}, "label": CLASSES}
    return saved(folder, {"x": x, "label": labels}, features, **more)


def load(path, **asked):
    return load_huggingface({"": path}, Asked(**asked))


def test_the_shards_of_a_set_follow_one_another(tmp_path):
    path = numbers(tmp_path / "set", [0, 1, 1, 0, 1], shards=3)
    assert kind_at(path) == "huggingface"
    source = load(path)
    assert source.inputs["x"][:, 0].tolist() == [0, 1, 2, 3, 4]
    assert source.targets.tolist() == ["zebra", "ant", "ant", "zebra", "ant"]
    assert source.given == {}
    assert source.name_of(3) == f"{path} row 3"


def test_the_splits_of_a_saved_dict_are_given(tmp_path):
    for split, count in (("train", 4), ("test", 2), ("unsupervised", 3)):
        numbers(tmp_path / "sets" / split, [0, 1] * (count // 2))
    (tmp_path / "sets/dataset_dict.json").write_text(json.dumps({"splits": ["train", "test", "unsupervised"]}))
    source = load(tmp_path / "sets")
    assert {split: ids.tolist() for split, ids in source.given.items()} == {"train": [0, 1, 2, 3], "test": [4, 5]}


def test_paths_of_their_own_are_given_splits(tmp_path):
    paths = {"": numbers(tmp_path / "a", [0, 1, 0]), "test": numbers(tmp_path / "b", [1])}
    source = load_huggingface(paths, Asked())
    assert {split: ids.tolist() for split, ids in source.given.items()} == {"train": [0, 1, 2], "test": [3]}


def test_columns_hold_numbers_words_lists_and_images(tmp_path):
    columns = {
        "photo": [png(10), png(20, (6, 5)), png(30)],
        "age": pa.array([1, None, 3]),
        "word": pa.array(["a", "b", None]),
        "grid": pa.array([[[1, 2], [3, 4]]] * 3, pa.list_(pa.list_(pa.int64()))),
        "left out": ["x", "y", "z"],
        "price": [0.5, 1.5, 2.5],
    }
    features = {"photo": {"_type": "Image"}, "age": VALUE, "word": VALUE, "grid": [[VALUE]], "left out": VALUE,
                "price": VALUE}  # fmt: skip
    kinds = {"word": "category", "left out": "ignore"}
    source = load(saved(tmp_path / "set", columns, features), target="price", kinds=kinds, images=Reading((3, 3)))
    assert list(source.inputs) == ["photo", "age", "word", "grid"]
    assert source.inputs["photo"][:][:, 0, 0, 0].tolist() == [10, 20, 30]
    assert source.inputs["age"][:, 0].tolist() == pytest.approx([1, np.nan, 3], nan_ok=True)
    assert source.inputs["word"].reshape(-1).tolist() == ["a", "b", ""]
    assert source.inputs["grid"][1].tolist() == [[1, 2], [3, 4]]
    assert source.targets.tolist() == [0.5, 1.5, 2.5]
    assert source.kinds == {"photo": "image", "age": "number", "word": "category", "grid": "series"}


def damage(folder, change):
    if change == "cut":
        file = folder / "data-00000-of-00001.arrow"
        file.write_bytes(file.read_bytes()[:-200])
    elif change == "gone":
        (folder / "data-00000-of-00001.arrow").unlink()
    elif change == "no json":
        (folder / "state.json").write_text("{")
    elif change == "climbs":
        (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": "../other.arrow"}]}))
    elif change == "indices":
        (folder / "state.json").write_text(json.dumps({"_indices_data_files": [{"filename": "indices.arrow"}]}))
    elif change == "no info":
        (folder / "dataset_info.json").unlink()
    elif change == "other columns":
        (folder / "dataset_info.json").write_text(json.dumps({"features": {"y": CLASSES}}))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("cut", r"data-00000-of-00001\.arrow cannot be read: .*; copy it again"),
        ("gone", r"data-00000-of-00001\.arrow cannot be read: .*No such file"),
        ("no json", r"state\.json cannot be read: .*; save it again with Dataset\.save_to_disk"),
        ("climbs", r"state\.json names no files beside it"),
        ("indices", r"saved with indices beside its rows; save it again after flatten_indices"),
        ("no info", r"dataset_info\.json cannot be read: "),
        ("other columns", r"the Arrow files have no column 'y'"),
    ],
)
def test_a_damaged_set_is_named_with_the_cure(change, expected, tmp_path):
    path = numbers(tmp_path / "set", [0, 1, 0])
    damage(path, change)
    with pytest.raises(DataError, match=expected) as caught:
        load(path)
    assert caught.value.exit_code == 4


@pytest.mark.parametrize(
    ("columns", "features", "expected"),
    [
        ({"x": [[1.0], [1.0, 2.0]]}, {"x": [VALUE]}, r"set row 1: 'x' is a list of another length"),
        ({"x": [[1.0], None]}, {"x": [VALUE]}, r"set row 1: 'x' is a list of another length"),
        ({"x": [b"a", b"b"]}, {"x": VALUE}, r"a column of binary \('x'\) is none .*columns: \{x: ignore\}"),
        ({"x": [b"a", b"b"]}, {"x": {"_type": "Audio"}}, r"a column of Audio \('x'\) is none"),
    ],
    ids=["lengths", "missing list", "bytes", "sound"],
)
def test_a_column_that_no_model_takes_is_named(columns, features, expected, tmp_path):
    path = saved(tmp_path / "set", {**columns, "label": [0, 1]}, {**features, "label": CLASSES})
    with pytest.raises(DataError, match=expected):
        load(path)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ([0, -1], r"1 samples have no 'label' \(first: \S+set row 1\)"),
        ([0, 2], r"set row 1: 'label' is 2, there are 2"),
    ],
    ids=["none", "too many"],
)
def test_a_label_that_is_no_class_is_named(labels, expected, tmp_path):
    with pytest.raises(DataError, match=expected):
        load(numbers(tmp_path / "set", labels))


def test_a_column_that_is_not_there_is_said(tmp_path):
    with pytest.raises(DataError, match=r"has no column 'y'; it has: x, label"):
        load(numbers(tmp_path / "set", [0, 1]), target="y")


def spec_of(folder, source):
    spec = {
        "name": "saved",
        "data": {"source": source},
        "model": {"layers": [{"Dense": {"units": 2}}]},
        "train": {"epochs": 1, "loss": {"SparseCategoricalCrossentropy": {"from_logits": True}}},
    }
    (folder / "spec.yaml").write_text(yaml.safe_dump(spec), encoding="utf-8")
    return folder / "spec.yaml"


@pytest.mark.parametrize(
    ("keys", "labels"),
    [
        ({}, ("zebra", "ant")),
        ({"classes": ["ant", "zebra"]}, ("ant", "zebra")),
        ({"labels": {"ant": "bee"}}, ("zebra", "bee")),
    ],
    ids=["as named", "as the spec says", "renamed"],
)
def test_classes_keep_the_order_of_their_names(keys, labels, tmp_path):
    numbers(tmp_path / "set", [0, 1, 1, 0] * 5)
    data = open_dataset(load_spec(spec_of(tmp_path, {"path": "set", **keys})))
    assert data.labels == labels
    assert [data.labels[number] for number in data.targets[:2]] == [data.source.targets[0], data.source.targets[1]]


def test_init_and_check_take_a_saved_set_with_images_of_several_sizes(tmp_path):
    photos = [png(i % 2 * 200 + i, (40 + i % 3, 40)) for i in range(60)]
    features = {"photo": {"_type": "Image"}, "note": VALUE, "label": CLASSES}
    saved(tmp_path / "set", {"photo": photos, "note": ["a", "b"] * 30, "label": [0, 1] * 30}, features)
    for arguments in (["init", "a.yaml", "--from", "set"], ["check", "a.yaml", "--data"]):
        with pytest.raises(SystemExit, match=r"^0$"):
            main([str(tmp_path / word) if word in ("a.yaml", "set") else word for word in arguments])
    assert load_spec(tmp_path / "a.yaml").data.source.image_size == (32, 32)


def test_what_the_library_itself_saves_is_read(tmp_path):
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {"image": datasets.Image(), "x": datasets.Value("int32"), "label": datasets.ClassLabel(names=["zebra", "ant"])}
    )
    image = Image.new("RGB", (4, 4), (9, 0, 0))
    rows = {"image": [image] * 4, "x": [1, 2, 3, 4], "label": [0, 1, 0, 1]}
    made = datasets.Dataset.from_dict(rows, features=features)
    datasets.DatasetDict(train=made, test=made.select([3, 0])).save_to_disk(tmp_path / "set")
    source = load(tmp_path / "set")
    assert source.inputs["x"][:, 0].tolist() == [1, 2, 3, 4, 4, 1]
    assert source.inputs["image"][:].shape == (6, 4, 4, 3)
    assert source.targets.tolist() == ["zebra", "ant", "zebra", "ant", "ant", "zebra"]

"""TFRecord files: their features, their damages, and the order of their records."""

import gzip
import io
import json
import struct
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import yaml
from PIL import Image

from mltool.cli.main import main
from mltool.data.dataset import open_dataset
from mltool.data.sources.encoded import Reading
from mltool.data.sources.kinds import kind_at
from mltool.data.sources.records import find_records
from mltool.data.sources.tfrecord import Feature, infer_features, load_tfrecord
from mltool.errors import DataError, SpecError
from mltool.spec.load import load_spec

X = Feature("float32", (2,))
LABEL = Feature("int64")


def example(**values):
    """A serialized tf.train.Example; `__` in a name stands for a slash."""
    features = {}
    for name, value in values.items():
        every = value if isinstance(value, list) else [value]
        if isinstance(every[0], bytes):
            feature = tf.train.Feature(bytes_list=tf.train.BytesList(value=every))
        elif isinstance(every[0], float):
            feature = tf.train.Feature(float_list=tf.train.FloatList(value=every))
        else:
            feature = tf.train.Feature(int64_list=tf.train.Int64List(value=every))
        features[name.replace("__", "/")] = feature
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


def written(path, records):
    """A TFRecord file, by TensorFlow's own writer."""
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in records:
            writer.write(record)
    return path


def numbered(count, first=0):
    return [example(x=[float(i), -float(i)], label=i % 2) for i in range(first, first + count)]


def png(shade, size=(4, 4)):
    file = io.BytesIO()
    Image.new("RGB", size, (shade, 0, 0)).save(file, "PNG")
    return file.getvalue()


def load(path, features=None, **more):
    return load_tfrecord({"": path}, features or {"x": X, "label": LABEL}, **{"target": "label", **more})


def test_records_are_read_at_their_places_in_any_order(tmp_path):
    source = load(written(tmp_path / "a.tfrecord", numbered(3000)))
    x = source.inputs["x"]
    assert x.shape == (3000, 2)
    assert x.dtype == np.float32
    positions = np.asarray([2999, 0, 1500, 1500])
    assert x[positions].tolist() == [[i, -i] for i in positions]
    assert x[7].tolist() == [7, -7]
    assert source.targets.tolist() == [i % 2 for i in range(3000)]
    assert source.name_of(2) == f"{tmp_path}/a.tfrecord record 2"


def test_the_files_of_a_folder_follow_one_another_by_name(tmp_path):
    for number in (1, 0):
        written(tmp_path / f"a.tfrecord-0000{number}-of-00002", numbered(3, first=10 * number))
    assert kind_at(tmp_path) == "tfrecord"
    source = load(tmp_path)
    assert source.inputs["x"][:][:, 0].tolist() == [0, 1, 2, 10, 11, 12]
    assert source.name_of(4).endswith("a.tfrecord-00001-of-00002 record 1")


def test_paths_of_their_own_are_given_splits(tmp_path):
    paths = {
        split: written(tmp_path / f"{split}.tfrecord", numbered(2, i))
        for i, split in enumerate(["", "validation", "test"])
    }
    source = load_tfrecord(paths, {"x": X, "label": LABEL}, target="label")
    assert {split: ids.tolist() for split, ids in source.given.items()} == {
        "train": [0, 1],
        "validation": [2, 3],
        "test": [4, 5],
    }


def test_every_form_of_a_feature_comes_out_as_it_went_in(tmp_path):
    raw = np.asarray([[1, -2], [300, 4]], "<i2")
    records = [
        example(image__encoded=png(shade), raw=raw.tobytes(), words=[b"a", "\u00e9".encode()], n=[1, 2], w=0.5, g=b"me",
                label=f"class {shade}".encode())
        for shade in (10, 20)
    ]  # fmt: skip
    features = {
        "image/encoded": Feature(decode="image"),
        "raw": Feature(decode="int16", shape=(2, 2)),
        "words": Feature("string", (2,)),
        "n": Feature("int64", (2,)),
        "w": Feature("float32"),
        "g": Feature("string"),
        "label": Feature("string"),
    }
    source = load(written(tmp_path / "a.tfrecord", records), features, weight="w", group="g")
    assert source.inputs["image_encoded"][:][:, 0, 0, 0].tolist() == [10, 20]
    assert source.kinds["image_encoded"] == "image"
    assert source.originals == {"image_encoded": "image/encoded"}
    assert source.inputs["raw"][1].tolist() == raw.tolist()
    assert source.inputs["words"][0].tolist() == ["a", "\u00e9"]
    assert source.inputs["n"][:].tolist() == [[1, 2], [1, 2]]
    assert source.targets.tolist() == ["class 10", "class 20"]
    assert (source.weights.tolist(), source.groups.tolist()) == ([0.5, 0.5], ["me", "me"])


def test_images_of_other_sizes_are_brought_to_one(tmp_path):
    path = written(tmp_path / "a.tfrecord", [example(p=png(9, (4, 4)), label=0), example(p=png(9, (6, 5)), label=1)])
    features = {"p": Feature(decode="image"), "label": LABEL}
    source = load(path, features, images=Reading(size=(3, 3), color="gray"))
    assert source.inputs["p"][:].shape == (2, 3, 3, 1)
    with pytest.raises(
        DataError, match=r"a\.tfrecord record 1 is 5x6, .* record 0 is 4x4; set data\.source\.image_size"
    ):
        load(path, features).inputs["p"][:]


LENGTH = len(numbered(1)[0])
AROUND = 16


@pytest.mark.parametrize("fast", [100, 3000])
def test_every_damaged_record_is_named(fast, tmp_path):
    path = written(tmp_path / "a.tfrecord", numbered(fast))
    data, places, start = bytearray(path.read_bytes()), [], 0
    while start < len(data):
        places.append(start)
        start += AROUND + struct.unpack_from("<Q", data, start)[0]
    for number in (5, 6, fast - 1):
        data[places[number] + 14] ^= 1
    path.write_bytes(data)
    expected = (
        rf"3 records are damaged: \S+a\.tfrecord record 5: its checksum is wrong; .* record 6: .* record {fast - 1}"
    )
    with pytest.raises(DataError, match=expected) as caught:
        load(path)
    assert caught.value.exit_code == 4


def test_a_damaged_length_says_that_what_follows_cannot_be_found(tmp_path):
    path = written(tmp_path / "a.tfrecord", numbered(1) * 9)
    data = bytearray(path.read_bytes())
    data[3 * (LENGTH + AROUND)] ^= 4
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"1 record is damaged: \S+ record 3: .* its length is damaged: what follows"):
        load(path)


@pytest.mark.parametrize("cut", [1, 7, LENGTH, LENGTH + 10, LENGTH + 15])
def test_a_file_that_is_cut_off_is_never_taken_for_a_shorter_one(cut, tmp_path):
    path = written(tmp_path / "a.tfrecord", numbered(1) * 4)
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(DataError, match=r"1 record is damaged: \S+ record 3: it is cut off, .* copy the file again"):
        load(path)


@pytest.mark.parametrize("content", [b"hello", b"a,b\n" * 100, bytes(range(256))])
def test_a_file_that_holds_something_else_is_said(content, tmp_path):
    (tmp_path / "a.tfrecord").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.tfrecord record 0: it is cut off, or its length is damaged"):
        load(tmp_path / "a.tfrecord")


def test_an_empty_file_is_said(tmp_path):
    (tmp_path / "a.tfrecord").touch()
    with pytest.raises(DataError, match=r"a\.tfrecord holds no records; write it again"):
        load(tmp_path / "a.tfrecord")


@pytest.mark.parametrize("name", ["a.tfrecord", "a.tfrecord.gz"])
def test_a_compressed_file_is_refused_with_the_cure(name, tmp_path):
    plain = written(tmp_path / "plain", numbered(20)).read_bytes()
    (tmp_path / name).write_bytes(gzip.compress(plain))
    assert kind_at(tmp_path / name) == "tfrecord"
    with pytest.raises(DataError, match=r"is compressed, and has no record that can be jumped to; unpack it: gunzip"):
        load(tmp_path / name)


@pytest.mark.parametrize(
    ("features", "reason"),
    [
        ({"x": Feature("float32", (3,))}, r"'x' has 2 values, the shape is \[3\]"),
        ({"z": X}, "it has no feature 'z'"),
        ({"x": Feature("int64", (2,))}, "'x' is not of type int64"),
        ({"raw": Feature(decode="float32", shape=(2,))}, r"'raw' has 2 bytes, float32 of \[2\] is 8"),
        ({"raw": Feature("string")}, "'raw' is no UTF-8 text"),
    ],
    ids=["shape", "name", "type", "bytes", "text"],
)
def test_a_record_that_is_not_what_the_features_say_is_named(features, reason, tmp_path):
    path = written(tmp_path / "a.tfrecord", [example(x=[1.0, 2.0], raw=b"\xff\xfe", label=0)] * 2)
    with pytest.raises(DataError, match=rf"2 records do not hold .* record 0: {reason}; .* record 1: {reason}; change"):
        load(path, {**features, "label": LABEL})


@pytest.mark.parametrize(
    ("odd", "reason"),
    [(b"\xff\xff no example", "it is no tf.train.Example"), (example(x=[float("nan"), 0.0], label=1), "'x' holds NaN")],
    ids=["no example", "NaN"],
)
def test_the_one_odd_record_of_many_is_named(odd, reason, tmp_path):
    path = written(tmp_path / "a.tfrecord", [*numbered(1500), odd, *numbered(10)])
    with pytest.raises(DataError, match=rf"1 record does not hold .* record 1500: {reason}"):
        load(path)


def test_a_file_that_changed_after_it_was_indexed_is_noticed(tmp_path):
    path = written(tmp_path / "a.tfrecord", numbered(5))
    source = load(path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataError, match="got shorter while it was read"):
        source.inputs["x"][:]
    path.unlink()
    with pytest.raises(DataError, match=r"a\.tfrecord cannot be read: No such file"):
        source.inputs["x"][:]


def test_an_index_takes_16_bytes_a_record_beside_its_name(tmp_path):
    records = find_records({"": written(tmp_path / "a.tfrecord", numbered(50))})
    assert records.offsets.dtype == records.lengths.dtype == np.int64
    assert len(records) == 50


def test_the_first_records_tell_the_features(tmp_path):
    records = [
        example(photo=png(i), x=[1.0, 2.0], n=i, name=b"me", ragged=[1] * (i + 1), raw=b"\x00\xff\x01")
        for i in range(3)
    ]
    assert infer_features(written(tmp_path / "a.tfrecord", records)) == {
        "n": {"dtype": "int64"},
        "name": {"dtype": "string"},
        "photo": {"decode": "image"},
        "raw": {"decode": "uint8", "shape": [3]},
        "x": {"dtype": "float32", "shape": [2]},
    }


def spec_of(folder, source, **more):
    spec = {
        "name": "records",
        "data": {"source": source, "batch_size": 16},
        "model": {"layers": [{"Dense": {"units": 8, "activation": "relu"}}, {"Dense": {"units": 2}}]},
        "train": {"epochs": 12, "optimizer": {"Adam": {"learning_rate": 0.05}}, "metrics": ["accuracy"],
                  "loss": {"SparseCategoricalCrossentropy": {"from_logits": True}}},
        "convert": [{"quantize": "int8"}],
        **more,
    }  # fmt: skip
    file = Path(folder, "spec.yaml")
    file.write_text(yaml.safe_dump(spec), encoding="utf-8")
    return file


FEATURES = {"x": {"dtype": "float32", "shape": [2]}, "label": {"dtype": "int64"}}


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ({}, r"data\.source\.features: is needed: what every record holds"),
        ({"features": FEATURES}, r"data\.source\.target: is needed: .*; one of: label, x"),
        ({"features": FEATURES, "target": "y"}, r"data\.source\.target: 'y' is no feature; features has: label, x"),
        ({"features": {"x": {}}, "target": "x"}, r"features\.x: takes dtype or decode, one of the two"),
        ({"features": {"x": {"dtype": "float64"}}, "target": "x"}, r"features\.x\.dtype: "),
        ({"features": {"x": {"dtype": "int64", "shape": [0]}}, "target": "x"}, r"features\.x\.shape"),
        ({"features": {"p": {"decode": "image", "shape": [2]}}, "target": "p"}, r"features\.p\.shape: is told by"),
        ({"features": {"p": {"decode": "image"}}, "target": "p"}, r"data\.source\.target: 'p' holds images"),
        ({"features": FEATURES, "target": "label", "image_size": [8, 8]}, r"image_size: is for images, and no feature"),
        ({"features": FEATURES, "target": "label", "separator": ","}, r"separator: is a key of table"),
    ],
)
def test_a_spec_that_does_not_fit_is_refused_before_tensorflow(source, expected, tmp_path):
    with pytest.raises(SpecError, match=expected):
        load_spec(spec_of(tmp_path, {"path": "a.tfrecord", **source}))


def test_filters_and_limits_of_samples_hold_for_records_too(tmp_path):
    written(tmp_path / "a.tfrecord", [example(x=[float(i), 1.0], label=i % 3) for i in range(90)])
    source = {"path": "a.tfrecord", "features": FEATURES, "target": "label", "classes": ["2", "0"], "max_per_class": 20}
    data = open_dataset(load_spec(spec_of(tmp_path, source)))
    assert data.labels == ("2", "0")
    assert data.source.num_samples == 40


def test_records_go_the_whole_way_to_a_verified_int8_file(tmp_path):
    numbers = np.random.default_rng(0).normal(size=(400, 2))
    records = [example(x=row.tolist(), label=int(row.sum() > 0)) for row in numbers]
    written(tmp_path / "train.tfrecord", records[:300])
    written(tmp_path / "test.tfrecord", records[300:])
    source = {"path": "train.tfrecord", "test_path": "test.tfrecord", "features": FEATURES, "target": "label"}
    spec = spec_of(tmp_path, source, limits={"metric": "accuracy", "min": 0.9, "max_drop": "2%"})
    for arguments in (["check", "--data"], ["run", "--run-dir", str(tmp_path / "run")]):
        with pytest.raises(SystemExit, match=r"^0$"):
            main([arguments[0], str(spec), *arguments[1:], "-q"])
    assert json.loads((tmp_path / "run/evaluation.json").read_text())["samples"] == 100
    assert (tmp_path / "run/lite/int8.tflite").is_file()


def test_init_writes_a_spec_for_records(tmp_path):
    records = [example(image__encoded=png(i % 2 * 200), image__height=4, image__class__label=i % 2) for i in range(60)]
    written(tmp_path / "a.tfrecord", records)
    with pytest.raises(SystemExit, match=r"^0$"):
        main(["init", str(tmp_path / "a.yaml"), "--from", str(tmp_path / "a.tfrecord")])
    spec = load_spec(tmp_path / "a.yaml")
    assert spec.data.source.target == "image/class/label"
    assert set(spec.data.source.features) == {"image/encoded", "image/class/label"}

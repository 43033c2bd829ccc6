"""Data sets of tensorflow_datasets: a tiny one, prepared here; nothing is downloaded."""

import numpy as np
import pytest
import yaml

from mltool.data.dataset import open_dataset
from mltool.data.sources import tfds
from mltool.data.sources.described import Asked
from mltool.errors import DataError, MissingExtraError, SpecError
from mltool.spec.load import load_spec

library = pytest.importorskip("tensorflow_datasets")


class TinyPhotos(library.core.GeneratorBasedBuilder):
    """Ten samples to train, four to test."""

    VERSION = library.core.Version("1.0.0")

    def _info(self):
        own = library.features
        features = own.FeaturesDict(
            {
                "photo": own.Image(shape=(4, 4, 1)),
                "x": own.Tensor(shape=(2,), dtype=np.float32),
                "note": own.Text(),
                "label": own.ClassLabel(names=["zebra", "ant"]),
            }
        )
        return library.core.DatasetInfo(builder=self, features=features, supervised_keys=("photo", "label"))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(10), "test": self._generate_examples(4)}

    def _generate_examples(self, count):
        for i in range(count):
            photo = np.full((4, 4, 1), 10 * i + count, np.uint8)
            yield str(i), {"photo": photo, "x": [i, count], "note": f"no {i}", "label": i % 2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfds")
    TinyPhotos(data_dir=folder).download_and_prepare()
    return folder


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*_, **__):
        raise OSError("Network is unreachable")

    for key in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(key, raising=False)
    monkeypatch.setattr(tfds.socket, "create_connection", refuse)


@pytest.mark.parametrize("name", ["tiny_photos", "tiny_photos:1.0.0"])
def test_what_a_set_is_meant_for_is_taken_where_the_spec_says_nothing(name, folder):
    source = tfds.load_tfds(name, str(folder), Asked())
    assert list(source.inputs) == ["photo"]
    assert source.inputs["photo"][:].shape == (14, 4, 4, 1)
    assert {split: len(ids) for split, ids in source.given.items()} == {"train": 10, "test": 4}
    shades = source.inputs["photo"][:][:, 0, 0, 0]
    labels = [source.classes[(int(shade) - (10 if i < 10 else 4)) // 10 % 2] for i, shade in enumerate(shades)]
    assert source.targets.tolist() == labels
    assert source.classes == ("zebra", "ant")


def test_a_proxy_that_does_not_answer_is_told_at_once(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.test:3128")
    monkeypatch.setattr(tfds.socket, "create_connection", lambda place, timeout: asked.append(place) or refused())
    with pytest.raises(DataError, match=r"tiny_photos is not prepared in .* cannot be downloaded: nobody answers"):
        tfds.load_tfds("tiny_photos", str(tmp_path), Asked())
    assert asked == [("proxy.test", 3128)]


def refused():
    raise OSError("nobody answers")


def test_features_are_taken_as_the_spec_asks(folder):
    asked = Asked(target="note", inputs={"numbers": "x"})
    source = tfds.load_tfds("tiny_photos", str(folder), asked)
    assert source.originals == {"numbers": "x"}
    rows = zip(source.inputs["numbers"][:10].tolist(), source.targets[:10].tolist(), strict=True)
    assert sorted(rows) == [([i, 10], f"no {i}") for i in range(10)]


def spec_of(folder, source):
    spec = {
        "name": "tiny",
        "data": {"source": source},
        "model": {"layers": ["Flatten", {"Dense": {"units": 2}}]},
        "train": {"epochs": 1, "loss": {"SparseCategoricalCrossentropy": {"from_logits": True}}},
    }
    (folder / "spec.yaml").write_text(yaml.safe_dump(spec), encoding="utf-8")
    return load_spec(folder / "spec.yaml")


def test_a_spec_names_a_set_and_its_folder(folder, tmp_path):
    (tmp_path / "sets").symlink_to(folder)
    data = open_dataset(spec_of(tmp_path, {"dataset": "tfds:tiny_photos", "data_dir": "sets", "image_size": [2, 2]}))
    assert data.labels == ("zebra", "ant")
    assert data.input_shapes == {"photo": (2, 2, 1)}
    assert len(data.split("test")) == 4


@pytest.mark.parametrize("name", ["tfds:", "tfds:../x", "tfds:Mnist", "tfds:mnist:3"])
def test_a_name_that_is_none_is_refused_with_the_spec(name, tmp_path):
    with pytest.raises(SpecError, match=r"data\.source\.dataset: is no name of TFDS .*write tfds:NAME"):
        spec_of(tmp_path, {"dataset": name})


def test_a_folder_of_sets_is_for_tfds_alone(tmp_path):
    with pytest.raises(SpecError, match=r"data_dir: is a key of tfds, and the source is npz"):
        spec_of(tmp_path, {"dataset": "digits", "data_dir": "sets"})


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("no_such_set", r"tfds:no_such_set: Dataset no_such_set not found.*; see tensorflow\.org/datasets/catalog"),
        (
            "mnist",
            r"tfds:mnist is not prepared in \S+ and cannot be downloaded: Network is unreachable; prepare it where",
        ),
    ],
)
def test_a_set_that_is_not_here_is_said_and_not_waited_for(name, expected, tmp_path):
    with pytest.raises(DataError, match=expected) as caught:
        tfds.load_tfds(name, str(tmp_path), Asked())
    assert caught.value.exit_code == 4


@pytest.mark.slow
def test_a_damaged_set_is_said(tmp_path):
    builder = TinyPhotos(data_dir=tmp_path)
    builder.download_and_prepare()
    (file,) = tmp_path.glob("*/*/*train.tfrecord*")
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(DataError, match=r"the split 'train' in \S+ cannot be read: .*; take \S+ away"):
        tfds.load_tfds("tiny_photos", str(tmp_path), Asked())


def test_a_machine_without_the_library_is_told_the_extra(monkeypatch):
    def lacking(module):
        raise MissingExtraError(f"this needs {module}, which is not installed", "pip install 'mltool-tf[tfds]'")

    monkeypatch.setattr(tfds.extras, "require", lacking)
    with pytest.raises(MissingExtraError, match=r"tensorflow_datasets, which is not installed; pip install .*tfds"):
        tfds.load_tfds("mnist", None, Asked())

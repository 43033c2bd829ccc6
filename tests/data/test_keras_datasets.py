"""The arrays of keras.datasets, and what is said where they cannot be had."""

from types import SimpleNamespace

import numpy as np
import pytest

from mltool import extras
from mltool.data.sources.keras_datasets import load_keras_dataset
from mltool.errors import DataError
from mltool.spec.data import KERAS_DATASETS


@pytest.fixture
def keras(monkeypatch):
    """Puts a function in the place of `load_data` of every data set."""

    def use(load_data):
        module = SimpleNamespace(load_data=load_data)
        datasets = SimpleNamespace(**dict.fromkeys(KERAS_DATASETS, module))
        monkeypatch.setattr(extras, "keras", lambda: SimpleNamespace(datasets=datasets))

    return use


def test_train_and_test_are_kept_apart(keras):
    images = np.arange(6 * 4, dtype=np.uint8).reshape(6, 2, 2)
    keras(lambda: ((images[:4], np.asarray([[0], [1], [0], [1]])), (images[4:], np.asarray([[1], [0]]))))
    source = load_keras_dataset("cifar10")
    assert source.inputs["image"].shape == (6, 2, 2, 1)
    assert source.targets.tolist() == [0, 1, 0, 1, 1, 0]
    assert source.given == {"train": range(4), "test": range(4, 6)}


@pytest.mark.parametrize("failure", [Exception("URL fetch failure"), OSError("no space"), ValueError("damaged")])
def test_a_download_that_fails_says_how_to_give_a_file(failure, keras):
    def fail():
        raise failure

    keras(fail)
    expected = (
        r"'mnist' is not on this machine and cannot be downloaded: .*; give a file .*data\.source\.path=mnist\.npz"
    )
    with pytest.raises(DataError, match=expected) as caught:
        load_keras_dataset("mnist")
    assert caught.value.exit_code == 4

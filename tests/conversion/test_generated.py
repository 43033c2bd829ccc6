"""Inputs that are made up for a model without data."""

import numpy as np
import pytest

from mltool.conversion.sources.generated import Draw, generate
from mltool.errors import DataError
from mltool.inference.predictor import TensorInfo

IMAGE = TensorInfo("image", "float32", (8, 8, 1))
IDS = TensorInfo("ids", "int32", (6,))


def test_the_same_seed_gives_the_same_samples_whatever_stands_beside_them():
    alone = generate([IMAGE], 4, seed=1)["image"]
    beside = generate([IDS, IMAGE], 9, seed=1)["image"]

    np.testing.assert_array_equal(alone, beside[:4])
    assert not np.array_equal(alone, generate([IMAGE], 4, seed=2)["image"])
    assert not np.array_equal(alone, generate([TensorInfo("other", "float32", (8, 8, 1))], 4, seed=1)["other"])


def test_floats_are_normal_or_uniform_in_the_stated_range():
    normal = generate([IMAGE], 500, seed=0)["image"]
    uniform = generate([IMAGE], 500, seed=0, draw=Draw({"image": (0, 255)}))["image"]

    assert (normal.dtype, normal.shape) == (np.float32, (500, 8, 8, 1))
    assert abs(normal.mean()) < 0.02  # 32,000 values: the mean's deviation is 0.006
    assert abs(normal.std() - 1) < 0.02
    assert uniform.min() >= 0
    assert uniform.max() < 255
    assert abs(uniform.mean() - 127.5) < 2  # its deviation is 0.41


def test_integers_stay_in_the_range_that_is_told_else_small():
    told = generate([IDS], 300, seed=0, draw=Draw({"ids": (0, 50)}))["ids"]

    assert set(generate([IDS], 300, seed=0)["ids"].ravel().tolist()) == {0, 1}
    assert told.dtype == np.int32
    assert set(told.ravel().tolist()) == set(range(50))
    assert generate([TensorInfo("mask", "bool", (3,))], 5, seed=0)["mask"].dtype == bool


def test_free_axes_are_told():
    wide = TensorInfo("image", "float32", (None, None, 3))

    assert generate([wide], 2, seed=0, draw=Draw(sizes={"image": (16, 20, 3)}))["image"].shape == (2, 16, 20, 3)
    with pytest.raises(
        DataError, match=r"free axes: \('free', 'free', 3\); say its shape: --input-shape image=32,32,3"
    ):
        generate([wide], 2, seed=0)
    with pytest.raises(DataError, match=r"takes samples of shape \('free', 'free', 3\) \(got \(16, 20, 1\)\)"):
        generate([wide], 2, seed=0, draw=Draw(sizes={"image": (16, 20, 1)}))


@pytest.mark.parametrize(
    ("info", "draw", "said"),
    [
        (TensorInfo("text", "string", ()), Draw(), "'text' is text, which cannot be made up"),
        (IDS, Draw({"id": (0, 5)}), "no input 'id' to make up; it has ids"),
        (IDS, Draw({"ids": (0, 0)}), "no number is from 0 to below 0"),
        (TensorInfo("pixels", "uint8", (2,)), Draw({"pixels": (0, 257)}), "cannot be from 0 to below 257"),
        (IDS, Draw({"ids": (0, 1.5)}), r"of int32 cannot be from 0 to below 1\.5"),
        (IMAGE, Draw({"image": (1, 1)}), "no number is from 1 to below 1"),
    ],
)
def test_what_cannot_be_made_up_is_refused(info: TensorInfo, draw: Draw, said: str):
    with pytest.raises(DataError, match=said):
        generate([info], 2, seed=0, draw=draw)


def test_every_value_of_a_byte_can_be_drawn():
    drawn = generate([TensorInfo("pixels", "uint8", (1000,))], 10, seed=0, draw=Draw({"pixels": (0, 256)}))["pixels"]

    assert (drawn.min(), drawn.max()) == (0, 255)


def test_a_draw_says_what_it_is():
    assert str(Draw()) == "made up: floats N(0, 1)"
    assert str(Draw({"ids": (0, 50)})) == "made up: floats N(0, 1), ids from 0 to below 50"

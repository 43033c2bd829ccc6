"""Labels renamed, classes filtered, fewer samples drawn: of every array of a source alike."""

import numpy as np
import pytest

from mltool.data.select import select, taken
from mltool.data.source import Source, Subset
from mltool.errors import DataError

LABELS = ["cat", "dog", "cat", "eel", "dog", "cat", "eel", "cat", "dog", "cat"]


def source(labels=LABELS, **more):
    """Samples whose every array tells their position."""
    ids = np.arange(len(labels))
    return Source(
        "here",
        {"x": ids[:, np.newaxis] * 10},
        np.asarray(labels),
        groups=ids // 2,
        weights=ids.astype(np.float32),
        names=[f"file {i}" for i in ids],
        **more,
    )


def positions(found):
    """Which samples stayed; every array must agree."""
    ids = (found.inputs["x"][:, 0] // 10).tolist()
    assert found.weights.tolist() == ids
    assert found.groups.tolist() == [i // 2 for i in ids]
    assert list(found.names) == [f"file {i}" for i in ids]
    return ids


def test_nothing_asked_changes_nothing():
    given = source()
    assert select(given) is given


# labels


def test_labels_are_renamed_and_others_stay():
    found = select(source(), labels={"cat": "pet", "dog": "pet"})
    assert found.targets.tolist() == ["pet", "pet", "pet", "eel", "pet", "pet", "eel", "pet", "pet", "pet"]
    assert positions(found) == list(range(10))


@pytest.mark.parametrize("numbers", [[3, 4, 3], [3.0, 4.0, 3.0]], ids=["whole", "floats"])
def test_numbers_are_renamed_by_their_text(numbers):
    assert select(source(numbers), labels={"3": "three"}).targets.tolist() == ["three", "4", "three"]


def test_two_labels_can_change_places():
    assert select(source(["a", "b"]), labels={"a": "b", "b": "a"}).targets.tolist() == ["b", "a"]


def test_labels_come_before_classes():
    found = select(source(), labels={"eel": "fish"}, classes=["fish", "dog"])
    assert positions(found) == [1, 3, 4, 6, 8]
    assert found.targets.tolist() == ["dog", "fish", "dog", "fish", "dog"]


# classes


def test_other_classes_are_left_out_and_the_order_of_samples_stays():
    assert positions(select(source(), classes=["eel", "cat"])) == [0, 2, 3, 5, 6, 7, 9]


def test_classes_of_numbers_are_text():
    assert positions(select(source([7, 8, 9, 7]), classes=["7", "9"])) == [0, 2, 3]


def test_splits_follow_their_samples():
    given = {"train": np.arange(6), "test": np.arange(6, 10)}
    found = select(source(given=given), classes=["cat", "eel"])
    assert positions(found) == [0, 2, 3, 5, 6, 7, 9]
    assert {name: ids.tolist() for name, ids in found.given.items()} == {"train": [0, 1, 2, 3], "test": [4, 5, 6]}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        pytest.param({"classes": ["cat", "cow"]}, "here has no class 'cow'; it has: cat, dog, eel", id="class"),
        pytest.param(
            {"labels": {"cow": "cat"}}, "here has no label 'cow', which labels renames; it has: cat, dog", id="label"
        ),
        pytest.param({"classes": ["Cat", "dog"]}, "here has no class 'Cat'", id="another case"),
        pytest.param({"labels": {"cat": "pet"}, "classes": ["cat", "dog"]}, "has no class 'cat'", id="renamed"),
    ],
)
def test_what_is_not_in_the_data_is_said(options, expected):
    with pytest.raises(DataError, match=expected) as caught:
        select(source(), **options)
    assert caught.value.exit_code == 4


@pytest.mark.parametrize("options", [{"labels": {"1": "2"}}, {"classes": ["1", "2"]}, {"max_per_class": 1}])
def test_a_regression_has_no_classes(options):
    values = source([0.5, 1.5, 2.5])
    with pytest.raises(
        DataError,
        match="cannot be filtered by class; leave labels, classes and max_per_class out",
    ):
        select(values, has_classes=False, **options)
    assert len(select(values, has_classes=False, max_samples=2).targets) == 2


# max_samples, max_per_class


@pytest.mark.parametrize("most", [1, 3, 9])
def test_no_more_samples_than_asked_are_drawn_in_their_order(most):
    found = positions(select(source(), max_samples=most, seed=4))
    assert len(found) == most
    assert found == sorted(set(found))


@pytest.mark.parametrize("most", [10, 11, 1000])
def test_as_many_as_there_are_stay(most):
    assert positions(select(source(), max_samples=most)) == list(range(10))


def test_no_more_of_a_class_than_asked_are_drawn():
    found = select(source(), max_per_class=2, seed=4)
    assert {label: found.targets.tolist().count(label) for label in ("cat", "dog", "eel")} == {
        "cat": 2,
        "dog": 2,
        "eel": 2,
    }
    assert positions(found) == sorted(positions(found))


def test_a_class_of_fewer_stays_whole():
    assert select(source(), max_per_class=3, seed=1).targets.tolist().count("eel") == 2


def test_both_limits_hold():
    found = select(source(), max_per_class=2, max_samples=5)
    assert len(found.targets) == 5
    assert max(found.targets.tolist().count(label) for label in set(LABELS)) == 2


def test_the_draw_is_that_of_the_seed():
    draws = [tuple(positions(select(source(), max_samples=5, seed=seed))) for seed in range(20)]
    assert draws == [tuple(positions(select(source(), max_samples=5, seed=seed))) for seed in range(20)]
    assert len(set(draws)) > 10
    assert {i for draw in draws for i in draw} == set(range(10))


def test_a_test_set_of_the_source_stays_whole():
    given = {"train": np.arange(6), "test": np.arange(6, 10)}
    for options in ({"max_samples": 2}, {"max_per_class": 1, "max_samples": 2}):
        found = select(source(given=given), **options)
        assert len(found.given["train"]) == 2
        assert [positions(found)[i] for i in found.given["test"]] == [6, 7, 8, 9]


# taken


def test_what_is_in_memory_is_copied_and_what_is_not_is_told_to_come_later():
    class Far:
        dtype, shape = np.dtype(np.int64), (10, 1)

        def __len__(self):
            return 10

        def __getitem__(self, asked):
            return np.asarray(asked)[..., np.newaxis] * 10

    near = source()
    far = Source("here", {"x": Far()}, near.targets)
    some = taken(taken(far, np.asarray([1, 4, 5, 9])), np.asarray([0, 2, 3]))
    assert isinstance(some.inputs["x"], Subset)
    assert some.inputs["x"].positions.tolist() == [1, 5, 9]
    assert some.inputs["x"][:2].tolist() == [[10], [50]]
    assert type(taken(near, np.asarray([1, 4])).inputs["x"]) is np.ndarray
    assert list(some.names) == []
    assert some.name_of(0) == "sample 0"


@pytest.mark.parametrize("options", [{"labels": {"1": "2"}}, {"classes": ["1", "2"]}, {"max_per_class": 1}])
def test_several_labels_a_sample_are_no_class_to_filter_by(options):
    several = source([[0, 1, 1], [1, 0, 0], [0, 0, 1]])
    with pytest.raises(DataError, match="not one class a sample, and cannot be filtered by class"):
        select(several, **options)
    assert len(select(several, max_samples=2).targets) == 2

"""Sharing samples out: counts worked out by hand, equal samples kept together, given test sets kept as they are."""

import numpy as np
import pytest

from mltool.data.splits import joined_groups, make_splits, require_disjoint, with_anomalies
from mltool.errors import DataError

OPTIONS = {"by": "random", "validation": 0.1, "test": 0.2, "duplicates": "drop", "seed": 42}


def split(groups, classes=None, given=None, **options):
    groups = np.asarray(groups)
    classes = None if classes is None else np.asarray(classes)
    return make_splits(groups, classes, given or {}, **{**OPTIONS, **options})


def sizes(splits):
    return {name: len(ids) for name, ids in splits.ids().items()}


def test_every_sample_is_in_one_split():
    splits = split(range(100))
    assert sizes(splits) == {"train": 72, "validation": 8, "test": 20}
    assert sorted(np.concatenate(list(splits.ids().values())).tolist()) == list(range(100))
    assert (splits.dropped, splits.kept) == (0, 0)


def test_ids_ascend_and_are_int64():
    for ids in split(range(100)).ids().values():
        assert ids.dtype == np.int64
        assert (np.diff(ids) > 0).all()


def test_classes_keep_their_shares():
    # 60 of class 0, 30 of 1, 10 of 2. Test, a fifth: 12, 6, 2. Validation, a tenth of what is left: 4.8, 2.4, 0.8,
    # rounded down 4, 2, 0, and the two that are missing to 8 go to the largest remainders: classes 0 and 2.
    classes = np.repeat([0, 1, 2], [60, 30, 10])
    splits = split(range(100), classes)
    assert np.bincount(classes[splits.test]).tolist() == [12, 6, 2]
    assert np.bincount(classes[splits.validation]).tolist() == [5, 2, 1]


def test_a_class_of_one_sample_stays_whole():
    classes = [0] * 19 + [1]
    splits = split(range(20), classes)
    assert sum(int(19 in ids) for ids in splits.ids().values()) == 1
    assert sizes(splits) == {"train": 14, "validation": 2, "test": 4}


def test_the_seed_alone_decides():
    assert split(range(100)).test.tolist() == split(range(100)).test.tolist()
    assert split(range(100)).test.tolist() != split(range(100), seed=43).test.tolist()


def test_validation_is_not_drawn_as_the_test_set_was():
    splits = split(range(100), test=0.5, validation=0.5)
    ranks = np.searchsorted(np.sort(np.append(splits.train, splits.validation)), splits.validation)
    assert ranks.tolist() != split(range(50), test=0.5).test.tolist()


def test_in_order_the_last_are_the_test_and_before_them_the_validation():
    splits = split(range(20), by="order", test=0.2, validation=0.25)
    assert splits.train.tolist() == list(range(12))
    assert splits.validation.tolist() == list(range(12, 16))
    assert splits.test.tolist() == list(range(16, 20))


def test_equal_samples_stay_together():
    groups = np.repeat(np.arange(50), 4)
    splits = split(groups)
    in_splits = [set(groups[ids].tolist()) for ids in splits.ids().values()]
    assert sum(len(found) for found in in_splits) == 50
    assert splits.dropped == 0
    assert sizes(splits)["test"] == 40


def test_a_group_as_large_as_the_data_leaves_nothing_to_train_on():
    with pytest.raises(
        DataError, match=r"split is empty: 10 samples, but only 1 different ones; equal samples stay together"
    ) as caught:
        split([0] * 10)
    assert caught.value.exit_code == 4


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_handful_of_samples_is_too_few(count):
    with pytest.raises(DataError, match=f"split is empty: {count} samples are too few"):
        split(range(count))


# A test set that the source brings


def given(train, test):
    return {"train": range(train), "test": range(train, train + test)}


def test_a_given_test_set_stays_as_it_is():
    splits = split(range(30), given=given(20, 10))
    assert splits.test.tolist() == list(range(20, 30))
    assert sizes(splits) == {"train": 18, "validation": 2, "test": 10}


def test_copies_of_test_samples_are_dropped_from_training_and_counted():
    groups = np.arange(30)
    groups[[20, 21]] = [3, 5]  # test samples 20 and 21 equal training samples 3 and 5
    splits = split(groups, given=given(20, 10))
    assert splits.dropped == 2
    assert not {3, 5} & {*splits.train.tolist(), *splits.validation.tolist()}
    assert splits.test.tolist() == list(range(20, 30))
    assert sizes(splits) == {"train": 16, "validation": 2, "test": 10}


def test_copies_may_be_an_error():
    groups = np.arange(30)
    groups[20] = 3
    with pytest.raises(
        DataError, match=r"1 samples of training are copies of test samples \(first: sample 3 = sample 20\)"
    ):
        split(groups, given=given(20, 10), duplicates="error")


def test_copies_may_be_kept_and_are_counted():
    groups = np.arange(30)
    groups[20] = 3
    splits = split(groups, given=given(20, 10), duplicates="keep")
    assert (splits.dropped, splits.kept) == (0, 1)
    assert 3 in {*splits.train.tolist(), *splits.validation.tolist()}


def test_copies_inside_training_are_no_leak():
    groups = [0, 0, 0, *range(3, 30)]
    assert split(groups, given=given(20, 10), duplicates="error").dropped == 0


def test_in_order_copies_on_both_sides_of_an_edge_are_dropped():
    groups = np.arange(20)
    groups[19] = 0  # test
    groups[15] = 1  # validation
    splits = split(groups, by="order", test=0.2, validation=0.25)
    # Sample 0 goes first, so that 15 are left; a quarter of them (3.75, so 4) are validated on: 12 to 15.
    assert splits.validation.tolist() == [12, 13, 14, 15]
    assert splits.train.tolist() == list(range(2, 12))
    assert splits.dropped == 2


# The proof


def test_splits_that_share_a_sample_are_refused():
    with pytest.raises(DataError, match="2 samples stand in train and in test; split the data again") as caught:
        require_disjoint({"train": np.asarray([1, 2, 3]), "validation": np.asarray([4]), "test": np.asarray([2, 3])})
    assert caught.value.exit_code == 4


def test_splits_that_share_nothing_pass():
    require_disjoint(
        {"train": np.asarray([1, 1]), "validation": np.asarray([], dtype=np.int64), "test": np.asarray([2])}
    )


# Groups: speakers, patients, machines


def families_in(splits, families):
    return {name: set(np.asarray(families)[ids].tolist()) for name, ids in splits.ids().items()}


@pytest.mark.parametrize("seed", range(5))
def test_a_group_is_never_torn_apart(seed):
    families = np.repeat([f"speaker {number}" for number in range(10)], 10)
    found = families_in(split(range(100), np.tile([0, 1], 50), families=families, seed=seed), families)
    assert [len(names) for names in found.values()] == [7, 1, 2]
    assert len(set.union(*found.values())) == 10


def test_equal_samples_join_their_groups():
    # b and c share the sample 3, c and d the sample 5: three groups are one. Numbered by the first sample of each.
    families = np.asarray(["a", "b", "b", "c", "c", "d", "e"])
    groups = np.asarray([0, 1, 3, 3, 5, 5, 6])
    assert joined_groups(groups, families).tolist() == [0, 1, 1, 1, 1, 1, 6]


def test_groups_that_share_a_sample_stay_on_one_side():
    families = np.repeat(list("abcdefghij"), 4)
    groups = np.arange(40)
    groups[4] = groups[0]  # a and b
    for seed in range(8):
        found = families_in(split(groups, families=families, seed=seed), families)
        assert [names for names in found.values() if "a" in names] == [
            names for names in found.values() if "b" in names
        ]


def test_a_group_in_training_and_in_the_given_test_set_is_named():
    families = np.asarray(["ann"] * 10 + ["bob"] * 12 + ["cid"] * 8)  # bob in both: samples 10 to 21
    with pytest.raises(
        DataError, match=r"the group 'bob' stands in train and in test; .* move its samples to one side"
    ):
        split(range(30), given=given(20, 10), families=families, validation=0.5)


def test_a_group_at_an_edge_of_the_order_is_named():
    families = np.repeat(["ann", "bob", "cid"], [8, 8, 4])
    with pytest.raises(DataError, match="the group 'ann' stands in train and in validation"):
        split(range(20), by="order", families=families, validation=0.6)


def test_too_few_groups_are_said_to_be_that():
    with pytest.raises(DataError, match="the validation split is empty: 2 groups are too few for the shares"):
        split(range(20), families=np.repeat(["ann", "bob"], 10))


def greedy(groups, classes, share, seed):
    """The groups of a share, one after the other, as the docstring of `make_splits` has it."""
    numbers, first, sizes = np.unique(groups, return_index=True, return_counts=True)
    kinds = classes[first]
    exact = {kind: sizes[kinds == kind].sum() * share for kind in np.unique(kinds)}
    wanted = {kind: int(count) for kind, count in exact.items()}
    rest = round(sum(exact.values())) - sum(wanted.values())
    for kind in sorted(exact, key=lambda kind: wanted[kind] - exact[kind])[:rest]:
        wanted[kind] += 1
    left = {kind: int((kinds == kind).sum()) for kind in wanted}
    taken = []
    for index in np.random.default_rng([seed, 0x5B117]).permutation(len(numbers)):
        kind = kinds[index]
        if left[kind] > 1 and 2 * wanted[kind] >= sizes[index]:
            wanted[kind], left[kind] = wanted[kind] - sizes[index], left[kind] - 1
            taken.append(numbers[index])
    return np.isin(groups, taken)


@pytest.mark.parametrize("copies", [0, 0.3], ids=["all different", "many copies"])
def test_many_samples_are_shared_out_as_one_after_the_other(copies):
    # More samples than are worked on at once, of classes with few and with many.
    random = np.random.default_rng(1)
    groups = np.arange(300_000)
    again = random.random(300_000) < copies
    groups[again] = random.integers(0, 1000, int(again.sum())).clip(max=groups[again])
    groups = groups[groups]
    classes = np.searchsorted([0.6, 0.9, 0.9999], random.random(300_000))[groups]
    expected = greedy(groups, classes, 0.2, 42)
    splits = split(groups, classes)
    assert splits.test.tolist() == np.flatnonzero(expected).tolist()
    assert sum(sizes(splits).values()) == 300_000


# Anomalies


def with_anomalies_of(families, anomalies, given=None):
    """Normal samples are shared out, then the anomalies; every sample is another one."""
    families, anomalies = np.asarray(families), np.asarray(anomalies)
    groups, given = np.arange(len(families)), given or {}
    normal = {name: np.setdiff1d(ids, anomalies) for name, ids in given.items()}
    taken = np.concatenate([anomalies, *normal.values()])
    normal = {"train": np.setdiff1d(groups, taken), **normal}
    splits = make_splits(groups, None, normal, families=families, **OPTIONS)
    return with_anomalies(splits, anomalies, groups, given, families=families)


@pytest.mark.parametrize("seed", range(3))
def test_no_group_has_an_anomaly_in_the_test_set_and_normal_samples_elsewhere(seed):
    families = np.random.default_rng(seed).permutation(np.repeat(np.arange(20), 10))
    anomalies = np.flatnonzero(np.arange(200) % 7 == 0)
    splits = with_anomalies_of(families, anomalies)
    sides = {name: set(families[ids].tolist()) for name, ids in splits.ids().items()}
    assert not sides["test"] & (sides["train"] | sides["validation"])
    there = np.isin(splits.test, anomalies)
    assert 0 < there.sum() < len(anomalies)
    assert (~there).any()


def test_without_an_anomaly_that_may_be_tested_there_is_nothing_to_tell():
    families = np.repeat(np.arange(10), 10)
    splits = make_splits(np.arange(100), None, {}, families=families, **OPTIONS)
    families = np.append(families, families[splits.train[0]])
    with pytest.raises(DataError, match="no anomaly: 1 are left out, as normal samples of their groups stand in train"):
        with_anomalies(splits, np.asarray([100]), np.arange(101), {}, families=families)


def test_a_group_in_training_with_an_anomaly_in_the_given_test_set_is_named():
    families = np.repeat(np.arange(10), 10)
    with pytest.raises(DataError, match=r"the group 0 stands in (train|validation) and in test"):
        with_anomalies_of([*families, 0, 10], [100], given={"test": [100, 101]})

"""The samples of a spec, shared out: classes, labels, and the proof that the data are those of the run."""

import numpy as np
import pytest

from mltool.data.dataset import Dataset
from mltool.errors import DataError, SpecError
from mltool.spec.load import load_spec

SPARSE = "{SparseCategoricalCrossentropy: {from_logits: true}}"
BINARY = "{BinaryCrossentropy: {from_logits: true}}"


@pytest.fixture
def dataset(tmp_path):
    """Makes the data set of arrays, or of the embedded digits without any."""

    def make(loss=SPARSE, data="", convert="[]", source="", **arrays):
        place = "dataset: digits"
        if arrays:
            np.savez(tmp_path / "a.npz", **arrays)
            place = f"path: a.npz{source}"
        spec = tmp_path / "s.yaml"
        model = "{layers: [Flatten, {Dense: {units: 10}}]}"
        lines = ["name: s", f"data: {{source: {{{place}}}{data}}}", f"model: {model}"]
        lines += [f"train: {{loss: {loss}}}", f"convert: {convert}"]
        spec.write_text("\n".join(lines))
        return Dataset(load_spec(spec))

    return make


X = np.random.default_rng(1).normal(size=(40, 3)).astype(np.float32)


def test_digits_are_in_the_package(dataset):
    digits = dataset()
    assert digits.input_shapes == {"image": (8, 8, 1)}
    assert digits.source.num_samples == 1797
    assert digits.labels == tuple("0123456789")
    assert digits.source.inputs["image"].max() == 16
    assert {name: len(ids) for name, ids in digits.splits.ids().items()} == {
        "train": 1294,
        "validation": 144,
        "test": 359,
    }


def test_digits_are_those_of_scikit_learn(dataset):
    from sklearn.datasets import load_digits

    theirs, ours = load_digits(), dataset()
    assert np.array_equal(theirs.images[..., np.newaxis], ours.source.inputs["image"])
    assert np.array_equal(theirs.target, ours.targets)


def test_a_split_is_in_the_order_of_the_source(dataset):
    test = dataset().split("test")
    assert len(test) == 359
    assert (np.diff(test.ids) > 0).all()
    assert test.first(5)["image"].dtype == np.float32
    assert test.first(5)["image"].shape == (5, 8, 8, 1)


@pytest.mark.parametrize(
    ("targets", "labels", "numbers"),
    [
        pytest.param([5, 3, 5, 9], ("3", "5", "9"), [1, 0, 1, 2], id="numbers with gaps"),
        pytest.param([1.0, 0.0, 1.0, 2.0], ("0", "1", "2"), [1, 0, 1, 2], id="whole floats"),
        pytest.param(["no", "yes", "no", "a"], ("a", "no", "yes"), [1, 2, 1, 0], id="texts"),
        pytest.param([[0, 1, 0], [1, 0, 0], [0, 0, 1], [1, 0, 0]], ("0", "1", "2"), [1, 0, 2, 0], id="one-hot"),
        pytest.param([[5], [3], [5], [9]], ("3", "5", "9"), [1, 0, 1, 2], id="a column"),
    ],
)
def test_classes_become_numbers_and_keep_their_names(targets, labels, numbers, dataset):
    found = dataset(x=X, y=np.asarray(targets * 10))
    assert found.labels == labels
    assert found.targets[:4].tolist() == numbers
    assert found.targets.dtype == np.int64


def test_a_regression_has_values_and_no_labels(dataset):
    found = dataset(loss="mse", x=X, y=np.arange(40))
    assert (found.task, found.labels, found.targets.shape, found.targets.dtype) == (
        "regression",
        (),
        (40, 1),
        np.float32,
    )


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        pytest.param(
            {"y": np.arange(40) / 3},
            r"the targets are not classes \(first: 0\.0\); use a loss of regression",
            id="fractions",
        ),
        pytest.param(
            {"y": np.arange(40) % 3, "loss": BINARY},
            "a binary loss needs 2 classes, the targets have 3",
            id="three of two",
        ),
        pytest.param(
            {"y": np.zeros(40, int), "loss": BINARY},
            "all samples of training are of one class, '0'; there is nothing to learn",
            id="one of two",
        ),
        pytest.param(
            {"y": np.asarray(["a"] * 40), "loss": "mse"}, "a regression needs numbers, the targets are <U1", id="texts"
        ),
        pytest.param(
            {"y": np.zeros((40, 2, 2))},
            r"the targets have shape \(40, 2, 2\); one class a sample",
            id="maps of classes",
        ),
    ],
)
def test_targets_that_do_not_fit_the_loss_are_refused(options, expected, dataset):
    with pytest.raises(DataError, match=expected):
        dataset(x=X, **options)


def parts(y_train, y_test):
    edge = len(y_train)
    return {"x_train": X[:edge], "x_test": X[edge:], "y_train": np.asarray(y_train), "y_test": np.asarray(y_test)}


@pytest.mark.parametrize("unknown", [7, -1, 1], ids=["above", "below", "between"])
def test_a_class_that_only_the_test_set_has_is_refused(unknown, dataset):
    with pytest.raises(DataError, match=rf"the test set has the class {unknown}, training has not") as caught:
        dataset(**parts([0, 2] * 15, [0, 2] * 4 + [unknown, 0]))
    assert caught.value.exit_code == 4


def test_a_second_test_set_is_a_mistake_of_the_spec(dataset):
    found = dataset(data=", split: {test: 0.3}", **parts([0, 1] * 15, [0, 1] * 5))
    with pytest.raises(SpecError, match=r"data\.split\.test: the data bring their own test set; leave it out"):
        _ = found.splits


# The data of a run


def stored(dataset):
    return {name: array.copy() for name, array in dataset.record().items()}


Y = np.arange(40) % 2


def test_the_splits_of_a_run_are_used_again(dataset):
    first = dataset(x=X, y=Y)
    again = dataset(x=X, y=Y, data=", split: {test: 0.5}")
    again.use_stored_splits(stored(first))
    assert again.splits.test.tolist() == first.splits.test.tolist()
    assert again.fingerprint == first.fingerprint


def test_data_that_changed_since_the_run_are_refused(dataset):
    kept = stored(dataset(x=X, y=Y))
    changed = X.copy()
    changed[kept["test_ids"][0], 0] += 1
    with pytest.raises(
        DataError, match="1 samples of test changed since the run was trained; restore the data"
    ) as caught:
        dataset(x=changed, y=Y).use_stored_splits(kept)
    assert caught.value.exit_code == 4


def test_data_that_are_fewer_than_in_the_run_are_refused(dataset):
    kept = stored(dataset(x=X, y=Y))
    with pytest.raises(DataError, match="has fewer samples than when the run was trained"):
        dataset(x=X[:20], y=Y[:20]).use_stored_splits(kept)


@pytest.mark.parametrize("name", ["a\nb", "", " ", "\ud800"])
def test_a_class_whose_name_is_no_line_of_text_is_refused(name, dataset):
    with pytest.raises(DataError, match="cannot be the name of a class; use one line of UTF-8 text"):
        dataset(x=X, y=np.asarray([name, "c"])[Y])


def test_all_samples_of_one_class_are_nothing_to_learn(dataset):
    with pytest.raises(DataError, match="all samples of training are of one class, '1'; there is nothing to learn"):
        dataset(x=X, y=np.ones(40, int))


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ("{cta: 2}", "no class is called 'cta'; did you mean 'cat'?"),
        ("{cat: 0, dog: 0}", "all classes weigh 0; give one of them more"),
    ],
)
def test_class_weights_that_do_not_fit_the_data_are_told_without_training(weights, message, dataset):
    with pytest.raises(SpecError, match=message.replace("?", r"\?")) as caught:
        dataset(loss=f"{SPARSE}, class_weights: {weights}", x=X, y=np.asarray(["cat", "dog"])[Y])
    assert caught.value.messages[0].key == "train.class_weights"


def test_samples_that_only_moved_are_told_so(dataset):
    kept = stored(dataset(x=X, y=Y))
    with pytest.raises(DataError, match=r"the samples of train stand at other places \(now 41 samples; were files"):
        dataset(x=np.concatenate([X[:1] + 9, X]), y=np.concatenate([Y[:1], Y])).use_stored_splits(kept)
    changed = np.concatenate([X[:1] + 9, X])
    changed[kept["train_ids"][0] + 1] += 5
    with pytest.raises(DataError, match=r"1 samples of train are gone or changed .*, others stand at other"):
        dataset(x=changed, y=np.concatenate([Y[:1], Y])).use_stored_splits(kept)


def test_weights_of_training_that_are_all_zero_teach_nothing(dataset):
    parts = {"x_train": X, "y_train": Y, "x_test": X[:4] + 9, "y_test": Y[:4]}
    weights = {"w_train": np.zeros(40), "w_test": np.ones(4)}
    with pytest.raises(DataError, match="all weights of training are 0; nothing would be learned"):
        _ = dataset(source=", weight: w", **parts, **weights).splits
    weights = {"w_train": np.ones(40), "w_test": np.zeros(4)}
    assert len(dataset(source=", weight: w", **parts, **weights).splits.test) == 4


def test_inputs_that_are_not_those_of_the_run_are_named(dataset):
    data = dataset(x=X, y=Y)
    with pytest.raises(DataError, match="the inputs are x, and the run was trained on x, z; another mltool took other"):
        data.use_stored_splits(stored(data), ["x", "z"])
    data.use_stored_splits(stored(data), ["x"])


def test_too_few_samples_to_calibrate_are_refused_before_training(dataset):
    few = {"x_train": X[:7], "y_train": Y[:7], "x_validation": X[7:20], "y_validation": Y[7:20]}
    rest = {"x_test": X[20:], "y_test": Y[20:]}
    assert len(dataset(convert="[{quantize: dynamic}]", **few, **rest).splits.train) == 7
    with pytest.raises(DataError, match="training has 7 samples, and 'int8' needs 8 to calibrate; add samples, or"):
        _ = dataset(convert="[{quantize: dynamic}, {quantize: int8}]", **few, **rest).splits


def test_a_label_that_changed_changes_the_fingerprint_alone(dataset):
    first, other = dataset(x=X, y=Y), dataset(x=X, y=np.where(np.arange(40) == 3, 1 - Y, Y))
    assert first.fingerprint != other.fingerprint
    assert first.hashes.tolist() == other.hashes.tolist()


def test_a_label_that_changed_since_the_run_is_refused(dataset):
    first = dataset(x=X, y=Y)
    other = Y.copy()
    other[first.splits.test[0]] = 1 - other[first.splits.test[0]]
    with pytest.raises(DataError, match="1 targets of test changed since the run was trained; restore the data"):
        dataset(x=X, y=other).use_stored_splits(stored(first))


def test_stored_splits_that_share_a_sample_are_refused(dataset):
    found = dataset(x=X, y=Y)
    kept = stored(found)
    kept["test_ids"] = np.append(kept["test_ids"], kept["train_ids"][0])
    kept["test_hashes"] = np.append(kept["test_hashes"], kept["train_hashes"][0])
    kept["test_targets"] = np.append(kept["test_targets"], kept["train_targets"][0])
    with pytest.raises(DataError, match="1 samples stand in train and in test"):
        found.use_stored_splits(kept)


@pytest.mark.parametrize("key", ["test_ids", "train_hashes", "validation_targets"])
def test_stored_splits_that_lack_an_array_are_damaged(key, dataset):
    found = dataset(x=X, y=Y)
    kept = stored(found)
    del kept[key]
    with pytest.raises(DataError, match=rf"splits\.npz .*{key}.*; train again"):
        found.use_stored_splits(kept)


def test_a_stored_position_below_zero_is_damaged(dataset):
    found = dataset(x=X, y=Y)
    kept = stored(found)
    kept["test_ids"][0] -= 1000
    with pytest.raises(DataError, match="train again"):
        found.use_stored_splits(kept)


def test_copies_that_were_kept_are_no_leak(dataset):
    copies = {"x_train": X[:30], "x_test": X[20:], "y_train": Y[:30], "y_test": Y[20:]}
    found = dataset(data=", split: {duplicates: keep}", **copies)
    assert found.splits.kept == 10
    found.use_stored_splits(stored(found))


def test_a_declared_input_names_that_of_the_data_set(dataset):
    assert dataset(data=", inputs: {picture: {}}").input_shapes == {"picture": (8, 8, 1)}


def test_two_declared_inputs_are_too_many_for_a_data_set(tmp_path):
    spec = tmp_path / "s.yaml"
    spec.write_text(
        "name: s\ndata: {source: {dataset: digits}, inputs: {a: {}, b: {}}}\n"
        "model: {layers: [{Add: {inputs: [a, b]}}, Flatten, {Dense: {units: 10}}]}\n"
        f"train: {{loss: {SPARSE}}}\n"
    )
    with pytest.raises(DataError, match=r"the data set 'digits' has one input, data\.inputs declares 2"):
        Dataset(load_spec(spec))


def test_a_given_set_of_anomalies_alone_is_said_to_be_that(dataset):
    arrays = {"x_train": X[:30], "x_test": X[30:], "y_train": np.zeros(30, int), "y_test": np.ones(10, int)}
    found = dataset(loss="MeanSquaredError, anomaly: {normal: 0}", **arrays)
    with pytest.raises(DataError, match="all samples of test are anomalies; add normal ones"):
        found.splits  # noqa: B018

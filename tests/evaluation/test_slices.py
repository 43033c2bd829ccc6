"""Slices by a column and confidence intervals, held against scikit-learn and closed forms."""

import numpy as np
import pytest
import yaml
from sklearn.metrics import accuracy_score

from mltool.data.dataset import Dataset
from mltool.errors import UsageError
from mltool.evaluation.slices import confidence_intervals, sliced
from mltool.runs.input_schema import InputSchema, OutputInfo
from mltool.spec.catalogue import KerasObject
from mltool.spec.load import load_spec
from mltool.spec.outputs import Measure

COUNT = 400
RANDOM = np.random.default_rng(5)
SEX = RANDOM.choice(["Female", "Male", ""], COUNT)
AGE = RANDOM.integers(18, 90, COUNT)
ROOMS = RANDOM.integers(1, 5, COUNT)
TARGETS = RANDOM.integers(0, 2, COUNT)
OUTPUTS = (TARGETS[:, np.newaxis] * 2.0 - 1 + RANDOM.normal(size=(COUNT, 1)) * 1.5).astype(np.float32)
RIGHT = (OUTPUTS[:, 0] > 0) == TARGETS
ACCURACY = [Measure(KerasObject("accuracy", {}))]
BINARY = InputSchema((), (OutputInfo("out", (1,), "binary", "logits", ("no", "yes")),))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("slices")
    rows = zip(SEX, AGE, ROOMS, np.arange(COUNT) // 4, np.asarray(["no", "yes"])[TARGETS], strict=True)
    lines = ["sex,age in years,rooms,house,answer", *(",".join(map(str, row)) for row in rows)]
    (folder / "t.csv").write_text("\n".join(lines), encoding="utf-8")
    spec = {
        "name": "s",
        "data": {"source": {"path": "t.csv", "target": "answer", "group": "house"}},
        "model": {"preprocess": "auto", "layers": [{"Dense": {"units": 1}}]},
        "train": {"loss": {"BinaryCrossentropy": {"from_logits": True}}},
    }
    (folder / "s.yaml").write_text(yaml.safe_dump(spec), encoding="utf-8")
    return Dataset(load_spec(folder / "s.yaml"))


def slices(data, by, ids=None):
    ids = np.arange(COUNT) if ids is None else ids
    found = sliced(by, data, ids, OUTPUTS[ids], measures=ACCURACY, schema=BINARY)
    return {part.value: (part.samples, part.metrics["accuracy"]) for part in found}


def expected(mask):
    return int(mask.sum()), pytest.approx(accuracy_score(TARGETS[mask], OUTPUTS[mask, 0] > 0), abs=1e-9)


def test_every_category_is_measured_apart_and_so_is_what_is_missing(data):
    names = {"Female": "Female", "Male": "Male", "(missing)": ""}
    assert slices(data, "sex") == {shown: expected(value == SEX) for shown, value in names.items()}


def test_only_the_samples_that_are_asked_for_count(data):
    ids = np.arange(0, COUNT, 3)
    found = slices(data, "sex", ids)
    assert found["Male"][0] == int((SEX[ids] == "Male").sum())
    assert sum(count for count, _ in found.values()) == len(ids)


def test_few_numbers_are_slices_and_many_are_cut_at_the_quartiles(data):
    assert slices(data, "rooms") == {str(value): expected(value == ROOMS) for value in (1, 2, 3, 4)}
    edges = np.quantile(AGE, [0, 0.25, 0.5, 0.75, 1])
    found = slices(data, "age in years")
    assert found == slices(data, "age_in_years")
    assert len(found) == 4
    assert found[f"1: {edges[0]:g} to {edges[1]:g}"] == expected(edges[1] > AGE)
    assert found[f"4: {edges[3]:g} to {edges[4]:g}"] == expected(edges[3] <= AGE)


def test_classes_and_groups_are_slices_too(data):
    for by in ("label", "answer"):
        assert slices(data, by) == {"no": expected(TARGETS == 0), "yes": expected(TARGETS == 1)}
    assert slices(data, "group")["7"] == expected(np.arange(COUNT) // 4 == 7)


def test_what_is_no_column_is_refused_with_what_there_is(data):
    with pytest.raises(UsageError, match="no column 'sexx' to slice by; did you mean 'sex'"):
        slices(data, "sexx")
    with pytest.raises(UsageError, match="there are: sex, age_in_years, rooms, age in years, label, group"):
        slices(data, "zzz")


def test_the_interval_of_an_accuracy_is_that_of_the_normal_distribution():
    (low, high) = confidence_intervals(0.95, OUTPUTS, TARGETS, ACCURACY, BINARY, seed=1)["accuracy"]
    share = RIGHT.mean()
    half = 1.96 * np.sqrt(share * (1 - share) / COUNT)
    assert low == pytest.approx(share - half, abs=half / 5)
    assert high == pytest.approx(share + half, abs=half / 5)
    narrow = confidence_intervals(0.5, OUTPUTS, TARGETS, ACCURACY, BINARY, seed=1)["accuracy"]
    assert low < narrow[0] < share < narrow[1] < high


def test_an_interval_is_that_of_its_seed():
    first, again, other = (
        confidence_intervals(0.9, OUTPUTS, TARGETS, ACCURACY, BINARY, seed=seed)["accuracy"] for seed in (3, 3, 4)
    )
    assert first == again != other

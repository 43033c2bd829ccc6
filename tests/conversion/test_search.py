"""The search: what it tries, which files are worth having, and that its winner is made again bit for bit."""

import contextlib
import json
from types import SimpleNamespace

import artifacts
import numpy as np
import pytest

from mltool.child import Child
from mltool.conversion import convert as room
from mltool.conversion.convert import convert
from mltool.conversion.entries import tolerance_of
from mltool.conversion.origin import search_ids
from mltool.conversion.search.candidates import Candidate, doubling, keeping, narrowing, whole_schemes
from mltool.conversion.search.front import pareto_front
from mltool.conversion.search.search import _Search
from mltool.conversion.search.trial import SearchResult, Trial, best_of
from mltool.errors import DataError, VerificationError
from mltool.evaluation.agreement import Agreement
from mltool.evaluation.judge import Measurements
from mltool.runs.lite import LiteFolder
from mltool.runs.run import Run
from mltool.spec.convert import ConvertSpec
from mltool.spec.limits import LimitsSpec


@pytest.fixture(scope="module")
def warm():
    with Child() as child:
        yield child


@pytest.fixture(autouse=True)
def one_process(warm, monkeypatch):
    monkeypatch.setattr(room, "Child", lambda: contextlib.nullcontext(warm))


def entry(**keys):
    return ConvertSpec.model_validate(keys)


AUTO = entry(quantize="auto")


def test_the_front_holds_what_nothing_beats():
    points = [(3, 1), (1, 3), (2, 2), (2, 3), (3, 3), (2, 2)]
    # By hand: (2, 3) loses to (2, 2) and to (1, 3); (3, 3) to all; of the two (2, 2) the first stays.
    found = pareto_front(list(enumerate(points)), lambda item: item[1])
    assert [index for index, _ in found] == [0, 1, 2]
    assert pareto_front([], lambda item: item) == []


@pytest.mark.parametrize(("count", "expected"), [(0, []), (1, [1]), (2, [1, 2]), (6, [1, 2, 4, 6]), (8, [1, 2, 4, 8])])
def test_layers_are_kept_one_two_four_and_all(count, expected):
    assert list(doubling(count)) == expected


def test_whole_schemes_hold_what_the_entry_says_for_all():
    asked = entry(quantize="auto", batch=4, representative=50)
    found = whole_schemes(asked, converter=True)
    assert {candidate.entry.batch for candidate in found} == {4}
    assert {candidate.entry.representative for candidate in found} == {50}
    names = [candidate.name for candidate in found]
    assert names[0] == "int8"
    assert len(set(names)) == len(names)
    # A float file knows no BatchNormalization to fold, and TensorFlow's converter does not read it.
    assert "int8-tensor" not in [candidate.name for candidate in whole_schemes(asked, converter=False)]


def test_mixtures_name_the_layers_exactly():
    mixture = keeping(AUTO, ["a.b", "dense", "other"], "int16x8", 2).entry
    assert dict(mixture.layers) == {r"a\.b": "int16x8", "dense": "int16x8"}
    assert mixture.quantize == "int8"
    assert dict(narrowing(AUTO, ["x", "y"], 1).entry.layers) == {"x": "int4"}


def test_mixtures_keep_what_the_entry_keeps_in_float():
    asked = entry(quantize="auto", keep_float=["norm"], preprocess="inside")
    mixture = keeping(asked, ["x"], "int16x8", 1).entry
    assert mixture.keep_float == ("norm",)
    assert mixture.preprocess == "inside"


def test_more_precision_for_a_layer_earns_no_more_room():
    int8, mixed = tolerance_of(entry(quantize="int8")), tolerance_of(keeping(AUTO, ["x"], "float32", 1).entry)
    assert mixed == int8
    coarser = tolerance_of(narrowing(AUTO, ["x"], 1).entry)
    assert coarser == tolerance_of(entry(quantize="int4"))


def trial(name, size, drop, *, step="schemes", broken=()):
    return Trial(Candidate(name, step, AUTO), 1.0, size, {"drop": drop}, {}, None, broken)


def test_each_step_says_what_it_bought():
    trials = [
        trial("a", 100, 0.5, broken=("max_drop: too much",)),
        trial("b", 400, 0.0),
        trial("c", 200, 0.01, step="mixtures"),
        trial("d", 300, 0.0, step="training"),
    ]
    found = SearchResult(trials, trials[2], "size", 50, "here")
    steps = {step["step"]: step for step in found.bought()}
    assert [steps[name]["best"] for name in ("schemes", "mixtures", "training")] == ["b", "c", "c"]
    assert [steps[name]["improved"] for name in ("schemes", "mixtures", "training")] == [True, True, False]
    assert [one.candidate.name for one in found.front] == ["c", "d"]
    document = json.loads(json.dumps(found.to_json()))
    assert document["winner"] == "c"
    assert [one["on_front"] for one in document["trials"]] == [False, False, True, True]


@pytest.fixture(scope="module")
def searched(tmp_path_factory, warm):
    """A search of the digits, in which int8 is not enough: nothing may be lost, and little room is left."""
    patch = pytest.MonkeyPatch()
    patch.setattr(room, "Child", lambda: contextlib.nullcontext(warm))
    base = tmp_path_factory.getbasetemp()
    run = artifacts.copied(artifacts.digits_run(base), tmp_path_factory.mktemp("searched"))
    convert(run, [entry(quantize="auto", search={"aware": False})], limits={"max_drop": "1%"})
    patch.undo()
    return run


def test_the_winner_is_the_smallest_file_that_keeps_the_limits(searched):
    lite = LiteFolder(searched.lite_folder)
    record = lite.load_record("auto")
    document = json.loads(lite.search_file("auto").read_text())
    kept = [one for one in document["trials"] if one["kept"]]
    winner = next(one for one in document["trials"] if one["name"] == document["winner"])
    assert winner["bytes"] == min(one["bytes"] for one in kept) == record.bytes
    assert record.verified
    # It was chosen by validation samples, and measured on the test split.
    assert document["samples"] == len(searched.load_splits()["validation_ids"])
    assert record.metric["samples"] == len(searched.load_splits()["test_ids"])


def test_the_entry_of_the_winner_makes_the_same_bytes(searched):
    record = LiteFolder(searched.lite_folder).load_record("auto")
    again = entry(**{**record.entry, "name": "again"})
    (made,) = convert(searched, [again], limits={"max_drop": "1%"})
    assert made.record.sha256 == record.sha256


def test_nothing_that_keeps_the_limits_is_said_with_what_the_nearest_break(run):
    with pytest.raises(VerificationError, match=r"auto: none of 2 files keeps the limits on \d+ validation") as caught:
        convert(run, [entry(quantize="auto", search={"max_candidates": 2})], limits={"max_size": 1000})
    assert caught.value.exit_code == 8
    assert "max_size: " in str(caught.value)
    lite = LiteFolder(run.lite_folder)
    assert not lite.file("auto").exists()
    assert json.loads(lite.search_file("auto").read_text())["winner"] is None


def test_an_older_winner_is_not_taken_for_that_of_a_search_without_one(searched, tmp_path):
    run = artifacts.copied(searched.directory, tmp_path)
    lite = LiteFolder(run.lite_folder)
    assert lite.file("auto").is_file()
    with pytest.raises(VerificationError, match="none of 1 files"):
        convert(run, [entry(quantize="auto", search={"max_candidates": 1})], limits={"max_size": 1000})
    assert not lite.file("auto").exists()
    assert "lite/auto.tflite" not in run.manifest["artifacts"]


@pytest.mark.parametrize(("count", "most", "expected"), [(10, 3, 3), (10, 50, 10)])
def test_validation_samples_are_taken_evenly(count, most, expected):
    data = SimpleNamespace(splits=SimpleNamespace(validation=np.arange(count) + 7))
    found = search_ids(data, "validation", most)
    assert len(found) == expected
    assert set(found.tolist()) <= set(range(7, 7 + count))


def test_a_search_needs_validation_samples():
    with pytest.raises(DataError, match="a search chooses by validation samples, and there are none"):
        search_ids(SimpleNamespace(splits=SimpleNamespace(validation=np.zeros(0, np.int64))), "validation", 10)


def test_the_trap_of_raw_features_is_named_and_solved(tmp_path_factory, tmp_path, caplog):
    """int8 collapses where raw features share a scale; explain names the layer, and auto keeps it in more bits."""
    run = artifacts.copied(artifacts.table_run(tmp_path_factory.getbasetemp()), tmp_path)
    trapped = entry(quantize="int8", preprocess="inside", name="trapped")
    with caplog.at_level("INFO", "mltool"), pytest.raises(VerificationError, match="trapped: ") as caught:
        convert(run, [trapped], limits={"max_drop": "1%"}, explain=True)
    (shown,) = [text for text in caplog.messages if "own noise" in text]  # the table, though there is no result
    assert shown.split("\n")[2].split()[:2] == ["normal", "int8"]
    assert caught.value.exit_code == 8
    told = json.loads((run.lite_folder / "rejected/trapped.explain.json").read_text())
    assert "normal" in told["findings"][0]["keep_float"]
    (made,) = convert(
        run,
        [entry(quantize="auto", preprocess="inside", search={"aware": False})],
        limits={"max_drop": "1%"},
    )
    document = json.loads(LiteFolder(run.lite_folder).search_file("auto").read_text())
    int8 = next(one for one in document["trials"] if one["name"] == "int8")
    assert not int8["kept"]
    assert document["sensitivity"][0]["layer"] == "normal"
    assert made.record.verified
    assert made.record.metric["drop"] <= 0.01
    assert Run.open(run.directory).require_unchanged(made.path)


def measured(drop, same, samples, *, value=0.9):
    agreement = Agreement(samples, 0.1, 0.1, 0.03, 1.0, same, has_nan=False, is_constant=False)
    return Measurements("accuracy", False, True, value - drop, value, samples, 1000, None, {"scores": agreement})


def bench_that_finds(by_samples, validation=600):
    """A workbench whose files lose what the test says, told apart by the number of samples."""

    def reference(split, most):
        return SimpleNamespace(samples=range({"validation": validation, "train": 1024}[split]))

    return SimpleNamespace(
        origin=SimpleNamespace(search_reference=reference),
        make=lambda entry, made: made.write_bytes(b"file") and SimpleNamespace(entry=entry, file=made, keras=None),
        read_back=lambda made: None,
        held_against=lambda made, reference: reference,
        measure=lambda file, reference, **_: (by_samples[len(reference.samples)], None),
    )


@pytest.mark.parametrize(
    ("found", "broken"),
    [
        # By hand: 3 % of 600 answers differ, the standard error is sqrt(18) / 600 = 0.0071.
        pytest.param(measured(0.002, 0.97, 600), "drop of 0.0020 and 1.645 standard errors of 0.0071", id="by chance"),
        pytest.param(measured(0.002, 0.97, 600), "on 600 samples, at most 0.0090", id="what is allowed is told"),
        pytest.param(measured(0.001, 1.0, 600), "", id="no answer differs"),
        # sqrt(9) / 600 = 0.005, of which 1.645 are 0.0082.
        pytest.param(measured(0.0, 0.985, 600), "", id="no drop, and less chance than allowed"),
        pytest.param(measured(0.02, 0.97, 600), "max_drop: accuracy 0.8800 against 0.9000", id="a drop"),
        pytest.param(measured(float("nan"), 0.97, 600), "answers are off by 3.00% in the mean", id="no metric"),
    ],
)
def test_a_file_keeps_a_limit_only_where_chance_does_not_keep_it(found, broken, tmp_path):
    limits = LimitsSpec.model_validate({"max_drop": "1%"})
    at_work = _Search(bench_that_finds({600: found}), AUTO, limits)
    tried = at_work._measured(Candidate("x", "schemes", entry(quantize="int8")), tmp_path / "x", 0.0)
    assert broken in "; ".join(tried.why_not)
    assert tried.kept is (broken == "")


def test_training_samples_do_not_make_a_drop_surer(tmp_path):
    """A model is surer of what it was trained on than of anything else: only samples that it never saw count."""
    by_samples = {120: measured(0.0, 0.95, 120), 1024: measured(0.0, 1.0, 1024)}
    bench = bench_that_finds(by_samples, validation=120)
    at_work = _Search(bench, AUTO, LimitsSpec.model_validate({"max_drop": "2%"}))
    tried = at_work._measured(Candidate("x", "schemes", entry(quantize="int8")), tmp_path / "x", 0.0)
    # sqrt(6) / 120 = 0.0204, of which 1.645 are 0.0336.
    assert "standard errors of 0.0204 on 120 samples, at most 0.0180" in tried.unsure
    assert tried.margin == pytest.approx(0.018 / 0.0204, abs=5e-3)
    assert not tried.broken
    assert not tried.kept


def test_the_best_is_the_smallest_that_is_sure_and_else_the_likeliest():
    def trial(name, size, **state):
        return Trial(Candidate(name, "schemes", entry(quantize="int8")), 0.0, size, **state)

    broken = trial("broken", 1, broken=("max_drop: much",))
    likely = trial("likely", 2, unsure="max_drop: a bit", margin=1.0)
    likelier = trial("likelier", 3, unsure="max_drop: a bit", margin=1.4)
    sure, surely = trial("sure", 4), trial("surely", 5)
    tried = [broken, likely, likelier]
    assert best_of([broken], "size") is None
    assert best_of(tried, "size") is likelier
    assert best_of([*tried, surely, sure], "size") is sure
    found = SearchResult(tried, likelier, "size", 120, "here")
    assert found.front == [likely]  # of equal losses the smaller: it may keep the limits, too
    assert found.bought()[0]["best"] == "likelier"
    written = found.to_json()["trials"][1]
    assert (written["broken"], written["unsure"], written["kept"]) == ([], "max_drop: a bit", False)

"""Which run a verb means."""

from pathlib import Path

import pytest

from mltool.errors import ArtifactError
from mltool.runs.find import all_runs, find_model, find_resumable, find_run, is_unfinished, run_of
from mltool.runs.run import Run


@pytest.fixture
def runs(spec, train):
    """Three runs: trained, trained, not finished."""
    names = ["20260101-000000-aaaa", "20260102-000000-bbbb", "20260102-000000-cccc"]
    found = [Run.create(spec, Path("runs/small") / name) for name in names]
    for run in found[:2]:
        train(run)
    return found


def test_runs_are_listed_newest_first(runs):
    assert [run.id for run in all_runs()] == [run.id for run in reversed(runs)]


@pytest.mark.parametrize("selector", [None, "latest"], ids=["nothing", "latest"])
def test_without_a_name_it_is_the_newest_that_has_what_is_needed(selector, runs):
    assert find_run(selector).id == runs[1].id
    assert find_run(selector, is_unfinished, "unfinished training").id == runs[2].id


def test_a_folder_an_id_or_its_beginning_names_a_run(runs):
    assert find_run("runs/small/20260101-000000-aaaa").id == runs[0].id
    assert find_run(runs[0].directory).id == runs[0].id
    assert find_run("20260102-000000-bbbb").id == runs[1].id
    assert find_run("20260101").id == runs[0].id


def test_a_named_run_needs_nothing(runs):
    assert find_run(runs[2].id).id == runs[2].id


def test_a_run_that_is_named_alone_is_the_one_that_is_meant(runs):
    found, path = find_model(None, "20260101")
    assert (found.id, path) == (runs[0].id, runs[0].keras_file)


def test_a_beginning_of_several_is_not_guessed(runs):
    with pytest.raises(ArtifactError, match=r"'20260102' fits 2 runs: .*cccc, .*bbbb; write more of the id"):
        find_run("20260102")


def test_a_name_of_nothing_is_said(runs):
    with pytest.raises(ArtifactError, match="no run, folder or file is called 'zzz'") as caught:
        find_run("zzz")
    assert caught.value.exit_code == 5


def test_no_runs_at_all_are_said(spec):
    with pytest.raises(ArtifactError, match=r"no run with a trained model under \./runs; name a run, or make one"):
        find_run(None)


def test_a_damaged_run_does_not_hide_the_others(runs):
    runs[2].manifest_file.write_text("{")
    assert find_run(None).id == runs[1].id


def test_a_folder_that_is_no_run_is_said(runs, tmp_path):
    with pytest.raises(ArtifactError, match="is not a run"):
        find_run(tmp_path / "runs")


def test_an_empty_name_names_nothing(runs):
    with pytest.raises(ArtifactError, match="no run, folder or file is called ''"):
        find_run("")


def test_an_artifact_knows_its_run(runs, tmp_path):
    assert run_of(runs[0].lite_folder / "int8.tflite").id == runs[0].id
    assert run_of(runs[0].keras_file).id == runs[0].id
    assert run_of(tmp_path / "model.tflite") is None


def test_resume_without_a_name_means_the_newest_unfinished_run(runs):
    assert find_resumable(None).id == runs[2].id


def test_resume_without_a_name_means_the_newest_run_where_all_are_finished(runs, train):
    train(runs[2])
    assert find_resumable(None).id == runs[2].id


def test_resume_of_a_damaged_run_is_not_guessed(runs):
    runs[2].manifest_file.write_text("{")
    assert find_resumable(None).id == runs[1].id

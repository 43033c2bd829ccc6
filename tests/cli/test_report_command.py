"""`mltool report`, and the page at the end of `mltool run`."""

import json

import artifacts
import pytest

from mltool.errors import MachineError
from mltool.report import page
from mltool.runs.run import Run


@pytest.fixture
def run(tmp_path_factory, tmp_path):
    return artifacts.copied(artifacts.digits_run(tmp_path_factory.getbasetemp()), tmp_path)


def test_the_page_of_the_newest_run_is_written_into_it(run, mltool):
    newer = Run.create(run.spec, run.directory.with_name("20990101-000000-new"))  # not trained: passed over
    ran = mltool("report")
    assert (ran.code, ran.out) == (0, f"{run.report_page_file}\n")
    assert run.report_page_file.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert not newer.report_page_file.exists()


def test_a_run_that_is_named_may_be_untrained(run, mltool):
    newer = Run.create(run.spec, run.directory.with_name("20990101-000000-new"))
    assert mltool("report", "20990101").code == 0
    assert newer.report_page_file.is_file()


def test_with_json_it_is_one_document(run, mltool):
    ran = mltool("report", str(run.directory), "--json")
    assert (ran.code, ran.document) == (0, {"run": str(run.directory), "report": str(run.report_page_file)})


def test_the_page_goes_where_it_is_wanted(run, mltool, tmp_path):
    ran = mltool("report", "--output", "pages/digits.html")
    assert (ran.code, ran.out) == (0, "pages/digits.html\n")
    assert (tmp_path / "pages/digits.html").is_file()
    assert not run.report_page_file.exists()
    assert mltool("report", "--output", "pages/digits.html").code == 0  # a page is made again


def test_a_file_that_is_no_page_is_not_overwritten(run, mltool, tmp_path):
    (tmp_path / "my.yaml").write_text("name: mine\n")
    ran = mltool("report", "--output", "my.yaml")
    assert ran.code == 2
    assert "my.yaml is there already and is no page" in ran.err
    assert (tmp_path / "my.yaml").read_text() == "name: mine\n"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ("nowhere", 5, "no run, folder or file is called 'nowhere'"),
        ("--output folder", 10, "cannot write folder"),
        ("--output file/page.html", 10, "cannot write file/page.html"),
        ("folder", 5, "folder is not a run"),
        ("2026 2027", 2, "unexpected extra argument"),
    ],
)
def test_a_mistake_is_a_line_and_no_page(arguments, code, message, run, mltool, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("")
    ran = mltool("report", *arguments.split())
    assert ran.code == code
    assert message in ran.err
    assert "Traceback" not in ran.err
    assert not list(tmp_path.rglob("*.html"))


def test_without_any_run_there_is_nothing_to_tell(mltool):
    ran = mltool("report", "--json")
    assert ran.code == ran.document["error"]["code"] == 5
    assert "no run with a trained model under ./runs" in ran.document["error"]["messages"][0]["message"]


def test_a_damaged_run_is_exit_code_5(run, mltool):
    run.scan_file.write_text("{")
    ran = mltool("report")
    assert ran.code == 5
    assert "scan.json is damaged" in ran.err


# At the end of a run


SMALL = """\
name: small
data: {source: {dataset: digits}}
model: {layers: [Flatten, {Dense: {units: 10, name: scores}}]}
train: {epochs: 1, loss: {SparseCategoricalCrossentropy: {from_logits: true}}, metrics: [accuracy]}
convert: [{quantize: none}]
"""


def test_resuming_a_run_that_is_done_does_nothing_twice_and_writes_its_page(run, mltool):
    before = run.manifest
    ran = mltool("run", "--resume", "--json")
    assert ran.code == 0, ran.out
    assert ran.document["run"] == str(run.directory)
    assert ran.document == json.loads(run.report_file.read_text(encoding="utf-8"))
    assert [verdict["kept"] for verdict in ran.document["verified"]] == [True] * 7
    assert {key: run.manifest[key] for key in ("artifacts", "stages")} == {
        k: before[k] for k in ("artifacts", "stages")
    }
    assert f"report: {run.report_page_file}" in ran.err
    assert "Artifacts</h2>" in run.report_page_file.read_text(encoding="utf-8")


def test_a_run_that_was_cut_off_goes_on_where_it_was(run, mltool):
    """What a kill during the conversion leaves: some files whole, the others not there."""
    kept = run.manifest
    for name in ("int8", "int8-io", "five"):
        for ending in ("tflite", "json"):
            (run.lite_folder / f"{name}.{ending}").unlink()
        run.forget_artifact(run.lite_folder / f"{name}.tflite")
        run.update(stages={f"convert/{name}": None})
    for left in (run.evaluation_file, run.predictions_file):
        left.unlink()
    ran = mltool("run", "--resume", run.id)
    assert ran.code == 0, ran.err
    stages = run.manifest["stages"]
    for name in ("train", "export", "convert/none", "convert/float16"):
        assert stages[name] == kept["stages"][name]
    assert run.require_unchanged(run.lite_folder / "int8-io.tflite")
    assert set(stages) == set(kept["stages"])
    page = run.report_page_file.read_text(encoding="utf-8")
    assert page.count(">verified<") == 7
    assert "Answers on the test split</h2>" in page


def test_the_page_tells_of_a_limit_that_broke(mltool, spec):
    spec.write_text(SMALL + "limits: {min: 0.9999}\n", encoding="utf-8")
    ran = mltool("run", "my.yaml", "--run-dir", "broken")
    assert ran.code == 8
    text = (spec.parent / "broken/report.html").read_text(encoding="utf-8")
    assert 'class="bad">the trained model breaks limits.min: accuracy 0.' in text
    assert f"report: {spec.parent / 'broken/report.html'}" in ran.err
    last = ran.err.splitlines()[-1]
    assert last.startswith("error: ")
    assert "the trained model breaks limits.min" in last


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ("", 2, "name a SPEC to run, or --resume"),
        ("--resume --set train.epochs=2", 2, "--resume goes on with the run's own spec"),
        ("--resume --run-dir elsewhere", 2, "--resume goes on with the run's own spec"),
        ("--resume", 5, "no run with training to go on with under ./runs"),
        ("--resume nowhere", 5, "no run, folder or file is called 'nowhere'"),
    ],
    ids=["nothing", "a changed spec", "another folder", "no run", "no such run"],
)
def test_a_run_that_cannot_go_on_is_refused(arguments, code, message, mltool):
    ran = mltool("run", *arguments.split())
    assert ran.code == code
    assert message in ran.err


def test_a_page_that_cannot_be_made_does_not_hide_the_result(run, mltool, monkeypatch):
    def fails(run):
        raise MachineError("cannot write report.html: no space", "free the disk")

    monkeypatch.setattr(page, "report", fails)
    ran = mltool("run", "--resume")
    assert ran.code == 10
    assert "int8-io" in ran.out
    assert ran.err.splitlines()[-1] == "error: cannot write report.html: no space; free the disk"


def test_a_limit_that_broke_counts_more_than_a_page_that_cannot_be_made(mltool, spec, monkeypatch):
    def fails(run):
        raise MachineError("cannot write report.html: no space", "free the disk")

    monkeypatch.setattr(page, "report", fails)
    spec.write_text(SMALL + "limits: {min: 0.9999}\n", encoding="utf-8")
    ran = mltool("run", "my.yaml", "--run-dir", "two")
    assert ran.code == 8
    assert "model.keras: accuracy" in ran.out
    assert "warning: cannot write report.html: no space" in ran.err

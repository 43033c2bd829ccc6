"""The verbs on runs and artifacts: what they find, print and refuse."""

import json
import shutil
from pathlib import Path

import artifacts
import numpy as np
import pytest

from mltool.cli import convert_command
from mltool.cli.artifact_table import artifact_table
from mltool.cli.convert_options import BARE, KNOWN_SCHEMES, LIMITS, with_bare_quantize
from mltool.runs.lite import LiteFolder, LiteRecord
from mltool.runs.run import Run
from mltool.spec import convert as convert_spec
from mltool.spec.limits import LimitsSpec


@pytest.fixture
def run(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> Run:
    return artifacts.copied(artifacts.digits_run(tmp_path_factory.getbasetemp()), tmp_path)


def test_bare_verbs_take_the_newest_run_that_has_what_they_need(run, mltool):
    newer = Run.create(run.spec, run.directory.with_name("20990101-000000-new"))
    newer.update(status="training")
    for verb in ("evaluate", "export", "predict", "benchmark --runs 3"):
        ran = mltool(*verb.split(), "--json")
        assert ran.code == 0, ran.out
        assert run.id in ran.out
    shutil.copytree(run.directory, run.directory.with_name("20990202-000000-bare"))
    shutil.rmtree(run.directory.with_name("20990202-000000-bare") / "lite")
    assert run.id in mltool("verify").out


@pytest.mark.parametrize(
    ("verb", "keys"),
    [
        ("evaluate", {"run", "artifact", "split", "samples", "metrics"}),
        ("export", {"run", "artifact", "format", "made", "agreement"}),
        ("convert --quantize none", {"run", "artifacts"}),
        ("verify", {"artifacts"}),
        ("predict -n 2", {"artifact", "predictions"}),
        (
            "benchmark --runs 3 --warmup 0",
            {
                "artifact",
                "runtime",
                "threads",
                "batch",
                "warmup",
                "runs",
                "latency_ms",
                "throughput_per_second",
                "host",
            },
        ),
    ],
)
def test_json_is_one_document_with_the_documented_keys(run, mltool, verb, keys):
    ran = mltool(*verb.split(), "--json")
    assert ran.code == 0
    assert set(ran.document) == keys


@pytest.mark.parametrize("verb", ["evaluate", "export", "convert", "verify", "predict", "benchmark", "inspect"])
def test_an_error_is_one_document_too(mltool, verb):
    ran = mltool(verb, "nowhere", "--json")
    assert ran.code == ran.document["error"]["code"] == 5
    assert "nowhere" in ran.document["error"]["messages"][0]["message"]


@pytest.mark.parametrize(
    "verb", ["evaluate", "export", "convert --quantize none", "verify", "predict", "benchmark --runs 2"]
)
def test_quiet_says_nothing_but_the_result(run, mltool, verb):
    ran = mltool(*verb.split(), "-q")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out


def test_rejected_files_are_shown_but_not_used(run, mltool):
    ran = mltool("convert", "--quantize", "int8", "--max-size", "1KB", "--json")
    assert ran.code == 8
    assert "max_size" in ran.document["error"]["messages"][0]["message"]
    rejected = str(run.lite_folder / "rejected/int8.tflite")
    for verb in ("evaluate", "predict", "benchmark"):
        ran = mltool(verb, rejected)
        assert ran.code == 5
        assert "was rejected when it was made" in ran.err
    ran = mltool("verify", rejected)
    assert ran.code == 8
    assert "CONV_2D" in mltool("inspect", rejected).out


def test_a_copied_folder_is_enough_for_a_device(run, mltool, tmp_path):
    shutil.copytree(run.lite_folder, tmp_path / "device")
    ran = mltool("verify", "device")
    assert ran.code == 0
    assert "device/int8.tflite: verified (the metric was not run again)" in ran.out
    ran = mltool("predict", "device/int8.tflite", "-n", "3")
    assert ran.code == 0
    assert ran.out.splitlines()[1].split() == ["sample", "answer", "probability", "truth"]
    assert mltool("benchmark", "device/int8.tflite", "--runs", "3").code == 0
    ran = mltool("evaluate", "device/int8.tflite")
    assert ran.code == 2
    assert "lies in no run" in ran.err


def test_a_limit_of_the_command_line_is_read_as_the_spec_reads_it(run, mltool):
    assert mltool("convert", "--quantize", "none", "--max-drop", "0.5%", "--max-size", "20KB", "--min", "0.5").code == 0
    assert LiteFolder(run.lite_folder).load_record("none").limits["max_drop"] == "0.5%"
    for flags, message in (
        (("--max-drop", "many"), "--max-drop: must be a number or a percentage"),
        (("--metric", "acuracy"), "no metric 'acuracy'; did you mean 'accuracy'?"),
    ):
        ran = mltool("convert", *flags)
        assert ran.code == 2
        assert message in ran.err


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("--quantize", f"--quantize={BARE}"),
        ("--quantize RUN", f"--quantize={BARE} RUN"),
        ("RUN --quantize", f"RUN --quantize={BARE}"),
        ("--quantize int8 RUN", "--quantize int8 RUN"),
        ("--quantize=float16", "--quantize=float16"),
        ("--quantize --force", f"--quantize={BARE} --force"),
        ("--quantize recipe.json", "--quantize recipe.json"),
    ],
)
def test_quantize_may_stand_alone(given, meant):
    assert with_bare_quantize(given.split()) == meant.split()


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        ("--quantize float16", ["float16"]),
        ("--quantize=float16", ["float16"]),
        ("--quantize", ["dynamic", "float16", "int8", "int8-io"]),
        ("--quantize {run}", ["dynamic", "float16", "int8", "int8-io"]),
        ("{run} --quantize", ["dynamic", "float16", "int8", "int8-io"]),
        ("--quantize int8 {run}", ["int8"]),
        ("", ["none", "dynamic", "float16", "int8", "int8-io", "five", "free"]),
    ],
)
def test_convert_makes_what_is_asked_for(run, mltool, arguments, names):
    ran = mltool("convert", *arguments.format(run=run.directory).split(), "--json")
    assert [Path(item["path"]).stem for item in ran.document["artifacts"]] == names
    assert not any(item["made"] for item in ran.document["artifacts"])


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ("--quantize int9", 2, "no scheme is called 'int9'; did you mean 'int8'?"),
        ("int8", 2, "did you mean --quantize int8?"),
        ("--quantize=flaot16", 2, "no scheme is called 'flaot16'; did you mean 'float16'?"),
        ("--quantize missing.json", 5, "missing.json is not there"),
        ("elsewhere", 5, "no run, folder or file is called 'elsewhere'"),
    ],
)
def test_a_scheme_that_is_none_is_refused(run, mltool, arguments, code, message):
    ran = mltool("convert", *arguments.split())
    assert ran.code == code
    assert message in ran.err


def test_the_command_line_knows_the_schemes_of_the_spec():
    assert KNOWN_SCHEMES == convert_spec.SCHEMES
    assert convert_command.SETTINGS["cls"]


@pytest.mark.parametrize(
    ("name", "write", "code", "message"),
    [
        ("x.npz", lambda p: np.savez(p, image=np.zeros((2, 8, 8))), 0, ""),
        ("x.npy", lambda p: np.save(p, np.zeros((2, 8, 8, 1))), 0, ""),
        ("x.npz", lambda p: np.savez(p, picture=np.zeros((2, 8, 8, 1))), 4, "takes image (got picture)"),
        ("x.npy", lambda p: np.save(p, np.float32(1)), 4, "holds no arrays of samples"),
        ("x.npy", lambda p: np.save(p, np.array([{}], dtype=object)), 4, "cannot be read"),
        ("x.npy", lambda p: p.write_bytes(b""), 4, "cannot be read"),
        (
            "x.npy",
            lambda p: np.save(p, np.full((1, 8, 8, 1), np.nan)),
            4,
            "'image' is missing (NaN) in sample 0; training had a value everywhere",
        ),
        ("x.npy", lambda p: None, 4, "x.npy is not there; name a file"),
    ],
    ids=["a map, no channel axis", "one array", "another name", "a number", "objects", "empty", "NaN", "missing"],
)
def test_predict_takes_files_of_numpy(run, mltool, tmp_path, name, write, code, message):
    write(tmp_path / name)
    ran = mltool("predict", str(run.lite_folder / "none.tflite"), "--input", name)
    assert ran.code == code
    assert message in ran.err
    assert len(ran.out.splitlines()) == (5 if code == 0 else 0)


def test_tables_fit_a_terminal_of_80_columns(run):
    lite = LiteFolder(run.lite_folder)
    records = [lite.load_record(name) for name in ("none", "dynamic", "int8", "int8-io")]
    lines = artifact_table(records).splitlines()
    assert max(len(line) for line in lines) <= 80
    assert lines[0].split() == ["artifact", "scheme", "size", "accuracy", "drop", "agreement", "p50/p90", "ms"]
    assert lines[-1].split()[:2] == ["int8-io", "int8-io"]
    bare = LiteRecord("bare", "none", "float32", 1, "0", 1200, {})
    assert artifact_table([bare]).splitlines()[-1].split() == ["bare", "none", "1.2", "kB", "-", "-", "-", "-", "no"]


def test_inspect_shows_every_format_and_runs_nothing(run, mltool):
    shown = mltool("inspect", str(run.lite_folder / "int8.tflite"), "--json").document
    assert shown["format"] == "LiteRT flatbuffer"
    assert shown["operators"][0]["operator"] == "QUANTIZE"
    assert "layer" in mltool("inspect", str(run.keras_file)).out
    assert "serving_default" in mltool("inspect", str(run.saved_model_folder)).out
    assert json.loads(mltool("inspect", str(run.saved_model_folder), "--json").out)["signatures"]


@pytest.mark.parametrize("key", LIMITS)
def test_a_limit_is_explained_in_the_words_of_the_spec(key):
    described = LimitsSpec.model_fields[key].description
    assert LIMITS[key] == " ".join(described.split())


def test_evaluate_tells_slices_and_confidence_intervals(run, mltool):
    ran = mltool("evaluate", str(run.directory), "--by", "label", "--confidence", "0.95", "--json")
    assert ran.code == 0, ran.err
    document = ran.document
    low, high = document["confidence"]["intervals"]["accuracy"]
    assert low < document["metrics"]["accuracy"] < high
    assert document["confidence"] | {"intervals": 0} == {"level": 0.95, "resamples": 1000, "intervals": 0}
    values = document["slices"]["values"]
    assert [part["value"] for part in values] == list("0123456789")
    right = sum(part["samples"] * part["metrics"]["accuracy"] for part in values)
    assert right / document["samples"] == pytest.approx(document["metrics"]["accuracy"])
    assert mltool("evaluate", str(run.directory), "--by", "colour").code == 2
    assert mltool("evaluate", str(run.directory), "--confidence", "95").code == 2

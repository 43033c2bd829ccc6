"""`mltool launch`: what it refuses before anything starts, and what --render prints."""

import json
from pathlib import Path

import pytest
import yaml

from mltool.pipeline import launch as pipeline
from mltool.pipeline.launch import LaunchResult

REFUSED = {
    "no spec": ([], "name a SPEC to train, or --resume; mltool launch my.yaml --workers 2"),
    "no worker": (
        ["SPEC", "--workers", "0"],
        "Invalid value for '--workers': Input should be greater than or equal to 1",
    ),
    "overrides of a run": (["--resume", "--set", "seed=1"], "--resume goes on with the run's own spec"),
    "a folder without a job": (["SPEC", "--output", "jobs"], "are for the job of a cluster; add --render"),
    "GPUs without a job": (["SPEC", "--gpus", "1"], "are for the job of a cluster; add --render"),
    "a job without a folder": (["SPEC", "--render", "ray"], "name a folder for the files; --output jobs/"),
    "a job of a run": (["--render", "ray", "--resume"], "--render takes a SPEC, and a job goes on with a run that is"),
    "another scheduler": (["SPEC", "--render", "pbs", "--output", "jobs"], "'pbs' is not one of 'slurm', 'kubernetes'"),
    "one device": (
        ["SPEC", "--set", "train.strategy=one_device"],
        "train.strategy is one_device, and this takes multi_worker; leave it out of the spec, or change it",
    ),
}


@pytest.mark.parametrize(("arguments", "message"), REFUSED.values(), ids=REFUSED)
def test_what_makes_no_sense_is_usage_and_leaves_nothing(mltool, spec, tmp_path, arguments, message):
    ran = mltool("launch", *(str(spec) if part == "SPEC" else part for part in arguments))
    assert (ran.code, ran.out) == (2, "")
    assert message in ran.err
    assert list(tmp_path.iterdir()) == [spec]


COUNTS = {
    "one of each": (1, 1, 1, "trained 1 epoch with 1 worker, 1 restart: loss 0.5"),
    "several": (3, 2, 2, "trained 3 epochs with 2 workers, 2 restarts: loss 0.5"),
    "no restart": (3, 2, 0, "trained 3 epochs with 2 workers: loss 0.5"),
}


@pytest.mark.parametrize(("epochs", "workers", "restarts", "expected"), COUNTS.values(), ids=COUNTS)
def test_what_was_done_is_counted(mltool, spec, monkeypatch, epochs, workers, restarts, expected):
    result = LaunchResult({"epochs": epochs, "metrics": {"loss": 0.5}}, workers, restarts)
    monkeypatch.setattr(pipeline, "launch", lambda *arguments, **options: result)
    ran = mltool("launch", str(spec), "--workers", str(workers), "--run-dir", "run")
    assert (ran.code, ran.out.splitlines()[0]) == (0, expected)


def test_a_mistake_in_the_spec_is_told_once_and_nothing_starts(mltool, spec, tmp_path):
    ran = mltool("launch", str(spec), "--set", "train.epochs=0")
    assert (ran.code, ran.err.count("train.epochs: must be greater than 0")) == (3, 1)
    assert list(tmp_path.iterdir()) == [spec]


def test_render_prints_what_it_wrote(mltool, spec, tmp_path):
    ran = mltool("launch", str(spec), "--render", "ray", "--workers", "3", "--output", "jobs", "--json")
    assert ran.code == 0, ran.err
    files = [str(tmp_path / "jobs" / name) for name in ("small.ray.py", "small.spec.yaml")]
    assert (ran.document["scheduler"], ran.document["files"]) == ("ray", files)
    assert ran.document["checked"].startswith("its syntax")
    assert all(Path(file).is_file() for file in files)
    assert yaml.safe_load(Path(files[1]).read_text())["train"]["strategy"] == "multi_worker"
    again = mltool("launch", str(spec), "--render", "ray", "--output", "jobs", "--json")
    assert again.code == 2
    assert "is there already" in json.loads(again.out)["error"]["messages"][0]["message"]


def test_a_worker_that_nothing_told_about_the_others_says_so(mltool, spec, tmp_path, monkeypatch):
    for variable in ("TF_CONFIG", "SLURM_PROCID", "JOB_COMPLETION_INDEX"):
        monkeypatch.delenv(variable, raising=False)
    ran = mltool("train", str(spec), "--set", "train.strategy=multi_worker", "--run-dir", "r")
    assert ran.code == 10
    assert "nothing says which worker this is: none of TF_CONFIG, SLURM_PROCID, JOB_COMPLETION_INDEX is set" in ran.err
    assert list(tmp_path.iterdir()) == [spec]


def test_workers_need_one_place_for_the_run(mltool, spec, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 0}}')
    ran = mltool("train", str(spec), "--set", "train.strategy=multi_worker")
    assert (ran.code, "several workers need one place for the run; add --run-dir" in ran.err) == (2, True)


def test_a_worker_that_does_not_come_is_named_and_leaves_no_run(mltool, spec, tmp_path, monkeypatch):
    from mltool.pipeline.launch import free_ports

    addresses = [f"127.0.0.1:{port}" for port in free_ports(2)]
    tf_config = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": 0}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(tf_config))
    strategy = "train.strategy={multi_worker: {start_timeout: 0.3}}"
    ran = mltool("train", str(spec), "--set", strategy, "--run-dir", "r")
    assert ran.code == 10
    assert "1 of 2 workers did not come within 0.3 s: worker 1" in ran.err
    assert list(tmp_path.iterdir()) == [spec]


def test_too_few_gpus_are_told_again_when_the_command_is_repeated(mltool, spec, tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    for _ in range(2):
        ran = mltool("launch", str(spec), "--workers", "2", "--run-dir", "r")
        assert (ran.code, "2 workers, and 1 GPUs; take --workers 1" in ran.err) == (2, True)
    assert list(tmp_path.iterdir()) == [spec]

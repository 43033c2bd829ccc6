"""What job files start again, and what not: run with workers that only end, by schedulers that only start them."""

import json
import os
import runpy
import shutil
import signal
import subprocess
import sys
import time
import types

import pytest
import yaml

from mltool.errors import FINAL_EXIT_CODES, LOST_WORKER
from mltool.pipeline import render as render_module
from mltool.pipeline.launch import load_for_workers
from mltool.pipeline.render import Job, render_job

DIVERGED, LOST = "the loss is nan at epoch 2", f"{LOST_WORKER}: Connection reset by peer"

DONE = (0, 0)
AGAIN = {
    "a lost worker": ((6, 137), LOST),
    "a lost chief": ((137, 6), None),
    "workers that lost one another": ((6, 6), LOST),
    "a flaw of the chief": ((1, 6), None),
    "a flaw of another": ((6, 1), LOST),
}
"""How workers 0 and 1 end so that they are started again, and what the chief writes down of it."""

FINAL = {
    **{f"{code} of all": ((code, code), None, code) for code in FINAL_EXIT_CODES},
    "4 of one": ((6, 4), LOST, 4),
    "4 of the chief": ((4, 6), None, 4),
    "a training that diverged": ((6, 6), DIVERGED, 6),
}
"""As above, where they are not started again; and the exit code of the job."""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def spec(digits_spec):
    return load_for_workers(digits_spec)


WORKER = """#!/bin/bash
# In the place of mltool: ends as the line of codes.RANK says that is of this attempt.
rank=${SLURM_PROCID:-$JOB_COMPLETION_INDEX}
echo "$*" >> "calls.$rank"
if [ "$rank" = 0 ]; then
  mkdir -p "$MLTOOL_RUN_DIR"
  cp error.json "$MLTOOL_RUN_DIR/run.json"
fi
code=$(sed -n "$(wc -l < "calls.$rank")p" "codes.$rank")
if [ "$code" = gone ]; then
  kill -9 $PPID
fi
exit "$code"
"""

SRUN = """#!/bin/bash
while [[ $1 == --* ]]; do shift; done
worst=0
for rank in 0 1; do
  SLURM_PROCID=$rank "$@" &
  pids[rank]=$!
done
for pid in "${pids[@]}"; do
  wait "$pid"
  code=$?
  (( code > worst )) && worst=$code
done
exit $worst
"""


def program(file, text):
    file.parent.mkdir(exist_ok=True)
    file.write_text(text)
    file.chmod(0o755)


def write_ends(folder, ends, error):
    for rank in (0, 1):
        (folder / f"codes.{rank}").write_text("".join(f"{codes[rank]}\n" for codes in ends))
    (folder / "error.json").write_text(json.dumps({"status": "failed", "error": error}))


@pytest.fixture
def slurm(folder, spec, monkeypatch):
    """Runs the job file with workers that end as they are told: its exit code, and how often it started them."""
    monkeypatch.setattr(render_module.sys, "executable", str(folder / "bin" / "worker"))
    monkeypatch.setattr(shutil, "which", lambda _: None)
    (file, _), _ = render_job(spec, "slurm", Job(2, 2, run_dir=folder / "deep" / "run"), folder / "jobs")
    program(folder / "bin" / "worker", WORKER)
    program(folder / "bin" / "srun", SRUN)
    program(folder / "bin" / "sleep", "#!/bin/sh\n")
    path = f"{folder / 'bin'}:{os.environ['PATH']}"
    environ = {"PATH": path, "SLURM_JOB_ID": "7", "MLTOOL_RUN_DIR": str(folder / "deep" / "run")}

    def run(*ends, error=None):
        write_ends(folder, ends, error)
        done = subprocess.run(["bash", file], env=environ, check=False, timeout=60)
        assert {path.name for path in (folder / "deep").iterdir()} <= {"run"}
        return done.returncode, len((folder / "calls.0").read_text().splitlines())

    return run


@pytest.mark.parametrize(("codes", "error", "code"), FINAL.values(), ids=FINAL)
def test_slurm_does_not_start_again_what_would_end_the_same(slurm, codes, error, code):
    assert slurm(codes, DONE, error=error) == (code, 1)


@pytest.mark.parametrize(("codes", "error"), AGAIN.values(), ids=AGAIN)
def test_slurm_starts_again_what_may_end_otherwise(slurm, codes, error):
    assert slurm(codes, DONE, error=error) == (0, 2)


def test_slurm_starts_a_worker_again_that_could_not_say_how_it_ended(slurm):
    assert slurm((130, "gone"), DONE) == (0, 2)  # srun stopped the other


def test_slurm_leaves_workers_that_were_all_stopped(slurm):
    assert slurm((130, 130), DONE) == (130, 1)


def test_slurm_ends_with_6_after_the_last_restart(slurm):
    assert slurm((6, 137), (6, 137), (6, 137), DONE, error=LOST) == (6, 3)


@pytest.fixture
def pod(folder, spec):
    """The values of FailJob, and a function that starts worker `rank` as its pod does."""
    (file,), _ = render_job(spec, "kubernetes", Job(2, 2, image="me/mltool:1", run_dir=folder / "run"), folder / "jobs")
    job = list(yaml.safe_load_all(file.read_text()))[-1]["spec"]
    (container,) = job["template"]["spec"]["containers"]
    environ = {entry["name"]: entry["value"] for entry in container["env"]}
    environ["PATH"] = f"{folder / 'bin'}:{os.environ['PATH']}"

    def start(rank, **settings):
        command = [*container["command"], *container["args"]]
        return subprocess.Popen(command, env=environ | {"JOB_COMPLETION_INDEX": str(rank)}, text=True, **settings)

    return job["podFailurePolicy"]["rules"][0], start


def test_kubernetes_ends_the_job_at_codes_in_order(pod):
    rule, _ = pod
    assert (rule["action"], rule["onExitCodes"]["operator"]) == ("FailJob", "In")
    # Kubernetes wants them in order. 10 is not one: pods come one by one, and again on any machine.
    assert rule["onExitCodes"]["values"] == sorted({*FINAL_EXIT_CODES, 6} - {10})


def ends_the_job(pod, folder, codes, error):
    """Whether one of the pods ends the whole job."""
    rule, start = pod
    program(folder / "bin" / "mltool", WORKER)
    write_ends(folder, [codes], error)
    statuses = [start(rank).wait(timeout=60) for rank in (0, 1)]
    assert 0 not in statuses
    return any(status in rule["onExitCodes"]["values"] for status in statuses)


@pytest.mark.parametrize(("codes", "error", "code"), FINAL.values(), ids=FINAL)
def test_kubernetes_does_not_start_again_what_would_end_the_same(pod, folder, codes, error, code):
    assert ends_the_job(pod, folder, codes, error) == (code != 10)


STOPPED = {"a drained node": ((130, 130), None)}


@pytest.mark.parametrize(("codes", "error"), (AGAIN | STOPPED).values(), ids=AGAIN | STOPPED)
def test_kubernetes_starts_again_what_may_end_otherwise(pod, folder, codes, error):
    assert not ends_the_job(pod, folder, codes, error)


def test_a_pod_hands_a_signal_on_and_waits_for_the_checkpoint(pod, folder):
    _, start = pod
    # After the signal it waits for a word of the test: the pod must outlive its worker's last work.
    text = (
        "#!/bin/bash\ntrap 'echo told; read -r < go; exit 130' TERM\necho \"ready $*\"\nwhile :; do sleep 0.05; done\n"
    )
    program(folder / "bin" / "mltool", text)
    os.mkfifo(folder / "go")
    process = start(0, stdout=subprocess.PIPE)
    assert process.stdout.readline() == f"ready train /etc/mltool/spec.yaml --run-dir {folder / 'run'}\n"
    process.send_signal(signal.SIGTERM)
    assert process.stdout.readline() == "told\n"
    assert process.poll() is None
    (folder / "go").write_text("go\n")
    assert process.wait(timeout=60) == 130


@pytest.fixture
def ray(folder, spec, monkeypatch):
    """Runs the job file with the few names of Ray that it takes: its exit code, and how often it started workers."""
    (file, _), _ = render_job(spec, "ray", Job(2, 2, run_dir=folder / "deep" / "run"), folder / "jobs")
    current, pending, ends = [0], [], []

    def run_worker(command, check):
        return subprocess.CompletedProcess(command, ends[0][current[0]])

    class Trainer:
        def __init__(self, worker, *, scaling_config, run_config):
            self.worker, self.failures = worker, run_config.failure_config.max_failures

        def fit(self):
            for _ in range(self.failures + 1):
                pending[:], errors = [0, 1], []
                monkeypatch.setattr(time, "sleep", lambda _, errors=errors: self.run_pending(errors))
                self.run_pending(errors)
                ends.pop(0)
                if not errors:
                    return
            raise errors[0]

        def run_pending(self, errors):
            while pending:
                current[0] = pending.pop(0)
                try:
                    self.worker()
                except RuntimeError as error:
                    errors.append(error)

    of_train = dict.fromkeys(("FailureConfig", "RunConfig", "ScalingConfig"), types.SimpleNamespace)
    of_train["get_context"] = lambda: types.SimpleNamespace(get_world_rank=lambda: current[0])
    for name, names in (("ray", {}), ("ray.train", of_train), ("ray.train.tensorflow", {"TensorflowTrainer": Trainer})):
        module = types.ModuleType(name)
        vars(module).update(names)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(subprocess, "run", run_worker)

    def run(*of_attempts, error=None):
        (folder / "deep" / "run").mkdir(parents=True)
        (folder / "deep" / "run" / "run.json").write_text(json.dumps({"error": error}))
        ends[:] = of_attempts
        code = 0
        try:
            runpy.run_path(str(file), run_name="__main__")
        except SystemExit as ended:
            code = ended.code
        except RuntimeError as failed:
            code = str(failed)
        assert [path.name for path in (folder / "deep").iterdir()] == ["run"]
        return code, len(of_attempts) - len(ends)

    return run


@pytest.mark.parametrize(("codes", "error", "code"), FINAL.values(), ids=FINAL)
def test_ray_does_not_start_again_what_would_end_the_same(ray, codes, error, code):
    assert ray(codes, DONE, error=error) == (code, 1)


@pytest.mark.parametrize(("codes", "error"), AGAIN.values(), ids=AGAIN)
def test_ray_starts_again_what_may_end_otherwise(ray, codes, error):
    assert ray(codes, DONE, error=error) == (0, 2)


def test_ray_gives_up_after_the_last_restart(ray):
    assert ray(*[(6, 1)] * 3, DONE, error=LOST) == ("mltool train ended with 1", 3)


def test_ray_does_not_take_what_an_earlier_job_left(ray, folder):
    (folder / "deep").mkdir()
    (folder / "deep" / "run.ended").write_text("3")
    assert ray(DONE) == (0, 1)

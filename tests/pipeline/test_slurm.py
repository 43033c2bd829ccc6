"""The job file of Slurm, run by Slurm: a cluster of this machine alone, as docs/slurm.md tells."""

import getpass
import os
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from mltool.pipeline.launch import free_ports, load_for_workers
from mltool.pipeline.render import Job, render_job
from mltool.runs.run import Run

pytestmark = pytest.mark.slow

TOOLS = ("munged", "slurmctld", "slurmd", "sbatch", "srun")
PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"

CONFIGURATION = """\
ClusterName=one
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ReturnToService=2
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """The environment of a cluster with one node of two CPUs."""
    missing = [tool for tool in TOOLS if shutil.which(tool, path=PATH) is None]
    if missing:
        pytest.skip(f"Slurm is not installed here: no {', '.join(missing)}; see docs/slurm.md")
    folder = tmp_path_factory.mktemp("slurm")
    for name in ("state", "spool"):
        (folder / name).mkdir()
    key = folder / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    host = socket.gethostname().partition(".")[0]
    settings = CONFIGURATION.format(folder=folder, host=host, ports=free_ports(2), user=getpass.getuser())
    (folder / "slurm.conf").write_text(settings)
    environ = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf"), "PATH": PATH}
    of_munge = [f"--key-file={key}", f"--socket={folder}/munge.socket", f"--pid-file={folder}/munged.pid"]
    of_munge += [f"--log-file={folder}/munged.log", f"--seed-file={folder}/munged.seed"]
    try:
        for command in (
            ["munged", "--force", *of_munge],
            ["slurmctld", "-c"],
            ["slurmd", "-c"],
        ):
            subprocess.run(command, env=environ, check=True, timeout=60)
        # An allocation waits until the node has come.
        subprocess.run(["srun", "-n", "2", "true"], env=environ, check=True, timeout=120)
        yield environ
    finally:
        for name in ("slurmd", "slurmctld", "munged"):
            pid_file = folder / f"{name}.pid"
            if pid_file.is_file():
                os.kill(int(pid_file.read_text()), 15)


@pytest.fixture
def job(digits_spec, tmp_path, monkeypatch):
    """A job of two workers, its log and its run."""
    monkeypatch.chdir(tmp_path)

    def rendered(*overrides: str) -> Path:
        spec = load_for_workers(digits_spec, overrides)
        (file, _), _ = render_job(spec, "slurm", Job(2, 1, run_dir=tmp_path / "run"), tmp_path / "jobs")
        return file

    return rendered


def submit(file, environ):
    command = ["sbatch", "--wait", "--time=10", file]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=500)
    (log,) = Path.cwd().glob("tiny-*.log")
    return done.returncode, log.read_text()


def test_sbatch_takes_the_file_and_two_workers_train_the_run(cluster, job, tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_CONF", cluster["SLURM_CONF"])
    file = job()
    tested = subprocess.run(["sbatch", "--test-only", file], env=cluster, capture_output=True, text=True, check=False)
    assert tested.returncode == 0, tested.stderr
    code, log = submit(file, cluster)
    assert code == 0, log
    run = Run.open(tmp_path / "run")
    assert run.status == "trained"
    assert run.keras_file.is_file()
    assert "0: epoch 4/4" in log


def test_a_mistake_ends_the_job_with_its_code(cluster, job, tmp_path):
    file = job()
    spec_file = tmp_path / "jobs" / "tiny.spec.yaml"
    spec_file.write_text(spec_file.read_text().replace("batch_size: 100", "batch_size: 0"))
    code, log = submit(file, cluster)
    assert code == 3, log
    assert "data.batch_size: must be greater than 0" in log
    assert "a worker was lost" not in log


def test_a_training_that_diverges_in_all_workers_is_tried_once(cluster, job):
    file = job("train.optimizer={SGD: {learning_rate: 1e30}}")
    code, log = submit(file, cluster)
    assert code == 6, log
    assert "a worker was lost" not in log

"""`mltool launch --render`: job files for clusters, written and checked, never submitted."""

import ast
import json
import logging
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from mltool import extras
from mltool.assets import asset_folder
from mltool.cluster.cluster import PORT
from mltool.errors import FINAL_EXIT_CODES, LOST_WORKER, MachineError, TrainingError, UsageError
from mltool.runs.atomic import write_text
from mltool.spec.load import dump_spec
from mltool.spec.spec import Spec

logger = logging.getLogger("mltool")

Scheduler = Literal["slurm", "kubernetes", "ray"]

_FILES = {"slurm": "slurm.sh", "kubernetes": "kubernetes.yaml", "ray": "ray.py"}
"""The template of every scheduler, and the ending of what is made of it."""

_SETTLE_SECONDS = 10
"""How long a worker that failed waits for the others to fail by themselves, so that each says how it ended: longer than
in `launch`, as they are on several machines."""

_CHECK_SECONDS = 30.0
"""How long `sbatch --test-only` may take; it asks the controller."""


@dataclass(frozen=True)
class TpuSlice:
    """A slice of TPU chips of one host, as GKE names it.

    Attributes:
        accelerator: such as `tpu-v5-lite-podslice`.
        topology: such as `2x4`.
    """

    accelerator: str
    topology: str

    @property
    def chips(self) -> int:
        """How many chips: `2x4` are 8."""
        chips = 1
        for side in self.topology.split("x"):
            chips *= int(side)
        return chips

    @classmethod
    def parse(cls, text: str) -> "TpuSlice":
        """Reads `tpu-v5-lite-podslice:2x4`.

        Raises:
            UsageError: if it is something else.
        """
        found = re.fullmatch(r"([a-z0-9-]+):([1-9]\d*(?:x[1-9]\d*){1,2})", text)
        if found is None:
            raise UsageError(f"--tpu must be a kind and a topology (got {text!r})", "--tpu tpu-v5-lite-podslice:2x4")
        return cls(found[1], found[2])


@dataclass(frozen=True)
class Job:
    """What a job file asks for.

    Attributes:
        workers: how many.
        max_restarts: how often they are started again when one was lost.
        cpus: of every worker.
        gpus: of every worker.
        tpu: of the only worker.
        image: of the container, for Kubernetes.
        run_dir: where the run goes; made of the job when None.
    """

    workers: int
    max_restarts: int
    cpus: int = 1
    gpus: int = 0
    tpu: TpuSlice | None = None
    image: str | None = None
    run_dir: Path | None = None


def render_job(spec: Spec, scheduler: Scheduler, job: Job, folder: Path) -> tuple[list[Path], str]:
    """Writes a job and the spec that it trains, and checks it as far as this machine can.

    Args:
        spec: checked, of a strategy that fits the job.
        scheduler: who will run it.
        job: what it asks for.
        folder: where the files go.

    Returns:
        The files, the job first, and how it was checked, in words.

    Raises:
        UsageError: if a file is there already, or something is missing or has no meaning for this scheduler.
        MissingExtraError: if the templates' engine is not installed.
    """
    _require_fitting(scheduler, job)
    job_file = (folder / f"{spec.name}.{_FILES[scheduler]}").absolute()
    spec_file = (folder / f"{spec.name}.spec.yaml").absolute()
    files = {job_file: _fill(scheduler, _values(spec, scheduler, job, job_file, spec_file))}
    if scheduler == "kubernetes":
        _tell_of_pods(spec)
    else:
        files[spec_file] = dump_spec(spec)
    checked = "" if scheduler == "slurm" else _check_text(scheduler, files[job_file])
    for file, text in files.items():
        if file.exists() and (file == job_file or file.read_text(encoding="utf-8") != text):
            raise UsageError(f"{file} is there already; launch overwrites nothing", "choose another --output")
    for file, text in files.items():
        write_text(file, text)
    return list(files), checked or _check_slurm(job_file)


def _require_fitting(scheduler: Scheduler, job: Job) -> None:
    if scheduler == "kubernetes" and job.image is None:
        raise UsageError("Kubernetes runs images: name one that has mltool", "--image registry/me/mltool:1")
    for option, is_set in (("--image", job.image is not None), ("--tpu", job.tpu is not None)):
        if is_set and scheduler != "kubernetes":
            raise UsageError(f"{option} is for --render kubernetes", "leave it out")
    if job.tpu is not None and (job.gpus or job.workers != 1):
        raise UsageError(
            "a slice of TPUs is one worker's, who has no GPUs", "write --workers 1 --tpu KIND:TOPOLOGY, of one host"
        )


def _values(spec: Spec, scheduler: Scheduler, job: Job, job_file: Path, spec_file: Path) -> dict[str, Any]:
    """What the templates may name."""
    folder = Path("/runs") if scheduler == "kubernetes" else Path.cwd() / "runs"
    run_dir = job.run_dir.absolute() if job.run_dir is not None else folder / spec.name / scheduler
    return {
        "name": spec.name,
        "job": job_name(spec.name),
        "workers": job.workers,
        "max_restarts": job.max_restarts,
        "cpus": job.cpus,
        "gpus": job.gpus,
        "tpu": job.tpu,
        "image": job.image,
        "resources": {"CPU": job.cpus, **({"GPU": job.gpus} if job.gpus else {})},
        "port": PORT,
        "final": _final_codes(scheduler),
        "failed": TrainingError.exit_code,
        "machine": MachineError.exit_code,
        "lost": f'"{LOST_WORKER}',  # a value of JSON that begins so
        "settle": _SETTLE_SECONDS,
        "python": sys.executable,
        "file": str(job_file),
        "spec": str(spec_file),
        "spec_text": dump_spec(spec).rstrip("\n"),
        "run": str(run_dir),
        "run_is_given": job.run_dir is not None,
    }


def _final_codes(scheduler: Scheduler) -> tuple[int, ...]:
    """Exit codes of a worker that end its job, because another try would end the same."""
    if scheduler == "kubernetes":
        # Its pods come one by one, and again on any machine: a worker that was missed, or a device, may be there then.
        return tuple(code for code in FINAL_EXIT_CODES if code != MachineError.exit_code)
    return FINAL_EXIT_CODES


def job_name(name: str) -> str:
    """A name as Kubernetes takes it for a service and for pods, whose index is still added.

    A label of RFC 1035, as a service has it, begins with a letter; with the index it has at most 63 characters.
    """
    label = re.sub(r"[^a-z0-9]+", "-", name.lower())
    return (label if label[0].isalpha() else f"mltool-{label}")[:52].strip("-")


def _fill(scheduler: Scheduler, values: dict[str, Any]) -> str:
    jinja = extras.require("jinja2")
    environment = jinja.Environment(
        loader=jinja.FileSystemLoader(asset_folder("templates")),
        undefined=jinja.StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    # No HTML: what goes in is quoted for the shell, for YAML (JSON is that too), and for Python.
    environment.filters |= {"sh": shlex.quote, "yaml": json.dumps, "py": repr}
    text: str = environment.get_template(f"{_FILES[scheduler]}.j2").render(values)
    return text


def _tell_of_pods(spec: Spec) -> None:
    """What is on this machine, and has to be in the image or a volume."""
    paths = sorted(set(re.findall(r"(?<![\w:])/[^\s'\"{}\[\],]+", dump_spec(spec))))
    if paths:
        logger.warning("the pods need what the spec names, under the same paths: %s", ", ".join(paths))
    if spec.code:
        logger.warning("the image needs your own code: %s", ", ".join(spec.code))


_NO_SLURM = ("Could not establish a configuration source", "Unable to contact slurm controller")
"""What sbatch says before it has looked at a file."""


def _check_slurm(file: Path) -> str:
    sbatch = shutil.which("sbatch")
    if sbatch is None:
        return "nothing: there is no sbatch here"
    try:
        done = subprocess.run(  # noqa: S603
            [sbatch, "--test-only", str(file)], capture_output=True, text=True, check=False, timeout=_CHECK_SECONDS
        )
    except subprocess.TimeoutExpired:
        return "nothing: sbatch did not answer"
    words = " ".join(done.stderr.split()) or f"it ended with {done.returncode}"
    if done.returncode and any(said in words for said in _NO_SLURM):
        return "nothing: this machine belongs to no Slurm cluster"
    if done.returncode:
        logger.warning("sbatch does not take %s as it is: %s", file, words)
        return "sbatch --test-only, which refused it"
    return "sbatch --test-only"


def _check_text(scheduler: Scheduler, text: str) -> str:
    """Checks a job file before it is written; says how.

    Raises:
        UsageError: if Kubernetes would refuse it.
    """
    if scheduler == "ray":
        ast.parse(text)
        return "its syntax" if extras.has("ray") else "its syntax alone: Ray is not installed here"
    if not extras.has("kubernetes_validate"):
        return "nothing: kubernetes-validate is not installed here"
    validator = extras.require("kubernetes_validate")
    version: str = validator.latest_version()
    for document in yaml.safe_load_all(text):
        try:
            validator.validate(document, version, strict=True)
        except validator.ValidationError as error:
            raise UsageError(f"Kubernetes would refuse the {document['kind']}: {error.message}") from error
    return f"kubernetes-validate --strict, for Kubernetes {version}"

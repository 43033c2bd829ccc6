"""Which worker of how many this process is: from TF_CONFIG, from Slurm, or from a Kubernetes Indexed Job.

Whatever it comes from, it is handed to TensorFlow as TF_CONFIG. TensorFlow's own `SlurmClusterResolver` is not asked:
it sorts the nodes as text while Slurm numbers tasks in the order of its list (`node2` before `node10`), so that workers
take one another's addresses, it wants nvidia-smi, and it needs TensorFlow to be imported before anything is known.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from mltool.errors import MachineError

Resolver = Literal["auto", "tf_config", "slurm", "kubernetes"]

PORT = 12345
"""Where a worker listens if nothing says otherwise: below the range that Linux gives to outgoing connections."""

CHIEF, WORKER = "chief", "worker"
_JOBS = (CHIEF, WORKER, "ps", "evaluator")


@dataclass(frozen=True)
class Cluster:
    """The workers of one training, and which of them this process is.

    Attributes:
        jobs: addresses (`host:port`) by task type, in the order of their indices.
        task_type: of this process, such as `worker`.
        index: of this process among those of its type.
    """

    jobs: Mapping[str, tuple[str, ...]]
    task_type: str
    index: int

    @property
    def name(self) -> str:
        """This process in words: `worker 1`."""
        return f"{self.task_type} {self.index}"

    @property
    def members(self) -> dict[str, str]:
        """The address of every task by its name; the chief is the first."""
        order = sorted(self.jobs, key=_JOBS.index)
        return {f"{job} {index}": address for job in order for index, address in enumerate(self.jobs[job])}

    @property
    def address(self) -> str:
        """Where this process listens."""
        return self.members[self.name]

    @property
    def chief(self) -> str:
        """The name of the task that writes: the chief, or worker 0 where no task is called so."""
        return next(iter(self.members))

    @property
    def is_chief(self) -> bool:
        """Whether this process is the one that writes."""
        return self.name == self.chief

    def to_tf_config(self) -> str:
        """The JSON that TensorFlow reads from TF_CONFIG."""
        jobs = {job: list(addresses) for job, addresses in self.jobs.items()}
        return json.dumps({"cluster": jobs, "task": {"type": self.task_type, "index": self.index}})


def local_cluster(addresses: tuple[str, ...], index: int) -> Cluster:
    """The cluster of workers alone, as worker `index` sees it."""
    return Cluster({WORKER: addresses}, WORKER, index)


def from_environment(resolver: Resolver, environ: Mapping[str, str]) -> Cluster:
    """The cluster that the environment describes.

    Args:
        resolver: where to look; `auto` takes TF_CONFIG where it is set, else Slurm, else Kubernetes.
        environ: of this process.

    Raises:
        MachineError: if nothing is there, or it does not fit together.
    """
    found = [name for name, (variable, _) in _READERS.items() if environ.get(variable)]
    if resolver != "auto" and resolver not in found:
        variable = _READERS[resolver][0]
        raise MachineError(f"{variable} is not set, so this is no worker of {resolver}", _HINT)
    if not found:
        variables = ", ".join(variable for variable, _ in _READERS.values())
        raise MachineError(f"nothing says which worker this is: none of {variables} is set", _HINT)
    return _READERS[found[0] if resolver == "auto" else resolver][1](environ)


_HINT = "start all workers of one machine with: mltool launch SPEC --workers 2"


def _from_tf_config(environ: Mapping[str, str]) -> Cluster:
    try:
        document = json.loads(environ["TF_CONFIG"])
    except ValueError as error:
        raise _bad_tf_config(f"is no JSON: {error}") from error
    if not isinstance(document, dict):
        raise _bad_tf_config(f"must be a map (got {document!r})")
    jobs, task = _jobs_of(document.get("cluster")), document.get("task")
    if not isinstance(task, dict) or task.get("type") not in jobs:
        raise _bad_tf_config(f"must have a task whose type is one of {', '.join(jobs)} (got {task!r})")
    index, last = _whole(task.get("index")), len(jobs[task["type"]]) - 1
    if index is None or index > last:
        raise _bad_tf_config(f"must have a task.index from 0 to {last}, as the cluster has (got {task.get('index')!r})")
    return Cluster(jobs, task["type"], index)


def _jobs_of(cluster: Any) -> dict[str, tuple[str, ...]]:
    if not isinstance(cluster, dict) or not cluster:
        raise _bad_tf_config(f"must have a cluster of addresses by task type (got {cluster!r})")
    unknown = [job for job in cluster if job not in _JOBS]
    if unknown:
        raise _bad_tf_config(f"knows the task types {', '.join(_JOBS)} (got {', '.join(map(repr, unknown))})")
    for job, addresses in cluster.items():
        right = isinstance(addresses, list) and addresses and all(_is_address(address) for address in addresses)
        if not right:
            raise _bad_tf_config(f"must have a list of host:port under cluster.{job} (got {addresses!r})")
    every = [address for addresses in cluster.values() for address in addresses]
    twice = [address for address in every if every.count(address) > 1]
    if twice:
        raise _bad_tf_config(f"gives {twice[0]} to two tasks")
    if len(cluster.get(CHIEF, ())) > 1:
        raise _bad_tf_config(f"has {len(cluster[CHIEF])} chiefs, and one alone writes")
    return {job: tuple(addresses) for job, addresses in cluster.items()}


def _is_address(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch(r".+:\d{1,5}", value) is not None


def _bad_tf_config(what: str) -> MachineError:
    example = '{"cluster": {"worker": ["a:2222", "b:2222"]}, "task": {"type": "worker", "index": 0}}'
    return MachineError(f"TF_CONFIG {what}", f"write it as {example}")


def _from_slurm(environ: Mapping[str, str]) -> Cluster:
    """One worker a task, at the port of the node's first task and those after it.

    `srun --distribution=block`, the default for tasks, numbers them node by node.
    """
    hosts = _expand_hosts(_needed(environ, "SLURM_STEP_NODELIST", _SRUN))
    counts = _expand_counts(_needed(environ, "SLURM_STEP_TASKS_PER_NODE", _SRUN))
    if len(hosts) != len(counts):
        raise MachineError(
            f"SLURM_STEP_NODELIST has {len(hosts)} nodes and SLURM_STEP_TASKS_PER_NODE {len(counts)}", _SRUN
        )
    port = _port(environ)
    addresses = tuple(
        f"{host}:{port + number}" for host, count in zip(hosts, counts, strict=True) for number in range(count)
    )
    return local_cluster(addresses, _index(environ, "SLURM_PROCID", len(addresses)))


_SRUN = "start the workers inside a job with: srun mltool train ..., as `mltool launch SPEC --render slurm` writes it"


def _expand_hosts(hostlist: str) -> list[str]:
    """The names of Slurm's short form: `n[01-03,7],login` is n01, n02, n03, n7, login."""
    hosts: list[str] = []
    for name in re.findall(r"(?:[^,\[\]]|\[[^\]]*\])+", hostlist):
        grown = [""]
        for text, ranges in re.findall(r"([^\[\]]+)|\[([^\]]+)\]", name):
            parts = [text] if text else _expand_ranges(ranges, hostlist)
            grown = [f"{before}{part}" for before in grown for part in parts]
        hosts += grown
    return hosts


def _expand_ranges(ranges: str, hostlist: str) -> list[str]:
    numbers: list[str] = []
    for part in ranges.split(","):
        found = re.fullmatch(r"(\d+)(?:-(\d+))?", part)
        if found is None:
            raise MachineError(f"SLURM_STEP_NODELIST is no list of nodes (got {hostlist!r})", _SRUN)
        first, last = found[1], found[2] or found[1]
        numbers += [str(number).zfill(len(first)) for number in range(int(first), int(last) + 1)]
    return numbers


def _expand_counts(text: str) -> list[int]:
    """Slurm's numbers of tasks: `3(x2),1` is 3, 3, 1."""
    counts: list[int] = []
    for part in text.split(","):
        found = re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part)
        if found is None:
            raise MachineError(f"SLURM_STEP_TASKS_PER_NODE is no list of numbers (got {text!r})", _SRUN)
        counts += [int(found[1])] * int(found[2] or 1)
    return counts


def _from_kubernetes(environ: Mapping[str, str]) -> Cluster:
    """Pods of an Indexed Job: the service gives pod `JOB-INDEX` the name `JOB-INDEX.SERVICE`."""
    job, service = (_needed(environ, name, _INDEXED_JOB) for name in ("MLTOOL_JOB", "MLTOOL_SERVICE"))
    workers = _whole(_needed(environ, "MLTOOL_WORKERS", _INDEXED_JOB))
    if not workers:
        raise MachineError(f"MLTOOL_WORKERS must be 1 or more (got {environ['MLTOOL_WORKERS']!r})", _INDEXED_JOB)
    port = _port(environ)
    addresses = tuple(f"{job}-{index}.{service}:{port}" for index in range(workers))
    return local_cluster(addresses, _index(environ, "JOB_COMPLETION_INDEX", workers))


_INDEXED_JOB = "write the job with: mltool launch SPEC --render kubernetes"


def _needed(environ: Mapping[str, str], variable: str, hint: str) -> str:
    value = environ.get(variable)
    if not value:
        raise MachineError(f"{variable} is not set", hint)
    return value


def _index(environ: Mapping[str, str], variable: str, count: int) -> int:
    index = _whole(environ[variable])
    if index is None or index >= count:
        raise MachineError(f"{variable} must be from 0 to {count - 1}, of {count} workers (got {environ[variable]!r})")
    return index


def _port(environ: Mapping[str, str]) -> int:
    text = environ.get("MLTOOL_PORT") or str(PORT)
    port = _whole(text)
    if port is None or not 0 < port < 65536:
        raise MachineError(f"MLTOOL_PORT must be from 1 to 65535 (got {text!r})")
    return port


def _whole(value: Any) -> int | None:
    """A number of 0 or more, also as text; None for anything else."""
    if isinstance(value, bool) or not re.fullmatch(r"\d+", str(value)):
        return None
    return int(value)


_READERS = {
    "tf_config": ("TF_CONFIG", _from_tf_config),
    "slurm": ("SLURM_PROCID", _from_slurm),
    "kubernetes": ("JOB_COMPLETION_INDEX", _from_kubernetes),
}
"""Where a cluster may come from, in the order of `auto`: the variable that says so, and who reads it."""

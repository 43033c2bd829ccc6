"""A process becomes a worker: it finds out which, meets the others, and tells TensorFlow."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from mltool.cluster.cluster import Cluster, from_environment
from mltool.cluster.rendezvous import wait_for_all
from mltool.errors import MachineError, UsageError
from mltool.runs.run import Run
from mltool.spec.spec import Spec
from mltool.spec.strategy import AutoStrategy, MultiWorkerStrategy, ParameterServerStrategy

_OF_SEVERAL = MultiWorkerStrategy | ParameterServerStrategy
"""Strategies of several processes."""

_met: Cluster | None = None


def join(spec: Spec) -> Cluster | None:
    """Meets the other workers, once a process, and sets TF_CONFIG; call it before TensorFlow is imported.

    Returns:
        Which worker this is; None where the spec is for one process.

    Raises:
        MachineError: if nothing says which worker this is, the strategy needs other tasks, or others did not come
            within `start_timeout`.
    """
    global _met  # noqa: PLW0603  a process is one worker, as long as it lives
    strategy = spec.train.strategy
    if not isinstance(strategy, _OF_SEVERAL):
        return None
    if _met is None:
        cluster = from_environment("auto", os.environ)
        _require_tasks(cluster, strategy)
        if isinstance(strategy, ParameterServerStrategy):
            # Else gRPC tries for ever to reach a task that is gone.
            os.environ.setdefault("GRPC_FAIL_FAST", "use_caller")
        wait_for_all(cluster, strategy.start_timeout)
        os.environ["TF_CONFIG"] = cluster.to_tf_config()
        _met = cluster
    return _met


def _require_tasks(cluster: Cluster, strategy: MultiWorkerStrategy | ParameterServerStrategy) -> None:
    """Holds the task types of a cluster against those that a strategy needs.

    Raises:
        MachineError: if one is missing, or there is one too many.
    """
    is_served = isinstance(strategy, ParameterServerStrategy)
    needed, known = ({"chief", "ps", "worker"},) * 2 if is_served else ({"worker"}, {"chief", "worker"})
    found = set(cluster.jobs)
    if needed <= found <= known:
        return
    message = (
        f"{strategy.NAME} takes {' and '.join(sorted(known))} tasks, and this cluster has {', '.join(cluster.jobs)}"
    )
    hint = "name a chief, each ps and each worker in TF_CONFIG" if is_served else "leave all others out of TF_CONFIG"
    raise MachineError(message, hint)


def of_workers(spec: Spec) -> Spec:
    """The spec as this process trains it: `strategy: auto` takes all workers where TF_CONFIG names several.

    Raises:
        MachineError: if TF_CONFIG is damaged.
    """
    is_auto = isinstance(spec.train.strategy, AutoStrategy)
    if not is_auto or not os.environ.get("TF_CONFIG") or len(from_environment("tf_config", os.environ).members) == 1:
        return spec
    train = spec.train.model_copy(update={"strategy": MultiWorkerStrategy()})
    return spec.model_copy(update={"train": train})


def make_run(spec: Spec, directory: Path | None) -> Run:
    """The run of a training that begins: of several workers the chief makes it, and the others find it.

    Args:
        spec: checked.
        directory: as `Run.create` takes it; several workers must be told.

    Raises:
        UsageError: if several workers were not told where.
        MachineError: if it cannot be made, or the workers do not meet.
        ArtifactError: if a worker does not see what the chief made.
    """
    spec = of_workers(spec)
    if not isinstance(spec.train.strategy, _OF_SEVERAL):
        return Run.create(spec, directory)
    cluster = from_environment("auto", os.environ)
    if directory is None:
        raise UsageError("several workers need one place for the run", "add --run-dir, a folder that all of them see")
    if not cluster.is_chief:
        join(spec)
        return Run.open(directory)
    run = Run.create(spec, directory)
    with contextlib.ExitStack() as undo:
        undo.callback(run.discard)
        join(spec)
        undo.pop_all()
    return run


_AFTER_TRAINING = "train first: mltool launch SPEC; then mltool run --resume RUN"


def require_one_process(spec: Spec, verb: str, hint: str = _AFTER_TRAINING) -> None:
    """Refuses a spec of several processes where only training is shared.

    Args:
        spec: checked.
        verb: what is for one process.
        hint: what to do instead.

    Raises:
        UsageError: with the hint.
    """
    strategy = of_workers(spec).train.strategy
    if isinstance(strategy, _OF_SEVERAL):
        raise UsageError(f"{verb} is for one process, and train.strategy is {strategy.NAME}", hint)


@contextlib.contextmanager
def place_to_write(run: Run, cluster: Cluster | None) -> Iterator[Run]:
    """Where this process trains: the chief in the run itself, the others in a copy that is gone afterwards.

    All of them compute the same and take the same steps, so all of them write, and what the chief wrote counts. Of
    checkpoints the others need no copy: the chief sends them.
    """
    if cluster is None or cluster.is_chief:
        yield run
        return
    with tempfile.TemporaryDirectory(prefix=f"mltool-{cluster.name.replace(' ', '-')}-") as folder:
        for file in (run.spec_file, run.manifest_file, run.splits_file):
            if file.is_file():
                shutil.copy(file, folder)
        yield Run.open(Path(folder))

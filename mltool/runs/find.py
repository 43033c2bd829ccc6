"""Finds the run that a verb means: a folder, an id or its beginning, `latest`, or the newest with what is needed."""

import logging
import re
from collections.abc import Callable
from pathlib import Path

from mltool.errors import ArtifactError, UsageError
from mltool.runs.lite import LiteFolder
from mltool.runs.onnx import require_recorded
from mltool.runs.run import Run

logger = logging.getLogger("mltool")

_ENDPOINT = re.compile(r"https?://", re.IGNORECASE)

Need = Callable[[Run], bool]


def is_trained(run: Run) -> bool:
    """Whether the run has a trained model."""
    return run.status == "trained" and run.keras_file.is_file()


def is_unfinished(run: Run) -> bool:
    """Whether `--resume` has something to do."""
    return run.status != "trained"


def all_runs(root: Path = Path("runs")) -> list[Run]:
    """Every run under `root`, newest first, by the time in its run.json: a folder may have any name."""
    found = [Run(manifest.parent) for manifest in root.glob("*/*/run.json")]
    return sorted(found, key=_created, reverse=True)


def _created(run: Run) -> tuple[str, str]:
    """When a run was made (UTC); a damaged one counts as the oldest, and is told where it is passed over."""
    try:
        return str(run.manifest.get("created", "")), run.id
    except ArtifactError:
        return "", run.id


def find_run(selector: str | Path | None, need: Need = is_trained, what: str = "a trained model") -> Run:
    """The run that `selector` means.

    Args:
        selector: a folder, an id or its unique beginning, `latest`, or None for the newest with what is needed.
        need: what the verb needs of a run that is not named.
        what: the need in words, for the message.

    Raises:
        ArtifactError: if there is none, or a beginning fits several.
    """
    if selector and Path(selector).is_dir():
        return Run.open(Path(selector))
    runs = all_runs()
    if selector is None or str(selector) == "latest":
        for run in runs:
            if _fits(run, need):
                return Run.open(run.directory)
        raise ArtifactError(f"no run with {what} under ./runs", "name a run, or make one: mltool train SPEC")
    fitting = [run for run in runs if selector and run.id.startswith(str(selector))]
    if len(fitting) > 1:
        raise ArtifactError(
            f"{selector!r} fits {len(fitting)} runs: {', '.join(run.id for run in fitting[:5])}", "write more of the id"
        )
    if not fitting:
        raise ArtifactError(f"no run, folder or file is called {str(selector)!r}", "`ls runs/*` shows the ids")
    return Run.open(fitting[0].directory)


def _fits(run: Run, need: Need) -> bool:
    """Whether a run has what is needed; one that is damaged has not, and must not hide the others."""
    try:
        return need(run)
    except ArtifactError as error:
        logger.warning("%s; it is passed over", error)
        return False


def find_resumable(selector: str | None) -> Run:
    """The run that `--resume` means: as `find_run`; without a name the newest that is not finished, else the newest.

    Raises:
        ArtifactError: if there is none.
    """
    unfinished = any(_fits(run, is_unfinished) for run in all_runs())
    need = is_unfinished if unfinished else is_trained
    return find_run(selector, need, "training to go on with")


def run_of(artifact: Path) -> Run | None:
    """The run that an artifact file or folder lies in, if it lies in one."""
    for folder in artifact.absolute().parents:
        if (folder / "run.json").is_file() and (folder / "spec.yaml").is_file():
            return Run.open(folder)
    return None


def is_endpoint(selector: str | None) -> bool:
    """Whether an artifact is the address of a server, not a path."""
    return selector is not None and _ENDPOINT.match(selector) is not None


def find_model(selector: str | None, run: str | None = None) -> tuple[Run | None, Path | str]:
    """The artifact or endpoint that `selector` means, and the run that it belongs to.

    Args:
        selector: an address as text; else as in `find_artifact`.
        run: of an endpoint, or of a file that lies in none; without a selector it is the run that is meant.

    Raises:
        UsageError: if a run is named for an artifact that lies in one.
        ArtifactError: as `find_artifact`.
    """
    if selector is not None and is_endpoint(selector):
        return (find_run(run) if run is not None else None), selector
    if selector is None and run is not None:
        return find_artifact(run)
    found, path = find_artifact(selector)
    if run is not None and found is not None:
        raise UsageError(f"{path} lies in the run {found.directory}", "leave --run out")
    return (find_run(run) if run is not None else found), path


def find_artifact(selector: str | None) -> tuple[Run | None, Path]:
    """The artifact that `selector` means, and the run that it lies in.

    Args:
        selector: a model file or SavedModel folder; else a run (see `find_run`), which means its `model.keras`.

    Raises:
        UsageError: if it is the address of an endpoint.
        ArtifactError: if there is none, it was rejected, or it is not what the run recorded.
    """
    if is_endpoint(selector):
        raise UsageError(f"this takes files, not an endpoint (got {selector})", "evaluate and predict take an address")
    path = Path(selector) if selector is not None else None
    is_model = path is not None and (path.is_file() or (path / "saved_model.pb").is_file())
    if path is None or not is_model:
        run = find_run(selector)
        return run, run.require_unchanged(run.keras_file)
    run_or_none = run_of(path)
    require_sound(run_or_none, path)
    return run_or_none, path


def require_sound(run: Run | None, path: Path) -> None:
    """Holds an artifact against what its run, or the record beside it, says of it.

    Raises:
        ArtifactError: if it was rejected, is not recorded, or was changed.
    """
    if path.absolute().parent.name == "rejected":
        raise ArtifactError(
            f"{path} was rejected when it was made", f"see {path.with_suffix('.json')}; `mltool inspect` shows it"
        )
    if run is not None and path.absolute().is_relative_to(run.directory):
        run.require_unchanged(path.absolute())
    lite = LiteFolder(path.parent)
    if path.suffix == ".tflite" and lite.record_file(path.stem).is_file():
        lite.require_unchanged(path.stem)
    if path.suffix == ".onnx" and (run is None or not path.absolute().is_relative_to(run.directory)):
        require_recorded(path)

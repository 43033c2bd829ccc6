"""The run directory: every file name in it, what it holds, and who may write it."""

import contextlib
import datetime
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mltool.errors import ArtifactError, DataError, MachineError
from mltool.runs.arrays import UNREADABLE_NPZ, read_npz, write_npz
from mltool.runs.atomic import hash_of, sha256_of, write_json, write_text, writing
from mltool.runs.input_schema import InputSchema
from mltool.spec.load import dump_spec, load_spec

if TYPE_CHECKING:
    import numpy as np

    from mltool.spec.spec import Spec

SCHEMA_VERSION = 1


class Run:
    """One execution of a spec and all that it left.

    Attributes:
        directory: absolute; the other attributes are the files and folders in it, whether they are there or not.
        is_new: whether this object made the run, and did not open it.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = Path(os.path.abspath(directory))  # noqa: PTH100  `Path.absolute` keeps the dots
        self.is_new = False
        self._made: list[Path] = []
        self.spec_file = self.directory / "spec.yaml"
        self.manifest_file = self.directory / "run.json"
        self.splits_file = self.directory / "splits.npz"
        self.lock_file = self.directory / "run.lock"
        self.metrics_file = self.directory / "metrics.jsonl"
        self.events_folder = self.directory / "events"
        self.profile_file = self.directory / "profile.json"
        self.callbacks_folder = self.directory / "callbacks"
        self.checkpoints_folder = self.directory / "checkpoints"
        self.keras_file = self.directory / "model.keras"
        self.backend_answers_file = self.directory / "backend_answers.npz"
        self.model_summary_file = self.directory / "model.json"
        self.evaluation_file = self.directory / "evaluation.json"
        self.saved_model_folder = self.directory / "saved_model" / "1"
        self.onnx_folder = self.directory / "onnx"
        self.lite_folder = self.directory / "lite"
        self.report_file = self.directory / "report.json"
        self.report_page_file = self.directory / "report.html"
        self.scan_file = self.directory / "scan.json"
        self.predictions_file = self.directory / "predictions.npz"

    @property
    def id(self) -> str:
        """The folder's name."""
        return self.directory.name

    @classmethod
    def create(cls, spec: "Spec", directory: Path | None = None) -> "Run":
        """Makes the directory and writes the resolved spec; TensorFlow is not needed for it.

        Args:
            spec: checked.
            directory: where; `runs/NAME/<time>-<random>` under the working directory when left out.

        Raises:
            MachineError: if it cannot be written, or `directory` holds something already.
        """
        if directory is None:
            now = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
            mark = "".join(secrets.choice("abcdefghijkmnpqrstuvwxyz23456789") for _ in range(4))
            directory = Path("runs") / spec.name / f"{now}-{mark}"
        run = cls(directory)
        folders = (run.directory, *run.directory.parents)
        run._made = [folder for folder in folders if not folder.exists()]
        try:
            directory.mkdir(parents=True, exist_ok=True)
            taken = any(item != run.lock_file for item in run.directory.iterdir())
        except OSError as error:
            raise MachineError(f"cannot make the run directory {directory}: {error.strerror}") from error
        if taken:
            raise MachineError(f"{directory} is not empty; a run overwrites nothing", "choose another --run-dir")
        run.is_new = True
        write_text(run.spec_file, dump_spec(spec))
        created = datetime.datetime.now(datetime.UTC).isoformat(timespec="microseconds")
        run.update(
            schema_version=SCHEMA_VERSION, id=run.id, name=spec.name, status="created", created=created, seed=spec.seed
        )
        return run

    def discard(self) -> None:
        """Takes away what `create` made, of a run that did not begin; what it did not make stays."""
        with contextlib.suppress(OSError):  # of a file that is open on Windows, or a folder that is not empty
            summaries = (self.scan_file, self.model_summary_file)
            for file in (self.spec_file, self.manifest_file, self.splits_file, *summaries, self.lock_file):
                file.unlink(missing_ok=True)
            for folder in self._made:
                folder.rmdir()

    def discard_unless_begun(self) -> None:
        """Takes a new run away of which nothing was trained: the same command must work once its mistake is mended."""
        if self.is_new and "training_sections" not in self.manifest:
            self.discard()

    @classmethod
    def open(cls, directory: Path) -> "Run":
        """Opens a run that is there.

        Raises:
            ArtifactError: if the folder is not a run, or its run.json is damaged or of a newer version.
        """
        run = cls(directory)
        if not run.manifest_file.is_file() or not run.spec_file.is_file():
            raise ArtifactError(
                f"{directory} is not a run: it has no run.json and spec.yaml", "`mltool train SPEC` makes one"
            )
        version = run.manifest.get("schema_version")
        if version != SCHEMA_VERSION:
            raise ArtifactError(f"{run.manifest_file} has schema version {version}, this mltool reads {SCHEMA_VERSION}")
        return run

    @property
    def spec(self) -> "Spec":
        """The resolved spec."""
        return load_spec(self.spec_file, needs_files=False)

    @property
    def manifest(self) -> dict[str, Any]:
        """What run.json holds now.

        Raises:
            ArtifactError: if it is damaged.
        """
        try:
            document = json.loads(self.manifest_file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise ArtifactError(f"{self.manifest_file} is damaged: {error}") from error
        if not isinstance(document, dict):
            raise ArtifactError(f"{self.manifest_file} is damaged: it is not a map")
        return document

    def update(self, **entries: Any) -> None:
        """Merges entries into run.json; maps are merged one level deep, None removes a key of such a map."""
        before = self.manifest
        write_json(
            self.manifest_file, before | {key: _merged(before.get(key), value) for key, value in entries.items()}
        )

    @property
    def status(self) -> str:
        """`created`, `training`, `interrupted`, `failed` or `trained`."""
        return str(self.manifest.get("status", "created"))

    @property
    def input_schema(self) -> InputSchema:
        """What the model takes and answers.

        Raises:
            ArtifactError: if the run was not trained.
        """
        return InputSchema.from_json(self.manifest.get("input") or {})

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the run for writing; the lock goes with the process, also when it is killed.

        Raises:
            MachineError: if another process holds it.
        """
        # The library of the field for this; imported here because it costs 40 ms and only verbs that write need it.
        import filelock

        lock = filelock.FileLock(self.lock_file, timeout=0)
        try:
            lock.acquire()
        except filelock.Timeout as error:
            raise MachineError(
                f"the run {self.id} is being written by another process", "wait for it, or end it"
            ) from error
        except OSError as error:
            raise MachineError(f"cannot lock {self.directory}: {error.strerror}") from error
        try:
            yield
        finally:
            lock.release()

    def record_artifact(self, path: Path) -> str:
        """Writes the hash of an artifact into run.json and returns it."""
        digest = sha256_of(path)
        self.update(artifacts={self._name_of(path): digest})
        return digest

    def forget_artifact(self, path: Path) -> None:
        """Takes an artifact out of run.json."""
        self.update(artifacts={self._name_of(path): None})

    def _name_of(self, path: Path) -> str:
        """How run.json calls a file of the run, whatever way the path goes there.

        Raises:
            ArtifactError: if it lies elsewhere.
        """
        # Not `resolve`: a run may be reached through a link, and so may its files.
        absolute = Path(os.path.abspath(path))  # noqa: PTH100  `Path.absolute` keeps the dots
        if not absolute.is_relative_to(self.directory):
            raise ArtifactError(f"{path} does not lie in the run {self.directory}")
        return absolute.relative_to(self.directory).as_posix()

    def artifact_hash(self, path: Path) -> str:
        """The hash that was recorded when the artifact was made.

        Raises:
            ArtifactError: if there is none.
        """
        name = self._name_of(path)
        digest = self.manifest.get("artifacts", {}).get(name)
        if digest is None:
            raise ArtifactError(f"the run {self.id} has no {name}")
        return str(digest)

    def require_unchanged(self, path: Path) -> Path:
        """Holds an artifact against the hash in run.json.

        Raises:
            ArtifactError: if it is missing, or not what was written.
        """
        if not path.exists():
            verb = "export --format onnx" if path.suffix == ".onnx" else "convert"
            verb = {self.keras_file: "train", self.saved_model_folder: "export"}.get(path, verb)
            raise ArtifactError(f"{path} is missing", f"make it again: mltool {verb}")
        expected, found = self.artifact_hash(path), sha256_of(path)
        if found != expected:
            message = f"{path} was changed since it was made: sha256 {found[:12]}..., recorded {expected[:12]}..."
            raise ArtifactError(message, "make it again, or restore it")
        return path

    def record_stage(self, name: str, inputs: Any, seconds: float) -> None:
        """Writes what went into a stage (as a hash) and how long it took."""
        self.update(stages={name: {"inputs": hash_of(inputs), "seconds": round(seconds, 3), "finished": _now()}})

    def stage_is_fresh(self, name: str, inputs: Any) -> bool:
        """Whether a stage ran on equal inputs."""
        return bool(self.manifest.get("stages", {}).get(name, {}).get("inputs") == hash_of(inputs))

    def save_splits(self, arrays: "Mapping[str, np.ndarray]") -> None:
        """Writes splits.npz: of every split the positions in the source, and what its samples and targets are."""
        with writing(self.splits_file) as temporary, temporary.open("wb") as opened:
            write_npz(opened, arrays, small=True)

    def load_splits(self) -> "dict[str, np.ndarray]":
        """Reads splits.npz: `train_ids`, `train_hashes` and so on.

        Raises:
            DataError: if it is missing or damaged.
        """
        try:
            return read_npz(self.splits_file)
        except UNREADABLE_NPZ as error:
            raise DataError(f"{self.splits_file} is missing or damaged: {error}", "train again") from error

    def clear_partial_files(self) -> None:
        """Removes temporary names that a killed process left; call with the lock held."""
        for left in (*self.directory.rglob(".*.part*"), *self.directory.rglob(".*.old")):
            shutil.rmtree(left) if left.is_dir() else left.unlink()


def _merged(before: Any, value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    both = {**before, **value} if isinstance(before, dict) else dict(value)
    return {key: item for key, item in both.items() if item is not None}


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")

"""The folder `lite/`: `.tflite` files, what is known of each, and all that a device needs beside them."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mltool.errors import ArtifactError
from mltool.runs.arrays import UNREADABLE_NPZ, read_npz, write_npz
from mltool.runs.atomic import sha256_of, write_json, write_text, writing
from mltool.runs.input_schema import InputSchema, load_input_schema

if TYPE_CHECKING:
    import numpy as np

    Arrays = Mapping[str, np.ndarray[Any, Any]]


@dataclass(frozen=True)
class LiteRecord:
    """What is known of a `.tflite` file; `lite/<name>.json`.

    Attributes:
        name: of the file, without its ending.
        quantize: the scheme that was asked for, and that the file was found to be.
        io: type of its inputs and outputs.
        batch: samples of one call, or `dynamic`.
        sha256: of the file.
        bytes: its size.
        source: the SavedModel that it came from, and its hash.
        read_back: what the file holds (operators, weights, float islands).
        calibration: ids and hashes of the samples that calibrated it; empty for schemes without.
        accuracy_unknown: whether random numbers calibrated it; then nothing was measured, and no limit is held.
        limits: that it was held against.
        tolerance: of the scheme.
        metric: name of the metric, its value for this file, and the Keras model's.
        agreement: with the Keras model.
        latency_ms: percentiles on the host that is named in it.
        entry: of the spec that makes it again; of one that was searched for, the winner.
        recipe: that LiteRT's quantizer followed; empty where TensorFlow's converter made the file.
        training: what came of training on with quantization in it; empty for schemes without.
        runtime: that it was verified with; on the same runtime a replay is bit-equal.
        outside: preprocessing steps that are not in the file: they take text, which LiteRT does not; see `input.json`.
        checks: every limit, kept or broken.
        verified: whether it was run against the model that it came from, and kept every limit.
        error: why it was rejected.
    """

    name: str
    quantize: str
    io: str
    batch: int | str
    sha256: str
    bytes: int
    source: dict[str, Any]
    read_back: dict[str, Any] = field(default_factory=dict)
    calibration: dict[str, Any] = field(default_factory=dict)
    accuracy_unknown: bool = False
    limits: dict[str, Any] = field(default_factory=dict)
    tolerance: dict[str, Any] = field(default_factory=dict)
    metric: dict[str, Any] = field(default_factory=dict)
    agreement: dict[str, Any] = field(default_factory=dict)
    latency_ms: dict[str, Any] = field(default_factory=dict)
    runtime: str = ""
    entry: dict[str, Any] = field(default_factory=dict)
    recipe: list[dict[str, Any]] = field(default_factory=list)
    training: dict[str, Any] = field(default_factory=dict)
    outside: list[str] = field(default_factory=list)
    checks: list[dict[str, Any]] = field(default_factory=list)
    verified: bool = False
    error: str | None = None

    def to_json(self) -> dict[str, Any]:
        """The record as it is written."""
        return {"schema_version": 1, **asdict(self)}


class LiteFolder:
    """The folder `lite/` of a run, or a copy of it on a device.

    Args:
        folder: that holds the files.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rejected_folder = folder / "rejected"
        self.labels_file = folder / "labels.txt"
        self.input_file = folder / "input.json"
        self.vectors_file = folder / "vectors.npz"

    def names(self) -> list[str]:
        """The files that are there, in order of name; what was rejected is not among them."""
        return sorted(file.stem for file in self.folder.glob("*.tflite"))

    def file(self, name: str) -> Path:
        """The `.tflite` file called `name`."""
        return self.folder / f"{name}.tflite"

    def record_file(self, name: str) -> Path:
        """The JSON beside it."""
        return self.folder / f"{name}.json"

    def explain_file(self, name: str) -> Path:
        """Which layers of a file lose the answers."""
        return self.folder / f"{name}.explain.json"

    def search_file(self, name: str) -> Path:
        """What was tried before a file was chosen."""
        return self.folder / f"{name}.search.json"

    def searches(self) -> list[Path]:
        """What was tried before files of this folder were chosen, also where nothing was."""
        return sorted(self.folder.glob("*.search.json"))

    def recipe_file(self, name: str) -> Path:
        """What LiteRT's quantizer did, as it reads it again."""
        return self.folder / f"{name}.recipe.json"

    def keras_file(self, name: str) -> Path:
        """The model that was trained on for a file, with quantization in it."""
        return self.folder / f"{name}.keras"

    def companions(self, name: str) -> tuple[Path, ...]:
        """All that may lie beside a file and belongs to it alone."""
        return (
            self.record_file(name),
            self.explain_file(name),
            self.search_file(name),
            self.recipe_file(name),
            self.keras_file(name),
        )

    def load_record(self, name: str) -> LiteRecord:
        """What is known of a file.

        Raises:
            ArtifactError: if its JSON is missing or damaged.
        """
        file = self.record_file(name)
        try:
            document = json.loads(file.read_text(encoding="utf-8"))
            record = LiteRecord(
                **{field.name: document[field.name] for field in fields(LiteRecord) if field.name in document}
            )
            _require_types(record)
            return record
        except (OSError, ValueError, TypeError) as error:
            raise ArtifactError(
                f"{file} is missing or damaged: {error}", "convert again, or copy the whole lite/ folder"
            ) from error

    def save_record(self, record: LiteRecord) -> None:
        """Writes the JSON beside a file."""
        write_json(self.record_file(record.name), record.to_json())

    def require_unchanged(self, name: str) -> LiteRecord:
        """The record of a file whose hash is still the one in it.

        Raises:
            ArtifactError: if the file is missing, or changed since it was verified.
        """
        file, record = self.file(name), self.load_record(name)
        if not file.is_file():
            raise ArtifactError(f"{file} is missing", "convert the run again")
        found = sha256_of(file)
        if found != record.sha256:
            message = f"{file} was changed since it was made: sha256 {found[:12]}..., recorded {record.sha256[:12]}..."
            raise ArtifactError(message, "convert it again, or restore it")
        return record

    def place(self, made: Path, name: str) -> None:
        """Gives a file its name, without a record.

        The old record is taken away first, and the new one is written last, by `save_record`: whatever a killed process
        leaves, a file without its record is not taken for one that was verified.
        """
        for file in self.companions(name):
            file.unlink(missing_ok=True)
        made.replace(self.file(name))

    def reject(self, made: Path, record: LiteRecord) -> Path:
        """Moves a file that broke the contract or a limit to `rejected/`, with its verdict; returns where it lies."""
        self.rejected_folder.mkdir(parents=True, exist_ok=True)
        rejected = LiteFolder(self.rejected_folder)
        rejected.place(made, record.name)
        rejected.save_record(record)
        return rejected.file(record.name)

    def forget_rejected(self, name: str) -> None:
        """Removes an older rejection of a file that is good now."""
        rejected = LiteFolder(self.rejected_folder)
        for file in (rejected.file(name), *rejected.companions(name)):
            file.unlink(missing_ok=True)
        if self.rejected_folder.is_dir() and not any(self.rejected_folder.iterdir()):
            shutil.rmtree(self.rejected_folder)

    def remove(self, name: str) -> None:
        """Removes a file and its record."""
        for file in (self.file(name), *self.companions(name)):
            file.unlink(missing_ok=True)

    def write_schema(self, schema: InputSchema) -> None:
        """Writes `input.json` and `labels.txt`, a label a line; of several outputs `labels-NAME.txt`."""
        write_json(self.input_file, schema.to_json())
        for output in schema.outputs:
            if len(schema.outputs) > 1 and not output.labels:
                continue
            file = self.labels_file if len(schema.outputs) == 1 else self.folder / f"labels-{output.name}.txt"
            write_text(file, "".join(f"{label}\n" for label in output.labels))

    def load_schema(self) -> InputSchema:
        """What the files take and answer.

        Raises:
            ArtifactError: if `input.json` is missing or damaged.
        """
        return load_input_schema(self.input_file)

    def save_vectors(self, arrays: "Arrays") -> None:
        """Writes `vectors.npz`: samples, the Keras model's outputs and each artifact's."""
        with writing(self.vectors_file) as temporary, temporary.open("wb") as opened:
            write_npz(opened, arrays, small=True)

    def load_vectors(self) -> "dict[str, np.ndarray[Any, Any]]":
        """Reads `vectors.npz`.

        Raises:
            ArtifactError: if it is missing or damaged.
        """
        try:
            return read_npz(self.vectors_file)
        except UNREADABLE_NPZ as error:
            raise ArtifactError(f"{self.vectors_file} is missing or damaged: {error}", "convert again") from error


def trained_key(name: str) -> str:
    """Key in `vectors.npz` of the outputs of the model that was trained on for an artifact."""
    return f"trained:{name}"


_KINDS: Mapping[str, type] = {kind.__name__: kind for kind in (str, bool, int, list, dict)}


def _require_types(record: LiteRecord) -> None:
    """Every field is of its type, one level deep: a record edited by hand must not end in a traceback."""
    for item in fields(LiteRecord):
        wanted = _KINDS.get(getattr(item.type, "__name__", "").partition("[")[0])
        if wanted is not None and not isinstance(getattr(record, item.name), wanted):
            raise TypeError(f"{item.name} is {getattr(record, item.name)!r}")


def input_key(name: str) -> str:
    """Key of an input's samples in `vectors.npz`."""
    return f"input:{name}"


REFERENCE_KEY = "keras"
"""Key of the Keras model's outputs in `vectors.npz`."""


def artifact_key(name: str) -> str:
    """Key of an artifact's outputs in `vectors.npz`."""
    return f"artifact:{name}"

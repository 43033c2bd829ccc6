"""The folder `onnx/`: an `.onnx` file, what is known of it, and what it takes and answers."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mltool.errors import ArtifactError
from mltool.runs.atomic import sha256_of, write_json
from mltool.runs.input_schema import InputSchema


@dataclass(frozen=True)
class OnnxRecord:
    """What is known of an `.onnx` file; `onnx/<name>.json`.

    Attributes:
        name: of the file, without its ending.
        sha256: of the file.
        bytes: its size.
        opset: version of ONNX's operators that it is written in.
        ir_version: of the file's form.
        source: the SavedModel that it came from, and its hash.
        operators: how many of each.
        agreement: with the Keras model, in ONNX Runtime.
        runtime: that it was verified with.
        versions: of the packages that made it.
    """

    name: str
    sha256: str
    bytes: int
    opset: int
    ir_version: int
    source: dict[str, Any]
    operators: dict[str, int]
    agreement: dict[str, Any]
    runtime: str
    versions: dict[str, str | None]

    def to_json(self) -> dict[str, Any]:
        """The record as it is written."""
        return {"schema_version": 1, **asdict(self)}


class OnnxFolder:
    """The folder `onnx/` of a run, or a copy of it.

    Args:
        folder: that holds the files.
        name: of the model.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder
        self.file = folder / f"{name}.onnx"
        self.record_file = folder / f"{name}.json"
        self.input_file = folder / "input.json"

    def save(self, record: OnnxRecord, schema: InputSchema) -> None:
        """Writes what is known of the file, and `input.json`: with it a copy of the folder is understood elsewhere."""
        write_json(self.input_file, schema.to_json())
        write_json(self.record_file, record.to_json())


def require_recorded(file: Path) -> None:
    """Holds a copy of an `.onnx` file against the record beside it; one without a record is taken as it is.

    Raises:
        ArtifactError: if it was changed, or the record is damaged.
    """
    record = file.with_suffix(".json")
    if not record.is_file():
        return
    try:
        recorded = str(json.loads(record.read_text(encoding="utf-8"))["sha256"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{record} is damaged: {error!r}", "copy the whole onnx/ folder, or remove it") from error
    found = sha256_of(file)
    if found != recorded:
        message = f"{file} was changed since it was made: sha256 {found[:12]}..., recorded {recorded[:12]}..."
        raise ArtifactError(message, "export it again, or restore it")

"""From a path to a predictor: the table of runtimes."""

from pathlib import Path
from typing import Literal

from mltool.child import Child
from mltool.errors import ArtifactError
from mltool.inference.predictor import Predictor

Kind = Literal["keras", "saved_model", "litert", "onnx"]


def kind_of(path: Path) -> Kind:
    """What an artifact is, told by its ending or by what the folder holds.

    Raises:
        ArtifactError: if it is missing, or no model that mltool runs.
    """
    if not path.exists():
        raise ArtifactError(f"{path} is missing")
    if path.is_dir():
        if (path / "saved_model.pb").is_file():
            return "saved_model"
    elif path.suffix == ".keras":
        return "keras"
    elif path.suffix == ".tflite":
        return "litert"
    elif path.suffix == ".onnx":
        return "onnx"
    raise ArtifactError(
        f"{path} is not a model that this version runs", "a .keras, .tflite or .onnx file, a SavedModel folder"
    )


def open_predictor(path: Path | str, *, child: Child | None = None, threads: int = 1) -> Predictor:
    """Opens an artifact.

    Args:
        path: a `.keras`, `.tflite` or `.onnx` file, a SavedModel folder; as text, the address of an endpoint.
        child: a warm process for runtimes that need one.
        threads: for runtimes that take a number.

    Raises:
        ArtifactError: if it is missing or damaged.
        MissingExtraError: if its runtime is not installed.
        MachineError: if an endpoint cannot be reached.
    """
    if isinstance(path, str):
        from mltool.inference.serving_client import ServingPredictor

        return ServingPredictor(path)
    match kind_of(path):
        case "keras":
            from mltool.inference.keras_predictor import KerasPredictor, load_keras_model

            return KerasPredictor(load_keras_model(path))
        case "saved_model":
            from mltool.inference.saved_model import SavedModelPredictor

            return SavedModelPredictor(path)
        case "litert":
            from mltool.inference.outside import open_lite

            return open_lite(path, child=child, threads=threads)
        case "onnx":
            from mltool.inference.onnx_predictor import OnnxPredictor

            return OnnxPredictor(path, child=child, threads=threads)

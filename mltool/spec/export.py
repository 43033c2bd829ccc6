"""The `export` and `serve` sections."""

from typing import Annotated, Any, Literal

from pydantic import Strict

from mltool.spec.section import Later, Section

_SIGNATURES = ["serving_default"]


class ExportSpec(Section):
    """What the model is exported to."""

    formats: Annotated[tuple[Literal["saved_model", "onnx"], ...], Strict(False)] = ("saved_model",)
    """What `mltool run` makes besides .tflite files: `onnx`, and a SavedModel always, as all else is made of it."""
    signatures: Annotated[Any, Later(_SIGNATURES)] = _SIGNATURES
    """Names of the SavedModel's signatures."""
    warmup: Annotated[Any, Later(32)] = 32
    """Requests that warm a server up; written once serving is there."""


class ServeSpec(Section):
    """How the model is served; no keys in this version."""

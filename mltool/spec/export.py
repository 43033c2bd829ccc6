"""The `export` and `serve` sections."""

from typing import Annotated, Any

from mltool.spec.section import Later, Section

_SIGNATURES = ["serving_default"]


class ExportSpec(Section):
    """What the SavedModel holds."""

    signatures: Annotated[Any, Later(_SIGNATURES)] = _SIGNATURES
    """Names of its signatures."""
    warmup: Annotated[Any, Later(32)] = 32
    """Requests that warm a server up; written once serving is there."""


class ServeSpec(Section):
    """How the model is served; no keys in this version."""

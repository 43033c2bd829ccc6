"""The `search` section of a convert entry: how `quantize: auto` looks for a file."""

from typing import Annotated, Literal

from pydantic import Field

from mltool.spec.section import Section


class SearchSpec(Section):
    """How the search chooses among the files that keep the limits."""

    minimize: Literal["size", "latency"] = "size"
    """What the winner has least of: bytes of the file, or the time of a call on this host."""
    max_candidates: Annotated[int, Field(ge=1)] = 32
    """Files that are tried at most."""
    samples: Annotated[int, Field(ge=32)] = 1024
    """Validation samples that score a candidate, at most; the winner is measured on the whole test split."""
    aware: bool = True
    """Whether the model may be trained on with quantization in it, where nothing else keeps the limits."""

"""The `qat` section of a convert entry: training that knows what the conversion will do to the model."""

import math
from typing import Annotated, Any, Literal

from pydantic import Field, Strict, model_validator

from mltool.spec.argument_check import shown
from mltool.spec.section import Checked, Section, raise_problem

MOST_CLUSTERS = 256
"""An int8 weight has no more values."""

TWO_OF_FOUR = "2:4"
"""Two of four weights that follow each other are zero: what some hardware runs faster."""

_MOST_SPARSITY = 0.99


def _check_prune(value: Any) -> Any:
    is_share = isinstance(value, float) and math.isfinite(value) and 0 < value <= _MOST_SPARSITY
    if value is None or value == TWO_OF_FOUR or is_share:
        return value
    message = f"must be a share of the weights above 0, at most {_MOST_SPARSITY}, or '2:4' (got {shown(value)})"
    return raise_problem(message, "write prune: 0.5, or prune: '2:4' in quotes")


def _prune_schema() -> dict[str, Any]:
    share = {"type": "number", "exclusiveMinimum": 0, "maximum": _MOST_SPARSITY}
    return {"anyOf": [share, {"const": TWO_OF_FOUR}, {"type": "null"}]}


class AwareSpec(Section):
    """Training for one file, from the run's model on: pruned, clustered, with fake quantization, in this order."""

    epochs: Annotated[int, Field(ge=1)] = 3
    """Of each of the stages: prune, cluster, quantize."""
    learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1e-4
    """Of Adam, which trains every stage; a tenth of what the model was trained with, or less."""
    granularity: Literal["channel", "tensor"] = "channel"
    """Scales of the weights: one a channel, or one a tensor, for hardware that has no more;
    BatchNormalization is folded first then."""
    prune: Annotated[float | Literal["2:4"] | None, Checked(_check_prune, _prune_schema)] = None
    """Share of the weights of every layer that become zero, or '2:4': two of four that follow each other."""
    cluster: Annotated[int, Field(ge=2, le=MOST_CLUSTERS)] | None = None
    """Number of values that the weights of a layer may have; the file compresses to a fraction."""
    keep_float: Annotated[tuple[str, ...], Strict(False)] = ()
    """Names of layers, or of blocks, that train without fake quantization."""
    seed: Annotated[int, Field(ge=0)] | None = None
    """Of order, augmentation and dropout; the spec's when left out."""

    @model_validator(mode="after")
    def _zeros_and_others(self) -> "AwareSpec":
        """One of the values is zero where weights are pruned."""
        least = 3
        if self.prune is not None and self.cluster is not None and self.cluster < least:
            message = f"must be {least} or more beside prune: one of the values is zero (got {self.cluster})"
            raise_problem(message, f"write cluster: {least} or more", path=("cluster",))
        return self

"""What is known of the error of a quantized file, layer by layer; the document `lite/<name>.explain.json`."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from mltool.errors import ArtifactError

Cause = Literal["channels", "saturation", "range", "weights", "resolution", "inherited", "none", "unknown"]
"""Why a layer is far from the float model, as `advice.py` tells it."""


@dataclass(frozen=True, slots=True)
class LayerError:
    """How far one layer of a quantized file is from the same layer of the float file, on the same samples.

    Attributes:
        layer: its name; names joined with ` + ` where the converter fused layers into one operator.
        layers: the Keras layers.
        reads: names of the layers (as `layer`) that it takes its values from.
        op: the operator that gives its output.
        dtype: of that output in the quantized file.
        scale: of that output, real value per step; None where it is float.
        snr_db: signal to noise ratio of the output in dB, -100 to 200 (200: no difference); None where no operator of
            the quantized file could be matched, and then all that follows is empty.
        varying_snr_db: likewise of what varies from sample to sample: the mean of every channel is no signal.
        input_snr_db: `varying_snr_db` of what it reads, the worst of several; 200 of the model's inputs.
        own_noise: estimated noise that it adds, as a share of what varies in its output (noise over signal power).
        rounding_noise: noise that rounding to the scale makes at the least, as a share of what varies, in the worst of
            its tensors; None where none has a scale.
        mean_error: mean absolute error, as a share of the range of the float output.
        max_error: largest absolute error, likewise.
        range_use: share, in [0, 1], of the codes between the least and the greatest that occur; None where it is float.
        range_needed: range of the float values as a share of what the scale can hold.
        saturation: share of values that lie outside of what the scale can hold, and were cut off there.
        channels: of the tensor in which most are lost, its last axis.
        dead_channels: how many of them vary by fewer than 4 steps of the scale that all share.
        channel_ranges: least and greatest range (maximum minus minimum) of a channel of that tensor.
        channels_op: the operator that made that tensor; `INPUT` where it is an input of the model.
        channels_scale: its scale.
        weight_dtype: of the weights; None without.
        weight_snr_db: signal to noise ratio of the weights in dB.
        weight_per_channel: whether they have a scale per channel.
        weight_ratio: greatest over least range of an output channel of the float weights.
    """

    layer: str
    layers: tuple[str, ...]
    reads: tuple[str, ...]
    op: str
    dtype: str = ""
    scale: float | None = None
    snr_db: float | None = None
    varying_snr_db: float | None = None
    input_snr_db: float | None = None
    own_noise: float = 0.0
    rounding_noise: float | None = None
    mean_error: float = 0.0
    max_error: float = 0.0
    range_use: float | None = None
    range_needed: float | None = None
    saturation: float = 0.0
    channels: int = 0
    dead_channels: int = 0
    channel_ranges: tuple[float, float] | None = None
    channels_op: str = ""
    channels_scale: float | None = None
    weight_dtype: str | None = None
    weight_snr_db: float | None = None
    weight_per_channel: bool = False
    weight_ratio: float | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong, and what to try.

    Attributes:
        layer: name of the layer, as `LayerError.layer`.
        cause: in a word.
        message: what is wrong, with its numbers.
        advice: what to try.
        keep_float: layers to name under `keep_float`, where that is the advice.
    """

    layer: str
    cause: Cause
    message: str
    advice: str
    keep_float: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Explanation:
    """The error of a quantized file.

    Attributes:
        name: of the file, without its ending.
        samples: that both files were run on.
        verdict: one sentence for all of it.
        layers: in the order in which they run.
        causes: why a layer is far off, by its name; `none` where it is not.
        findings: the worst first; empty when nothing is wrong.
        sha256: of the quantized file; what is said of it is not said of a later one of its name.
    """

    name: str
    samples: int
    verdict: str
    layers: tuple[LayerError, ...]
    causes: Mapping[str, Cause]
    findings: tuple[Finding, ...]
    sha256: str = ""

    def to_json(self) -> dict[str, Any]:
        """As it is written beside the file."""
        return {"schema_version": 1, **asdict(self)}

    @classmethod
    def from_json(cls, document: Any, where: str) -> "Explanation":
        """The record of a document that `to_json` gave.

        Args:
            document: as JSON was read.
            where: the file, for the message.

        Raises:
            ArtifactError: if it is no such document.
        """
        try:
            return cls(
                name=str(document["name"]),
                samples=int(document["samples"]),
                verdict=str(document["verdict"]),
                layers=tuple(LayerError(**_tupled(LayerError, entry)) for entry in document["layers"]),
                causes={str(name): cause for name, cause in document["causes"].items()},
                findings=tuple(Finding(**_tupled(Finding, entry)) for entry in document["findings"]),
                sha256=str(document["sha256"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ArtifactError(f"{where} is damaged: {error}", "convert again with --explain") from error


def _tupled(kind: type[LayerError] | type[Finding], entry: Mapping[str, Any]) -> dict[str, Any]:
    """The known keys of an entry, its lists as the tuples that they were."""
    known = {field.name for field in fields(kind)}
    return {key: tuple(value) if isinstance(value, list) else value for key, value in entry.items() if key in known}

"""What quantizing one layer alone does to the answers: where a search begins; runs inside the child process."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mltool.conversion.explain.running import OpenFile, batches_of
from mltool.errors import ConversionError

Array = NDArray[Any]

MOST_SAMPLES = 128
"""Samples that a candidate is run on at most."""


class QuantizesOne(Protocol):
    """Makes the file in which one layer alone is quantized; calibrated once, before the first call."""

    def __call__(self, layer: str, output: Path) -> None:
        """Writes the file.

        Args:
            layer: the one that is quantized.
            output: path of the file.

        Raises:
            ConversionError: nothing of this layer can be quantized.
        """


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """The answers with one layer quantized, against those of the float file.

    Attributes:
        layer: its name.
        mean_error: mean absolute difference as a share of the range of the float answers, the worst of all outputs;
            None where the layer cannot be quantized alone.
        max_error: largest absolute difference, likewise.
        same_answer: share of samples whose largest output is at the same place, the least of all outputs; None where no
            output has two values or more.
        reason: why it could not be quantized.
    """

    layer: str
    mean_error: float | None = None
    max_error: float | None = None
    same_answer: float | None = None
    reason: str = ""


def sensitivity(
    make: QuantizesOne,
    *,
    float_file: Path,
    samples: Mapping[str, Array],
    layers: Sequence[str],
    most: int = MOST_SAMPLES,
) -> list[Sensitivity]:
    """The effect of every layer on the answers, the greatest mean error first; what cannot be quantized comes last.

    Args:
        make: writes a candidate.
        float_file: that the candidates are made of.
        samples: `[n, ...]` by name of the input; the first `most` are run.
        layers: the candidates.
        most: samples that are run at most.

    Raises:
        ArtifactError: a file cannot be run.
    """
    wanted = answers(float_file, samples, most)
    found = []
    with tempfile.TemporaryDirectory() as folder:
        candidate = Path(folder) / "one.tflite"
        for layer in layers:
            try:
                make(layer, candidate)
            except ConversionError as error:
                found.append(Sensitivity(layer, reason=error.messages[0].message))
                continue
            found.append(Sensitivity(layer, *compared(wanted, answers(candidate, samples, most))))
    return sorted(found, key=lambda one: -1.0 if one.mean_error is None else one.mean_error, reverse=True)


def answers(path: Path, samples: Mapping[str, Array], most: int = MOST_SAMPLES) -> dict[str, Array]:
    """The outputs of a file, `[n, ...]` by name; float32."""
    file = OpenFile(str(path), [], keep=False)
    parts: dict[str, list[Array]] = {name: [] for name in file.outputs}
    for batch in batches_of(samples, file.batch, most):
        file.run(batch)
        for name, tensor in file.outputs.items():
            parts[name].append(file.values(tensor))
    count = min(len(next(iter(samples.values()))), most)
    return {name: np.concatenate(part)[:count] for name, part in parts.items()}


def compared(wanted: Mapping[str, Array], got: Mapping[str, Array]) -> tuple[float, float, float | None]:
    """Mean and largest error as shares of the range, and the share of same answers; the worst of all outputs.

    Args:
        wanted: `[n, ..., values]` by name of the output.
        got: likewise.
    """
    means, largest, same = [0.0], [0.0], []
    for name, ours in wanted.items():
        theirs = got[name]
        errors = np.abs(theirs.astype(np.float64) - ours)
        span = float(ours.max() - ours.min()) or float(np.abs(ours).max()) or 1.0
        means.append(float(errors.mean()) / span)
        largest.append(float(errors.max()) / span)
        if ours.ndim > 1 and ours.shape[-1] > 1:
            same.append(float((ours.argmax(axis=-1) == theirs.argmax(axis=-1)).mean()))
    return max(means), max(largest), min(same, default=None)

"""Why a quantized file answers as it does: runs it in a child beside the float file, and says what is wrong."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from mltool.child import Child, ChildCrashed, ChildTimedOut
from mltool.conversion.explain.advice import explanation
from mltool.conversion.explain.records import Explanation, LayerError
from mltool.errors import ArtifactError
from mltool.runs.arrays import write_npz
from mltool.runs.atomic import sha256_of

LAYER_ERRORS = "mltool.conversion.explain.layer_errors:layer_errors"
"""What the child is asked to call."""

SAMPLES = 64
"""Samples that both files are run on."""

TIMEOUT_SECONDS = 900.0
"""A measurement that takes longer is taken for hung."""


def explain(
    name: str,
    *,
    float_file: Path,
    quantized_file: Path,
    samples: Mapping[str, NDArray[Any]],
    layer_names: Sequence[str],
    child: Child,
) -> Explanation:
    """Measures every layer of a quantized file and says what is wrong with it.

    Args:
        name: of the quantized file, without its ending.
        float_file: of `quantize: none`, with the batch of the other.
        quantized_file: of any scheme.
        samples: `[n, ...]` by name of the input, as the files take them; the first `SAMPLES` are run.
        layer_names: the Keras layers in the order of the model.
        child: a warm process; the interpreter runs in it.

    Raises:
        ArtifactError: a file is damaged, crashes the interpreter, or is not of the same model.
    """
    count = min(SAMPLES, *(len(array) for array in samples.values()))
    with tempfile.TemporaryDirectory() as folder:
        stored = Path(folder) / "samples.npz"
        write_npz(stored, {key: array[:count] for key, array in samples.items()})
        try:
            rows = child.call(
                LAYER_ERRORS,
                timeout_seconds=TIMEOUT_SECONDS,
                float_file=str(float_file),
                quantized_file=str(quantized_file),
                samples=str(stored),
                layer_names=list(layer_names),
                most=count,
            )
        except (ChildCrashed, ChildTimedOut) as error:
            raise ArtifactError(f"{name}: the interpreter {error.status} while the layers were measured") from error
    return replace(explanation(name, count, [LayerError(**row) for row in rows]), sha256=sha256_of(quantized_file))

"""A predictor whose text is made into numbers outside of the file that it runs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mltool.child import Child
from mltool.inference.litert import LiteRtPredictor
from mltool.inference.predictor import Array, BasePredictor, Batch, Predictor, TensorInfo, concatenated, in_batches
from mltool.inference.text_steps import TextStep, load_vocabulary
from mltool.runs.lite import LiteFolder

BATCH_SIZE = 256
"""Samples whose text is made into numbers at once: a vocabulary of 4,000 makes 4 MB of a batch."""


class OutsidePredictor(BasePredictor):
    """Takes what the Keras model takes: text goes through its steps here, all else to the file as it is.

    Args:
        core: of the file.
        steps: that lie before it, one for an input.
    """

    def __init__(self, core: Predictor, steps: Sequence[TextStep]) -> None:
        self._core, self._steps = core, {step.input: step for step in steps}
        self.runtime, self.outputs, self.fixed_batch = core.runtime, core.outputs, core.fixed_batch
        self.inputs: Mapping[str, TensorInfo] = {
            name: TensorInfo(name, "string", self._shape(info)) if name in self._steps else info
            for name, info in core.inputs.items()
        }

    def predict(self, batch: Batch) -> dict[str, Array]:
        """See `Predictor`."""
        self._require_fitting(batch)
        return concatenated([self._core.predict(self.core_batch(part)) for part in in_batches(batch, BATCH_SIZE)])

    def latencies_ms(self, batch: Batch, *, warmup: int, runs: int) -> Array:
        """Times the file alone; see `Predictor`."""
        return self._core.latencies_ms(self.core_batch(batch), warmup=warmup, runs=runs)

    def core_batch(self, batch: Batch) -> dict[str, Any]:
        """What the file takes for what the model takes."""
        return {
            name: self._steps[name](batch[name][:]) if name in self._steps else batch[name]
            for name in self._core.inputs
        }

    def close(self) -> None:
        """Closes the file's predictor."""
        self._core.close()

    def _shape(self, info: TensorInfo) -> tuple[int | None, ...]:
        return self._steps[info.name].sample_shape


def steps_beside(path: Path) -> list[TextStep]:
    """The steps that the record of a `.tflite` file says lie outside of it; none for a file without a record.

    Raises:
        ArtifactError: if the record, `input.json` or a vocabulary is missing or damaged.
    """
    lite = LiteFolder(path.parent)
    if not lite.record_file(path.stem).is_file():
        return []
    outside = lite.load_record(path.stem).outside
    if not outside:
        return []
    steps = {step.name: step for step in lite.load_schema().preprocessing}
    return [TextStep(steps[name], load_vocabulary(lite.folder / str(steps[name].vocabulary))) for name in outside]


def open_lite(
    path: Path, *, child: Child | None = None, threads: int = 1, steps: Sequence[TextStep] | None = None
) -> Predictor:
    """A `.tflite` file as a predictor that takes what its model takes.

    Args:
        path: the file.
        child: a warm process to run it in.
        threads: of the interpreter.
        steps: outside of it; those of the record beside it when None.

    Raises:
        ArtifactError: if the file, or what must lie beside it, is missing or damaged.
    """
    found = steps_beside(path) if steps is None else steps
    core = LiteRtPredictor(path, child=child, threads=threads)
    return OutsidePredictor(core, found) if found else core

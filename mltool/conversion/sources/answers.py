"""A SavedModel of somebody else's as a predictor: run in the child that loaded it, for what it holds may crash.

Besides, TensorFlow is imported there already, and need not be in this process too (7 CPU-s, measured on 2 cores).
"""

import functools
import math
from pathlib import Path

from mltool.child import Child, ChildCrashed, ChildTimedOut
from mltool.conversion.sources.foreign import Foreign
from mltool.errors import ArtifactError
from mltool.inference.child_predictor import MESSAGE_BYTES, TIMEOUT_SECONDS, padded
from mltool.inference.predictor import BATCH_SIZE, Array, BasePredictor, Batch, concatenated, in_batches
from mltool.inference.saved_model import SavedModelPredictor

ANSWER = "mltool.conversion.sources.answers:answer"
"""What the child is asked to call."""


class ForeignPredictor(BasePredictor):
    """Runs the SavedModel of a model of somebody else's.

    Args:
        foreign: the model; not a float file.
        child: that runs it.
    """

    def __init__(self, foreign: Foreign, child: Child) -> None:
        self._foreign, self._child = foreign, child
        self.runtime = foreign.loaded_by
        self.inputs = {info.name: info for info in foreign.inputs}
        self.outputs = {info.name: info for info in foreign.outputs}
        self.fixed_batch = foreign.batch

    def predict(self, batch: Batch) -> dict[str, Array]:
        """See `Predictor`.

        Raises:
            ArtifactError: if the model crashes, or does not answer.
        """
        sample = sum(4 * math.prod(array.shape[1:]) for array in batch.values())
        size = max(1, min(BATCH_SIZE, MESSAGE_BYTES // max(sample, 1)))
        return concatenated([self._answer(part) for part in self.parts(batch, size)])

    def _answer(self, part: dict[str, Array]) -> dict[str, Array]:
        name = self._foreign.name
        try:
            found: dict[str, Array] = self._child.call(
                ANSWER,
                timeout_seconds=TIMEOUT_SECONDS,
                folder=str(self._foreign.saved_model),
                signature=self._foreign.signature,
                size=self.fixed_batch,
                batch=part,
            )
        except ChildCrashed as error:
            raise ArtifactError(f"{name}: the process that ran it {error.status}", "it is damaged") from error
        except ChildTimedOut as error:
            message = f"{name}: a call took longer than {error.timeout_seconds:g} s"
            raise ArtifactError(message, "it is too large for this machine") from error
        return found


@functools.lru_cache(maxsize=1)
def _opened(folder: str, signature: str) -> SavedModelPredictor:
    return SavedModelPredictor(Path(folder), signature)


def answer(*, folder: str, signature: str, size: int | None, batch: dict[str, Array]) -> dict[str, Array]:
    """Runs a signature on samples; inside the child.

    Args:
        folder: of the SavedModel.
        signature: its key.
        size: samples of every call, where the model fixes them.
        batch: every input by name, [samples, ...].

    Returns:
        Every output by name, float32 [samples, ...].

    Raises:
        ArtifactError: if the model refuses the samples.
    """
    predictor = _opened(folder, signature)
    parts = []
    for part in in_batches(batch, size or len(next(iter(batch.values())))):
        count = len(next(iter(part.values())))
        whole = {name: padded(array, size or count) for name, array in part.items()}
        try:
            outputs = predictor.predict(whole)
        except Exception as error:  # TensorFlow has dozens of its own, and what is in the model is not ours
            reason = " ".join(str(error).split())[:300]
            raise ArtifactError(f"the model does not run on these samples: {reason}", "give others") from error
        parts.append({name: array[:count] for name, array in outputs.items()})
    return concatenated(parts)

"""A SavedModel as a predictor: its signature, called by bare TensorFlow."""

from pathlib import Path
from typing import Any

import numpy as np

from mltool import extras
from mltool.errors import ArtifactError
from mltool.inference.predictor import Array, BasePredictor, Batch, concatenated, tensor_info


class SavedModelPredictor(BasePredictor):
    """Runs one signature of a SavedModel in this process.

    Args:
        path: the folder with saved_model.pb.
        signature: its key.

    Raises:
        ArtifactError: if the folder is missing or damaged, or has no such signature.
    """

    def __init__(self, path: Path, signature: str = "serving_default") -> None:
        tf = extras.tensorflow()
        self.runtime = f"TensorFlow {tf.__version__}"
        try:
            self._loaded = tf.saved_model.load(str(path))
        # A damaged file gives OSError, tf.errors and protobuf's own errors.
        except Exception as error:
            reason = " ".join(str(error).split())[:200]
            raise ArtifactError(f"{path} is missing or damaged: {reason}", "export the run again") from error
        if signature not in self._loaded.signatures:
            known = ", ".join(sorted(self._loaded.signatures)) or "none"
            raise ArtifactError(f"{path} has no signature {signature!r}", f"it has {known}")
        self._signature = self._loaded.signatures[signature]
        specs, outputs = self._signature.structured_input_signature[1], self._signature.structured_outputs
        self._dtypes = {name: spec.dtype for name, spec in specs.items()}
        self.inputs = {name: tensor_info(str(path), name, s.dtype.name, _shape(s)) for name, s in specs.items()}
        self.outputs = {name: tensor_info(str(path), name, s.dtype.name, _shape(s)) for name, s in outputs.items()}

    def predict(self, batch: Batch) -> dict[str, Array]:
        """See `Predictor`."""
        tf = extras.tensorflow()
        parts = []
        for part in self.parts(batch):
            tensors = {
                name: tf.constant(array, tf.string) if array.dtype == object else tf.cast(array, self._dtypes[name])
                for name, array in part.items()
            }
            outputs = self._signature(**tensors)
            parts.append({name: np.asarray(value, dtype=np.float32) for name, value in outputs.items()})
        return concatenated(parts)


def _shape(spec: Any) -> list[int | None] | None:
    return None if spec.shape.rank is None else spec.shape.as_list()

"""A Keras file as a predictor."""

from pathlib import Path
from typing import Any

import numpy as np

from mltool import extras
from mltool.errors import ArtifactError
from mltool.inference.predictor import Array, BasePredictor, Batch, concatenated, tensor_info
from mltool.models.build import ORIGINAL_UNITS


def load_keras_model(path: Path) -> Any:
    """Loads a `.keras` file; code inside of it is refused.

    Raises:
        ArtifactError: if it is missing, damaged, or holds code.
    """
    keras = extras.keras()
    if not path.is_file():
        raise ArtifactError(f"{path} is missing", "train the run")
    try:
        return keras.models.load_model(path, compile=False, safe_mode=True)
    # Keras raises ValueError, TypeError, KeyError, zipfile's and h5py's errors for a file that is no model.
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise ArtifactError(f"{path} is damaged, or not a model that may be loaded: {reason}") from error


class KerasPredictor(BasePredictor):
    """Runs a keras.Model in this process.

    Args:
        model: functional, with one output.
        output: name of its output; that of the last layer when left out.

    Raises:
        ArtifactError: if it is of another kind: such a model came from elsewhere.
    """

    def __init__(self, model: Any, output: str | None = None) -> None:
        tf = extras.tensorflow()
        self.runtime = f"Keras {extras.keras().__version__}"
        tensors = getattr(model, "inputs", None) or []
        if not tensors or len(model.outputs) != 1 or isinstance(model.output, dict | list | tuple):
            raise ArtifactError(
                "this version runs functional Keras models with one output", "export it to a SavedModel"
            )
        self._structure = model.input
        self.inputs = {t.name: tensor_info("the Keras model", t.name, str(t.dtype), t.shape) for t in tensors}
        name = output or _output_name(model)
        self.outputs = {name: tensor_info("the Keras model", name, str(model.output.dtype), model.output.shape)}
        self._call = tf.function(lambda inputs: model(inputs, training=False), reduce_retracing=True)

    def predict(self, batch: Batch) -> dict[str, Array]:
        """See `Predictor`."""
        keras = extras.keras()
        name = next(iter(self.outputs))
        parts = []
        for part in self.parts(batch):
            # One tensor, a list or a map: whatever the model was built with.
            tensors = keras.tree.map_structure(lambda t, part=part: _tensor(part[t.name], t.dtype), self._structure)
            parts.append({name: np.asarray(self._call(tensors), dtype=np.float32)})
        return concatenated(parts)


def _output_name(model: Any) -> str:
    """The name of the layer that answers; what brings a regression to its units answers in that layer's name."""
    last = model.layers[-1]
    return str(last.input._keras_history.operation.name if last.name == ORIGINAL_UNITS else last.name)


def _tensor(array: Array, dtype: str) -> Any:
    tf = extras.tensorflow()
    return tf.constant(array, tf.string) if dtype == "string" else tf.cast(array, dtype)

"""A Keras file as a predictor."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mltool import extras
from mltool.data.sources.user_function import hash_of_code
from mltool.errors import ArtifactError, MltoolError
from mltool.inference.predictor import Array, BasePredictor, Batch, concatenated, tensor_info
from mltool.models.outputs import named_outputs
from mltool.models.own_layer import build_own_layer, layers_rebuilt_by, own_layer_called
from mltool.models.own_model import call_builder, rebuilt_by
from mltool.runs.find import run_of
from mltool.runs.run import Run
from mltool.spec.model import ModelSpec
from mltool.spec.own_things import OwnThing


def load_keras_model(path: Path) -> Any:
    """Loads a `.keras` file; code inside of it is refused.

    Where it holds a model or layers of `python:`, what the spec of its run names is called again.

    Raises:
        ArtifactError: if it is missing, damaged, or holds code; if the user's code was changed since training.
    """
    if not path.is_file():
        raise ArtifactError(f"{path} is missing", "train the run")

    def spec_of_run() -> ModelSpec:
        run = run_of(path)
        if run is None or not run.spec.model.code:
            message = f"{path} holds the weights of a model that a function of yours builds, and lies in no run of one"
            raise ArtifactError(message, "leave it in its run, or take the SavedModel, which needs no code")
        require_same_code(run, *run.spec.model.code)
        return run.spec.model

    try:
        return _load(path, spec_of_run)
    except MltoolError:
        raise
    # Keras raises ValueError, TypeError, KeyError, zipfile's and h5py's errors for a file that is no model.
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise ArtifactError(f"{path} is damaged, or not a model that may be loaded: {reason}") from error


def load_with_code(path: Path, spec: ModelSpec) -> Any:
    """Loads a `.keras` file of no run yet; what Keras and the user's code raise comes through.

    Args:
        path: of the file.
        spec: that says which function builds the model in it.
    """
    return _load(path, lambda: spec)


def _load(path: Path, spec_of_run: Callable[[], ModelSpec]) -> Any:
    """Loads a file; the spec is asked for only if there is code of the user's in it."""

    def rebuild() -> Any:
        spec = spec_of_run()
        if spec.python is None:
            raise ArtifactError(f"{path} holds an own model, and the spec of its run names none")
        return call_builder(spec.python, spec.arguments or {})

    def rebuild_layer(name: str) -> Any:
        layer = own_layer_called(name, spec_of_run())
        if layer is None or not isinstance(layer.layer, OwnThing):
            raise ArtifactError(f"{path} holds an own layer {name!r}, and the spec of its run names none")
        return build_own_layer(layer.layer, at=".".join(map(str, ("model", *layer.place))))

    found = rebuilt_by(rebuild) | layers_rebuilt_by(rebuild_layer)
    return extras.keras().models.load_model(path, custom_objects=found, compile=False, safe_mode=True)


def require_same_code(run: Run, *references: str) -> None:
    """Holds the files of the user's code against the hashes that training recorded, before it is run.

    Args:
        run: that recorded them.
        references: of classes and functions.

    Raises:
        ArtifactError: if one is another one.
    """
    recorded = run.manifest.get("model", {}).get("code", {})
    for reference in references:
        kept, found = recorded.get(reference), hash_of_code(reference)
        if kept not in (None, found):
            message = f"{reference} was changed since training began: sha256 {found[:12]}..., recorded {kept[:12]}..."
            raise ArtifactError(message, f"restore the file, or train anew: mltool train {run.spec_file}")


class KerasPredictor(BasePredictor):
    """Runs a keras.Model in this process.

    Args:
        model: functional.
        outputs: names of its outputs; those of their layers when left out.

    Raises:
        ArtifactError: if it is of another kind: such a model came from elsewhere.
    """

    def __init__(self, model: Any, outputs: Sequence[str] = ()) -> None:
        tf = extras.tensorflow()
        self.runtime = f"Keras {extras.keras().__version__}"
        tensors = getattr(model, "inputs", None) or []
        if not tensors:
            raise ArtifactError("this version runs functional Keras models", "export it to a SavedModel")
        self._structure = model.input
        self.inputs = {t.name: tensor_info("the Keras model", t.name, str(t.dtype), t.shape) for t in tensors}
        found = named_outputs(model)
        if len(found) == len(outputs) == 1:
            found = {outputs[0]: next(iter(found.values()))}
        self.outputs = {name: tensor_info("the Keras model", name, str(t.dtype), t.shape) for name, t in found.items()}
        self._call = tf.function(lambda inputs: model(inputs, training=False), reduce_retracing=True)

    def predict(self, batch: Batch) -> dict[str, Array]:
        """See `Predictor`."""
        keras = extras.keras()
        parts = []
        for part in self.parts(batch):
            # One tensor, a list or a map: whatever the model was built with.
            tensors = keras.tree.map_structure(lambda t, part=part: _tensor(part[t.name], t.dtype), self._structure)
            answers = self._call(tensors)
            named = (
                answers if isinstance(answers, dict) else zip(self.outputs, keras.tree.flatten(answers), strict=True)
            )
            parts.append({name: np.asarray(value, dtype=np.float32) for name, value in dict(named).items()})
        return concatenated(parts)


def _tensor(array: Array, dtype: str) -> Any:
    tf = extras.tensorflow()
    return tf.constant(array, tf.string) if dtype == "string" else tf.cast(array, dtype)

"""Models with code of the user's, tried out before they are trained."""

import itertools
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from mltool import extras
from mltool.data.dataset import Dataset
from mltool.errors import Message, SpecError
from mltool.inference.keras_predictor import load_with_code
from mltool.models.for_data import build_model_for
from mltool.models.keras_objects import reason_of
from mltool.models.own_model import KEY, Origin, holder_class, origin_of, require_trainable
from mltool.spec.spec import Spec


def try_out(model: Any, spec: Spec) -> None:
    """Proves that a model with code of the user's can be trained, saved and loaded before it is: later is too late."""
    origin = origin_of(spec.model)
    if origin is not None:
        require_trainable(model, origin)
        _require_it_can_be_kept(model, spec, origin)


def try_out_elsewhere(spec: Spec, data: Dataset) -> None:
    """Tries out a model of one replica, outside of the strategy's scope: variables of several are for steps alone.

    Raises:
        SpecError: for a tf.Module: in a function that it traced, replicas were seen to mix up their gradients.
    """
    model, _ = build_model_for(data, spec)
    if any(isinstance(layer, holder_class()) and layer.is_module for layer in model.layers):
        message = "a tf.Module on several devices is not in this version"
        raise SpecError(Message(message, "return a keras.Model, or set CUDA_VISIBLE_DEVICES=0", key=KEY))
    try_out(model, spec)
    extras.keras().utils.set_random_seed(spec.seed)


def _require_it_can_be_kept(model: Any, spec: Spec, origin: Origin) -> None:
    """Saves a model and loads it back.

    Raises:
        SpecError: if another model comes back, or none.
    """
    hint = "hold its layers in attributes, lists or maps of the model, and build the same model at every call"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.keras"
        try:
            model.save(file)
            again = load_with_code(file, spec.model)
        except SpecError:
            raise
        except Exception as error:  # Keras' and the user's own
            raise origin.refusal(f"cannot be saved and loaded: {reason_of(error)}", hint) from error
    for one, other in itertools.zip_longest(_saved_variables(model), _saved_variables(again)):
        if one is None or other is None or not np.array_equal(one.numpy(), other.numpy()):
            what = (one if one is not None else other).path
            raise origin.refusal(f"is another one when it is saved and loaded: {what} differs", hint)


def _saved_variables(model: Any) -> list[Any]:
    """Keras files leave the states of Keras' own random layers out; checkpoints have them."""
    return [variable for variable in model.variables if variable.name != "seed_generator_state"]

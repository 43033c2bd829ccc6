"""What a training for the conversion leaves: a SavedModel to convert, and a plain model of Keras 3."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mltool import extras
from mltool.conversion.aware.fold import unfold
from mltool.conversion.aware.rebuild import Rebuilt, short_name
from mltool.exporting.export import SIGNATURE


def write_saved_model(rebuilt: Rebuilt, model: Any, folder: Path) -> None:
    """Writes a signature with the run's names of inputs and outputs; float inputs, fake quantization inside.

    Args:
        rebuilt: whose inputs and outputs it has.
        model: of tf_keras, trained.
        folder: where.
    """
    tf = extras.tensorflow()
    pairs = zip(rebuilt.inputs, model.inputs, strict=True)
    specs = {name: tf.TensorSpec(tensor.shape, tensor.dtype, name=name) for name, tensor in pairs}

    def serve(**inputs: Any) -> dict[str, Any]:
        return rebuilt.call(inputs, training=False, model=model)

    function = tf.function(serve, autograph=False).get_concrete_function(**specs)
    tf.saved_model.save(model, str(folder), signatures={SIGNATURE: function})


def write_model(model: Any, rebuilt: Rebuilt, trained: Any, file: Path) -> None:
    """Writes the run's model with the trained weights, without fake quantization: any Keras 3 loads it.

    Args:
        model: of Keras 3, as it was loaded; its weights are changed.
        rebuilt: tells which layer is which.
        trained: of tf_keras.
        file: ends in `.keras`.
    """
    for name, origin in rebuilt.origins.items():
        values = weights_of(trained.get_layer(name), rebuilt.weights[name])
        if name in rebuilt.folds:
            unfold(origin, rebuilt.folds[name], values)
        elif type(origin).__name__ != "Normalization":  # what it has learned is no training's
            for weight, value in zip(origin.weights, values, strict=True):
                weight.assign(value)
    model.save(file)


def weights_of(layer: Any, names: Sequence[str]) -> list[np.ndarray[Any, Any]]:
    """The weights of a layer, also of one behind fake quantization, which adds some of its own.

    Args:
        layer: of tf_keras.
        names: of its weights, in order.
    """
    if not hasattr(layer, "quantize_config"):
        return list(layer.get_weights())
    found = {short_name(variable): variable.numpy() for variable in layer.variables}
    return [found[name] for name in names]

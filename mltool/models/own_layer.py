"""Layers of the user's: a class or a function that the spec names, held by one layer of ours.

As of own models (`own_model.py`), a `.keras` file holds the weights and names no code: whoever loads it builds the
layer again, by the spec of the run that the file lies in. So a layer needs neither `get_config` nor a `name` argument.
"""

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

from mltool import extras
from mltool.models.user_call import call_user, calling, described, load_user, refusal
from mltool.spec.model import LayerSpec, ModelSpec
from mltool.spec.own_things import OwnThing

HOLDER = "OwnLayer"
"""Class name in a `.keras` file of the layer that holds one of the user's."""


def build_own_layer(thing: OwnThing, *, at: str) -> Any:
    """The user's layer, not built yet.

    Args:
        thing: of the spec.
        at: dotted key of its `python`, for messages.

    Raises:
        SpecError: if the class or function fails, or is or gives no layer.
    """
    keras = extras.keras()
    found = load_user(thing.reference, key=at)
    hint = "name a keras.layers.Layer, or a function that returns one"
    if isinstance(found, type) and not issubclass(found, keras.Layer):
        raise refusal(f"{thing.reference} is a class, and no layer of Keras", hint, key=at)
    layer = call_user(thing.reference, thing.arguments, key=at)
    if not isinstance(layer, keras.Layer):
        what = f"the class {layer.__name__}" if isinstance(layer, type) else described(layer)
        raise refusal(f"{thing.reference} returned {what}, and no layer", hint, key=at)
    return layer


class OwnLayerBuilder:
    """A layer of the user's in the form of Keras' own: it is held when it is first called, with what it is called with.

    Args:
        thing: of the spec.
        name: of the layer in the model.
        at: dotted key, for messages.
    """

    def __init__(self, thing: OwnThing, name: str, at: str) -> None:
        self._thing, self.name, self._at = thing, name, at
        self._layer = build_own_layer(thing, at=at)
        self._holder: Any = None
        if hasattr(self._layer, "adapt"):
            self.adapt = self._layer.adapt

    def __call__(self, *inputs: Any) -> Any:
        """Runs the layer on Keras tensors or on values.

        Raises:
            SpecError: if it does not take them, or gives anything but one tensor.
        """
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in inputs)
        what = f"the layer {self.name!r} ({self._thing.reference}), given {shapes},"
        with calling(what, self._thing.reference, key=self._at):
            if self._holder is None:
                takes = [{"shape": list(t.shape[1:]), "dtype": _dtype(t)} for t in inputs]
                self._holder = holder_class()(self._layer, takes, name=self.name)
            output = self._holder(inputs[0] if len(inputs) == 1 else list(inputs))
        if isinstance(output, dict | list | tuple) or not hasattr(output, "shape"):
            message = f"{what} gives {described(output)}; one tensor is expected"
            raise refusal(message, "return one tensor from its call", key=self._at)
        return output


def _dtype(tensor: Any) -> str:
    return str(getattr(tensor.dtype, "name", tensor.dtype))


def _num_positional(layer: Any) -> int:
    """Tensors that a layer's call takes, each as an argument of its own."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    taken = inspect.signature(layer.call).parameters.values()
    return sum(p.kind in kinds and p.default is p.empty and p.name not in ("training", "mask") for p in taken)


@functools.cache
def holder_class() -> Any:
    """The layer that holds one of the user's."""
    keras = extras.keras()

    class OwnLayer(keras.Layer):  # type: ignore[misc,name-defined]
        """Calls the held layer; its config has shapes and types alone, and names no code."""

        def __init__(self, layer: Any, takes: Sequence[dict[str, Any]], name: str) -> None:
            super().__init__(name=name)
            self.layer, self.shown_class = layer, type(layer).__name__
            self._takes = [dict(each) for each in takes]
            self._each = len(self._takes) > 1 and _num_positional(layer) > 1
            self.supports_masking = layer.supports_masking
            # Now, and not while its holder is built: its variables must be made outside of a graph.
            tensors = [keras.Input(each["shape"], dtype=each["dtype"]) for each in self._takes]
            self._run(tensors[0] if len(tensors) == 1 else tensors)

        def build(self, inputs_shape: Any) -> None:
            """Everything is built before."""
            self.built = True

        def call(self, inputs: Any, training: bool = False) -> Any:
            """Runs it; Keras hands `training` on to the layers inside."""
            return self._run(inputs)

        def compute_mask(self, inputs: Any, previous_mask: Any = None) -> Any:
            """That of the layer."""
            return self.layer.compute_mask(inputs, previous_mask)

        def get_config(self) -> dict[str, Any]:
            """What building it again needs, beside the layer."""
            return {"name": self.name, "takes": self._takes}

        def get_build_config(self) -> None:
            """Nothing: it is built when it is made."""

        def _run(self, inputs: Any) -> Any:
            return self.layer(*inputs) if self._each else self.layer(inputs)

    return OwnLayer


def layers_rebuilt_by(rebuild: Callable[[str], Any]) -> dict[str, Any]:
    """The `custom_objects` that load a `.keras` file with own layers in it.

    Args:
        rebuild: gives the layer of a name anew.
    """

    class Loader(holder_class()):  # type: ignore[misc]
        """The holder, with the way to its layer."""

        @classmethod
        def from_config(cls, config: dict[str, Any]) -> Any:
            """Builds the layer as it was built for training."""
            return holder_class()(rebuild(config["name"]), config["takes"], name=config["name"])

    return {HOLDER: Loader}


def own_layer_called(name: str, spec: ModelSpec) -> LayerSpec | None:
    """The own layer of a spec that a layer of the model is.

    Args:
        name: of the layer in the model: that of the spec, and of one that every column has for itself, its column.
        spec: of the model.
    """
    layers = [layer for layer in (*spec.preprocess_layers, *spec.layers) if isinstance(layer.layer, OwnThing)]
    fitting = [layer for layer in layers if name == layer.name or name.startswith(f"{layer.name}_")]
    return max(fitting, key=lambda layer: len(layer.name), default=None)

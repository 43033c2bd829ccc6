"""The `model` section: preprocessing and layers, as a graph that is checked before TensorFlow is imported."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import ModelWrapValidatorHandler, ValidationError, model_validator

from mltool.spec.argument_check import shown
from mltool.spec.blocks import AUGMENTATIONS
from mltool.spec.catalogue import KerasObject, Problem, parse_keras_object
from mltool.spec.keras_object import reference
from mltool.spec.section import Checked, Later, Section, error_details, problem_details, raise_problems

SINGLE = ""
"""Key of `preprocess` when it is a list: the one input, whatever the data call it."""


INPUT_KINDS = ("numbers", "categories", "texts")
"""Keys of `preprocess` that stand for all columns of a kind: numbers are put side by side and go through the layers
together, categories and texts go through layers of their own each and are put side by side afterwards."""

AUTO = "auto"
"""`preprocess: auto`: layers after the kinds of the inputs; written into the run's spec when the data are known."""


@dataclass(frozen=True, slots=True)
class LayerSpec:
    """One layer of the graph.

    Attributes:
        name: unique in the model; made from the class where the spec gives none.
        layer: the Keras layer, with its arguments but `inputs` and `name`.
        inputs: names of layers or of model inputs; empty means the layer before (or the only input).
        named: whether the spec gave the name; of no consequence for the model, so not compared.
    """

    name: str
    layer: KerasObject
    inputs: tuple[str, ...] = ()
    named: bool = field(default=False, compare=False)

    def to_spec(self) -> Any:
        """The YAML form, with the name that was given or made."""
        arguments = {**self.layer.arguments, "name": self.name}
        if self.inputs:
            arguments["inputs"] = list(self.inputs)
        return KerasObject(self.layer.name, arguments).to_spec()


def snake_case(class_name: str) -> str:
    """`Conv2D` to `conv2d`, `GlobalAveragePooling2D` to `global_average_pooling2d`, as Keras names its layers."""
    spaced = re.sub(r"(.)([A-Z][a-z0-9]+)", r"\1_\2", re.sub(r"\W+", "", class_name))
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", spaced).lower()


class _Reader:
    """Reads lists of layers, gives every layer a name, and collects the problems."""

    def __init__(self) -> None:
        self.names: dict[str, tuple[str | int, ...]] = {}
        self.problems: list[Problem] = []

    def read(self, value: Any, path: tuple[str | int, ...], *, inputs_allowed: bool) -> tuple[LayerSpec, ...]:
        """Parses one list; what does not parse is a problem and left out."""
        if not isinstance(value, list | tuple):
            message = f"must be a list of layers (got {shown(value)})"
            self.problems.append(Problem(path, False, message, "write [{Dense: {units: 10}}]"))
            return ()
        extra = ("inputs",) if inputs_allowed else ()
        layers = [self._layer(item, (*path, index), extra) for index, item in enumerate(value)]
        return tuple(layer for layer in layers if layer is not None)

    def _layer(self, item: Any, path: tuple[str | int, ...], extra: tuple[str, ...]) -> LayerSpec | None:
        if isinstance(item, LayerSpec):
            self.names[item.name] = (*path, item.layer.name)
            return item
        found = parse_keras_object(item, "layer", extra_arguments=extra)
        if not isinstance(found, KerasObject):
            self.problems += [Problem((*path, *p.path), p.at_key, p.message, p.hint) for p in found]
            return None
        if found.name in AUGMENTATIONS:
            message = f"{found.name!r} is an augmentation, and none of the model's layers"
            self.problems.append(Problem(path, False, message, "write it under data.augment"))
            return None
        arguments = dict(found.arguments)
        name, inputs = arguments.pop("name", None), arguments.pop("inputs", None)
        place = (*path, found.name)
        layer = KerasObject(found.name, arguments)
        return LayerSpec(self._name(name, found.name, place), layer, self._inputs(inputs, place), name is not None)

    def _name(self, name: Any, class_name: str, place: tuple[str | int, ...]) -> str:
        if name is None:
            base = snake_case(class_name)
            name = next(n for n in (base, *(f"{base}_{i}" for i in range(1, 10_000))) if n not in self.names)
        elif not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", str(name)):
            self.problems.append(
                Problem((*place, "name"), False, f"{name!r} is not a name", "use letters, digits, _ . -")
            )
        elif name in self.names:
            self.problems.append(
                Problem((*place, "name"), False, f"the name {name!r} is used twice", "give one another name")
            )
        self.names[str(name)] = place
        return str(name)

    def _inputs(self, inputs: Any, place: tuple[str | int, ...]) -> tuple[str, ...]:
        if inputs is None:
            return ()
        if isinstance(inputs, list) and inputs and all(isinstance(name, str) for name in inputs):
            return tuple(inputs)
        message = f"must be a list of names of layers or inputs (got {shown(inputs)})"
        self.problems.append(Problem((*place, "inputs"), False, message, "write inputs: [name]"))
        return ()


def _graph_problems(layers: tuple[LayerSpec, ...], places: dict[str, tuple[str | int, ...]]) -> Iterable[Problem]:
    """A name that comes later, a layer that feeds itself, a layer that nobody uses."""
    order = {layer.name: index for index, layer in enumerate(layers)}
    used: set[str] = set()
    for index, layer in enumerate(layers):
        if not layer.inputs and index:
            used.add(layers[index - 1].name)
        for position, name in enumerate(layer.inputs):
            used.add(name)
            if order.get(name, -1) >= index:
                what = "itself" if name == layer.name else f"{name!r}, which comes later"
                path = (*places[layer.name], "inputs", position)
                yield Problem(path, False, f"{layer.name!r} takes its input from {what}", "put it after its inputs")
    for layer in layers[:-1]:
        if layer.name not in used:
            message = f"nothing uses the output of {layer.name!r}"
            yield Problem(places[layer.name], True, message, "name it in the inputs of a later layer, or take it out")


Preprocess = dict[str, tuple[LayerSpec, ...]]
_NO_PREPROCESS: Preprocess = {}


class ModelSpec(Section):
    """Preprocessing and layers; both are part of the model and so of every artifact."""

    preprocess: Annotated[
        Preprocess | Literal["auto"],
        Checked(
            lambda value: value,
            lambda: {
                "anyOf": [
                    {"const": AUTO},
                    {"type": "array", "items": reference("layer")},
                    {"type": "object", "additionalProperties": {"type": "array", "items": reference("layer")}},
                ]
            },
        ),
    ] = _NO_PREPROCESS
    """From raw input to what the layers learn from: a list, a map from input (or numbers, categories, texts) to list,
    or auto, after the kinds of the inputs; adapted on training data only."""
    layers: Annotated[
        tuple[LayerSpec, ...],
        Checked(lambda value: value, lambda: {"type": "array", "items": reference("layer"), "minItems": 1}),
    ]
    """Keras' own class names and arguments; `inputs: [names]` makes a graph of the list."""
    python: Annotated[Any, Later()] = None
    """A function of yours that returns a model."""
    arguments: Annotated[Any, Later()] = None
    """Keywords for `python`."""

    @model_validator(mode="wrap")
    @classmethod
    def _read_graph(cls, value: Any, handler: ModelWrapValidatorHandler["ModelSpec"]) -> "ModelSpec":
        """Reads both lists in one go, because names are unique over the two."""
        if not isinstance(value, dict):
            return handler(value)
        reader = _Reader()
        read: dict[str, Any] = {}
        if "preprocess" in value:
            read["preprocess"] = cls._read_preprocess(value["preprocess"], reader)
        if "layers" in value:
            read["layers"] = reader.read(value["layers"], ("layers",), inputs_allowed=True)
            if value["layers"] == []:
                reader.problems.append(
                    Problem(("layers",), False, "must have at least one layer (got [])", "add {Dense: {units: 10}}")
                )
            if not reader.problems:
                reader.problems += _graph_problems(read["layers"], reader.names)
        # The rest of the section is checked beside the layers, so that one answer holds the mistakes of both.
        try:
            checked = handler({**value, **read})
        except ValidationError as error:
            details = [*error_details(error), *problem_details(reader.problems, value)]
            raise ValidationError.from_exception_data("model", details) from error
        raise_problems(reader.problems, value)
        return checked

    @staticmethod
    def _read_preprocess(value: Any, reader: _Reader) -> Preprocess | Literal["auto"]:
        if value == AUTO:
            return "auto"
        if isinstance(value, dict):
            return {
                str(name): reader.read(layers, ("preprocess", name), inputs_allowed=False)
                for name, layers in value.items()
            }
        return {SINGLE: reader.read(value, ("preprocess",), inputs_allowed=False)}

    @property
    def preprocess_layers(self) -> tuple[LayerSpec, ...]:
        """The preprocessing layers of all inputs."""
        if isinstance(self.preprocess, str):
            return ()
        return tuple(layer for layers in self.preprocess.values() for layer in layers)

    @property
    def places(self) -> Iterator[tuple[tuple[str | int, ...], LayerSpec]]:
        """All layers with their keys in this section."""
        if not isinstance(self.preprocess, str):
            for name, layers in self.preprocess.items():
                above = ("preprocess",) if name == SINGLE else ("preprocess", name)
                yield from (((*above, index), layer) for index, layer in enumerate(layers))
        yield from ((("layers", index), layer) for index, layer in enumerate(self.layers))

    @property
    def layer_names(self) -> tuple[str, ...]:
        """Names of all layers, preprocessing first."""
        return tuple(layer.name for layer in (*self.preprocess_layers, *self.layers))

"""The `model` section: preprocessing and layers, as a graph that is checked before TensorFlow is imported."""

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, ModelWrapValidatorHandler, ValidationError, model_validator

from mltool.spec.argument_check import shown
from mltool.spec.catalogue import UNREADABLE, Problem
from mltool.spec.graph import LayerSpec, Reader, graph_problems, snake_case
from mltool.spec.keras_object import entry
from mltool.spec.own_things import OwnThing
from mltool.spec.section import Checked, Section, error_details, problem_details, raise_problem, raise_problems
from mltool.spec.user_code import argument_problems, check_reference

__all__ = ["AUTO", "INPUT_KINDS", "OWN_MODEL", "SINGLE", "LayerSpec", "ModelSpec", "snake_case"]

SINGLE = ""
"""Key of `preprocess` when it is a list: the one input, whatever the data call it."""


INPUT_KINDS = ("numbers", "categories", "texts")
"""Keys of `preprocess` that stand for all columns of a kind: numbers are put side by side and go through the layers
together, categories and texts go through layers of their own each and are put side by side afterwards."""

AUTO = "auto"
"""`preprocess: auto`: layers after the kinds of the inputs; written into the run's spec when the data are known."""

OWN_MODEL = "own_model"
"""Name of the layer that is the model of `python:`, and so of the output; constant, because every artifact bears it."""


def _own_model_problems(value: dict[str, Any]) -> Iterable[Problem]:
    """What must hold between `layers`, `python` and `arguments`."""
    has_layers, has_python = value.get("layers") is not None, value.get("python") is not None
    if has_layers and has_python:
        message = "stands in place of layers, and both are there"
        yield Problem(("python",), True, message, "take one of them out")
    if not has_layers and not has_python:
        hint = "add layers: [Flatten, {Dense: {units: 10}}], or python: module:function"
        yield Problem(("layers",), True, "is missing", hint)
    if value.get("arguments") and not has_python:
        yield Problem(("arguments",), True, "are for python, which is not set", "leave them out")


def _reference(value: Any) -> Any:
    """A checked reference; the stand-in for a wrong one stays (see `mistakes.py`)."""
    return value if value == UNREADABLE else check_reference(value)


Preprocess = dict[str, tuple[LayerSpec, ...]]
_NO_PREPROCESS: Preprocess = {}


_NO_BLOCKS: dict[str, Any] = {}


def _check_blocks(value: Any) -> Any:
    if not isinstance(value, dict):
        raise_problem(f"must be a map from names to lists of layers (got {shown(value)})", "write {stage: [...]}")
    return value


class ModelSpec(Section):
    """Preprocessing and layers; both are part of the model and so of every artifact."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [{"required": ["layers"]}, {"required": ["python"]}]})

    preprocess: Annotated[
        Preprocess | Literal["auto"],
        Checked(
            lambda value: value,
            lambda: {
                "anyOf": [
                    {"const": AUTO},
                    {"type": "array", "items": entry("layer")},
                    {"type": "object", "additionalProperties": {"type": "array", "items": entry("layer")}},
                ]
            },
        ),
    ] = _NO_PREPROCESS
    """From raw input to what the layers learn from: a list, a map from input (or numbers, categories, texts) to list,
    or auto, after the kinds of the inputs; adapted on training data only."""
    layers: Annotated[
        tuple[LayerSpec, ...],
        Checked(lambda value: value, lambda: {"type": "array", "items": entry("layer"), "minItems": 1}),
    ] = ()
    """Keras' own class names and arguments, or `python: "module:Name"` of yours; `inputs: [names]` makes a graph of the
    list."""
    blocks: Annotated[
        dict[str, Any],
        Checked(
            _check_blocks,
            lambda: {"type": "object", "additionalProperties": {"type": "array", "items": entry("layer")}},
        ),
    ] = _NO_BLOCKS
    """Lists of layers by name, which `Block: {use: NAME}` puts into the layers; `include` brings those of a file."""
    python: Annotated[str | None, Checked(_reference, lambda: {"type": ["string", "null"]})] = None
    """In place of layers, a function of yours that returns a keras.Model, or a tf.Module with `__call__`:
    `module:function`, from the spec's own folder or an installed package. It is run; what it returns comes after
    `preprocess`, and takes one tensor, or a map of tensors by name."""
    arguments: dict[str, Any] | None = None
    """Keywords for `python`."""

    @model_validator(mode="wrap")
    @classmethod
    def _read_graph(cls, value: Any, handler: ModelWrapValidatorHandler["ModelSpec"]) -> "ModelSpec":
        """Reads both lists in one go, because names are unique over the two."""
        if not isinstance(value, dict):
            return handler(value)
        blocks = value.get("blocks") or {}
        reader = Reader(blocks if isinstance(blocks, dict) else {})
        # What is read is flat: the blocks stand in it.
        read: dict[str, Any] = {"blocks": {}} if isinstance(blocks, dict) else {}
        if "preprocess" in value:
            read["preprocess"] = cls._read_preprocess(value["preprocess"], reader)
        if "layers" in value:
            read["layers"] = reader.read(value["layers"], ("layers",), is_graph=True)
            if value["layers"] == []:
                reader.problems.append(
                    Problem(("layers",), False, "must have at least one layer (got [])", "add {Dense: {units: 10}}")
                )
            if not reader.problems:
                reader.problems += graph_problems(read["layers"])
        reader.check_unused_blocks()
        reader.problems += _own_model_problems(value)
        # The rest of the section is checked beside the layers, so that one answer holds the mistakes of both.
        try:
            checked = handler({**value, **read})
            if isinstance(checked.python, str):
                reader.problems += argument_problems(checked.python, checked.arguments or {})
        except ValidationError as error:
            details = [*error_details(error), *problem_details(reader.problems, value)]
            raise ValidationError.from_exception_data("model", details) from error
        raise_problems(reader.problems, value)
        return checked

    @staticmethod
    def _read_preprocess(value: Any, reader: Reader) -> Preprocess | Literal["auto"]:
        if value == AUTO:
            return "auto"
        if isinstance(value, dict):
            return {
                str(name): reader.read(layers, ("preprocess", name), is_graph=False) for name, layers in value.items()
            }
        return {SINGLE: reader.read(value, ("preprocess",), is_graph=False)}

    @property
    def preprocess_layers(self) -> tuple[LayerSpec, ...]:
        """The preprocessing layers of all inputs."""
        if isinstance(self.preprocess, str):
            return ()
        return tuple(layer for layers in self.preprocess.values() for layer in layers)

    @property
    def code(self) -> tuple[str, ...]:
        """Every class and function of the user's that it names: the model, or layers."""
        layers = [layer.layer for layer in (*self.preprocess_layers, *self.layers)]
        of_layers = [layer.reference for layer in layers if isinstance(layer, OwnThing)]
        return tuple(dict.fromkeys([*([self.python] if self.python else []), *of_layers]))

    @property
    def own_names(self) -> tuple[str, ...]:
        """Names of the layers behind preprocessing; the last one names the output."""
        return tuple(layer.name for layer in self.layers) or (OWN_MODEL,)

    @property
    def layer_names(self) -> tuple[str, ...]:
        """Names of all layers that have weights of their own, preprocessing first."""
        own = tuple(layer.name for layer in self.layers if layer.shares is None) or (OWN_MODEL,)
        return (*(layer.name for layer in self.preprocess_layers), *own)

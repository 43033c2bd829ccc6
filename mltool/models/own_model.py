"""Models of the user's: a function that the spec names returns a keras.Model or a tf.Module, and it becomes a layer.

A functional or Sequential model of Keras' own things is nested as it is: its `model.keras` loads in plain Keras. What
plain Keras cannot build again (a subclassed model, layers or functions of the user's, a tf.Module) is held by one
layer, `OwnModel`: the file has its weights, and whoever loads it calls the function again. The file itself holds no
code and names none: which code may run is said by the spec of the run that the file lies in.
"""

import contextlib
import functools
import inspect
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mltool import extras
from mltool.data.sources.user_function import running
from mltool.errors import SpecError
from mltool.models.user_call import call_user, described, in_short, refusal, where
from mltool.spec.model import OWN_MODEL, ModelSpec
from mltool.spec.own_things import OwnThing

logger = logging.getLogger("mltool")

KEY = "model.python"
"""Of the spec, for messages."""

HOLDER = "OwnModel"
"""Class name in a `.keras` file of the layer that holds what plain Keras cannot build."""

Tensors = Mapping[str, Any]
Shapes = Mapping[str, Sequence[int | None]]


def call_builder(reference: str, arguments: Mapping[str, Any]) -> Any:
    """Runs the function and gives what it returns: a keras.Model or a tf.Module.

    Args:
        reference: checked.
        arguments: keywords.

    Raises:
        SpecError: if it does not take the arguments, raises, or returns something else.
    """
    returned = call_user(reference, arguments, key=KEY)
    _require_model(reference, returned)
    return returned


def _require_model(reference: str, returned: Any) -> None:
    tf, keras = extras.tensorflow(), extras.keras()
    hint = "return a keras.Model, or a tf.Module with __call__"
    if isinstance(returned, type):
        raise _refusal(f"{reference} returned the class {returned.__name__}", f"{hint}: call it")
    if isinstance(returned, keras.Model):
        return
    if not isinstance(returned, tf.Module) or isinstance(returned, keras.Layer):
        raise _refusal(f"{reference} returned {described(returned)}", hint)
    if not callable(returned):
        raise _refusal(f"{reference} returned a tf.Module without __call__", hint)
    strangers = list(returned._flatten(predicate=lambda item: isinstance(item, keras.Layer | keras.Variable)))
    if strangers:
        message = f"{reference} returned a tf.Module that holds {type(strangers[0]).__name__} of Keras"
        raise _refusal(f"{message}, which it would not train", "return a keras.Model, or use tf.Variable alone")


def _refusal(message: str, hint: str) -> SpecError:
    return refusal(message, hint, key=KEY)


def apply_own_model(reference: str, arguments: Mapping[str, Any], tensors: Tensors) -> Any:
    """Builds the model on what preprocessing leaves, and applies it.

    Args:
        reference: of the function.
        arguments: keywords for it.
        tensors: Keras tensors by name; numbers become float32.

    Returns:
        The one output, a Keras tensor; the layer that made it is called `OWN_MODEL`.

    Raises:
        SpecError: if the function fails, or its model does not take these inputs, or gives several outputs.
    """
    model = call_builder(reference, arguments)
    taken = {name: _as_float(name, tensor) for name, tensor in tensors.items()}
    keras = extras.keras()
    _require_fit(reference, model, taken)
    shapes = {name: tuple(tensor.shape) for name, tensor in taken.items()}
    try:
        with running(reference):
            held = Held(model, shapes)
            if isinstance(model, keras.Model) and _is_plain(model):
                model.name = OWN_MODEL
                output = model(held.structured(taken))
            else:
                output = holder_class()(held, name=OWN_MODEL)(taken)
    # TensorFlow and the user's code raise what they like for shapes that do not fit.
    except (Exception, SystemExit) as error:
        message = f"the model of {reference} does not take {_shown(shapes)}: {in_short(error)}"
        raise _refusal(message, where(error, reference)) from error
    return _one_output(reference, output)


def _as_float(name: str, tensor: Any) -> Any:
    if tensor.dtype == "string":
        hint = "put a StringLookup or a TextVectorization for it under model.preprocess, or preprocess: auto"
        raise _refusal(f"an own model takes numbers, and {name!r} is text", hint)
    return tensor if tensor.dtype == "float32" else extras.keras().ops.cast(tensor, "float32")


def _require_fit(reference: str, model: Any, tensors: Tensors) -> None:
    """Holds the inputs that a model declares against what the data have; most models declare none."""
    declared = declared_inputs(model)
    if declared is None:
        return
    has = _shown({name: tuple(tensor.shape) for name, tensor in tensors.items()})
    takes = _shown({name: tuple(tensor.shape) for name, tensor in declared.items()})
    hint = "what comes to it is what model.preprocess leaves"
    if len(declared) != len(tensors) or (len(declared) > 1 and set(declared) != set(tensors)):
        raise _refusal(f"the model of {reference} takes {takes}, the data have {has}", f"give them these names; {hint}")
    given_for = tensors if len(declared) > 1 else dict(zip(declared, tensors.values(), strict=True))
    for name, wanted in declared.items():
        given = given_for[name]
        if wanted.dtype != "float32":
            message = f"the model of {reference} takes {wanted.dtype} of {name!r}, float32 is given"
            raise _refusal(message, "leave dtype out of its keras.Input, and cast inside")
        if not _agree(tuple(wanted.shape), tuple(given.shape)):
            raise _refusal(f"the model of {reference} takes {takes}, the data have {has}", hint)


def _agree(one: Sequence[int | None], other: Sequence[int | None]) -> bool:
    return len(one) == len(other) and all(a == b or a is None or b is None for a, b in zip(one, other, strict=True))


def declared_inputs(model: Any) -> dict[str, Any] | None:
    """The inputs of a functional model, by name (the keys of its map, where it takes one); None for all others."""
    try:
        tensors = model.inputs
    except AttributeError:  # a tf.Module, a subclassed model, a Sequential one that is not built
        return None
    if not tensors:
        return None
    if isinstance(getattr(model, "input", None), dict):
        return dict(model.input)
    return {tensor.name: tensor for tensor in tensors}


def _shown(shapes: Shapes) -> str:
    """Shapes without the batch axis, as `image (8, 8, 1), meta (4,)`."""
    return ", ".join(f"{name} {tuple(shape[1:])}" for name, shape in shapes.items())


class Held:
    """A model of the user's, built on its inputs; hides from Keras what that should not track.

    Args:
        model: a keras.Model or a tf.Module.
        shapes: of its inputs, the batch axis included, by name.

    Attributes:
        model: the same.
        shapes: likewise.
        variables: Keras variables that share the values of a tf.Module's; empty for a keras.Model, which has its own.
    """

    def __init__(self, model: Any, shapes: Shapes) -> None:
        keras = extras.keras()
        self.model, self.shapes = model, dict(shapes)
        self.variables: list[Any] = []
        self._call: Callable[..., Any] = model
        if isinstance(model, keras.Model):
            if getattr(model, "optimizer", None) is not None:
                model.optimizer, model.compiled = None, False  # mltool's own trains it, and is not part of the file
            if not model.built or declared_inputs(model) is None:
                model(self.structured({name: keras.Input(shape[1:], name=name) for name, shape in shapes.items()}))
        else:
            self._trace_module()

    def structured(self, tensors: Tensors) -> Any:
        """The tensors as the model takes them: one, a map, or the list that a functional model was made with."""
        declared = declared_inputs(self.model)
        if len(tensors) == 1 and not isinstance(getattr(self.model, "input", None), dict | list | tuple):
            return next(iter(tensors.values()))
        if declared is None:
            return dict(tensors)
        ordered = dict(zip(declared, tensors.values(), strict=True)) if len(tensors) == 1 else tensors
        if isinstance(self.model.input, dict):
            return {name: ordered[name] for name in declared}
        return [ordered[name] for name in declared]

    def __call__(self, tensors: Tensors, *, training: bool) -> Any:
        """Runs the model."""
        return self._call(self.structured(tensors), training=training)

    def _trace_module(self) -> None:
        """Lets a tf.Module make its variables, and shares them with Keras."""
        tf, keras = extras.tensorflow(), extras.keras()
        takes_training = "training" in inspect.signature(self.model).parameters

        def call(inputs: Any, training: bool) -> Any:
            return self.model(inputs, training=training) if takes_training else self.model(inputs)

        function = tf.function(call, reduce_retracing=True)
        self._call = function
        specs = {name: tf.TensorSpec(shape, tf.float32, name=name) for name, shape in self.shapes.items()}
        # Traced, not run: a counter in it must not have counted before training.
        function.get_concrete_function(self.structured(specs), training=False)
        generators = self.model._flatten(predicate=lambda item: isinstance(item, tf.random.Generator))
        found = [*self.model.variables, *(generator.state for generator in generators)]
        for index, variable in enumerate(found):
            name = variable.name.partition(":")[0].replace("/", ".") or f"variable.{index}"
            shared = keras.Variable(variable, dtype=variable.dtype.name, trainable=variable.trainable, name=name)
            shared._value = variable  # Keras has no public way to take a variable that is there
            self.variables.append(shared)


@functools.cache
def holder_class() -> Any:
    """The layer that holds a model which plain Keras cannot build."""
    keras = extras.keras()

    class OwnModel(keras.Layer):  # type: ignore[misc,name-defined]
        """Calls the held model with a map of tensors; its config has shapes alone, and names no code."""

        def __init__(self, held: Held, name: str) -> None:
            super().__init__(name=name)
            self._held = held
            # Tracked by Keras, so trained and saved.
            self.model = held.model
            self.is_module = not isinstance(held.model, keras.Model)
            self._shared = held.variables

        def build(self, inputs_shape: Any) -> None:
            """Everything is built before."""
            self.built = True

        def call(self, inputs: Any, training: bool = False) -> Any:
            """See `Held`."""
            return self._held(inputs, training=training)

        def get_config(self) -> dict[str, Any]:
            """What `rebuilt_by` needs."""
            return {"name": self.name, "shapes": {name: list(shape) for name, shape in self._held.shapes.items()}}

        def get_build_config(self) -> None:
            """Nothing: it is built when it is made."""

    return OwnModel


def rebuilt_by(rebuild: Callable[[], Any]) -> dict[str, Any]:
    """The `custom_objects` that load a `.keras` file with an own model in it.

    Args:
        rebuild: gives the model anew; called only if the file has one.
    """

    class Loader(holder_class()):  # type: ignore[misc]
        """The holder, with the way to its model."""

        @classmethod
        def from_config(cls, config: dict[str, Any]) -> Any:
            """Builds the model as it was built for training."""
            return holder_class()(Held(rebuild(), config["shapes"]), name=config["name"])

    return {HOLDER: Loader}


def _is_plain(model: Any) -> bool:
    """Whether plain Keras can build the model from its description: nothing in it is the user's own."""
    try:
        description = extras.keras().saving.serialize_keras_object(model)
    except Exception:  # of a layer of the user's without get_config
        return False
    return all(_is_of_keras(item) for item in _objects(description))


def _objects(value: Any) -> Iterable[dict[str, Any]]:
    """Every description of an object in the description of another."""
    if isinstance(value, dict):
        if "class_name" in value:
            yield value
        value = list(value.values())
    if isinstance(value, list | tuple):
        for item in value:
            yield from _objects(item)


def _is_of_keras(description: Mapping[str, Any]) -> bool:
    module = str(description.get("module") or "keras")
    if description["class_name"] in ("function", "__lambda__"):
        return False
    return module.partition(".")[0] in ("keras", "builtins")


def _one_output(reference: str, output: Any) -> Any:
    if isinstance(output, dict | list | tuple):
        message = f"the model of {reference} gives {len(output)} outputs, one is expected"
        raise _refusal(message, "return the tensor of the one that is trained")
    if not isinstance(output, extras.keras().KerasTensor):
        raise _refusal(f"the model of {reference} gives {described(output)}, a tensor is expected", "return a tensor")
    if output.dtype != "float32":
        raise _refusal(f"the model of {reference} gives {output.dtype}, float32 is expected", "cast it")
    return output


_STATEFUL_RANDOM = (
    "Multinomial", "ParameterizedTruncatedNormal", "RandomGamma", "RandomPoissonV2", "RandomShuffle",
    "RandomStandardNormal", "RandomUniform", "RandomUniformInt", "TruncatedNormal",
)  # fmt: skip
"""Operations whose state lies in TensorFlow's kernels, where no checkpoint reaches it."""


@dataclass(frozen=True)
class Origin:
    """The code of the user's in a model, for messages.

    Attributes:
        references: to its functions and classes.
        what: the model, in words.
        key: of the spec.
    """

    references: tuple[str, ...]
    what: str
    key: str

    def refusal(self, message: str, hint: str) -> SpecError:
        """What is wrong with the model, from the word after it."""
        return refusal(f"{self.what} {message}", hint, key=self.key)

    def where(self, error: BaseException) -> str:
        """The line of one of the files that an error came from, as far as tracebacks tell."""
        return next((found for reference in self.references if (found := where(error, reference))), "")

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Surrounds what runs the code."""
        with contextlib.ExitStack() as stack:
            for reference in self.references:
                stack.enter_context(running(reference))
            yield


def origin_of(spec: ModelSpec) -> Origin | None:
    """The code in a model; None where all of it is Keras' and ours."""
    if not spec.code:
        return None
    if spec.python is not None:
        return Origin(spec.code, f"the model of {spec.python}", KEY)
    of_layers = any(isinstance(layer.layer, OwnThing) for layer in spec.layers)
    key = "model.layers" if of_layers else "model.preprocess"
    return Origin(spec.code, f"the model with {', '.join(spec.code)}", key)


def require_trainable(model: Any, origin: Origin) -> None:
    """Traces and runs a model with code of the user's in it, as training will; its variables stay as they were.

    Args:
        model: of `build_model`.
        origin: of the code.

    Raises:
        SpecError: if nothing in it learns, it cannot be a graph, or gives another number of answers than of samples.
    """
    tf, keras = extras.tensorflow(), extras.keras()
    if not model.trainable_variables:
        raise origin.refusal("has nothing to train", "tf.Variable and add_weight are trained")
    spec = keras.tree.map_structure(lambda t: tf.TensorSpec(t.shape, t.dtype), model.input)
    found: list[bool] = []

    def step(inputs: Any) -> Any:
        with tf.GradientTape() as tape:
            outputs = model(inputs, training=True)
            total = tf.reduce_sum(outputs)
        found.extend(gradient is not None for gradient in tape.gradient(total, model.trainable_variables))
        return outputs

    before = [variable.numpy() for variable in model.variables]
    try:
        with origin.running():
            graph = tf.function(step, autograph=False).get_concrete_function(spec).graph
            taken = keras.tree.map_structure(lambda s: _blank((3, *s.shape[1:]), s.dtype), spec)
            rows = tf.function(model, autograph=False)(taken, training=False).shape[0]
    except (Exception, SystemExit) as error:  # TensorFlow's and the user's own
        message = f"cannot be trained as a graph: {in_short(error)}"
        raise origin.refusal(message, origin.where(error)) from error
    for variable, value in zip(model.variables, before, strict=True):
        variable.assign(value)
    held = {id(variable.value) for variable in model.variables}
    loose = [variable.name for variable in graph.variables if id(variable) not in held]
    if loose:
        # Keras takes no notice of a tf.Variable in a layer: it would be neither trained nor saved, without a word.
        message = f"uses the variable {loose[0]!r}, and does not hold it"
        raise origin.refusal(message, "make it with add_weight in Keras; in a tf.Module, make it an attribute")
    if not any(found):
        message = f"no gradient reaches the variables of {origin.what}"
        raise refusal(message, "use TensorFlow's operations", key=origin.key)
    if rows != 3:
        raise origin.refusal(f"gives {rows} answers for 3 samples", "keep the batch axis")
    if any(node.op in _STATEFUL_RANDOM for node in _nodes(graph)):
        logger.warning(
            "%s draws random numbers that no checkpoint holds: a resumed training is not bit for bit the same; "
            "tf.random.Generator, tf.random.stateless_* and Keras' layers are",
            ", ".join(origin.references),
        )


def _blank(shape: Sequence[int | None], dtype: Any) -> Any:
    tf = extras.tensorflow()
    sizes = [1 if size is None else size for size in shape]
    return tf.fill(sizes, "") if dtype == tf.string else tf.zeros(sizes, dtype)


def _nodes(graph: Any) -> Iterable[Any]:
    definition = graph.as_graph_def()
    yield from definition.node
    for body in definition.library.function:
        yield from body.node_def

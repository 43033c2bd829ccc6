"""From a checked Keras thing of the spec to the Keras object."""

import re
from collections.abc import Callable
from typing import Any

from mltool import extras
from mltool.errors import Message, SpecError
from mltool.spec.catalogue import KerasObject

_MODULES = (
    "layers",
    "optimizers",
    "losses",
    "metrics",
    "regularizers",
    "initializers",
    "constraints",
    "optimizers.schedules",
    "activations",
    "callbacks",
)
"""Where Keras keeps its things; names are unique over them, but for losses and metrics of one name and `Identity`."""

REFUSALS = (ValueError, TypeError, AttributeError, LookupError, ArithmeticError)
"""What Keras raises for values that it does not take: mostly the first two, the others where it forgot to check."""


def refusals() -> tuple[type[Exception], ...]:
    """`REFUSALS`, and what the backend raises itself: of dtypes or shapes that it cannot compute in.

    Not what it raises without memory, which is no mistake of the spec.
    """
    if extras.backend() == "tensorflow":
        errors = extras.tensorflow().errors
        kinds = (kind for kind in errors.OpError.__subclasses__() if kind is not errors.ResourceExhaustedError)
        return (*REFUSALS, *kinds)
    return (*REFUSALS, RuntimeError)  # torch's own errors are; those of jax are ValueErrors and TypeErrors


def build_keras(
    thing: KerasObject,
    module: str | None = None,
    *,
    at: str = "",
    subclass: Callable[[type], type] | None = None,
    **more: Any,
) -> Any:
    """Calls the Keras class that `thing` names with its arguments; nested things are built first.

    Args:
        thing: checked against the catalogue.
        module: such as `losses`, where two have the name.
        at: dotted key of the spec, for messages.
        subclass: makes of Keras' class the one that is called.
        more: arguments that the spec does not give.

    Raises:
        SpecError: if Keras refuses the values of the arguments.
    """
    found = _find(thing.name, (module,) if module else _MODULES)
    if not isinstance(found, type):
        return found
    arguments = {key: _built(value, key, at) for key, value in thing.arguments.items()}
    try:
        return (subclass(found) if subclass else found)(**arguments, **more)
    except REFUSALS as error:
        message = Message(f"Keras refuses {thing.name}: {reason_of(error)}", f"arguments: {arguments}", key=at)
        raise SpecError(message) from error


def reason_of(error: Exception) -> str:
    """What Keras says, on one line, at most 200 characters."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).partition("Arguments received by")[0]
    return " ".join(plain.split())[:200] or type(error).__name__


def _find(name: str, modules: tuple[str, ...]) -> Any:
    for module in modules:
        owner = extras.keras()
        for part in module.split("."):
            owner = getattr(owner, part)
        if hasattr(owner, name):
            return getattr(owner, name)
    raise AssertionError(f"the catalogue has {name!r}, Keras has not")


def _built(value: Any, argument: str, at: str) -> Any:
    if isinstance(value, KerasObject):
        # `Identity` is a layer and an initializer.
        return build_keras(value, "initializers" if argument.endswith("initializer") else None, at=at)
    if isinstance(value, list | tuple):
        return [_built(item, argument, at) for item in value]
    return value

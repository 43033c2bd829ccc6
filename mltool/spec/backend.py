"""Keras' other backends, and what this version does not do with them."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal

from mltool.errors import Message, SpecError
from mltool.spec.argument_check import shown
from mltool.spec.callbacks import OUR_CALLBACKS
from mltool.spec.catalogue import UNREADABLE, KerasObject, Problem
from mltool.spec.own_things import OwnThing
from mltool.spec.strategy import AutoStrategy, OneDeviceStrategy

if TYPE_CHECKING:
    from mltool.spec.spec import Spec

Backend = Literal["tensorflow", "jax", "torch"]
"""What Keras computes with."""

_OF_TENSORFLOW = (
    "HashedCrossing",
    "Hashing",
    "IntegerLookup",
    "StringLookup",
    "TextVectorization",
)
"""Layers that Keras 3 builds of operations of TensorFlow: they take text, or look numbers up in tables of it."""


_SETTINGS_OF_TENSORFLOW = {
    "accumulate": 1,
    "tf32": True,
    "jit_compile": "auto",
    "threads": None,
    "onednn": "auto",
}
"""Keys of `train` that change how TensorFlow computes a step, with what they are when nobody asks."""

_NOT_YET = {"on_nan": "stop"}
"""Keys of `train` that take one value with other backends in this version."""


def require_tensorflow(spec: "Spec", what: str) -> None:
    """Proves that a spec is trained with TensorFlow.

    Args:
        spec: checked.
        what: needs it, in words.

    Raises:
        SpecError: if it is not.
    """
    backend = spec.train.backend
    if backend != "tensorflow":
        message = f"{what}, and this spec trains with {backend}"
        raise SpecError(Message(message, "add --set train.backend=tensorflow", key="train.backend"))


def backend_problems(spec: "Spec") -> Iterable[Problem]:
    """What stands in a spec that its backend cannot do, each with the reason."""
    backend = spec.train.backend
    if backend == "tensorflow":
        return
    hint = "leave it out, or write train.backend: tensorflow"
    yield from _training_problems(spec, hint)
    for index, thing in enumerate(spec.data.augment):
        message = f"augmentation runs in tf.data, and train.backend is {backend}"
        yield Problem(("data", "augment", index, thing.name), True, message, hint)
    if spec.model.python is not None:
        message = f"a function may build its model with TensorFlow, and train.backend is {backend}"
        yield Problem(("model", "python"), False, message, "write the layers down, or train.backend: tensorflow")
    for layer in (*spec.model.preprocess_layers, *spec.model.layers):
        place = ("model", *layer.place)
        if isinstance(layer.layer, OwnThing):
            yield Problem(place, True, f"a layer of yours may use TensorFlow, and train.backend is {backend}", hint)
        elif layer.layer.name in _OF_TENSORFLOW:
            message = f"{layer.layer.name} computes with TensorFlow alone, and train.backend is {backend}"
            yield Problem(place, True, message, "take train.backend: tensorflow")


def _training_problems(spec: "Spec", hint: str) -> Iterable[Problem]:
    """Of the section `train`."""
    train, backend = spec.train, spec.train.backend
    if not isinstance(train.strategy, AutoStrategy | OneDeviceStrategy):
        message = f"{train.strategy.NAME} distributes by tf.distribute, and train.backend is {backend}"
        yield Problem(("train", "strategy"), False, message, hint)
    elif isinstance(train.strategy, OneDeviceStrategy) and train.strategy.device is not None:
        message = f"names a device as TensorFlow does, and train.backend is {backend}"
        yield Problem(("train", "strategy", "one_device", "device"), False, message, hint)
    for key, default in _SETTINGS_OF_TENSORFLOW.items():
        value = getattr(train, key)
        if value != default:
            message = f"is a setting of TensorFlow's, and train.backend is {backend} (got {shown(value)})"
            yield Problem(("train", key), False, message, hint)
    for key, only in _NOT_YET.items():
        if getattr(train, key) != only:
            message = f"must be {only} with train.backend: {backend} (got {getattr(train, key)})"
            yield Problem(("train", key), False, message, hint)
    if train.keep == "average":
        message = f"is not in this version with train.backend: {backend} (got average)"
        yield Problem(("train", "keep"), False, message, "write keep: best, or last")
    yield from _callback_problems(train.callbacks, backend, hint)
    if train.step is not None:
        yield Problem(("train", "step"), True, f"is a step of TensorFlow, and train.backend is {backend}", hint)
    if train.anomaly is not None:
        message = f"is not in this version with train.backend: {backend}"
        yield Problem(("train", "anomaly"), True, message, "take train.backend: tensorflow")
    for name, head in train.heads.items():
        place = ("train", "outputs", name) if name else ("train",)
        if isinstance(head.loss, OwnThing):
            message = f"a loss of yours may use TensorFlow, and train.backend is {backend}"
            yield Problem((*place, "loss"), False, message, "take one of Keras, or train.backend: tensorflow")
        yield from _metric_problems(head.metrics or (), place, backend)


def _metric_problems(metrics: Iterable[KerasObject], place: tuple[str, ...], backend: str) -> Iterable[Problem]:
    for index, metric in enumerate(metrics):
        if isinstance(metric, OwnThing):
            message = f"a metric of yours may use TensorFlow, and train.backend is {backend}"
            yield Problem((*place, "metrics", index), False, message, "take one of Keras, or train.backend: tensorflow")


def _callback_problems(callbacks: Iterable[KerasObject], backend: str, hint: str) -> Iterable[Problem]:
    for index, callback in enumerate(callbacks):
        if callback != UNREADABLE and (isinstance(callback, OwnThing) or callback.name not in OUR_CALLBACKS):
            message = f"is called by TensorFlow's loop alone, and train.backend is {backend}"
            yield Problem(("train", "callbacks", index), True, message, hint)

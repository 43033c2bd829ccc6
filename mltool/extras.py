"""The door that optional packages come in by: imported when first needed, missing ones named with their pip line."""

import contextlib
import functools
import importlib
import os
from collections.abc import Iterator
from typing import Any

from mltool.errors import MachineError, MissingExtraError

_GIVEN = {name: os.environ.get(name) for name in ("KERAS_BACKEND", "TF_USE_LEGACY_KERAS")}
"""What the user's environment says of Keras; as it was before anything in this process changed it."""

_EXTRA_OF = {
    "tensorflow": "train",
    "keras": "train",
    "tf_keras": "train",
    "tensorflow_model_optimization": "train",
    "litert_quantizer": "train",
    "PIL": "train",
    "pyarrow": "train",
    "soundfile": "train",
    "soxr": "train",
    "psutil": "train",
    "matplotlib": "train",
    "jinja2": "train",
    "markupsafe": "train",
    "jax": "jax",
    "torch": "torch",
    "litert_torch": "from-torch",
    "h5py": "train",
    "tensorflow_datasets": "tfds",
    "tf2onnx": "onnx",
    "onnx": "onnx",
    "onnxruntime": "onnx",
}


# Cached also for AutoGraph: it looks into every function that a traced one calls, but not into cached ones; what it
# finds in an import it prints, the whole environment of the process among it.
@functools.cache
def require(module: str) -> Any:
    """Imports `module`.

    Raises:
        MissingExtraError: if it is not installed, with the line that installs it.
    """
    if module == "tensorflow":
        prepare_tensorflow()
    try:
        with _environment_of_keras() if module == "keras" else contextlib.nullcontext():
            return importlib.import_module(module)
    except ModuleNotFoundError as error:
        top = module.partition(".")[0]
        if error.name not in (module, top):
            raise
        raise _missing(top) from error


def require_installed(module: str) -> None:
    """As `require`, but imports nothing.

    Raises:
        MissingExtraError: if it is not installed.
    """
    if not has(module):
        raise _missing(module)


def _missing(module: str) -> MissingExtraError:
    extra = _EXTRA_OF.get(module)
    line = f"pip install 'mltool-tf[{extra}]'" if extra else f"pip install {module}"
    return MissingExtraError(f"this needs {module}, which is not installed", line)


@functools.cache
def tensorflow() -> Any:
    """TensorFlow, for code that cannot run without it; see `require`."""
    return require("tensorflow")


@functools.cache
def keras() -> Any:
    """Keras 3 on the backend of this process; see `require`.

    Raises:
        MachineError: if the environment asks for another backend, or for Keras 2.
    """
    return require("keras")


def has(module: str) -> bool:
    """Whether `module` is installed; imports nothing."""
    import importlib.util

    return importlib.util.find_spec(module) is not None


_chosen = {"backend": "tensorflow"}


def backend() -> str:
    """What Keras computes with in this process: `tensorflow`, `jax` or `torch`."""
    return _chosen["backend"]


def use_backend(name: str) -> None:
    """Chooses the backend of this process; it counts when Keras is first imported, and cannot be changed after."""
    _chosen["backend"] = name


def given_backend() -> str | None:
    """The backend that the user's environment asks for, None where it does not."""
    return _GIVEN["KERAS_BACKEND"]


def require_environment(wanted: str) -> None:
    """Proves that the user's environment asks for no other Keras than the one that is needed.

    Args:
        wanted: the backend.

    Raises:
        MachineError: naming the variable.
    """
    given, legacy = _GIVEN["KERAS_BACKEND"], _GIVEN["TF_USE_LEGACY_KERAS"]
    if given not in (None, wanted):
        message = f"KERAS_BACKEND is {given!r} in the environment, and this runs on {wanted!r}, as the spec says"
        hint = f"unset KERAS_BACKEND{f', or write train.backend: {given}' if given in ('jax', 'torch') else ''}"
        if wanted == "tensorflow":
            message = f"KERAS_BACKEND is {given!r} in the environment, and this needs 'tensorflow'"
            hint = "unset KERAS_BACKEND; what a model is trained with is train.backend in the spec"
        raise MachineError(message, hint)
    # What TensorFlow takes for a yes, in the text of tensorflow/__init__.py.
    if legacy in ("1", "true", "True"):
        message = f"TF_USE_LEGACY_KERAS is {legacy!r} in the environment: that is Keras 2, and this needs Keras 3"
        raise MachineError(message, "unset TF_USE_LEGACY_KERAS")


def prepare_tensorflow() -> None:
    """Sets what TensorFlow reads when it is first imported; what the user set stays."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    # Off, though CNN steps are 1.15 to 1.3 times faster with it: in TensorFlow 2.21 on a processor with AVX-512, the
    # gradient of a 1x1 convolution with strides 2, fewer than 16 channels and an odd batch ends the process (SIGSEGV,
    # SIGABRT), and with AVX2 alone it was wrong once in 26 steps.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")


@contextlib.contextmanager
def _environment_of_keras() -> Iterator[None]:
    """Tells Keras its backend while it is imported, and no process that this one starts.

    Raises:
        MachineError: if the environment asks for another one.
    """
    require_environment(backend())
    if backend() == "tensorflow":
        prepare_tensorflow()
    before = os.environ.get("KERAS_BACKEND")
    os.environ["KERAS_BACKEND"] = backend()
    try:
        yield
    finally:
        if before is None:
            del os.environ["KERAS_BACKEND"]
        else:
            os.environ["KERAS_BACKEND"] = before


def version_of(distribution: str) -> str | None:
    """Version of an installed distribution, without importing it; None if it is not installed."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(distribution)
    except PackageNotFoundError:
        return None

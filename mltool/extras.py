"""The door that optional packages come in by: imported when first needed, missing ones named with their pip line."""

import functools
import importlib
import os
from typing import Any

from mltool.errors import MissingExtraError

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
    "tensorflow_datasets": "tfds",
}


# Cached also for AutoGraph: it looks into every function that a traced one calls, but not into cached ones; what it
# finds in an import it prints, the whole environment of the process among it.
@functools.cache
def require(module: str) -> Any:
    """Imports `module`.

    Raises:
        MissingExtraError: if it is not installed, with the line that installs it.
    """
    if module in ("tensorflow", "keras"):
        prepare_tensorflow()
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        top = module.partition(".")[0]
        if error.name not in (module, top):
            raise
        extra = _EXTRA_OF.get(top)
        line = f"pip install 'mltool-tf[{extra}]'" if extra else f"pip install {top}"
        raise MissingExtraError(f"this needs {top}, which is not installed", line) from error


@functools.cache
def tensorflow() -> Any:
    """TensorFlow, for code that cannot run without it; see `require`."""
    return require("tensorflow")


@functools.cache
def keras() -> Any:
    """Keras 3 on TensorFlow; see `require`."""
    return require("keras")


def has(module: str) -> bool:
    """Whether `module` is installed; imports nothing."""
    import importlib.util

    return importlib.util.find_spec(module) is not None


def prepare_tensorflow() -> None:
    """Sets what TensorFlow and Keras read when they are first imported; what the user set stays."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    # 1.15 to 1.3 times faster CNN steps; off by default on some processors. It changes the last digits: recorded.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    if os.environ.setdefault("KERAS_BACKEND", "tensorflow") != "tensorflow":
        raise MissingExtraError(
            f"KERAS_BACKEND is {os.environ['KERAS_BACKEND']!r}; this version runs on tensorflow", "unset KERAS_BACKEND"
        )


def version_of(distribution: str) -> str | None:
    """Version of an installed distribution, without importing it; None if it is not installed."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(distribution)
    except PackageNotFoundError:
        return None

"""mltool: one YAML spec, from data to a verified, quantised flatbuffer.

The verbs are functions, loaded on first use: `load_spec`, `Run`, `train`, `evaluate`, `export`, `convert`, `verify`,
`benchmark`, `predict`.

Example:
    >>> import mltool
    >>> run = mltool.Run.create(mltool.load_spec("configs/digits.yaml"))
    >>> mltool.train(run)
    >>> mltool.convert(run)
"""

import importlib
from typing import Any

__version__ = "0.1.0"

# Names as strings: an import here would make every room depend on every other, and `--help` wait for TensorFlow.
_VERBS = {
    "load_spec": "mltool.spec.load",
    "Run": "mltool.runs.run",
    "train": "mltool.training.train",
    "evaluate": "mltool.evaluation.evaluate",
    "export": "mltool.exporting.export",
    "convert": "mltool.conversion.convert",
    "verify": "mltool.evaluation.verify",
    "benchmark": "mltool.benchmarking.benchmark",
    "predict": "mltool.inference.predict",
}

__all__ = [
    "Run",
    "__version__",
    "benchmark",
    "convert",
    "evaluate",
    "export",
    "load_spec",
    "predict",
    "train",
    "verify",
]


def __getattr__(name: str) -> Any:
    """Loads a verb on first use."""
    if name not in _VERBS:
        raise AttributeError(f"module 'mltool' has no attribute {name!r}")
    return getattr(importlib.import_module(_VERBS[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)

"""Calls a function of the user's, which the spec names."""

import contextlib
import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mltool.data.source import Source
from mltool.data.sources.npz import ONE_TARGET, source_of_arrays
from mltool.errors import DataError
from mltool.spec.user_code import find_file


def load_function(reference: str) -> Any:
    """Imports the function that a checked reference means.

    Args:
        reference: `module:function`, or `FILE.py:function`; the folder of the file is importable while it is imported.
    """
    module, _, function = reference.rpartition(":")
    if not module.endswith(".py"):
        return getattr(importlib.import_module(module), function)
    file = Path(module)
    spec = importlib.util.spec_from_file_location(f"mltool_user_{file.stem}", file)
    if spec is None or spec.loader is None:
        raise DataError(f"{file} cannot be imported")
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[loaded.__name__] = loaded  # dataclasses and pickle look a class's module up there
    with running(reference):
        spec.loader.exec_module(loaded)
    return getattr(loaded, function)


@contextlib.contextmanager
def running(reference: str) -> Iterator[None]:
    """Surrounds what runs code of the user's.

    Modules beside its file can be imported, and what it prints goes to stderr: stdout is the result of a command.
    """
    module = reference.rpartition(":")[0]
    folder = [str(Path(module).parent)] if module.endswith(".py") else []
    before = list(sys.path)
    sys.path[:0] = folder
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        sys.path[:] = before


def hash_of_code(reference: str) -> str:
    """SHA-256 of the file of a reference: what a run records of code that it ran."""
    file = find_file(reference.rpartition(":")[0])
    return hashlib.sha256(file.read_bytes()).hexdigest() if file is not None else ""


def load_arrays(
    reference: str,
    arguments: Mapping[str, Any],
    *,
    inputs: Mapping[str, str] | None = None,
    targets: Mapping[str, str] = ONE_TARGET,
    weight: str | None = None,
) -> Source:
    """The arrays that a function of the user's returns.

    Args:
        reference: of the function; it returns a map of arrays as an .npz holds them: `x` and `y`, or `x_train`,
            `y_train`, `x_test`, `y_test`.
        arguments: keywords that it is called with.
        inputs: see `load_npz`.
        targets: see `load_npz`.
        weight: see `load_npz`.

    Raises:
        DataError: if it raises, or returns something else.
    """
    try:
        with running(reference):
            returned = load_function(reference)(**arguments)
    # Code of the user's raises what it likes; it is not a flaw of ours, and its own traceback is under -v. Nor may it
    # end the process: exit code 0 would say that all is well.
    except (Exception, SystemExit) as error:
        kind = type(error).__name__
        raise DataError(f"{reference} raised {kind}: {error}", "call it by hand to see where") from error
    if not isinstance(returned, Mapping) or not all(isinstance(key, str) for key in returned):
        message = f"{reference} returned {type(returned).__name__}; a map of arrays is expected"
        raise DataError(message, 'return {"x": ..., "y": ...}')
    try:
        arrays = {key: np.asarray(value) for key, value in returned.items()}
    except ValueError as error:
        raise DataError(f"{reference} returned ragged arrays: {error}", "give all samples one shape") from error
    masked = [key for key, value in returned.items() if np.ma.isMaskedArray(value) and np.ma.is_masked(value)]
    if masked:
        raise DataError(f"{reference}: {masked[0]!r} has masked values", "return NaN, or a number, in their place")
    objects = [key for key, array in arrays.items() if array.dtype == object]
    if objects:
        raise DataError(f"{reference}: {objects[0]!r} is an array of objects", "return numbers or text of one shape")
    return source_of_arrays(reference, arrays, inputs, targets, weight)

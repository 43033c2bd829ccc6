"""A function of the user's that returns a model of another framework: found without running it, run in the child."""

import contextlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mltool.errors import ConversionError, SpecError, UsageError
from mltool.inference.predictor import Array
from mltool.models.user_call import call_user, in_short, where
from mltool.spec.user_code import beside, find_file, reference_problem

FLAG = "--from"
"""Of the command line, for messages."""

MAX_COMPARED = 32
"""Samples on which what was made is held against the model that it was made of."""

TOLERANCE = 1e-5
"""Largest difference from the model, as a share of its largest output: the order of float32 sums differs."""


def require_reference(reference: str, folder: Path) -> str:
    """The reference with its file in full where it lies in the folder; nothing of it is run.

    Args:
        reference: `module:function` or `FILE.py:function`.
        folder: that modules are looked for in, before the installed ones.

    Raises:
        UsageError: if the module or the function is not there.
    """
    module, _, name = reference.rpartition(":")
    with importable(folder):
        resolved = reference if _is_package(module, folder) else beside(reference, folder)
        if module and name.isidentifier() and find_file(resolved.rpartition(":")[0]) is None:
            raise UsageError(f"{FLAG} {reference}: no module {module!r} lies in {folder} or is installed", "check it")
        problem = reference_problem(resolved)
    if problem is not None:
        raise UsageError(f"{FLAG} {reference}: {problem.message}", problem.hint.removeprefix("write python: "))
    return resolved


def _is_package(module: str, folder: Path) -> bool:
    """Whether a module lies in a package of the folder: it is imported as a part of it, so that it finds the rest."""
    top = module.partition(".")[0]
    return "." in module and not module.endswith(".py") and (folder / top / "__init__.py").is_file()


@contextlib.contextmanager
def importable(folder: Path) -> Iterator[None]:
    """Modules of a folder can be imported, before all others."""
    before = list(sys.path)
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path[:] = before


def call_for_model(reference: str) -> Any:
    """What the function returns.

    Raises:
        UsageError: if it takes arguments, or raises; with the line of its file.
    """
    try:
        return call_user(reference, {}, key=FLAG)
    except SpecError as error:
        raise UsageError(error.messages) from error


def refuse_call(reference: str, samples: Mapping[str, Array], error: BaseException, hint: str) -> ConversionError:
    """What to raise where the model does not take the samples."""
    shapes = ", ".join(f"{name} {(1, *array.shape[1:])} of {array.dtype}" for name, array in samples.items())
    text = f"the model of {reference} does not take {shapes}: {in_short(error)}"
    return ConversionError(text, "; ".join(part for part in (where(error, reference), hint) if part))


def chosen_samples(
    reference: str, given: Mapping[str, Array] | None, returned: Mapping[str, Array] | None
) -> dict[str, Array]:
    """The data's samples, else those that the function returned, [samples, ...] by name.

    Raises:
        UsageError: if there are none, or the two differ in shape.
    """
    if given is None and returned is None:
        message = f"{reference} returns no sample inputs, and there are no data to take them from"
        raise UsageError(message, "return (model, inputs), or name a spec with data")
    if given is None:
        return {name: np.asarray(array)[:MAX_COMPARED] for name, array in (returned or {}).items()}
    chosen = {name: np.asarray(array)[:MAX_COMPARED] for name, array in given.items()}
    if returned is not None and len(returned) == len(chosen):
        pairs = zip(list(chosen.items()), returned.values(), strict=True)
        for (name, array), other in pairs:
            if array.shape[1:] != np.shape(other)[1:]:
                message = f"{reference} returns sample inputs of shape {np.shape(other)[1:]}, the data's {name!r} are"
                raise UsageError(f"{message} {array.shape[1:]}", "the data's layout must be what the model takes")
            # Data are float32 whatever they count; what the function returns says whether the model wants ids.
            chosen[name] = array.astype(np.asarray(other).dtype)
    return chosen


def match_names(reference: str, taken: Sequence[str], samples: Mapping[str, Array]) -> dict[str, str]:
    """Which parameter of the model takes which input: of one there is no doubt, of several the names must be equal.

    Args:
        reference: of the function, for messages.
        taken: parameters without a default.
        samples: by input.

    Returns:
        The parameter, by input.

    Raises:
        UsageError: if they do not fit.
    """
    if len(taken) == len(samples) == 1:
        return {next(iter(samples)): taken[0]}
    if set(taken) != set(samples):
        message = f"the model of {reference} takes {', '.join(taken) or 'nothing'}; the inputs are {', '.join(samples)}"
        raise UsageError(message, "give them the same names")
    return {name: name for name in samples}


def difference(expected: Mapping[str, Array], found: Mapping[str, Array]) -> float:
    """Largest difference over all outputs, each as a share of its largest value; infinite where one is no number."""
    worst = 0.0
    for name, values in expected.items():
        answer = np.asarray(found[name], np.float64)
        if answer.shape != values.shape or not np.isfinite(answer).all():
            return float("inf")
        largest = float(np.abs(values).max()) or 1.0
        worst = max(worst, float(np.abs(answer - values).max()) / largest)
    return worst

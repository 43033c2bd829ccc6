"""A JAX function of the user's to a SavedModel; runs inside the child process.

By `jax2tf`, which since JAX 0.10 writes StableHLO inside of one operator, XlaCallModule; TFLiteConverter makes builtin
operators of it. The batch is one sample: a free one was measured to leave 16 more operators of 21 that compute shapes
in the file, after it was fixed too.
"""

import inspect
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mltool import extras
from mltool.conversion.sources.user_models import (
    TOLERANCE,
    call_for_model,
    chosen_samples,
    difference,
    importable,
    match_names,
    refuse_call,
)
from mltool.errors import ConversionError, UsageError, VerificationError
from mltool.exporting.export import SIGNATURE
from mltool.inference.predictor import Array
from mltool.models.user_call import described, in_short, where

OUTPUT = "output"
"""Name of what a function gives that gives one array; of several `output_0` and so on."""


def make_saved_model(*, reference: str, folder: str, made: str, samples: Mapping[str, Array] | None) -> dict[str, Any]:
    """Calls the function, writes what it returns as a SavedModel of one sample a call, and holds that against it.

    Args:
        reference: of the function; checked. It returns a callable of the inputs, or (callable, parameters) for one
            that takes the parameters first, as Flax's `apply` does, or (callable, parameters, sample inputs).
        folder: that its modules are imported from.
        made: folder to write; must not be there.
        samples: inputs by name, [samples, ...]; None for those that the function returns.

    Returns:
        What `Foreign` is made of.

    Raises:
        UsageError: if the function raises, or returns something else.
        ConversionError: if the callable does not take the samples, or cannot be converted.
        VerificationError: if the SavedModel does not answer as the callable.
    """
    jax, tf = extras.require("jax"), extras.tensorflow()
    with importable(Path(folder)):
        function, parameters, returned = _parts(reference, call_for_model(reference))
        taken = _inputs_of(function, parameters)
        chosen = chosen_samples(reference, samples, _by_name(reference, taken, returned))
        call = _by_keyword(reference, function, parameters, taken, chosen)
        expected = _answers(reference, call, chosen)
        _require_float32(reference, {**chosen, **expected})
        _write(reference, call, chosen, Path(made))
    served = tf.saved_model.load(made).signatures[SIGNATURE]
    off = _verify(reference, served, chosen, expected)
    return {
        "folder": made,
        "file": None,
        "signature": SIGNATURE,
        "inputs": {name: (array.dtype.name, [1, *array.shape[1:]]) for name, array in chosen.items()},
        "outputs": {name: (array.dtype.name, [1, *array.shape[1:]]) for name, array in expected.items()},
        "layers": [],
        "loaded_by": f"jax2tf of jax {jax.__version__}",
        "difference": off,
    }


def _parts(reference: str, returned: Any) -> tuple[Any, Any, Any]:
    """The callable, its parameters, and the sample inputs; None where there are none."""
    hint = "return a callable of the inputs, or (callable, parameters), or (callable, parameters, sample inputs)"
    parts = returned if isinstance(returned, tuple) else (returned,)
    if len(parts) > 3 or isinstance(parts[0], type) or not callable(parts[0]):
        raise UsageError(f"{reference} returned {described(returned)}", hint)
    function, parameters, inputs = (*parts, None, None)[:3]
    return function, parameters, inputs


def _inputs_of(function: Any, parameters: Any) -> list[str] | None:
    """The names of what the callable needs behind its parameters; None where Python does not tell."""
    try:
        taken = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return None
    needed = [one for one in taken if one.default is one.empty and one.kind == one.POSITIONAL_OR_KEYWORD]
    return [one.name for one in needed][0 if parameters is None else 1 :] or None


def _by_name(reference: str, taken: list[str] | None, returned: Any) -> dict[str, Array] | None:
    """Sample inputs that the function returned: an array, a tuple of them in the order of the callable, or a map."""
    if returned is None:
        return None
    if not isinstance(returned, Mapping):
        several = returned if isinstance(returned, tuple | list) else (returned,)
        names = taken or [f"x{index}" for index in range(len(several))]
        if len(several) != len(names):
            message = f"{reference} returned {len(several)} sample inputs, its callable takes {', '.join(names)}"
            raise UsageError(message, "return one for each, with an axis of samples")
        returned = dict(zip(names, several, strict=True))
    return {name: np.asarray(value) for name, value in returned.items()}


def _by_keyword(
    reference: str, function: Any, parameters: Any, taken: list[str] | None, samples: Mapping[str, Array]
) -> Any:
    """A function of a map of inputs that gives a map of outputs."""
    before = () if parameters is None else (parameters,)
    if len(samples) > 1:
        if taken is None:
            message = f"the callable of {reference} does not say what its inputs are called"
            raise UsageError(message, f"wrap it: lambda {', '.join(samples)}: ...")
        match_names(reference, taken, samples)

    def call(inputs: Mapping[str, Any]) -> dict[str, Any]:
        if len(inputs) == 1:
            return _outputs(function(*before, *inputs.values()))
        return _outputs(function(*before, **inputs))

    return call


def _outputs(answers: Any) -> dict[str, Any]:
    if isinstance(answers, Mapping):
        return {str(name): answer for name, answer in answers.items()}
    if isinstance(answers, tuple | list):
        return {f"{OUTPUT}_{index}": answer for index, answer in enumerate(answers)}
    return {OUTPUT: answers}


def _answers(reference: str, call: Any, samples: Mapping[str, Array]) -> dict[str, Array]:
    """What the callable gives for the samples, one at a time as the SavedModel will."""
    parts = []
    for index in range(len(next(iter(samples.values())))):
        one = {name: array[index : index + 1] for name, array in samples.items()}
        try:
            parts.append({name: np.asarray(value) for name, value in call(one).items()})
        # Whatever a function of the user's raises.
        except Exception as error:
            raise refuse_call(reference, samples, error, "the data must be what the callable takes") from error
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _require_float32(reference: str, arrays: Mapping[str, Array]) -> None:
    unfit = ("float64", "complex64", "complex128")
    wrong = next(((name, array.dtype) for name, array in arrays.items() if array.dtype.name in unfit), None)
    if wrong is not None:
        message = f"{wrong[0]!r} of the callable of {reference} is {wrong[1]}, which no operator of LiteRT computes in"
        raise ConversionError(message, "give and return float32; jax_enable_x64 makes float64 of it")


def _write(reference: str, call: Any, samples: Mapping[str, Array], folder: Path) -> None:
    """A signature of one sample a call, the parameters inside as constants."""
    tf, jax2tf = extras.tensorflow(), extras.require("jax.experimental.jax2tf")
    specs = {name: tf.TensorSpec((1, *array.shape[1:]), array.dtype, name=name) for name, array in samples.items()}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            converted = jax2tf.convert(call, with_gradient=False)
            served = tf.function(lambda **inputs: converted(inputs), autograph=False).get_concrete_function(**specs)
        tf.saved_model.save(tf.Module(), str(folder), signatures={SIGNATURE: served})
    # jax2tf raises what JAX does for code that depends on values, and NotImplementedError for what it does not know.
    except Exception as error:
        said = in_short(error).partition(" The error occurred while tracing")[0]
        message = f"jax2tf cannot convert the callable of {reference}: {said}"
        hint = "it must be one that jax.jit takes"
        raise ConversionError(message, "; ".join(part for part in (where(error, reference), hint) if part)) from error


def _verify(reference: str, served: Any, samples: Mapping[str, Array], expected: Mapping[str, Array]) -> float:
    """Runs the SavedModel on the samples."""
    tf = extras.tensorflow()
    parts = [
        served(**{name: tf.constant(array[index : index + 1]) for name, array in samples.items()})
        for index in range(len(next(iter(samples.values()))))
    ]
    off = difference(expected, {name: np.concatenate([np.asarray(part[name]) for part in parts]) for name in expected})
    if not off <= TOLERANCE:
        message = f"the SavedModel made of {reference} is off by {off:.3g} of the callable's largest output"
        raise VerificationError(f"{message}, allowed is {TOLERANCE:g}", "this is a flaw of jax2tf")
    return off

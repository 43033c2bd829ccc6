"""A PyTorch module of the user's to a float `.tflite` file; runs inside the child process.

By litert-torch: of the ways from PyTorch to LiteRT (through ONNX and TensorFlow, or jax), the only one that is kept up
by LiteRT's own makers. The file takes one sample a call: with a free batch it fails on any `view` or `flatten`
(litert-torch 0.10).
"""

import inspect
import logging
import re
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
from mltool.inspection.flatbuffer import read_flatbuffer
from mltool.models.user_call import described, in_short

logger = logging.getLogger("mltool")

OUTPUT = "output"
"""Name of what a module gives that gives one tensor; of several `output_0` and so on."""


def make_float_file(*, reference: str, folder: str, made: str, samples: Mapping[str, Array] | None) -> dict[str, Any]:
    """Calls the function, converts the module that it returns, and holds the file against it.

    Args:
        reference: of the function; checked.
        folder: that its modules are imported from.
        made: path of the file to write.
        samples: inputs by name, [samples, ...]; None for those that the function returns.

    Returns:
        What `Foreign` is made of.

    Raises:
        UsageError: if the function raises, or returns something else.
        ConversionError: if the module does not take the samples, or cannot be converted.
        VerificationError: if the file does not answer as the module.
    """
    torch, converter = extras.require("torch"), extras.require("litert_torch")
    with importable(Path(folder)):
        module, returned = _module(reference, call_for_model(reference))
        _require_float32(reference, module)
        parameters = _parameters(reference, module)
        chosen = chosen_samples(reference, samples, _by_name(reference, parameters, returned))
        names = match_names(reference, parameters, chosen)
        wrapped = _wrapped(torch, module, names)
        expected = _answers(reference, torch, wrapped, chosen)
        first = {name: torch.from_numpy(np.ascontiguousarray(array[:1])) for name, array in chosen.items()}
        try:
            converter.convert(wrapped, sample_kwargs=first).export(made)
        # The exporter, the compiler and the converter each raise their own.
        except Exception as error:
            message = f"litert-torch cannot convert the module of {reference}: {in_short(error)}"
            raise ConversionError(message, "see its traceback with -v; another layer may do") from error
    off = _verify(reference, Path(made), chosen, expected)
    file = read_flatbuffer(Path(made))
    (signature,) = file.signatures
    return {
        "folder": None,
        "file": made,
        "signature": SIGNATURE,
        "inputs": {name: (tensor.dtype, list(tensor.shape)) for name, tensor in signature.inputs.items()},
        "outputs": {name: (tensor.dtype, list(tensor.shape)) for name, tensor in signature.outputs.items()},
        "layers": _layers(output.name for op in file.operators for output in op.outputs[:1]),
        "loaded_by": f"litert-torch {extras.version_of('litert-torch')}, torch {torch.__version__}",
        "difference": off,
    }


def _module(reference: str, returned: Any) -> tuple[Any, Any]:
    """The module, and the sample inputs where they came with it."""
    torch = extras.require("torch")
    hint = "return a torch.nn.Module, or (module, sample inputs)"
    module, inputs = returned if isinstance(returned, tuple) and len(returned) == 2 else (returned, None)
    if isinstance(module, type):
        raise UsageError(f"{reference} returned the class {module.__name__}", f"{hint}: call it")
    if not isinstance(module, torch.nn.Module):
        raise UsageError(f"{reference} returned {described(returned)}", hint)
    training = [name for name, part in module.named_modules() if part.training]
    if training:
        where = f", {training[0]!r} is" if training[0] else ""
        message = f"the module of {reference} is in training mode{where}: its dropout and statistics would be too"
        raise UsageError(message, "return module.eval()")
    return module, inputs


def _require_float32(reference: str, module: Any) -> None:
    tensors = (*module.named_parameters(), *module.named_buffers())
    dtypes = ((name, str(tensor.dtype).removeprefix("torch.")) for name, tensor in tensors)
    wrong = next(((name, dtype) for name, dtype in dtypes if dtype in ("float64", "complex64", "complex128")), None)
    if wrong is not None:
        message = f"{wrong[0]!r} of the module of {reference} is {wrong[1]}"
        raise ConversionError(f"{message}, which no operator of LiteRT computes in", "return module.float()")


def _parameters(reference: str, module: Any) -> list[str]:
    """What `forward` needs, by name."""
    taken = inspect.signature(module.forward).parameters.values()
    loose = [one for one in taken if one.kind in (one.VAR_POSITIONAL, one.VAR_KEYWORD, one.POSITIONAL_ONLY)]
    if loose:
        message = f"forward of the module of {reference} takes {loose[0]}: its inputs have no names"
        raise UsageError(message, "wrap it in a module whose forward names them")
    return [one.name for one in taken if one.default is one.empty]


def _by_name(reference: str, parameters: list[str], returned: Any) -> dict[str, Array] | None:
    """Sample inputs that the function returned: a tensor, a tuple of them in the order of forward, or a map."""
    if returned is None:
        return None
    if not isinstance(returned, Mapping):
        several = returned if isinstance(returned, tuple | list) else (returned,)
        if len(several) != len(parameters):
            message = f"{reference} returned {len(several)} sample inputs, forward takes {', '.join(parameters)}"
            raise UsageError(message, "return one for each, with an axis of samples")
        returned = dict(zip(parameters, several, strict=True))
    return {name: np.asarray(value) for name, value in returned.items()}


def _wrapped(torch: Any, module: Any, names: Mapping[str, str]) -> Any:
    """The module under the inputs' own names, its outputs with names; the file keeps both."""

    class Named(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.module = module

        def forward(self, **inputs: Any) -> Any:
            return _outputs(self.module(**{names[name]: value for name, value in inputs.items()}))

    return Named().eval()


def _outputs(answers: Any) -> dict[str, Any]:
    if isinstance(answers, Mapping):
        return dict(answers)
    if isinstance(answers, tuple | list):
        return {f"{OUTPUT}_{index}": answer for index, answer in enumerate(answers)}
    return {OUTPUT: answers}


def _answers(reference: str, torch: Any, module: Any, samples: Mapping[str, Array]) -> dict[str, Array]:
    """What the module gives for the samples, one at a time as the file will."""
    parts: list[dict[str, Array]] = []
    with torch.no_grad():
        for index in range(len(next(iter(samples.values())))):
            one = {name: torch.from_numpy(np.array(array[index : index + 1])) for name, array in samples.items()}
            try:
                answers = module(**one)
            # Whatever a module of the user's raises.
            except Exception as error:
                raise refuse_call(reference, samples, error, _layout_hint(samples)) from error
            parts.append({name: np.asarray(value) for name, value in answers.items()})
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _layout_hint(samples: Mapping[str, Array]) -> str:
    """Images of most data have their channels last, and modules want them first; nothing is turned round in silence."""
    images = [name for name, array in samples.items() if array.ndim == 4 and array.shape[-1] in (1, 3, 4)]
    if images:
        told = f"{images[0]!r} has its channels last, PyTorch's layers want them first"
        return f"{told}: turn it in forward, x.permute(0, 3, 1, 2)"
    return "the data must be what the module takes"


def _verify(reference: str, file: Path, samples: Mapping[str, Array], expected: Mapping[str, Array]) -> float:
    """Runs the file with LiteRT; a crash of it is one of this child."""
    litert = extras.require("ai_edge_litert.interpreter")
    runner = litert.Interpreter(model_path=str(file), num_threads=1).get_signature_runner(SIGNATURE)
    dtypes = {name: detail["dtype"] for name, detail in runner.get_input_details().items()}
    count = len(next(iter(samples.values())))
    parts = [
        runner(**{name: array[index : index + 1].astype(dtypes[name]) for name, array in samples.items()})
        for index in range(count)
    ]
    found = {name: np.concatenate([part[name] for part in parts]) for name in expected}
    off = difference(expected, found)
    if not off <= TOLERANCE:
        message = f"the file made of {reference} is off by {off:.3g} of the module's largest output"
        raise VerificationError(f"{message}, allowed is {TOLERANCE:g}", "this is a flaw of litert-torch")
    return off


def _layers(names: Any) -> list[str]:
    """Modules as the file's tensors name them: the last part of `Net_model/torch.nn.modules.conv.Conv2d_stem;`."""
    parts = (part.rpartition("/")[2] for joined in names for part in joined.split(";") if "/" in part)
    return list(dict.fromkeys(re.sub(r"\d+$", "", part) if not re.search(r"_\d+$", part) else part for part in parts))

"""A float `.tflite` file to a quantized one with litert-quantizer; runs inside the child process (`mltool/child.py`).

For what TensorFlow's converter cannot make: 4-bit weights, weights unpacked at run time, scales per block, 16-bit
activations with float fallback, layers in schemes of their own. It needs no TensorFlow, and a tenth of a second for
a small model. That it returns means little; `read_back` says what the file is.
"""

import contextlib
import re
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mltool import extras
from mltool.conversion.engines.op_versions import set_versions
from mltool.conversion.engines.recipe import Recipe, require_fits
from mltool.conversion.engines.samples import Arrays, Batches, Taken, load_samples
from mltool.errors import ConversionError
from mltool.inspection.flatbuffer import read_flatbuffer
from mltool.inspection.model_file import SMALL_INTEGER_TYPES, ModelFile, Signature
from mltool.runs.atomic import writing

CALIBRATION_THREADS = 1
"""Several threads may add up in another order, and the same inputs must give the same bytes."""

LARGEST_BYTES = 2_000_000_000
"""A flatbuffer's own offsets end at 2 GiB, and not all runtimes know buffers outside of it."""


def quantize_file(
    *, source: str, output: str, recipe: Recipe, representative: str | None, signature: str
) -> dict[str, Any]:
    """Quantizes a float `.tflite` file by a recipe; the result appears under its name when it is whole.

    The same arguments give the same bytes. Names of signatures, inputs, outputs and tensors stay; operators get the
    versions that they need.

    Args:
        source: the float file; only the signature that is named is calibrated, so it may have no other.
        output: path of the result; overwritten.
        recipe: as `recipe_for` and `read_recipe` give it.
        representative: an `.npz` file with one array per input, `[n, ...]`; needed where the recipe has integer
            activations, ignored otherwise.
        signature: its key, such as `serving_default`.

    Returns:
        `seconds` (by step: `calibrate`, `quantize`), `messages`, `bytes` (size of the file).

    Raises:
        ArtifactError: the source is missing or damaged.
        DiskError: the result cannot be written.
        ConversionError: the source is quantized already or has not this signature alone, the representative dataset is
            unfit, a rule finds no operator, or the quantizer cannot do what the recipe says.
    """
    file = read_flatbuffer(Path(source))
    chosen = _require_float(file, signature)
    require_fits(recipe, file)
    extras.require("litert_quantizer")
    from litert_quantizer.quantizer import Quantizer

    seconds: dict[str, float] = {}
    messages: list[str] = []
    with warnings.catch_warnings(), _explained():
        warnings.simplefilter("ignore")
        quantizer = Quantizer(source)
        quantizer.load_quantization_recipe(recipe)
        ranges = None
        if quantizer.need_calibration:
            samples = load_samples(representative, _taken(chosen))
            with _timed(seconds, "calibrate"):
                ranges = _calibrate(source, quantizer, samples, chosen)
            _require_finite(ranges, messages)
        with _timed(seconds, "quantize"):
            result = quantizer.quantize(ranges, enable_progress_bar=False, enable_progress_report=False)
            data = _with_versions(result.quantized_model, file.min_runtime_version)
    with writing(Path(output)) as made:
        made.write_bytes(data)
    return {"seconds": seconds, "messages": messages, "bytes": len(data)}


def _require_float(file: ModelFile, signature: str) -> Signature:
    """Proves that the file can be quantized; the quantizer mangles what is quantized already without a word."""
    quantized = [tensor for tensor in file.tensors if tensor.dtype in SMALL_INTEGER_TYPES | {"float16"}]
    quantized = quantized or [tensor for tensor in file.tensors if tensor.scales]
    if quantized:
        raise ConversionError(
            f"{file.path} is quantized already: tensor {quantized[0].name!r} is {quantized[0].dtype}",
            "give the file of quantize: none",
        )
    names = [entry.name for entry in file.signatures]
    if names != [signature]:
        raise ConversionError(f"{file.path} needs one signature, {signature!r}, and has {names or 'none'}")
    broken = next((tensor for tensor in file.constants if not tensor.finite), None)
    if broken is not None:
        raise ConversionError(f"{file.path}: constant {broken.name!r} is not finite", "did training diverge?")
    return file.signatures[0]


def _taken(signature: Signature) -> dict[str, Taken]:
    return {
        name: Taken(tensor.shape[1:], np.dtype(np.bool_ if tensor.dtype == "bool" else tensor.dtype))
        for name, tensor in signature.inputs.items()
    }


def _calibrate(source: str, quantizer: Any, samples: Arrays, signature: Signature) -> dict[str, Any]:
    """Least and greatest value of every tensor.

    As TensorFlow's converter does: over all samples. litert-quantizer's own moving average gives errors 3 to 5 times as
    large (measured with 0.11 on CNNs), and `Quantizer.calibrate` leaves no choice.
    """
    from litert_quantizer.calibrator import CalibrationMode, Calibrator
    from litert_quantizer.utils.qsv_utils import min_max_update

    calibrator = Calibrator(
        source,
        num_threads=CALIBRATION_THREADS,
        mode=CalibrationMode.CALIBRATION_PROFILER_BASED,
        qsv_update_func=min_max_update,
    )
    batch = max((tensor.shape[0] for tensor in signature.inputs.values() if tensor.shape), default=1)
    # It goes through the data twice: a generator would be empty the second time.
    batches = Batches(samples, max(batch, 1))
    calibrator.calibrate({signature.name: batches}, quantizer._recipe_manager)
    found: dict[str, Any] = calibrator.get_model_qsvs()
    return found


def _require_finite(ranges: Mapping[str, Any], messages: list[str]) -> None:
    """An infinite range makes a scale that is not a number, and LiteRT dies of it."""
    if not ranges:
        raise ConversionError("calibration told no ranges: the model ran, but no tensor was seen")
    for name, values in ranges.items():
        low, high = float(np.min(values["min"])), float(np.max(values["max"]))
        if not (np.isfinite(low) and np.isfinite(high)):
            raise ConversionError(
                f"tensor {name!r} spans {low:g} to {high:g} on the representative dataset",
                "a layer divides by zero or overflows inside of the model",
            )
        if low == high:
            messages.append(f"tensor {name!r} is {low:g} in all samples")


def _with_versions(quantized: Any, known: str | None) -> bytes:
    """The file with the versions of its operators, and all values inside of the flatbuffer, as the converter has them.

    Above 256 KiB litert-quantizer writes values behind the flatbuffer; reading them any other way than with
    `flatbuffer_utils` loses them.
    """
    from ai_edge_litert.tools import flatbuffer_utils

    if len(quantized) > LARGEST_BYTES:
        raise ConversionError(f"the quantized model has {len(quantized):,} bytes, a file may have {LARGEST_BYTES:,}")
    with tempfile.NamedTemporaryFile(suffix=".tflite") as scratch:
        scratch.write(quantized)
        scratch.flush()
        operators = read_flatbuffer(Path(scratch.name)).operators
    model = flatbuffer_utils.read_model_from_bytearray(bytearray(quantized))
    set_versions(model, operators, known)
    for buffer in model.buffers:
        if buffer.data is not None:  # as an array it is copied at once, as a list byte by byte
            buffer.data = np.frombuffer(bytes(buffer.data), np.uint8)
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


_NOT_DIVISIBLE = re.compile(r"Quantized dimension (\d+) .* is not divisible by block size (\d+)")


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    """What litert-quantizer refuses, as a ConversionError; it raises built-in exceptions throughout."""
    try:
        yield
    except (ValueError, RuntimeError, KeyError, NotImplementedError, AttributeError, TypeError, IndexError) as error:
        text = " ".join(str(error).split()) or type(error).__name__
        if found := _NOT_DIVISIBLE.search(text):
            hint = f"{found[1]} inputs cannot be divided into blocks of {found[2]}"
            raise ConversionError(f"the quantizer failed: {text}", hint) from error
        raise ConversionError(f"the quantizer failed: {text}") from error


@contextlib.contextmanager
def _timed(seconds: dict[str, float], step: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[step] = time.perf_counter() - start

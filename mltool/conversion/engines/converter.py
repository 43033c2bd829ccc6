"""A SavedModel to a `.tflite` file with TensorFlow's converter; runs inside the child process (`mltool/child.py`).

That it returns means little: converters were seen to answer with a float file where int8 was asked for, without a word.
`read_back` says what the file is.
"""

import logging
import tempfile
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from mltool.conversion.engines.recurrent import free_the_batch
from mltool.conversion.engines.samples import Arrays, Batches, Taken, load_samples
from mltool.conversion.engines.saved_model import first_line, open_saved_model
from mltool.conversion.schemes import SCHEMES
from mltool.errors import ConversionError
from mltool.inspection.flatbuffer import read_flatbuffer
from mltool.inspection.layers import LayerNames
from mltool.runs.atomic import writing

_log = logging.getLogger(__name__)

GRANULARITIES = ("channel", "tensor")

_OWN_CALIBRATOR = "tf.lite.Interpreter is deprecated"
"""In the warning that the converter's own calibrator provokes at every int8 conversion."""


@dataclass
class _Job:
    """One conversion: what was asked for, and what is learned on the way."""

    signature: str
    quantize: str
    io: str
    batch: int | None
    keep_float: Sequence[str]
    layer_names: Sequence[str]
    granularity: str
    samples: Arrays | None = None
    recurrent: bool = False
    wide: bool = False
    seconds: dict[str, float] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)

    @property
    def frees_batch(self) -> bool:
        """Whether the batch is left free for the converter, and set in the file that it makes.

        The converter's calibrator crashes on the loop of a recurrent layer with a fixed batch, 10 of 10.
        """
        return self.recurrent and (self.batch is None or self.quantize == "int8")


def convert_saved_model(
    *,
    saved_model: str,
    signature: str,
    output: str,
    quantize: str,
    io: str,
    batch: int | None,
    representative: str | None,
    keep_float: Sequence[str],
    layer_names: Sequence[str],
    granularity: Literal["channel", "tensor"] = "channel",
    scratch: str | None = None,
) -> dict[str, Any]:
    """Converts one signature of a SavedModel and writes the file under a temporary name until it is whole.

    The same arguments give the same bytes. Names of inputs and outputs stay as they are in the SavedModel's signature.

    Args:
        saved_model: its folder.
        signature: key of the signature, such as `serving_default`.
        output: path of the `.tflite` file; overwritten.
        quantize: a name in `SCHEMES`.
        io: `float32`, `int8` or `uint8`: type of inputs and outputs that are float in the SavedModel.
        batch: number of samples per run, fixed in the file; `None` leaves it free.
        representative: an `.npz` file with one array per input, `[n, ...]`, that calibrates `int8`; ignored otherwise.
        keep_float: layers whose operators stay float in an `int8` file with float inputs and outputs.
        layer_names: the Keras layers in the order of the model, for `keep_float` and for messages.
        granularity: `channel` gives every output channel of an int8 weight a scale of its own, `tensor` one to all.
        scratch: a folder that outlives the call: what one conversion prepared there serves the next of the same model.

    Returns:
        `seconds` (by step: `load`, `convert`, `quantize`), `messages` (the converter's warnings and what was noticed),
        `bytes` (size of the file).

    Raises:
        ConversionError: the scheme does not allow what is asked, the representative dataset is unfit, or the converter
            cannot convert the model: then with the operator and the layer, as far as it told.
        DiskError: the file cannot be written.
    """
    job = _Job(signature, quantize, io, batch, tuple(keep_float), tuple(layer_names), granularity)
    _check(job)
    with tempfile.TemporaryDirectory() as own, warnings.catch_warnings(record=True) as caught:
        start = time.perf_counter()
        folder = _prepare(job, saved_model, representative, Path(scratch or own))
        job.seconds["load"] = time.perf_counter() - start
        data = _convert(job, folder, Path(own))
        if job.wide:
            _refuse_float64(job, data, Path(own))
    _write(Path(output), data)
    texts = {" ".join(str(entry.message).split()) for entry in caught}
    job.messages += sorted(text for text in texts if _OWN_CALIBRATOR not in text)
    return {"seconds": job.seconds, "messages": job.messages, "bytes": len(data)}


def _check(job: _Job) -> None:
    """The combinations that no converter option can express."""
    scheme = SCHEMES.get(job.quantize)
    if scheme is None:
        raise ConversionError(f"no scheme is called {job.quantize!r}", f"one of {', '.join(SCHEMES)}")
    if scheme.engine != "converter":
        raise ConversionError(f"the converter cannot make {job.quantize}, the quantizer can")
    if job.io not in scheme.io:
        raise ConversionError(
            f"scheme {job.quantize} cannot have io: {job.io}", f"io is one of {', '.join(scheme.io)}, or quantize: int8"
        )
    if job.keep_float and (job.quantize, job.io) != ("int8", "float32"):
        raise ConversionError(
            f"keep_float {list(job.keep_float)} cannot be kept with quantize: {job.quantize} and io: {job.io}",
            "layers can be kept float in an int8 file with float inputs and outputs only",
        )
    if job.granularity not in GRANULARITIES:
        raise ConversionError(f"no granularity is called {job.granularity!r}", f"one of {', '.join(GRANULARITIES)}")
    if job.granularity == "tensor" and job.quantize not in ("int8", "dynamic"):
        raise ConversionError(
            f"granularity: tensor is of int8 weights, and quantize: {job.quantize} has none", "leave granularity out"
        )
    if unknown := [name for name in job.keep_float if name not in job.layer_names]:
        raise ConversionError(f"keep_float names no layer: {unknown}", f"the layers are {list(job.layer_names)}")
    if job.batch is not None and job.batch < 1:
        raise ConversionError(f"batch must be at least 1 (got {job.batch})")


def _taken(specs: Mapping[str, Any]) -> dict[str, Taken]:
    """What each input takes, told by its TensorSpec."""
    return {
        name: Taken(
            tuple(-1 if size is None else size for size in spec.shape[1:].as_list()),
            np.dtype(spec.dtype.as_numpy_dtype),
        )
        for name, spec in specs.items()
    }


def _prepare(job: _Job, saved_model: str, representative: str | None, scratch: Path) -> str:
    """Looks into the SavedModel, checks the samples against it, and gives the folder that the converter is to read."""
    opened = open_saved_model(saved_model, job.signature)
    job.recurrent, job.wide = opened.recurrent, opened.wide
    if job.quantize == "int8":
        job.samples = load_samples(representative, _taken(opened.specs))
    if job.batch is None or job.frees_batch:
        return saved_model
    return opened.with_batch(job.batch, scratch)


def _convert(job: _Job, folder: str, scratch: Path) -> bytes:
    from tensorflow.lite.python.convert_phase import ConverterError

    start = time.perf_counter()
    try:
        data: bytes = _converter(job, folder).convert()
        if job.frees_batch and job.quantize != "int8":
            data = free_the_batch(data, job.batch)
        job.seconds["convert"] = time.perf_counter() - start
        return _quantize_but(job, data, scratch) if job.keep_float else data
    except ConverterError as error:
        raise _explain(error, job) from error
    except ConversionError:
        raise
    except Exception as error:
        if not str(error).strip():  # its quantizer, of a recurrent layer behind a Reshape that was trained on
            hint = "take another scheme, or keep_float: [LAYER], one by one, to find what it cannot quantize"
            raise ConversionError(f"the converter failed without a word ({type(error).__name__})", hint) from error
        raise ConversionError(f"the converter failed: {type(error).__name__}: {first_line(error)}") from error


def _converter(job: _Job, folder: str) -> Any:
    """TensorFlow's converter, set for the scheme; builtin operators only, since no wheel has a Flex delegate."""
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=[job.signature])
    converter._experimental_default_to_single_batch_in_tensor_list_ops = job.recurrent
    per_tensor = job.granularity == "tensor"
    converter._experimental_disable_per_channel = per_tensor
    converter._experimental_disable_per_channel_quantization_for_dense_layers = per_tensor
    if job.quantize != "none":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if job.quantize == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if job.samples is not None:
        samples, size = job.samples, job.batch or 1
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.representative_dataset = lambda: iter(Batches(samples, size))
        if job.frees_batch:  # before calibration, which must see the operators that are added
            quantize = converter._quantize
            converter._quantize = lambda model, *options: quantize(free_the_batch(model, job.batch), *options)
        if job.io != "float32":
            converter.inference_input_type = converter.inference_output_type = tf.as_dtype(job.io)
    converter._experimental_calibrate_only = bool(job.keep_float)
    return converter


def _quantize_but(job: _Job, calibrated: bytes, scratch: Path) -> bytes:
    """Quantizes a calibrated model to int8, all but the operators of the layers in `keep_float`.

    The converter's own quantizer, called as the converter calls it but with a list of operators (by output name) to
    leave alone, as `tf.lite.experimental.QuantizationDebugger` does with `denylisted_nodes`: all the rest is as
    without the list. litert-quantizer could do it from the float file with a recipe of regular expressions, but
    calibrates anew, writes version 1 for every operator, and is one more package that must agree with the converter.
    """
    from tensorflow.lite.python.convert import mlir_quantize

    start = time.perf_counter()
    path = scratch / "calibrated.tflite"
    path.write_bytes(calibrated)
    operators = read_flatbuffer(path, job.layer_names).operators
    kept = [op for op in operators if set(op.layers) & set(job.keep_float)]
    missing = set(job.keep_float).difference(*(op.layers for op in kept))
    for name in sorted(missing):
        job.messages.append(f"keep_float: layer {name!r} has no operator of its own, it was folded into its neighbours")
    per_tensor = job.granularity == "tensor"
    data: bytes = mlir_quantize(
        calibrated,
        disable_per_channel=per_tensor,
        disable_per_channel_for_dense_layers=per_tensor,
        denylisted_nodes=[op.outputs[0].name for op in kept],
    )
    job.seconds["quantize"] = time.perf_counter() - start
    return data


def _refuse_float64(job: _Job, data: bytes, scratch: Path) -> None:
    """No runtime of a device has kernels for float64, and no scheme quantizes it; the converter takes it all the same.

    Raises:
        ConversionError: with the first operator that gives or takes it.
    """
    path = scratch / "wide.tflite"
    path.write_bytes(data)
    for op in read_flatbuffer(path, job.layer_names).operators:
        if any(tensor is not None and tensor.dtype == "float64" for tensor in (*op.inputs, *op.outputs)):
            raise ConversionError(f"{op} computes in float64", "use float32 in that layer")


def _explain(error: Any, job: _Job) -> ConversionError:
    """The converter's structured errors as messages that name the operator and the layer."""
    found: dict[str, None] = {}
    wide = job.wide and "xf64>" in str(error)
    for data in error.errors:
        op = data.operator.name.removeprefix("tf.").removeprefix("tfl.")
        nodes = [call.name.split("@")[0] for call in data.location.call]
        node = next((name for name in nodes if "/" in name), "")
        layers = LayerNames(job.layer_names, [node]).in_tensor(node)
        place = " of layer " + " + ".join(repr(name) for name in sorted(layers)) if layers else ""
        place = place or (f" at {node}" if node else "")
        if data.error_code == data.ERROR_NEEDS_FLEX_OPS:
            width = " in float64" if wide else ""
            found[f"{op}{place} is no builtin operator of TensorFlow Lite{width}"] = None
        else:
            found[f"{op or 'the model'}{place}: {data.error_message.splitlines()[0]}"] = None
    if not found:
        return ConversionError(f"the converter failed: {first_line(error)}")
    hint = "use float32 in that layer" if wide else "use another layer, or move the step outside the model"
    return ConversionError(f"cannot be converted: {'; '.join(found)}", hint)


def _write(path: Path, data: bytes) -> None:
    """Whole or not at all."""
    with writing(path) as made:
        made.write_bytes(data)
    _log.info("wrote %s, %d bytes", path, len(data))

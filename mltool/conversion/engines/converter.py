"""A SavedModel to a `.tflite` file with TensorFlow's converter; runs inside the child process (`mltool/child.py`).

That it returns means little: converters were seen to answer with a float file where int8 was asked for, without a word.
`read_back` says what the file is.
"""

import logging
import os
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mltool import extras
from mltool.conversion.schemes import SCHEMES
from mltool.errors import ConversionError
from mltool.inspection.flatbuffer import read_flatbuffer
from mltool.inspection.layers import LayerNames

_log = logging.getLogger(__name__)

_OWN_CALIBRATOR = "tf.lite.Interpreter is deprecated"
"""In the warning that the converter's own calibrator provokes at every int8 conversion."""

_Arrays = dict[str, NDArray[Any]]


@dataclass
class _Job:
    """One conversion: what was asked for, and what is learned on the way."""

    signature: str
    quantize: str
    io: str
    batch: int | None
    keep_float: Sequence[str]
    layer_names: Sequence[str]
    granularity: str = "channel"
    samples: _Arrays | None = None
    recurrent: bool = False
    seconds: dict[str, float] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)


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
    granularity: str = "channel",
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
        granularity: `channel`, or `tensor` for one scale a weight in `int8`.

    Returns:
        `seconds` (by step: `load`, `convert`, `quantize`), `messages` (the converter's warnings and what was noticed),
        `bytes` (size of the file).

    Raises:
        ConversionError: the scheme does not allow what is asked, the representative dataset is unfit, or the converter
            cannot convert the model: then with the operator and the layer, as far as it told.
    """
    job = _Job(signature, quantize, io, batch, tuple(keep_float), tuple(layer_names), granularity)
    _check(job)
    with tempfile.TemporaryDirectory() as scratch, warnings.catch_warnings(record=True) as caught:
        start = time.perf_counter()
        folder = _prepare(job, saved_model, representative, Path(scratch))
        job.seconds["load"] = time.perf_counter() - start
        data = _convert(job, folder, Path(scratch))
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
    if unknown := [name for name in job.keep_float if name not in job.layer_names]:
        raise ConversionError(f"keep_float names no layer: {unknown}", f"the layers are {list(job.layer_names)}")
    if job.batch is not None and job.batch < 1:
        raise ConversionError(f"batch must be at least 1 (got {job.batch})")


def _prepare(job: _Job, saved_model: str, representative: str | None, scratch: Path) -> str:
    """Loads the SavedModel, checks the samples against it, and gives the folder that the converter is to read."""
    tf = extras.tensorflow()

    try:
        loaded = tf.saved_model.load(saved_model)
    except Exception as error:
        raise ConversionError(f"cannot load the SavedModel {saved_model}: {_first_line(error)}") from error
    if job.signature not in loaded.signatures:
        raise ConversionError(
            f"the SavedModel {saved_model} has no signature {job.signature!r}", f"it has {sorted(loaded.signatures)}"
        )
    function = loaded.signatures[job.signature]
    specs = function.structured_input_signature[1]
    # Keras 3's recurrent layers keep their steps in a TensorList; without the flag it takes Select TF ops.
    nodes = function.graph.as_graph_def()
    bodies = [nodes.node, *(body.node_def for body in nodes.library.function)]
    job.recurrent = any(node.op.startswith("TensorList") for body in bodies for node in body)
    if job.quantize == "int8":
        if job.recurrent and job.batch is not None:
            raise ConversionError(
                "int8 of a recurrent layer with a fixed batch crashes the converter",
                "set batch: dynamic, or unroll: true on the layer",
            )
        job.samples = _load_samples(representative, specs)
    return saved_model if job.batch is None else _fix_batch(job, loaded, specs, scratch / "fixed")


def _fix_batch(job: _Job, loaded: Any, specs: Mapping[str, Any], folder: Path) -> str:
    """Saves the signature again with a fixed batch, which rids the file of the operators that compute shapes.

    The loaded signature is wrapped, never the Keras model: calibration of such a file finds its variables null.
    """
    import tensorflow as tf

    function = loaded.signatures[job.signature]
    fixed = {
        name: tf.TensorSpec([job.batch, *spec.shape[1:]] if spec.shape.rank else spec.shape, spec.dtype, name=name)
        for name, spec in specs.items()
    }
    module = tf.Module()
    module.loaded = loaded  # owns the variables
    # A function of its own: tf.function would take the loaded one as it is, free batch and all.
    wrapped = tf.function(lambda **inputs: function(**inputs)).get_concrete_function(**fixed)  # noqa: PLW0108
    tf.saved_model.save(module, str(folder), signatures={job.signature: wrapped})
    return str(folder)


def _load_samples(representative: str | None, specs: Mapping[str, Any]) -> _Arrays:
    """The representative dataset, in the model's own types; what is unfit is refused: the calibrator takes anything."""
    if representative is None:
        raise ConversionError("int8 needs a representative dataset to calibrate with, and none was given")
    try:
        with np.load(representative, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
    except (OSError, ValueError) as error:
        raise ConversionError(f"cannot read the representative dataset {representative}: {error}") from error
    if set(arrays) != set(specs):
        raise ConversionError(f"the representative dataset has inputs {sorted(arrays)}, the model {sorted(specs)}")
    counts = {name: len(array) if array.ndim else 0 for name, array in arrays.items()}
    if len(set(counts.values())) != 1 or 0 in counts.values():
        raise ConversionError(f"the representative dataset needs the same number of samples, 1 or more (got {counts})")
    return {name: _fit(name, array, specs[name]) for name, array in arrays.items()}


def _fit(name: str, array: NDArray[Any], spec: Any) -> NDArray[Any]:
    """One array in the type of its input."""
    if not spec.shape[1:].is_compatible_with(array.shape[1:]):
        raise ConversionError(
            f"the representative dataset's {name!r} has samples of shape {list(array.shape[1:])}, "
            f"the model takes {spec.shape[1:].as_list()}"
        )
    if not np.issubdtype(array.dtype, np.number) and array.dtype != np.bool_:
        raise ConversionError(f"the representative dataset's {name!r} is not numeric (got {array.dtype})")
    cast: NDArray[Any] = array.astype(spec.dtype.as_numpy_dtype)
    if not np.isfinite(cast).all():  # one Inf segfaults the calibrator, one NaN spoils every scale in silence
        bad = int(np.argmin(np.isfinite(cast).reshape(len(cast), -1).all(axis=1)))
        raise ConversionError(
            f"the representative dataset's {name!r} is not finite (first in sample {bad})",
            "remove NaN and infinite values from the training data",
        )
    return cast


def _batches(samples: _Arrays, size: int) -> Iterator[_Arrays]:
    """Batches of exactly `size` samples, the last one filled up from the front."""
    count = len(next(iter(samples.values())))
    for start in range(0, count, size):
        chosen = np.arange(start, start + size) % count
        yield {name: array[chosen] for name, array in samples.items()}


def _convert(job: _Job, folder: str, scratch: Path) -> bytes:
    from tensorflow.lite.python.convert_phase import ConverterError

    start = time.perf_counter()
    try:
        data: bytes = _converter(job, folder).convert()
        job.seconds["convert"] = time.perf_counter() - start
        return _quantize_but(job, data, scratch) if job.keep_float else data
    except ConverterError as error:
        raise _explain(error, job) from error
    except ConversionError:
        raise
    except Exception as error:
        raise ConversionError(f"the converter failed: {type(error).__name__}: {_first_line(error)}") from error


def _converter(job: _Job, folder: str) -> Any:
    """TensorFlow's converter, set for the scheme; builtin operators only, since no wheel has a Flex delegate."""
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=[job.signature])
    converter._experimental_default_to_single_batch_in_tensor_list_ops = job.recurrent
    if job.quantize != "none":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if job.quantize == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if job.samples is not None:
        samples, size = job.samples, job.batch or 1
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.representative_dataset = lambda: _batches(samples, size)
        if job.io != "float32":
            converter.inference_input_type = converter.inference_output_type = tf.as_dtype(job.io)
        converter._experimental_disable_per_channel = job.granularity == "tensor"
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
    data: bytes = mlir_quantize(
        calibrated,
        disable_per_channel=job.granularity == "tensor",
        denylisted_nodes=[op.outputs[0].name for op in kept],
    )
    job.seconds["quantize"] = time.perf_counter() - start
    return data


def _explain(error: Any, job: _Job) -> ConversionError:
    """The converter's structured errors as messages that name the operator and the layer."""
    found: dict[str, None] = {}
    for data in error.errors:
        op = data.operator.name.removeprefix("tf.").removeprefix("tfl.")
        nodes = [call.name.split("@")[0] for call in data.location.call]
        node = next((name for name in nodes if "/" in name), "")
        layers = LayerNames(job.layer_names, [node]).in_tensor(node)
        place = " of layer " + " + ".join(repr(name) for name in sorted(layers)) if layers else ""
        place = place or (f" at {node}" if node else "")
        if data.error_code == data.ERROR_NEEDS_FLEX_OPS:
            found[f"{op}{place} is no builtin operator of TensorFlow Lite"] = None
        else:
            found[f"{op or 'the model'}{place}: {data.error_message.splitlines()[0]}"] = None
    if not found:
        return ConversionError(f"the converter failed: {_first_line(error)}")
    return ConversionError(
        f"cannot be converted: {'; '.join(found)}", "use another layer, or move the step outside the model"
    )


def _first_line(error: BaseException) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _write(path: Path, data: bytes) -> None:
    """Whole or not at all."""
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        try:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            Path(file.name).chmod(0o644)
            Path(file.name).replace(path)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise
    _log.info("wrote %s, %d bytes", path, len(data))

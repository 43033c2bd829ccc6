"""A `.keras` or `.h5` file of anybody's to a SavedModel; runs inside the child process, after `keras_check`."""

import contextlib
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mltool import extras
from mltool.conversion.sources.bounds import bounded_memory
from mltool.conversion.sources.generated import generate
from mltool.conversion.sources.keras_check import CheckedFile, check_keras_file
from mltool.conversion.sources.user_models import TOLERANCE, difference
from mltool.errors import ArtifactError, ConversionError, MltoolError, VerificationError
from mltool.exporting.export import SIGNATURE
from mltool.inference.predictor import tensor_info

NUM_SAMPLES = 8
"""Generated samples on which the SavedModel is held against the model."""


def open_keras_file(*, path: str, made: str, allow_code: bool) -> dict[str, Any]:
    """Loads a file with the Keras that wrote it, and writes a SavedModel with named inputs and outputs.

    Args:
        path: of the file.
        made: the folder to write; must not be there.
        allow_code: run code inside.

    Returns:
        What `Foreign` is made of.

    Raises:
        ArtifactError: if it is damaged, unsafe, or does not load.
        ConversionError: if its inputs are not known, or of a type that no `.tflite` file takes.
        VerificationError: if the SavedModel does not answer as the model.
    """
    checked = check_keras_file(Path(path), allow_code=allow_code)
    library = _library(checked)
    with bounded_memory(checked.path):
        model = _load(checked, library, allow_code=allow_code)
        _require_float32(checked.path, model)
        inputs = _named(checked.path, [tensor.name for tensor in model.inputs], model.inputs)
        outputs = _named(checked.path, _output_names(model), model.outputs)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            _write(library, model, inputs, outputs, Path(made))
        off = _verify(checked.path, model, inputs, outputs, Path(made))
    return {
        "folder": made,
        "file": None,
        "signature": SIGNATURE,
        "inputs": {name: (_outside(_dtype(tensor)), list(tensor.shape)) for name, tensor in inputs.items()},
        "outputs": {name: (_dtype(tensor), list(tensor.shape)) for name, tensor in outputs.items()},
        "layers": [layer.name for layer in _layers(model)],
        "loaded_by": f"{checked.library} {library.__version__}, saved by Keras {checked.version or 'of no version'}",
        "difference": off,
    }


def _library(checked: CheckedFile) -> Any:
    extras.tensorflow()
    return extras.keras() if checked.library == "keras" else extras.require("tf_keras")


def _load(checked: CheckedFile, library: Any, *, allow_code: bool) -> Any:
    """The model; of Keras' own things alone, so it is functional or Sequential."""
    path = checked.path
    try:
        with _under_its_ending(path) as file:
            model = library.models.load_model(str(file), compile=False, safe_mode=not allow_code)
    except MltoolError:
        raise
    # Each Keras raises ValueError, TypeError, KeyError, zipfile's and h5py's errors for what it cannot build.
    except Exception as error:
        reason = _without_advice(error)
        message = (
            f"{path} cannot be loaded by {checked.library} {library.__version__}: {type(error).__name__}: {reason}"
        )
        hint = f"it was saved by Keras {checked.version or 'of no version'}; export it to a SavedModel there"
        raise ArtifactError(message, hint) from error
    if not getattr(model, "inputs", None):
        message = f"{path} does not say what it takes: it was saved before it was built"
        raise ConversionError(message, "call it once, or give it a keras.Input, and save it again")
    if isinstance(model, library.Sequential):  # Keras 3 gives such a one no `input` and `output`
        return library.Model(model.inputs[0], model.outputs[0])
    return model


@contextlib.contextmanager
def _under_its_ending(path: Path) -> Iterator[Path]:
    """Keras tells an archive from HDF5 by the ending alone; a file under another one is linked under its own."""
    import tempfile
    import zipfile

    wanted = ".keras" if zipfile.is_zipfile(path) else ".h5"
    if path.suffix == wanted:
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        link = Path(folder) / f"model{wanted}"
        link.symlink_to(path.absolute())
        yield link


def _without_advice(error: Exception) -> str:
    """The first sentences: Keras adds how to register classes, and whole descriptions of layers."""
    text = " ".join(str(error).split())
    for advice in ("Please ensure", "If this is", "To allow", "Full object config", "config={", "Make sure custom"):
        text = text.partition(advice)[0]
    return text.strip()[:300] or type(error).__name__


def _layers(model: Any) -> list[Any]:
    return [layer for layer in model.layers if type(layer).__name__ != "InputLayer"]


def _require_float32(path: Path, model: Any) -> None:
    """Float64 is refused with the layer; LiteRT has no operator for it."""
    for layer in _layers(model):
        weights = [weight for weight in layer.weights if _dtype(weight) == "float64"]
        if weights or _dtype(layer, "compute_dtype") == "float64":
            message = f"{path}: layer {layer.name!r} computes in float64, which no operator of LiteRT does"
            raise ConversionError(message, "build the model in float32, load its weights, and save it again")
    for tensor in model.inputs:
        if _dtype(tensor) in ("string", "float64"):
            message = f"{path}: input {tensor.name!r} is {_dtype(tensor)}, which LiteRT does not take"
            raise ConversionError(message, "make float32 numbers of it outside, and save the part behind it")
        if tensor.shape.rank is None if hasattr(tensor.shape, "rank") else tensor.shape is None:
            raise ConversionError(f"{path}: input {tensor.name!r} has no known shape", "give its keras.Input a shape")


def _dtype(thing: Any, attribute: str = "dtype") -> str:
    """Name of an element type; the two Keras write it differently."""
    dtype = getattr(thing, attribute, None)
    return str(getattr(dtype, "name", dtype))


def _outside(dtype: str) -> str:
    """Numbers of words are int32 outside, whatever Keras counts in: that is what devices have."""
    return "int32" if dtype == "int64" else dtype


def _output_names(model: Any) -> list[str]:
    """The keys of a map, else the names of the layers that answer."""
    if isinstance(model.output, dict):
        return list(model.output)
    names = getattr(model, "output_names", None)
    if names and len(names) == len(model.outputs):
        return list(names)
    return [f"output_{index}" for index in range(len(model.outputs))]


def _named(path: Path, names: list[str], tensors: Any) -> dict[str, Any]:
    """Tensors by names that TensorFlow takes for arguments.

    Raises:
        ConversionError: if two share one.
    """
    ready = [re.sub(r"\W", "_", name.partition(":")[0]) for name in names]
    ready = [f"_{name}" if not name or name[0].isdigit() else name for name in ready]
    if len(set(ready)) != len(ready):
        raise ConversionError(f"{path}: several inputs or outputs are called {', '.join(ready)}", "rename them")
    return dict(zip(ready, tensors, strict=True))


def _write(library: Any, model: Any, inputs: dict[str, Any], outputs: dict[str, Any], folder: Path) -> None:
    """A signature with keywords named as the inputs; through the library's own archive, which tracks the weights."""
    tf = extras.tensorflow()
    specs = {
        name: tf.TensorSpec(tuple(tensor.shape), _outside(_dtype(tensor)), name=name) for name, tensor in inputs.items()
    }
    place = {id(tensor): name for name, tensor in inputs.items()}
    is_tf_keras = library.__name__ == "tf_keras"
    map_structure = tf.nest.map_structure if is_tf_keras else library.tree.map_structure

    def serve(given: Any) -> Any:
        taken = map_structure(lambda t: tf.cast(given[place[id(t)]], t.dtype), model.input)
        answers = model(taken, training=False)
        flat = [answers[key] for key in model.output] if isinstance(answers, dict) else tf.nest.flatten(answers)
        return dict(zip(outputs, flat, strict=True))

    archive = library.export.ExportArchive()
    archive.track(model)
    archive.add_endpoint(SIGNATURE, serve, [specs])
    archive.write_out(str(folder)) if is_tf_keras else archive.write_out(str(folder), verbose=False)


def _verify(path: Path, model: Any, inputs: dict[str, Any], outputs: dict[str, Any], folder: Path) -> float | None:
    """Holds the SavedModel against the model on generated samples; None where a shape is too free to make any."""
    tf = extras.tensorflow()
    infos = [tensor_info(str(path), name, _outside(_dtype(t)), list(t.shape)) for name, t in inputs.items()]
    if any(size is None for info in infos for size in info.shape):
        return None
    batch = next((t.shape[0] for t in inputs.values() if t.shape[0] is not None), NUM_SAMPLES)
    samples = generate(infos, int(batch), seed=0)
    by_id = {id(tensor): samples[name] for name, tensor in inputs.items()}
    taken = tf.nest.map_structure(lambda t: tf.cast(by_id[id(t)], t.dtype), model.input)
    answers = model(taken, training=False)
    flat = [answers[key] for key in model.output] if isinstance(answers, dict) else tf.nest.flatten(answers)
    expected = dict(zip(outputs, map(np.asarray, flat), strict=True))
    broken = [weight.path if hasattr(weight, "path") else weight.name for weight in model.weights if _is_broken(weight)]
    if broken:
        message = f"{path}: {len(broken)} weights hold NaN or infinity (first: {broken[0]})"
        raise ArtifactError(message, "did its training diverge? give another file")
    served = tf.saved_model.load(str(folder)).signatures[SIGNATURE]
    found = served(**{name: tf.constant(array) for name, array in samples.items()})
    off = difference(expected, {name: np.asarray(value) for name, value in found.items()})
    if not off <= TOLERANCE:
        message = f"{path}: the SavedModel made of it is off by {off:.3g} of the largest output, allowed {TOLERANCE:g}"
        raise VerificationError(message, "this is a flaw of the export; please report it")
    return off


def _is_broken(weight: Any) -> bool:
    values = np.asarray(weight)
    return values.dtype.kind == "f" and not np.isfinite(values).all()

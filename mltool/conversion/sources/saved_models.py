"""A SavedModel of anybody's; runs inside the child process. Read first, loaded after, run never."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mltool import extras
from mltool.conversion.sources.bounds import bounded_memory
from mltool.conversion.sources.graph_check import (
    SavedGraph,
    first_of_type,
    is_computing,
    read_saved_model,
    serving_graph,
)
from mltool.conversion.sources.layer_names import layers_in
from mltool.errors import ArtifactError, ConversionError, UsageError

SIGNATURE = "serving_default"
"""The signature that is taken of several, when none is named."""

_OWN = ("__saved_model_init_op", "__saved_model_train_op")
"""Entries among the signatures that TensorFlow keeps for itself."""


def open_saved_model(*, path: str, made: str, allow_code: bool, signature: str | None) -> dict[str, Any]:
    """Reads a SavedModel, loads it, and writes it anew where the converter could not take it.

    Args:
        path: its folder.
        made: a folder to write to, should it be needed; must not be there.
        allow_code: also where it holds operators that touch files or call Python.
        signature: its key; the only one, else `serving_default`, when left out.

    Returns:
        What `Foreign` is made of.

    Raises:
        ArtifactError: if it is damaged, unsafe, or does not load.
        ConversionError: if no `.tflite` file can be made of it.
        UsageError: if the signature does not exist, or must be chosen.
    """
    folder = Path(path)
    tf = extras.tensorflow()
    meta_graph = serving_graph(folder, read_saved_model(folder))
    graph = SavedGraph(meta_graph)
    if not allow_code:
        _require_safe(folder, graph)
    key = _chosen(folder, meta_graph, signature)
    signature_def = meta_graph.signature_def[key]
    _require_convertible(folder, graph, key, signature_def)
    with bounded_memory(folder):
        loaded = _load(folder)
        function = loaded.signatures[key]
        if graph.is_version_1:
            folder = _written_anew(loaded, key, signature_def, Path(made))
    specs, outputs = function.structured_input_signature[1], function.structured_outputs
    nodes = [node.name for node in graph.reached_by(signature_def) if is_computing(node)]
    return {
        "folder": str(folder),
        "file": None,
        "signature": key,
        "inputs": _ends(specs),
        "outputs": _ends(outputs),
        "layers": layers_in(nodes),
        "loaded_by": f"TensorFlow {tf.__version__}",
    }


def _ends(specs: Mapping[str, Any]) -> dict[str, tuple[str, list[int | None]]]:
    """By name, in its order: TensorFlow gives them in another one whenever a model is loaded."""
    return {name: (spec.dtype.name, spec.shape.as_list()) for name, spec in sorted(specs.items())}


def _require_safe(folder: Path, graph: SavedGraph) -> None:
    """Refuses what would touch the machine, before anything is loaded."""
    unsafe = graph.unsafe_ops()
    if unsafe:
        message = f"{folder} holds operators that touch files, other machines or Python: {', '.join(unsafe)}"
        raise ArtifactError(message, "they run when it is loaded or called; --allow-code if you trust who made it")


def _require_known(folder: Path, graph: SavedGraph) -> None:
    registry = extras.require("tensorflow.python.framework.op_def_registry")
    unknown = graph.unknown_ops(())
    unknown = [op for op in unknown if registry.get(op) is None]
    if unknown:
        message = f"{folder} holds operators that this TensorFlow does not know: {', '.join(unknown)}"
        raise ConversionError(message, "they come from another package, and no .tflite file can hold them")


def _chosen(folder: Path, meta_graph: Any, signature: str | None) -> str:
    """The key of the signature."""
    keys: list[str] = sorted(key for key in meta_graph.signature_def if key not in _OWN)
    if not keys:
        raise ConversionError(f"{folder} has no signature: nothing says what it takes", _how_to_sign(meta_graph))
    if signature is not None:
        if signature not in keys:
            raise UsageError(f"{folder} has no signature {signature!r}", f"it has {', '.join(keys)}")
        return signature
    if len(keys) == 1:
        return keys[0]
    if SIGNATURE in keys:
        return SIGNATURE
    message = f"{folder} has several signatures: {', '.join(keys)}"
    raise UsageError(message, f"choose one: --signature {keys[0]}; a file is made of one at a time")


def _how_to_sign(meta_graph: Any) -> str:
    names = sorted(meta_graph.object_graph_def.concrete_functions)
    traced = any("__call__" in name for name in names)
    text = "save it with one: tf.saved_model.save(module, folder, signatures=FUNCTION.get_concrete_function("
    text += 'tf.TensorSpec([None, ...], tf.float32, name="x")))'
    return text.replace("FUNCTION", "module.__call__" if traced else "module.function")


def _require_convertible(folder: Path, graph: SavedGraph, key: str, signature: Any) -> None:
    """What the converter would take without a word, or refuse without a reason."""
    tf = extras.tensorflow()
    _require_known(folder, graph)
    for name, info in signature.inputs.items():
        if info.tensor_shape.unknown_rank:
            message = f"{folder}: input {name!r} of {key} has no known number of dimensions"
            raise ConversionError(message, "save it with a shape, such as tf.TensorSpec([None, 224, 224, 3])")
        if info.dtype == tf.string.as_datatype_enum:
            message = f"{folder}: input {name!r} of {key} is text, which LiteRT does not take"
            raise ConversionError(message, "make numbers of it outside, and save the part behind it")
        if info.dtype == tf.float64.as_datatype_enum:
            message = f"{folder}: input {name!r} of {key} is float64, which no operator of LiteRT computes in"
            raise ConversionError(_with_first(message, graph, signature), _FLOAT64_HINT)
    node = first_of_type(graph.reached_by(signature), tf.float64.as_datatype_enum)
    if node is not None:
        layer = "".join(f" of layer {name!r}" for name in layers_in([node.name]))
        message = f"{folder}: {node.op}{layer} ({node.name}) computes in float64, which no operator of LiteRT does"
        raise ConversionError(message, _FLOAT64_HINT)


_FLOAT64_HINT = "build the model in float32, keras.config.set_floatx('float32'), load its weights, and save it again"


def _with_first(message: str, graph: SavedGraph, signature: Any) -> str:
    """The message, with the first operator that computes in float64."""
    node = first_of_type(graph.reached_by(signature), extras.tensorflow().float64.as_datatype_enum)
    if node is None:
        return message
    layer = "".join(f" of layer {name!r}" for name in layers_in([node.name]))
    return f"{message}; the first that does is {node.op}{layer} ({node.name})"


def _load(folder: Path) -> Any:
    try:
        return extras.tensorflow().saved_model.load(str(folder), tags=["serve"])
    # A damaged folder gives OSError, tf.errors, protobuf's own errors, and ValueError.
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise ArtifactError(f"{folder} cannot be loaded: {type(error).__name__}: {reason}", "copy it again") from error


def _written_anew(loaded: Any, key: str, signature: Any, folder: Path) -> Path:
    """A graph of TensorFlow 1 with its weights as constants: the converter loses sight of its variables.

    Measured with TensorFlow 2.21: a signature of such a model, wrapped to fix its batch, fails with `Failed to prepare
    to mark initialized variables`.
    """
    tf = extras.tensorflow()
    freeze = extras.require("tensorflow.python.framework.convert_to_constants").convert_variables_to_constants_v2
    taken, given = sorted(signature.inputs), sorted(signature.outputs)
    feeds = [signature.inputs[name].name for name in taken]
    pruned = loaded.prune(feeds, [signature.outputs[name].name for name in given])
    frozen = freeze(pruned)
    specs = {
        name: tf.TensorSpec(tensor.shape, tensor.dtype, name=name)
        for name, tensor in zip(taken, frozen.inputs, strict=True)
    }

    def serve(**inputs: Any) -> dict[str, Any]:
        return dict(zip(given, frozen(*(inputs[name] for name in taken)), strict=True))

    module = tf.Module()
    module.frozen = frozen
    tf.saved_model.save(module, str(folder), signatures={key: tf.function(serve).get_concrete_function(**specs)})
    return folder

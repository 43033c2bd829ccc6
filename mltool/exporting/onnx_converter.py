"""A SavedModel to an `.onnx` file with tf2onnx; runs inside the child process (`mltool/child.py`).

tf2onnx answers with a file also where it could not translate an operator: that one stands in the file as TensorFlow
calls it, and no runtime loads it. So the file is read back before anybody sees it.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mltool import extras
from mltool.errors import ConversionError
from mltool.inspection.layers import LayerNames
from mltool.inspection.onnx_file import OnnxFile, describe_onnx

OPSET = 18
"""Version of ONNX's operators in the files: the newest that tf2onnx 1.17 writes (`tf2onnx.constants`)."""

MAX_BYTES = 2**31 - 1
"""Largest file: protobuf has no larger message, and weights in files of their own are not in this version."""

_HINT = "use another layer, or take the SavedModel or a .tflite (mltool convert)"


def convert_to_onnx(*, saved_model: str, signature: str, output: str, layer_names: Sequence[str]) -> None:
    """Converts one signature of a SavedModel; names of inputs and outputs stay, the batch is free.

    Args:
        saved_model: its folder.
        signature: key of the signature.
        output: path of the `.onnx` file; overwritten.
        layer_names: the Keras layers in the order of the model, for messages.

    Raises:
        ConversionError: if tf2onnx fails, or its file is not the model that was asked for: then with operator and
            layer, as far as the names of the nodes tell.
        MissingExtraError: if tf2onnx is not installed.
    """
    tf = extras.tensorflow()
    loaded = tf.saved_model.load(saved_model)  # owns the variables: it must live as long as its signatures
    function = loaded.signatures[signature]
    specs, answers = function.structured_input_signature[1], function.structured_outputs
    model = _translated(function, specs)
    found = describe_onnx(model)
    _require_known(found, layer_names)
    _forget_unused_domains(model, found)
    _name_batch(model, specs, answers)
    _require_ends(describe_onnx(model), specs, answers)
    _require_sound(model)
    Path(output).write_bytes(model.SerializeToString(deterministic=True))


def _translated(function: Any, specs: Mapping[str, Any]) -> Any:
    """What tf2onnx makes of a signature: an `onnx.ModelProto`."""
    tf, tf2onnx = extras.tensorflow(), extras.require("tf2onnx.convert")
    # A map as the only argument: tf2onnx takes the names of the inputs from the specs in it.
    named = {name: tf.TensorSpec(spec.shape, spec.dtype, name=name) for name, spec in specs.items()}
    called = _without_captures(function, named)
    try:
        model, _ = tf2onnx.from_function(called, [named], opset=OPSET, custom_op_handlers={"Erfc": (_erfc, [])})
    except Exception as error:  # of any class: what a rewriter of tf2onnx stumbled over
        message = f"tf2onnx failed: {type(error).__name__}: {' '.join(str(error).split())[:300]}"
        raise ConversionError(message, _HINT) from error
    if model.ByteSize() > MAX_BYTES:
        raise ConversionError(f"the model is too large for one .onnx file: {model.ByteSize():,} bytes", "make it less")
    return model


def _without_captures(function: Any, specs: Mapping[str, Any]) -> Any:
    """The signature as a function with its weights and constants inside of it.

    What a function captures tf2onnx takes for an input, if it is no variable: the mean of a Normalization, for one.
    """
    tf, freezing = extras.tensorflow(), extras.require("tensorflow.python.framework.convert_to_constants")
    concrete = tf.function(lambda inputs: function(**inputs)).get_concrete_function(dict(specs))
    # Loops stay loops: tf2onnx knows a recurrent layer by them.
    frozen = freezing.convert_variables_to_constants_v2(concrete, lower_control_flow=False)
    taken = [tensor.name.partition(":")[0] for tensor in frozen.inputs]
    # Tables of words stay captured: tf2onnx leaves their operators as they are, and those are told with their layers.
    tables = {inside.name.partition(":")[0]: outside for outside, inside in concrete.graph.captures}
    given = sorted(concrete.structured_outputs)

    def call(inputs: Mapping[str, Any]) -> dict[str, Any]:
        return dict(zip(given, tf.nest.flatten(frozen(*({**tables, **inputs}[name] for name in taken))), strict=True))

    return tf.function(call)


def _erfc(graph: Any, node: Any, name: str, arguments: Sequence[Any]) -> Any:
    """erfc(x) = 1 - erf(x); Keras' exact GELU is made of it, and ONNX has Erf alone.

    The difference loses the relative accuracy of a small erfc. GELU multiplies it with x: its absolute error stays that
    of float32.
    """
    output = node.output[0]
    shape, dtype = graph.get_shape(output), graph.get_dtype(output)
    one = graph.make_const(f"{name}__one", np.array(1.0, np.float32))
    inputs = list(node.input)
    graph.remove_node(name)
    erf = graph.make_node("Erf", inputs, shapes=[shape], dtypes=[dtype])
    return graph.make_node(
        "Sub", [one.output[0], erf.output[0]], name=name, outputs=[output], shapes=[shape], dtypes=[dtype]
    )


def _require_known(found: OnnxFile, layer_names: Sequence[str]) -> None:
    """No node may be left that ONNX has not, such as TensorFlow's own or one of a custom domain."""
    told: dict[str, dict[str, None]] = {}
    names = LayerNames(layer_names, [name for _, name in found.unknown])
    for operator, name in found.unknown:
        layers = " + ".join(repr(layer) for layer in names.sort(names.in_tensor(name)))
        told.setdefault(f"of layer {layers}" if layers else f"at {name}", {})[operator] = None
    if told:
        shown = "; ".join(f"{', '.join(operators)} {place}" for place, operators in told.items())
        raise ConversionError(f"cannot be written as ONNX: tf2onnx does not translate {shown}", _HINT)


def _forget_unused_domains(model: Any, found: OnnxFile) -> None:
    """tf2onnx imports `ai.onnx.ml` always; a runtime without it need not refuse a file that has no operator of it."""
    used = {operator.rpartition(".")[0] for operator in found.operators}
    kept = [item for item in model.opset_import if not item.domain or item.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(kept)


def _name_batch(model: Any, specs: Mapping[str, Any], answers: Mapping[str, Any]) -> None:
    """Calls the free first axis of all inputs and outputs `batch`; the other sizes are those of the signature."""
    for item, spec in _paired(model.graph.input, specs) + _paired(model.graph.output, answers):
        shape = item.type.tensor_type.shape
        del shape.dim[:]
        for place, size in enumerate(spec.shape.as_list()):
            if size is None:
                shape.dim.add(dim_param="batch" if place == 0 else f"{item.name}_{place}")
            else:
                shape.dim.add(dim_value=size)


def _paired(items: Any, specs: Mapping[str, Any]) -> list[tuple[Any, Any]]:
    return [(item, specs[item.name]) for item in items if item.name in specs]


def _require_ends(found: OnnxFile, specs: Mapping[str, Any], answers: Mapping[str, Any]) -> None:
    for ends, wanted in ((found.inputs, specs), (found.outputs, answers)):
        shown = {end.name: (end.dtype, list(end.shape)) for end in ends}
        expected = {name: (spec.dtype.name, spec.shape.as_list()) for name, spec in wanted.items()}
        if shown != expected:
            raise ConversionError(f"tf2onnx changed the model's ends: {shown}; {expected} is expected", _HINT)


def _require_sound(model: Any) -> None:
    """ONNX's own check of the whole file, with shapes followed from the inputs to the outputs."""
    onnx = extras.require("onnx")
    extras.require("onnx.checker")
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        message = f"tf2onnx wrote a file that ONNX does not take: {' '.join(str(error).split())[:300]}"
        raise ConversionError(message, _HINT) from error

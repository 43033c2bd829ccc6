"""What each scheme does with each operator, measured: `python tests/conversion/support_table.py` writes the table.

One model for every operator, between two Dense layers where it takes numbers, through TensorFlow's converter in a
child process. What litert-quantizer does is in its own policy, which is read from the installed package.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mltool import extras
from mltool.child import Child, ChildCrashed
from mltool.conversion.support import FLOAT, PAGE, QUANTIZED, REFUSED
from mltool.errors import ConversionError

LENGTH = 36
"""Of the vector that goes into an operator: weights of 36x36 are large enough for `dynamic`."""

SCHEMES = ("float16", "dynamic", "int8", "int8-io")

Function = Callable[[Any], Any]


def functions() -> dict[str, Function]:
    """TensorFlow's function for every builtin operator; the vector that it gives may have another length."""
    import numpy as np
    import tensorflow as tf

    numbers = np.random.default_rng(4)

    def weights(*shape: int) -> Any:
        return tf.constant(numbers.normal(size=shape).astype(np.float32))

    def image(function: Function) -> Function:
        return lambda x: tf.reshape(function(tf.reshape(x, [-1, 3, 3, 4])), [1, -1])

    def loop(x: Any) -> Any:
        return tf.while_loop(lambda i, _: i < 3, lambda i, y: (i + 1, tf.tanh(y @ weights_36)), (0, x))[1]

    weights_36 = weights(LENGTH, LENGTH)
    one = weights(1, LENGTH)
    positive = lambda x: tf.abs(x) + 1.0  # noqa: E731
    return {
        "ABS": tf.abs,
        "ADD": lambda x: x + one,
        "ARG_MAX": lambda x: tf.cast(tf.argmax(x, 1), tf.float32)[:, None],
        "AVERAGE_POOL_2D": image(lambda x: tf.nn.avg_pool2d(x, 2, 1, "VALID")),
        "BATCH_MATMUL": lambda x: tf.reshape(tf.reshape(x, [2, 1, 18]) @ weights(2, 18, 32), [1, 64]),
        "BROADCAST_TO": lambda x: tf.reshape(tf.broadcast_to(tf.reshape(x, [1, 1, 36]), [1, 2, 36]), [1, 72]),
        "CAST": lambda x: tf.cast(tf.cast(x, tf.int32), tf.float32),
        "CEIL": tf.math.ceil,
        "CONCATENATION": lambda x: tf.concat([x, tf.tanh(x)], 1),
        "CONV_2D": image(lambda x: tf.nn.conv2d(x, weights(3, 3, 4, 32), 1, "SAME")),
        "CONV_3D": lambda x: tf.reshape(
            tf.nn.conv3d(tf.reshape(x, [1, 3, 3, 4, 1]), weights(2, 2, 2, 1, 2), [1] * 5, "VALID"), [1, -1]
        ),
        "COS": tf.cos,
        "CUMSUM": lambda x: tf.cumsum(x, 1),
        "DEPTHWISE_CONV_2D": image(lambda x: tf.nn.depthwise_conv2d(x, weights(3, 3, 4, 32), [1] * 4, "SAME")),
        "DIV": lambda x: one / positive(x),
        "ELU": tf.nn.elu,
        "EQUAL": lambda x: tf.where(tf.equal(x, one), x, one),
        "EXP": tf.exp,
        "FLOOR": tf.floor,
        "FLOOR_DIV": lambda x: tf.math.floordiv(x, positive(one)),
        "FLOOR_MOD": lambda x: tf.math.floormod(x, positive(one)),
        "FULLY_CONNECTED": lambda x: x @ weights_36,
        "GATHER": lambda x: tf.gather(weights(40, LENGTH), tf.argmax(x, 1)),
        "GATHER_ND": lambda x: tf.gather_nd(x, [[[0, 3], [0, 1]]]),
        "GELU": lambda x: tf.nn.gelu(x, approximate=True),
        "GREATER": lambda x: tf.where(x > one, x, one),
        "HARD_SWISH": lambda x: x * tf.nn.relu6(x + 3.0) / 6.0,
        "L2_NORMALIZATION": lambda x: tf.math.l2_normalize(x, 1),
        "LEAKY_RELU": lambda x: tf.nn.leaky_relu(x, 0.2),
        "LESS": lambda x: tf.where(x < one, x, one),
        "LOG": lambda x: tf.math.log(positive(x)),
        "LOGISTIC": tf.sigmoid,
        "LOG_SOFTMAX": tf.nn.log_softmax,
        "MAXIMUM": lambda x: tf.maximum(x, one),
        "MAX_POOL_2D": image(lambda x: tf.nn.max_pool2d(x, 2, 1, "VALID")),
        "MEAN": image(lambda x: tf.reduce_mean(x, [1, 2])),
        "MINIMUM": lambda x: tf.minimum(x, one),
        "MIRROR_PAD": lambda x: tf.pad(x, [[0, 0], [1, 1]], "REFLECT"),
        "MUL": lambda x: x * one,
        "NEG": lambda x: -x,
        "NOT_EQUAL": lambda x: tf.where(tf.not_equal(x, one), x, one),
        "PACK": lambda x: tf.reshape(tf.stack([x, tf.tanh(x)], 1), [1, -1]),
        "PAD": lambda x: tf.pad(x, [[0, 0], [1, 1]]),
        "PADV2": lambda x: tf.pad(x, [[0, 0], [1, 1]], constant_values=-1.0),
        "POW": lambda x: tf.pow(positive(x), 1.5),
        "REDUCE_MAX": image(lambda x: tf.reduce_max(x, [1, 2])),
        "REDUCE_MIN": image(lambda x: tf.reduce_min(x, [1, 2])),
        "REDUCE_PROD": image(lambda x: tf.reduce_prod(x, [1, 2])),
        "RELU": lambda x: tf.reshape(tf.nn.relu(tf.reshape(x, [1, 6, 6])[:, ::2]), [1, 18]),
        "RELU6": lambda x: tf.reshape(tf.nn.relu6(tf.reshape(x, [1, 6, 6])[:, ::2]), [1, 18]),
        "RESIZE_BILINEAR": image(lambda x: tf.image.resize(x, [5, 5])),
        "RESIZE_NEAREST_NEIGHBOR": image(lambda x: tf.image.resize(x, [5, 5], "nearest")),
        "REVERSE_V2": lambda x: tf.reverse(x, [1]),
        "ROUND": tf.round,
        "RSQRT": lambda x: tf.math.rsqrt(positive(x)),
        "SIGN": tf.sign,
        "SIN": tf.sin,
        "SLICE": lambda x: tf.slice(x, [0, 2], [1, 5]),
        "SOFTMAX": tf.nn.softmax,
        "SPACE_TO_DEPTH": lambda x: tf.reshape(tf.nn.space_to_depth(tf.reshape(x, [1, 6, 6, 1]), 2), [1, 36]),
        "SPLIT": lambda x: tf.concat(tf.split(x, 3, 1)[::-1], 1),
        "SQRT": lambda x: tf.sqrt(positive(x)),
        "SQUARE": tf.square,
        "SQUARED_DIFFERENCE": lambda x: tf.math.squared_difference(x, one),
        "STRIDED_SLICE": lambda x: x[:, 1::3],
        "SUB": lambda x: one - x,
        "SUM": image(lambda x: tf.reduce_sum(x, [1, 2])),
        "TANH": tf.tanh,
        "TILE": lambda x: tf.tile(x, [1, 2]),
        "TOPK_V2": lambda x: tf.math.top_k(x, 3)[0],
        "TRANSPOSE": image(lambda x: tf.transpose(x, [0, 2, 3, 1])),
        "TRANSPOSE_CONV": image(lambda x: tf.nn.conv2d_transpose(x, weights(3, 3, 32, 4), [1, 6, 6, 32], 2)),
        "UNPACK": lambda x: tf.unstack(tf.reshape(x, [1, 6, 6]), axis=1)[2],
        "WHILE": loop,
    }


def measure(op: str, scheme: str) -> str:
    """What a scheme does with one operator; runs in a child process.

    Raises:
        ConversionError: if the model of the operator does not hold it, and the table is wrong.
    """
    import numpy as np
    import tensorflow as tf

    function, numbers = functions()[op], np.random.default_rng(6)
    before, after = (numbers.normal(0, 0.3, (LENGTH, LENGTH)).astype(np.float32) for _ in range(2))

    @tf.function(autograph=False, input_signature=[tf.TensorSpec([1, LENGTH], tf.float32, "x")])
    def model(x: Any) -> Any:
        found = function(tf.tanh(x @ before))
        return found @ np.tile(after, (40, 1))[: found.shape[1]]

    data = _converted(tf, model, numbers, scheme)
    return "refused" if data is None else _verdict(data, op, scheme)


def _converted(tf: Any, model: Any, numbers: Any, scheme: str) -> bytes | None:
    converter = tf.lite.TFLiteConverter.from_concrete_functions([model.get_concrete_function()], model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if scheme == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if scheme.startswith("int8"):
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.representative_dataset = lambda: (
            [numbers.normal(size=(1, LENGTH)).astype("float32")] for _ in range(8)
        )
    if scheme == "int8-io":
        converter.inference_input_type = converter.inference_output_type = tf.int8
    try:
        found: bytes = converter.convert()
    except Exception:
        return None
    return found


def _verdict(data: bytes, op: str, scheme: str) -> str:
    import tempfile

    from mltool.inspection.flatbuffer import read_flatbuffer

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "one.tflite"
        path.write_bytes(data)
        operators = read_flatbuffer(path).operators
    found = [one for one in operators if one.op == op]
    if not found:
        raise ConversionError(f"the model of {op} in {scheme} holds {[one.op for one in operators]}")
    if scheme == "float16":
        unpacked = {one.outputs[0].name for one in operators if one.op == "DEQUANTIZE"}
        names = {tensor.name for one in found for tensor in one.inputs if tensor is not None}
        return QUANTIZED if unpacked & names else FLOAT
    if scheme == "dynamic":
        stored = [tensor for one in found for tensor in one.inputs if tensor is not None and tensor.constant]
        return QUANTIZED if any(tensor.dtype == "int8" for tensor in stored) else FLOAT
    return FLOAT if any(one.compute_dtype == "float32" for one in found) else QUANTIZED


def measured() -> dict[str, dict[str, str]]:
    """The schemes of TensorFlow's converter, by operator; int8 with integer ends refuses what stays float."""
    table: dict[str, dict[str, str]] = {}
    wrong: list[str] = []
    with Child("support_table") as child:
        for op in sorted(functions()):
            row = table.setdefault(op, {})
            for scheme in ("float16", "dynamic", "int8"):
                try:
                    row[scheme] = child.call("support_table:measure", timeout_seconds=300, op=op, scheme=scheme)
                except ChildCrashed:
                    row[scheme] = REFUSED
                except ConversionError as error:
                    wrong.append(str(error))
            row["int8-io"] = QUANTIZED if row.get("int8") == QUANTIZED else REFUSED
            print(op, row, file=sys.stderr)
    if wrong:
        raise ConversionError("; ".join(wrong))
    return table


_POLICIES = {
    "int16x8": ("static_wi8_ai16",),
    "int4": ("dynamic_wi4_afp32", "weightonly_wi4_afp32"),
    "weight-only": ("weightonly_wi8_afp32",),
}
"""Configurations of litert-quantizer's default policy, by scheme."""

_SPELLING = {"CONV_2D_TRANSPOSE": "TRANSPOSE_CONV"}
"""Operators that litert-quantizer calls by another name than the file format."""


def of_quantizer() -> dict[str, set[str]]:
    """The operators that litert-quantizer quantizes, by scheme; all others stay float."""
    policy = json.loads(extras.require("litert_quantizer.default_policy").DEFAULT_JSON_POLICY)["ops_per_config"]
    return {
        scheme: {_SPELLING.get(op, op) for config in configs for op in policy[config]}
        for scheme, configs in _POLICIES.items()
    }


def make_table() -> dict[str, Any]:
    """The document that `mltool/conversion/support.json` holds."""
    table, quantizer = measured(), of_quantizer()
    for op, row in table.items():
        row |= {scheme: QUANTIZED if op in ops else FLOAT for scheme, ops in quantizer.items()}
    packages = ("tensorflow", "ai-edge-litert", "litert-quantizer")
    return {"measured_with": {name: extras.version_of(name) for name in packages}, "operators": table}


if __name__ == "__main__":
    extras.prepare_tensorflow()
    PAGE.write_text(json.dumps(make_table(), indent=1) + "\n", encoding="utf-8")

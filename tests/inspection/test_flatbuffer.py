"""Reading `.tflite` files, and above all: which layer an operator came from, worked out by hand for real models."""

import random
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from mltool.errors import ArtifactError
from mltool.inspection.flatbuffer import read_flatbuffer
from mltool.inspection.layers import LayerNames

SCHEMES = ["none", "float16", "dynamic", "int8"]

LAYERS = {
    "cnn": ["rescaling", "first", "norm", "act", "deep", "pool", "flatten", "drop", "dense"],
    "residual": ["stem", "body", "add", "pooled", "normalization", "side", "join", "out"],
    "transformer": ["ln", "mha", "add", "ffn", "ffn/d2", "gap", "head"],
    "plain": ["dense", "dense_1", "dense_2", "softmax"],
    "odd": ["odd", "twice", "conv", "up", "flat", "left", "right"],
}

# The operators that compute, in order, with their layers: the same in every scheme. What is folded away at conversion
# (rescaling into the Conv2D's weights, drop) has no operator. Layers of one operator are joined with +.
COMPUTING = {
    "cnn": [
        "CONV_2D first+norm+act",  # batch normalization and ReLU become its weights and its activation
        "DEPTHWISE_CONV_2D deep",
        "MAX_POOL_2D pool",
        "RESHAPE flatten",
        "FULLY_CONNECTED dense",
        "SOFTMAX dense",  # its tensor is called StatefulPartitionedCall
    ],
    "residual": [
        "CONV_2D stem",
        "CONV_2D body",
        "ADD add",
        "MEAN pooled",
        "SUB normalization",
        "MUL normalization",
        "FULLY_CONNECTED side",
        "CONCATENATION join",
        "FULLY_CONNECTED out",
    ],
    "plain": ["FULLY_CONNECTED dense", "FULLY_CONNECTED dense_1", "FULLY_CONNECTED dense_2", "SOFTMAX softmax"],
    "odd": [
        "FULLY_CONNECTED twice",
        "FULLY_CONNECTED twice",
        # Conv1D's ExpandDims and Squeeze are RESHAPEs
        "RESHAPE conv",
        "CONV_2D conv",
        "RESHAPE up",
        "TILE up",
        "RESHAPE up+flat",
        "FULLY_CONNECTED left",
        "FULLY_CONNECTED right",
    ],
}

# QUANTIZE at an input belongs to the layers that read it, DEQUANTIZE at an output to those that made it.
INT8_EDGES = {
    "cnn": ["QUANTIZE first+norm+act", "DEQUANTIZE dense"],
    "residual": ["QUANTIZE normalization", "QUANTIZE stem", "DEQUANTIZE out"],
    "plain": ["QUANTIZE dense", "DEQUANTIZE softmax"],
    "odd": ["QUANTIZE twice", "DEQUANTIZE left", "DEQUANTIZE right"],
    # LayerNormalization negates a mean, which no int8 kernel does
    "transformer": ["QUANTIZE ln+add", "DEQUANTIZE ln", "QUANTIZE ln", "DEQUANTIZE head"],
}


def _models():
    import keras

    layers = keras.layers
    image = keras.Input((8, 8, 1), name="image")
    out = layers.Rescaling(0.0625, name="rescaling")(image)
    out = layers.Conv2D(8, 3, use_bias=False, name="first")(out)
    out = layers.ReLU(name="act")(layers.BatchNormalization(name="norm")(out))
    out = layers.DepthwiseConv2D(3, padding="same", activation="relu", name="deep")(out)
    out = layers.Flatten(name="flatten")(layers.MaxPooling2D(name="pool")(out))
    out = layers.Dense(10, activation="softmax", name="dense")(layers.Dropout(0.2, name="drop")(out))
    yield "cnn", keras.Model(image, out)

    image, meta = keras.Input((8, 8, 1), name="image"), keras.Input((5,), name="meta")
    stem = layers.Conv2D(8, 3, padding="same", name="stem")(image)
    out = layers.Add(name="add")([stem, layers.Conv2D(8, 3, padding="same", name="body")(stem)])
    out = layers.GlobalAveragePooling2D(name="pooled")(out)
    scaled = layers.Normalization(mean=np.arange(5.0), variance=np.arange(1.0, 6.0), name="normalization")(meta)
    side = layers.Dense(8, activation="relu", name="side")(scaled)
    out = layers.Dense(10, name="out")(layers.Concatenate(name="join")([out, side]))
    yield "residual", keras.Model([image, meta], out)

    x = keras.Input((8, 16), name="x")
    normal = layers.LayerNormalization(name="ln")(x)
    out = layers.Add(name="add")([x, layers.MultiHeadAttention(2, 8, name="mha")(normal, normal)])
    inner = [layers.Dense(64, activation="gelu", name="d1"), layers.Dense(16, name="d2")]
    out = keras.Sequential([keras.Input((8, 16)), *inner], name="ffn")(out)
    out = layers.Dense(1, activation="sigmoid", name="head")(layers.GlobalAveragePooling1D(name="gap")(out))
    yield "transformer", keras.Model(x, out)

    # Keras' own names, where layer dense_1 has the scope dense_1_2 and layer dense the scope dense_1
    dense = [layers.Dense(64, activation="relu", name=name) for name in ("dense", "dense_1")]
    last = [layers.Dense(10, name="dense_2"), layers.Softmax(name="softmax")]
    yield "plain", keras.Sequential([keras.Input((20,), name="x"), *dense, *last])

    # a model that is called like a layer, a layer that is called twice, two outputs
    x = keras.Input((8, 16), name="x")
    twice = layers.Dense(16, activation="relu", name="twice")
    out = layers.Conv1D(8, 3, strides=2, activation="relu", name="conv")(twice(twice(x)))
    out = layers.Flatten(name="flat")(layers.UpSampling1D(2, name="up")(out))
    yield "odd", keras.Model(x, [layers.Dense(3, name="left")(out), layers.Dense(2, name="right")(out)], name="odd")


def _randomize(model) -> None:
    """Weights that no folding can remove: trained biases are not 0, trained variances not 1."""
    random_numbers = np.random.default_rng(3)
    for weight in model.weights:
        if "normalization" not in weight.path and weight.dtype == "float32":
            values = random_numbers.normal(0, 0.3, weight.shape)
            weight.assign(np.abs(values) + 0.5 if "variance" in weight.path else values)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Path]]:
    """Every model in every scheme, converted once."""
    from mltool.conversion.engines.converter import convert_saved_model

    root = tmp_path_factory.mktemp("files")
    paths: dict[str, dict[str, Path]] = {}
    for name, model in _models():
        _randomize(model)
        model.export(root / name, verbose=False)
        samples = {tensor.name: np.random.default_rng(0).random((16, *tensor.shape[1:])) for tensor in model.inputs}
        np.savez(root / "samples.npz", **samples)
        for scheme in SCHEMES:
            paths.setdefault(name, {})[scheme] = root / f"{name}-{scheme}.tflite"
            convert_saved_model(
                saved_model=str(root / name),
                signature="serving_default",
                output=str(paths[name][scheme]),
                quantize=scheme,
                io="float32",
                batch=1,
                representative=str(root / "samples.npz"),
                keep_float=[],
                layer_names=LAYERS[name],
            )
    return paths


def _told(operators) -> list[str]:
    return [f"{op.op} {'+'.join(op.layers)}" for op in operators]


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("model", COMPUTING)
def test_every_operator_is_given_to_its_layers(files: dict[str, dict[str, Path]], model: str, scheme: str):
    file = read_flatbuffer(files[model][scheme], LAYERS[model])

    assert _told(op for op in file.operators if op.compute_dtype != "edge") == COMPUTING[model]


@pytest.mark.parametrize("model", INT8_EDGES)
def test_quantize_and_dequantize_are_given_to_the_layers_that_need_them(files: dict[str, dict[str, Path]], model: str):
    file = read_flatbuffer(files[model]["int8"], LAYERS[model])

    assert _told(op for op in file.operators if op.compute_dtype == "edge") == INT8_EDGES[model]


def test_unpacked_float16_weights_are_given_to_the_layers_that_read_them(files: dict[str, dict[str, Path]]):
    file = read_flatbuffer(files["residual"]["float16"], LAYERS["residual"])

    unpacking = [op for op in file.operators if op.op == "DEQUANTIZE"]
    assert sorted(_told(unpacking)) == sorted(
        f"DEQUANTIZE {layer}"
        for layer in ["stem", "stem", "body", "body", "side", "side", "out", "out", "normalization", "normalization"]
    )


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_parts_of_attention_layer_normalization_and_submodels_are_given_to_the_outer_layer(
    files: dict[str, dict[str, Path]], scheme: str
):
    file = read_flatbuffer(files["transformer"][scheme], LAYERS["transformer"])

    computing = _told(op for op in file.operators if op.compute_dtype != "edge")
    assert computing[:11] == [
        f"{op} ln"
        for op in ("MEAN", "NEG", "SQUARED_DIFFERENCE", "MEAN", "ADD", "RSQRT", "MUL", "MUL", "ADD", "MUL", "ADD")
    ]
    attention = [line for line in computing[11:] if line.endswith("mha")]
    assert computing[11 : 11 + len(attention)] == attention
    assert [line.split()[0] for line in attention].count("BATCH_MATMUL") == 2
    assert [line.split()[0] for line in attention].count("SOFTMAX") == 1
    # d1 is not among the names that were given, so it is ffn; d2 is, as ffn/d2
    assert computing[11 + len(attention) :] == [
        "ADD add",
        "FULLY_CONNECTED ffn",
        "GELU ffn",
        "FULLY_CONNECTED ffn/d2",
        "MEAN gap",
        "FULLY_CONNECTED head",
        "LOGISTIC head",
    ]


def test_without_layer_names_operators_have_no_layers(files: dict[str, dict[str, Path]]):
    file = read_flatbuffer(files["cnn"]["int8"])

    assert {op.layers for op in file.operators} == {()}
    assert str(file.operators[1]) == "CONV_2D 1"


@pytest.mark.parametrize(
    ("tensor", "known", "others", "layers"),
    [
        pytest.param("net_1/stem_1/convolution", ["stem"], [], {"stem"}, id="suffix"),
        pytest.param("act_1/Relu;stem_1/convolution1", ["stem", "act"], [], {"stem", "act"}, id="fused"),
        pytest.param("net/stem/convolution", ["stem"], [], {"stem"}, id="no suffix"),
        pytest.param("net/a_1/x", ["a", "a_1"], ["net/b_1/x", "net/a_1_1/x"], {"a"}, id="suffixed file"),
        pytest.param("net/a_1/x", ["a", "a_1", "b", "c"], ["net/b/x", "net/c/x"], {"a_1"}, id="file without suffixes"),
        pytest.param("net/stem/dense_1/x", ["stem", "dense"], [], {"stem"}, id="outer layer wins"),
        pytest.param("net/stem_1/dense_1/x", ["stem", "stem/dense"], [], {"stem/dense"}, id="inner layer by its path"),
        pytest.param("net/other/convolution", ["convolution"], [], set(), id="operation called like a layer"),
        pytest.param("StatefulPartitionedCall:0", ["stem"], [], set(), id="output"),
        pytest.param("tfl.quantize", ["stem"], [], set(), id="inserted"),
    ],
)
def test_layers_are_found_in_tensor_names(tensor: str, known: list[str], others: list[str], layers: set[str]):
    assert LayerNames(known, [tensor, *others]).in_tensor(tensor) == layers


def test_tensors_tell_their_shape_type_and_quantization(files: dict[str, dict[str, Path]]):
    file = read_flatbuffer(files["cnn"]["int8"], LAYERS["cnn"])

    conv = next(op for op in file.operators if op.op == "CONV_2D")
    image, weight, bias = conv.inputs
    assert image is not None
    assert weight is not None
    assert bias is not None
    assert (image.dtype, image.shape, image.constant, image.bytes) == ("int8", (1, 8, 8, 1), False, 0)
    assert (weight.dtype, weight.shape, weight.constant, weight.bytes) == ("int8", (8, 3, 3, 1), True, 72)
    assert (len(weight.scales), set(weight.zero_points), weight.quantized_dimension) == (8, {0}, 0)
    assert (bias.dtype, bias.bytes) == ("int32", 32)
    # samples lie in [0, 1): a step is the largest of them / 255, and 0 is at the lower end
    assert image.scales == pytest.approx([1 / 255], rel=0.01)
    assert image.zero_points == (-128,)
    assert image.quantized_dimension is None


@pytest.mark.parametrize(
    ("scheme", "operators", "weights"),
    [
        # weights: 8 * 9 convolution, 9 * 8 depthwise, 72 * 10 dense = 864; biases: 8 + 8 + 10 = 26; RESHAPE: 2
        pytest.param("none", {"float32": 6}, {"float32": 890 * 4, "int32": 2 * 4}, id="none"),
        pytest.param("float16", {"edge": 6, "float32": 6}, {"float16": 890 * 2, "int32": 2 * 4}, id="float16"),
        pytest.param("int8", {"edge": 2, "int8": 6}, {"int8": 864, "int32": 28 * 4}, id="int8"),
    ],
)
def test_shares_count_operators_and_bytes_by_type(
    files: dict[str, dict[str, Path]], scheme: str, operators: dict[str, int], weights: dict[str, int]
):
    file = read_flatbuffer(files["cnn"][scheme])

    assert file.ops_by_dtype == operators
    assert file.weight_bytes_by_dtype == weights


def test_integer_weights_with_float_activations_are_hybrid(files: dict[str, dict[str, Path]]):
    file = read_flatbuffer(files["plain"]["dynamic"])

    # 20 * 64 = 1,280 and 64 * 64 elements are quantized, 64 * 10 = 640 are not
    assert [op.compute_dtype for op in file.operators] == ["hybrid", "hybrid", "float32", "float32"]


def test_the_whole_file_is_described(files: dict[str, dict[str, Path]]):
    path = files["residual"]["none"]
    file = read_flatbuffer(path)

    (signature,) = file.signatures
    assert signature.name == "serving_default"
    assert {name: tensor.shape for name, tensor in signature.inputs.items()} == {"image": (1, 8, 8, 1), "meta": (1, 5)}
    assert {name: tensor.shape for name, tensor in signature.outputs.items()} == {"output_0": (1, 10)}
    assert {tensor.index for tensor in file.inputs} == {tensor.index for tensor in signature.inputs.values()}
    assert file.total_bytes == path.stat().st_size
    assert file.op_counts == {
        "ADD": 1, "CONCATENATION": 1, "CONV_2D": 2, "FULLY_CONNECTED": 2, "MEAN": 1, "MUL": 1, "SUB": 1
    }  # fmt: skip
    assert (file.custom_ops, file.flex_ops, file.variables) == ((), (), ())
    assert file.min_runtime_version is not None
    assert file.min_runtime_version[0].isdigit()


@pytest.mark.parametrize(
    ("content", "text"),
    [
        pytest.param(b"", "is not a .tflite file", id="empty"),
        pytest.param(b"PK\x03\x04 a zip file", r"is not a .tflite file: bytes 4 to 7 are b' a z'", id="another format"),
        pytest.param(b"\xff\xff\xff\x7fTFL3", "is damaged", id="root outside the file"),
        pytest.param(b"\x08\0\0\0TFL3" + bytes(64), "is damaged", id="zeros"),
    ],
)
def test_what_is_no_flatbuffer_is_refused(tmp_path: Path, content: bytes, text: str):
    (tmp_path / "model.tflite").write_bytes(content)

    with pytest.raises(ArtifactError, match=text):
        read_flatbuffer(tmp_path / "model.tflite")


def test_a_missing_file_is_refused_with_its_name(tmp_path: Path):
    with pytest.raises(ArtifactError, match=r"cannot read .*absent\.tflite: No such file"):
        read_flatbuffer(tmp_path / "absent.tflite")


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9, 0.99])
def test_a_truncated_file_is_refused(files: dict[str, dict[str, Path]], tmp_path: Path, share: float):
    data = files["cnn"]["int8"].read_bytes()
    (tmp_path / "cut.tflite").write_bytes(data[: int(len(data) * share)])

    with pytest.raises(ArtifactError, match=r"cut\.tflite is damaged: .+; copy it again"):
        read_flatbuffer(tmp_path / "cut.tflite")


def test_damage_anywhere_is_answered_at_once_with_an_artifact_error_or_a_reading(
    files: dict[str, dict[str, Path]], tmp_path: Path
):
    data = files["cnn"]["int8"].read_bytes()
    numbers = random.Random(7)
    path, refused, slowest = tmp_path / "damaged.tflite", 0, 0.0
    for _ in range(400):
        damaged = bytearray(data)
        for _ in range(numbers.choice([1, 1, 4])):
            struct.pack_into(
                "<I", damaged, numbers.randrange(8, len(data) - 4), numbers.choice([0, 1, 2**31, 2**32 - 1])
            )
        path.write_bytes(damaged)
        start = time.perf_counter()
        try:
            read_flatbuffer(path, LAYERS["cnn"])
        except ArtifactError:
            refused += 1
        slowest = max(slowest, time.perf_counter() - start)
    assert refused > 100
    assert slowest < 2


def test_a_file_that_names_one_table_a_million_times_is_refused_at_once(tmp_path: Path):
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    builder = flatbuffers.Builder()
    shape = builder.CreateNumpyVector(np.ones(100_000, np.int32))
    schema.TensorStart(builder)
    schema.TensorAddShape(builder, shape)
    tensor = schema.TensorEnd(builder)
    schema.SubGraphStartTensorsVector(builder, 100_000)
    for _ in range(100_000):
        builder.PrependUOffsetTRelative(tensor)
    tensors = builder.EndVector()
    schema.SubGraphStart(builder)
    schema.SubGraphAddTensors(builder, tensors)
    graph = schema.SubGraphEnd(builder)
    schema.BufferStart(builder)
    buffer = schema.BufferEnd(builder)
    schema.ModelStartBuffersVector(builder, 1)
    builder.PrependUOffsetTRelative(buffer)
    buffers = builder.EndVector()
    schema.ModelStartSubgraphsVector(builder, 1)
    builder.PrependUOffsetTRelative(graph)
    graphs = builder.EndVector()
    schema.ModelStart(builder)
    schema.ModelAddSubgraphs(builder, graphs)
    schema.ModelAddBuffers(builder, buffers)
    builder.Finish(schema.ModelEnd(builder), b"TFL3")
    (tmp_path / "bomb.tflite").write_bytes(builder.Output())
    start = time.perf_counter()

    with pytest.raises(ArtifactError, match=r"it says that it holds more than \d+ entries"):
        read_flatbuffer(tmp_path / "bomb.tflite")

    assert time.perf_counter() - start < 5


def test_reading_does_not_import_tensorflow(files: dict[str, dict[str, Path]]):
    script = (
        "import sys; from pathlib import Path; from mltool.inspection.flatbuffer import read_flatbuffer; "
        "read_flatbuffer(Path(sys.argv[1])); sys.exit('tensorflow' in sys.modules)"
    )

    subprocess.run([sys.executable, "-c", script, str(files["cnn"]["int8"])], check=True)

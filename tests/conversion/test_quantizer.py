"""The second engine: a float file to a quantized one, held against the float answers, the converter and known sums."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mltool.child import Child
from mltool.conversion.engines.op_versions import runtime_of, version_of
from mltool.conversion.engines.quantizer import quantize_file
from mltool.conversion.engines.recipe import recipe_for
from mltool.conversion.precision import Precision
from mltool.errors import ArtifactError, ConversionError
from mltool.inspection.flatbuffer import read_flatbuffer
from mltool.inspection.model_file import Operator, Tensor

Convert = Callable[..., Path]
Run = Callable[..., np.ndarray]


@pytest.mark.parametrize(
    ("precision", "largest"),
    [
        # Twice what was measured, as a share of the range of the float answers.
        pytest.param(Precision("int8"), 0.02, id="int8"),
        pytest.param(Precision("int8", granularity="tensor"), 0.04, id="int8, one scale per tensor"),
        pytest.param(Precision("int16x8"), 0.01, id="int16x8"),
        pytest.param(Precision("dynamic"), 0.02, id="dynamic"),
        pytest.param(Precision("weight-only"), 0.01, id="weight-only"),
        pytest.param(Precision("int4"), 0.25, id="int4"),
        pytest.param(Precision("int4", granularity="block", block_size=32), 0.25, id="int4 in blocks"),
        pytest.param(Precision("int8", {"depth": "int16x8", "hidden": "int4", "last": "float32"}), 0.25, id="mixed"),
    ],
)
def test_answers_stay_close_to_float(
    convnet: Any,
    quantize: Convert,
    float_file: Callable[[Any], Path],
    run_file: Run,
    precision: Precision,
    largest: float,
):
    expected = run_file(float_file(convnet), convnet.samples)

    found = run_file(quantize(convnet, precision), convnet.samples)

    assert 0 < np.abs(found - expected).max() / np.ptp(expected) < largest


def test_the_fewer_bits_the_smaller(convnet: Any, quantize: Convert, float_file: Callable[[Any], Path]):
    sizes = [read_flatbuffer(float_file(convnet)).weight_bytes_by_dtype["float32"]]
    # 72 + 72 + 256 + 1280 + 400 weights; int4 leaves the depthwise ones in int8
    sizes.append(read_flatbuffer(quantize(convnet, Precision("weight-only"))).weight_bytes_by_dtype["int8"])
    narrow = read_flatbuffer(quantize(convnet, Precision("int4"))).weight_bytes_by_dtype

    assert sizes[1] == 72 + 72 + 256 + 1280 + 400
    assert (narrow["int4"], narrow["int8"]) == ((72 + 256 + 1280 + 400) // 2, 72)
    assert sizes[0] > 4 * sizes[1]


def test_ranges_are_least_and_greatest_over_all_samples(convnet: Any, quantize: Convert, tmp_path: Path):
    samples = {"image": convnet.samples["image"].copy()}
    samples["image"][3] *= 40  # one sample of 64, which a moving average forgets
    np.savez(tmp_path / "spread.npz", **samples)

    path = quantize(convnet, Precision("int8"), representative=str(tmp_path / "spread.npz"))

    # Asymmetric int8 over a range that holds 0: 255 steps.
    image = read_flatbuffer(path).operators[0].outputs[0]
    assert image.scales[0] == pytest.approx(samples["image"].max() / 255, rel=1e-5)


def test_the_same_inputs_give_the_same_bytes(convnet: Any, quantize: Convert):
    precision = Precision("int8", {"hidden": "int4"})
    first = quantize(convnet, precision).read_bytes()

    assert quantize(convnet, precision).read_bytes() == first


def test_names_of_the_signature_are_kept(convnet: Any, quantize: Convert):
    (signature,) = read_flatbuffer(quantize(convnet, Precision("int8"))).signatures

    assert (signature.name, list(signature.inputs), list(signature.outputs)) == (
        "serving_default", ["image"], ["scores"],
    )  # fmt: skip


@pytest.mark.parametrize(("io", "default"), [("int8", "int8"), ("uint8", "int8"), ("int16", "int16x8")])
def test_integer_inputs_and_outputs(
    convnet: Any,
    quantize: Convert,
    float_file: Callable[[Any], Path],
    run_file: Run,
    io: str,
    default: str,
):
    path = quantize(convnet, Precision(default, io=io))

    file = read_flatbuffer(path)
    assert {tensor.dtype for tensor in (*file.inputs, *file.outputs)} == {io}
    assert "float32" not in {tensor.dtype for tensor in file.tensors}
    expected = run_file(float_file(convnet), convnet.samples)
    assert np.abs(run_file(path, convnet.samples) - expected).max() < 0.03 * np.ptp(expected)


def test_weights_beyond_256_kib_are_in_the_file(
    export_model: Any, quantize: Convert, run_file: Run, float_file: Callable[[Any], Path]
):
    import keras

    exported = export_model(
        "wide", keras.Sequential([keras.Input((512,), name="x"), keras.layers.Dense(1024, name="d")])
    )

    path = quantize(exported, Precision("weight-only"))

    kernel = exported.model.get_layer("d").kernel.numpy().T
    unpack = next(op for op in read_flatbuffer(path).operators if op.op == "DEQUANTIZE").inputs[0]
    assert unpack.bytes == kernel.size > 256 * 1024
    scales = np.array(unpack.scales)
    assert scales == pytest.approx(np.abs(kernel).max(axis=1) / 127, rel=1e-5)  # symmetric, one per output
    expected = run_file(float_file(exported), exported.samples)
    assert np.abs(run_file(path, exported.samples) - expected).max() < 0.01 * np.ptp(expected)


def _versions(path: Path) -> dict[str, int]:
    return {op.op: op.version for op in read_flatbuffer(path).operators}


def test_versions_of_int8_are_those_of_the_converter(convnet: Any, quantize: Convert, convert: Convert):
    theirs, ours = convert(convnet, "int8"), quantize(convnet, Precision("int8"))

    assert _versions(ours) == _versions(theirs)
    assert read_flatbuffer(ours).min_runtime_version == read_flatbuffer(theirs).min_runtime_version == "1.14.0"


def test_versions_of_other_schemes_keep_older_runtimes_away(convnet: Any, quantize: Convert):
    found = {name: quantize(convnet, Precision(name)) for name in ("int16x8", "int4")}

    # From op_version.cc and runtime_version.cc: MEAN of int16 came with 2.4, FULLY_CONNECTED 12 with 2.17
    found_versions = {
        name: (_versions(quantize(convnet, Precision(name))), read_flatbuffer(path).min_runtime_version)
        for name, path in found.items()
    }
    assert found_versions["int16x8"][0] == {
        "QUANTIZE": 2, "CONV_2D": 4, "DEPTHWISE_CONV_2D": 5, "MEAN": 3, "FULLY_CONNECTED": 7, "DEQUANTIZE": 3,
    }  # fmt: skip
    assert found_versions["int4"][0] == {"CONV_2D": 7, "DEPTHWISE_CONV_2D": 6, "MEAN": 1, "FULLY_CONNECTED": 12}
    assert found_versions["int4"][1] == "2.17.0"


def _tensor(dtype: str, shape: tuple[int, ...] = (4, 4), scales: int = 0, *, constant: bool = False) -> Tensor:
    values = (0.5,) * scales
    return Tensor(0, 0, "t", dtype, shape, constant, 16, values, (0,) * scales, None, False, True, False)


@pytest.mark.parametrize(
    ("op", "inputs", "output", "compute", "version"),
    [
        pytest.param("ADD", ["int8"], "int8", "int8", 2, id="ADD int8"),
        pytest.param("SUB", ["int16"], "int16", "int16", 5, id="SUB int16"),
        pytest.param("ABS", ["float32"], "float32", "float32", 1, id="float"),
        pytest.param("CONV_2D", ["float32", "int8*4"], "float32", "hybrid", 5, id="hybrid CONV_2D per channel"),
        pytest.param("CONV_2D", ["float32", "int8*1"], "float32", "hybrid", 2, id="hybrid CONV_2D per tensor"),
        pytest.param("CONV_2D", ["int8", "int4*4"], "int8", "int8", 7, id="CONV_2D of 4-bit weights"),
        pytest.param("FULLY_CONNECTED", ["int8", "int4*4"], "int8", "int8", 10, id="FULLY_CONNECTED of 4-bit weights"),
        pytest.param("FULLY_CONNECTED", ["int16", "int4*4"], "int16", "int16", 13, id="and 16-bit activations"),
        pytest.param("FULLY_CONNECTED", ["float32", "int8*1"], "float32", "hybrid", 3, id="hybrid per tensor"),
        pytest.param("DEQUANTIZE", ["int8*4"], "float32", "edge", 5, id="DEQUANTIZE per channel"),
        pytest.param("DEQUANTIZE", ["int4*4"], "float32", "edge", 6, id="DEQUANTIZE of 4 bits"),
        pytest.param("QUANTIZE", ["float32"], "int16", "edge", 2, id="QUANTIZE to int16"),
        pytest.param("MUL", ["int8+1", "int8+1"], "int8+1", "int8", 2, id="MUL that shrinks"),
    ],
)
def test_versions_are_those_of_op_version_cc(op: str, inputs: list[str], output: str, compute: str, version: int):
    def tensor(text: str) -> Tensor:
        dtype, stars, scales = text.replace("+", "*").partition("*")
        return _tensor(dtype, scales=int(scales or 0), constant="*" in text and bool(stars))

    made = Operator(0, 0, op, 1, tuple(map(tensor, inputs)), (tensor(output),), "", (), compute)

    assert version_of(made) == version


def test_a_version_of_the_float_file_is_never_lowered():
    grouped = Operator(0, 0, "CONV_2D", 6, (_tensor("int8"), _tensor("int8")), (_tensor("int8"),), "", (), "int8")

    assert version_of(grouped) == 6  # a grouped convolution needs 6, an int8 one 3


@pytest.mark.parametrize(
    ("versions", "known", "runtime"),
    [
        pytest.param([("CONV_2D", 3)], None, "1.14.0", id="from the table"),
        pytest.param([("CONV_2D", 3)], "2.9.0", "2.9.0", id="float file needs more"),
        pytest.param([("CONV_2D", 5), ("FULLY_CONNECTED", 12)], "1.5.0", "2.17.0", id="the greatest, as numbers"),
        pytest.param([("COS", 1)], None, "1.5.0", id="unknown"),
    ],
)
def test_the_runtime_is_the_latest_that_an_operator_needs(versions: Any, known: str | None, runtime: str):
    assert runtime_of(versions, known) == runtime


@pytest.mark.parametrize(
    ("change", "text"),
    [
        pytest.param(lambda x: {"image": x[:0]}, r"1 or more \(got \{'image': 0\}\)", id="empty"),
        pytest.param(lambda x: {}, r"has inputs \[\], the model \['image'\]", id="no array"),
        pytest.param(lambda x: {"picture": x}, r"has inputs \['picture'\], the model \['image'\]", id="name"),
        pytest.param(lambda x: {"image": x[:, :4]}, r"samples of shape \[4, 8, 1\], the model takes", id="shape"),
        pytest.param(lambda x: {"image": x.astype(str)}, "is not numeric", id="text"),
        pytest.param(lambda x: {"image": _with(x, np.inf)}, r"is not finite \(first in sample 5\)", id="one Inf"),
        pytest.param(lambda x: {"image": _with(x, np.nan)}, r"is not finite \(first in sample 5\)", id="one NaN"),
        pytest.param(lambda x: {"image": _with(x.astype(float), 1e300)}, "is not finite", id="beyond float32"),
    ],
)
def test_unfit_samples_are_refused(convnet: Any, quantize: Convert, tmp_path: Path, change: Any, text: str):
    np.savez(tmp_path / "bad.npz", **change(convnet.samples["image"]))

    with pytest.raises(ConversionError, match=text):
        quantize(convnet, Precision("int8"), representative=str(tmp_path / "bad.npz"))


def _with(values: np.ndarray, bad: float) -> np.ndarray:
    changed = values.copy()
    changed[5, 0, 0, 0] = bad
    return changed


def test_samples_are_asked_for_where_activations_are_integers(convnet: Any, quantize: Convert):
    with pytest.raises(ConversionError, match="need a representative dataset to calibrate with, and none was given"):
        quantize(convnet, Precision("int8"), representative=None)

    assert quantize(convnet, Precision("int4"), representative=None).is_file()


def test_a_model_that_overflows_inside_is_refused(export_model: Any, quantize: Convert):
    import keras

    layers = keras.layers
    stack = [keras.Input((4,), name="x"), layers.Rescaling(1e30, name="up"), layers.Rescaling(1e30, name="further")]
    exported = export_model("overflow", keras.Sequential([*stack, layers.Dense(2, name="out")]))

    with pytest.raises(ConversionError, match=r"tensor '.*' spans .*inf.* on the representative dataset"):
        quantize(exported, Precision("int8"))


@pytest.mark.parametrize("scheme", ["int8", "dynamic", "float16"])
def test_a_quantized_source_is_refused(digits: Any, convert: Convert, quantize: Convert, scheme: str):
    source = convert(digits, scheme)

    with pytest.raises(ConversionError, match=r"is quantized already: tensor .* is (int8|float16)"):
        quantize(digits, Precision("int4"), source=str(source))


def test_another_signature_is_refused(convnet: Any, quantize: Convert):
    with pytest.raises(ConversionError, match=r"needs one signature, 'other', and has \['serving_default'\]"):
        quantize(convnet, Precision("int8"), signature="other")


def test_a_source_that_is_not_there_is_another_kind_of_error(tmp_path: Path):
    arguments: dict[str, Any] = {"recipe": [], "representative": None, "signature": "serving_default"}
    with pytest.raises(ArtifactError, match="cannot read"):
        quantize_file(source=str(tmp_path / "no.tflite"), output=str(tmp_path / "o.tflite"), **arguments)


def test_what_the_quantizer_refuses_names_no_exception_of_its_own(convnet: Any, quantize: Convert, tmp_path: Path):
    config = {
        "weight_tensor_config": {"num_bits": 4, "granularity": "BLOCKWISE_256"},
        "compute_precision": "INTEGER",
    }
    rule = {"regex": ".*", "operation": "FULLY_CONNECTED", "algorithm_key": "min_max_uniform_quantize"}

    with pytest.raises(ConversionError, match=r"hidden.* inputs cannot be divided into blocks of 256"):
        quantize(convnet, Precision("int4"), recipe=[{**rule, "op_config": config}])
    assert list(tmp_path.glob("*.tflite")) == []


def test_an_int8_loop_is_refused_and_a_dynamic_one_made(export_model: Any, quantize: Convert, run_file: Run):
    import keras

    stack = [keras.Input((6, 4), name="x"), keras.layers.LSTM(8, name="lstm"), keras.layers.Dense(3, name="out")]
    exported = export_model("loop", keras.Sequential(stack))

    with pytest.raises(
        ConversionError, match=r"int8 cannot be had inside of a loop: WHILE of layer 'lstm'; write layers"
    ):
        quantize(exported, Precision("int8"))
    path = quantize(exported, Precision("int8", {"lstm": "dynamic"}))
    assert np.isfinite(run_file(path, exported.samples)).all()


def test_an_output_that_nobody_reads_does_not_break_the_file(
    export_model: Any, quantize: Convert, run_file: Run, float_file: Callable[[Any], Path]
):
    import keras

    def middle(x: Any) -> Any:
        first, _, last = keras.ops.split(x, 3, axis=-1)
        return first * last

    x = keras.Input((4,), name="x")
    model = keras.Model(x, keras.layers.Dense(3, name="out")(middle(keras.layers.Dense(6, name="in")(x))))
    exported = export_model("unread", model)
    source = read_flatbuffer(float_file(exported))
    assert [op.op for op in source.half_read] == ["SPLIT"]

    path = quantize(exported, Precision("int8"))

    (split,) = (op for op in read_flatbuffer(path).operators if op.op == "SPLIT")
    assert {tensor.dtype for tensor in split.outputs} == {"float32"}
    expected = run_file(float_file(exported), exported.samples)
    assert np.abs(run_file(path, exported.samples) - expected).max() < 0.05 * np.ptp(expected)


def test_it_runs_in_the_child_and_without_tensorflow(convnet: Any, float_file: Callable[[Any], Path], tmp_path: Path):
    source = float_file(convnet)
    arguments: dict[str, Any] = {
        "source": str(source),
        "output": str(tmp_path / "made.tflite"),
        "recipe": recipe_for(Precision("int8"), read_flatbuffer(source)),
        "representative": str(convnet.representative),
        "signature": "serving_default",
    }
    with Child() as child:
        answer = child.call("mltool.conversion.engines.quantizer:quantize_file", timeout_seconds=120, **arguments)
    assert answer["bytes"] == (tmp_path / "made.tflite").stat().st_size
    assert set(answer["seconds"]) == {"calibrate", "quantize"}

    code = (
        "import sys\nfrom mltool.conversion.engines.quantizer import quantize_file\n"
        f"quantize_file(**{arguments!r})\nsys.exit('tensorflow' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, capture_output=True).returncode == 0

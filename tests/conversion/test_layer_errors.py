"""Files of the converter and of litert-quantizer beside their float file, whole and spoilt on purpose."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mltool.child import Child
from mltool.conversion.explain.advice import explanation
from mltool.conversion.explain.explain import explain
from mltool.conversion.explain.layer_errors import layer_errors
from mltool.conversion.explain.records import Explanation, LayerError
from mltool.conversion.explain.rows import COLUMNS, lines, rows
from mltool.errors import ArtifactError

Convert = Callable[..., Path]


@pytest.fixture(scope="module")
def kept() -> dict[Any, bytes]:
    """Files that were converted before: the converter is what takes the time here."""
    return {}


@pytest.fixture
def converted(convert: Convert, tmp_path: Path, kept: dict[Any, bytes]) -> Convert:
    """Converts, and gives what was converted before without another run."""

    def run(exported: Any, quantize: str, name: str = "", **changed: Any) -> Path:
        key = (str(exported.folder), quantize, repr(changed))
        if key not in kept:
            kept[key] = convert(exported, quantize, **changed).read_bytes()
        path = tmp_path / f"{name or quantize}.tflite"
        path.write_bytes(kept[key])
        return path

    return run


@pytest.fixture
def measured(converted: Convert) -> Callable[..., Explanation]:
    """Converts to float and to a scheme, spoils the latter if asked to, and measures it."""

    def measure(exported: Any, quantize: str, spoil: Callable[[Path], None] | None = None, **changed: Any) -> Any:
        batch = {key: value for key, value in changed.items() if key == "batch" and value != 1}
        wanted = converted(exported, "none", "float", **batch)
        path = converted(exported, quantize, **without_batch(changed), **batch)
        if spoil is not None:
            spoil(path)
        return of_files(exported, wanted, path)

    return measure


def without_batch(changed: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in changed.items() if key != "batch"}


def of_files(exported: Any, wanted: Path, path: Path) -> Explanation:
    found = layer_errors(
        float_file=str(wanted),
        quantized_file=str(path),
        samples=str(exported.representative),
        layer_names=exported.layers,
    )
    return explanation(path.stem, 64, [LayerError(**row) for row in found])


def by_name(found: Explanation) -> dict[str, LayerError]:
    return {layer.layer: layer for layer in found.layers}


# What is right


@pytest.mark.parametrize("quantize", ["none", "float16", "dynamic", "int8"])
def test_of_a_good_file_nothing_is_wrong(digits: Any, measured: Any, quantize: str):
    found = measured(digits, quantize)
    assert [layer.layer for layer in found.layers] == digits.layers
    assert found.findings == ()
    assert set(found.causes.values()) == {"none"}
    assert found.verdict.startswith("nothing is wrong")


def test_every_scheme_keeps_what_it_can(digits: Any, measured: Any):
    last = {scheme: by_name(measured(digits, scheme))["last"] for scheme in ("none", "float16", "dynamic", "int8")}
    assert last["none"].snr_db == 200
    ratios = [last[scheme].snr_db for scheme in ("none", "float16", "dynamic", "int8")]
    assert ratios == sorted(ratios, reverse=True)
    assert [(last[scheme].dtype, last[scheme].weight_dtype) for scheme in last] == [
        ("float32", None),
        ("float32", "float16"),
        ("float32", None),  # 400 weights: the converter leaves them alone
        ("int8", "int8"),
    ]


def test_the_ratio_of_the_last_layer_is_that_of_the_answers(
    digits: Any, measured: Any, converted: Convert, run_file: Any
):
    """Measured by another way: signatures, XNNPACK, the answers alone."""
    last = by_name(measured(digits, "int8"))["last"]
    wanted = digits.model.predict(digits.samples["image"], verbose=0).astype(np.float64)
    errors = run_file(converted(digits, "int8"), digits.samples) - wanted
    assert last.snr_db == pytest.approx(10 * np.log10(np.square(wanted).sum() / np.square(errors).sum()), abs=0.3)
    assert last.mean_error == pytest.approx(np.abs(errors).mean() / np.ptp(wanted), rel=0.05)


def test_the_ratio_of_weights_is_that_of_the_keras_weights(digits: Any, measured: Any):
    """int8, symmetric, a scale per output unit: greatest size over 127 (LiteRT 8-bit quantization specification)."""
    kernel = np.asarray(digits.model.get_layer("wide").kernel, np.float64)
    scale = np.abs(kernel).max(axis=0) / 127
    errors = np.round(kernel / scale) * scale - kernel
    wide = by_name(measured(digits, "int8"))["wide"]
    assert wide.weight_snr_db == pytest.approx(
        10 * np.log10(np.square(kernel).sum() / np.square(errors).sum()), abs=0.05
    )
    assert wide.weight_per_channel
    sizes = np.abs(kernel).max(axis=0)
    assert wide.weight_ratio == pytest.approx(sizes.max() / sizes.min(), rel=1e-4)


def test_layers_know_what_they_read(digits: Any, measured: Any):
    found = by_name(measured(digits, "int8"))
    assert {name: layer.reads for name, layer in found.items()} == {
        "rescaling": (),
        "first": ("rescaling",),
        "flatten": ("first",),
        "wide": ("flatten",),
        "last": ("wide",),
    }
    assert found["wide"].input_snr_db == found["flatten"].varying_snr_db
    assert found["rescaling"].input_snr_db == 200


@pytest.mark.parametrize("batch", [5, None], ids=["a fixed batch", "a free batch"])
def test_another_batch_is_measured_alike(digits: Any, measured: Any, batch: int | None):
    one, other = (by_name(measured(digits, "int8", batch=size))["last"] for size in (1, batch))
    assert other.snr_db == pytest.approx(one.snr_db, abs=1.5)


# What is wrong


@pytest.mark.parametrize("io", ["float32", "int8"])
def test_a_normalization_of_raw_features_is_named(table: Any, measured: Any, io: str):
    found = measured(table, "int8", io=io)
    first = found.findings[0]
    assert (first.layer, first.cause, first.keep_float) == ("normalization", "channels", ("normalization",))
    span = np.ptp(table.samples["x"], axis=0)
    assert first.message.startswith(
        "the input of layer 'normalization': 3 of 4 channels have less than 2 bits left; "
        f"ranges of {span.min():.3g} to {span.max():,.0f} share one scale of "
    )
    assert "keep_float: [normalization]" in first.advice
    assert ("io: float32" in first.advice) == (io == "int8")
    assert found.causes == {"normalization": "channels", "hidden": "inherited", "out": "inherited"}
    assert found.verdict.startswith("the answers are lost, the most in layer 'normalization'")
    assert rows(found)[0][0] == "normalization"


def test_the_advice_for_a_normalization_mends_it(table: Any, measured: Any):
    spoilt = measured(table, "int8")
    mended = measured(table, "int8", keep_float=list(spoilt.findings[0].keep_float))
    assert mended.findings == ()
    assert by_name(mended)["out"].varying_snr_db > 30 > by_name(spoilt)["out"].varying_snr_db


@pytest.mark.parametrize(
    ("factor", "cause"), [(64.0, "range"), (0.25, "saturation")], ids=["far too wide", "far too narrow"]
)
def test_a_layer_whose_scale_was_spoilt_is_ranked_first(digits: Any, measured: Any, factor: float, cause: str):
    found = measured(
        digits, "int8", lambda path: rescale(path, factor, ["first_1/Relu", "flatten_1/"], "wide_1/BiasAdd")
    )
    first = found.findings[0]
    assert (first.layer, first.cause) == ("first", cause)
    assert rows(found)[0][0] == "first"
    assert found.causes["rescaling"] == "none"
    layer = by_name(found)["first"]
    whole = by_name(measured(digits, "int8"))["first"]
    assert layer.scale == pytest.approx(whole.scale * factor)
    assert layer.range_needed == pytest.approx(whole.range_needed / factor)
    assert layer.input_snr_db == whole.input_snr_db


def rescale(path: Path, factor: float, parts: list[str], bias: str) -> None:
    """Multiplies the scale of activations, and of the bias that is added to what is made of them."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(bytearray(path.read_bytes()), 0))
    changed = 0
    for tensor in model.subgraphs[0].tensors:
        name = tensor.name.decode()
        if (
            tensor.type == schema.TensorType.INT8
            and any(part in name for part in parts)
            and "convolution" not in name[:40]
        ):
            tensor.quantization.scale = tensor.quantization.scale * np.float32(factor)
            changed += 1
        if tensor.type == schema.TensorType.INT32 and bias in name:
            tensor.quantization.scale = tensor.quantization.scale * np.float32(factor)
            stored = np.frombuffer(bytes(model.buffers[tensor.buffer].data), np.int32)
            model.buffers[tensor.buffer].data = np.round(stored / factor).astype(np.int32).view(np.uint8)
            changed += 1
    assert changed == len(parts) + 1
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    path.write_bytes(bytes(builder.Output()))


# What cannot be measured


def test_files_of_two_models_are_refused(digits: Any, table: Any, converted: Convert):
    wanted = converted(table, "none", "float")
    with pytest.raises(ArtifactError, match=r"not of one model: .*inputs \['x'\], batch 1; .*inputs \['image'\]"):
        of_files(digits, wanted, converted(digits, "int8"))


def test_files_of_two_batches_are_refused(digits: Any, converted: Convert):
    wanted = converted(digits, "none", "float", batch=5)
    with pytest.raises(ArtifactError, match=r"not of one model: .*batch 5; .*batch 1; convert both anew"):
        of_files(digits, wanted, converted(digits, "int8"))


def test_a_file_that_this_runtime_computes_wrong_is_refused(digits: Any, converted: Convert, tmp_path: Path):
    """LiteRT 2.3 without XNNPACK knows no scale per block; that of the layers would be the error of another file."""
    from litert_quantizer import qtyping, quantizer

    wanted, path = converted(digits, "none", "float"), tmp_path / "block.tflite"
    made = quantizer.Quantizer(str(wanted))
    made.add_dynamic_config(
        regex="wide",
        operation_name=qtyping.TFLOperationName.FULLY_CONNECTED,
        num_bits=4,
        granularity=qtyping.QuantGranularity.BLOCKWISE_32,
    )
    made.quantize().save(str(tmp_path), "block", overwrite=True)
    with pytest.raises(ArtifactError, match=r"cannot be measured: without XNNPACK its output 'scores' differs by \d+%"):
        of_files(digits, wanted, path)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"other": np.zeros((3, 8, 8, 1), np.float32)}, r"have inputs \['other'\], the file \['image'\]"),
        ({"image": np.zeros((0, 8, 8, 1), np.float32)}, "hold no sample; give 1 or more"),
    ],
    ids=["another input", "no sample"],
)
def test_unfit_samples_are_refused(digits: Any, converted: Convert, tmp_path: Path, arrays: Any, message: str):
    np.savez(tmp_path / "unfit.npz", **arrays)
    path = str(converted(digits, "none"))
    with pytest.raises(ArtifactError, match=message):
        layer_errors(
            float_file=path, quantized_file=path, samples=str(tmp_path / "unfit.npz"), layer_names=digits.layers
        )


# Models of other kinds


def test_a_loop_and_ids_are_measured(export_model: Any, measured: Any):
    """Ids are no float input; what a WHILE gives is measured, and what is inside of it is not looked at."""
    import keras

    layers = keras.layers
    stack = [keras.Input((6,), dtype="int32", name="x"), layers.Embedding(20, 4, name="ids")]
    stack += [layers.LSTM(8, name="lstm"), layers.Dense(3, name="out")]
    ids = {"x": np.random.default_rng(0).integers(0, 20, (64, 6)).astype(np.int32)}
    found = measured(export_model("ids", keras.Sequential(stack), ids), "int8", batch=None)
    named = by_name(found)
    assert {"ids", "lstm", "out"} <= set(named)
    assert all(layer.snr_db is not None and layer.snr_db > 15 for layer in named.values())


def test_a_layer_of_many_operators_is_one_row(normed: Any, measured: Any):
    found = measured(normed, "int8")
    assert [layer.layer for layer in found.layers] == normed.layers
    assert found.findings == ()


# The whole of it


def test_through_the_child_it_is_the_same_and_a_document(table: Any, converted: Convert, tmp_path: Path):
    wanted = converted(table, "none", "float")
    path = converted(table, "int8")
    with Child() as child:
        found = explain(
            "int8",
            float_file=wanted,
            quantized_file=path,
            samples=table.samples,
            layer_names=table.layers,
            child=child,
        )
        (tmp_path / "cut.tflite").write_bytes(path.read_bytes()[:900])
        with pytest.raises(ArtifactError, match=r"cut\.tflite is damaged"):
            explain(
                "int8",
                float_file=wanted,
                quantized_file=tmp_path / "cut.tflite",
                samples=table.samples,
                layer_names=table.layers,
                child=child,
            )
    document = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert Explanation.from_json(document, "int8.explain.json") == found
    assert found.samples == 64
    assert {len(row) for row in rows(found)} == {len(COLUMNS)}
    assert lines(found)[0].startswith("int8: the answers are lost")
    assert len(lines(found)) == 1 + len(found.findings)


@pytest.mark.parametrize("spoil", [lambda d: d.pop("layers"), lambda d: d["layers"][0].pop("op")], ids=["layers", "op"])
def test_a_document_that_lacks_a_key_is_damaged(spoil: Any):
    document = explanation("int8", 2, [LayerError("a", ("a",), (), "CONV_2D")]).to_json()
    spoil(document)
    with pytest.raises(ArtifactError, match=r"int8\.explain\.json is damaged: .*; convert again with --explain"):
        Explanation.from_json(document, "int8.explain.json")

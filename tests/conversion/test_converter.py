"""The converter inside the child: every scheme, what it refuses, and what it says when TensorFlow fails."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mltool.child import Child
from mltool.conversion.engines.saved_model import open_saved_model
from mltool.conversion.schemes import SCHEMES
from mltool.conversion.sources.graph_check import read_saved_model
from mltool.errors import ArtifactError, ConversionError, DiskError
from mltool.inspection.flatbuffer import read_flatbuffer

Convert = Callable[..., Path]
Run = Callable[[Path, dict[str, np.ndarray]], np.ndarray]


def _errors(answers: np.ndarray, expected: np.ndarray) -> tuple[float, float, float]:
    """Largest and mean difference as shares of the range, and agreement of the largest output."""
    difference = np.abs(answers - expected) / np.ptp(expected)
    return difference.max(), difference.mean(), (answers.argmax(1) == expected.argmax(1)).mean()


@pytest.mark.parametrize(
    ("quantize", "io"),
    [
        pytest.param("none", "float32", id="none"),
        pytest.param("float16", "float32", id="float16"),
        pytest.param("dynamic", "float32", id="dynamic"),
        pytest.param("int8", "float32", id="int8 with float io"),
        pytest.param("int8", "int8", id="int8 with int8 io"),
        pytest.param("int8", "uint8", id="int8 with uint8 io"),
    ],
)
def test_every_scheme_answers_as_the_keras_model_within_its_tolerances(
    digits: Any, convert: Convert, run_file: Run, quantize: str, io: str
):
    path = convert(digits, quantize, io=io)

    largest, mean, agreement = _errors(
        run_file(path, digits.samples), digits.model.predict(digits.samples["image"], verbose=0)
    )
    scheme = SCHEMES[quantize]
    assert largest <= scheme.max_error
    assert mean <= scheme.mean_error
    assert agreement >= scheme.min_agreement


def test_quantized_files_are_smaller(digits: Any, convert: Convert):
    own = [name for name, scheme in SCHEMES.items() if scheme.engine == "converter"]
    size = {name: convert(digits, name).stat().st_size for name in own}

    assert max(size["int8"], size["float16"], size["dynamic"]) < 0.75 * size["none"]


def test_names_of_the_signature_are_kept(digits: Any, convert: Convert):
    (signature,) = read_flatbuffer(convert(digits, "int8")).signatures

    assert signature.name == "serving_default"
    assert list(signature.inputs) == ["image"]
    assert list(signature.outputs) == ["scores"]


@pytest.mark.parametrize(
    ("batch", "shape"),
    [
        pytest.param(1, (1, 8, 8, 1), id="one"),
        pytest.param(5, (5, 8, 8, 1), id="five"),
        pytest.param(None, (-1, 8, 8, 1), id="free"),
    ],
)
def test_the_batch_is_fixed_or_free(digits: Any, convert: Convert, batch: int | None, shape: tuple[int, ...]):
    file = read_flatbuffer(convert(digits, "int8", batch=batch))  # 64 samples are no multiple of 5

    assert file.signatures[0].inputs["image"].shape == shape


def test_the_same_model_gives_the_same_bytes(digits: Any, table: Any, convert: Convert):
    for model, keep in ((digits, []), (table, ["normalization"])):
        first = convert(model, "int8", keep_float=keep).read_bytes()

        assert convert(model, "int8", keep_float=keep).read_bytes() == first


def test_layers_kept_float_save_a_normalization_of_raw_features(table: Any, convert: Convert, run_file: Run):
    expected = table.model.predict(table.samples["x"], verbose=0)

    collapsed = _errors(run_file(convert(table, "int8"), table.samples), expected)
    path = convert(table, "int8", keep_float=["normalization"])
    kept = _errors(run_file(path, table.samples), expected)

    assert collapsed[0] > 0.3  # one int8 scale for 0..1 and 0..100,000 leaves nothing of the small features
    assert kept[0] < 0.05
    dtypes = {op.op: op.compute_dtype for op in read_flatbuffer(path).operators}
    assert dtypes == {
        "SUB": "float32", "MUL": "float32", "QUANTIZE": "edge", "FULLY_CONNECTED": "int8", "DEQUANTIZE": "edge"
    }  # fmt: skip


def test_all_but_the_kept_layers_is_quantized_as_without_them(table: Any, convert: Convert):
    """The list of what stays float changes nothing else: same versions, same int8 weights."""
    plain = read_flatbuffer(convert(table, "int8"))
    kept = read_flatbuffer(convert(table, "int8", keep_float=["normalization"]))

    def dense(file: Any) -> list[Any]:
        layers = [op for op in file.operators if op.op == "FULLY_CONNECTED"]
        return [(op.version, op.inputs[1].dtype, op.inputs[1].shape, op.inputs[1].scales) for op in layers]

    assert dense(kept) == dense(plain)


@pytest.mark.parametrize("layer", ["rescaling", "last"])
def test_the_first_and_the_last_layer_can_be_kept_float(digits: Any, convert: Convert, layer: str):
    file = read_flatbuffer(convert(digits, "int8", keep_float=[layer]), digits.layers)

    assert {op.layers for op in file.operators if op.compute_dtype == "float32"} == {(layer,)}


def test_a_kept_layer_that_was_folded_away_is_said(export_model: Any, tmp_path: Path):
    import keras

    from mltool.conversion.engines.converter import convert_saved_model

    layers = keras.layers
    stack = [
        keras.Input((8, 8, 1), name="image"),
        layers.Rescaling(0.1, name="scale"),
        layers.Conv2D(4, 3, name="conv"),
    ]
    exported = export_model("folded", keras.Sequential(stack))
    result = convert_saved_model(
        saved_model=str(exported.folder),
        signature="serving_default",
        output=str(tmp_path / "folded.tflite"),
        quantize="int8",
        io="float32",
        batch=1,
        representative=str(exported.representative),
        keep_float=["scale"],
        layer_names=["scale", "conv"],
    )

    assert result["bytes"] == (tmp_path / "folded.tflite").stat().st_size
    assert set(result["seconds"]) == {"load", "convert", "quantize"}
    assert (
        "keep_float: layer 'scale' has no operator of its own, it was folded into its neighbours" in result["messages"]
    )


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        pytest.param({"quantize": "int4"}, "the converter cannot make int4, the quantizer can", id="other engine"),
        pytest.param({"quantize": "int3"}, "no scheme is called 'int3'; one of none, float16", id="unknown scheme"),
        pytest.param(
            {"quantize": "none", "io": "int8"}, "scheme none cannot have io: int8", id="integer io of a float file"
        ),
        pytest.param(
            {"keep_float": ["first"], "io": "int8"}, "cannot be kept with quantize: int8 and io: int8", id="kept"
        ),
        pytest.param({"keep_float": ["furst"]}, r"keep_float names no layer: \['furst'\]", id="unknown layer"),
        pytest.param({"batch": 0}, r"batch must be at least 1 \(got 0\)", id="no batch"),
        pytest.param(
            {"signature": "classify"}, r"has no signature 'classify'; it has \['serving_default'\]", id="signature"
        ),
        pytest.param(
            {"granularity": "layer"}, "no granularity is called 'layer'; one of channel, tensor", id="granule"
        ),
        pytest.param(
            {"granularity": "tensor", "quantize": "float16"}, "quantize: float16 has none; leave", id="float granule"
        ),
        pytest.param(
            {"representative": None},
            "integer activations need a representative dataset",
            id="no representative dataset",
        ),
        pytest.param({"representative": "/nowhere.npz"}, "cannot read the representative dataset", id="no such file"),
    ],
)
def test_what_cannot_be_is_refused_before_the_converter(
    digits: Any, convert: Convert, tmp_path: Path, changed: dict[str, Any], text: str
):
    with pytest.raises(ConversionError, match=text):
        convert(digits, **{"quantize": "int8", **changed})

    assert list(tmp_path.iterdir()) == []


IMAGES = np.zeros((3, 8, 8, 1), np.float32)


def _with(value: float) -> np.ndarray:
    images = IMAGES.copy()
    images[2, 4, 4, 0] = value
    return images


@pytest.mark.parametrize(
    ("arrays", "text"),
    [
        pytest.param({"image": _with(np.inf)}, r"'image' is not finite \(first in sample 2\)", id="infinite"),
        pytest.param({"image": _with(np.nan)}, r"'image' is not finite \(first in sample 2\)", id="not a number"),
        pytest.param({"image": np.full((1, 8, 8, 1), 1e300)}, "'image' is not finite", id="too large for float32"),
        pytest.param({"x": IMAGES}, r"has inputs \['x'\], the model \['image'\]", id="another name"),
        pytest.param({"image": IMAGES, "x": IMAGES}, r"has inputs \['image', 'x'\]", id="one input too many"),
        pytest.param({"image": IMAGES[:0]}, r"1 or more \(got \{'image': 0\}\)", id="empty"),
        pytest.param({"image": IMAGES[..., 0]}, r"samples of shape \[8, 8\], the model takes \[8, 8, 1\]", id="shape"),
        pytest.param({"image": IMAGES.astype(str)}, "'image' is not numeric", id="text"),
    ],
)
def test_an_unfit_representative_dataset_is_refused(
    digits: Any, convert: Convert, tmp_path: Path, arrays: dict[str, np.ndarray], text: str
):
    np.savez(tmp_path / "samples.npz", **arrays)

    with pytest.raises(ConversionError, match=text):
        convert(digits, "int8", representative=str(tmp_path / "samples.npz"))


def test_a_damaged_representative_dataset_is_said_to_be(digits: Any, convert: Convert, tmp_path: Path):
    np.savez(tmp_path / "samples.npz", image=IMAGES)
    (tmp_path / "samples.npz").write_bytes((tmp_path / "samples.npz").read_bytes()[:-30])

    with pytest.raises(ConversionError, match="cannot read the representative dataset"):
        convert(digits, "int8", representative=str(tmp_path / "samples.npz"))


def _strange(export_model: Any, name: str, function: Callable[[Any], Any]) -> Any:
    import keras

    class Strange(keras.layers.Layer):
        def call(self, inputs: Any) -> Any:
            return function(inputs)

        def compute_output_shape(self, shape: Any) -> Any:
            return shape

    x = keras.Input((4,), name="x")
    return export_model(name, keras.Model(x, Strange(name="strange")(keras.layers.Dense(4, name="dense")(x))))


def test_an_operator_that_is_not_builtin_is_named_with_its_layer(export_model: Any, convert: Convert):
    import tensorflow as tf

    model = _strange(export_model, "flex", lambda x: x + tf.cast(tf.strings.length(tf.strings.as_string(x)), x.dtype))

    with pytest.raises(ConversionError, match="AsString of layer 'strange' is no builtin operator of TensorFlow Lite"):
        convert(model, "none")


def test_what_the_converter_cannot_translate_is_named_with_its_layer(export_model: Any, convert: Convert):
    import tensorflow as tf

    model = _strange(export_model, "atan2", lambda x: tf.atan2(x, 0.3))

    with pytest.raises(ConversionError, match=r"Atan2 of layer 'strange': .*same type for all operands"):
        convert(model, "none")


def _module(folder: Path, spec: Any, function: Callable[[Any], Any]) -> str:
    """A SavedModel without Keras, of the inputs `x` and the output `scores`."""
    import tensorflow as tf

    module = tf.Module()
    call = tf.function(lambda x: {"scores": function(x)}, input_signature=[spec])
    tf.saved_model.save(module, str(folder), signatures={"serving_default": call.get_concrete_function()})
    return str(folder)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        pytest.param(lambda x, half: x + half, "AddV2 .*no builtin operator .* in float64; use float32", id="computed"),
        pytest.param(lambda x, half: x, "computes in float64; use float32 in that layer", id="given"),
    ],
)
def test_float64_is_refused_with_the_operator(
    digits: Any, convert: Convert, tmp_path: Path, change: Callable[[Any, Any], Any], text: str
):
    import tensorflow as tf

    half = tf.constant([0.5, 0.25], tf.float64)
    spec = tf.TensorSpec([None, 2], tf.float32, "x")
    folder = _module(tmp_path / "wide", spec, lambda x: change(tf.cast(x, tf.float64), half))

    with pytest.raises(ConversionError, match=text):
        convert(digits, "none", saved_model=folder, layer_names=[])


def test_an_input_without_a_rank_is_refused(digits: Any, convert: Convert, tmp_path: Path):
    import tensorflow as tf

    folder = _module(tmp_path / "shapeless", tf.TensorSpec(None, tf.float32, "x"), lambda x: x * 2.0)

    with pytest.raises(ConversionError, match="input 'x' of signature 'serving_default' has no rank"):
        convert(digits, "none", saved_model=folder)


@pytest.mark.parametrize("keep", [pytest.param([], id="all"), pytest.param(["rescaling"], id="all but one layer")])
def test_weights_have_a_scale_per_channel_or_one(digits: Any, convert: Convert, keep: list[str]):
    def scales(granularity: str) -> list[int]:
        file = read_flatbuffer(convert(digits, "int8", granularity=granularity, keep_float=keep))
        weighted = [op for op in file.operators if op.op in ("CONV_2D", "FULLY_CONNECTED")]
        return [len(op.inputs[1].scales) for op in weighted if op.inputs[1] is not None]

    assert scales("channel") == [4, 40, 10]
    assert scales("tensor") == [1, 1, 1]


def test_what_one_conversion_prepared_serves_the_next_of_the_same_model_alone(
    digits: Any, table: Any, convert: Convert, tmp_path: Path
):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    first = convert(digits, "none", scratch=str(scratch)).read_bytes()
    (prepared,) = scratch.iterdir()
    made = prepared.stat().st_mtime_ns

    convert(digits, "int8", scratch=str(scratch))
    convert(digits, "none", scratch=str(scratch))

    assert [folder.stat().st_mtime_ns for folder in scratch.iterdir()] == [made]
    assert convert(digits, "none").read_bytes() == first
    convert(table, "none", scratch=str(scratch))
    convert(digits, "none", scratch=str(scratch), batch=2)
    assert len(list(scratch.iterdir())) == 3


def test_a_copy_with_a_fixed_batch_answers_as_the_model(digits: Any, tmp_path: Path):
    import tensorflow as tf

    copy = open_saved_model(str(digits.folder), "serving_default").with_batch(2, tmp_path)
    images = np.random.default_rng(0).random((2, 8, 8, 1), np.float32)

    given, made = (
        tf.saved_model.load(str(folder)).signatures["serving_default"](image=tf.constant(images))
        for folder in (digits.folder, copy)
    )

    (graph,) = read_saved_model(Path(copy)).meta_graphs
    (image,) = graph.signature_def["serving_default"].inputs.values()
    assert [dimension.size for dimension in image.tensor_shape.dim] == [2, 8, 8, 1]
    assert list(given) == list(made) == ["scores"]
    np.testing.assert_array_equal(given["scores"], made["scores"])


def test_a_model_of_links_that_nobody_may_write_is_copied_and_left_as_it_was(digits: Any, tmp_path: Path):
    """As caches of hubs keep them: names that are links into a folder of hashes, read-only."""
    import tensorflow as tf

    blobs, model = tmp_path / "blobs", tmp_path / "model"
    shutil.copytree(digits.folder, blobs)
    (model / "variables").mkdir(parents=True)
    for path in blobs.rglob("*"):
        if path.is_file():
            path.chmod(0o444)
            (model / path.relative_to(blobs)).symlink_to(path)
    model.chmod(0o555)
    scratch = tmp_path / "scratch"
    scratch.mkdir()

    copy = open_saved_model(str(model), "serving_default").with_batch(2, scratch)

    assert all(path.is_file() and not path.is_symlink() for path in Path(copy).rglob("*") if not path.is_dir())
    assert "serving_default" in tf.saved_model.load(copy).signatures
    shutil.rmtree(copy)
    assert {path.stat().st_mode & 0o777 for path in blobs.rglob("*") if path.is_file()} == {0o444}
    model.chmod(0o755)


def test_another_batch_than_that_of_an_input_is_refused(tmp_path: Path):
    import tensorflow as tf

    folder = _module(tmp_path / "five", tf.TensorSpec([5, 4], tf.float32, "x"), lambda x: x * 2.0)

    with pytest.raises(ConversionError, match="input 'x' has a batch of 5 for good, not 2"):
        open_saved_model(folder, "serving_default").with_batch(2, tmp_path)


@pytest.mark.parametrize("written", [None, b"", b"\xff\xff"], ids=["missing", "empty", "damaged"])
def test_a_model_that_cannot_be_read_is_said_to_be_damaged(digits: Any, convert: Convert, tmp_path: Path, written: Any):
    folder = tmp_path / "saved"
    folder.mkdir()
    if written is not None:
        (folder / "saved_model.pb").write_bytes(written)

    with pytest.raises(ArtifactError, match=r"saved_model\.pb (cannot be read|is damaged): "):
        convert(digits, "none", saved_model=folder)


def test_an_older_file_is_left_as_it_was_when_the_conversion_fails(digits: Any, convert: Convert, tmp_path: Path):
    (tmp_path / "none.tflite").write_bytes(b"older")

    with pytest.raises(ConversionError, match="has no signature 'other'"):
        convert(digits, "none", signature="other")

    assert (tmp_path / "none.tflite").read_bytes() == b"older"
    assert len(list(tmp_path.iterdir())) == 1


def test_where_the_file_cannot_be_written_is_said(digits: Any, convert: Convert, tmp_path: Path):
    (tmp_path / "file").write_text("no folder")

    with pytest.raises(DiskError, match=r"cannot write .*none\.tflite"):
        convert(digits, "none", output=str(tmp_path / "file" / "none.tflite"))


def test_through_the_child_a_conversion_is_quiet_and_its_errors_cross(
    digits: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    arguments = {
        "saved_model": str(digits.folder),
        "signature": "serving_default",
        "output": str(tmp_path / "int8.tflite"),
        "quantize": "int8",
        "io": "float32",
        "batch": 1,
        "representative": str(digits.representative),
        "keep_float": [],
        "layer_names": digits.layers,
    }
    with Child() as child:
        result = child.call("mltool.conversion.engines.converter:convert_saved_model", timeout_seconds=120, **arguments)
        with pytest.raises(ConversionError, match=re.escape("scheme int8 cannot have io: int4")):
            child.call("mltool.conversion.engines.converter:convert_saved_model", **{**arguments, "io": "int4"})
        assert child.output != ""  # TensorFlow always has something to say

    assert result["bytes"] == (tmp_path / "int8.tflite").stat().st_size
    assert capfd.readouterr() == ("", "")

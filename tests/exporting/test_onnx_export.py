"""An `.onnx` file that ONNX Runtime answers with as Keras does, and what tf2onnx cannot translate."""

import json
from pathlib import Path

import artifacts
import numpy as np
import pytest

from mltool import extras
from mltool.child import Child, ChildCrashed, ChildTimedOut
from mltool.errors import ArtifactError, ConversionError, MissingExtraError, VerificationError
from mltool.exporting import onnx_converter
from mltool.exporting import onnx_export as room
from mltool.exporting.export import write_saved_model
from mltool.exporting.onnx_converter import convert_to_onnx
from mltool.exporting.onnx_export import export_onnx
from mltool.runs.run import Run

pytestmark = pytest.mark.skipif(
    not all(map(extras.has, room.PACKAGES)), reason="needs tf2onnx, onnx and onnxruntime: pip install 'mltool-tf[onnx]'"
)


@pytest.fixture(scope="module")
def exported(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A copy of the digits with its `.onnx` file; not to be changed."""
    run = artifacts.copied(made, tmp_path_factory.mktemp("onnx"))
    result = export_onnx(run)
    assert result.path == run.directory / "onnx/digits.onnx"
    assert result.agreement.samples == 256
    return run


def session_of(file: Path):
    import onnxruntime

    return onnxruntime.InferenceSession(file.read_bytes(), providers=["CPUExecutionProvider"])


def ends_of(ends):
    return {end.name: (end.type, end.shape) for end in ends}


def test_onnx_runtime_by_itself_answers_as_keras_for_any_batch(exported):
    session = session_of(exported.onnx_folder / "digits.onnx")
    assert ends_of(session.get_inputs()) == {"image": ("tensor(float)", ["batch", 8, 8, 1])}
    assert ends_of(session.get_outputs()) == {"scores": ("tensor(float)", ["batch", 10])}
    with np.load(exported.lite_folder / "vectors.npz") as vectors:
        images, expected = vectors["input:image"].astype(np.float32), vectors["keras"]
    for count in (1, 3, len(images)):
        (found,) = session.run(["scores"], {"image": images[:count]})
        np.testing.assert_allclose(found, expected[:count], rtol=0, atol=1e-5 * np.abs(expected).max())


def test_two_inputs_keep_their_names(made_pair, tmp_path):
    run = artifacts.copied(made_pair, tmp_path)
    session = session_of(export_onnx(run).path)
    assert ends_of(session.get_inputs()) == {
        "left": ("tensor(float)", ["batch", 3]),
        "right": ("tensor(float)", ["batch", 2]),
    }
    with np.load(run.lite_folder / "vectors.npz") as vectors:
        sides = {name: vectors[f"input:{name}"].astype(np.float32) for name in ("left", "right")}
        (found,) = session.run(["value"], sides)
        np.testing.assert_allclose(found, vectors["keras"], atol=1e-5)


def test_it_is_recorded_with_its_hash_its_opset_and_its_agreement(exported):
    import onnx

    file = exported.onnx_folder / "digits.onnx"
    assert exported.require_unchanged(file)
    record = json.loads(file.with_suffix(".json").read_text())
    assert record["sha256"] == exported.artifact_hash(file)
    assert record["source"]["sha256"] == exported.artifact_hash(exported.saved_model_folder)
    assert record["agreement"]["max_error"] < 1e-4
    assert record["bytes"] == file.stat().st_size
    model = onnx.load(str(file))
    onnx.checker.check_model(model, full_check=True)
    assert {item.domain: item.version for item in model.opset_import}[""] == record["opset"] == onnx_converter.OPSET
    assert sum(record["operators"].values()) == len(model.graph.node)
    assert json.loads((exported.onnx_folder / "input.json").read_text())["inputs"][0]["name"] == "image"


def test_the_opset_is_the_newest_that_tf2onnx_writes():
    from tf2onnx.constants import OPSET_TO_IR_VERSION

    assert max(OPSET_TO_IR_VERSION) == onnx_converter.OPSET


def test_equal_inputs_are_nothing_to_do_a_changed_file_is_refused_and_force_makes_it_again(exported, tmp_path, caplog):
    caplog.set_level("INFO", "mltool")
    run = artifacts.copied(exported.directory, tmp_path)
    file = run.onnx_folder / "digits.onnx"
    assert export_onnx(run).agreement is None
    assert "nothing to do" in caplog.text
    file.write_bytes(file.read_bytes() + b" ")
    with pytest.raises(ArtifactError, match=r"digits\.onnx was changed since it was made"):
        export_onnx(run)
    assert export_onnx(run, force=True).agreement.same_answer == 1
    assert run.require_unchanged(file)


def test_a_file_that_answers_otherwise_is_not_kept(run, monkeypatch):
    honest = room.load_keras_model

    def otherwise(path):
        model = honest(path)
        model.set_weights([weight * 1.01 for weight in model.get_weights()])
        return model

    monkeypatch.setattr(room, "load_keras_model", otherwise)
    with pytest.raises(
        VerificationError, match=r"the \.onnx file does not answer as the Keras model: max error"
    ) as caught:
        export_onnx(run)
    assert caught.value.exit_code == 8
    assert list(run.onnx_folder.iterdir()) == []
    assert "onnx/digits.onnx" not in run.manifest["artifacts"]
    assert "export/onnx" not in run.manifest["stages"]


def test_text_is_refused_before_anything_is_made(run):
    document = run.manifest["input"]
    step = {"name": "words", "class_name": "TextVectorization", "input": "image", "takes_text": True}
    run.update(input={**document, "preprocessing": [step]})
    with pytest.raises(
        ConversionError, match=r"text goes into 'words' \(TextVectorization\).*mltool convert"
    ) as caught:
        export_onnx(run)
    assert caught.value.exit_code == 7
    assert not run.onnx_folder.exists()


def test_without_the_packages_it_is_exit_9_with_the_line_that_installs_them(run, monkeypatch):
    monkeypatch.setattr(extras, "has", lambda module: module != "tf2onnx")
    with pytest.raises(MissingExtraError, match=r"needs tf2onnx, .*pip install 'mltool-tf\[onnx\]'") as caught:
        export_onnx(run)
    assert caught.value.exit_code == 9


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            ChildCrashed("f", "was killed by SIGSEGV", "one\ntwo\n"),
            "tf2onnx was killed by SIGSEGV; the last it said: two",
        ),
        (ChildTimedOut("f", 1800, ""), "tf2onnx did not answer in 1800 s"),
    ],
    ids=["crash", "hang"],
)
def test_a_converter_that_dies_is_exit_7(run, monkeypatch, error, message):
    def dies(*_, **__):
        raise error

    monkeypatch.setattr(Child, "call", dies)
    with pytest.raises(ConversionError, match=message):
        export_onnx(run)
    assert list(run.onnx_folder.iterdir()) == []


def converted(inputs, output, folder: Path, names=()):
    """A Keras model, and its `.onnx` file made in this process."""
    model = extras.keras().Model(inputs, output)
    write_saved_model(model, ["value"], folder / "saved_model")
    convert_to_onnx(
        saved_model=str(folder / "saved_model"),
        signature="serving_default",
        output=str(folder / "model.onnx"),
        layer_names=[*names, *(layer.name for layer in model.layers)],
    )
    return model, session_of(folder / "model.onnx")


def test_attention_and_exact_gelu_are_translated(tmp_path):
    layers = extras.keras().layers
    series = layers.Input((6, 3), name="series")
    x = layers.Dense(8)(series)
    x = layers.Add()([x, layers.MultiHeadAttention(2, 4)(x, x)])
    x = layers.Dense(16, activation="gelu")(layers.LayerNormalization()(x))
    model, session = converted(series, layers.Dense(2)(layers.GlobalAveragePooling1D()(x)), tmp_path)
    samples = 3 * np.random.default_rng(0).standard_normal((40, 6, 3)).astype(np.float32)
    expected = model(samples, training=False).numpy()
    (found,) = session.run(["value"], {"series": samples})
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_a_constant_that_the_model_captures_is_no_input(tmp_path):
    layers = extras.keras().layers
    x = layers.Input((2,), name="x")
    normal = layers.Normalization()
    normal.adapt(np.float32([[1, 10], [3, 30]]))  # means 2 and 20, deviations 1 and 10
    _, session = converted(x, normal(x), tmp_path)
    assert [end.name for end in session.get_inputs()] == ["x"]
    np.testing.assert_allclose(session.run(["value"], {"x": np.float32([[4, 0]])})[0], [[2, -2]], rtol=1e-6)


def test_a_recurrent_layer_is_translated(tmp_path):
    layers = extras.keras().layers
    series = layers.Input((6, 3), name="series")
    model, session = converted(series, layers.Dense(2)(layers.LSTM(4)(series)), tmp_path)
    samples = np.random.default_rng(0).standard_normal((9, 6, 3)).astype(np.float32)
    (found,) = session.run(["value"], {"series": samples})
    np.testing.assert_allclose(found, model(samples, training=False).numpy(), atol=1e-5)


def test_an_operator_that_onnx_has_not_is_named_with_its_layer(tmp_path):
    layers = extras.keras().layers
    number = layers.Input((1,), name="number")
    known = layers.IntegerLookup(vocabulary=[1, 2, 5], output_mode="one_hot", name="known")(number)
    message = r"tf2onnx does not translate LookupTableFindV2 of layer 'known'; use another layer"
    with pytest.raises(ConversionError, match=message):
        converted(number, layers.Dense(2)(known), tmp_path)
    assert not (tmp_path / "model.onnx").exists()


def test_several_operators_of_a_layer_are_told_together(tmp_path):
    layers = extras.keras().layers
    sound = layers.Input((600,), name="sound")
    mel = layers.MelSpectrogram(fft_length=128, sequence_stride=64, sampling_rate=8000, num_mel_bins=8, name="mel")
    with pytest.raises(ConversionError, match=r"does not translate (\w+, )+\w+ of layer 'mel'; use"):
        converted(sound, layers.Dense(2)(layers.Flatten()(mel(sound))), tmp_path)


def test_ends_that_changed_are_refused(monkeypatch, tmp_path):
    honest = onnx_converter._translated

    def renamed(*arguments):
        model = honest(*arguments)
        model.graph.input[0].name = "other"
        return model

    monkeypatch.setattr(onnx_converter, "_translated", renamed)
    layers = extras.keras().layers
    x = layers.Input((2,), name="x")
    with pytest.raises(
        ConversionError, match=r"changed the model's ends: \{'other'.*\{'x': \('float32', \[None, 2\]\)\}"
    ):
        converted(x, layers.Dense(2)(x), tmp_path)


def test_a_file_that_onnx_does_not_take_is_refused(monkeypatch, tmp_path):
    honest = onnx_converter._translated

    def unsound(*arguments):
        model = honest(*arguments)
        del model.graph.node[0]
        return model

    monkeypatch.setattr(onnx_converter, "_translated", unsound)
    layers = extras.keras().layers
    x = layers.Input((2,), name="x")
    with pytest.raises(ConversionError, match="tf2onnx wrote a file that ONNX does not take"):
        converted(x, layers.Dense(2)(layers.Dense(2)(x)), tmp_path)

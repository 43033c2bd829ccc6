"""Blocks of ours: values against scipy and librosa's definitions, plain Keras files, builtin operators in LiteRT."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.fft
import scipy.signal
import yaml

from mltool.conversion.engines.converter import convert_saved_model
from mltool.errors import SpecError
from mltool.inspection.flatbuffer import read_flatbuffer
from mltool.models.auto import auto_preprocess
from mltool.models.blocks import BLOCKS
from mltool.models.build import build_model
from mltool.models.preprocess import ModelInput
from mltool.models.steps import steps_of
from mltool.spec.blocks import AUGMENTATIONS, BLOCK_DOCS
from mltool.spec.blocks import BLOCKS as IN_THE_SPEC
from mltool.spec.model import ModelSpec

RATE = 8000
SOUND = np.random.default_rng(0).uniform(-0.5, 0.5, (3, 4000)).astype(np.float32)
SOUND[1, 2500:] = 0  # silence at the end, as padding leaves it
SOUND[2] *= 1e-3


def sound_input(sound=SOUND, rate=RATE):
    return ModelInput(sound.shape[1:], "float32", "audio", lambda: iter([sound]), sample_rate=rate)


def built(blocks, sound=SOUND, rate=RATE):
    """A model that is nothing but its preprocessing; `blocks` in YAML."""
    section = {"preprocess": yaml.safe_load(blocks), "layers": [{"Activation": {"activation": "linear"}}]}
    return build_model(ModelSpec.model_validate(section), {"audio": sound_input(sound, rate)}, name="net")


def log_mel(
    sound, *, rate=RATE, fft=256, window=256, stride=128, bands=40, low=0.0, high=None, offset=1e-6, name="hann"
):
    """The definition, in float64: scipy's transform and window, triangles drawn by numpy's interpolation."""
    frames = np.lib.stride_tricks.sliding_window_view(sound.astype(np.float64), fft, axis=1)[:, ::stride]
    before = (fft - window) // 2
    weights = np.pad(scipy.signal.get_window(name, window, fftbins=True), (before, fft - window - before))
    power = np.abs(scipy.fft.rfft(frames * weights, axis=-1)) ** 2
    mel = np.linspace(2595 * np.log10(1 + low / 700), 2595 * np.log10(1 + (high or rate / 2) / 700), bands + 2)
    edges = 700 * (10 ** (mel / 2595) - 1)
    bins = np.fft.rfftfreq(fft, 1 / rate)
    filters = [np.interp(bins, edges[band : band + 3], [0, 1, 0], left=0, right=0) for band in range(bands)]
    return np.log(power @ np.transpose(filters) + offset)


CASES = {
    "as in the shipped spec": ("{fft_length: 256, sequence_stride: 128, num_mel_bins: 40}", {}),
    "defaults": ("{fft_length: 512}", {"fft": 512, "window": 512, "stride": 256}),
    "a window shorter than the frame": (
        "{fft_length: 256, sequence_length: 200, sequence_stride: 80, num_mel_bins: 20}",
        {"window": 200, "stride": 80, "bands": 20},
    ),
    "frames that fit no even piece": ("{fft_length: 128, sequence_stride: 63, num_mel_bins: 13}",
                                      {"fft": 128, "window": 128, "stride": 63, "bands": 13}),
    "some of the frequencies": (
        "{fft_length: 256, num_mel_bins: 16, min_freq: 300, max_freq: 3400, log_offset: 0.01, window: hamming}",
        {"bands": 16, "low": 300.0, "high": 3400.0, "offset": 0.01, "name": "hamming"},
    ),
}  # fmt: skip


@pytest.mark.parametrize(("arguments", "options"), CASES.values(), ids=CASES)
def test_a_log_mel_spectrogram_is_what_its_definition_says(arguments, options):
    expected = log_mel(SOUND, **options)
    found = np.asarray(built(f"[{{LogMel: {arguments}}}]")(SOUND))
    assert found.shape == (*expected.shape, 1)
    np.testing.assert_allclose(found[..., 0], expected, atol=1e-4)


def test_it_is_librosas_spectrogram():
    librosa = pytest.importorskip("librosa")
    energy = librosa.feature.melspectrogram(
        y=SOUND, sr=RATE, n_fft=256, hop_length=128, n_mels=40, center=False, htk=True, norm=None
    )
    found = np.asarray(built("[{LogMel: {fft_length: 256, sequence_stride: 128}}]")(SOUND))[..., 0]
    np.testing.assert_allclose(found, np.log(energy + 1e-6).transpose(0, 2, 1), atol=1e-4)
    cepstrum = librosa.feature.mfcc(S=np.log(energy + 1e-6), n_mfcc=13).transpose(0, 2, 1)
    found = np.asarray(built("[{MFCC: {fft_length: 256, sequence_stride: 128}}]")(SOUND))[..., 0]
    np.testing.assert_allclose(found, cepstrum, atol=1e-4)


def test_cepstral_coefficients_are_the_orthonormal_cosine_transform_of_the_bands():
    expected = scipy.fft.dct(log_mel(SOUND, bands=20), type=2, norm="ortho", axis=-1)[..., :10]
    found = np.asarray(built("[{MFCC: {fft_length: 256, num_mel_bins: 20, num_mfcc: 10}}]")(SOUND))
    assert found.shape == (3, 30, 10, 1)
    np.testing.assert_allclose(found[..., 0], expected, atol=1e-4)


def test_sound_may_have_a_channel_axis():
    one = np.asarray(built("[{LogMel: {fft_length: 256}}]")(SOUND))
    two = np.asarray(built("[{LogMel: {fft_length: 256}}]", SOUND[..., np.newaxis])(SOUND[..., np.newaxis]))
    np.testing.assert_array_equal(one, two)


def test_silence_is_finite():
    found = np.asarray(built("[{LogMel: {fft_length: 256}}]")(np.zeros((1, 4000), np.float32)))
    np.testing.assert_allclose(found, np.log(1e-6), rtol=1e-6)


REFUSED = {
    "no power of two": ("{fft_length: 400}", r"fft_length must be a power of two \(got 400\): write fft_length: 512"),
    "a window longer than the frame": (
        "{fft_length: 256, sequence_length: 300}",
        r"sequence_length \(300\) is more than fft_length \(256\)",
    ),
    "bands narrower than a bin": ("{fft_length: 64, num_mel_bins: 40}", "bands are narrower than a bin .*125 Hz.*take"),
    "beyond half of the rate": ("{fft_length: 256, max_freq: 8000}", r"must ascend from 0 to half of .* \(4000"),
    "another rate than the data": ("{fft_length: 256, sample_rate: 16000}", "says 16000, the data have 8000; leave"),
    "longer than the sound": ("{fft_length: 8192}", r"4000 samples are less than one frame \(fft_length: 8192\)"),
}  # fmt: skip


@pytest.mark.parametrize(("arguments", "message"), REFUSED.values(), ids=REFUSED)
def test_arguments_that_do_not_fit_are_refused_at_their_place(arguments, message):
    with pytest.raises(SpecError, match=rf"model\.preprocess\.0\.LogMel.*{message}"):
        built(f"[{{LogMel: {arguments}}}]")


def test_more_coefficients_than_bands_are_refused():
    with pytest.raises(SpecError, match=r"num_mfcc \(20\) is more than num_mel_bins \(10\)"):
        built("[{MFCC: {fft_length: 256, num_mel_bins: 10, num_mfcc: 20}}]")


def test_arrays_tell_no_sample_rate_and_the_spec_may():
    with pytest.raises(SpecError, match="the data tell no sample rate: write sample_rate, such as 16000"):
        built("[{LogMel: {fft_length: 256}}]", rate=None)
    found = built("[{LogMel: {fft_length: 256, sample_rate: 8000}}]", rate=None)(SOUND)
    np.testing.assert_allclose(np.asarray(found)[..., 0], log_mel(SOUND), atol=1e-4)


def test_pictures_are_no_sound():
    with pytest.raises(
        SpecError, match=r"'log_mel' does not fit.*it takes sound, \[samples\] or \[samples, 1\] \(got \[4"
    ):
        built("[{LogMel: {fft_length: 256}}]", np.zeros((2, 4000, 2), np.float32))


def test_input_json_holds_the_exact_parameters():
    model = built("[{MFCC: {fft_length: 256, num_mfcc: 10}}, Normalization]")
    mfcc, normalization = steps_of(model, ["activation"])
    assert (mfcc.name, mfcc.class_name, mfcc.input) == ("mfcc", "MFCC", "audio")
    assert (normalization.class_name, normalization.input) == ("Normalization", "audio")
    assert mfcc.arguments == {
        "num_mfcc": 10,
        "fft_length": 256,
        "sequence_length": 256,
        "sequence_stride": 128,
        "num_mel_bins": 40,
        "min_freq": 0.0,
        "max_freq": 4000.0,
        "log_offset": 1e-6,
        "window": "hann",
        "sample_rate": 8000,
    }


@pytest.mark.parametrize(
    ("rate", "length", "bands"),
    [(2000, 64, 20), (8000, 256, 40), (16000, 512, 40), (44100, 1024, 40), (48000, 2048, 40)],
)
def test_auto_takes_frames_of_about_32_ms_and_normalizes_them(rate, length, bands):
    sound = SOUND[:1]
    (layers,) = auto_preprocess({"audio": sound_input(sound, rate)}).values()
    assert [layer.layer.name for layer in layers] == ["LogMel", "Normalization"]
    assert dict(layers[0].layer.arguments) == {
        "fft_length": length,
        "sequence_stride": length // 2,
        "num_mel_bins": bands,
    }
    section = ModelSpec.model_validate({"preprocess": "auto", "layers": [{"Activation": {"activation": "linear"}}]})
    model = build_model(section, {"audio": sound_input(sound, rate)}, name="net")
    found = np.asarray(model(sound))
    assert found.shape[2:] == (bands, 1)
    np.testing.assert_allclose([found.mean(), found.std()], [0, 1], atol=1e-3)


def test_plain_keras_loads_a_model_with_blocks(tmp_path):
    model = built("[{MFCC: {fft_length: 256, num_mfcc: 10}}]")
    file = tmp_path / "model.keras"
    model.save(file)
    np.save(tmp_path / "sound.npy", SOUND)
    program = (
        "import sys, numpy, keras\n"
        f"model = keras.models.load_model({str(file)!r}, safe_mode=True)\n"
        f"numpy.save({str(tmp_path / 'found.npy')!r}, model(numpy.load({str(tmp_path / 'sound.npy')!r})))\n"
        "assert not any(name.startswith('mltool') for name in sys.modules)\n"
    )
    elsewhere = {**os.environ, "PYTHONPATH": ""}
    subprocess.run([sys.executable, "-c", program], check=True, cwd=tmp_path, env=elsewhere, capture_output=True)
    np.testing.assert_array_equal(np.load(tmp_path / "found.npy"), np.asarray(model(SOUND)))


def litert(model, folder, quantize, **options):
    """A file of the scheme, and its answers to SOUND."""
    from ai_edge_litert.interpreter import Interpreter

    saved, file = folder / "saved_model", folder / "x.tflite"
    model.export(saved, verbose=False)
    representative = folder / "representative.npz"
    np.savez(representative, audio=np.tile(SOUND, (11, 1)))
    convert_saved_model(
        saved_model=str(saved),
        signature="serving_default",
        output=str(file),
        quantize=quantize,
        io="float32",
        batch=1,
        representative=str(representative),
        keep_float=options.get("keep_float", ()),
        layer_names=[layer.name for layer in model.layers],
    )
    runner = Interpreter(model_path=str(file)).get_signature_runner("serving_default")
    return file, np.concatenate([next(iter(runner(audio=one[np.newaxis]).values())) for one in SOUND])


@pytest.mark.parametrize("block", ["LogMel: {fft_length: 256}", "MFCC: {fft_length: 256, sequence_stride: 100}"])
@pytest.mark.parametrize(
    ("scheme", "tolerance"),
    # float16 holds log_offset to 1.3 %: silence is off by ln 1.013. The filters are no weights that `dynamic` touches.
    [("none", 1e-4), ("dynamic", 1e-4), ("float16", 0.12)],
)
def test_litert_computes_a_block_with_builtin_operators_as_keras_does(tmp_path, block, scheme, tolerance):
    model = built(f"[{{{block}}}]")
    file, found = litert(model, tmp_path, scheme)
    operators = read_flatbuffer(Path(file), ["log_mel"]).operators
    assert "RFFT2D" in [op.op for op in operators]
    assert not [op.op for op in operators if op.op.startswith(("Flex", "CUSTOM"))]
    np.testing.assert_allclose(found, np.asarray(model(SOUND)), atol=tolerance)


def test_a_block_that_is_kept_float_is_so_from_the_raw_sound_on(tmp_path):
    import keras

    # 4,000 samples are no whole number of pieces of 128: a cut behind the input would bring the sound to 8 bits.
    front = built("[{LogMel: {fft_length: 256}}]")
    # Named, because Keras counts the layers of a process: the operators of a dense_7 would pass for the block's.
    behind = [keras.layers.Flatten(name="flatten"), keras.layers.Dense(2, name="dense")]
    model = keras.Sequential([front.input, front.get_layer("log_mel"), *behind])
    file, _ = litert(model, tmp_path, "int8", keep_float=["log_mel"])
    operators = read_flatbuffer(file, ["log_mel", "flatten", "dense"]).operators
    of_block = [op.compute_dtype for op in operators if op.layers == ("log_mel",) and op.compute_dtype != "edge"]
    assert len(of_block) > 10
    assert set(of_block) <= {"float32", "complex64"}
    assert operators[0].op != "QUANTIZE"


def test_the_spec_and_the_builders_know_the_same_blocks():
    from mltool.data.random_layers import RANDOM_LAYERS

    assert set(BLOCKS) == set(IN_THE_SPEC)
    assert set(RANDOM_LAYERS) == set(AUGMENTATIONS)
    for name, entry in (IN_THE_SPEC | AUGMENTATIONS).items():
        assert set(entry["arguments"]) - {"name"} == set(BLOCK_DOCS[name]) - {""}
    for name in ("LogMel", "MFCC"):
        arguments = {"fft_length": 256, "sample_rate": RATE}
        assert set(BLOCKS[name](**arguments).arguments()) == set(IN_THE_SPEC[name]["arguments"]) - {"name"}

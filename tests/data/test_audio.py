"""Sound files as samples: every width, other rates, several channels, cut and padded, damaged; values by hand."""

import io
import logging
import zipfile

import numpy as np
import pytest

from mltool.data.cache import UnreadableError, keep_decoded
from mltool.data.dataset import Dataset
from mltool.data.sources.audio import load_audio, read_sounds
from mltool.errors import DataError
from mltool.spec.spec import Spec

soundfile = pytest.importorskip("soundfile")

RATE = 8000


def encoded(samples, *, rate=RATE, subtype="PCM_16", format="WAV"):
    """The bytes of a sound file."""
    buffer = io.BytesIO()
    soundfile.write(buffer, np.asarray(samples, np.float64), rate, format=format, subtype=subtype)
    return buffer.getvalue()


def folder_of(root, files):
    """A folder of files; bytes as they are, arrays as 16-bit WAV."""
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content if isinstance(content, bytes) else encoded(content))
    return root


def opened(root, **options):
    return load_audio({"": root}, **options)


def sine(frequency, *, rate=RATE, seconds=1.0, amplitude=0.5):
    return amplitude * np.sin(2 * np.pi * frequency * np.arange(round(rate * seconds)) / rate)


RAMP = np.linspace(-0.9, 0.9, 50)


@pytest.mark.parametrize(
    ("format", "subtype", "step"),
    [
        ("WAV", "PCM_U8", 2**-7),
        ("WAV", "PCM_16", 2**-15),
        ("WAV", "PCM_24", 2**-23),
        ("WAV", "PCM_32", 2**-24),  # float32 holds 24 bits
        ("WAV", "FLOAT", 2**-24),
        ("WAV", "DOUBLE", 2**-24),
        ("FLAC", "PCM_16", 2**-15),
        ("FLAC", "PCM_24", 2**-23),
    ],
    ids=["8 bits", "16 bits", "24 bits", "32 bits", "float", "double", "flac 16 bits", "flac 24 bits"],
)
def test_a_sound_of_any_width_becomes_float_from_minus_one_to_one(tmp_path, format, subtype, step):
    file = encoded(RAMP, format=format, subtype=subtype)
    source = opened(folder_of(tmp_path, {f"a/x.{format.lower()}": file}))
    (found,) = source.inputs["audio"][:]
    assert found.dtype == np.float32
    assert found.shape == (80,)  # 50 samples, and silence up to a hundredth of a second
    np.testing.assert_allclose(found[:50], RAMP, atol=1.01 * step)
    assert not found[50:].any()


def test_ogg_is_decoded_as_far_as_it_keeps_what_was_heard(tmp_path):
    wave = sine(440)
    source = opened(folder_of(tmp_path, {"a/x.ogg": encoded(wave, format="OGG", subtype="VORBIS")}))
    assert np.sqrt(np.mean((source.inputs["audio"][0] - wave) ** 2)) < 0.05


def test_the_input_is_called_audio_and_knows_its_rate_labels_and_names(tmp_path):
    source = opened(folder_of(tmp_path, {"yes/1.wav": RAMP, "no/1.WAV": RAMP}))
    assert source.inputs["audio"].shape == (2, 80)
    assert (source.kinds, source.sample_rate) == ({"audio": "audio"}, RATE)
    assert source.targets.tolist() == ["no", "yes"]
    assert [name.removeprefix(str(tmp_path)) for name in source.names] == ["/no/1.WAV", "/yes/1.wav"]


def test_labels_and_groups_may_stand_in_the_names(tmp_path):
    source = opened(folder_of(tmp_path, {"7_ann_0.wav": RAMP, "3_bob_1.wav": RAMP}), label=r"^(\d)_", group=r"_(\w+)_")
    assert source.targets.tolist() == ["3", "7"]
    assert source.groups.tolist() == ["bob", "ann"]


def test_a_zip_is_read_as_its_folder(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for name in ("top/a/1.wav", "top/b/1.wav"):
            archive.writestr(name, encoded(RAMP))
    source = opened(tmp_path / "x.zip")
    assert source.targets.tolist() == ["a", "b"]
    np.testing.assert_allclose(source.inputs["audio"][1][:50], RAMP, atol=2**-15)


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 44100, 48000])
def test_a_sine_keeps_its_frequency_and_loudness_when_it_is_resampled(tmp_path, rate):
    source = opened(folder_of(tmp_path, {"a/x.wav": encoded(sine(1000, rate=rate), rate=rate)}), sample_rate=16000)
    (found,) = source.inputs["audio"][:]
    spectrum = np.abs(np.fft.rfft(found * np.hanning(len(found))))
    assert found.shape == (16000,)
    assert spectrum.argmax() == 1000  # of one second: a bin is 1 Hz
    np.testing.assert_allclose(np.sqrt(np.mean(found[1000:-1000] ** 2)), 0.5 / np.sqrt(2), rtol=1e-3)


def test_what_is_above_half_of_the_new_rate_is_taken_out_not_folded(tmp_path):
    source = opened(folder_of(tmp_path, {"a/x.wav": encoded(sine(6000, rate=16000), rate=16000)}), sample_rate=8000)
    assert np.abs(source.inputs["audio"][0][500:-500]).max() < 1e-3


def test_files_of_several_rates_need_a_rate(tmp_path):
    files = {"a/1.wav": RAMP, "a/2.wav": RAMP, "b/1.wav": encoded(RAMP, rate=16000)}
    message = (
        r"the files have 2 sample rates: 2 of 8000 Hz, 1 of 16000 Hz \(16000 Hz: .*b/1\.wav\); "
        r"set data\.source\.sample_rate, such as 8000"
    )
    with pytest.raises(DataError, match=message):
        opened(folder_of(tmp_path, files))


def test_several_channels_become_their_mean_and_this_is_said(tmp_path, caplog):
    stereo = np.stack([np.full(40, 0.5), np.full(40, -0.25)], axis=1)
    with caplog.at_level(logging.INFO, "mltool"):
        source = opened(folder_of(tmp_path, {"a/x.wav": encoded(stereo), "b/x.wav": np.zeros(40)}), seconds=0.005)
    np.testing.assert_allclose(source.inputs["audio"][0], 0.125, atol=1e-6)
    assert "1 of 2 sounds have several channels: their mean is taken" in caplog.text


def test_long_sounds_are_cut_and_short_ones_followed_by_silence(tmp_path, caplog):
    files = {"a/long.wav": np.arange(1, 17) / 32, "a/short.wav": np.arange(1, 5) / 32}
    with caplog.at_level(logging.INFO, "mltool"):
        source = opened(folder_of(tmp_path, files), seconds=0.001)
    assert (source.inputs["audio"][:] * 32).round(3).tolist() == [[1, 2, 3, 4, 5, 6, 7, 8], [1, 2, 3, 4, 0, 0, 0, 0]]
    assert "1 of 2 sounds are longer than 0.001 s: the rest is cut off" in caplog.text


def test_the_longest_file_says_the_length_where_nothing_else_does(tmp_path, caplog):
    files = {"a/long.wav": np.zeros(801), "a/short.wav": np.zeros(400), "a/tiny.wav": np.zeros(80)}
    with caplog.at_level(logging.INFO, "mltool"):
        source = opened(folder_of(tmp_path, files))
    # 801 samples are 100.1 ms: 0.11 s in hundredths, so that frames come out even.
    assert source.inputs["audio"].shape == (3, 880)
    assert "every sound is made 0.11 s long, as the longest" in caplog.text
    assert "a/long.wav (their median is 0.05 s" in caplog.text


@pytest.mark.parametrize("format", ["RF64", "W64", "AIFF"])
def test_a_file_of_another_form_that_is_cut_off_is_told(format, tmp_path):
    whole = encoded(sine(440), format=format)
    assert opened(folder_of(tmp_path / "whole", {"a/1.wav": whole, "b/2.wav": sine(300)})).num_samples == 2
    cut = folder_of(tmp_path / "cut", {"a/1.wav": whole[: len(whole) // 2], "b/2.wav": sine(300)})
    with pytest.raises(DataError, match=r"a/1\.wav: it is cut off: [\d,]+ of [\d,]+ bytes are there"):
        keep_decoded(opened(cut), "memory", max_skipped=0)


@pytest.mark.parametrize(("format", "place"), [("RF64", slice(20, 28)), ("W64", slice(16, 24)), ("AIFF", slice(4, 8))])
@pytest.mark.parametrize("byte", [0x7F, 0xFF])
def test_a_size_that_a_recorder_could_not_know_is_none(format, place, byte, tmp_path):
    content = bytearray(encoded(sine(440), format=format))
    content[place] = bytes([byte] * (place.stop - place.start))
    files = {"a/1.wav": bytes(content), "b/2.wav": sine(300)}
    assert keep_decoded(opened(folder_of(tmp_path, files)), "memory", max_skipped=0).num_samples == 2


def test_a_damaged_sound_that_is_to_be_answered_is_told_with_its_reason(tmp_path):
    path = folder_of(tmp_path, {"1.wav": encoded(sine(440))[:4000]}) / "1.wav"
    with pytest.raises(DataError, match=r"1\.wav cannot be read: it is cut off: [\d,]+ of 16,000 bytes of sound"):
        read_sounds(path, RATE, RATE)


def test_what_is_done_to_a_sound_is_told_when_it_is_answered(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    path = folder_of(tmp_path, {"1.wav": encoded(sine(440, rate=16000, seconds=2.0), rate=16000)}) / "1.wav"
    read_sounds(path, RATE // 2, RATE)
    assert "1 of 1 sounds are resampled to 8000 Hz: 1 of 16000 Hz" in caplog.text
    assert "1 of 1 sounds are longer than 0.5 s: the rest is cut off" in caplog.text


def test_a_cut_sound_is_resampled_as_the_whole_is(tmp_path):
    wave = encoded(np.random.default_rng(0).uniform(-0.5, 0.5, 44100), rate=44100)
    root = folder_of(tmp_path, {"a/x.wav": wave})
    whole = opened(root, sample_rate=8000).inputs["audio"][0]
    np.testing.assert_allclose(opened(root, sample_rate=8000, seconds=0.25).inputs["audio"][0], whole[:2000], atol=1e-6)


def test_sound_over_full_scale_is_clipped_and_this_is_said(tmp_path, caplog):
    source = opened(folder_of(tmp_path, {"a/x.wav": encoded([0.5, 1.5, -2.0] * 27, subtype="FLOAT")}))
    with caplog.at_level(logging.WARNING, "mltool"):
        assert source.inputs["audio"][0][:3].tolist() == [0.5, 1.0, -1.0]
    assert "x.wav is louder than full scale and is clipped" in caplog.text


WHOLE = encoded(sine(440))
STREAMED = WHOLE[:4] + b"\xff" * 4 + WHOLE[8:40] + b"\xff" * 4 + WHOLE[44:]
OGG = encoded(sine(440, seconds=10), format="OGG", subtype="VORBIS")
FLAC = encoded(np.random.default_rng(0).uniform(-0.5, 0.5, 8000), format="FLAC")
DAMAGED = {
    "0 bytes": (b"", r"it is empty \(0 bytes\)"),
    "text": (b"this is a text file\n" * 10, "it is no sound that can be read: Format not recognised"),
    "0 frames": (encoded([]), r"it has no samples \(0 frames\)"),
    "half of a file": (WHOLE[:8044], "it is cut off: 8,000 of 16,000 bytes of sound are there"),
    "a header alone": (WHOLE[:44], "it is cut off: 0 of 16,000 bytes of sound are there"),
    "half of a header": (WHOLE[:20], "it is no sound that can be read: .*fmt"),
    "a format that is none": (WHOLE[:20] + b"\xff\xff" + WHOLE[22:], "it is no sound that can be read"),
    "a rate of zero": (WHOLE[:24] + bytes(4) + WHOLE[28:], "it is no sound that can be read"),
    "a rate of 3": (WHOLE[:24] + b"\3\0\0\0" + WHOLE[28:], "its header says 3 samples a second, which no sound has"),
    "NaN": (encoded([0.1, np.nan], subtype="FLOAT"), "it holds NaN or infinity"),
    "16 bits as floats": (encoded([0.1, 32767.0], subtype="FLOAT"), "its values reach 32,767: .* between -1 and 1"),
    "half of a flac": (FLAC[: len(FLAC) // 2], "it is damaged: .*lost sync"),
    "half of an ogg": (OGG[: len(OGG) // 2], "it is cut off: its last page is missing"),
}


@pytest.mark.parametrize(("content", "reason"), DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_file_is_named_with_the_reason(tmp_path, content, reason):
    ending = "flac" if content[:4] == b"fLaC" else "ogg" if content[:4] == b"OggS" else "wav"
    source = opened(folder_of(tmp_path, {"a/1.wav": WHOLE, f"a/bad.{ending}": content}))
    with pytest.raises(DataError, match=rf"a/bad\.{ending} cannot be read: {reason}"):
        source.inputs["audio"][:]


@pytest.mark.parametrize(("content", "reason"), DAMAGED.values(), ids=DAMAGED)
def test_damaged_files_are_skipped_where_the_spec_allows_it(tmp_path, content, reason):
    source = opened(folder_of(tmp_path, {"a/1.wav": WHOLE, "b/2.wav": WHOLE, "b/bad.wav": content}))
    kept = keep_decoded(source, "memory", max_skipped=1)
    assert kept.targets.tolist() == ["a", "b"]
    assert [skipped.name for skipped in kept.skipped] == [f"{tmp_path}/b/bad.wav"]
    with pytest.raises(DataError, match=f"1 file cannot be read: .*bad.wav: {reason}.*on_error: skip"):
        keep_decoded(source, "memory", max_skipped=0)


def test_a_recording_whose_header_was_never_finished_is_taken(tmp_path):
    source = opened(folder_of(tmp_path, {"a/x.wav": STREAMED}))
    np.testing.assert_allclose(source.inputs["audio"][0], sine(440), atol=2**-15)


def test_nothing_but_damage_is_an_error_at_once(tmp_path):
    with pytest.raises(DataError, match=r"none of the 2 files can be read \(first: .*a/1\.wav\); are they sounds\?"):
        opened(folder_of(tmp_path, {"a/1.wav": b"no", "b/1.wav": b""}))


def test_a_decoder_says_why_and_keeps_the_position_of_the_rest(tmp_path):
    source = opened(folder_of(tmp_path, {"a/1.wav": WHOLE, "a/2.wav": b"x", "a/3.wav": WHOLE}))
    samples, bad = source.inputs["audio"].read_all([0, 1, 2])
    assert list(bad) == [1]
    np.testing.assert_array_equal(samples[0], samples[2])
    assert issubclass(UnreadableError, Exception)


# Speakers


def spec_of(root, **source):
    """A spec whose model is of no matter."""
    return Spec.model_validate(
        {
            "version": 1,
            "name": "voices",
            "data": {"source": {"path": str(root), "label": r"^(\d)_", "group": r"^\d_([a-z]+)_", **source}},
            "model": {"layers": [{"Dense": {"units": 2}}]},
            "train": {
                "epochs": 1,
                "optimizer": "adam",
                "loss": {"SparseCategoricalCrossentropy": {"from_logits": True}},
            },
        }
    )


def voices(root, speakers, *, words=2, takes=3):
    """Noise, every file another: WORD_SPEAKER_TAKE.wav."""
    random = np.random.default_rng(len(speakers[0]) + len(speakers))
    names = [f"{word}_{speaker}_{take}.wav" for word in range(words) for speaker in speakers for take in range(takes)]
    return folder_of(root, {name: random.uniform(-0.5, 0.5, 80) for name in names})


def test_a_speaker_never_stands_on_both_sides_of_a_split(tmp_path):
    root = voices(tmp_path, ["ann", "bob", "cid", "dan", "eve", "fay", "gus", "hal", "ida", "jon"])
    for seed in range(5):
        data = Dataset(spec_of(root).model_copy(update={"seed": seed}))
        speakers = {name: set(data.source.groups[ids].tolist()) for name, ids in data.splits.ids().items()}
        assert [len(found) for found in speakers.values()] == [7, 1, 2]
        assert sum(len(found) for found in speakers.values()) == len(set.union(*speakers.values()))


def test_a_speaker_in_the_training_and_the_test_folder_is_named(tmp_path):
    train, test = tmp_path / "train", tmp_path / "test"
    voices(train, ["ann", "bob", "cid"])
    voices(test, ["bob", "dan"])
    with pytest.raises(DataError, match="the group 'bob' stands in train and in test") as caught:
        Dataset(spec_of(train, test_path=str(test))).splits  # noqa: B018
    assert caught.value.exit_code == 4


def test_a_speaker_in_the_folders_of_one_tree_is_named(tmp_path):
    voices(tmp_path / "train", ["ann", "bob", "cid", "eve"])
    voices(tmp_path / "test", ["cid", "dan", "ann"])
    with pytest.raises(DataError, match="the group 'ann' and 1 more stands in train and in test"):
        Dataset(spec_of(tmp_path)).splits  # noqa: B018

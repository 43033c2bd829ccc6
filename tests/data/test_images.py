"""Images of a folder or a .zip: decoded to the values that they hold, brought to one size, and refused in words."""

import io
import logging
import struct
import zipfile
import zlib

import numpy as np
import pytest
from PIL import Image

from mltool.data.cache import keep_decoded
from mltool.data.dataset import Dataset
from mltool.data.sources.images import LOOKED_AT, load_images
from mltool.errors import DataError
from mltool.spec.load import load_spec

RED, GREEN, BLUE, BLACK, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (0, 0, 0), (255, 255, 255)

CORNERS = np.asarray([[RED, GREEN, BLUE], [BLACK, WHITE, (9, 8, 7)]], np.uint8)
"""2 rows of 3 pixels, all different."""

GRAY = np.asarray([[0, 50, 100], [150, 200, 255]], np.uint8)


def encoded(pixels, kind="PNG", **options):
    """A file; of an image, or of pixels."""
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    content = io.BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


@pytest.fixture
def folder(tmp_path):
    """Writes files; what is no bytes is an image."""

    def write(files, place="images"):
        for name, content in files.items():
            path = tmp_path / place / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else encoded(content))
        return tmp_path / place

    return write


@pytest.fixture
def decode(folder):
    """The samples of one or more files of a class."""

    def decode(*contents, ending="png", **options):
        path = folder({f"a/{i:03}.{ending}": content for i, content in enumerate(contents)})
        return load_images({"": path}, **options).inputs["image"][:]

    return decode


# What is decoded


@pytest.mark.parametrize(
    ("kind", "ending", "options"),
    [
        pytest.param("PNG", "png", {}, id="PNG"),
        pytest.param("BMP", "bmp", {}, id="BMP"),
        pytest.param("WEBP", "webp", {"lossless": True}, id="WebP"),
        pytest.param("GIF", "gif", {}, id="GIF"),
        pytest.param("PNG", "jpg", {}, id="PNG called JPEG"),
    ],
)
@pytest.mark.parametrize("change", [str.lower, str.upper, str.title])
def test_a_lossless_image_in_color_is_its_pixels(kind, ending, options, change, decode):
    samples = decode(encoded(CORNERS, kind, **options), ending=change(ending))
    assert samples.dtype == np.uint8
    assert samples.tolist() == [CORNERS.tolist()]


@pytest.mark.parametrize("ending", ["jpg", "jpeg", "JPG", "Jpeg"])
@pytest.mark.parametrize(
    ("color", "mode"), [("rgb", "RGB"), ("gray", "L")], ids=["asked for in color", "asked for in gray"]
)
def test_a_jpeg_is_what_pillow_makes_of_it(ending, color, mode, decode):
    pixels = np.random.default_rng(1).integers(0, 256, (11, 13, 3), dtype=np.uint8)
    content = encoded(pixels, "JPEG", quality=80)
    theirs = np.asarray(Image.open(io.BytesIO(content)).convert(mode)).reshape(11, 13, -1)
    assert np.array_equal(decode(content, ending=ending, color=color)[0], theirs)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "GIF", "WEBP"])
def test_of_a_gray_image_one_channel_is_kept(kind, decode):
    content = encoded(GRAY, kind, **({"lossless": True} if kind == "WEBP" else {}))
    samples = decode(content, ending=kind.lower(), color="gray")
    assert samples.tolist() == [GRAY[..., np.newaxis].tolist()]


def test_gray_is_found_where_every_file_is_gray(decode):
    assert decode(encoded(GRAY), encoded(GRAY[::-1])).shape == (2, 2, 3, 1)


def test_gray_files_are_taken_as_color_when_it_is_asked_for(decode):
    assert decode(encoded(GRAY), color="rgb").tolist() == [np.stack([GRAY] * 3, axis=-1).tolist()]


def test_color_becomes_gray_by_the_weights_of_itu_r_601(decode):
    # 0.299 R + 0.587 G + 0.114 B
    assert decode(encoded(CORNERS), color="gray")[0, ..., 0].tolist() == [[76, 150, 29], [0, 255, 8]]


def test_an_image_of_two_colors_is_black_and_white(decode):
    assert decode(encoded(Image.fromarray(GRAY > 120)))[0, ..., 0].tolist() == [[0, 0, 0], [255, 255, 255]]


def test_a_palette_is_looked_up(decode):
    image = Image.fromarray(np.asarray([[0, 1], [2, 0]], np.uint8))
    image.putpalette([*RED, *GREEN, *BLUE])
    assert decode(encoded(image)).tolist() == [[[list(RED), list(GREEN)], [list(BLUE), list(RED)]]]


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_of_an_animation_the_first_frame_counts(kind, decode):
    frames = [Image.fromarray(np.full((2, 2, 3), color, np.uint8)) for color in (RED, GREEN, BLUE)]
    options = {"lossless": True} if kind == "WEBP" else {}
    content = encoded(frames[0], kind, save_all=True, append_images=frames[1:], duration=50, **options)
    assert Image.open(io.BytesIO(content)).n_frames == 3
    assert decode(content, ending=kind.lower()).tolist() == [[[list(RED)] * 2] * 2]


def test_sixteen_bits_become_eight(decode):
    values = np.asarray([[0, 255, 256], [511, 40_000, 65_535]], np.uint16)
    assert decode(encoded(values))[0, ..., 0].tolist() == [[0, 0, 1], [1, 156, 255]]


@pytest.mark.parametrize(("kind", "ending"), [("PNG", "png"), ("WEBP", "webp")])
def test_transparency_is_laid_on_black(kind, ending, decode):
    pixels = np.asarray([[(200, 100, 50, 255), (200, 100, 50, 0), (200, 100, 50, 51)]], np.uint8)
    samples = decode(
        encoded(pixels, kind, **({"lossless": True, "exact": True} if kind == "WEBP" else {})), ending=ending
    )
    # 51 of 255 is a fifth.
    assert samples.tolist() == [[[[200, 100, 50], [0, 0, 0], [40, 20, 10]]]]


def test_gray_with_transparency_is_laid_on_black(decode):
    pixels = np.asarray([[(200, 255), (200, 0), (200, 51)]], np.uint8)
    assert decode(encoded(pixels))[0, 0, :, 0].tolist() == [200, 0, 40]


@pytest.mark.parametrize("mode", ["RGB", "P", "L"])
def test_a_transparent_color_is_black(mode, decode):
    image = Image.fromarray(np.asarray([[10, 200]], np.uint8))
    if mode == "P":
        image = image.copy()
        image.putpalette([value for number in range(256) for value in (number, number, number)])
    color = (200, 200, 200) if mode == "RGB" else 200
    content = encoded(image.convert("RGB") if mode == "RGB" else image, transparency=color)
    assert decode(content, color="gray")[0, 0, :, 0].tolist() == [10, 0]


UPRIGHT = [
    [[1, 2, 3], [4, 5, 6]],
    [[3, 2, 1], [6, 5, 4]],
    [[6, 5, 4], [3, 2, 1]],
    [[4, 5, 6], [1, 2, 3]],
    [[1, 4], [2, 5], [3, 6]],
    [[4, 1], [5, 2], [6, 3]],
    [[6, 3], [5, 2], [4, 1]],
    [[3, 6], [2, 5], [1, 4]],
]
"""What is shown of [[1, 2, 3], [4, 5, 6]] for orientations 1 to 8: where row 0 and column 0 lie (Exif 2.32, 4.6.4)."""


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(("kind", "ending"), [("PNG", "png"), ("WEBP", "webp"), ("JPEG", "jpg")])
def test_a_photograph_is_shown_upright(orientation, kind, ending, decode):
    stored, shown = np.asarray([[1, 2, 3], [4, 5, 6]]) * 40, np.asarray(UPRIGHT[orientation - 1]) * 40
    if kind == "JPEG":  # blocks of 8 pixels, so that the compression takes nothing away
        stored, shown = (np.kron(array, np.ones((8, 8), int)) for array in (stored, shown))
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"PNG": {}, "WEBP": {"lossless": True}, "JPEG": {"quality": 100}}[kind]
    content = encoded(stored.astype(np.uint8), kind, exif=exif, **options)
    found = decode(content, ending=ending, color="gray")[0, ..., 0]
    assert found.shape == shown.shape
    assert np.abs(found.astype(int) - shown).max() <= (1 if kind == "JPEG" else 0)


@pytest.mark.parametrize("orientation", [0, 9, 77])
def test_an_orientation_that_there_is_not_is_none(orientation, decode):
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert decode(encoded(CORNERS, exif=exif)).tolist() == [CORNERS.tolist()]


@pytest.mark.filterwarnings("ignore:Corrupt EXIF:UserWarning", "ignore:Truncated File Read:UserWarning")
@pytest.mark.parametrize("exif", [b"Exif\0\0MM\0*", b"Exif\0\0no exif", b"Exif\0\0MM\0*\0\0\0\x08\0\x05\x01\x12"])
@pytest.mark.parametrize(("kind", "ending"), [("PNG", "png"), ("JPEG", "jpg"), ("WEBP", "webp")])
def test_damaged_exif_data_leave_the_pixels_whole(kind, ending, exif, decode):
    content = encoded(CORNERS, kind, **({"lossless": True} if kind == "WEBP" else {}))
    with_exif = encoded(CORNERS, kind, exif=exif, **({"lossless": True} if kind == "WEBP" else {}))
    assert np.array_equal(decode(with_exif, ending=ending), decode(content, ending=ending))


# Sizes


SPLIT = np.kron(np.asarray([[0, 0, 200, 200]], np.uint8), np.ones((4, 2), np.uint8))
"""4 rows of 8 pixels, half black, half gray."""


@pytest.mark.parametrize(
    ("resize", "expected"),
    [
        pytest.param("stretch", [[0, 0, 200, 200]] * 4, id="stretched: each pixel is two"),
        pytest.param("crop", [[0, 0, 200, 200]] * 4, id="cut to the middle: the two outer columns of each side go"),
        pytest.param(
            "pad", [[0] * 4, [0, 0, 200, 200], [0, 0, 200, 200], [0] * 4], id="padded with black above and below"
        ),
    ],
)
def test_an_image_is_brought_to_a_size(resize, expected, decode):
    found = decode(encoded(SPLIT), size=(4, 4), resize=resize)[0, ..., 0].astype(int)
    # Bilinear: pixels beside the edge between the halves mix a little.
    assert np.abs(found - np.asarray(expected)).max() <= (30 if resize != "crop" else 0)
    assert found.shape == (4, 4)


def test_cutting_keeps_the_middle(decode):
    ramp = np.repeat(np.arange(8, dtype=np.uint8)[np.newaxis] * 10, 4, axis=0)
    assert decode(encoded(ramp), size=(4, 4), resize="crop")[0, ..., 0].tolist() == [[20, 30, 40, 50]] * 4
    assert decode(encoded(ramp.T.copy()), size=(4, 4), resize="crop")[0, ..., 0].T.tolist() == [[20, 30, 40, 50]] * 4


@pytest.mark.parametrize("resize", ["stretch", "crop", "pad"])
def test_size_is_height_and_width(resize, decode):
    assert decode(encoded(CORNERS), size=(5, 9), resize=resize).shape == (1, 5, 9, 3)


@pytest.mark.parametrize("resize", ["stretch", "crop", "pad"])
def test_an_image_of_the_size_stays_as_it_is(resize, decode):
    assert decode(encoded(CORNERS), size=(2, 3), resize=resize).tolist() == [CORNERS.tolist()]


def test_files_of_several_sizes_need_one(decode):
    expected = r"/a/001\.png is 3x2, .*/a/000\.png is 2x3; set data\.source\.image_size: \[H, W\]"
    with pytest.raises(DataError, match=expected) as caught:
        decode(encoded(CORNERS), encoded(CORNERS.transpose(1, 0, 2).copy()))
    assert caught.value.exit_code == 4
    assert decode(encoded(CORNERS), encoded(CORNERS.transpose(1, 0, 2).copy()), size=(4, 4)).shape == (2, 4, 4, 3)


# Gray and color together


def test_gray_and_color_together_are_color_and_it_is_said(decode, caplog):
    caplog.set_level(logging.INFO, "mltool")
    assert decode(encoded(GRAY), encoded(CORNERS), encoded(GRAY)).tolist() == [
        np.stack([GRAY] * 3, axis=-1).tolist(),
        CORNERS.tolist(),
        np.stack([GRAY] * 3, axis=-1).tolist(),
    ]
    assert "2 of the first 3 images are gray, others in color: all are taken as rgb (data.source.color)" in caplog.text


@pytest.mark.parametrize("color", ["rgb", "gray"])
def test_nothing_is_said_where_the_spec_says_the_color(color, decode, caplog):
    caplog.set_level(logging.INFO, "mltool")
    decode(encoded(GRAY), encoded(CORNERS), color=color)
    assert caplog.text == ""


def test_color_after_many_gray_images_is_refused_not_lost(decode):
    contents = [encoded(GRAY)] * LOOKED_AT + [encoded(CORNERS)]
    expected = rf"/a/{LOOKED_AT:03}\.png is in color, the first {LOOKED_AT} images are gray; set data\.source\.color"
    with pytest.raises(DataError, match=expected):
        decode(*contents)
    assert decode(*contents, color="gray").shape == (LOOKED_AT + 1, 2, 3, 1)


# Classes and splits


def test_classes_are_folders_in_alphabetical_order(folder):
    path = folder({"dog/1.png": CORNERS, "cat/2.png": CORNERS[::-1], "Ant/3.png": CORNERS, "cat/1.png": CORNERS})
    source = load_images({"": path})
    assert source.targets.tolist() == ["Ant", "cat", "cat", "dog"]
    assert [name.removeprefix(f"{path}/") for name in source.names] == [
        "Ant/3.png",
        "cat/1.png",
        "cat/2.png",
        "dog/1.png",
    ]
    assert source.kinds == {"image": "image"}
    assert source.inputs["image"][2].tolist() == CORNERS[::-1].tolist()


def test_a_zip_gives_what_the_folder_gives(folder, tmp_path):
    random = np.random.default_rng(3)
    files = {
        f"{split}/{label}/{i}.png": encoded(random.integers(0, 256, (5, 4, 3), dtype=np.uint8))
        for split in ("train", "test")
        for label in "ab"
        for i in range(3)
    }
    path = folder(files)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name, content in reversed(files.items()):
            archive.writestr(f"pets/{name}", content)
    of_folder, of_zip = load_images({"": path}), load_images({"": tmp_path / "a.zip"})
    assert np.array_equal(of_folder.inputs["image"][:], of_zip.inputs["image"][:])
    assert of_folder.targets.tolist() == of_zip.targets.tolist()
    assert {key: ids.tolist() for key, ids in of_folder.given.items()} == {
        "train": [6, 7, 8, 9, 10, 11],
        "test": [0, 1, 2, 3, 4, 5],
    }
    assert {key: ids.tolist() for key, ids in of_zip.given.items()} == {
        key: ids.tolist() for key, ids in of_folder.given.items()
    }


def test_labels_and_groups_of_names(folder):
    path = folder({"7_ann.png": CORNERS, "3_bob.png": CORNERS})
    source = load_images({"": path}, label=r"^(\d)", group="_([a-z]+)")
    assert source.targets.tolist() == ["3", "7"]
    assert source.groups.tolist() == ["bob", "ann"]
    assert source.target_name == "label"


def dataset(path, source=""):
    """What a spec makes of the folder."""
    spec = path.parent / "s.yaml"
    model = "{layers: [Flatten, {Dense: {units: 2}}]}"
    loss = "{SparseCategoricalCrossentropy: {from_logits: true}}"
    spec.write_text(
        f"name: s\ndata: {{source: {{path: {path.name}{source}}}}}\nmodel: {model}\ntrain: {{loss: {loss}}}\n"
    )
    return Dataset(load_spec(spec))


def many(*labels, count=12):
    """Different images of every class."""
    random = np.random.default_rng(5)
    return {
        f"{label}/{i}.png": random.integers(0, 256, (4, 4, 3), dtype=np.uint8) for label in labels for i in range(count)
    }


def test_the_order_of_classes_is_that_of_the_spec(folder):
    path = folder(many("cat", "ant", "dog"))
    assert dataset(path).labels == ("ant", "cat", "dog")
    found = dataset(path, ", classes: [dog, ant]")
    assert found.labels == ("dog", "ant")
    assert found.targets.tolist() == [1] * 12 + [0] * 12
    assert set(found.source.targets[:12]) == {"ant"}


def test_a_class_that_only_the_test_folder_has_is_named(folder):
    path = folder(many("train/a", "train/b", "test/a", "test/c"))
    expected = r"images: the test set has the class 'c', training has not \(first: .*/test/c/0\.png\); fix the labels"
    with pytest.raises(DataError, match=expected) as caught:
        dataset(path)
    assert caught.value.exit_code == 4


def test_a_spec_allows_some_unreadable_files(folder):
    path = folder({**many("a", "b"), "a/1.png": b"", "b/3.png": b"text"})
    found = dataset(path, ", on_error: skip, max_skipped: 2")
    assert found.source.num_samples == 22
    assert [(skip.name.removeprefix(f"{path}/"), skip.reason) for skip in found.source.skipped] == [
        ("a/1.png", "it is empty (0 bytes)"),
        ("b/3.png", "it is no image that can be read (PNG, JPEG, BMP, GIF, WebP)"),
    ]
    with pytest.raises(DataError, match=r"2 files cannot be read, 1 may be skipped: .*raise data\.source\.max_skipped"):
        dataset(path, ", on_error: skip, max_skipped: 1")
    with pytest.raises(DataError, match=r"2 files cannot be read: .*set data\.source\.on_error: skip"):
        dataset(path)


def test_a_class_of_which_nothing_can_be_read_is_not_left_out(folder):
    path = folder({**many("a", "b"), **{f"c/{number}.png": b"text" for number in range(3)}})
    with pytest.raises(DataError, match=r"no sample of the class 'c' can be read; mend them \(first: .*c/0"):
        dataset(path, ", on_error: skip, max_skipped: 5")


@pytest.mark.parametrize("format", ["TIFF", "EPS", "PPM", "ICO"])
def test_only_the_formats_that_are_promised_are_decoded(format, folder):
    """Pillow would open others, whatever the ending: a TIFF of floats as black, an EPS with Ghostscript."""
    path = folder({**many("a", "b"), "a/1.png": encoded(NOISE, format)})
    with pytest.raises(DataError, match=r"1 file cannot be read: .*a/1\.png: it is no image that can be read \(PNG"):
        dataset(path)


# What cannot be read


def chunk(name, content):
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png_that_claims(width, height):
    """A few bytes whose header names a size."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(bytes(100))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


NOISE = np.random.default_rng(9).integers(0, 256, (40, 40, 3), dtype=np.uint8)


@pytest.mark.filterwarnings("ignore:Image size:PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(
    ("content", "ending", "reason"),
    [
        pytest.param(b"", "png", r"it is empty \(0 bytes\)", id="0 bytes"),
        pytest.param(b"I am a text.\n", "jpg", "it is no image that can be read", id="text called JPEG"),
        pytest.param(b"\0" * 1000, "gif", "it is no image that can be read", id="zeros"),
        pytest.param(encoded(NOISE)[:-500], "png", "it is damaged: image file is truncated", id="truncated PNG"),
        pytest.param(
            encoded(NOISE, "JPEG")[:-300], "jpg", "it is damaged: image file is truncated", id="truncated JPEG"
        ),
        pytest.param(encoded(NOISE, "BMP")[:-500], "bmp", "it is damaged: image file is truncated", id="truncated BMP"),
        pytest.param(encoded(NOISE, "GIF")[:-500], "gif", "it is damaged: image file is truncated", id="truncated GIF"),
        pytest.param(encoded(NOISE, "WEBP")[:-500], "webp", "it is no image that can be read", id="truncated WebP"),
        pytest.param(encoded(NOISE)[:20], "png", "it is no image that can be read", id="PNG of 20 bytes"),
        pytest.param(png_that_claims(40, 40), "png", "it is damaged: ", id="PNG without its pixels"),
        pytest.param(
            png_that_claims(10_001, 10_000), "png", "it is too large: 10001x10000 pixels", id="a few too many pixels"
        ),
        pytest.param(png_that_claims(60_000, 60_000), "png", "it is too large: ", id="gigabytes of pixels"),
        pytest.param(png_that_claims(0, 40), "png", "it is no image that can be read|it is damaged", id="no width"),
    ],
)
def test_what_cannot_be_read_is_named_with_its_reason(content, ending, reason, folder):
    path = folder({"a/1.png": NOISE, f"a/2.{ending}": content, "b/3.png": NOISE})
    source = load_images({"": path})
    expected = rf"^1 file cannot be read: \S+/a/2\.{ending}: ({reason}).*; mend them, take them away, or set"
    with pytest.raises(DataError, match=expected) as caught:
        keep_decoded(source, "memory", max_skipped=0)
    assert caught.value.exit_code == 4
    with pytest.raises(DataError, match=rf"/a/2\.{ending} cannot be read: ({reason}).*; mend it, or take it away"):
        source.inputs["image"][:]
    assert keep_decoded(source, "memory", max_skipped=1).num_samples == 2


def test_the_first_file_need_not_be_readable(folder):
    path = folder({"a/1.png": b"", "a/2.png": encoded(NOISE)[:-500], "b/3.png": NOISE})
    source = load_images({"": path})
    assert source.inputs["image"].shape == (3, 40, 40, 3)
    assert keep_decoded(source, "none", max_skipped=2).num_samples == 1


def test_where_none_can_be_read_it_is_said(folder):
    path = folder({"a/1.png": b"", "b/2.png": b"text"})
    with pytest.raises(DataError, match=r"none of the 2 images can be read \(first: .*/a/1\.png\); are they images\?"):
        load_images({"": path})


def changed(content, random):
    """Some bytes of a file changed, or its end cut off."""
    content = bytearray(content)
    if random.random() < 0.3:
        return bytes(content[: random.integers(len(content))])
    for place in random.integers(0, len(content), random.integers(1, 9)):
        content[place] = random.integers(256)
    return bytes(content)


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "GIF", "WEBP"])
def test_whatever_is_damaged_ends_in_words(kind, folder):
    random = np.random.default_rng(11)
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a description"
    options = {"exif": exif} if kind in ("PNG", "JPEG", "WEBP") else {}
    whole = encoded(NOISE[:9, :7], kind, **options)
    files = {f"a/{i:03}.{kind.lower()}": changed(whole, random) for i in range(300)}
    source = load_images({"": folder({"a/!.png": NOISE, **files})}, size=(8, 8), color="rgb")
    found = keep_decoded(source, "memory", max_skipped=300)
    assert 0 < len(found.skipped) < 300
    assert all(skip.reason.startswith("it is ") for skip in found.skipped)

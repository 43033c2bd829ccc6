"""Plain PNGs: TensorFlow decodes many at once, to Pillow's bits; Pillow judges what is not plain, or damaged."""

import io
import struct
import zlib
from itertools import pairwise

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, PngImagePlugin

from mltool.data import cache
from mltool.data.cache import UnreadableError, keep_decoded
from mltool.data.sources import images, png
from mltool.data.sources.images import load_images
from mltool.data.sources.png import decode_plain, is_worthwhile, plain_shape

END = b"\0\0\0\0IEND\xaeB`\x82"

RGB = np.random.default_rng(5).integers(0, 256, (9, 7, 3), np.uint8)
GRAY = RGB[..., 0]


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png_of(pixels, *, kind=None, stream=None, before=b"", after=b"", cuts=(), end=END):
    """A PNG by hand: each row with another filter, pixels in pieces, other chunks before and after them."""
    height, width = pixels.shape[:2]
    kind = kind or (8, 2 if pixels.ndim == 3 else 0, 0, 0, 0)
    rows = b"".join(bytes([row % 5]) + pixels[row].tobytes() for row in range(height))
    stream = zlib.compress(rows) if stream is None else stream
    bounds = [0, *cuts, len(stream)]
    pieces = b"".join(chunk(b"IDAT", stream[a:b]) for a, b in pairwise(bounds))
    header = chunk(b"IHDR", struct.pack(">II5B", width, height, *kind))
    return b"\x89PNG\r\n\x1a\n" + header + before + pieces + after + end


def saved(pixels, kind="PNG", **options):
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, kind, **options)
    return content.getvalue()


def by_pillow(content):
    """Pixels, or None where Pillow refuses it."""
    try:
        with images.open_image(content) as image:
            image.load()
            return np.atleast_3d(np.asarray(image))
    except (UnreadableError, OSError, ValueError, SyntaxError):
        return None


def by_tensorflow(content, shape, count=20):
    pixels = decode_plain([content] * count, shape)
    if pixels is None:
        return None
    assert pixels.shape == (count, *shape)
    assert (pixels == pixels[0]).all()
    return pixels[0]


PLAIN = {
    "rgb": png_of(RGB),
    "gray": png_of(GRAY),
    "saved by Pillow": saved(RGB),
    "saved with a resolution": saved(RGB, dpi=(72, 72)),
    "saved without compression": saved(GRAY, compress_level=0),
    "saved by TensorFlow": tf.io.encode_png(RGB).numpy(),
    "in pieces": png_of(RGB, cuts=(1, 1, 2, 40)),
    "gamma and colors": png_of(
        RGB, before=chunk(b"gAMA", struct.pack(">I", 200_000)) + chunk(b"cHRM", bytes(32)) + chunk(b"sRGB", b"\0")
    ),
    "times as ImageMagick writes them": png_of(
        RGB,
        before=chunk(b"tIME", b"\x07\xea\1\1\1\1\1"),
        after=chunk(b"tEXt", b"date:create\x002026-01-01T00:00:00+00:00"),
    ),
    "one pixel": png_of(RGB[:1, :1]),
}


@pytest.mark.parametrize("name", PLAIN)
def test_both_decoders_give_the_same_bits_for_plain_pngs(name):
    expected = by_pillow(PLAIN[name])
    assert plain_shape(PLAIN[name]) == expected.shape
    for count in (20, 60, 70, 200):  # in one batch or more, the last filled up
        np.testing.assert_array_equal(by_tensorflow(PLAIN[name], expected.shape, count), expected, strict=True)


def test_few_images_are_left_to_pillow():
    assert decode_plain([PLAIN["rgb"]] * 16, RGB.shape) is None


def test_a_batch_keeps_its_order_and_is_refused_whole_where_one_image_is_damaged():
    pixels = np.random.default_rng(4).integers(0, 256, (150, 9, 7, 3), np.uint8)
    contents = [saved(image) for image in pixels]
    np.testing.assert_array_equal(decode_plain(contents, RGB.shape), pixels, strict=True)
    contents[140] = contents[140][:60] + b"\x99\x98" + contents[140][62:]
    assert decode_plain(contents, RGB.shape) is None


def exif_of(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def text_of(key, value):
    info = PngImagePlugin.PngInfo()
    info.add_text(key, value)
    return info


def palette():
    content = io.BytesIO()
    Image.fromarray(RGB).quantize(16).save(content, "PNG")
    return content.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(palette(), id="palette"),
        pytest.param(saved(GRAY.astype(np.uint16)), id="16 bits"),
        pytest.param(saved(np.dstack([RGB, GRAY])), id="transparency"),
        pytest.param(png_of(RGB, before=chunk(b"tRNS", bytes(6))), id="a transparent color"),
        pytest.param(png_of(RGB, before=chunk(b"acTL", bytes(8))), id="animation"),
        pytest.param(png_of(RGB, kind=(8, 2, 0, 0, 1)), id="interlaced"),
        pytest.param(saved(RGB, exif=exif_of(6)), id="turned"),
        pytest.param(png_of(RGB, after=chunk(b"eXIf", exif_of(6).tobytes()[6:])), id="turned by what comes last"),
        pytest.param(saved(RGB, pnginfo=text_of("XML:com.adobe.xmp", 'tiff:Orientation="6"')), id="turned by XMP"),
        pytest.param(png_of(RGB, before=chunk(b"gAMA", b"\0")), id="a chunk too short"),
        pytest.param(png_of(RGB, before=chunk(b"sRGB", b"\0")[:-1] + b"!"), id="a chunk with a wrong checksum"),
        pytest.param(png_of(RGB, end=b""), id="no end"),
        pytest.param(png_of(RGB) + b"more", id="something behind the end"),
        pytest.param(png_of(RGB)[:20], id="20 bytes"),
        pytest.param(png_of(RGB)[:33], id="a header only"),
        pytest.param(png_of(RGB)[:28] + b"!" + png_of(RGB)[29:], id="a header with a wrong checksum"),
        pytest.param(saved(RGB, "JPEG"), id="JPEG"),
        pytest.param(b"", id="nothing"),
    ],
)
def test_what_is_not_plain_is_told_from_its_chunks(content):
    assert plain_shape(content) is None


def damaged_streams(random):
    """Pixels that are changed, cut, or not all there, with checksums that fit."""
    rows = b"".join(bytes([row % 5]) + RGB[row].tobytes() for row in range(len(RGB)))
    stream = zlib.compress(rows)
    for short in (rows[:-1], rows[:-22], b"", rows + rows, b"\5" + rows[1:], rows[:22] + b"\xff" + rows[23:]):
        yield zlib.compress(short)
    for cut in (1, 4, 5, 9, 50):
        yield stream[:-cut]
    yield stream[:-4] + b"sum!"
    yield stream + b"more"
    yield stream[2:]
    for _ in range(150):
        changed = bytearray(stream)
        for place in random.integers(0, len(stream), random.integers(1, 4)):
            changed[place] = random.integers(256)
        yield bytes(changed)


def test_tensorflow_takes_no_damage_that_pillow_refuses():
    taken, refused = 0, 0
    for stream in damaged_streams(np.random.default_rng(2)):
        content = png_of(RGB, stream=stream)
        found, expected = by_tensorflow(content, RGB.shape), by_pillow(content)
        if found is not None:
            np.testing.assert_array_equal(found, expected, strict=True)
        taken, refused = taken + (found is not None), refused + (expected is None)
    assert taken > 0
    assert refused > 100


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Writes files of a class; however many processors there are, more than a few of them are decoded in one task."""
    monkeypatch.setattr(cache.os, "cpu_count", lambda: 2)

    def write(contents):
        (tmp_path / "a").mkdir()
        for number, content in enumerate(contents):
            (tmp_path / f"a/{number:03}.png").write_bytes(content)
        return tmp_path

    return write


def read(path, monkeypatch, *, bulk, **options):
    monkeypatch.setattr(images, "is_worthwhile", is_worthwhile if bulk else lambda shape: False)
    source = load_images({"": path}, **options)
    kept = keep_decoded(source, "memory", max_skipped=source.num_samples)
    return kept.inputs["image"], [(skip.name, skip.reason) for skip in kept.skipped]


def test_plain_pngs_of_a_folder_are_decoded_without_pillow(folder, monkeypatch):
    expected = np.random.default_rng(1).integers(0, 256, (80, 9, 7, 3), np.uint8)
    source = load_images({"": folder([saved(pixels) for pixels in expected])})
    monkeypatch.setattr(images, "open_image", None)
    np.testing.assert_array_equal(keep_decoded(source, "memory", max_skipped=0).inputs["image"], expected, strict=True)


def test_without_tensorflow_they_are_decoded_by_pillow(monkeypatch):
    assert is_worthwhile((9, 7, 3))
    monkeypatch.setitem(png.sys.modules, "tensorflow", None)
    assert not is_worthwhile((9, 7, 3))
    monkeypatch.delitem(png.sys.modules, "tensorflow")
    assert not is_worthwhile((9, 7, 3))


def test_large_images_are_left_to_pillow_and_so_are_files_that_hide_megabytes():
    assert not is_worthwhile((1000, 1000, 3))
    hidden = png_of(RGB, stream=zlib.compress(RGB.tobytes()) + bytes(2 * png.MOST_BYTES))
    assert plain_shape(hidden) == RGB.shape
    assert not png.is_plain(hidden, RGB.shape)


@pytest.mark.parametrize("options", [{}, {"color": "gray"}, {"size": (9, 7)}, {"size": (4, 4)}], ids=str)
def test_a_mixed_folder_is_the_same_with_and_without_tensorflow(options, folder, monkeypatch):
    random = np.random.default_rng(3)
    contents = [saved(pixels) for pixels in random.integers(0, 256, (100, 9, 7, 3), np.uint8)]
    for number in range(3, 100, 11):
        contents[number] = [saved(GRAY), palette(), saved(RGB, exif=exif_of(3)), saved(RGB, "BMP")][number % 4]
    for number in range(4, 24, 4):  # in the first of four tasks only: in the others many are decoded at once
        place = random.integers(len(contents[number]))
        contents[number] = contents[number][:place] + b"\x99" + contents[number][place + 1 :]
    contents[50], contents[51] = contents[50][:-30], b""
    path = folder(contents)
    (pixels, skipped), (expected, also_skipped) = (read(path, monkeypatch, bulk=b, **options) for b in (True, False))
    np.testing.assert_array_equal(pixels, expected, strict=True)
    assert skipped == also_skipped
    assert 2 < len(skipped) < 20

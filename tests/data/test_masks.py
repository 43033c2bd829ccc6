"""Masks of images: paired by name, resized as their images, refused in words, and moved as these are in training."""

import hashlib
import re

import numpy as np
import pytest
import yaml
from PIL import Image

from mltool.data.augment import build_masked_augmentation
from mltool.data.copies import copies
from mltool.data.dataset import Dataset, Samples, class_counts
from mltool.data.pipeline import Pipeline
from mltool.data.scan import scan
from mltool.data.sources.shapes import CLASSES, load_shapes
from mltool.errors import DataError, SpecError
from mltool.report.pictures import colored, write_pictures
from mltool.spec.augment import MOVES_MASKS
from mltool.spec.load import load_spec

PIXELS = {"SparseCategoricalCrossentropy": {"from_logits": True}}

MASK = np.asarray([[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 0, 0]], np.uint8)
"""3 rows of 4 pixels."""


@pytest.fixture
def write(tmp_path):
    """Writes files: arrays as PNG, of two axes gray."""

    def write(files):
        for name, pixels in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
            image.save(path)
        return tmp_path

    return write


@pytest.fixture
def spec(tmp_path):
    """A spec whose files lie in the test's folder."""

    def make(source=None, train=None, **data):
        source = source or {"path": "photos", "masks": "masks", "classes": ["ground", "sky", "tree"]}
        document = {
            "name": "s",
            "data": {"source": source, **data},
            "model": {"layers": [{"Conv2D": {"filters": 3, "kernel_size": 1}}]},
            "train": {"loss": PIXELS, **(train or {})},
        }
        (tmp_path / "s.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")
        return load_spec(tmp_path / "s.yaml")

    return make


def photo(number, height=3, width=4):
    return np.random.default_rng(number).integers(0, 256, (height, width, 3), dtype=np.uint8)


def pairs(count=10, mask=MASK):
    photos = {f"photos/a/{i}.png": photo(i, *mask.shape) for i in range(count)}
    return photos | {f"masks/a/{i}.png": np.roll(mask, i, axis=1) for i in range(count)}


# Reading


def test_a_mask_is_found_by_its_name_whatever_its_ending(write, spec):
    files = pairs()
    write({name.replace("png", "bmp") if name.startswith("masks") else name: value for name, value in files.items()})
    data = Dataset(spec())
    assert (data.task, data.labels, data.targets.dtype) == ("segmentation", ("ground", "sky", "tree"), np.uint8)
    assert data.targets.shape == (10, 3, 4)
    for i, mask in enumerate(data.targets):
        np.testing.assert_array_equal(mask, np.roll(MASK, i, axis=1))


def test_masks_lie_in_the_subfolders_of_their_images_which_may_bring_splits(write, spec):
    folders = ["train"] * 6 + ["test"] * 2
    write({f"photos/{folder}/x/{i}.png": photo(i) for i, folder in enumerate(folders)})
    write({f"masks/{folder}/x/{i}.png": np.full((3, 4), i % 3, np.uint8) for i, folder in enumerate(folders)})
    data = Dataset(spec())
    assert [len(data.source.given[name]) for name in ("train", "test")] == [6, 2]
    for i, mask in enumerate(data.targets):
        assert (mask == int(data.source.name_of(i).rpartition("/")[2][:-4]) % 3).all()


def test_of_a_palette_the_numbers_count_not_the_colors(write, spec):
    files = pairs()
    for name in [name for name in files if name.startswith("masks")]:
        image = Image.fromarray(files[name], "P")
        image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
        files[name] = image
    write(files)
    np.testing.assert_array_equal(Dataset(spec()).targets[1], np.roll(MASK, 1, axis=1))


def test_without_names_classes_are_called_by_their_numbers(write, spec):
    write(pairs())
    assert Dataset(spec({"path": "photos", "masks": "masks"})).labels == ("0", "1", "2")


@pytest.mark.parametrize(
    ("resize", "expected"),
    [
        # 4 rows of 8 to 4 of 4: every second column; the middle 4 columns; or to 2 rows of 4 between rows of 0.
        pytest.param("stretch", [[1, 1, 2, 2]] * 4, id="stretch"),
        pytest.param("crop", [[1, 1, 2, 2]] * 4, id="crop"),
        pytest.param("pad", [[0] * 4, [1, 1, 2, 2], [1, 1, 2, 2], [0] * 4], id="pad"),
    ],
)
def test_a_mask_is_resized_as_its_image_to_the_nearest_pixel(resize, expected, write, spec):
    mask = np.asarray([[1, 1, 1, 1, 2, 2, 2, 2]] * 4, np.uint8)
    write({f"photos/{i}.png": np.repeat(mask[..., None] * 100, 3, axis=2) + np.uint8(i) for i in range(8)})
    write({f"masks/{i}.png": mask for i in range(8)})
    source = {"path": "photos", "masks": "masks", "classes": ["a", "b", "c"]}
    data = Dataset(spec({**source, "image_size": [4, 4], "resize": resize}))
    assert data.targets[0].tolist() == expected
    # Where the image is of one class, away from the edge that bilinear blurs, its pixels say the same.
    for column in (0, 3):
        image, wanted = data.source.inputs["image"][0][:, column, 0], np.asarray(expected)[:, column]
        assert (np.round(image / 100) == wanted).all()


# Refused


def broken(change):
    files = pairs(4)
    change(files)
    return files


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(
            lambda f: f.pop("masks/a/2.png"),
            r"1 image has no mask: .*photos/a/2\.png; a mask is .*NAME\.png",
            id="no mask",
        ),
        pytest.param(lambda f: f.pop("photos/a/2.png"), r"1 mask has no image: .*masks/a/2\.png", id="no image"),
        pytest.param(
            lambda f: f.update({"masks/a/1.png": np.zeros((4, 3), np.uint8)}),
            r"masks/a/1\.png is 4x3, its image .*photos/a/1\.png is 3x4",
            id="size",
        ),
        pytest.param(
            lambda f: f.update({"masks/a/1.png": np.full((3, 4), 3, np.uint8)}),
            r"masks/a/1\.png has a pixel of 3; the classes are numbered 0 to 2",
            id="no class",
        ),
        pytest.param(
            lambda f: f.update({"masks/a/3.png": np.full((3, 4), 255, np.uint8)}),
            r"masks/a/3\.png has a pixel of 255; .*not labelled",
            id="255",
        ),
        pytest.param(
            lambda f: f.update({"masks/a/1.png": photo(3)}),
            r"1 mask cannot be read: .*masks/a/1\.png: it is in color \(RGB\)",
            id="color",
        ),
        pytest.param(
            lambda f: f.update({"masks/a/1.jpg": f.pop("masks/a/1.png")}), r"it is a JPEG, which changes", id="JPEG"
        ),
        pytest.param(
            lambda f: f.update({"masks/a/1.bmp": f["masks/a/1.png"]}), r"two masks are called 'a/1'", id="two masks"
        ),
        pytest.param(
            lambda f: f.update(
                {name: np.zeros((5, 4, *f[name].shape[2:]), np.uint8) for name in ("photos/a/1.png", "masks/a/1.png")}
            ),
            r"photos/a/1\.png is 5x4, .*photos/a/0\.png is 3x4; set data\.source\.image_size",
            id="image size",
        ),
    ],
)
def test_what_does_not_fit_is_named(change, message, write, spec):
    write(broken(change))
    with pytest.raises(DataError) as raised:
        Dataset(spec())
    shown = str(raised.value.messages[0].message) + "; " + raised.value.messages[0].hint
    assert re.search(message, shown), shown


def test_a_number_that_resizing_would_lose_is_named_all_the_same(write, spec):
    mask = np.zeros((8, 8), np.uint8)
    mask[1, 1] = 9
    write(pairs(8, mask))
    with pytest.raises(DataError, match="has a pixel of 9"):
        Dataset(spec({"path": "photos", "masks": "masks", "classes": ["a", "b"], "image_size": [2, 2]}))


def test_masks_below_the_images_are_refused(write, spec):
    write({f"photos/masks/{i}.png": MASK for i in range(3)} | {f"photos/{i}.png": photo(i) for i in range(3)})
    with pytest.raises(SpecError, match="masks would be taken for images"):
        Dataset(spec({"path": "photos", "masks": "photos/masks"}))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        pytest.param({"path": "x.npz", "masks": "m"}, "is a key of images, and the source is npz", id="npz"),
        pytest.param({"path": "p", "masks": "m", "label": "^(.)"}, "label: is for a label an image", id="label"),
        pytest.param({"path": "p", "masks": "m", "labels": {"a": "b"}}, "is for a label an image", id="labels"),
        pytest.param({"path": "p", "masks": "m", "test_path": "t"}, "test_path: has no masks of its own", id="test"),
        pytest.param({"dataset": "shapes", "max_per_class": 3}, "is for a label an image", id="shapes"),
    ],
)
def test_keys_that_masks_cannot_have_are_refused_without_the_data(source, message, spec):
    with pytest.raises(SpecError, match=message):
        spec(source)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        pytest.param("MixUp", "MixUp mixes a class an image", id="MixUp"),
        pytest.param({"CutMix": {"factor": 1.0}}, "CutMix mixes a class an image", id="CutMix"),
        pytest.param("RandomElasticTransform", "bends the mask otherwise", id="elastic"),
        pytest.param({"RandomShift": {"factor": 0.1}}, "moves sound and series; those that move both", id="shift"),
        pytest.param(
            {"RandomRotation": {"factor": 0.1, "fill_mode": "constant", "fill_value": 128}},
            "augment.0.RandomRotation.fill_value: would fill the mask too, with the class 128",
            id="fill value",
        ),
    ],
)
def test_an_augmentation_that_masks_cannot_follow_is_refused(layer, message, spec, tmp_path):
    with pytest.raises(SpecError, match=message):
        spec({"dataset": "shapes"}, augment=[layer])
    # Of arrays it shows only when they are read.
    np.savez(tmp_path / "a.npz", x=np.zeros((20, 4, 4, 3), np.uint8), y=np.zeros((20, 4, 4), np.uint8))
    with pytest.raises(SpecError, match="augment"):
        Dataset(spec({"path": "a.npz", "classes": ["a", "b"]}, augment=[layer]))


def test_class_weights_are_refused(spec):
    with pytest.raises(SpecError, match=r"train\.class_weights: weighs samples"):
        Dataset(spec({"dataset": "shapes"}, {"class_weights": "balanced"}))


def test_another_loss_is_refused(spec):
    with pytest.raises(SpecError, match=r"train\.loss\.CategoricalCrossentropy: the targets are masks"):
        Dataset(spec({"dataset": "shapes"}, {"loss": {"CategoricalCrossentropy": {"from_logits": True}}}))


# Arrays


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.bool_])
@pytest.mark.parametrize("last_axis", [(), (1,)], ids=["three axes", "and one of 1"])
def test_whole_numbers_of_three_axes_are_masks(dtype, last_axis, spec, tmp_path):
    masks = np.arange(20 * 12).reshape(20, 3, 4) % 2
    x = np.stack([photo(i) for i in range(20)])
    np.savez(tmp_path / "a.npz", x=x, y=masks.astype(dtype).reshape(20, 3, 4, *last_axis))
    data = Dataset(spec({"path": "a.npz"}))
    assert (data.task, data.labels) == ("segmentation", ("0", "1"))
    assert data.targets.dtype == np.uint8
    np.testing.assert_array_equal(data.targets, masks)


def test_a_function_gives_masks_too(spec, tmp_path):
    code = """
import numpy as np

def load():
    y = np.arange(240).reshape(20, 3, 4) % 5
    return {"x": np.repeat(y[..., None], 3, 3).astype("uint8"), "y": y}
"""
    (tmp_path / "mine.py").write_text(code, encoding="utf-8")
    data = Dataset(spec({"python": "mine:load", "classes": list("abcde")}))
    assert (data.task, data.labels, data.targets.shape) == ("segmentation", tuple("abcde"), (20, 3, 4))


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        pytest.param(np.full((20, 3, 4), -1), "sample 0 has a pixel of -1", id="negative"),
        pytest.param(np.full((20, 3, 4), 300), "sample 0 has a pixel of 300", id="large"),
        pytest.param(np.zeros((20, 4, 3), np.uint8), "the masks are 4x3, the images of 'image' 3x4", id="size"),
        pytest.param(np.zeros((20, 3, 4), np.uint8), "all pixels are of one class, '0'", id="one class"),
        pytest.param(np.zeros((20, 3, 4), np.float32), "one class a sample is expected", id="fractions"),
    ],
)
def test_arrays_that_are_no_masks_are_refused(masks, message, spec, tmp_path):
    np.savez(tmp_path / "a.npz", x=np.stack([photo(i) for i in range(20)]), y=masks)
    with pytest.raises(DataError, match=message):
        Dataset(spec({"path": "a.npz"}))


def test_a_regression_of_three_axes_stays_one(spec, tmp_path):
    np.savez(tmp_path / "a.npz", x=np.stack([photo(i) for i in range(20)]), y=np.ones((20, 3, 4), np.uint8))
    data = Dataset(spec({"path": "a.npz"}, {"loss": "mse"}))
    assert (data.task, data.targets.shape) == ("regression", (20, 12))


# The scan


def test_the_scan_counts_pixels_and_names_classes_that_training_lacks(write, spec):
    write(pairs(20))
    data = Dataset(spec({"path": "photos", "masks": "masks", "classes": ["ground", "sky", "tree", "sea"]}))
    document = scan(data)
    # MASK has 6 pixels of class 0, 4 of 1 and 2 of 2.
    assert document["splits"]["train"]["classes"] == {"ground": 6 * 14, "sky": 4 * 14, "tree": 2 * 14, "sea": 0}
    errors = [item["message"] for item in document["findings"] if item["level"] == "error"]
    assert errors == ["train has no pixel of the class sea"]


def test_equal_images_with_different_masks_are_told(write, spec):
    files = pairs(20)
    for i in (3, 4, 5):
        files[f"photos/a/{i}.png"] = photo(3)
    files["masks/a/4.png"] = files["masks/a/3.png"]
    write(files)
    data = Dataset(spec())
    found = copies(data)
    assert (found["samples_with_a_copy"], found["contradicting"], found["contradicting_groups"]) == (3, 3, 1)
    named = [name.rpartition("/")[2] for name in found["contradictions"][0]]
    assert named == ["3.png", "5.png"]
    messages = [item["message"] for item in scan(data)["findings"]]
    assert any("3 samples have an equal one with another mask" in message for message in messages)


def test_class_counts_count_pixels():
    assert class_counts(np.asarray([[[0, 2], [2, 2]]], np.uint8), 4).tolist() == [1, 0, 3, 0]


def test_pictures_show_images_beside_their_masks(spec, tmp_path):
    data = Dataset(spec({"dataset": "shapes", "max_samples": 40}))
    write_pictures(scan(data), data, tmp_path / "scan")
    sheet = np.asarray(Image.open(tmp_path / "scan/image.png"))
    first = int(data.splits.train[0])
    np.testing.assert_array_equal(sheet[:32, :32], data.source.inputs["image"][first])
    np.testing.assert_array_equal(sheet[:32, 36:68], colored(data.targets[first]))
    assert "pixels" in (tmp_path / "scan/classes.svg").read_text(encoding="utf-8")


def test_a_run_finds_its_masks_again_and_tells_one_that_changed(write, spec):
    folder = write(pairs(20))
    stored = Dataset(spec()).record()
    Dataset(spec()).use_stored_splits(stored)
    Image.fromarray(np.zeros((3, 4), np.uint8)).save(folder / "masks/a/2.png")
    with pytest.raises(DataError, match=r"1 targets of \w+ changed"):
        Dataset(spec()).use_stored_splits(stored)


# Augmentation

MOVING = {
    "RandomCrop": {"height": 12, "width": 12},
    "RandomFlip": {},
    "RandomPerspective": {"factor": 1.0},
    "RandomRotation": {"factor": 0.3},
    "RandomShear": {"x_factor": 0.3, "y_factor": 0.3},
    "RandomTranslation": {"height_factor": 0.3, "width_factor": 0.3},
    "RandomZoom": {"height_factor": 0.4},
}
HAS_NO_INTERPOLATION = ("RandomCrop", "RandomFlip")


@pytest.fixture(scope="module")
def drawn():
    """12 masks of three classes, and images that show each class as its number times 50 in every channel."""
    random = np.random.default_rng(5)
    masks = np.zeros((12, 12, 12), np.uint8)
    for mask in masks:
        for number in (1, 2, 3):
            row, column = random.integers(0, 8, 2)
            mask[row : row + 5, column : column + 4] = number
    return Samples({"image": np.repeat(masks[..., None] * 50, 3, axis=3)}, masks, np.arange(12) + 30)


def augmented(samples, *layers, epoch=0, batch_size=5, seed=1):
    augment = build_masked_augmentation(layers, 7, sample_shape=(12, 12, 3))
    batches = [*Pipeline(samples, batch_size, seed=seed, augment=augment).epoch(epoch)]
    images = np.concatenate([np.asarray(inputs["image"]) for inputs, _, _ in batches])
    return images, np.concatenate([np.asarray(targets) for _, targets, _ in batches])


def test_the_list_of_layers_is_that_of_the_spec():
    assert sorted(MOVING) == sorted(MOVES_MASKS)


@pytest.mark.parametrize("name", MOVING)
def test_a_mask_is_moved_as_its_image_pixel_by_pixel(name, drawn):
    import keras

    nearest = {} if name in HAS_NO_INTERPOLATION else {"interpolation": "nearest"}
    layer = getattr(keras.layers, name)(**MOVING[name], **nearest)
    images, masks = augmented(drawn, layer)
    assert masks.dtype == np.uint8
    np.testing.assert_array_equal(images[..., 0], masks * 50.0)
    if name != "RandomCrop":  # of all pixels there is one crop
        order = augmented(drawn)[1]
        assert (masks != order).any(axis=(1, 2)).sum() > 2


def test_a_mask_stays_whole_numbers_where_its_image_is_blended(drawn):
    import keras

    images, masks = augmented(drawn, keras.layers.RandomRotation(0.2))
    assert set(np.unique(masks)) <= {0, 1, 2, 3}
    assert not set(np.unique(images)) <= {0.0, 50.0, 100.0, 150.0}
    # Pixels whose neighbors all are of one class are blended of that class alone.
    inside = np.ones((12, 10, 10), bool)
    for row in range(3):
        for column in range(3):
            inside &= masks[:, row : row + 10, column : column + 10] == masks[:, 1:-1, 1:-1]
    assert inside.sum() > 200
    different = np.abs(images[:, 1:-1, 1:-1, 0] - masks[:, 1:-1, 1:-1] * 50.0) > 1
    assert (different & inside).sum() < 0.02 * inside.sum()


def test_colors_change_and_masks_stay(drawn):
    import keras

    images, masks = augmented(drawn, keras.layers.RandomInvert(1.0, value_range=(0, 255)))
    _, same = augmented(drawn)
    np.testing.assert_array_equal(masks, same)
    assert not np.array_equal(images[..., 0], masks * 50.0)


def test_a_sample_is_moved_alike_whatever_the_order_and_anew_in_every_epoch(drawn):
    import keras

    def masks(**options):
        layers = [keras.layers.RandomFlip(), keras.layers.RandomTranslation(0.3, 0.3, interpolation="nearest")]
        return augmented(drawn, *layers, **options)[1]

    plain, shuffled = masks(batch_size=4, seed=None), masks(seed=99)
    assert sorted(mask.tobytes() for mask in plain) == sorted(mask.tobytes() for mask in shuffled)
    assert (masks(epoch=1, seed=None) != plain).any()


# The data set that the package draws


def test_shapes_are_the_same_bits_everywhere():
    source = load_shapes()
    assert source.inputs["image"].shape == (600, 32, 32, 3)
    assert source.targets.shape == (600, 32, 32)
    digest = hashlib.sha256(source.inputs["image"].tobytes() + source.targets.tobytes()).hexdigest()
    assert digest == "9e7691f6997788e4c72be0675ebe2d8f668cba60af5eddf3a091545abaa2f1d9"


def test_every_class_of_shapes_has_its_share_of_pixels():
    source = load_shapes()
    shares = np.bincount(source.targets.reshape(-1)) / source.targets.size
    assert source.classes == CLASSES
    assert len(shares) == 4
    assert shares[0] < 0.85
    assert (shares[1:] > 0.03).all()


def test_a_shape_has_another_color_than_the_ground_around_it():
    source = load_shapes()
    images, masks = source.inputs["image"].astype(int), source.targets
    for image, mask in zip(images[:50], masks[:50], strict=True):
        ground = image[mask == 0].mean(axis=0)
        for number in np.unique(mask[mask > 0]):
            assert np.abs(image[mask == number].mean(axis=0) - ground).max() > 25


def test_shapes_look_like_their_names():
    """Of whole shapes: a square fills its box, a circle has pi times the radius squared, a triangle half of its box."""
    filled = {1: [], 2: [], 3: []}
    for mask in load_shapes().targets:
        numbers = np.unique(mask[mask > 0])
        if len(numbers) != 1:
            continue
        rows, columns = np.nonzero(mask)
        height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
        area = {1: np.pi * ((height - 1) / 2) ** 2, 2: height * width, 3: height * width / 2}[int(numbers[0])]
        filled[int(numbers[0])].append(len(rows) / area)
    assert all(len(shares) > 20 for shares in filled.values())
    assert np.median(filled[2]) == 1
    assert np.median(filled[1]) == pytest.approx(1, abs=0.05)
    assert np.median(filled[3]) == pytest.approx(1, abs=0.05)

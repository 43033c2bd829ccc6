"""Images of a folder in samples/s: mltool's source and pipeline against `keras.utils.image_dataset_from_directory`.

    python benchmarks/image_folder.py                       8,000 PNGs of 32x32 that it makes
    python benchmarks/image_folder.py cifar10.zip           a .zip of a folder of images of one size, unpacked first

Both take turns in one process, after an epoch of each that does not count. The first epoch holds listing, reading,
decoding and what both trace; mltool's also checks that every file is whole before it gives the first batch, as `train`
does, while hashes and splits come afterwards and are left out. Figures are medians over the repetitions; ratios are of
pairs, above 1 mltool is faster.
"""

import argparse
import statistics
import tempfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mltool import extras
from mltool.data.cache import keep_decoded
from mltool.data.dataset import Samples
from mltool.data.pipeline import Pipeline
from mltool.data.sources.images import load_images

BATCH_SIZE = 64
EPOCHS = 4


def write_images(folder: Path, count: int) -> None:
    """PNGs of ten classes, of smooth colors with noise, as large as small photographs."""
    image = extras.require("PIL.Image")
    random = np.random.default_rng(0)
    for number in range(count):
        target = folder / f"class_{number % 10}"
        target.mkdir(parents=True, exist_ok=True)
        base = np.linspace(0, 200, 32)[:, None, None] + random.integers(0, 55, (32, 32, 3))
        image.fromarray(base.astype(np.uint8)).save(target / f"{number:05}.png")


def epochs_of_mltool(folder: Path) -> Iterator[float]:
    """Seconds of every epoch."""
    started = time.perf_counter()
    source = keep_decoded(load_images({"": folder}), "auto", max_skipped=0)
    labels = np.unique(source.targets, return_inverse=True)[1]
    samples = Samples(source.inputs, labels, np.arange(source.num_samples))
    pipeline = Pipeline(samples, BATCH_SIZE, seed=1)
    for epoch in range(EPOCHS):
        for _ in pipeline.epoch(epoch):
            pass
        yield time.perf_counter() - started
        started = time.perf_counter()


def epochs_of_keras(folder: Path, size: tuple[int, int]) -> Iterator[float]:
    """Seconds of every epoch, as its documentation has it: shuffled, with prefetch."""
    started = time.perf_counter()
    dataset = extras.keras().utils.image_dataset_from_directory(
        folder, image_size=size, batch_size=BATCH_SIZE, seed=1, verbose=False
    )
    dataset = dataset.prefetch(extras.tensorflow().data.AUTOTUNE)
    for _ in range(EPOCHS):
        for _batch in dataset:
            pass
        yield time.perf_counter() - started
        started = time.perf_counter()


def image_folder_of(unpacked: Path) -> Path:
    """The folder whose folders hold images: the largest of train, test ... where there are such."""
    counts = {
        path: sum(1 for _ in path.glob("*/*.*")) for path in [unpacked, *unpacked.glob("*"), *unpacked.glob("*/*")]
    }
    return max(counts, key=lambda path: counts[path])


def main() -> None:
    """Runs the benchmark and prints its figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("zip", nargs="?", type=Path)
    parser.add_argument("--repetitions", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        unpacked = Path(temporary)
        if arguments.zip:
            with zipfile.ZipFile(arguments.zip) as archive:
                archive.extractall(unpacked)
        else:
            write_images(unpacked, 8000)
        folder = image_folder_of(unpacked)
        measure(folder, arguments.repetitions)


def measure(folder: Path, repetitions: int) -> None:
    """Takes turns, and prints medians."""
    image = extras.require("PIL.Image")
    files = list(folder.glob("*/*.*"))
    with image.open(files[0]) as first:
        size: tuple[int, int] = first.size[::-1]
    extras.tensorflow()  # as `train` does before it opens a folder
    for _ in epochs_of_mltool(folder):
        pass  # both have traced their functions once, and the files are in the system's cache
    for _ in epochs_of_keras(folder, size):
        pass
    pairs: list[tuple[list[float], list[float]]] = []
    for _ in range(repetitions):
        pairs.append((list(epochs_of_mltool(folder)), list(epochs_of_keras(folder, size))))
    for what, seconds in (("first epoch", lambda e: e[0]), ("later epochs", lambda e: statistics.median(e[1:]))):
        print_figures(what, len(files), pairs, seconds)


def print_figures(what: str, count: int, pairs: list[tuple[list[float], list[float]]], seconds: Any) -> None:
    """One line: samples/s of both, and the ratio."""
    ours, theirs = ([count / seconds(pair[side]) for pair in pairs] for side in (0, 1))
    ratio = statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
    print(
        f"{what}: mltool {statistics.median(ours):,.0f} samples/s, keras {statistics.median(theirs):,.0f}, "
        f"ratio {ratio:.2f} (median of {len(pairs)} pairs)"
    )


if __name__ == "__main__":
    main()

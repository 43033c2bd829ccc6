"""The contestants of `training_loop.py` that run in TensorFlow; each in a process of its own.

All train the model that the spec describes, on the training samples of the spec, in batches of one size.
"""

import functools
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from turns import own_stdout, take_turns

from mltool import extras
from mltool.spec.load import load_spec
from mltool.spec.outputs import ONLY
from mltool.spec.spec import Spec

Epoch = Callable[[], float]
"""Runs one; gives its mean loss."""


def main() -> None:
    """Arguments: the contestant, the spec, the folder with its training samples as x.npy and y.npy, threads."""
    answers = own_stdout()
    name, spec, folder, threads = sys.argv[1:]
    tf = extras.tensorflow()
    tf.config.threading.set_intra_op_parallelism_threads(int(threads))
    tf.config.threading.set_inter_op_parallelism_threads(int(threads))
    epoch = CONTESTANTS[name](load_spec(spec, [f"train.threads={threads}"]), Path(folder))
    versions = {name: extras.version_of(name) or "" for name in ("tensorflow", "keras")}
    take_turns(versions, epoch, answers)


def mltool(spec: Spec, folder: Path) -> Epoch:
    """Mltool's own loop, chunks and pipeline, made and run as `mltool train` does."""
    from mltool.runs.run import Run
    from mltool.training.loops.chunks import Chunks
    from mltool.training.setup import build_setup
    from mltool.training.watching import Waits, Watch

    tf = extras.tensorflow()
    setup = build_setup(Run.create(spec, folder / "run"))
    loop, pipeline, chunks, watch = setup.loop, setup.pipeline, Chunks(), Watch(setup.pipeline)
    number = 0

    def epoch() -> float:
        nonlocal number
        loop.reset_metrics()
        watch.begin_epoch()
        batches, step = pipeline.epoch(number), 0
        while step < pipeline.steps:
            count = chunks.next_length(pipeline.steps - step)
            started = time.perf_counter()
            with pipeline.reading():
                answer, times = loop.train_steps(batches, tf.constant(count, tf.int64))
                done = int(answer)
            seconds = time.perf_counter() - started
            watch.took(step, done, seconds, Waits.of(times))
            chunks.took(count, seconds)
            step += done
        number += 1
        return loop.results()["loss"]

    return epoch


def chunked(spec: Spec, folder: Path, *, gathers: bool = True) -> Epoch:
    """What an expert writes by hand: all steps of an epoch in one `@tf.function`, metrics too."""
    tf = extras.tensorflow()
    step, metrics = _step(spec, folder)
    data, steps = _batches(spec, folder, gathers=gathers)

    @tf.function(reduce_retracing=True)  # type: ignore[untyped-decorator]
    def run(iterator: Any, count: Any) -> None:
        for _ in tf.range(count):
            step(*next(iterator))

    def epoch() -> float:
        for metric in metrics:
            metric.reset_state()
        run(iter(data), tf.constant(steps))
        return next(float(metric.result()) for metric in metrics)

    return epoch


def step_by_step(spec: Spec, folder: Path) -> Epoch:
    """What most write by hand: one `@tf.function` step, called from Python."""
    step, metrics = _step(spec, folder)
    data, _ = _batches(spec, folder)
    compiled = extras.tensorflow().function(step, reduce_retracing=True)

    def epoch() -> float:
        for metric in metrics:
            metric.reset_state()
        for batch, targets in data:
            compiled(batch, targets)
        return next(float(metric.result()) for metric in metrics)

    return epoch


def fit(spec: Spec, folder: Path) -> Epoch:
    """Keras' `fit`."""
    model, optimizer, loss = _keras_objects(spec, folder)
    data, _ = _batches(spec, folder)
    model.compile(optimizer, loss, metrics=["accuracy"])
    return lambda: float(model.fit(data, verbose=0).history["loss"][0])


def _step(spec: Spec, folder: Path) -> tuple[Callable[[Any, Any], None], list[Any]]:
    """One step, to be compiled; and its metrics, the mean loss first."""
    tf, keras = extras.tensorflow(), extras.keras()
    model, optimizer, loss_of = _keras_objects(spec, folder)
    optimizer.build(model.trainable_variables)
    mean_loss, accuracy = keras.metrics.Mean(), keras.metrics.SparseCategoricalAccuracy()

    def step(batch: Any, targets: Any) -> None:
        with tf.GradientTape() as tape:
            outputs = model(batch, training=True)
            loss = loss_of(targets, outputs)
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply(gradients, model.trainable_variables)
        mean_loss.update_state(loss, sample_weight=tf.shape(targets)[0])
        accuracy.update_state(targets, outputs)

    return step, [mean_loss, accuracy]


def _keras_objects(spec: Spec, folder: Path) -> tuple[Any, Any, Any]:
    """Model, optimizer and loss of a spec with one input of numbers."""
    import numpy as np

    from mltool.models.build import build_model
    from mltool.models.keras_objects import build_keras
    from mltool.models.preprocess import ModelInput

    extras.keras().utils.set_random_seed(spec.seed)
    samples = np.load(folder / "x.npy", mmap_mode="r")
    info = ModelInput(samples.shape[1:], "float32", "", lambda: iter([np.asarray(samples)]))
    model = build_model(spec.model, {"x": info}, name=spec.name)
    return model, build_keras(spec.train.optimizer, "optimizers"), build_keras(spec.train.heads[ONLY].loss, "losses")


def _batches(spec: Spec, folder: Path, *, gathers: bool = True) -> tuple[Any, int]:
    """Shuffled batches of an epoch, and how many.

    Args:
        spec: with the size of a batch.
        folder: with the samples.
        gathers: whether positions are shuffled, and one gather fetches a batch; else the samples are shuffled.
    """
    import numpy as np

    tf = extras.tensorflow()
    # Both are copied once, into TensorFlow's memory.
    samples, targets = tf.constant(np.load(folder / "x.npy")), tf.constant(np.load(folder / "y.npy"))
    size = len(targets)
    if gathers:
        rows = tf.data.Dataset.range(size).shuffle(size, seed=spec.seed).batch(spec.data.batch_size)
        data = rows.map(lambda rows: (tf.gather(samples, rows), tf.gather(targets, rows)), tf.data.AUTOTUNE)
    else:
        data = tf.data.Dataset.from_tensor_slices((samples, targets))
        data = data.shuffle(size, seed=spec.seed).batch(spec.data.batch_size)
    return data.prefetch(tf.data.AUTOTUNE), -(-size // spec.data.batch_size)


CONTESTANTS: dict[str, Callable[[Spec, Path], Epoch]] = {
    "mltool": mltool,
    "chunked": chunked,
    "chunked, samples shuffled": functools.partial(chunked, gathers=False),
    "step": step_by_step,
    "fit": fit,
}


if __name__ == "__main__":
    main()

"""Training throughput: mltool's loop against a hand-written `@tf.function` loop of the same model and data.

    python benchmarks/training_loop.py configs/digits.yaml
    python benchmarks/training_loop.py configs/mnist.yaml --set data.source.path=mnist.npz

Epochs of the two alternate in one process (A B A B ...), so that a machine whose speed drifts favours neither; the
figure is the median of the ratios, pair by pair. Above 1 mltool is faster.
"""

import argparse
import functools
import statistics
import time
from typing import Any

from mltool import extras
from mltool.data.dataset import Dataset, Samples
from mltool.data.pipeline import Pipeline
from mltool.models.build import build_model, call_model
from mltool.models.keras_objects import build_keras
from mltool.models.preprocess import ModelInput
from mltool.spec.load import load_spec
from mltool.spec.outputs import ONLY
from mltool.spec.spec import Spec
from mltool.training.chunks import Chunks
from mltool.training.head import Head
from mltool.training.loop import Loop
from mltool.training.strategy import build_strategy


class MltoolEpochs:
    """Epochs of mltool's own loop, chunks and pipeline, as `mltool train` runs them."""

    def __init__(self, spec: Spec, model: Any, train: Samples) -> None:
        optimizer = build_keras(spec.train.optimizer, "optimizers")
        head = spec.train.heads[ONLY]

        def heads() -> list[Head]:
            return [Head(ONLY, head, task="classification", shape=tuple(model.output_shape[1:]))]

        self.loop = Loop(model, optimizer, heads=heads, strategy=build_strategy(spec.train.strategy))
        self.pipeline = Pipeline(train, spec.data.batch_size, seed=spec.seed)
        self.chunks, self.epoch = Chunks(), 0

    def run(self) -> dict[str, float]:
        """One epoch; its metrics."""
        tf = extras.tensorflow()
        self.loop.reset_metrics()
        iterator, step = self.pipeline.epoch(self.epoch), 0
        while step < self.pipeline.steps:
            count = self.chunks.next_length(self.pipeline.steps - step)
            started = time.perf_counter()
            self.loop.train_steps(iterator, tf.constant(count, tf.int64))
            results = self.loop.results()
            self.chunks.took(count, time.perf_counter() - started)
            step += count
        self.epoch += 1
        return results


class HandWrittenEpochs:
    """What an engineer writes by hand: tf.data with shuffle, batch and prefetch, and one `@tf.function` step."""

    def __init__(self, spec: Spec, model: Any, train: Samples) -> None:
        tf, keras = extras.tensorflow(), extras.keras()
        optimizer = build_keras(spec.train.optimizer, "optimizers")
        optimizer.build(model.trainable_variables)
        loss_function = build_keras(spec.train.heads[ONLY].loss, "losses")
        self.loss, self.accuracy = keras.metrics.Mean(), keras.metrics.SparseCategoricalAccuracy()
        inputs = train.first(len(train))
        self.data = (
            tf.data.Dataset.from_tensor_slices((inputs, train.targets[:]))
            .shuffle(len(train), seed=spec.seed)
            .batch(spec.data.batch_size)
            .prefetch(tf.data.AUTOTUNE)
        )

        def step(batch: Any, targets: Any) -> None:
            with tf.GradientTape() as tape:
                outputs = call_model(model, batch, training=True)
                loss = loss_function(targets, outputs)
            gradients = tape.gradient(loss, model.trainable_variables)
            optimizer.apply(gradients, model.trainable_variables)
            self.loss.update_state(loss)
            self.accuracy.update_state(targets, outputs)

        self.step = tf.function(step, reduce_retracing=True)

    def run(self) -> dict[str, float]:
        """One epoch; its metrics."""
        self.loss.reset_state()
        self.accuracy.reset_state()
        for batch, targets in self.data:
            self.step(batch, targets)
        return {"loss": float(self.loss.result()), "accuracy": float(self.accuracy.result())}


def main() -> None:
    """Measures, and prints rates and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("spec")
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--pairs", type=int, default=7, help="epochs of each that count")
    arguments = parser.parse_args()
    spec = load_spec(arguments.spec, arguments.overrides)
    data = Dataset(spec)
    train = data.split("train")

    def model() -> Any:
        extras.keras().utils.set_random_seed(spec.seed)
        inputs = {
            name: ModelInput(shape, "float32", data.source.kinds.get(name, ""), functools.partial(train.batches, name))
            for name, shape in data.input_shapes.items()
        }
        return build_model(spec.model, inputs, name=spec.name)

    ours, theirs = MltoolEpochs(spec, model(), train), HandWrittenEpochs(spec, model(), train)
    for _ in range(2):  # traces, and finds the length of a chunk
        ours.run()
        theirs.run()
    rates: tuple[list[float], list[float]] = ([], [])
    for _ in range(arguments.pairs):
        for side, found in zip((ours.run, theirs.run), rates, strict=True):
            started = time.perf_counter()
            side()
            found.append(len(train) / (time.perf_counter() - started))
    ratios = [a / b for a, b in zip(*rates, strict=True)]
    print(f"{spec.name}: {len(train)} samples an epoch, batch {spec.data.batch_size}, {arguments.pairs} pairs")
    print(f"mltool        {statistics.median(rates[0]):10,.0f} samples/s (median)")
    print(f"hand-written  {statistics.median(rates[1]):10,.0f} samples/s (median)")
    print(f"ratio         {statistics.median(ratios):10.3f} (median; {min(ratios):.3f} to {max(ratios):.3f})")


if __name__ == "__main__":
    main()

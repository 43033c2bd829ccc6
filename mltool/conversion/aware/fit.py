"""Trains one stage: the run's losses, metrics, batches and order on a model of tf_keras.

Losses and metrics are Keras 3's, as in training: on the tensors of tf_keras they compute the same.
"""

import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mltool import extras
from mltool.conversion.aware.rebuild import Rebuilt
from mltool.conversion.aware.stages import Kept, Stage
from mltool.data.pipeline import Pipeline
from mltool.errors import TrainingError
from mltool.models.metrics import result_of
from mltool.training.loops.head import Head, sample_losses_of, total_of

logger = logging.getLogger("mltool")

MONITOR = "val_loss"
"""The weights of the epoch where it is least are kept."""


@dataclass(frozen=True)
class Lessons:
    """What all stages learn from.

    Attributes:
        heads: losses and metrics of every output.
        pipeline: training batches; the order of an epoch follows from the seed and its number alone.
        validation: validation batches.
        learning_rate: of Adam, constant over a stage.
    """

    heads: Sequence[Head]
    pipeline: Pipeline
    validation: Pipeline
    learning_rate: float


class Fit:
    """The training of one stage.

    Args:
        stage: whose model is trained; it has the best weights afterwards.
        rebuilt: how the model is called.
        lessons: what it learns from.
        kept: zeros and clusters of stages before.
    """

    def __init__(self, stage: Stage, rebuilt: Rebuilt, lessons: Lessons, kept: Kept | None) -> None:
        tf, keras = extras.tensorflow(), extras.keras()
        self._stage, self._rebuilt, self._lessons, self._kept = stage, rebuilt, lessons, kept
        self._optimizer = extras.require("tf_keras").optimizers.Adam(lessons.learning_rate)
        self._optimizer.build(stage.model.trainable_variables)
        self._mean_loss = keras.metrics.Mean(name="loss")
        for head in lessons.heads:
            head.try_out()
        self._train = tf.function(self._train_step, reduce_retracing=True)
        self._evaluate = tf.function(self._evaluate_step, reduce_retracing=True)

    def run(self, *, epochs: int, first_epoch: int) -> list[dict[str, Any]]:
        """Runs the epochs, and puts the weights of the best one back.

        Args:
            epochs: of the stage.
            first_epoch: number of its first among those of all stages, from which order and augmentation follow.

        Returns:
            For every epoch `stage`, `epoch`, `loss`, metrics, the same of validation as `val_`, `seconds`, `kept`.

        Raises:
            TrainingError: if the loss is no longer a number.
        """
        history: list[dict[str, Any]] = []
        best, weights, best_line = math.inf, None, None
        for callback in self._stage.callbacks:
            callback.on_train_begin()
        for epoch in range(first_epoch, first_epoch + epochs):
            started = time.perf_counter()
            results = self._epoch(epoch)
            for callback in self._stage.callbacks:
                callback.on_epoch_end(epoch)
            results |= {f"val_{name}": value for name, value in self._validate().items()}
            line = {"stage": self._stage.name, "epoch": epoch + 1, **results, "kept": False}
            line["seconds"] = round(time.perf_counter() - started, 3)
            history.append(line)
            self._require_finite(results, epoch)
            shown = "  ".join(f"{name} {value:.4g}" for name, value in results.items())
            logger.info("%s: epoch %d/%d  %s", self._stage.name, epoch - first_epoch + 1, epochs, shown)
            if epoch - first_epoch >= self._stage.first_kept and results[MONITOR] < best:
                best, weights, best_line = results[MONITOR], self._values(), line
        if best_line is not None and weights is not None:
            best_line["kept"] = True
            for variable, value in zip(self._stage.model.variables, weights, strict=True):
                variable.assign(value)
        return history

    def _values(self) -> list[np.ndarray[Any, Any]]:
        return [variable.numpy() for variable in self._stage.model.variables]

    def _epoch(self, epoch: int) -> dict[str, float]:
        self._reset()
        with self._lessons.pipeline.reading():
            for batch in self._lessons.pipeline.epoch(epoch):
                self._train(batch)
        return self._results()

    def _validate(self) -> dict[str, float]:
        self._reset()
        with self._lessons.validation.reading():
            for batch in self._lessons.validation.epoch(0):
                self._evaluate(batch)
        return self._results()

    def _train_step(self, batch: Any) -> None:
        tf = extras.tensorflow()
        inputs, targets, weights, *rest = batch
        variables = self._stage.model.trainable_variables
        with tf.GradientTape() as tape:
            outputs = self._call(inputs, training=True)
            losses = sample_losses_of(self._lessons.heads, targets, outputs, weights)
            seen = losses
            if rest and "targets" in rest[0]:  # mixed samples: the loss of both that they were mixed of
                partners = sample_losses_of(self._lessons.heads, rest[0]["targets"], outputs, rest[0]["weights"])
                seen = losses = [one + other for one, other in zip(losses, partners, strict=True)]
            loss = tf.reduce_mean(total_of(self._lessons.heads, losses))
            loss += sum(self._stage.model.losses)
        gradients = tape.gradient(loss, variables)
        if self._kept is not None:
            gradients = self._kept.gradients(gradients, variables)
        pairs = [(gradient, v) for gradient, v in zip(gradients, variables, strict=True) if gradient is not None]
        self._optimizer.apply_gradients(pairs)
        if self._kept is not None:
            self._kept.put_back()
        self._count(targets, outputs, seen)

    def _evaluate_step(self, batch: Any) -> None:
        inputs, targets, weights, *_ = batch
        outputs = self._call(inputs, training=False)
        self._count(targets, outputs, sample_losses_of(self._lessons.heads, targets, outputs, weights))

    def _call(self, inputs: Mapping[str, Any], *, training: bool) -> Any:
        """The outputs, as heads take them: by key, or the only one."""
        answers = self._rebuilt.call(inputs, training=training, model=self._stage.model)
        heads = self._lessons.heads
        if len(heads) == 1 and not heads[0].key:
            return next(iter(answers.values()))
        return answers

    def _count(self, targets: Any, outputs: Any, losses: Sequence[Any]) -> None:
        heads = self._lessons.heads
        self._mean_loss.update_state(total_of(heads, losses))
        for head, one in zip(heads, losses, strict=True):
            head.update(head.of(targets), head.of(outputs), one)

    def _metrics(self) -> list[Any]:
        return [self._mean_loss, *(metric for head in self._lessons.heads for metric in head.metrics)]

    def _reset(self) -> None:
        for metric in self._metrics():
            metric.reset_state()

    def _results(self) -> dict[str, float]:
        return {metric.name: result_of(metric) for metric in self._metrics()}

    def _require_finite(self, results: Mapping[str, float], epoch: int) -> None:
        if not math.isfinite(results["loss"]) or not math.isfinite(results[MONITOR]):
            message = f"the loss is {results['loss']} after epoch {epoch + 1} of the training for the conversion"
            hint = f"take a smaller learning_rate (got {self._lessons.learning_rate:g})"
            raise TrainingError(f"{message} (stage {self._stage.name}; validation: {results[MONITOR]})", hint)

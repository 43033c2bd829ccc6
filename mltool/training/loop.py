"""The training loop: many steps inside one tf.function, under any strategy, metrics in the graph.

Why not Keras' `fit`: a `tf.range` loop of 32 to 200 steps in one tf.function was measured 4 to 5 times faster on small
models, and `fit` under tf.distribute fails on an uneven last batch. See the README.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from mltool import extras
from mltool.errors import Message, SpecError
from mltool.models.build import TargetScale, call_model
from mltool.models.keras_objects import REFUSALS, reason_of
from mltool.models.losses import OwnLoss, build_loss
from mltool.models.metrics import build_metric, greater_is_better, targets_for, update_metric, wants_logits
from mltool.spec.catalogue import KerasObject
from mltool.spec.own_things import OwnThing
from mltool.spec.task import output_kind, takes_one_hot, task_of


class Loop:
    """One model, its optimizer, loss and metrics, and the compiled functions that run chunks of steps.

    Args:
        model: a keras.Model, built in the strategy's scope.
        optimizer: a Keras optimizer, built in the strategy's scope.
        loss: from the spec; summed over samples and divided by the true global batch size, so that the number of
            replicas and a smaller last batch change nothing.
        metrics: from the spec.
        strategy: of tf.distribute.
        target_scale: of a regression whose loss sees targets of mean 0 and deviation 1; metrics see original units.
    """

    def __init__(
        self,
        model: Any,
        optimizer: Any,
        *,
        loss: KerasObject,
        metrics: Sequence[KerasObject],
        strategy: Any,
        target_scale: TargetScale | None = None,
    ) -> None:
        tf, keras = extras.tensorflow(), extras.keras()
        self.model, self.optimizer, self.strategy = model, optimizer, strategy
        self._loss_spec, self._metric_specs = loss, tuple(metrics)
        self._target_scale = target_scale
        with strategy.scope():
            self._loss = build_loss(loss)
            self.mean_loss = keras.metrics.Mean(name="loss")
            self.metrics = [build_metric(m, task_of(loss), at=_metric_key(i, m)) for i, m in enumerate(metrics)]
            optimizer.build(model.trainable_variables)
            self._try_out()
        self.train_steps = tf.function(self._train_steps, reduce_retracing=True)
        self.evaluate_steps = tf.function(self._evaluate_steps, reduce_retracing=True)

    def variables(self) -> list[Any]:
        """Everything that a checkpoint must hold: weights, seeds, optimizer, metrics of the running epoch."""
        metrics = [variable for metric in (self.mean_loss, *self.metrics) for variable in metric.variables]
        return [*self.model.variables, *self.optimizer.variables, *metrics]

    def reset_metrics(self) -> None:
        """Starts the metrics of an epoch or an evaluation."""
        for metric in (self.mean_loss, *self.metrics):
            metric.reset_state()

    def results(self) -> dict[str, float]:
        """The metrics since the last reset, `loss` first."""
        return {metric.name: float(metric.result()) for metric in (self.mean_loss, *self.metrics)}

    def running_loss(self) -> float:
        """The mean loss since the last reset; cheaper than all `results`."""
        return float(self.mean_loss.result())

    def greater_is_better(self) -> dict[str, bool | None]:
        """For every name in `results`, whether more of it is better; None where that is not known."""
        return {"loss": False} | {
            metric.name: greater_is_better(metric, spec)
            for metric, spec in zip(self.metrics, self._metric_specs, strict=True)
        }

    def _train_steps(self, iterator: Iterator[Any], steps: Any) -> None:
        tf = extras.tensorflow()
        for _ in tf.range(steps):
            self.strategy.run(self._train_step, args=next(iterator))

    def _evaluate_steps(self, iterator: Iterator[Any], steps: Any) -> None:
        tf = extras.tensorflow()
        for _ in tf.range(steps):
            self.strategy.run(self._evaluate_step, args=next(iterator))

    def _train_step(self, inputs: Mapping[str, Any], targets: Any, weights: Any, mixed: Any = None) -> None:
        """One step; `mixed` are the partners of a mixed batch of classes (`data/mixing.py`).

        For a cross-entropy, which is linear in its targets, the shares of two losses are the loss of the mixed targets.
        """
        tf = extras.tensorflow()
        variables = self.model.trainable_variables
        with tf.GradientTape() as tape:
            outputs = call_model(self.model, inputs, training=True)
            losses = self._sample_losses(targets, outputs) * weights
            if mixed is not None:
                losses += self._sample_losses(mixed["targets"], outputs) * mixed["weights"]
            # Regularization is a property of the weights, not of the samples: a replica's share of it.
            penalty = tf.add_n(self.model.losses) if self.model.losses else tf.constant(0.0)
            count = self._global_count(tf.shape(losses)[0])
            loss = tf.reduce_sum(losses) / count + penalty / self.strategy.num_replicas_in_sync
            # Keras' optimizers scale the loss where a precision asks for it.
            scaled = self.optimizer.scale_loss(loss)
        gradients = tape.gradient(scaled, variables)
        self.optimizer.apply(gradients, variables)
        if mixed is not None:
            targets = tf.where(mixed["leads"], mixed["targets"], targets)
        self._update(targets, outputs, losses, penalty)

    def _evaluate_step(self, inputs: Mapping[str, Any], targets: Any, weights: Any) -> None:
        tf = extras.tensorflow()
        outputs = call_model(self.model, inputs, training=False)
        penalty = tf.add_n(self.model.losses) if self.model.losses else tf.constant(0.0)
        self._update(targets, outputs, self._sample_losses(targets, outputs) * weights, penalty)

    def _loss_targets(self, targets: Any) -> Any:
        """Targets as the loss takes them: one-hot, or a column for a binary output."""
        tf = extras.tensorflow()
        if takes_one_hot(self._loss_spec):
            return tf.one_hot(targets, self.model.output_shape[-1])
        return tf.cast(targets[:, tf.newaxis], tf.float32) if task_of(self._loss_spec) == "binary" else targets

    def _sample_losses(self, targets: Any, outputs: Any) -> Any:
        """One loss a sample, float32 [samples]; an output with more axes counts as the mean over them."""
        tf = extras.tensorflow()
        if self._target_scale is not None:
            mean, deviation = tf.constant(self._target_scale.mean), tf.constant(self._target_scale.deviation)
            targets, outputs = (targets - mean) / deviation, (outputs - mean) / deviation
        losses = tf.cast(self._loss(self._loss_targets(targets), outputs), tf.float32)
        return tf.reduce_mean(losses, axis=list(range(1, losses.shape.rank))) if losses.shape.rank > 1 else losses

    def _global_count(self, count: Any) -> Any:
        tf = extras.tensorflow()
        count = tf.cast(count, tf.float32)
        if self.strategy.num_replicas_in_sync > 1:
            count = tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, count)
        return tf.maximum(count, 1.0)

    def _update(self, targets: Any, outputs: Any, losses: Any, penalty: Any) -> None:
        self.mean_loss.update_state(losses + penalty)
        seen = self._probabilities(outputs)
        for metric, spec in zip(self.metrics, self._metric_specs, strict=True):
            self._update_metric(metric, spec, targets, outputs, seen)

    def _update_metric(self, metric: Any, spec: KerasObject, targets: Any, outputs: Any, probabilities: Any) -> None:
        ready = targets_for(spec, targets, self.model.output_shape[-1], task_of(self._loss_spec))
        seen = outputs if wants_logits(spec) else probabilities
        update_metric(metric, spec, ready, seen, at=_metric_key(self._metric_specs.index(spec), spec))

    def _probabilities(self, outputs: Any) -> Any:
        tf = extras.tensorflow()
        if output_kind(self._loss_spec) != "logits":
            return outputs
        return tf.nn.sigmoid(outputs) if task_of(self._loss_spec) == "binary" else tf.nn.softmax(outputs)

    def _try_out(self) -> None:
        """Runs loss and metrics once, because some make their variables on first use, which a traced function forbids.

        Raises:
            SpecError: if the loss or a metric does not take what the model gives, or a metric gives several values.
        """
        tf = extras.tensorflow()
        outputs = tf.zeros((3, *self.model.output_shape[1:]))
        targets = outputs if task_of(self._loss_spec) == "regression" else tf.zeros((3,), tf.int64)
        place, shape = f"train.loss.{self._loss_spec.name}", tuple(outputs.shape[1:])
        try:
            self._sample_losses(targets, outputs)
            for index, (metric, spec) in enumerate(zip(self.metrics, self._metric_specs, strict=True)):
                place = _metric_key(index, spec)
                self._update_metric(metric, spec, targets, outputs, self._probabilities(outputs))
                if np.ndim(metric.result()):
                    message = f"gives {len(metric.result())} values, one is expected"
                    raise SpecError(Message(message, "write average: macro", key=place))
        except (*REFUSALS, tf.errors.OpError) as error:
            message = f"does not take outputs of shape {shape} and their targets"
            raise SpecError(Message(message, reason_of(error), key=place)) from error
        if isinstance(self._loss, OwnLoss):
            self._loss.require_gradient(self._loss_targets(targets), outputs)
        if any(isinstance(thing, OwnThing) for thing in (self._loss_spec, *self._metric_specs)):
            # What runs may still be no graph (`.numpy()`): better now than in the first step.
            tf.function(self._update_all, autograph=False)(targets, outputs)
        self.reset_metrics()

    def _update_all(self, targets: Any, outputs: Any) -> None:
        self._update(targets, outputs, self._sample_losses(targets, outputs), 0.0)


def _metric_key(index: int, metric: KerasObject) -> str:
    return f"train.metrics.{index}.{metric.name}"

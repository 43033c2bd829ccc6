"""The training loop: many steps inside one tf.function, under any strategy, metrics in the graph.

Why not Keras' `fit`: a `tf.range` loop of 32 to 200 steps in one tf.function was measured 4 to 5 times faster on small
models, and `fit` under tf.distribute fails on an uneven last batch. See the README.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from mltool import extras
from mltool.models.build import call_model
from mltool.models.metrics import result_of
from mltool.training.head import Head


class Loop:
    """One model, its optimizer, losses and metrics, and the compiled functions that run chunks of steps.

    Args:
        model: a keras.Model, built in the strategy's scope.
        optimizer: a Keras optimizer, built in the strategy's scope.
        heads: makes the losses and metrics of every output, in the strategy's scope; losses are summed over samples and
            divided by the true global batch size, so that the number of replicas and a smaller last batch change
            nothing.
        strategy: of tf.distribute.
    """

    def __init__(self, model: Any, optimizer: Any, *, heads: Callable[[], Sequence[Head]], strategy: Any) -> None:
        keras = extras.keras()
        self.model, self.strategy = model, strategy
        with strategy.scope():
            self.mean_loss = keras.metrics.Mean(name="loss")
            self.heads = heads()
            self.metrics = [metric for head in self.heads for metric in head.metrics]
            for head in self.heads:
                head.try_out()
            self.reset_metrics()
        self.take(optimizer)

    def take(self, optimizer: Any) -> None:
        """Goes on with another optimizer, and with the weights that are trainable now.

        What is trainable is part of the compiled steps (BatchNormalization that is frozen keeps its statistics), so
        they are compiled anew.
        """
        tf = extras.tensorflow()
        self.optimizer = optimizer
        with self.strategy.scope():
            optimizer.build(self.model.trainable_variables)
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
        return {metric.name: result_of(metric) for metric in (self.mean_loss, *self.metrics)}

    def running_loss(self) -> float:
        """The mean loss since the last reset; cheaper than all `results`."""
        return float(self.mean_loss.result())

    def greater_is_better(self) -> dict[str, bool | None]:
        """For every name in `results`, whether more of it is better; None where that is not known."""
        found: dict[str, bool | None] = {"loss": False}
        for head in self.heads:
            found |= head.greater_is_better()
        return found

    def _train_steps(self, iterator: Iterator[Any], steps: Any) -> Any:
        """Gives how long all steps waited for their batches, and when the last batch came: float64 [2], in seconds."""
        tf = extras.tensorflow()
        waited, arrived = tf.constant(0.0, tf.float64), tf.constant(0.0, tf.float64)
        for _ in tf.range(steps):
            asked = tf.timestamp()
            with tf.control_dependencies([asked]):
                batch = next(iterator)
            with tf.control_dependencies(tf.nest.flatten(batch, expand_composites=True)):
                arrived = tf.timestamp()
            waited += arrived - asked
            self.strategy.run(self._train_step, args=batch)
        return tf.stack([waited, arrived])

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
            losses = self._sample_losses(targets, outputs, weights)
            if mixed is not None:
                of_partners = self._sample_losses(mixed["targets"], outputs, mixed["weights"])
                losses = [one + other for one, other in zip(losses, of_partners, strict=True)]
            total = self._total(losses)
            # Regularization is a property of the weights, not of the samples: a replica's share of it.
            penalty = tf.add_n(self.model.losses) if self.model.losses else tf.constant(0.0)
            count = self._global_count(tf.shape(total)[0])
            loss = tf.reduce_sum(total) / count + penalty / self.strategy.num_replicas_in_sync
            # Keras' optimizers scale the loss where a precision asks for it.
            scaled = self.optimizer.scale_loss(loss)
        gradients = tape.gradient(scaled, variables)
        self.optimizer.apply(gradients, variables)
        if mixed is not None:
            targets = tf.where(mixed["leads"], mixed["targets"], targets)
        self._update(targets, outputs, losses, total + penalty)

    def _evaluate_step(self, inputs: Mapping[str, Any], targets: Any, weights: Any) -> None:
        tf = extras.tensorflow()
        outputs = call_model(self.model, inputs, training=False)
        penalty = tf.add_n(self.model.losses) if self.model.losses else tf.constant(0.0)
        losses = self._sample_losses(targets, outputs, weights)
        self._update(targets, outputs, losses, self._total(losses) + penalty)

    def _sample_losses(self, targets: Any, outputs: Any, weights: Any) -> list[Any]:
        """The loss of every sample in every output, float32 [samples] each."""
        return [head.sample_losses(head.of(targets), head.of(outputs)) * weights for head in self.heads]

    def _total(self, losses: list[Any]) -> Any:
        """The weighted sum over the outputs, float32 [samples]."""
        if len(losses) == 1:
            return losses[0]
        weighted = [loss * head.weight for loss, head in zip(losses, self.heads, strict=True)]
        return extras.tensorflow().add_n(weighted)

    def _global_count(self, count: Any) -> Any:
        tf = extras.tensorflow()
        count = tf.cast(count, tf.float32)
        if self.strategy.num_replicas_in_sync > 1:
            count = tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, count)
        return tf.maximum(count, 1.0)

    def _update(self, targets: Any, outputs: Any, losses: list[Any], total: Any) -> None:
        self.mean_loss.update_state(total)
        for head, of_head in zip(self.heads, losses, strict=True):
            head.update(head.of(targets), head.of(outputs), of_head)

"""The training loop: many steps inside one tf.function, under any strategy, metrics in the graph.

Why not Keras' `fit`: many steps in one tf.function are several times as fast on small models (measured in
`benchmarks/results/`), and `fit` under tf.distribute fails on an uneven last batch.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from mltool import extras
from mltool.training.devices.replicas import parts_of
from mltool.training.loops.head import Head
from mltool.training.loops.measures import PLAIN, LoopOptions, Measures
from mltool.training.loops.own_step import OwnStep
from mltool.training.loops.step import TrainStep


class Loop(Measures):
    """One model, its optimizer, losses and metrics, and the compiled functions that run chunks of steps.

    Args:
        model: a keras.Model, built in the strategy's scope.
        optimizer: a Keras optimizer, built in the strategy's scope.
        heads: makes the losses and metrics of every output, in the strategy's scope; losses are summed over samples and
            divided by the true global batch size, so that the number of replicas and a smaller last batch change
            nothing.
        strategy: of tf.distribute.
        options: how steps are computed.

    Attributes:
        traces: how often a training step was made a graph of.
        step: what a replica computes, with the optimizer of now.
    """

    def __init__(
        self,
        model: Any,
        optimizer: Any,
        *,
        heads: Callable[[], Sequence[Head]],
        strategy: Any,
        options: LoopOptions = PLAIN,
    ) -> None:
        keras = extras.keras()
        self.model, self.strategy, self.options = model, strategy, options
        self.traces = 0
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
        options = self.options
        self.optimizer = optimizer
        if not optimizer.built:  # Keras' LossScaleOptimizer would make its variables once more
            with self.strategy.scope():
                optimizer.build(self.model.trainable_variables)
        self.step: TrainStep
        if options.own is not None:
            self.step = OwnStep(self.model, optimizer, heads=self.heads, strategy=self.strategy, step=options.own)
        else:
            self.step = TrainStep(
                self.model,
                optimizer,
                heads=self.heads,
                strategy=self.strategy,
                accumulate=options.accumulate,
                jit_compile=options.jit_compile,
            )
        self.train_steps, self.evaluate_steps = self._compiled()

    def _compiled(self) -> tuple[Any, Any]:
        """Functions of (iterator, steps) that train and evaluate, and give how many steps ran."""
        function = extras.tensorflow().function
        return (
            function(self._train_steps, reduce_retracing=True),
            function(self._evaluate_steps, reduce_retracing=True),
        )

    def trace(self, batches: Iterator[Any]) -> None:
        """Makes a graph of a training step, and runs nothing.

        Raises:
            SpecError: if a step of the user's fails.
        """
        tf = extras.tensorflow()
        self.train_steps.get_concrete_function(batches, tf.constant(1, tf.int64))

    def _of_metrics(self) -> list[Any]:
        return [part for variable in super()._of_metrics() for part in parts_of(variable, self.strategy)]

    def _train_steps(self, iterator: Iterator[Any], steps: Any) -> Any:
        """Runs steps; fewer if loss or gradients of one are not finite, which then has changed nothing.

        Returns:
            How many steps changed the weights, int64; and, float64 [2], how long all of them waited for their batches,
            in seconds, and when the last batch came, in seconds since 1970.
        """
        tf = extras.tensorflow()
        done, fine = tf.constant(0, tf.int64), tf.constant(True)
        waited, arrived = tf.constant(0.0, tf.float64), tf.constant(0.0, tf.float64)
        while tf.logical_and(fine, done < steps):
            asked = tf.timestamp()
            with tf.control_dependencies([asked]):
                batch = next(iterator)
            with tf.control_dependencies(tf.nest.flatten(batch, expand_composites=True)):
                arrived = tf.timestamp()
            waited += arrived - asked
            fine = self._train_batch(batch)
            done += tf.cast(fine, tf.int64)
        return done, tf.stack([waited, arrived])

    def _evaluate_steps(self, iterator: Iterator[Any], steps: Any) -> Any:
        """Runs steps; gives how many."""
        tf = extras.tensorflow()
        for _ in tf.range(steps):
            self._evaluate_batch(next(iterator))
        return steps

    def _train_batch(self, batch: tuple[Any, ...]) -> Any:
        """One step, on all replicas; gives whether it changed the weights; else it changed no statistics either."""
        self.traces += 1  # Python runs when a graph is made, and then no more
        tf = extras.tensorflow()
        before = self.strategy.run(self.step.states)
        gradients, fine, seen = self.strategy.run(self.step.compute, args=batch)
        fine = self.strategy.experimental_local_results(fine)[0]  # the same on all
        if not any(self.step.reached):
            return tf.constant(False)  # Keras' optimizers refuse to do nothing
        # Not in the replicas: a collective inside of a condition is refused.
        if fine:
            self.strategy.run(self.step.apply, args=(gradients,))
            self._count(batch, seen)
        else:
            self.strategy.run(self.step.take_back, args=(before,))
        return fine

    def _evaluate_batch(self, batch: tuple[Any, ...]) -> None:
        self._count(batch, self.strategy.run(self.step.evaluate, args=batch))

    def _count(self, batch: tuple[Any, ...], seen: Mapping[str, Any]) -> None:
        """Counts a batch, of which the replicas have seen their shares, in the metrics."""
        tf = extras.tensorflow()
        if not isinstance(self.strategy, tf.distribute.experimental.CentralStorageStrategy):
            self.strategy.run(self._update, args=(batch, seen))
            return
        # The metrics lie in one place: replicas that count at once would lose each other's counts.
        parts = [self.strategy.experimental_local_results(value) for value in tf.nest.flatten((batch, seen))]
        for own in zip(*parts, strict=True):
            self._update(*tf.nest.pack_sequence_as((batch, seen), own))

    def _update(self, batch: tuple[Any, ...], seen: Mapping[str, Any]) -> None:
        tf = extras.tensorflow()
        targets, more = batch[1], batch[3] if len(batch) > 3 else {}
        if "targets" in more:
            targets = tf.where(more["leads"], more["targets"], targets)
        self.mean_loss.update_state(seen["total"], sample_weight=more.get("real"))
        # A step of the user's gives no outputs where nothing is counted of them.
        for head, losses in zip(self.heads, seen["losses"], strict=True) if "outputs" in seen else ():
            head.update(head.of(targets), head.of(seen["outputs"]), losses, more.get("real"))

"""One step of training on one replica: the gradients of the true global batch, and what is done with them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mltool import extras
from mltool.models.build import call_model
from mltool.models.precision import in_float32
from mltool.training.loops.head import Head, sample_losses_of, total_of

Batch = tuple[Any, ...]
"""(inputs, targets, weights) and, where there is more, a map of it; see `data/pipeline.py`."""


class TrainStep:
    """Computes, then applies: two functions, because what is not finite must not reach a weight.

    Args:
        model: a keras.Model, built in the strategy's scope.
        optimizer: built for its trainable weights.
        heads: losses and metrics of every output.
        strategy: of tf.distribute.
        accumulate: parts in which a replica computes its share of a batch, one after the other.
        jit_compile: whether XLA compiles forward and backward pass.

    Attributes:
        reached: of every trainable weight, whether the loss has a gradient for it; empty before `compute` was traced.
    """

    def __init__(
        self,
        model: Any,
        optimizer: Any,
        *,
        heads: Sequence[Head],
        strategy: Any,
        accumulate: int = 1,
        jit_compile: bool = False,
    ) -> None:
        self.model, self.optimizer, self.heads, self.strategy = model, optimizer, heads, strategy
        self.reached: list[bool] = []
        self._accumulate = accumulate
        self._differentiate: Callable[..., Any] = self._differentiate_batch if accumulate == 1 else self._in_parts
        if jit_compile:
            self._differentiate = extras.tensorflow().function(self._differentiate, jit_compile=True)
        self._sums_replicas = strategy.num_replicas_in_sync > 1
        if self._sums_replicas:
            reduce_no_more(optimizer)

    def compute(self, inputs: Mapping[str, Any], targets: Any, weights: Any, more: Any = None) -> tuple[Any, Any, Any]:
        """Forward and backward pass.

        Args:
            inputs: by name.
            targets: of every output.
            weights: float32 [samples].
            more: `real` of padded batches, and the partners of mixed ones (`data/mixing.py`).

        Returns:
            The gradients, summed over all replicas; whether they and the loss are finite; what metrics need.
        """
        batch = (inputs, targets, weights, more or {})
        gradients, seen = self._differentiate(batch, self._global_count(batch))
        self.reached = [gradient is not None for gradient in gradients]
        loss = seen["share"]
        if self._sums_replicas:
            loss, *gradients = self._sum_over_replicas([loss, *gradients])
        return gradients, self._are_finite(loss, gradients), seen

    @property
    def unreached(self) -> list[Any]:
        """The trainable weights that the loss has no gradient for."""
        pairs = zip(self.reached, self.model.trainable_variables, strict=False)
        return [variable for is_reached, variable in pairs if not is_reached]

    def states(self) -> list[Any]:
        """What a forward pass changes by the batch: statistics, but no seeds."""
        tf = extras.tensorflow()
        return [tf.identity(variable.value) for variable in self._state_variables]

    def take_back(self, states: Sequence[Any]) -> None:
        """Puts `states` of before a forward pass back."""
        for variable, value in zip(self._state_variables, states, strict=True):
            variable.assign(value)

    @property
    def _state_variables(self) -> list[Any]:
        """Seeds go on: a batch that is left out has used its random numbers. Frozen layers keep what they have."""
        layers = (layer for layer in self.model._flatten_layers() if layer.trainable)
        variables = {id(variable): variable for layer in layers for variable in layer._non_trainable_variables}
        return list(variables.values())

    def apply(self, gradients: Sequence[Any]) -> None:
        """Changes the weights."""
        self.optimizer.apply(gradients, self.model.trainable_variables)

    def evaluate(self, inputs: Mapping[str, Any], targets: Any, weights: Any, more: Any = None) -> dict[str, Any]:
        """Forward pass as in use; what `compute` has seen, too."""
        del more  # what only fills a batch up has no weight
        outputs = in_float32(call_model(self.model, inputs, training=False))
        losses = sample_losses_of(self.heads, targets, outputs, weights)
        return {"outputs": outputs, "losses": losses, "total": total_of(self.heads, losses) + self._penalty()}

    def _differentiate_batch(self, batch: Batch, count: Any) -> tuple[list[Any], dict[str, Any]]:
        """Gradients of a batch or a part of one; without those of other replicas."""
        inputs, targets, weights, more = batch
        tf = extras.tensorflow()
        variables = self.model.trainable_variables
        with tf.GradientTape() as tape:
            outputs = in_float32(call_model(self.model, inputs, training=True))
            losses = self._mixed_losses(targets, outputs, weights, more)
            total = total_of(self.heads, losses)
            penalty = self._penalty()
            # Regularization is a property of the weights, not of the samples: a share of it for every computation.
            shares = self.strategy.num_replicas_in_sync * self._accumulate
            loss = tf.reduce_sum(total) / count + penalty / shares
            # Keras' optimizers scale the loss where a precision asks for it.
            scaled = self.optimizer.scale_loss(loss)
        gradients = tape.gradient(scaled, variables)
        return gradients, {"outputs": outputs, "losses": losses, "total": total + penalty, "share": loss}

    def _in_parts(self, batch: Batch, count: Any) -> tuple[list[Any], dict[str, Any]]:
        """The same of a batch that is computed part by part: the memory of a part, the gradients of the whole."""
        tf = extras.tensorflow()
        samples = tf.shape(batch[2])[0]
        found: list[tuple[list[Any], dict[str, Any]]] = []
        for index in range(self._accumulate):
            begin, end = (samples * place // self._accumulate for place in (index, index + 1))
            # One after the other: side by side they would need the memory of the whole.
            with tf.control_dependencies(tf.nest.flatten([gradients for gradients, _ in found[-1:]])):
                part = tf.nest.map_structure(lambda value: value[begin:end], batch)  # noqa: B023  called at once
            found.append(self._differentiate_batch(part, count))
        by_variable = zip(*(gradients for gradients, _ in found), strict=True)
        gradients = [None if parts[0] is None else tf.add_n([dense(part) for part in parts]) for parts in by_variable]
        seen = [part for _, part in found]
        share = tf.add_n([part.pop("share") for part in seen])
        whole = tf.nest.map_structure(lambda *parts: tf.concat(parts, axis=0), *seen)
        return gradients, {**whole, "share": share}

    def _penalty(self) -> Any:
        """The sum of all regularization."""
        tf = extras.tensorflow()
        return tf.add_n(self.model.losses) if self.model.losses else tf.constant(0.0)

    def _mixed_losses(self, targets: Any, outputs: Any, weights: Any, more: Mapping[str, Any]) -> list[Any]:
        """The loss of every sample in every output, float32 [samples] each; samples may be mixed with partners.

        For a cross-entropy, which is linear in its targets, the shares of two losses are the loss of the mixed targets.
        """
        losses = sample_losses_of(self.heads, targets, outputs, weights)
        if "targets" not in more:
            return losses
        of_partners = sample_losses_of(self.heads, more["targets"], outputs, more["weights"])
        return [one + other for one, other in zip(losses, of_partners, strict=True)]

    def _global_count(self, batch: Batch) -> Any:
        """Samples of the batch on all replicas."""
        tf = extras.tensorflow()
        _, _, weights, more = batch
        count = tf.reduce_sum(more["real"]) if "real" in more else tf.cast(tf.shape(weights)[0], tf.float32)
        if self._sums_replicas:
            count = tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, count)
        return tf.maximum(count, 1.0)

    def _sum_over_replicas(self, tensors: list[Any]) -> list[Any]:
        tf = extras.tensorflow()
        there = [tensor for tensor in tensors if tensor is not None]
        summed = iter(tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, there))
        return [None if tensor is None else next(summed) for tensor in tensors]

    def _are_finite(self, loss: Any, gradients: Sequence[Any]) -> Any:
        """Whether loss and gradients are numbers; gradients that a scaled loss lets overflow count as such."""
        tf = extras.tensorflow()
        fine = tf.math.is_finite(loss)
        sums = [tf.reduce_sum(g.values if isinstance(g, tf.IndexedSlices) else g) for g in gradients if g is not None]
        if sums:
            are_numbers = tf.math.is_finite(tf.add_n([tf.cast(one, tf.float32) for one in sums]))
            fine = tf.logical_and(fine, tf.logical_or(are_numbers, can_lower_scale(self.optimizer)))
        return fine


def dense(gradient: Any) -> Any:
    """A gradient as a tensor: that of an embedding comes as the rows that were looked up."""
    return extras.tensorflow().convert_to_tensor(gradient)


def scales_loss(optimizer: Any) -> bool:
    """Whether an optimizer scales the loss, and looks after gradients that overflow."""
    return isinstance(optimizer, extras.keras().optimizers.LossScaleOptimizer)


LOWEST_SCALE = 1e-4
"""Of a loss: fairseq ends a training below it (`min_loss_scale`); no gradient overflows for such a scale."""


def can_lower_scale(optimizer: Any) -> Any:
    """Whether gradients that are not finite may be so for the scale of the loss (mixed_float16).

    The optimizer itself skips their step then, and halves the scale; without end, if the scale is not the reason.
    """
    return optimizer.dynamic_scale >= LOWEST_SCALE if scales_loss(optimizer) else False


def reduce_no_more(optimizer: Any) -> None:
    """Lets an optimizer take gradients as they are.

    Keras' optimizers clip first and sum over replicas then: each replica would be clipped by a norm of its own. Here
    they are given the sums.
    """
    inner = optimizer.inner_optimizer if scales_loss(optimizer) else optimizer
    inner._all_reduce_sum_gradients = _as_they_are


def _as_they_are(gradients: Any) -> Any:
    return gradients

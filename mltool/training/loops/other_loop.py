"""The training loop on Keras' other backends: one step as `Loop` has it, computed by JAX or PyTorch."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mltool import extras
from mltool.data.batches import Batch
from mltool.models.build import call_model
from mltool.models.precision import in_float32
from mltool.training.loops.head import Head, sample_losses_of, total_of
from mltool.training.loops.measures import PLAIN, LoopOptions, Measures
from mltool.training.loops.step import can_lower_scale


@dataclass(frozen=True)
class OneDevice:
    """What stands in the place of a strategy of tf.distribute.

    Attributes:
        num_replicas_in_sync: always one.
    """

    num_replicas_in_sync: int = 1


class OtherLoop(Measures, ABC):
    """One model, its optimizer, losses and metrics, for `Epochs` to run.

    Args:
        model: a keras.Model.
        optimizer: a Keras optimizer.
        heads: makes the losses and metrics of every output.
    """

    options: LoopOptions = PLAIN

    def __init__(self, model: Any, optimizer: Any, *, heads: Callable[[], Sequence[Head]]) -> None:
        self.model = model
        self.mean_loss = extras.keras().metrics.Mean(name="loss")
        self.heads = heads()
        self.metrics = [metric for head in self.heads for metric in head.metrics]
        for head in self.heads:
            head.try_out()
        self.reset_metrics()
        self.strategy = OneDevice()
        self.take(optimizer)

    def take(self, optimizer: Any) -> None:
        """Goes on with another optimizer, and with the weights that are trainable now."""
        self.optimizer = optimizer
        if not optimizer.built:  # Keras' LossScaleOptimizer would make its variables once more
            optimizer.build(self.model.trainable_variables)

    @abstractmethod
    def train_steps(self, batches: Iterator[Batch], count: Any) -> tuple[int, tuple[float, ...]]:
        """Learns from so many batches; from fewer if loss or gradients of one are not finite, which changes nothing.

        Returns:
            How many changed the weights; how long all waited for their batches, in seconds, when the last one came, in
            seconds since 1970, and, where steps are compiled, 1 if one was meanwhile, else 0.
        """

    @abstractmethod
    def evaluate_steps(self, batches: Iterator[Batch], count: Any) -> int:
        """Counts so many batches in loss and metrics, without learning from them; gives how many."""

    def _are_finite(self, loss: Any, gradients: Sequence[Any]) -> Any:
        """Whether loss and gradients are numbers; see `TrainStep`."""
        ops = extras.keras().ops
        sums = [ops.cast(ops.sum(one), "float32") for one in gradients if one is not None]
        are_numbers = ops.isfinite(ops.sum(ops.stack(sums))) if sums else True
        return ops.logical_and(ops.isfinite(loss), ops.logical_or(are_numbers, can_lower_scale(self.optimizer)))

    def _losses(self, targets: Any, outputs: Any, weights: Any) -> tuple[list[Any], Any]:
        """The loss of every sample in every output, and their weighted sum, float32 [samples] each."""
        losses = sample_losses_of(self.heads, targets, outputs, weights)
        return losses, total_of(self.heads, losses)

    def _update(self, targets: Any, outputs: Any, losses: list[Any], total: Any) -> None:
        self.mean_loss.update_state(total)
        for head, of_head in zip(self.heads, losses, strict=True):
            head.update(head.of(targets), head.of(outputs), of_head)


class Arrivals:
    """The batches of a chunk, and how its steps wait for them.

    Args:
        batches: to take from.
    """

    def __init__(self, batches: Iterator[Batch]) -> None:
        self._batches, self._waited, self._last = batches, 0.0, time.time()

    def next(self) -> Batch:
        """The next batch."""
        asked = time.time()
        batch = next(self._batches)
        self._last = time.time()
        self._waited += self._last - asked
        return batch

    @property
    def times(self) -> tuple[float, float]:
        """The first two that `OtherLoop.train_steps` gives."""
        return self._waited, self._last


class JaxLoop(OtherLoop):
    """Steps that JAX compiles, from the values of all variables to the values after; Keras' variables see each chunk.

    Keras' own `fit` was not taken, as in `Loop`: its losses and metrics see logits, and cannot resume within an epoch.
    """

    options = LoopOptions(jit_compile=True)

    def take(self, optimizer: Any) -> None:
        """See `OtherLoop`; the steps are compiled anew, as what is trainable is part of them."""
        super().take(optimizer)
        jax = extras.require("jax")
        self._has_compiled = False
        self._train = jax.jit(self._train_step, donate_argnums=(0, 1))
        self._evaluate = jax.jit(self._evaluate_step, donate_argnums=1)

    def train_steps(self, batches: Iterator[Batch], count: Any) -> tuple[int, tuple[float, ...]]:
        """See `OtherLoop`; the steps after one that is not finite run too, and change nothing either."""
        np_of_jax = extras.require("jax.numpy")
        self._has_compiled = False
        groups, arrivals = self._groups(), Arrivals(batches)
        values, done = _values(groups), np_of_jax.zeros((2,), "int32")
        for _ in range(int(count)):
            values, done = self._train(values, done, *arrivals.next())
        _assign(groups, values)
        return int(done[0]), (*arrivals.times, float(self._has_compiled))

    def evaluate_steps(self, batches: Iterator[Batch], count: Any) -> int:
        """See `OtherLoop`."""
        trainable, others, _, metrics = self._groups()
        weights, values = _values((trainable, others)), _values((metrics,))
        for _ in range(int(count)):
            values = self._evaluate(weights, values, *next(batches))
        _assign((metrics,), extras.require("jax").block_until_ready(values))
        return int(count)

    def _groups(self) -> tuple[list[Any], ...]:
        """Keras' variables: trainable, all others of the model, of the optimizer, of the metrics."""
        model = self.model
        return (
            list(model.trainable_variables),
            list(model.non_trainable_variables),
            list(self.optimizer.variables),
            self._of_metrics(),
        )

    def _train_step(self, values: Any, done: Any, inputs: Mapping[str, Any], targets: Any, weights: Any) -> Any:
        """The values after a step, and `done`: how many steps were fine, how many were not, int32 [2]."""
        jax = extras.require("jax")
        self._has_compiled = True  # Python runs this for every size of a batch once, while JAX compiles it
        trainable, others, of_optimizer, of_metrics = values

        def loss_of(trainable: Any) -> Any:
            outputs, after, penalties = self._call(trainable, others, inputs, training=True)
            losses, total = self._losses(targets, outputs, weights)
            loss = total.sum() / len(weights) + penalties
            with self._with(of_optimizer, self.optimizer.variables):
                # Keras' optimizers scale the loss where a precision asks for it.
                scaled = self.optimizer.scale_loss(loss)
            return scaled, (outputs, after, losses, total + penalties, loss)

        gradients, (outputs, after, losses, total, loss) = jax.grad(loss_of, has_aux=True)(trainable)
        with self._with(of_optimizer, self.optimizer.variables):
            fine = jax.numpy.logical_and(self._are_finite(loss, gradients), done[1] == 0)
        changed, of_optimizer = self.optimizer.stateless_apply(of_optimizer, gradients, trainable)
        found = (changed, after, of_optimizer, self._counted(of_metrics, targets, outputs, losses, total))
        kept = jax.tree.map(lambda new, old: jax.numpy.where(fine, new, old), _lists(found), _lists(values))
        return kept, done.at[jax.numpy.where(fine, 0, 1)].add(1)

    def _evaluate_step(self, model: Any, values: Any, inputs: Mapping[str, Any], targets: Any, weights: Any) -> Any:
        trainable, others = model
        outputs, _, penalties = self._call(trainable, others, inputs, training=False)
        losses, total = self._losses(targets, outputs, weights)
        return (self._counted(values[0], targets, outputs, losses, total + penalties),)

    def _call(self, trainable: Any, others: Any, inputs: Mapping[str, Any], *, training: bool) -> Any:
        """Outputs, the other variables after, and the sum of what the weights cost."""
        taken = dict(inputs) if isinstance(self.model.input, dict) else next(iter(inputs.values()))
        outputs, after, penalties = self.model.stateless_call(
            trainable, others, taken, training=training, return_losses=True
        )
        return in_float32(outputs), after, sum(penalties, start=extras.keras().ops.zeros(()))

    def _counted(self, of_metrics: Any, targets: Any, outputs: Any, losses: list[Any], total: Any) -> list[Any]:
        variables = self._of_metrics()
        with self._with(of_metrics, variables) as scope:
            self._update(targets, outputs, losses, total)
        return [scope.get_current_value(variable) for variable in variables]

    @staticmethod
    def _with(values: Sequence[Any], variables: Sequence[Any]) -> Any:
        """Inside, Keras' variables have these values."""
        return extras.keras().StatelessScope(state_mapping=list(zip(variables, values, strict=True)))


class TorchLoop(OtherLoop):
    """Steps that PyTorch runs one operation after the other.

    Keras' Dropout draws from PyTorch's own generator, no variable that a checkpoint holds. So every step begins
    with a seed of its own, from that of the run and the number of the step.
    """

    def __init__(self, model: Any, optimizer: Any, *, heads: Callable[[], Sequence[Head]]) -> None:
        self._seed = int(extras.require("torch").initial_seed())
        self._steps = extras.keras().Variable(0, dtype="int64", trainable=False, name="steps")
        super().__init__(model, optimizer, heads=heads)

    def variables(self) -> list[Any]:
        """See `OtherLoop`; with the number of the step."""
        return [*super().variables(), self._steps]

    def train_steps(self, batches: Iterator[Batch], count: Any) -> tuple[int, tuple[float, float]]:
        """See `OtherLoop`."""
        arrivals = Arrivals(batches)
        for done in range(int(count)):
            if not self._train_batch(arrivals.next()):
                return done, arrivals.times
        return int(count), arrivals.times

    def evaluate_steps(self, batches: Iterator[Batch], count: Any) -> int:
        """See `OtherLoop`."""
        with extras.require("torch").no_grad():
            for _ in range(int(count)):
                inputs, targets, weights = self._on_device(next(batches))
                outputs = in_float32(call_model(self.model, inputs, training=False))
                losses, total = self._losses(targets, outputs, weights)
                self._update(targets, outputs, losses, total + sum(self.model.losses))
            self.running_loss()  # waits for the device
        return int(count)

    def _train_batch(self, batch: Batch) -> bool:
        """One step; gives whether it changed the weights."""
        torch = extras.require("torch")
        inputs, targets, weights = self._on_device(batch)
        self._begin_step()
        self.model.zero_grad()
        outputs = in_float32(call_model(self.model, inputs, training=True))
        penalties = sum(self.model.losses)
        losses, total = self._losses(targets, outputs, weights)
        loss = total.sum() / len(weights) + penalties
        self.optimizer.scale_loss(loss).backward()
        variables = self.model.trainable_variables
        gradients = [variable.value.grad for variable in variables]
        with torch.no_grad():
            if not bool(self._are_finite(loss, gradients)):
                return False
            self.optimizer.apply(gradients, variables)
            self._update(targets, outputs, losses, total + penalties)
        return True

    def _begin_step(self) -> None:
        number = int(self._steps)
        seed = np.random.SeedSequence((self._seed, number)).generate_state(1, np.uint64)[0]
        extras.require("torch").manual_seed(int(seed))
        self._steps.assign(number + 1)

    @staticmethod
    def _on_device(batch: Batch) -> Any:
        keras = extras.keras()
        return keras.tree.map_structure(keras.ops.convert_to_tensor, batch)


def _values(groups: Sequence[Sequence[Any]]) -> tuple[list[Any], ...]:
    return tuple([variable.value for variable in group] for group in groups)


def _lists(groups: Sequence[Sequence[Any]]) -> tuple[list[Any], ...]:
    return tuple(list(group) for group in groups)


def _assign(groups: Sequence[Sequence[Any]], values: Sequence[Sequence[Any]]) -> None:
    for group, found in zip(groups, values, strict=True):
        for variable, value in zip(group, found, strict=True):
            variable.assign(value)


LOOPS: dict[str, type[OtherLoop]] = {"jax": JaxLoop, "torch": TorchLoop}
"""By the backend of the spec."""

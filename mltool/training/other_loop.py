"""The training loop on Keras' other backends: one step as `Loop` has it, computed by JAX or PyTorch."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mltool import extras
from mltool.data.batches import Batch
from mltool.models.build import call_model
from mltool.models.metrics import result_of
from mltool.training.head import Head


@dataclass(frozen=True)
class OneDevice:
    """What stands in the place of a strategy of tf.distribute.

    Attributes:
        devices: that training may use; it uses the first.
        num_replicas_in_sync: always one.
    """

    devices: tuple[str, ...]
    num_replicas_in_sync: int = 1


class OtherLoop(ABC):
    """One model, its optimizer, losses and metrics, for `Epochs` to run.

    Args:
        model: a keras.Model.
        optimizer: a Keras optimizer.
        heads: makes the losses and metrics of every output.
    """

    def __init__(self, model: Any, optimizer: Any, *, heads: Callable[[], Sequence[Head]]) -> None:
        self.model = model
        self.mean_loss = extras.keras().metrics.Mean(name="loss")
        self.heads = heads()
        self.metrics = [metric for head in self.heads for metric in head.metrics]
        for head in self.heads:
            head.try_out()
        self.reset_metrics()
        self.strategy = OneDevice(self._devices())
        self.take(optimizer)

    def take(self, optimizer: Any) -> None:
        """Goes on with another optimizer, and with the weights that are trainable now."""
        self.optimizer = optimizer
        optimizer.build(self.model.trainable_variables)

    @abstractmethod
    def train_steps(self, batches: Iterator[Batch], count: Any) -> None:
        """Learns from so many batches."""

    @abstractmethod
    def evaluate_steps(self, batches: Iterator[Batch], count: Any) -> None:
        """Counts so many batches in loss and metrics, without learning from them."""

    @abstractmethod
    def _devices(self) -> tuple[str, ...]:
        """As the backend calls them."""

    def variables(self) -> list[Any]:
        """Everything that a checkpoint must hold: weights, seeds, optimizer, metrics of the running epoch."""
        return [*self.model.variables, *self.optimizer.variables, *self._of_metrics()]

    def reset_metrics(self) -> None:
        """Starts the metrics of an epoch or an evaluation."""
        for metric in (self.mean_loss, *self.metrics):
            metric.reset_state()

    def results(self) -> dict[str, float]:
        """The metrics since the last reset, `loss` first."""
        return {metric.name: result_of(metric) for metric in (self.mean_loss, *self.metrics)}

    def running_loss(self) -> float:
        """The mean loss since the last reset."""
        return result_of(self.mean_loss)

    def greater_is_better(self) -> dict[str, bool | None]:
        """For every name in `results`, whether more of it is better; None where that is not known."""
        found: dict[str, bool | None] = {"loss": False}
        for head in self.heads:
            found |= head.greater_is_better()
        return found

    def _of_metrics(self) -> list[Any]:
        return [variable for metric in (self.mean_loss, *self.metrics) for variable in metric.variables]

    def _losses(self, targets: Any, outputs: Any, weights: Any) -> tuple[list[Any], Any]:
        """The loss of every sample in every output, and their weighted sum, float32 [samples] each."""
        losses = [head.sample_losses(head.of(targets), head.of(outputs)) * weights for head in self.heads]
        if len(losses) == 1:
            return losses, losses[0]
        return losses, sum(loss * head.weight for loss, head in zip(losses, self.heads, strict=True))

    def _update(self, targets: Any, outputs: Any, losses: list[Any], total: Any) -> None:
        self.mean_loss.update_state(total)
        for head, of_head in zip(self.heads, losses, strict=True):
            head.update(head.of(targets), head.of(outputs), of_head)


class JaxLoop(OtherLoop):
    """Steps that JAX compiles, from the values of all variables to the values after; Keras' variables see each chunk.

    Keras' own `fit` was not taken, as in `Loop`: its losses and metrics see logits, and cannot resume within an epoch.
    """

    def take(self, optimizer: Any) -> None:
        """See `OtherLoop`; the steps are compiled anew, as what is trainable is part of them."""
        super().take(optimizer)
        jax = extras.require("jax")
        self._train = jax.jit(self._train_step, donate_argnums=0)
        self._evaluate = jax.jit(self._evaluate_step, donate_argnums=1)

    def train_steps(self, batches: Iterator[Batch], count: Any) -> None:
        """See `OtherLoop`."""
        groups = self._groups()
        values = _values(groups)
        for _ in range(int(count)):
            values = self._train(values, *next(batches))
        _assign(groups, values)

    def evaluate_steps(self, batches: Iterator[Batch], count: Any) -> None:
        """See `OtherLoop`."""
        trainable, others, _, metrics = self._groups()
        weights, values = _values((trainable, others)), _values((metrics,))
        for _ in range(int(count)):
            values = self._evaluate(weights, values, *next(batches))
        _assign((metrics,), values)

    def _devices(self) -> tuple[str, ...]:
        return tuple(str(device) for device in extras.require("jax").devices())

    def _groups(self) -> tuple[list[Any], ...]:
        """Keras' variables: trainable, all others of the model, of the optimizer, of the metrics."""
        model = self.model
        return (
            list(model.trainable_variables),
            list(model.non_trainable_variables),
            list(self.optimizer.variables),
            self._of_metrics(),
        )

    def _train_step(self, values: Any, inputs: Mapping[str, Any], targets: Any, weights: Any) -> Any:
        jax = extras.require("jax")
        trainable, others, of_optimizer, of_metrics = values

        def loss_of(trainable: Any) -> Any:
            outputs, after, penalties = self._call(trainable, others, inputs, training=True)
            losses, total = self._losses(targets, outputs, weights)
            loss = total.sum() / len(weights) + penalties
            with self._with(of_optimizer, self.optimizer.variables):
                # Keras' optimizers scale the loss where a precision asks for it.
                scaled = self.optimizer.scale_loss(loss)
            return scaled, (outputs, after, losses, total + penalties)

        gradients, found = jax.grad(loss_of, has_aux=True)(trainable)
        outputs, others, losses, total = found
        trainable, of_optimizer = self.optimizer.stateless_apply(of_optimizer, gradients, trainable)
        return trainable, others, of_optimizer, self._counted(of_metrics, targets, outputs, losses, total)

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
        return outputs, after, sum(penalties, start=extras.keras().ops.zeros(()))

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

    def train_steps(self, batches: Iterator[Batch], count: Any) -> None:
        """See `OtherLoop`."""
        torch = extras.require("torch")
        for _ in range(int(count)):
            inputs, targets, weights = self._on_device(next(batches))
            self._begin_step()
            self.model.zero_grad()
            outputs = call_model(self.model, inputs, training=True)
            penalties = sum(self.model.losses)
            losses, total = self._losses(targets, outputs, weights)
            self.optimizer.scale_loss(total.sum() / len(weights) + penalties).backward()
            variables = self.model.trainable_variables
            with torch.no_grad():
                self.optimizer.apply([variable.value.grad for variable in variables], variables)
                self._update(targets, outputs, losses, total + penalties)

    def evaluate_steps(self, batches: Iterator[Batch], count: Any) -> None:
        """See `OtherLoop`."""
        with extras.require("torch").no_grad():
            for _ in range(int(count)):
                inputs, targets, weights = self._on_device(next(batches))
                outputs = call_model(self.model, inputs, training=False)
                losses, total = self._losses(targets, outputs, weights)
                self._update(targets, outputs, losses, total + sum(self.model.losses))

    def _devices(self) -> tuple[str, ...]:
        cuda = extras.require("torch").cuda
        return tuple(cuda.get_device_name(index) for index in range(cuda.device_count())) or ("cpu",)

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


def _assign(groups: Sequence[Sequence[Any]], values: Sequence[Sequence[Any]]) -> None:
    for group, found in zip(groups, values, strict=True):
        for variable, value in zip(group, found, strict=True):
            variable.assign(value)


LOOPS: dict[str, type[OtherLoop]] = {"jax": JaxLoop, "torch": TorchLoop}
"""By the backend of the spec."""

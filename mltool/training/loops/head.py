"""One output of the model in training: its loss and its metrics."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from mltool import extras
from mltool.errors import Message, SpecError
from mltool.models.keras_objects import reason_of, refusals
from mltool.models.losses import OwnLoss, build_loss
from mltool.models.metrics import build_metric, greater_is_better, targets_for, update_metric, wants_logits
from mltool.models.outputs import TargetScale
from mltool.spec.outputs import Measure, OutputSpec
from mltool.spec.own_things import OwnThing
from mltool.spec.task import OutputKind, Task, output_kind, takes_one_hot


def sample_losses_of(heads: "Sequence[Head]", targets: Any, outputs: Any, weights: Any) -> list[Any]:
    """The loss of every sample in every output, float32 [samples] each."""
    return [head.sample_losses(head.of(targets), head.of(outputs)) * weights for head in heads]


def total_of(heads: "Sequence[Head]", losses: Sequence[Any]) -> Any:
    """The weighted sum over the outputs, float32 [samples]."""
    if len(losses) == 1:
        return losses[0]
    return sum(loss * head.weight for loss, head in zip(losses, heads, strict=True))


class Head:
    """Loss and metrics of one output; built in the strategy's scope.

    Args:
        key: of the output, see `TrainSpec.heads`; "" for the only one.
        output: loss, metrics and weight, from the spec.
        task: what the output answers.
        shape: of a sample of the output.
        target_scale: of a regression whose loss sees targets of mean 0 and deviation 1; metrics see original units.
    """

    def __init__(
        self,
        key: str,
        output: OutputSpec,
        *,
        task: Task,
        shape: tuple[int, ...],
        target_scale: TargetScale | None = None,
    ) -> None:
        self.key, self.weight, self.task = key, output.weight, task
        self._shape, self._target_scale, self._loss_spec = shape, target_scale, output.loss
        self._place = f"train.outputs.{key}" if key else "train"
        keras = extras.keras()
        self._loss = build_loss(output.loss, at=f"{self._place}.loss")
        # Anomalies are told after training, with the threshold.
        self._measures: Sequence[Measure] = output.measures(key) if task != "anomaly" else ()
        self._metrics = [
            build_metric(one.metric, task, name=one.name, num_classes=shape[-1], at=one.at) for one in self._measures
        ]
        self._mean_loss = keras.metrics.Mean(name=f"{key}_loss") if key else None

    @property
    def metrics(self) -> list[Any]:
        """Keras' metrics; the mean loss of its own first, where there are several outputs."""
        return [*([self._mean_loss] if self._mean_loss is not None else []), *self._metrics]

    def greater_is_better(self) -> dict[str, bool | None]:
        """For every metric, whether more of it is better; None where that is not known."""
        pairs = zip(self._metrics, self._measures, strict=True)
        found = {metric.name: greater_is_better(metric, one.metric) for metric, one in pairs}
        return found | ({self._mean_loss.name: False} if self._mean_loss is not None else {})

    def of(self, tensors: Any) -> Any:
        """Its own of the targets, or of the outputs, of a batch."""
        return tensors[self.key] if isinstance(tensors, dict) else tensors

    def sample_losses(self, targets: Any, outputs: Any) -> Any:
        """One loss a sample, float32 [samples]; an output with more axes counts as the mean over them."""
        ops = extras.keras().ops
        if self._target_scale is not None:
            mean, deviation = (
                ops.convert_to_tensor(values, "float32")
                for values in (self._target_scale.mean, self._target_scale.deviation)
            )
            targets, outputs = (targets - mean) / deviation, (outputs - mean) / deviation
        losses = ops.cast(self._loss(self._loss_targets(targets, outputs), outputs), "float32")
        return ops.mean(losses, axis=tuple(range(1, len(losses.shape)))) if len(losses.shape) > 1 else losses

    def update(self, targets: Any, outputs: Any, losses: Any, real: Any = None) -> None:
        """Counts a batch in the metrics.

        Args:
            targets: of the batch.
            outputs: of the model.
            losses: of `sample_losses`, weighted by the samples' weights.
            real: float32 [samples], 0 for those that only fill the batch up; None where there are none.
        """
        if self._mean_loss is not None:
            self._mean_loss.update_state(losses, sample_weight=real)
        for metric, one, seen in zip(self._metrics, self._measures, self._seen_by_metrics(outputs), strict=True):
            self._count(metric, one, targets, seen, real=real)

    def _count(self, metric: Any, one: Measure, targets: Any, seen: Any, *, real: Any = None) -> None:
        if self.task == "multi_label":
            # Of mixed samples, shares: metrics see the labels of the one with the greater share.
            targets = extras.keras().ops.round(targets)
        ready = targets_for(one.metric, targets, self._shape[-1], self.task)
        update_metric(metric, one.metric, ready, seen, real=real, at=one.at)

    def try_out(self) -> None:
        """Runs loss and metrics once, because some make their variables on first use, which a traced function forbids.

        Raises:
            SpecError: if the loss or a metric does not take what the model gives, or a metric gives several values.
        """
        ops = extras.keras().ops
        # A number of samples that the outputs have nowhere else: what is reduced to another axis must show.
        samples = next(count for count in itertools.count(_TRIED) if count not in self._shape)
        outputs = ops.zeros((samples, *self._shape))
        if self.task in ("classification", "binary", "segmentation"):
            axes = self._shape[:-1] if self.task == "segmentation" else ()
            targets = ops.zeros((samples, *axes), "int64")
        else:
            targets = outputs
        place, shape = f"{self._place}.loss.{self._loss_spec.name}", tuple(outputs.shape[1:])
        try:
            self.sample_losses(targets, outputs)
            for metric, one, seen in zip(self._metrics, self._measures, self._seen_by_metrics(outputs), strict=True):
                place = one.at
                # Weighted too, as batches may be filled up sooner or later.
                self._count(metric, one, targets, seen, real=ops.ones((samples,)))
                values = np.size(ops.convert_to_numpy(metric.result()))
                if values > 1:
                    message = f"gives {values} values, one is expected"
                    raise SpecError(Message(message, "write average: macro", key=place))
        except refusals() as error:
            message = f"does not take outputs of shape {shape} and their targets"
            raise SpecError(Message(message, reason_of(error), key=place)) from error
        if isinstance(self._loss, OwnLoss):
            self._loss.require_gradient(self._loss_targets(targets, outputs), outputs)
        if any(isinstance(thing, OwnThing) for thing in (self._loss_spec, *(one.metric for one in self._measures))):
            # What runs may still be no graph (`.numpy()`): better now than in the first step.
            extras.tensorflow().function(self._run_all, autograph=False)(targets, outputs)

    def _run_all(self, targets: Any, outputs: Any) -> None:
        self.update(targets, outputs, self.sample_losses(targets, outputs))

    @property
    def kind(self) -> OutputKind:
        """What the outputs are."""
        return output_kind(self._loss_spec)

    def _loss_targets(self, targets: Any, outputs: Any) -> Any:
        """Targets as the loss takes them: one-hot, a column for a binary output; nothing is left of an autoencoder."""
        ops = extras.keras().ops
        if self.task == "anomaly":
            return ops.zeros_like(outputs)
        if takes_one_hot(self._loss_spec):
            return ops.one_hot(targets, self._shape[-1])
        return ops.cast(targets[:, None], "float32") if self.task == "binary" else targets

    def _seen_by_metrics(self, outputs: Any) -> list[Any]:
        """What every metric takes of the outputs; probabilities are computed where one wants them."""
        logits = [wants_logits(one.metric, self.task) for one in self._measures]
        probabilities = None if all(logits) else self._probabilities(outputs)
        return [outputs if is_on_logits else probabilities for is_on_logits in logits]

    def _probabilities(self, outputs: Any) -> Any:
        ops = extras.keras().ops
        if self.kind != "logits":
            return outputs
        return ops.sigmoid(outputs) if self.task in ("binary", "multi_label") else ops.softmax(outputs)


_TRIED = 3
"""Samples that losses and metrics are tried out on, at least: more than one, so that a mean over all shows."""

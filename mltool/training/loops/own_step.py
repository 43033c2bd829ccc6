"""A training step of the user's in the place of ours: what it is given, and what it must give back."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mltool import extras
from mltool.models.precision import in_float32
from mltool.models.user_call import calling, described, load_user, refusal
from mltool.training.loops.head import Head, sample_losses_of, total_of
from mltool.training.loops.step import Batch, TrainStep

KEY = "train.step.python"

_TAKES = "(model, optimizer, loss, batch)"
_RETURNS = 'return the loss, or {"loss": loss, "outputs": outputs}'


@dataclass(frozen=True)
class StepFunction:
    """A step of the user's, imported.

    Attributes:
        reference: to it.
        function: of (model, optimizer, loss, batch) and the keywords.
        arguments: the keywords.
    """

    reference: str
    function: Callable[..., Any]
    arguments: Mapping[str, Any]


def load_step(reference: str, arguments: Mapping[str, Any]) -> StepFunction:
    """Imports a step.

    A tf.function is taken apart: the step becomes a part of the graph of the loop, where every replica runs it.

    Raises:
        SpecError: if its file raises when it is imported, or it is no function of that form.
    """
    found = load_user(reference, key=KEY)
    found = getattr(found, "python_function", found)
    if isinstance(found, type) or not callable(found):
        raise refusal(f"{reference} is no function", f"write def {_name(reference)}{_TAKES}", key=KEY)
    try:
        inspect.signature(found).bind(None, None, None, None, **arguments)
    except TypeError as error:
        hint = f"a step takes {_TAKES}, and then the keywords of train.step.arguments"
        raise refusal(f"{reference}: {error}", hint, key=KEY) from error
    return StepFunction(reference, found, arguments)


def _name(reference: str) -> str:
    return reference.rpartition(":")[2]


class StepLoss:
    """The loss of the spec, as a step of the user's calls it.

    Called with targets and outputs it gives this replica's share of the mean loss of the global batch, regularization
    included: summed over the replicas, the shares and their gradients are those of the whole batch.

    Args:
        share_of: of (targets, outputs).
        weights: float32 [samples], how much each sample counts; in the loss already.
        global_batch_size: float32 [], samples of the batch on all replicas.
    """

    def __init__(self, share_of: Callable[[Any, Any], Any], weights: Any, global_batch_size: Any) -> None:
        self._share_of, self.weights, self.global_batch_size = share_of, weights, global_batch_size

    def __call__(self, targets: Any, outputs: Any) -> Any:
        """The share, float32 []."""
        return self._share_of(targets, outputs)


class OwnStep(TrainStep):
    """Calls the user's function where a TrainStep computes and applies.

    Args:
        model: a keras.Model, built in the strategy's scope.
        optimizer: built for its trainable weights; its `apply` sums gradients over the replicas from now on.
        heads: losses and metrics of every output.
        strategy: of tf.distribute.
        step: the function.
    """

    def __init__(self, model: Any, optimizer: Any, *, heads: Sequence[Head], strategy: Any, step: StepFunction) -> None:
        super().__init__(model, optimizer, heads=heads, strategy=strategy)
        self._step = step
        self._applies = False
        # What is raised by code that AutoGraph converted is wrapped by it.
        self._run = extras.tensorflow().autograph.experimental.do_not_convert(self._run_checked)
        self._sum_before_applying()

    def compute(self, inputs: Mapping[str, Any], targets: Any, weights: Any, more: Any = None) -> tuple[Any, Any, Any]:
        """Runs the step of the user's, which changes the weights.

        Returns:
            No gradients, as nothing is left to be applied; whether the loss is finite; what metrics need.
        """
        tf = extras.tensorflow()
        batch = (inputs, targets, weights, more or {})
        count = self._global_count(batch)
        loss = StepLoss(lambda *pair: self._share_of(batch, count, *pair), weights, count)
        # Its gradients are its own affair; `_run_checked` proves that it applies some.
        self.reached = [True] * len(self.model.trainable_variables)
        control = tf.__internal__.autograph.control_status_ctx()
        share, outputs = self._run(batch, loss, control)
        mean = self._sum_over_replicas([share])[0] if self._sums_replicas else share
        # The mean of the batch as the loss of every sample: means over an epoch weigh samples.
        seen = {"total": tf.fill(tf.shape(weights), mean)}
        if outputs is not None:
            seen |= {"outputs": outputs, "losses": sample_losses_of(self.heads, targets, outputs, weights)}
        return (), tf.math.is_finite(mean), seen

    def apply(self, gradients: Sequence[Any]) -> None:
        """Nothing is left to be applied."""
        del gradients

    def _run_checked(self, batch: Batch, loss: StepLoss, control: Any) -> tuple[Any, Any]:
        """Runs the function.

        Returns:
            The loss, float32 [], and the outputs, or None where it gives none.

        Raises:
            SpecError: if it raises, never applies gradients, or returns something else.
        """
        inputs, targets, *_ = batch
        given = inputs if isinstance(self.model.input, dict) else next(iter(inputs.values()))
        step = self._step
        function = extras.tensorflow().__internal__.autograph.tf_convert(step.function, control)
        self._applies = False
        with calling(step.reference, step.reference, key=KEY):
            returned = function(self.model, self.optimizer, loss, (given, targets), **step.arguments)
        if not self._applies:
            message = f"{step.reference} changes no weight: it does not call the optimizer"
            raise refusal(message, "call optimizer.apply_gradients(zip(gradients, variables))", key=KEY)
        return self._checked(returned)

    def _checked(self, returned: Any) -> tuple[Any, Any]:
        tf, reference = extras.tensorflow(), self._step.reference
        parts = returned if isinstance(returned, Mapping) else {"loss": returned}
        if not set(parts) <= {"loss", "outputs"} or "loss" not in parts:
            message = f"{reference} returned a map of {', '.join(map(str, parts)) or 'nothing'}"
            raise refusal(message, _RETURNS, key=KEY)
        loss, outputs = parts["loss"], parts.get("outputs")
        if not tf.is_tensor(loss) or not loss.dtype.is_floating or loss.shape.rank != 0:
            what = f"a tensor of {loss.dtype.name} {loss.shape}" if tf.is_tensor(loss) else described(loss)
            raise refusal(f"{reference} returned {what}; a loss of shape () is expected", _RETURNS, key=KEY)
        if outputs is not None:
            self._require_outputs(outputs)
        elif any(head.metrics for head in self.heads):
            message = f"{reference} returned no outputs, of which training metrics are counted"
            raise refusal(message, f"{_RETURNS.partition(', or ')[2]}, or write metrics: []", key=KEY)
        return tf.cast(loss, tf.float32), None if outputs is None else in_float32(outputs)

    def _require_outputs(self, outputs: Any) -> None:
        """Proves that they are of the model, as far as shapes tell.

        Raises:
            SpecError: if they are not.
        """
        tf, expected = extras.tensorflow(), self.model.output
        shapes = {key: tuple(t.shape[1:]) for key, t in _by_key(expected).items()}
        tensors = _by_key(outputs)
        found = {key: tuple(t.shape[1:]) if tf.is_tensor(t) else described(t) for key, t in tensors.items()}
        if found != shapes:
            message = f"{self._step.reference} returned outputs of {_told(found)} a sample, the model gives"
            raise refusal(f"{message} {_told(shapes)}", "return what model(inputs, training=True) gives", key=KEY)

    def _share_of(self, batch: Batch, count: Any, targets: Any, outputs: Any) -> Any:
        """This replica's share of the mean loss of a global batch."""
        _, _, weights, more = batch
        outputs = in_float32(outputs)
        total = total_of(self.heads, self._mixed_losses(targets, outputs, weights, more))
        share = extras.tensorflow().reduce_sum(total) / count
        return share + self._penalty() / self.strategy.num_replicas_in_sync

    def _sum_before_applying(self) -> None:
        """Lets the optimizer sum gradients over the replicas before it clips them, not after it."""
        optimizer, apply = self.optimizer, type(self.optimizer).apply

        def apply_sums(grads: Sequence[Any], trainable_variables: Any = None) -> None:
            self._applies = True
            gradients = list(grads)
            if self._sums_replicas and any(gradient is not None for gradient in gradients):
                gradients = self._sum_over_replicas(gradients)
            apply(optimizer, gradients, trainable_variables)

        optimizer.apply = apply_sums


def _by_key(tensors: Any) -> dict[str, Any]:
    return dict(tensors) if isinstance(tensors, Mapping) else {"": tensors}


def _told(shapes: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {shape}".strip() for key, shape in shapes.items())

"""Where a value that is not finite came from: the batch once more, outside of the graph, layer by layer."""

import functools
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mltool import extras
from mltool.data.order import epoch_order
from mltool.training.checkpoints import State
from mltool.training.loops.loop import Loop
from mltool.training.loops.step import TrainStep, dense
from mltool.training.optimizing.patterns import layers_of
from mltool.training.setup import Setup

logger = logging.getLogger("mltool")

_LOWER_RATE = "lower the learning rate, or clip gradients (clipnorm of the optimizer)"


def find_cause(setup: Setup, state: State) -> tuple[str, str]:
    """Runs a step again that was not finite; the weights are those before it.

    Args:
        setup: of the training.
        state: at that step.

    Returns:
        What to add to a message (a layer, a loss or a weight, and the sample if it is its fault), and a hint.
    """
    loop = setup.loop
    if not isinstance(loop, Loop):  # another backend's: its layers are called within its own steps alone
        return "", _LOWER_RATE
    may_choose = setup.spec.train.step is None  # beside a step of the user's there is `stop` alone
    lower_rate = _LOWER_RATE
    if may_choose and setup.spec.train.on_nan != "rollback":
        lower_rate += "; or write train.on_nan: rollback"
    try:
        batch = next(setup.pipeline.epoch(state.epoch, state.step))
        sample = _sample_at_fault(setup, loop, state, batch)
        place = _place_at_fault(loop, batch)
    # Whatever layers raise that were written for a graph: what this is about must be told all the same.
    except Exception:
        logger.debug("the step could not be run again", exc_info=True)
        return "", lower_rate
    found = ", ".join(part for part in (place, sample) if part)
    hint = lower_rate
    if sample:
        hint = "mend that sample, or leave it out"
        if may_choose and setup.spec.train.on_nan != "skip":
            hint += "; or write train.on_nan: skip"
    return f": {found}" if found else "", hint


def _sample_at_fault(setup: Setup, loop: Loop, state: State, batch: Any) -> str:
    """The first sample of a batch that a model was given with a number that is none."""
    train, size, workers = setup.data.split("train"), setup.pipeline.batch_size, setup.workers
    begin = state.step * size
    samples = min(size, len(train) - begin)
    local = loop.strategy.experimental_local_results
    for replica in range(workers.replicas_here):
        first = samples * (workers.first_replica + replica) // workers.replicas
        for what, values in _named(batch):
            own = local(values)[replica]
            row = _first_bad_row(own)
            if row is not None:
                position = epoch_order(setup.spec.seed, state.epoch, len(train))[begin + (first + row) % samples]
                return f"the {what} of {setup.data.source.name_of(int(train.ids[position]))} is {_kind(own[row])}"
    return ""


def _named(batch: Any) -> Iterator[tuple[str, Any]]:
    """What a batch holds, with words for it."""
    inputs, targets, *_ = batch
    yield from ((f"input {name!r}", values) for name, values in inputs.items())
    of_outputs = targets if isinstance(targets, dict) else {"": targets}
    yield from ((f"target {name!r}" if name else "target", values) for name, values in of_outputs.items())


def _first_bad_row(values: Any) -> int | None:
    tf = extras.tensorflow()
    if not values.dtype.is_floating:
        return None
    axes = list(range(1, values.shape.rank))
    rows = tf.where(~tf.reduce_all(tf.math.is_finite(values), axis=axes))
    return int(rows[0, 0]) if len(rows) else None


def _place_at_fault(loop: Loop, batch: Any) -> str:
    """The first layer whose output is not finite, else the loss, else the first weight with such a gradient."""
    step = TrainStep(loop.model, loop.optimizer, heads=loop.heads, strategy=loop.strategy)
    local = loop.strategy.experimental_local_results
    with _watched(loop.model) as bad_layers:
        gradients, _, seen = loop.strategy.run(step.compute, args=batch)
    if bad_layers:
        path, layer, kind = bad_layers[0]
        weights = [weight.path for weight in layer.weights if _kind(weight)]
        return f"the layer {path!r} gives {kind}{f', its weight {weights[0]} is not finite' if weights else ''}"
    for head, losses in zip(loop.heads, seen["losses"], strict=True):
        kind = next(filter(None, map(_kind, local(losses))), "")
        if kind:
            return f"the loss{f' of the output {head.key!r}' if head.key else ''} is {kind}, of finite outputs"
    for variable, gradient in zip(loop.model.trainable_variables, gradients, strict=True):
        kind = "" if gradient is None else _kind(dense(local(gradient)[0]))
        if kind:
            return f"the gradient of {variable.path} is {kind}, of a finite loss"
    return ""


@contextmanager
def _watched(model: Any) -> Iterator[list[tuple[str, Any, str]]]:
    """Inside, a call of a layer whose output is not finite is noted: its path, itself, and what it gave.

    Inner layers are done before those around them, so the first one is the innermost.
    """
    found: list[tuple[str, Any, str]] = []
    layers = {id(layer): (path, layer) for path, layer in layers_of(model)}
    for path, layer in layers.values():
        # Past Keras' __setattr__, which keeps what it tracks.
        layer.__dict__["call"] = _noting(path, layer, found)
    try:
        yield found
    finally:
        for _, layer in layers.values():
            del layer.__dict__["call"]


def _noting(path: str, layer: Any, found: list[tuple[str, Any, str]]) -> Any:
    call = layer.call

    @functools.wraps(call)
    def noting(*arguments: Any, **keywords: Any) -> Any:
        outputs = call(*arguments, **keywords)
        kind = next(filter(None, map(_kind, extras.tensorflow().nest.flatten(outputs))), "")
        if kind:
            found.append((path, layer, kind))
        return outputs

    return noting


def _kind(values: Any) -> str:
    """NaN, infinity, or nothing where all are finite."""
    tf = extras.tensorflow()
    values = tf.convert_to_tensor(values)
    if not values.dtype.is_floating or bool(tf.reduce_all(tf.math.is_finite(values))):
        return ""
    return "NaN" if bool(tf.reduce_any(tf.math.is_nan(values))) else "infinity"

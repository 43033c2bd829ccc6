"""The stages of a training that is aware of its conversion: prune, cluster, quantize; each on what the one before left.

Pruning with its schedule, clustering and fake quantization are tensorflow-model-optimization's. What keeps zeros and
clusters while fake quantization trains is not (`Kept`): the toolkit's schemes for it (PQAT, CQAT, PCQAT) refuse models
with other layers than Conv2D, DepthwiseConv2D and Dense, and have one granularity.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mltool import extras
from mltool.conversion.aware.annotate import Plan, annotate
from mltool.conversion.aware.rebuild import short_name
from mltool.conversion.aware.scheme import Granularity, scheme_of
from mltool.errors import ConversionError

_BLOCK = 4
"""Of `2:4`: two of as many weights that follow each other along the input channels are zero."""

_PRUNED_UNTIL = 0.5
"""Share of the steps of its stage after which pruning has its final sparsity: the rest heals."""

_INITIAL_SPARSITY = 0.0


@dataclass(frozen=True)
class Stage:
    """One stage, ready to be trained.

    Attributes:
        name: `prune`, `cluster` or `quantize`.
        model: that is trained.
        layers: names of those that it changes.
        callbacks: of the toolkit, to be told of the beginning and of the end of epochs.
        first_kept: the first epoch whose weights may be kept.
        finish: gives the model without what only the stage needs.
    """

    name: str
    model: Any
    layers: tuple[str, ...]
    callbacks: tuple[Any, ...] = ()
    first_kept: int = 0
    finish: Callable[[Any], Any] = lambda model: model


def prune_stage(model: Any, sparsity: float | str, names: Collection[str], *, epochs: int, steps: int) -> Stage:
    """Takes the smallest weights away, more and more, up to a share of each layer.

    The schedule is polynomial (Zhu and Gupta, "To prune, or not to prune", 2017); `2:4` has all of it from the first
    steps on, and takes other weights until half of them are done.

    Args:
        model: of tf_keras.
        sparsity: share of the weights of a layer that are zero in the end, or `2:4`.
        names: of the layers.
        epochs: of the stage.
        steps: of an epoch.
    """
    tf_keras = extras.require("tf_keras")
    toolkit = extras.require("tensorflow_model_optimization").sparsity.keras
    last = max(1, int(epochs * steps * _PRUNED_UNTIL))
    # The toolkit changes the masks where a multiple of the frequency is behind the first step: the last one among them.
    frequency = max(1, last // 100)
    last -= (last - 1) % frequency
    if sparsity == "2:4":
        schedule = toolkit.ConstantSparsity(0.5, begin_step=1, end_step=last, frequency=frequency)
        options = {"sparsity_m_by_n": (2, _BLOCK)}
    else:
        schedule = toolkit.PolynomialDecay(
            _INITIAL_SPARSITY, float(sparsity), begin_step=1, end_step=last, frequency=frequency
        )
        options = {}

    def wrapped(layer: Any) -> Any:
        if layer.name not in names:
            return layer
        return toolkit.prune_low_magnitude(layer, pruning_schedule=schedule, **options)

    pruned = tf_keras.models.clone_model(model, clone_function=wrapped)
    callback = toolkit.UpdatePruningStep()
    callback.set_model(pruned)
    return Stage("prune", pruned, tuple(names), (callback,), -(-last // steps) - 1, toolkit.strip_pruning)


def cluster_stage(model: Any, clusters: int, names: Collection[str], *, keeps_zeros: bool) -> Stage:
    """Gives the weights of every layer a few values only (Han et al., "Deep Compression", 2016).

    Args:
        model: of tf_keras.
        clusters: values of a layer.
        names: of the layers.
        keeps_zeros: whether weights that are zero stay so.
    """
    tf_keras = extras.require("tf_keras")
    toolkit = extras.require("tensorflow_model_optimization").clustering.keras
    base = "tensorflow_model_optimization.python.core.clustering.keras.experimental.cluster"
    cluster = extras.require(base).cluster_weights
    # Linear: the other ways draw random numbers of NumPy, which nothing here seeds.
    start = toolkit.CentroidInitialization.LINEAR

    def wrapped(layer: Any) -> Any:
        if layer.name not in names:
            return layer
        return cluster(layer, clusters, start, preserve_sparsity=keeps_zeros)

    clustered = tf_keras.models.clone_model(model, clone_function=wrapped)
    return Stage("cluster", clustered, tuple(names), finish=toolkit.strip_clustering)


def quantize_stage(model: Any, plan: Plan, granularity: Granularity) -> Stage:
    """Fake quantization of the planned layers; their names stay.

    Raises:
        ConversionError: if the toolkit does not take the model.
    """
    extras.require("tensorflow_model_optimization")
    base = "tensorflow_model_optimization.python.core.quantization.keras"
    apply = extras.require(f"{base}.quantize").quantize_apply
    scope = extras.require(f"{base}.quantize").quantize_scope
    try:
        with scope():
            quantized = apply(annotate(model, plan), scheme_of(granularity), quantized_layer_name_prefix="")
    except (ValueError, TypeError, RuntimeError, KeyError) as error:
        reason = " ".join(str(error).split())[:300]
        message = f"tensorflow-model-optimization cannot give the model fake quantization: {reason}"
        raise ConversionError(message, "name the layer in keep_float, or take quantize: int8") from error
    return Stage("quantize", quantized, plan.quantized)


PRUNED, CLUSTERED = ("Conv1D", "Conv2D", "Conv2DTranspose", "Dense"), ("Conv1D", "Conv2D", "Dense")
"""Classes of layers whose `kernel` is pruned, and clustered; a DepthwiseConv2D has too few weights a channel."""


def kernels_of(model: Any) -> dict[str, Any]:
    """The kernel of every layer that has one, as a variable, by the layer's name; behind fake quantization too."""
    found = {}
    for layer in model.layers:
        own = [v for v in layer.trainable_weights if short_name(v) in ("kernel", "depthwise_kernel")]
        if len(own) == 1:
            found[layer.name] = own[0]
    return found


def layers_for(stage: str, model: Any, *, sparsity: float | str | None, clusters: int | None) -> tuple[str, ...]:
    """Names of the layers that a stage changes.

    Of `2:4` those whose input channels can be cut into blocks; for clusters those that have more weights than values.

    Raises:
        ConversionError: if there is none.
    """
    found = []
    for layer in model.layers:
        kind, kernel = type(layer).__name__, getattr(layer, "kernel", None)
        if kernel is None or kind not in (PRUNED if stage == "prune" else CLUSTERED):
            continue
        if stage == "prune" and sparsity == "2:4":
            if kind in ("Conv2D", "Dense") and kernel.shape[-2] % _BLOCK == 0:
                found.append(layer.name)
        elif stage == "prune" or (clusters is not None and kernel.shape.num_elements() > clusters):
            found.append(layer.name)
    if not found:
        what = f"prune: {sparsity}" if stage == "prune" else f"cluster: {clusters}"
        raise ConversionError(f"{what} fits no layer of the model", f"leave {stage} out")
    return tuple(found)


class Kept:
    """Keeps zeros and clusters of kernels while they are trained.

    All members of a cluster begin equal and get the sum of their gradients, as the toolkit's clustering has it: what
    an optimizer that works on single weights makes of them is equal again, to the bit.

    Args:
        model: that is trained.
        pruned: names of layers whose zeros stay.
        clustered: names of layers whose equal weights stay equal.
    """

    def __init__(self, model: Any, pruned: Collection[str], clustered: Collection[str]) -> None:
        tf = extras.tensorflow()
        self._masks: dict[Any, Any] = {}
        self._clusters: dict[Any, Any] = {}
        for name, kernel in kernels_of(model).items():
            values = kernel.numpy()
            if name in pruned:
                self._masks[kernel.ref()] = tf.constant(values != 0, kernel.dtype)
            if name in clustered:
                _, members = np.unique(values, return_inverse=True)
                self._clusters[kernel.ref()] = tf.constant(members.reshape(values.shape), tf.int32)

    def gradients(self, gradients: Sequence[Any], variables: Sequence[Any]) -> list[Any]:
        """The gradients that keep what is kept."""
        return [
            gradient if gradient is None else self._of_kept(gradient, variable.ref())
            for gradient, variable in zip(gradients, variables, strict=True)
        ]

    def _of_kept(self, gradient: Any, reference: Any) -> Any:
        tf = extras.tensorflow()
        if reference in self._masks:
            gradient = gradient * self._masks[reference]
        if reference in self._clusters:
            members = self._clusters[reference]
            sums = tf.math.unsorted_segment_sum(gradient, members, tf.reduce_max(members) + 1)
            gradient = tf.gather(sums, members)
        return gradient

    def put_back(self) -> None:
        """Sets the weights to zero that were; after every step: an optimizer may move what has no gradient."""
        for reference, mask in self._masks.items():
            variable = reference.deref()
            variable.assign(variable * mask)

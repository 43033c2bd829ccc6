"""What a model costs, layer by layer: shapes, parameters, multiply-accumulates, memory; for one sample at inference."""

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from mltool.errors import ArtifactError
from mltool.inspection.graph import Call, Shape, Tensor, calls_of
from mltool.inspection.macs import NotCountedError, count_macs

SortKey = Literal["parameters", "macs", "activations"]


@dataclass(frozen=True)
class Bytes:
    """A size in memory.

    Attributes:
        float32: four bytes a value; None where the number of values is not known before the model runs.
        int8: one byte a value; see where it stands for what has more.
    """

    float32: int | None
    int8: int | None


@dataclass(frozen=True)
class LayerSummary:
    """One layer, or one operation of a block.

    Attributes:
        layer: its name, below those of the models that it lies in, as `mel/rfft`.
        class_name: of Keras, or of the user.
        output_shapes: of one sample, an output each; None for a length that is not known before.
        parameters: values of its weights, trained or not; of a layer that is called twice, at its first call alone.
        trainable_parameters: those among them that training changes.
        macs: multiply-accumulates; None where they are not counted.
        activation_bytes: of its outputs; text counts nothing.
        not_counted: why `macs` is None.
    """

    layer: str
    class_name: str
    output_shapes: tuple[Shape, ...]
    parameters: int
    trainable_parameters: int
    macs: int | None
    activation_bytes: Bytes
    not_counted: str = ""


_SIZES: dict[SortKey, Callable[[LayerSummary], int]] = {
    "parameters": lambda layer: layer.parameters,
    "macs": lambda layer: -1 if layer.macs is None else layer.macs,
    "activations": lambda layer: -1 if layer.activation_bytes.float32 is None else layer.activation_bytes.float32,
}
"""What layers are sorted by; what is not known is less than nothing."""


@dataclass(frozen=True)
class ModelSummary:
    """A model, and its layers in the order in which they run.

    Attributes:
        name: of the model.
        parameters: values of all weights: `keras.Model.count_params()`; constants of blocks, such as mel filters, and
            vocabularies are none.
        trainable_parameters: those that training changes.
        macs: multiply-accumulates that were counted; the layers with `not_counted` are missing in it.
        weight_bytes: of all weights; in int8 the weights of less than two axes (biases, means) have four bytes, as
            LiteRT's int32 biases: "LiteRT 8-bit quantization specification".
        peak_activation_bytes: the largest sum of tensors that are alive at once, when the layers run one after the
            other in the order of the graph; a tensor lives from the layer that gives it (an input: from the beginning)
            until the last layer that takes it (an output: to the end), and none takes another's place.
        peak_layer: the layer at which that is.
        all_activation_bytes: the outputs of all layers together, as training keeps them for its way back.
        layers: in the order in which they run.
    """

    name: str
    parameters: int
    trainable_parameters: int
    macs: int
    weight_bytes: Bytes
    peak_activation_bytes: Bytes
    peak_layer: str
    all_activation_bytes: Bytes
    layers: tuple[LayerSummary, ...]

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: Any) -> "ModelSummary":
        """Reads what `to_json` gave.

        Raises:
            TypeError: if it is something else; LookupError and AttributeError likewise.
        """
        layers = tuple(
            LayerSummary(
                **{
                    **layer,
                    "output_shapes": tuple(tuple(shape) for shape in layer["output_shapes"]),
                    "activation_bytes": Bytes(**layer["activation_bytes"]),
                }
            )
            for layer in document["layers"]
        )
        sizes = {key: Bytes(**document[key]) for key in document if key.endswith("_bytes")}
        summary = cls(**{**document, **sizes, "layers": layers})
        _require_integers(summary)
        for layer in layers:
            _require_integers(layer)
        return summary

    def sorted_by(self, key: SortKey) -> "ModelSummary":
        """With the largest layers first; equal ones in the order in which they run, those not counted last."""
        return replace(self, layers=tuple(sorted(self.layers, key=_SIZES[key], reverse=True)))


def _require_integers(part: ModelSummary | LayerSummary) -> None:
    sizes = [value for size in vars(part).values() if isinstance(size, Bytes) for value in vars(size).values()]
    numbers = [part.parameters, part.trainable_parameters, part.macs, *sizes]
    if any(number is not None and not isinstance(number, int) for number in numbers):
        raise TypeError(f"a size is no integer (got {numbers})")


def load_summary(file: Path) -> ModelSummary:
    """The summary that training wrote; reads JSON, and needs no TensorFlow.

    Args:
        file: `model.json` of a run.

    Raises:
        ArtifactError: if it is damaged.
    """
    try:
        return ModelSummary.from_json(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, LookupError, AttributeError) as error:
        raise ArtifactError(f"{file} is damaged: {error}", "take it away, or train again") from error


def summarize(model: Any) -> ModelSummary:
    """What a model costs.

    Args:
        model: a functional keras.Model, such as `build_model` gives; models inside of it are told layer by layer.
    """
    calls, outputs = calls_of(model)
    seen: set[int] = set()
    layers = tuple(_layer(call, seen) for call in calls)
    peak, at = _peak(calls, outputs)
    weights = [math.prod(weight.shape) for weight in model.weights]
    in_int8 = sum(math.prod(weight.shape) * (1 if len(weight.shape) > 1 else 4) for weight in model.weights)
    return ModelSummary(
        name=model.name,
        parameters=sum(weights),
        trainable_parameters=sum(math.prod(weight.shape) for weight in model.trainable_weights),
        macs=sum(layer.macs or 0 for layer in layers),
        weight_bytes=Bytes(4 * sum(weights), in_int8),
        peak_activation_bytes=peak,
        peak_layer=at,
        all_activation_bytes=_bytes(tensor for call in calls for tensor in call.gives),
        layers=layers,
    )


def _layer(call: Call, seen: set[int]) -> LayerSummary:
    # Operations have no weights.
    weights = [] if id(call.operation) in seen else getattr(call.operation, "weights", [])
    trainable = getattr(call.operation, "trainable_weights", []) if weights else []
    seen.add(id(call.operation))
    macs, reason = None, ""
    try:
        macs = count_macs(call)
    except NotCountedError as error:
        reason = str(error)
    return LayerSummary(
        layer=call.path,
        class_name=getattr(call.operation, "shown_class", type(call.operation).__name__),
        output_shapes=tuple(tensor.shape for tensor in call.gives),
        parameters=sum(math.prod(weight.shape) for weight in weights),
        trainable_parameters=sum(math.prod(weight.shape) for weight in trainable),
        macs=macs,
        activation_bytes=_bytes(call.gives),
        not_counted=reason,
    )


def _bytes(tensors: Iterable[Tensor]) -> Bytes:
    sizes = [tensor.num_values for tensor in tensors]
    known = [size for size in sizes if size is not None]
    return Bytes(4 * sum(known), sum(known)) if len(known) == len(sizes) else Bytes(None, None)


def _peak(calls: Sequence[Call], outputs: Sequence[Tensor]) -> tuple[Bytes, str]:
    """The most that is alive at once, and the first layer at which it is."""
    last = _last_uses(calls, outputs)
    alive = {tensor for call in calls if not call.takes for tensor in call.gives}
    found = []
    for index, call in enumerate(calls):
        alive |= set(call.gives)
        found.append((_bytes(alive), call.path))
        alive = {tensor for tensor in alive if last.get(tensor, -1) > index}
    if any(size.float32 is None for size, _ in found):
        return Bytes(None, None), ""
    return max(found, key=lambda item: item[0].float32 or 0)


def _last_uses(calls: Sequence[Call], outputs: Sequence[Tensor]) -> Mapping[Tensor, int]:
    """Of every tensor the place of the last call that takes it; behind the last one for the outputs."""
    uses = {tensor: index for index, call in enumerate(calls) for tensor in call.takes}
    return uses | dict.fromkeys(outputs, len(calls))

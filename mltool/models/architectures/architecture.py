"""What every named architecture is: its arguments, a graph of Keras' own layers, and the head that answers."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from mltool import extras

Form = Literal["image", "series", "vector", "tokens"]
"""What an architecture takes; see `FORMS`."""

FORMS: dict[Form, tuple[str, int]] = {
    "image": ("an image, [height, width, channels]", 3),
    "series": ("a series, [steps, channels]", 2),
    "vector": ("[features]", 1),
    "tokens": ("token ids, [length]", 1),
}
"""In words, and the number of axes without the batch."""


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """A network with a head, as a block (see `models/blocks.py`): plain Keras layers with names of their own.

    Attributes:
        units: outputs of the head; None leaves it away, and the features are the output.
        activation: of the head; None gives logits.
    """

    units: int | None = None
    activation: Literal["softmax", "sigmoid"] | None = None

    def arguments(self) -> dict[str, Any]:
        """See `Block`."""
        return asdict(self)

    def head(self, features: Any, *, kernel_initializer: str = "glorot_uniform") -> Any:
        """The answer to features [batch, features]: [batch, units], or the features where there is no head."""
        if self.units is None:
            return features
        layers = extras.keras().layers
        return layers.Dense(self.units, activation=self.activation, kernel_initializer=kernel_initializer, name="head")(
            features
        )


def require_form(inputs: Any, form: Form) -> tuple[int, ...]:
    """The shape of one sample, which must be of the form that the architecture takes.

    Args:
        inputs: a Keras tensor [batch, ...].
        form: that the architecture takes.

    Raises:
        ValueError: if the shape is of another form, or an axis has no fixed size; it says how to mend it.
    """
    shape = tuple(inputs.shape[1:])
    words, axes = FORMS[form]
    if len(shape) == axes and None not in shape:
        return shape
    raise ValueError(f"it takes {words} of fixed size (got {_shown(shape)}): {_cure(shape, form)}")


def _cure(shape: tuple[int | None, ...], form: Form) -> str:
    """What to put before the architecture."""
    match form, shape:
        case "tokens", _:
            return "put TextVectorization: {output_sequence_length: 64} under preprocess"
        case _ if None in shape:
            return "bring the samples to one size first"
        case "vector", _ if len(shape) > 1:
            return "put Flatten before it"
        case ("image", (_, _)) | ("series", (_,)):
            return f"put Reshape: {{target_shape: {_shown((*shape, 1))}}} before it"
        case "series", (steps, *others):
            channels = 1
            for size in others:
                channels *= size or 1
            return f"put Reshape: {{target_shape: [{steps}, {channels}]}} before it"
        case _:
            return "take a layer for data of this form"


def _shown(shape: tuple[int | None, ...]) -> str:
    """A shape as a spec would write it."""
    return f"[{', '.join('any' if size is None else str(size) for size in shape)}]"

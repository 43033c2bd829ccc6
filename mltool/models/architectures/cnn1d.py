"""A plain convolutional network for series."""

from dataclasses import dataclass, field
from typing import Any

from mltool import extras
from mltool.models.architectures.architecture import Architecture, require_form
from mltool.models.architectures.convolution import normalize


@dataclass(frozen=True, kw_only=True)
class CNN1D(Architecture):
    """Stages of convolution, normalization, ReLU and pooling over steps, then the mean over all steps: see `CNN`.

    A stage from c to f channels with a kernel of k has k * c * f + 4 * f parameters.

    Takes float [batch, steps, channels]; gives [batch, units], or features [batch, filters[-1]].

    Attributes:
        filters: of every stage; each halves the steps, rounded up.
        kernel_size: of the convolutions, in steps.
        dropout: share of the features left out before the head.
        momentum: of the moving statistics of BatchNormalization.
    """

    filters: list[int] = field(default_factory=lambda: [32, 64, 128])
    kernel_size: int = 5
    dropout: float = 0.0
    momentum: float = 0.9

    def graph(self, inputs: Any) -> Any:
        """See `Block`."""
        require_form(inputs, "series")
        layers = extras.keras().layers
        tensor = inputs
        for number, filters in enumerate(self.filters, start=1):
            name = f"stage_{number}"
            convolution = layers.Conv1D(filters, self.kernel_size, padding="same", use_bias=False, name=f"{name}_conv")
            tensor = normalize(convolution(tensor), name, self.momentum)
            tensor = layers.MaxPooling1D(2, padding="same", name=f"{name}_pool")(tensor)
        tensor = layers.GlobalAveragePooling1D(name="pool")(tensor)
        if self.dropout:
            tensor = layers.Dropout(self.dropout, name="dropout")(tensor)
        return self.head(tensor)

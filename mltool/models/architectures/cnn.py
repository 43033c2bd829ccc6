"""A plain convolutional network for images."""

from dataclasses import dataclass, field
from typing import Any

from mltool import extras
from mltool.models.architectures.architecture import Architecture, require_form
from mltool.models.architectures.convolution import normalized


@dataclass(frozen=True, kw_only=True)
class CNN(Architecture):
    """Stages of convolution, normalization, ReLU and pooling, then the mean over all positions.

    The order is that of Ioffe and Szegedy, "Batch Normalization", 2015, section 3.2: normalized before the activation,
    and without a bias. A stage from c to f channels with a kernel of k has k * k * c * f + 4 * f parameters, half of
    the latter moving statistics.

    Takes float [batch, height, width, channels]; gives [batch, units], or features [batch, filters[-1]].

    Attributes:
        filters: of every stage; each halves height and width, rounded up.
        kernel_size: of the convolutions.
        dropout: share of the features left out before the head.
        momentum: of the moving statistics of BatchNormalization.
    """

    filters: list[int] = field(default_factory=lambda: [16, 32, 64])
    kernel_size: int = 3
    dropout: float = 0.0
    momentum: float = 0.9

    def graph(self, inputs: Any) -> Any:
        """See `Block`."""
        require_form(inputs, "image")
        layers = extras.keras().layers
        tensor = inputs
        for number, filters in enumerate(self.filters, start=1):
            name = f"stage_{number}"
            tensor = normalized(tensor, filters, self.kernel_size, use_bias=False, momentum=self.momentum, name=name)
            tensor = layers.MaxPooling2D(2, padding="same", name=f"{name}_pool")(tensor)
        tensor = layers.GlobalAveragePooling2D(name="pool")(tensor)
        if self.dropout:
            tensor = layers.Dropout(self.dropout, name="dropout")(tensor)
        return self.head(tensor)

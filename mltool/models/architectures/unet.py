"""A small U-Net for segmentation."""

from dataclasses import dataclass, field
from typing import Any

from mltool import extras
from mltool.models.architectures.architecture import Architecture, require_form
from mltool.models.architectures.convolution import normalized


@dataclass(frozen=True, kw_only=True)
class UNet(Architecture):
    """A way down, a way up, and a bridge between the two at every level.

    Ronneberger, Fischer and Brox, "U-Net: Convolutional Networks for Biomedical Image Segmentation", 2015, section 2,
    but with padding `same`, so that the answer is as large as the image, and with BatchNormalization unless it is said
    otherwise. The paper's own widths, [64, 128, 256, 512, 1024] with two units on one channel and without
    normalization, give 31,030,658 parameters, counted by hand: no number of the paper is known here.

    Takes float [batch, height, width, channels], both sides multiples of 2 ** (len(filters) - 1); gives
    [batch, height, width, units], or features [batch, height, width, filters[0]].

    Attributes:
        filters: of every level, from the top.
        batch_normalization: whether every convolution is normalized.
        dropout: share left out at the lowest level.
        momentum: of the moving statistics of BatchNormalization.
    """

    filters: list[int] = field(default_factory=lambda: [16, 32, 64])
    batch_normalization: bool = True
    dropout: float = 0.0
    momentum: float = 0.9

    def graph(self, inputs: Any) -> Any:
        """See `Block`."""
        self._require_sides(require_form(inputs, "image")[:2])
        layers = extras.keras().layers
        tensor, bridges = inputs, []
        *upper, lowest = enumerate(self.filters, start=1)
        for level, filters in upper:
            tensor = self._twice(tensor, filters, f"down_{level}")
            bridges.append(tensor)
            tensor = layers.MaxPooling2D(2, name=f"down_{level}_pool")(tensor)
        tensor = self._twice(tensor, lowest[1], f"down_{lowest[0]}")
        if self.dropout:
            tensor = layers.Dropout(self.dropout, name="dropout")(tensor)
        for (level, filters), bridge in zip(reversed(upper), reversed(bridges), strict=True):
            tensor = layers.Conv2DTranspose(filters, 2, strides=2, name=f"up_{level}_larger")(tensor)
            tensor = layers.Concatenate(name=f"up_{level}_join")([bridge, tensor])
            tensor = self._twice(tensor, filters, f"up_{level}")
        if self.units is None:
            return tensor
        return layers.Conv2D(self.units, 1, activation=self.activation, name="head")(tensor)

    def _require_sides(self, sides: tuple[int, ...]) -> None:
        """Every level halves them.

        Raises:
            ValueError: if one is no multiple of what the levels divide it by.
        """
        step = 2 ** (len(self.filters) - 1)
        if any(side % step for side in sides):
            height, width = (-(-side // step) * step for side in sides)
            message = (
                f"height and width must be multiples of {step} with {len(self.filters)} levels (got {list(sides)})"
            )
            raise ValueError(f"{message}: make the images {height} by {width}, or give fewer filters")

    def _twice(self, inputs: Any, filters: int, name: str) -> Any:
        """Two convolutions of 3x3 with ReLU."""
        tensor = inputs
        for part in (f"{name}_first", f"{name}_second"):
            if self.batch_normalization:
                tensor = normalized(tensor, filters, 3, use_bias=False, momentum=self.momentum, name=part)
            else:
                convolution = extras.keras().layers.Conv2D(
                    filters, 3, padding="same", activation="relu", name=f"{part}_conv"
                )
                tensor = convolution(tensor)
        return tensor

"""InceptionTime, a classifier of series."""

from dataclasses import dataclass, field
from typing import Any

from mltool import extras
from mltool.models.architectures.architecture import Architecture, require_form
from mltool.models.architectures.convolution import normalize


@dataclass(frozen=True, kw_only=True)
class InceptionTime(Architecture):
    """Modules of convolutions of several lengths, with a shortcut around every third.

    Ismail Fawaz et al., "InceptionTime: Finding AlexNet for Time Series Classification", 2020, section 3, as in the
    authors' `Classifier_INCEPTION` (github hfawaz/InceptionTime). The paper's classifier is an ensemble of five such
    networks, which is not made here. On series of one channel with units=u it has 422,240 + 129 * u parameters, counted
    by hand: no published number is known here.

    Takes float [batch, steps, channels]; gives [batch, units], or features [batch, (len(kernel_sizes) + 1) * filters].

    Attributes:
        depth: modules.
        filters: of each of a module's convolutions.
        kernel_sizes: of a module's convolutions, in steps.
        bottleneck: channels that these work on; None: all. A series of one channel has no bottleneck before it.
        residual_every: modules that a shortcut leads around; None: no shortcuts.
        momentum: of the moving statistics of BatchNormalization.
    """

    depth: int = 6
    filters: int = 32
    kernel_sizes: list[int] = field(default_factory=lambda: [10, 20, 40])
    bottleneck: int | None = 32
    residual_every: int | None = 3
    momentum: float = 0.9

    def graph(self, inputs: Any) -> Any:
        """See `Block`."""
        require_form(inputs, "series")
        layers = extras.keras().layers
        tensor = shortcut = inputs
        for number in range(1, self.depth + 1):
            tensor = self._module(tensor, f"module_{number}")
            if self.residual_every and number % self.residual_every == 0:
                tensor = shortcut = self._add(shortcut, tensor, f"shortcut_{number // self.residual_every}")
        return self.head(layers.GlobalAveragePooling1D(name="pool")(tensor))

    def _module(self, inputs: Any, name: str) -> Any:
        """One inception module."""
        layers = extras.keras().layers
        narrow = inputs
        if self.bottleneck and inputs.shape[-1] > 1:
            narrow = _convolution(inputs, self.bottleneck, 1, f"{name}_bottleneck")
        parts = [
            _convolution(narrow, self.filters, size, f"{name}_conv_{number}")
            for number, size in enumerate(self.kernel_sizes, start=1)
        ]
        pooled = layers.MaxPooling1D(3, strides=1, padding="same", name=f"{name}_pool")(inputs)
        parts.append(_convolution(pooled, self.filters, 1, f"{name}_pool_conv"))
        joined = layers.Concatenate(name=f"{name}_join")(parts)
        return normalize(joined, name, self.momentum)

    def _add(self, shortcut: Any, tensor: Any, name: str) -> Any:
        """The sum with a shortcut that is brought to as many channels."""
        layers = extras.keras().layers
        shortcut = _convolution(shortcut, tensor.shape[-1], 1, f"{name}_conv")
        shortcut = normalize(shortcut, name, self.momentum, relu=False)
        return layers.ReLU(name=f"{name}_relu")(layers.Add(name=f"{name}_add")([shortcut, tensor]))


def _convolution(inputs: Any, filters: int, kernel_size: int, name: str) -> Any:
    layers = extras.keras().layers
    return layers.Conv1D(filters, kernel_size, padding="same", use_bias=False, name=name)(inputs)

"""MobileNetV1, the person detector of MLPerf Tiny."""

from dataclasses import dataclass
from typing import Any

from mltool.models.architectures.architecture import Architecture, require_form
from mltool.models.architectures.convolution import mean_of_positions, normalized, normalized_depthwise, penalty

_BLOCKS = (
    *((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2)),
    *((512, 1), (512, 1), (512, 1), (512, 1), (512, 1), (1024, 2), (1024, 1)),
)
"""Filters at alpha 1, and strides of the depthwise convolution: table 1 of the paper."""


@dataclass(frozen=True, kw_only=True)
class MobileNetV1(Architecture):
    """Thirteen depthwise separable convolutions (Howard et al., "MobileNets", 2017, table 1).

    As `mobilenet_v1` of the MLPerf Tiny reference (Banbury et al., "MLPerf Tiny Benchmark", 2021; github
    mlcommons/tiny, v0.1/benchmarks/visual_wake_words/vww_model.py): 221,794 parameters on 96x96x3 with units=2, those
    of BatchNormalization's moving statistics among them. Unlike `keras.applications.MobileNet`, convolutions have a
    bias and the activation is ReLU. The reference has penalty and initializer of depthwise kernels in arguments that
    Keras 2 takes and passes by (`kernel_regularizer`), so they are Keras' own here; the paper, too, wants little or no
    penalty on them (section 3.2).

    Takes float [batch, height, width, channels]; gives [batch, units], or features [batch, alpha * 1024].

    Attributes:
        alpha: width: the share of the paper's filters, rounded down, at least 1.
        l2: penalty on the kernels of the convolutions, but not of the depthwise ones.
        momentum: of the moving statistics of BatchNormalization.
    """

    alpha: float = 0.25
    l2: float = 1e-4
    momentum: float = 0.9

    def graph(self, inputs: Any) -> Any:
        """See `Block`."""
        require_form(inputs, "image")
        options = {"kernel_initializer": "he_normal", "kernel_regularizer": penalty(self.l2), "momentum": self.momentum}
        tensor = normalized(inputs, self._width(32), 3, strides=2, name="stem", **options)
        for number, (filters, strides) in enumerate(_BLOCKS, start=1):
            tensor = normalized_depthwise(
                tensor, strides=strides, name=f"block_{number}_depthwise", momentum=self.momentum
            )
            tensor = normalized(tensor, self._width(filters), 1, name=f"block_{number}_pointwise", **options)
        return self.head(mean_of_positions(tensor))

    def _width(self, filters: int) -> int:
        return max(1, int(filters * self.alpha))

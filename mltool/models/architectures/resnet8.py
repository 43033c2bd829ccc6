"""ResNet8, the image classifier of MLPerf Tiny."""

from dataclasses import dataclass
from typing import Any

from mltool import extras
from mltool.models.architectures.architecture import Architecture, require_form
from mltool.models.architectures.convolution import mean_of_positions, normalized, penalty


@dataclass(frozen=True, kw_only=True)
class ResNet8(Architecture):
    """Residual network of three blocks (He et al., "Deep Residual Learning for Image Recognition", 2015).

    As `resnet_v1_eembc` of the MLPerf Tiny reference (Banbury et al., "MLPerf Tiny Benchmark", 2021; github
    mlcommons/tiny, benchmark/training/image_classification/keras_model.py): 78,666 parameters on 32x32x3 with
    units=10, 78,186 of them trainable: the published number counts BatchNormalization's moving statistics. The
    shortcuts are convolutions of 1x1 without normalization, as there.

    Takes float [batch, height, width, channels]; gives [batch, units], or features [batch, 4 * filters].

    Attributes:
        filters: of the first block; twice and four times as many in the others.
        l2: penalty on the kernels of the convolutions.
        momentum: of the moving statistics of BatchNormalization.
    """

    filters: int = 16
    l2: float = 1e-4
    momentum: float = 0.9

    def graph(self, inputs: Any) -> Any:
        """See `Block`."""
        require_form(inputs, "image")
        keras = extras.keras()
        options = {"kernel_initializer": "he_normal", "kernel_regularizer": penalty(self.l2)}
        normal = {**options, "momentum": self.momentum}
        tensor = normalized(inputs, self.filters, 3, name="stem", **normal)
        for number, strides in enumerate((1, 2, 2), start=1):
            name, filters = f"block_{number}", self.filters * 2 ** (number - 1)
            inner = normalized(tensor, filters, 3, strides=strides, name=f"{name}_first", **normal)
            inner = normalized(inner, filters, 3, relu=False, name=f"{name}_second", **normal)
            if strides > 1:
                shortcut = keras.layers.Conv2D(
                    filters, 1, strides=strides, padding="same", name=f"{name}_shortcut", **options
                )
                tensor = shortcut(tensor)
            tensor = keras.layers.Add(name=f"{name}_add")([tensor, inner])
            tensor = keras.layers.ReLU(name=f"{name}_relu")(tensor)
        return self.head(mean_of_positions(tensor), kernel_initializer="he_normal")

"""DS-CNN, the keyword spotter of MLPerf Tiny."""

from dataclasses import dataclass, field
from typing import Any

from mltool import extras
from mltool.models.architectures.architecture import Architecture, require_form
from mltool.models.architectures.convolution import mean_of_positions, normalized, normalized_depthwise, penalty


@dataclass(frozen=True, kw_only=True)
class DSCNN(Architecture):
    """Depthwise separable convolutions over a spectrogram.

    Zhang et al., "Hello Edge: Keyword Spotting on Microcontrollers", 2017.

    As `ds_cnn` of the MLPerf Tiny reference (Banbury et al., "MLPerf Tiny Benchmark", 2021; github mlcommons/tiny,
    v0.1/benchmarks/audio_wake_words/keras_model.py): 24,908 parameters on 49x10x1 with units=12, those of
    BatchNormalization's moving statistics among them. The reference has the penalty on depthwise kernels in an argument
    that Keras 2 takes and passes by (`kernel_regularizer`), so there is none here. Its later version pools 24 of the 25
    frames that are left of 49 (`int(49 / 2)`); here, as in the first version, all are pooled.

    Takes float [batch, frames, bands, channels]; gives [batch, units], or features [batch, filters].

    Attributes:
        filters: of every convolution.
        blocks: depthwise separable convolutions.
        kernel_size: of the first convolution, in frames and bands.
        strides: of the first convolution.
        stem_dropout: share left out after the first convolution.
        dropout: share left out before the pooling.
        l2: penalty on the kernels of the convolutions, but not of the depthwise ones.
        momentum: of the moving statistics of BatchNormalization.
    """

    filters: int = 64
    blocks: int = 4
    kernel_size: list[int] = field(default_factory=lambda: [10, 4])
    strides: list[int] = field(default_factory=lambda: [2, 2])
    stem_dropout: float = 0.2
    dropout: float = 0.4
    l2: float = 1e-4
    momentum: float = 0.9

    def graph(self, inputs: Any) -> Any:
        """See `Block`."""
        require_form(inputs, "image")
        keras = extras.keras()
        options = {"kernel_regularizer": penalty(self.l2), "momentum": self.momentum}
        tensor = normalized(inputs, self.filters, self.kernel_size, strides=self.strides, name="stem", **options)
        tensor = keras.layers.Dropout(self.stem_dropout, name="stem_dropout")(tensor)
        for number in range(1, self.blocks + 1):
            tensor = normalized_depthwise(tensor, name=f"block_{number}_depthwise", momentum=self.momentum)
            tensor = normalized(tensor, self.filters, 1, name=f"block_{number}_pointwise", **options)
        tensor = keras.layers.Dropout(self.dropout, name="dropout")(tensor)
        return self.head(mean_of_positions(tensor))

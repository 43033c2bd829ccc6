"""The fully connected autoencoder of MLPerf Tiny."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from mltool import extras
from mltool.models.architectures.architecture import require_form
from mltool.models.architectures.convolution import normalize


@dataclass(frozen=True, kw_only=True)
class Autoencoder:
    """Gives its input back through a bottleneck; what it gives back badly is unlike what it learned from.

    As `get_model` of the MLPerf Tiny reference (Banbury et al., "MLPerf Tiny Benchmark", 2021; github mlcommons/tiny,
    v0.1/benchmarks/anomaly_detection/keras_model.py, after the baseline of DCASE 2020 task 2, Koizumi et al. 2020):
    269,992 parameters on 640 features, those of BatchNormalization's moving statistics among them.

    Takes float [batch, features]; gives [batch, features], or the bottleneck [batch, bottleneck] without a decoder.

    Attributes:
        hidden: units of every hidden layer.
        bottleneck: units of the layer in the middle.
        depth: hidden layers before the bottleneck, and again after it.
        decoder: whether the input is given back.
        momentum: of the moving statistics of BatchNormalization.
        activation: of the last layer of the decoder.
    """

    hidden: int = 128
    bottleneck: int = 8
    depth: int = 4
    decoder: bool = True
    momentum: float = 0.9
    activation: Literal["softmax", "sigmoid"] | None = None

    def arguments(self) -> dict[str, Any]:
        """See `Block`."""
        return asdict(self)

    def graph(self, inputs: Any) -> Any:
        """See `Block`."""
        (features,) = require_form(inputs, "vector")
        tensor = inputs
        for number in range(1, self.depth + 1):
            tensor = self._dense(tensor, self.hidden, f"encoder_{number}")
        tensor = self._dense(tensor, self.bottleneck, "bottleneck")
        if not self.decoder:
            return tensor
        for number in range(1, self.depth + 1):
            tensor = self._dense(tensor, self.hidden, f"decoder_{number}")
        return extras.keras().layers.Dense(features, activation=self.activation, name="head")(tensor)

    def _dense(self, inputs: Any, units: int, name: str) -> Any:
        """A dense layer, normalized, with ReLU."""
        return normalize(extras.keras().layers.Dense(units, name=f"{name}_dense")(inputs), name, self.momentum)

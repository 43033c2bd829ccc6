"""A multilayer perceptron."""

from dataclasses import dataclass, field
from typing import Any

from mltool import extras
from mltool.models.architectures.architecture import Architecture, require_form


@dataclass(frozen=True, kw_only=True)
class MLP(Architecture):
    """Dense layers with ReLU (Goodfellow et al., "Deep Learning", 2016, chapter 6), and dropout after each.

    Takes float [batch, features]; gives [batch, units], or features [batch, hidden[-1]]. From n features, hidden
    layers h1, h2, ... have n * h1 + h1, h1 * h2 + h2, ... parameters.

    Attributes:
        hidden: units of every hidden layer.
        dropout: share left out after every hidden layer.
    """

    hidden: list[int] = field(default_factory=lambda: [64, 64])
    dropout: float = 0.0

    def graph(self, inputs: Any) -> Any:
        """See `Block`."""
        require_form(inputs, "vector")
        layers = extras.keras().layers
        tensor = inputs
        for number, units in enumerate(self.hidden, start=1):
            tensor = layers.Dense(units, activation="relu", name=f"hidden_{number}")(tensor)
            if self.dropout:
                tensor = layers.Dropout(self.dropout, name=f"dropout_{number}")(tensor)
        return self.head(tensor)

"""A small transformer encoder for text."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from mltool import extras
from mltool.models.architectures.architecture import Architecture, require_form


@dataclass(frozen=True, kw_only=True)
class TextTransformer(Architecture):
    """Embeddings of tokens and positions, encoder blocks, and the mean over all tokens.

    The blocks are those of Vaswani et al., "Attention Is All You Need", 2017, section 3.1: attention and feed-forward
    network, each with dropout, a residual and LayerNormalization after it; a head works on embed_dim / num_heads values
    (section 3.2.2). Positions are learned. There is no mask: padding (id 0) is a token like others, because the mask's
    great negative numbers would take up the scale of an int8 file.

    With vocabulary v, length n, width d and feed-forward f it has (v + n) * d parameters, each block another
    4 * d * (d + 1) for attention, 2 * d * f + f + d for the feed-forward network and 4 * d for normalization.

    Takes ids [batch, length] of any dtype; gives [batch, units], or features [batch, embed_dim].

    Attributes:
        vocabulary_size: number of ids.
        embed_dim: values a token; a multiple of num_heads.
        num_heads: of the attention.
        ff_dim: units between the two layers of a feed-forward network.
        num_blocks: encoder blocks.
        dropout: share left out of embeddings, attention, residuals and features.
    """

    vocabulary_size: int
    embed_dim: int = 32
    num_heads: int = 2
    ff_dim: int = 32
    num_blocks: int = 1
    dropout: float = 0.1

    def graph(self, inputs: Any) -> Any:
        """See `Block`."""
        (length,) = require_form(inputs, "tokens")
        keras = extras.keras()
        ids = keras.ops.cast(inputs, "int32")
        # A constant alone would be no part of the graph. Ones times positions fold into a constant where the batch is
        # fixed; zeros plus positions do not, and are a BiasAdd, which LiteRT does not have for integers.
        positions = keras.ops.ones_like(ids) * np.arange(length, dtype=np.int32)
        tensor = keras.layers.Add(name="embedding")(
            [
                keras.layers.Embedding(self.vocabulary_size, self.embed_dim, name="tokens")(ids),
                keras.layers.Embedding(length, self.embed_dim, name="positions")(positions),
            ]
        )
        tensor = keras.layers.Dropout(self.dropout, name="embedding_dropout")(tensor)
        for number in range(1, self.num_blocks + 1):
            tensor = self._block(tensor, f"block_{number}")
        tensor = keras.layers.GlobalAveragePooling1D(name="pool")(tensor)
        return self.head(keras.layers.Dropout(self.dropout, name="dropout")(tensor))

    def _block(self, inputs: Any, name: str) -> Any:
        layers = extras.keras().layers
        attention = layers.MultiHeadAttention(
            self.num_heads, self.embed_dim // self.num_heads, dropout=self.dropout, name=f"{name}_attention"
        )
        tensor = self._residual(inputs, attention(inputs, inputs), f"{name}_attention")
        inner = layers.Dense(self.ff_dim, activation="relu", name=f"{name}_ff_inner")(tensor)
        inner = layers.Dense(self.embed_dim, name=f"{name}_ff_outer")(inner)
        return self._residual(tensor, inner, f"{name}_ff")

    def _residual(self, shortcut: Any, tensor: Any, name: str) -> Any:
        layers = extras.keras().layers
        tensor = layers.Dropout(self.dropout, name=f"{name}_dropout")(tensor)
        tensor = layers.Add(name=f"{name}_add")([shortcut, tensor])
        return layers.LayerNormalization(epsilon=1e-6, name=f"{name}_norm")(tensor)

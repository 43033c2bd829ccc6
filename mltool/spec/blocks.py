"""Blocks of ours among the layers: preprocessing that Keras has no layer for, built of Keras' own operations.

Each is a plain Keras graph in the model, so that every artifact holds it and plain Keras loads it. The form is that of
`catalogue.json`; `models/blocks.py` builds them, and a test holds the two tables equal.
"""

from typing import Any, Final

BLOCKS: Final[dict[str, dict[str, Any]]] = {
    "FillMissing": {
        "arguments": {"value": ["'mean'|number", "mean"], "name": ["name|null", None]},
        "call": ["inputs"],
    },
}
"""By name: arguments with their types and defaults, in the language of `argument_types`."""

BLOCK_DOCS: Final[dict[str, dict[str, str]]] = {
    "FillMissing": {
        "": "Puts a value where a number is missing (NaN).",
        "value": "The mean of the column in the training data, or a number.",
    },
}
"""By name and argument ("" is the block itself): the description in the JSON Schema."""

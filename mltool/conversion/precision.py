"""What of a model is to be quantized how: one scheme for all layers, others for those that a pattern names."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from mltool.conversion.schemes import BLOCK_SIZES
from mltool.errors import ConversionError
from mltool.spec.argument_check import did_you_mean

FLOAT_ACTIVATIONS = frozenset({"float32", "dynamic", "weight-only", "int4"})
"""Schemes of one layer whose activations are float: they need no calibration."""

LAYER_SCHEMES = ("float32", "dynamic", "weight-only", "int4", "int8", "int16x8")
"""Schemes that one layer can have: `dynamic` has int8 weights and computes in int8 on the way, `weight-only` unpacks
them and computes in float, `int4` has 4-bit weights and float activations, the last two have integer activations."""

GRANULARITIES = ("channel", "tensor", "block")
"""What shares a scale: the weights of one output channel, all of a layer, or a block of the inputs of one channel."""

IO_SCHEMES: Mapping[str, tuple[str, ...]] = {
    "float32": LAYER_SCHEMES,
    "int8": ("int8",),
    "uint8": ("int8",),
    "int16": ("int16x8",),
}
"""Types of inputs and outputs, and the default schemes that can have them."""


@dataclass(frozen=True)
class Precision:
    """What is to be quantized how.

    Attributes:
        default: a name in `LAYER_SCHEMES`, for all layers that no pattern matches.
        layers: regular expressions of whole layer names, as the spec has them, to schemes; the first that matches wins.
        granularity: what shares a scale among weights; a name in `GRANULARITIES`.
        block_size: inputs of one block, with `granularity: block` and in int4 only; else `None`.
        io: type of quantizable inputs and outputs.

    Raises:
        ConversionError: for what is not in these lists, a pattern that is no regular expression, or what cannot go
            together.
    """

    default: str = "int8"
    layers: Mapping[str, str] = field(default_factory=dict)
    granularity: str = "channel"
    block_size: int | None = None
    io: str = "float32"

    def __post_init__(self) -> None:
        for scheme in (self.default, *self.layers.values()):
            _require_one_of("scheme of a layer", scheme, LAYER_SCHEMES)
        _require_one_of("granularity", self.granularity, GRANULARITIES)
        _require_one_of("io", self.io, tuple(IO_SCHEMES))
        for pattern in self.layers:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ConversionError(
                    f"layers: {pattern!r} is no regular expression: {error}", "a layer's own name is one"
                ) from error
        self._check_blocks()
        if self.default not in IO_SCHEMES[self.io]:
            raise ConversionError(
                f"io: {self.io} needs {' or '.join(IO_SCHEMES[self.io])} as default scheme (got {self.default})",
                "leave io out, and inputs and outputs are float32",
            )

    def _check_blocks(self) -> None:
        if self.granularity != "block":
            if self.block_size is not None:
                raise ConversionError(
                    f"block_size ({self.block_size}) needs granularity: block (got {self.granularity})",
                    "leave block_size out",
                )
            return
        if self.block_size not in BLOCK_SIZES:
            allowed = ", ".join(map(str, BLOCK_SIZES))
            raise ConversionError(f"block_size must be one of {allowed} (got {self.block_size})")
        if "int4" not in self.schemes:
            raise ConversionError(
                f"granularity: block needs a layer in int4 (got {', '.join(sorted(self.schemes))})",
                "8-bit weights have a scale per channel or one per tensor",
            )

    @property
    def schemes(self) -> frozenset[str]:
        """All that are named."""
        return frozenset({self.default, *self.layers.values()})

    @property
    def calibrated(self) -> bool:
        """Whether a layer has integer activations, whose ranges samples must tell."""
        return bool(self.schemes - FLOAT_ACTIVATIONS)

    def scheme_of(self, layers: Iterable[str]) -> str:
        """The scheme of an operator that came from these layers: of the first pattern that matches one of them."""
        names = list(layers)
        for pattern, scheme in self.layers.items():
            if any(matches(pattern, name) for name in names):
                return scheme
        return self.default

    def keeping_float(self, names: Sequence[str]) -> "Precision":
        """The same, with these layers in float before all patterns."""
        kept = {re.escape(name): "float32" for name in names}
        layers = {**kept, **{pattern: scheme for pattern, scheme in self.layers.items() if pattern not in kept}}
        return Precision(self.default, layers, self.granularity, self.block_size, self.io)

    def require_matches(self, layer_names: Sequence[str]) -> None:
        """Proves that every pattern names a layer.

        Raises:
            ConversionError: naming the patterns that match none.
        """
        for pattern in self.layers:
            if not any(matches(pattern, name) for name in layer_names):
                hint = did_you_mean(pattern, list(layer_names)) or f"the layers are {', '.join(layer_names)}"
                raise ConversionError(f"layers: no layer matches {pattern!r}", hint)


def matches(pattern: str, name: str) -> bool:
    """Whether a pattern names a layer, or the block or model that it lies in: `body` is `body/first` too."""
    parts = name.split("/")
    return any(re.fullmatch(pattern, "/".join(parts[:end])) for end in range(1, len(parts) + 1))


def _require_one_of(what: str, value: object, allowed: Sequence[str]) -> None:
    if value not in allowed:
        hint = did_you_mean(value, list(allowed)) if isinstance(value, str) else ""
        raise ConversionError(f"{what} must be one of {', '.join(allowed)} (got {value!r})", hint)

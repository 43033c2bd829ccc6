"""The `convert` section: a list of `.tflite` files to make of one SavedModel."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, Strict, model_validator

from mltool.spec.argument_check import did_you_mean, shown
from mltool.spec.aware import AwareSpec
from mltool.spec.catalogue import Problem
from mltool.spec.limits import LimitsSpec
from mltool.spec.search import SearchSpec
from mltool.spec.section import Checked, Later, Section, raise_problem, raise_problems

SHORT: Mapping[str, Mapping[str, Any]] = {
    "int8-io": {"quantize": "int8", "io": "int8"},
    "int8-tensor": {"quantize": "int8", "granularity": "tensor"},
    "int4-block32": {"quantize": "int4", "block_size": 32},
}
"""What a short name of a scheme means."""

SCHEMES = (
    *("none", "dynamic", "float16", "int8", "int8-io", "int8-tensor", "int16x8", "int4", "int4-block32"),
    *("weight-only", "qat", "auto"),
)
"""What `--quantize` takes beside a recipe file."""

RECIPE_ENDING = ".json"
"""A scheme that ends so is a recipe file of the quantizer."""

CALIBRATED = ("int8", "int16x8", "qat", "auto")
"""Schemes whose files need samples to be made, whatever else the entry says."""

LAYER_SCHEMES = ("float32", "dynamic", "int8", "int16x8", "int4", "weight-only")
"""What `layers:` may ask for."""

LEAST_SAMPLES = 8
"""Samples that calibrate a file; fewer leave the ranges of activations to chance."""

IO: Mapping[str, tuple[str, ...]] = {
    "int8": ("float32", "int8", "uint8"),
    "qat": ("float32", "int8", "uint8"),
    "auto": ("float32", "int8", "uint8"),
    "int16x8": ("float32", "int16"),
}
"""Types that inputs and outputs can have, by scheme; float32 alone for all others."""

_KEYS_OF_SCHEMES: Mapping[str, tuple[str, ...]] = {
    "keep_float": ("int8", "int16x8", "qat", "auto"),
    "granularity": ("int8", "qat", "auto", "int4", "weight-only", "int16x8"),
    "block_size": ("int4",),
    "layers": ("none", "dynamic", "int8", "int16x8", "int4", "weight-only"),
    "qat": ("qat", "auto"),
    "search": ("auto",),
}
"""Schemes that a key is for; with another it would be without effect, and is refused."""

RESERVED = ("input", "labels", "vectors", "rejected")
"""Names that other files in the folder of a .tflite have."""

RESERVED_ENDINGS = (".vocabulary", ".explain", ".search", ".recipe")
"""Endings of files beside a .tflite that its name must not look like."""


def _check_batch(value: Any) -> Any:
    if value == "dynamic" or (isinstance(value, int) and not isinstance(value, bool) and value > 0):
        return value
    return raise_problem(f"must be a whole number above 0 or 'dynamic' (got {shown(value)})", "write batch: 1")


def is_recipe(scheme: str) -> bool:
    """Whether what stands for a scheme is a recipe file."""
    return scheme.endswith(RECIPE_ENDING)


def _check_scheme(value: Any) -> str:
    if isinstance(value, str) and (value in SCHEMES or (is_recipe(value) and value != RECIPE_ENDING)):
        return value
    hint = (did_you_mean(value, SCHEMES) if isinstance(value, str) else "") or f"one of: {', '.join(SCHEMES)}"
    return raise_problem(f"must be a scheme or a recipe file, FILE.json (got {shown(value)})", hint)


def _check_layers(value: Any) -> dict[str, str]:
    if not isinstance(value, Mapping):
        raise_problem(f"must be a map of patterns to schemes (got {shown(value)})", "write layers: {dense.*: int16x8}")
    raise_problems(_layer_problems(value), value)
    return dict(value)


def _layer_problems(value: Mapping[Any, Any]) -> Iterable[Problem]:
    for pattern, scheme in value.items():
        if not isinstance(pattern, str) or not _compiles(pattern):
            hint = "a pattern is matched against whole names of layers: dense_.*"
            yield Problem((str(pattern),), True, f"is no regular expression (got {shown(pattern)})", hint)
        elif scheme not in LAYER_SCHEMES:
            hint = (did_you_mean(scheme, LAYER_SCHEMES) if isinstance(scheme, str) else "") or (
                f"one of: {', '.join(LAYER_SCHEMES)}"
            )
            yield Problem((pattern,), False, f"must be a scheme of a layer (got {shown(scheme)})", hint)


def _compiles(pattern: str) -> bool:
    try:
        re.compile(pattern)
    except re.error:
        return False
    return True


class ConvertSpec(Section):
    """One `.tflite` file."""

    quantize: Annotated[
        str,
        Checked(_check_scheme, lambda: {"anyOf": [{"enum": list(SCHEMES)}, {"type": "string", "pattern": r"\.json$"}]}),
    ] = "none"
    """The scheme: none, dynamic, float16, int8, int8-io (int8 at both ends, too), int8-tensor, int16x8, int4,
    int4-block32, weight-only, qat (trained on with quantization), auto (searched for), or a recipe file."""
    io: Literal["float32", "int8", "uint8", "int16"] = "float32"
    """Type of the file's inputs and outputs; integers with int8, qat and int16x8 only."""
    name: Annotated[
        str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$", json_schema_extra=lambda schema: schema.pop("default"))
    ] = ""
    """Name of the file; its scheme when left out."""
    target: Annotated[Any, Later()] = None
    """Where the file will run."""
    batch: Annotated[
        int | Literal["dynamic"],
        Checked(_check_batch, lambda: {"anyOf": [{"const": "dynamic"}, {"type": "integer", "minimum": 1}]}),
    ] = 1
    """Samples of one call: a fixed number, or dynamic."""
    representative: Annotated[int, Field(ge=LEAST_SAMPLES)] = 128
    """Training samples that calibrate the file, at least 8 (accuracy was measured flat from 25)."""
    calibration: Literal["training", "random"] = "training"
    """What calibrates: `training` samples, or `random` numbers in their range, which leaves the accuracy unknown."""
    preprocess: Annotated[Literal["auto", "inside"], Later(values=("outside",))] = "auto"
    """`auto` keeps Normalization, FillMissing, LogMel and MFCC in float where inputs are float; `inside`
    quantizes them, too."""
    keep_float: Annotated[tuple[str, ...], Strict(False)] = ()
    """Names of layers that stay in float, where inputs and outputs are float."""
    granularity: Literal["channel", "tensor"] = "channel"
    """Whether a weight has a scale for each of its channels, or one."""
    block_size: Literal[32, 64, 128, 256] | None = None
    """Values of a channel that share a scale, for weights of Dense layers; the whole channel when left out."""
    layers: Annotated[
        Mapping[str, str],
        Checked(_check_layers, lambda: {"type": "object", "additionalProperties": {"enum": list(LAYER_SCHEMES)}}),
    ] = {}
    """Layers of another scheme: a pattern of their names (`body` is `body/first`, too), and float32, dynamic, int8,
    int16x8, int4 or weight-only."""
    qat: AwareSpec | None = None
    """How the model is trained on, for `quantize: qat`."""
    search: SearchSpec | None = None
    """How `quantize: auto` looks for the file."""
    limits: LimitsSpec | None = None
    """Limits of this file; the spec's when left out."""

    @model_validator(mode="before")
    @classmethod
    def _spell_out(cls, value: Any) -> Any:
        """`int8-io` and its like are short for several keys; a file without a name is called after its scheme."""
        if not isinstance(value, dict):
            return value
        value = dict(value)
        short = value.get("quantize")
        for key, meant in SHORT.get(short, {}).items() if isinstance(short, str) else ():
            if key == "quantize" or value.setdefault(key, meant) == meant:
                value[key] = meant
                continue
            hint = f"write quantize: {SHORT[short]['quantize']}, {key}: {value[key]}"
            raise_problem(f"contradicts quantize: {short} (got {shown(value[key])})", hint, path=(key,))
        value.setdefault("name", _name_of(value))
        return value

    @model_validator(mode="after")
    def _name_says_what_it_is(self) -> "ConvertSpec":
        own, name = _name_of(self.model_dump()), self.name.lower()
        if is_recipe(self.quantize):
            own = ""  # a recipe is no scheme, whatever its file is called
        taken = (*SCHEMES, "int8-uint8", "int16x8-io", "qat-io", "qat-uint8", "auto-io", "auto-uint8")
        if name in taken and name != own:
            what = f"another scheme than {own}" if own else "a scheme, which a recipe is not"
            message = f"{self.name!r} is the name of {what}"
            raise_problem(message, "give it another name", path=("name",))
        if name in RESERVED or name.endswith(RESERVED_ENDINGS):
            raise_problem(f"{self.name!r} is the name of another file in lite/", "take another", path=("name",))
        return self

    @model_validator(mode="after")
    def _keys_fit(self) -> "ConvertSpec":
        raise_problems(self._misfits(), None)
        return self

    def _misfits(self) -> Iterable[Problem]:
        """Keys that say nothing, or the contrary, beside the scheme."""
        if self.io not in IO.get(self.quantize, ("float32",)):
            able = [name for name, types in IO.items() if self.io in types]
            message = f"{self.io} needs quantize: {' or '.join(able)} (got quantize: {self.quantize})"
            yield Problem(("io",), False, message, "leave io out")
        elif self.keep_float and self.io != "float32":
            message = f"needs io: float32 (got quantize: {self.quantize}, io: {self.io})"
            yield Problem(("keep_float",), True, message, "leave keep_float out")
        for key, schemes in _KEYS_OF_SCHEMES.items():
            if getattr(self, key) != type(self).model_fields[key].get_default() and self.quantize not in schemes:
                message = f"needs quantize: {', '.join(schemes)} (got quantize: {self.quantize}, io: {self.io})"
                yield Problem((key,), True, message, f"leave {key} out")
        if self.block_size and self.granularity == "tensor":
            yield Problem(("block_size",), True, "contradicts granularity: tensor", "leave one of them out")
        if self.calibration == "random" and not self.calibrated:
            message = f"is for schemes that are calibrated (got quantize: {self.quantize})"
            yield Problem(("calibration",), True, message, "leave calibration out")
        if self.calibration == "random" and self.quantize == "auto":
            message = "a search measures accuracy, which random calibration leaves unknown"
            yield Problem(("calibration",), False, message, "leave calibration out")

    @property
    def written(self) -> dict[str, Any]:
        """The keys that say more than their defaults: what to write into a spec to have the same file again."""
        plain = self.model_dump(mode="json", exclude_defaults=True)
        return {"quantize": self.quantize, **{key: value for key, value in plain.items() if key != "limits"}}

    @property
    def calibrated(self) -> bool:
        """Whether samples are needed to make the file; of a recipe that is known when it is read, and assumed here."""
        return (
            self.quantize in CALIBRATED
            or is_recipe(self.quantize)
            or any(scheme in CALIBRATED for scheme in self.layers.values())
        )

    @property
    def uses_converter(self) -> bool:
        """Whether TensorFlow's converter can make the file by itself; the quantizer of LiteRT makes all others."""
        return self.quantize in ("none", "dynamic", "float16", "int8") and not self.layers and not self.block_size


def _name_of(value: Mapping[str, Any]) -> str:
    """The name of an entry without one: what is not the plain scheme does not bear its name."""
    quantize, io = value.get("quantize", "none"), value.get("io", "float32")
    if not isinstance(quantize, str) or not isinstance(io, str):
        return "none"  # its own key tells what is wrong
    parts = [
        default_name(quantize, io),
        "tensor" if value.get("granularity") == "tensor" else "",
        f"block{value['block_size']}" if isinstance(value.get("block_size"), int) else "",
        "mixed" if value.get("layers") else "",
    ]
    return "-".join(part for part in parts if part)


def default_name(quantize: Any, io: Any) -> str:
    """The file's name after its scheme: `int8`, `int8-io`, `int8-uint8`; after the file of a recipe."""
    if is_recipe(str(quantize)):
        quantize = Path(str(quantize)).name.removesuffix(RECIPE_ENDING)
    suffix = {"float32": "", "int8": "-io", "int16": "-io"}.get(io, f"-{io}")
    return re.sub(r"[^A-Za-z0-9._-]", "_", f"{quantize}{suffix}")[:64] or "none"


def resolve_recipes(entries: Any, folder: Path) -> None:
    """Makes the paths of recipe files in the `convert` section absolute.

    Args:
        entries: of the section; changed. What is no list of maps is left for its own check.
        folder: that relative paths begin in.
    """
    for entry in entries if isinstance(entries, list) else ():
        scheme = entry.get("quantize") if isinstance(entry, dict) else None
        if isinstance(scheme, str) and is_recipe(scheme):
            entry["quantize"] = str(folder / Path(scheme).expanduser())

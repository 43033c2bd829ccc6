"""The `convert` section: a list of `.tflite` files to make of one SavedModel."""

import re
from typing import Annotated, Any, Literal

from pydantic import Field, Strict, WithJsonSchema, model_validator

from mltool.spec.argument_check import shown
from mltool.spec.limits import LimitsSpec
from mltool.spec.section import Checked, Later, Section, raise_problem

SCHEMES = ("none", "dynamic", "float16", "int8", "int8-io")
"""What `--quantize` takes; `int8-io` means `{quantize: int8, io: int8}`."""

CALIBRATED = ("int8",)
"""Schemes whose files need samples to be made."""

LEAST_SAMPLES = 8
"""Samples that calibrate a file; fewer leave the ranges of activations to chance."""

LATER_SCHEMES = ("int16x8", "int4", "qat", "auto")


RESERVED = ("input", "labels", "vectors", "rejected")
"""Names that other files in the folder of a .tflite have."""


def _check_batch(value: Any) -> Any:
    if value == "dynamic" or (isinstance(value, int) and not isinstance(value, bool) and value > 0):
        return value
    return raise_problem(f"must be a whole number above 0 or 'dynamic' (got {shown(value)})", "write batch: 1")


class ConvertSpec(Section):
    """One `.tflite` file."""

    quantize: Annotated[
        Literal["none", "dynamic", "float16", "int8"],
        Later(values=LATER_SCHEMES),
        WithJsonSchema({"enum": list(SCHEMES)}),
    ] = "none"
    """The scheme: none, dynamic, float16, int8, or int8-io (int8 with int8 inputs and outputs)."""
    io: Literal["float32", "int8", "uint8"] = "float32"
    """Type of the file's inputs and outputs; integers with `quantize: int8` only."""
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
    """Training samples that calibrate an int8 file, at least 8 (accuracy was measured flat from 25)."""
    preprocess: Annotated[Literal["auto", "inside"], Later(values=("outside",))] = "auto"
    """`auto` keeps Normalization, FillMissing, LogMel and MFCC in float where inputs are float; `inside`
    quantizes them, too."""
    keep_float: Annotated[tuple[str, ...], Strict(False)] = ()
    """Names of layers that stay in float, for `quantize: int8` with float inputs and outputs."""
    limits: LimitsSpec | None = None
    """Limits of this file; the spec's when left out."""

    @model_validator(mode="before")
    @classmethod
    def _spell_out(cls, value: Any) -> Any:
        """`int8-io` is short for two keys; a file without a name is called after its scheme."""
        if not isinstance(value, dict):
            return value
        value = dict(value)
        if value.get("quantize") == "int8-io":
            value["quantize"] = "int8"
            if value.setdefault("io", "int8") != "int8":
                hint = f"write quantize: int8, io: {value['io']}"
                raise_problem(f"contradicts quantize: int8-io (got {shown(value['io'])})", hint, path=("io",))
        quantize, io = value.get("quantize", "none"), value.get("io", "float32")
        # Of a value that is no word, its own key tells what is wrong.
        words = isinstance(quantize, str) and isinstance(io, str)
        value.setdefault("name", default_name(quantize, io) if words else "none")
        return value

    @model_validator(mode="after")
    def _name_says_what_it_is(self) -> "ConvertSpec":
        own = default_name(self.quantize, self.io)
        taken = (*SCHEMES, *LATER_SCHEMES, "int8-uint8")
        if self.name.lower() in taken and self.name.lower() != own:
            message = f"{self.name!r} is the name of another scheme than {own}"
            raise_problem(message, "give it another name", path=("name",))
        if self.name.lower() in RESERVED or self.name.lower().endswith(".vocabulary"):
            raise_problem(f"{self.name!r} is the name of another file in lite/", "take another", path=("name",))
        return self

    @model_validator(mode="after")
    def _keys_fit(self) -> "ConvertSpec":
        if self.io != "float32" and self.quantize != "int8":
            raise_problem(
                f"{self.io} needs quantize: int8 (got quantize: {self.quantize})", "leave io out", path=("io",)
            )
        if self.keep_float and (self.quantize != "int8" or self.io != "float32"):
            raise_problem(
                f"needs quantize: int8 and io: float32 (got quantize: {self.quantize}, io: {self.io})",
                "leave keep_float out",
                path=("keep_float",),
                at_key=True,
            )
        return self


def default_name(quantize: Any, io: Any) -> str:
    """The file's name after its scheme: `int8`, `int8-io`, `int8-uint8`."""
    suffix = {"float32": "", "int8": "-io"}.get(io, f"-{io}")
    return re.sub(r"[^A-Za-z0-9._-]", "_", f"{quantize}{suffix}")[:64] or "none"

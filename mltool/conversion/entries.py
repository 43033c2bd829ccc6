"""What a conversion is to be, from the spec and the command line: the entries, their limits, what stays float."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from mltool.conversion.precision import Precision, matches
from mltool.conversion.schemes import SCHEMES
from mltool.errors import SpecError, UsageError
from mltool.evaluation.judge import Tolerance
from mltool.evaluation.metrics import lower_is_better
from mltool.models.outputs import units_layers
from mltool.runs.input_schema import InputSchema
from mltool.spec.convert import SCHEMES as NAMES
from mltool.spec.convert import ConvertSpec, is_recipe
from mltool.spec.limits import LimitsSpec
from mltool.spec.spec import Spec, to_plain
from mltool.spec.train import close_hint


def entries_for(spec: Spec, scheme: str | None) -> tuple[ConvertSpec, ...]:
    """The entries that `--quantize` asks for.

    Args:
        spec: of the run.
        scheme: one of the schemes; "" for a bare `--quantize`; None without it.

    Returns:
        All of the spec's; with a scheme the spec's entry of that name, else one of defaults; bare, the spec's quantized
        entries, else int8.

    Raises:
        SpecError: if the scheme does not exist.
    """
    if scheme is None:
        return spec.convert
    if scheme == "":
        quantized = tuple(entry for entry in spec.convert if entry.quantize != "none")
        return quantized or (ConvertSpec.model_validate({"quantize": "int8"}),)
    if is_recipe(scheme):
        scheme = str(Path(scheme).absolute())
    named = tuple(entry for entry in spec.convert if scheme == (entry.quantize if is_recipe(scheme) else entry.name))
    if named:
        return named
    return _entry_of(scheme)


def _entry_of(scheme: str) -> tuple[ConvertSpec]:
    """An entry of defaults.

    Raises:
        SpecError: if the scheme does not exist.
    """
    try:
        return (ConvertSpec.model_validate({"quantize": scheme}),)
    except ValueError as error:
        raise SpecError(f"no scheme is called {scheme!r}", f"one of: {', '.join(NAMES)}") from error


def entries_without_run(spec: Spec | None, scheme: str | None) -> tuple[ConvertSpec, ...]:
    """As `entries_for`, of a model that no run trained.

    Args:
        spec: of data for it; None without.
        scheme: as in `entries_for`.

    Returns:
        Without a spec: without a scheme the float file alone, bare int8.

    Raises:
        SpecError: if the scheme does not exist.
        UsageError: if the spec makes nothing.
    """
    if spec is None:
        wanted = "none" if scheme is None else scheme or "int8"
        return _entry_of(str(Path(wanted).absolute()) if is_recipe(wanted) else wanted)
    entries = entries_for(spec, scheme)
    if not entries:
        raise UsageError("the spec says convert: [], so there is nothing to make", "--quantize SCHEME names one")
    return entries


def calibrated_by(entries: Sequence[ConvertSpec], calibration: str | None) -> tuple[ConvertSpec, ...]:
    """The entries with what `--calibration` says instead of their own, where they are calibrated at all.

    Raises:
        UsageError: if it says neither `training` nor `random`, none of them is calibrated, or one is searched for.
    """
    if calibration is None:
        return tuple(entries)
    if calibration not in ("training", "random"):
        raise UsageError(f"--calibration takes training or random (got {calibration!r})", "write one of the two")
    if not any(entry.calibrated for entry in entries):
        names = ", ".join(entry.name for entry in entries)
        message = f"--calibration is for schemes that are calibrated (got {names})"
        raise UsageError(message, "leave it out, or --quantize int8")
    searched = [entry.name for entry in entries if entry.quantize == "auto"]
    if searched and calibration == "random":
        message = f"{', '.join(searched)}: a search measures accuracy, which random calibration leaves unknown"
        raise UsageError(message, "leave out --calibration, or --quantize int8")
    return tuple(
        ConvertSpec.model_validate({**to_plain(entry), "calibration": calibration}) if entry.calibrated else entry
        for entry in entries
    )


def limits_of(entry: ConvertSpec, spec: Spec, overrides: Mapping[str, Any]) -> LimitsSpec:
    """The limits of an entry: its own, else the spec's, with single keys replaced.

    Raises:
        UsageError: if a replaced key holds a metric that the run does not measure, or of which nobody said what is
            better; nothing would be held then. If it cannot be read, or contradicts a key of the spec.
    """
    try:
        limits = LimitsSpec.model_validate({**to_plain(entry.limits or spec.limits), **overrides})
    except ValidationError as error:
        problem = error.errors()[0]
        place = ".".join(str(key) for key in problem["loc"]) or "beside the limits of the spec"
        told = problem.get("ctx", {})
        raise UsageError(f"{place}: {told.get('text', problem['msg'])}", str(told.get("hint", ""))) from error
    known = [measure.name for measure in spec.train.measures]
    if limits.metric is not None and limits.metric not in known:
        raise UsageError(f"the run has no metric {limits.metric!r}", close_hint(limits.metric, known))
    held = next((one for one in spec.train.measures if limits.metric in (None, one.name)), None)
    if overrides.get("max_drop") is not None and held is not None and lower_is_better(held.metric) is None:
        message = f"--max-drop must know whether more of {held.name} is better"
        raise UsageError(message, "write better: greater, or better: lower under the metric, and train again")
    if not known and any(overrides.get(key) is not None for key in ("min", "max", "max_drop")):
        raise UsageError("the run has no metric to hold a limit against", "add one to train.metrics, and train again")
    return limits


def scheme_of(entry: ConvertSpec) -> str:
    """What the file of an entry has to be: a name in `SCHEMES`."""
    if is_recipe(entry.quantize):
        return "recipe"
    if entry.layers:
        return "mixed"
    return "int8" if entry.quantize == "qat" else entry.quantize


def precision_of(entry: ConvertSpec, keep_float: Sequence[str]) -> Precision:
    """What each layer of an entry has to be, for LiteRT's quantizer."""
    default = "float32" if entry.quantize == "none" else entry.quantize
    granularity = "block" if entry.block_size else entry.granularity
    return Precision(default, dict(entry.layers), granularity, entry.block_size, entry.io).keeping_float(keep_float)


def tolerance_of(entry: ConvertSpec) -> Tolerance:
    """How close the answers of its scheme must stay."""
    if entry.layers:
        # Not looser than the loosest of its parts: more precision for a layer earns no more room.
        names = {"none" if scheme == "float32" else scheme for scheme in (entry.quantize, *entry.layers.values())}
        rows = [SCHEMES[name] for name in names]
        return Tolerance(
            max(row.max_error for row in rows),
            max(row.mean_error for row in rows),
            min(row.min_agreement for row in rows),
        )
    scheme = SCHEMES[scheme_of(entry)]
    return Tolerance(scheme.max_error, scheme.mean_error, scheme.min_agreement)


COARSE_SCHEMES = {"int8", "int16x8", "qat", "int4"}
"""Schemes of a file or a layer whose activations or weights are too coarse for raw features and spectra."""

FLOAT_STEPS = ("Normalization", "Discretization", "FillMissing", "LogMel", "MFCC")
"""Preprocessing that an int8 file keeps in float with `preprocess: auto`, where its inputs are float."""


FLOAT_STEPS_INT16 = ("Rescaling",)
"""And in 16 bits: LiteRT takes scales near powers of two for exact ones there, as 1/127.5 and -1 make them, and then
refuses the sum ("input1_shift <= 0 was not true", LiteRT 2.3)."""


def float_layers_of(entry: ConvertSpec, schema: InputSchema) -> tuple[str, ...]:
    """Layers that stay float: those named, and with `preprocess: auto` what brings raw features to one scale.

    Raw features of different ranges share one int8 scale at the input, and collapse there: .976 to .568 measured on a
    table, .982 with the normalization in float. So do bins of a number whose few greatest values take up the scale:
    .862 to .836 on another, .861 with them in float. Sound has more range than 8 bits, and its energies more yet: on
    spoken digits .987 to .440 with LogMel in int8, .987 with it in float.
    """
    if not COARSE_SCHEMES & {entry.quantize, *entry.layers.values()}:
        return entry.keep_float
    if entry.io != "float32" or entry.preprocess != "auto":
        return entry.keep_float
    steps = schema.preprocessing
    kinds = FLOAT_STEPS + (FLOAT_STEPS_INT16 if entry.quantize == "int16x8" else ())
    raw = [step.name for step in steps if step.class_name in kinds]
    # Raw columns side by side would share a scale before they are brought to one.
    if raw:
        raw += [step.name for step in steps if step.name == "numbers_side_by_side"]
    # The units of a regression at the output: an int8 product and sum there would round the answer twice.
    chosen = [*raw, *ending_layers(schema)]
    # What the entry says of a layer by name comes before what is chosen for it.
    chosen = [name for name in chosen if not any(matches(pattern, name) for pattern in entry.layers)]
    return tuple(dict.fromkeys([*chosen, *entry.keep_float]))


def with_insides(names: Sequence[str], layer_names: Sequence[str]) -> tuple[str, ...]:
    """Names, and those of all that lies inside of the blocks and models among them, in the order of the model."""
    inside = [name for name in layer_names if any(name == kept or name.startswith(f"{kept}/") for kept in names)]
    return tuple(dict.fromkeys([*inside, *names]))


def ending_layers(schema: InputSchema) -> list[str]:
    """The layers of ours behind the last ones of the spec."""
    names = units_layers(schema.output_names)
    return [names[output.name] for output in schema.outputs if output.scaled]

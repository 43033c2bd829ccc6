"""Converts a model that no run trained, under the same contract as those of a run."""

import logging
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from mltool.child import Child
from mltool.conversion.contract import Contract, Shelf
from mltool.conversion.convert import Converted, each
from mltool.conversion.entries import limits_of
from mltool.conversion.sources.fixed_shapes import with_shapes
from mltool.conversion.sources.foreign import Foreign, make_foreign, open_foreign
from mltool.conversion.sources.foreign_origin import MADE_UP, ForeignOrigin
from mltool.conversion.sources.foreign_schema import names_of
from mltool.conversion.sources.generated import DEFAULT, Draw, generate, sample_shape
from mltool.conversion.workbench import Workbench, needs_samples
from mltool.data.dataset import Dataset
from mltool.errors import ArtifactError, DataError, UsageError
from mltool.evaluation.agreement import compare_values
from mltool.runs.find import run_of
from mltool.runs.input_schema import InputSchema
from mltool.runs.lite import REFERENCE_KEY, LiteFolder
from mltool.spec.convert import ConvertSpec
from mltool.spec.limits import LimitsSpec
from mltool.spec.spec import Spec

logger = logging.getLogger("mltool")

WITHOUT_DATA = ("none", "dynamic", "float16", "weight-only", "int4")
"""Schemes that need no samples: all that a model without data can be, unless random numbers calibrate."""

SAMPLES_TO_MAKE = 8
"""Samples that show a model of PyTorch or JAX what it takes, and that it is held against when it was made."""


SAME = 1e-4
"""Share of its range by which the answers of one model may differ from one machine or library to the next."""


def convert_model(
    source: Path | str,
    entries: Sequence[ConvertSpec],
    output: Path,
    *,
    made_by: Literal["torch", "jax"] | None = None,
    spec: Spec | None = None,
    draw: Draw = DEFAULT,
    limits: Mapping[str, Any] | None = None,
    signature: str | None = None,
    allow_code: bool = False,
    verify: bool = True,
    force: bool = False,
    explain: bool = False,
) -> list[Converted]:
    """Makes the `.tflite` files of a model of somebody else's, into a folder that is enough for a device.

    Args:
        source: a SavedModel folder, a `.keras`, `.h5` or float `.tflite` file; with `made_by` a function's name.
        entries: what to make.
        output: the folder; made if it is not there.
        made_by: what the function returns a model of.
        spec: of its data, and what its outputs are (see `load_task_spec`); without it the files are held against the
            model on made-up samples, and only schemes that need no calibration can be made.
        draw: what is made up without data.
        limits: keys of the `limits` section that replace the spec's.
        signature: of several in a SavedModel.
        allow_code: run code that the file holds.
        verify: run each file against the model.
        force: overwrite files of that name in the folder.
        explain: tell of each file which layers lose the answers.

    Raises:
        UsageError: if an entry needs data, or a run; a limit a metric that there is not; or samples cannot be made up.
        ArtifactError: if the model cannot be opened, or the folder holds what must not be overwritten.
        ConversionError: if the converter fails, or its file is not the scheme that was asked for.
        VerificationError: if a file does not answer as the model, or breaks a limit.
        DataError: if the data are not what the model takes.
    """
    _require_no_run_needed(entries)
    if spec is None:
        _require_no_data_needed(entries)
    asked = [(entry, _limits(entry, spec, limits or {})) for entry in entries]
    lite = LiteFolder(output)
    _require_room(lite, entries, force=force)
    data = Dataset(spec) if spec is not None else None
    run = run_of(Path(source)) if made_by is None else None
    if run is not None and data is None:
        logger.warning("%s is of the run %s: mltool convert %s measures on its data", source, run.id, run.id)
    with Child() as converter, Child() as interpreter, tempfile.TemporaryDirectory() as scratch:
        if made_by is None:
            foreign = open_foreign(
                Path(source), Path(scratch), signature=signature, allow_code=allow_code, child=converter
            )
        else:
            samples = None if data is None else data.split("train").first(SAMPLES_TO_MAKE)
            foreign = make_foreign(made_by, str(source), Path(scratch), child=converter, samples=samples)
        _require_makes_float16(foreign, entries)
        logger.info("%s: %s, opened with %s", foreign.name, foreign.kind, foreign.loaded_by)
        if spec is None:
            _require_can_be_made_up(foreign, draw)
        foreign = with_shapes(foreign, _shapes(foreign, data, draw), Path(scratch), converter)
        origin = ForeignOrigin(foreign, spec, data, converter=converter, interpreter=interpreter, draw=draw)
        _require_same_source(lite, origin, entries)
        bench = Workbench(origin, converter, interpreter, Path(scratch))
        contract = Contract(bench, Shelf(lite, origin), verify=verify, explains=explain)

        def make(entry: ConvertSpec, limits: LimitsSpec) -> Converted:
            record = contract.fulfil(_with_batch(entry, foreign), limits)
            path = lite.file(entry.name)
            logger.info("%s: %s bytes", path, f"{record.bytes:,}")
            return Converted(path, record, made=True)

        return each(asked, make)


def _limits(entry: ConvertSpec, spec: Spec | None, overrides: Mapping[str, Any]) -> LimitsSpec:
    if spec is not None:
        return limits_of(entry, spec, overrides)
    held = [key for key in ("metric", "min", "max", "max_drop") if overrides.get(key) is not None]
    if held:
        flags = ", ".join(f"--{key.replace('_', '-')}" for key in held)
        raise UsageError(f"{flags} needs data to measure a metric on", "name a spec of them: --data SPEC")
    return LimitsSpec.model_validate({"max_drop": None, **overrides})


def _require_no_run_needed(entries: Sequence[ConvertSpec]) -> None:
    trained = [entry.name for entry in entries if entry.quantize == "qat"]
    if trained:
        message = f"{', '.join(trained)} trains a model on, and only that of a run can be"
        raise UsageError(
            message, "mltool train makes a run; or --quantize int8, or auto, which looks for a better file"
        )


def _require_no_data_needed(entries: Sequence[ConvertSpec]) -> None:
    needing = [entry for entry in entries if needs_samples(entry) and entry.calibration != "random"]
    if not needing:
        return
    names = ", ".join(entry.name for entry in needing)
    if any(entry.quantize == "auto" for entry in needing):
        raise UsageError(
            f"{names} needs data: a search measures what each file loses", "name a spec of them: --data SPEC"
        )
    hint = f"--data SPEC; or --calibration random; or --quantize {', '.join(WITHOUT_DATA)}"
    raise UsageError(f"{names} needs data to calibrate with", hint)


def _require_makes_float16(foreign: Foreign, entries: Sequence[ConvertSpec]) -> None:
    """Only TensorFlow's converter makes float16 files whose every weight is float16, and it reads no `.tflite`."""
    halved = [entry.name for entry in entries if entry.quantize == "float16"]
    if halved and foreign.float_file is not None:
        message = f"{', '.join(halved)} cannot be made of {foreign.name}, which comes as a float file"
        raise UsageError(message, "give the SavedModel or Keras file that it was made from, or --quantize dynamic")


def _require_can_be_made_up(foreign: Foreign, draw: Draw) -> None:
    """What is told of samples is what the model takes: before anything is converted."""
    try:
        generate(foreign.inputs, 1, 0, draw)
    except DataError as error:
        raise UsageError(error.messages) from error


def _shapes(foreign: Foreign, data: Dataset | None, draw: Draw) -> dict[str, tuple[int, ...]]:
    """Of one sample, by input of the model: of the data, else of what is made up."""
    if data is None:
        return {info.name: sample_shape(info, draw) for info in foreign.inputs}
    return {theirs: data.input_shapes[ours] for theirs, ours in names_of(foreign, data.source.inputs).items()}


def _require_room(lite: LiteFolder, entries: Sequence[ConvertSpec], *, force: bool) -> None:
    """Files go to a folder of their own, and replace none unasked."""
    if lite.folder.exists() and not lite.folder.is_dir():
        raise ArtifactError(f"{lite.folder} is a file", "--output names a folder")
    run = run_of(lite.folder / "any")
    if run is not None:
        message = f"{lite.folder} belongs to the run {run.id}, whose files are of its own model"
        raise UsageError(message, "--output names another folder")
    there = [str(lite.file(entry.name)) for entry in entries if lite.file(entry.name).exists()]
    if there and not force:
        hint = "--force overwrites it, --output names another folder"
        raise ArtifactError(f"{', '.join(there)} is there already", hint)


def _require_same_source(lite: LiteFolder, origin: ForeignOrigin, entries: Sequence[ConvertSpec]) -> None:
    """All files of a folder share `input.json` and `vectors.npz`: those of other models or samples would be lost.

    Not by the hash of the model: what JAX makes has another one each time.
    """
    made = {entry.name for entry in entries}
    others = [name for name in lite.names() if name not in made and lite.record_file(name).is_file()]
    for name in others:
        reason = None
        found = lite.load_record(name).source
        if found.get("samples_hash") != origin.record["samples_hash"]:
            reason = f"held against {_samples(found)}, and now it would be {_samples(origin.record)}"
        elif not _is_same_model(lite, origin):
            reason = "of another model"
        if reason is not None:
            message = f"{lite.file(name)} is {reason}; one folder holds files of one model, on the same samples"
            raise ArtifactError(message, "--output names another folder")


def _samples(record: Mapping[str, Any]) -> str:
    """What the record of a file says that it was held against."""
    if record.get("held_out") == MADE_UP:
        return f"samples that were {record.get('drawn')}"
    return f"{record.get('samples')} test samples ({str(record.get('samples_hash'))[:8]})"


def _is_same_model(lite: LiteFolder, origin: ForeignOrigin) -> bool:
    """Whether the files of a folder take and answer what the model does."""
    there, schema = lite.load_schema(), origin.schema
    if _ends(there) != _ends(schema):
        return False
    answers = lite.load_vectors().get(REFERENCE_KEY) if lite.vectors_file.is_file() else None
    if answers is None:
        return True  # none of them was run
    agreements = compare_values(origin.reference.outputs[: len(answers)], answers, schema)
    return all(one.max_error <= SAME * (one.reference_range or 1.0) for one in agreements.values())


def _ends(schema: InputSchema) -> list[dict[str, tuple[int, ...]]]:
    """Shapes of inputs and outputs by name."""
    inputs = {info.name: info.shape for info in schema.inputs}
    return [inputs, {info.name: info.shape for info in schema.outputs}]


def _with_batch(entry: ConvertSpec, foreign: Foreign) -> ConvertSpec:
    """The entry with the batch that the model fixes: nothing can change that of a float file, or of a fixed signature.

    Raises:
        UsageError: if the entry asks for another one.
    """
    fixed = foreign.batch if foreign.batch is not None or foreign.float_file is None else "dynamic"
    if fixed is None or entry.batch == fixed:
        return entry
    if entry.batch != type(entry).model_fields["batch"].default:
        message = f"{entry.name}: batch is {entry.batch}, and {foreign.name} takes {fixed}"
        raise UsageError(message, f"write batch: {fixed}, or give the model with a free batch")
    return entry.model_copy(update={"batch": fixed})

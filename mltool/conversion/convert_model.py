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
from mltool.conversion.sources.foreign import Foreign, make_foreign, open_foreign
from mltool.conversion.sources.foreign_origin import ForeignOrigin
from mltool.conversion.workbench import Workbench
from mltool.data.dataset import Dataset
from mltool.errors import ArtifactError, UsageError
from mltool.runs.lite import LiteFolder
from mltool.spec.convert import ConvertSpec
from mltool.spec.limits import LimitsSpec
from mltool.spec.spec import Spec

logger = logging.getLogger("mltool")

WITHOUT_DATA = ("none", "dynamic", "float16", "weight-only", "int4")
"""Schemes that need no samples: all that a model without data can be, unless random numbers calibrate."""

SAMPLES_TO_MAKE = 8
"""Samples that show a model of PyTorch or JAX what it takes, and that it is held against when it was made."""


def convert_model(
    source: Path | str,
    entries: Sequence[ConvertSpec],
    output: Path,
    *,
    made_by: Literal["torch", "jax"] | None = None,
    spec: Spec | None = None,
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
        limits: keys of the `limits` section that replace the spec's.
        signature: of several in a SavedModel.
        allow_code: run code that the file holds.
        verify: run each file against the model.
        force: overwrite files of that name in the folder.
        explain: tell of each file which layers lose the answers.

    Raises:
        UsageError: if an entry needs data, or a limit a metric that there is not.
        ArtifactError: if the model cannot be opened, or a file is there already.
        ConversionError: if the converter fails, or its file is not the scheme that was asked for.
        VerificationError: if a file does not answer as the model, or breaks a limit.
        DataError: if the data are not what the model takes.
    """
    asked = [(entry, _limits(entry, spec, limits or {})) for entry in entries]
    lite = LiteFolder(output)
    if spec is None:
        _require_no_data_needed(entries)
    if not force:
        _require_new(lite, entries)
    with Child() as converter, Child() as interpreter, tempfile.TemporaryDirectory() as scratch:
        if made_by is None:
            foreign = open_foreign(
                Path(source), Path(scratch), signature=signature, allow_code=allow_code, child=converter
            )
        else:
            foreign = _made(str(source), made_by, Path(scratch), spec, converter)
        logger.info("%s: %s, opened with %s", foreign.name, foreign.kind, foreign.loaded_by)
        origin = ForeignOrigin(foreign, spec, interpreter)
        for entry in entries:
            origin.require_batch(entry)
        bench = Workbench(origin, converter, interpreter, Path(scratch))
        contract = Contract(bench, Shelf(lite, origin), verify=verify, explains=explain)

        def make(entry: ConvertSpec, limits: LimitsSpec) -> Converted:
            record = contract.fulfil(entry, limits)
            path = lite.file(entry.name)
            logger.info("%s: %s bytes", path, f"{record.bytes:,}")
            return Converted(path, record, made=True)

        return each(asked, make)


def _made(reference: str, kind: Literal["torch", "jax"], scratch: Path, spec: Spec | None, child: Child) -> Foreign:
    samples = None if spec is None else Dataset(spec).split("train").first(SAMPLES_TO_MAKE)
    return make_foreign(kind, reference, scratch, child=child, samples=samples)


def _limits(entry: ConvertSpec, spec: Spec | None, overrides: Mapping[str, Any]) -> LimitsSpec:
    if spec is not None:
        return limits_of(entry, spec, overrides)
    held = [key for key in ("metric", "min", "max", "max_drop") if overrides.get(key) is not None]
    if held:
        flags = ", ".join(f"--{key.replace('_', '-')}" for key in held)
        raise UsageError(f"{flags} needs data to measure a metric on", "name a spec of them: --data SPEC")
    return LimitsSpec.model_validate({"max_drop": None, **overrides})


def _require_no_data_needed(entries: Sequence[ConvertSpec]) -> None:
    needing = [entry.name for entry in entries if entry.calibrated and entry.calibration != "random"]
    if needing:
        message = f"{', '.join(needing)} needs data to calibrate with"
        hint = f"--data SPEC, or --calibration random, or one of {', '.join(WITHOUT_DATA)}"
        raise UsageError(message, hint)
    if searched := [entry.name for entry in entries if entry.quantize in ("qat", "auto")]:
        raise UsageError(f"{', '.join(searched)} needs a run: the model is trained on, or searched for", "mltool train")


def _require_new(lite: LiteFolder, entries: Sequence[ConvertSpec]) -> None:
    there = [str(lite.file(entry.name)) for entry in entries if lite.file(entry.name).exists()]
    if there:
        hint = "--force overwrites it, --output names another folder"
        raise ArtifactError(f"{', '.join(there)} is there already", hint)

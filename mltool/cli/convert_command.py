"""`mltool convert`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from mltool import console
from mltool.cli.convert_options import (
    BARE,
    KNOWN_SCHEMES,
    AllowCode,
    Calibration,
    Data,
    Explain,
    InputRange,
    InputShape,
    MadeBy,
    OptionalValueCommand,
    Output,
    Quantize,
    Signature,
    Source,
    Support,
    Verify,
    limit_option,
    parsed_limits,
    require_scheme,
)
from mltool.cli.model_options import by_name, is_model, range_of, require_fitting, shape_of
from mltool.cli.options import Force, examples, verb
from mltool.errors import ArtifactError, UsageError

SETTINGS = {
    "cls": OptionalValueCommand,
    **examples(
        "mltool convert                          every entry of the spec",
        "mltool convert --quantize               the spec's quantized entries, else int8",
        "mltool convert --quantize float16       that one",
        "mltool convert --quantize int8 20261123 --max-drop 0.5% --max-size 20KB",
        "mltool convert --quantize auto --max-drop 0.5%    the smallest file that loses no more",
        "mltool convert --quantize int8 --explain          which layers lose the answers, and what to try",
        "mltool convert model.keras --data spec.yaml --quantize int8",
        "mltool convert saved_model/ --quantize dynamic --input-range image=0,255",
        "mltool convert --from torch nets:make --data spec.yaml",
    ),
}


@verb
def command(  # noqa: PLR0917  one parameter an option
    source: Source = None,
    quantize: Quantize = None,
    verify: Verify = True,
    force: Force = False,
    explain: Explain = False,
    calibration: Calibration = None,
    data: Data = None,
    made_by: MadeBy = None,
    signature: Signature = None,
    output: Output = None,
    input_shapes: InputShape = (),  # type: ignore[assignment]
    input_ranges: InputRange = (),  # type: ignore[assignment]
    allow_code: AllowCode = False,
    support: Support = False,
    metric: Annotated[str | None, limit_option("metric")] = None,
    minimum: Annotated[str | None, limit_option("min")] = None,
    maximum: Annotated[str | None, limit_option("max")] = None,
    max_drop: Annotated[str | None, limit_option("max_drop")] = None,
    max_size: Annotated[str | None, limit_option("max_size")] = None,
    max_p90_latency: Annotated[str | None, limit_option("max_p90_latency")] = None,
) -> None:
    """Convert a run, or a model of anybody's, to .tflite, quantized as asked, and verify it.

    Each file is read back (is it the scheme that was asked for?), run against its model on the test split, and held
    against the limits; what fails goes to rejected/ with its verdict, and the command exits 7 or 8.
    """
    if support:
        _require_alone(source, quantize)
        from mltool.conversion.support import support_document, support_text

        console.result(support_document(), support_text())
        return
    flags = {
        "metric": metric,
        "min": minimum,
        "max": maximum,
        "max_drop": max_drop,
        "max_size": max_size,
        "max_p90_latency": max_p90_latency,
    }
    limits = parsed_limits(flags)
    scheme = "" if quantize == BARE else quantize
    require_scheme(scheme)
    of_models = {
        "--data": data,
        "--signature": signature,
        "--output": output,
        "--allow-code": allow_code,
        "--input-shape": input_shapes,
        "--input-range": input_ranges,
    }
    options: dict[str, Any] = {"limits": limits, "verify": verify, "force": force, "explain": explain}
    if is_model(source, made_by):
        require_fitting(of_models, made_by=made_by)
        _convert_model(
            str(source),
            scheme=scheme,
            calibration=calibration,
            data=data,
            made_by=made_by,
            output=output,
            input_shapes=input_shapes,
            input_ranges=input_ranges,
            signature=signature,
            allow_code=allow_code,
            **options,
        )
        return
    if given := [flag for flag, value in of_models.items() if value]:
        what = "the newest run" if source is None else f"the run {source!r}"
        message = f"{', '.join(given)} is for a model file or --from, and {what} is meant"
        raise UsageError(message, f"leave it out, or name a model: mltool convert model.keras {given[0]} ...")
    found = _find(source)

    from mltool.conversion.convert import convert
    from mltool.conversion.entries import calibrated_by, entries_for

    entries = calibrated_by(entries_for(found.spec, scheme), calibration)
    made = convert(found, entries, **options)
    _show({"run": str(found.directory)}, str(found.directory), made)


def _require_alone(source: str | None, quantize: str | None) -> None:
    given = [text for text in (source, quantize and "--quantize") if text]
    if given:
        raise UsageError(f"--support converts nothing, and {', '.join(given)} is given", "mltool convert --support")


def _convert_model(
    source: str,
    *,
    scheme: str | None,
    calibration: str | None,
    data: Path | None,
    made_by: Any,
    output: Path | None,
    input_shapes: Sequence[str],
    input_ranges: Sequence[str],
    **options: Any,
) -> None:
    sizes = {name: shape_of(name, text) for name, text in by_name("--input-shape", input_shapes).items()}
    ranges = {name: range_of(name, text) for name, text in by_name("--input-range", input_ranges).items()}

    from mltool.conversion.convert_model import convert_model
    from mltool.conversion.entries import calibrated_by, entries_without_run
    from mltool.conversion.sources.generated import Draw
    from mltool.spec.load import load_task_spec

    spec = None if data is None else load_task_spec(data)
    entries = calibrated_by(entries_without_run(spec, scheme), calibration)
    name = source.rpartition(":")[2] if made_by else Path(source).absolute().stem
    folder = output or Path(f"{name}-lite")
    draw = Draw(ranges, sizes)
    made = convert_model(source, entries, folder, made_by=made_by, spec=spec, draw=draw, **options)
    _show({"source": source, "output": str(folder)}, str(folder), made)


def _show(head: dict[str, Any], title: str, made: Any) -> None:
    """What was made, as a table or as the one document."""
    from mltool.cli.artifact_table import artifact_table
    from mltool.cli.layer_table import layer_tables
    from mltool.cli.search_table import search_tables

    records = [item.record for item in made]
    artifacts = [{"path": str(item.path), "made": item.made, **item.record.to_json()} for item in made]
    text = "\n".join([*search_tables(made), *layer_tables(made), f"{title}\n{artifact_table(records)}"])
    console.result({**head, "artifacts": artifacts}, text)


def _find(selector: str | None) -> Any:
    from mltool.runs.find import find_run

    try:
        return find_run(selector)
    except ArtifactError as error:
        import difflib

        close = difflib.get_close_matches(selector or "", KNOWN_SCHEMES, n=1)
        if close and not Path(selector or "").exists():
            raise UsageError(
                f"no scheme and no run is called {selector!r}", f"did you mean --quantize {close[0]}?"
            ) from error
        raise

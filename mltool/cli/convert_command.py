"""`mltool convert`."""

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from mltool import console
from mltool.cli.options import Force, examples, verb
from mltool.errors import ArtifactError, UsageError

KNOWN_SCHEMES = (
    *("none", "dynamic", "float16", "int8", "int8-io", "int8-tensor", "int16x8", "int4", "int4-block32"),
    *("weight-only", "qat", "auto"),
)
BARE = "from-the-spec"
"""Stands for a `--quantize` that no scheme follows."""


class OptionalValueCommand(TyperCommand):
    """Lets `--quantize` stand alone: the command-line library has no option with an optional value."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Gives a bare `--quantize` its value before the arguments are parsed."""
        return super().parse_args(ctx, with_bare_quantize(args))


def with_bare_quantize(arguments: list[str]) -> list[str]:
    """`--quantize` that no known scheme (or recipe file) follows becomes `--quantize=<from the spec>`.

    So `--quantize RUN`, `RUN --quantize` and `--quantize int8 RUN` all mean what they say.
    """
    ready: list[str] = []
    for index, argument in enumerate(arguments):
        following = arguments[index + 1] if index + 1 < len(arguments) else ""
        takes_value = following in KNOWN_SCHEMES or following.endswith(".json")
        ready.append(f"--quantize={BARE}" if argument == "--quantize" and not takes_value else argument)
    return ready


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
        "mltool convert --from torch nets:make --data spec.yaml",
    ),
}

Quantize = Annotated[
    str | None,
    typer.Option(
        "--quantize",
        metavar="[SCHEME]",
        help=f"{', '.join(KNOWN_SCHEMES)}, or a recipe FILE.json; alone: what the spec says, else int8.",
        show_default=False,
    ),
]
Verify = Annotated[
    bool,
    typer.Option(
        "--verify/--no-verify", help="Run the file against its model; without it the file is marked unverified."
    ),
]


Source = Annotated[
    str | None,
    typer.Argument(
        metavar="[RUN|MODEL]",
        help="A run: its folder, id or the beginning of its id, or `latest`, the newest under ./runs when left out; or "
        "a model: a SavedModel folder, a .keras, .h5 or float .tflite file; with --from a function, `module:name`.",
        show_default=False,
    ),
]
Calibration = Annotated[
    str | None,
    typer.Option(
        "--calibration",
        metavar="training|random",
        help="What calibrates: training samples, or random numbers in their range, which leave the accuracy unknown.",
        show_default=False,
    ),
]
Data = Annotated[
    Path | None,
    typer.Option(
        "--data",
        metavar="SPEC",
        help="Data of a model file, and what its outputs are: `data` and `train` (loss, metrics) of any spec.",
        show_default=False,
    ),
]
MadeBy = Annotated[
    str | None,
    typer.Option(
        "--from", metavar="torch|jax", help="Run a function that returns a model of PyTorch or JAX.", show_default=False
    ),
]
Signature = Annotated[
    str | None,
    typer.Option(
        "--signature", metavar="KEY", help="Which signature of a SavedModel, where it has several.", show_default=False
    ),
]
Output = Annotated[
    Path | None,
    typer.Option(
        "--output",
        metavar="DIR",
        help="Where the files of a model go that is no run; NAME-lite when left out.",
        show_default=False,
    ),
]
AllowCode = Annotated[
    bool,
    typer.Option("--allow-code", help="Run code that a model file holds: Lambda layers, operators that touch files."),
]
Support = Annotated[
    bool, typer.Option("--support", help="Print what becomes of each operator in each scheme, and convert nothing.")
]
Explain = Annotated[
    bool, typer.Option("--explain", help="Say of each file which layers lose the answers, why, and what to try.")
]

# The words of the spec's `limits` section, repeated because reading them there costs 0.1 s; a test holds the two equal.
LIMITS = {
    "metric": "The metric that `min`, `max` and `max_drop` hold; the first of train.metrics when left out.",
    "min": "The least value of the metric on the test split.",
    "max": "The greatest value of the metric on the test split (for errors).",
    "max_drop": "How much worse than the float Keras model on the same test split: metric units (0.005) or relative"
    " (0.5%); null for no limit.",
    "max_size": "Greatest file size: bytes, or with a unit (100 KB is 100,000 bytes).",
    "max_p90_latency": "Greatest 90th percentile of one call on this host: milliseconds, or with a unit.",
}


def _limit(key: str) -> Any:
    return typer.Option(f"--{key.replace('_', '-')}", metavar="VALUE", help=LIMITS[key], show_default=False)


MODEL_ENDINGS = (".keras", ".h5", ".hdf5", ".tflite")


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
    allow_code: AllowCode = False,
    support: Support = False,
    metric: Annotated[str | None, _limit("metric")] = None,
    minimum: Annotated[str | None, _limit("min")] = None,
    maximum: Annotated[str | None, _limit("max")] = None,
    max_drop: Annotated[str | None, _limit("max_drop")] = None,
    max_size: Annotated[str | None, _limit("max_size")] = None,
    max_p90_latency: Annotated[str | None, _limit("max_p90_latency")] = None,
) -> None:
    """Convert a run, or a model of anybody's, to .tflite, quantized as asked, and verify it.

    Each file is read back (is it the scheme that was asked for?), run against its model on the test split, and held
    against the limits; what fails goes to rejected/ with its verdict, and the command exits 7 or 8.
    """
    if support:
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
    limits = _parsed_limits(flags)
    scheme = "" if quantize == BARE else quantize
    _require_scheme(scheme)
    if _is_foreign(source, made_by):
        _convert_model(
            str(source),
            scheme=scheme,
            calibration=calibration,
            data=data,
            made_by=made_by,
            output=output,
            limits=limits,
            signature=signature,
            allow_code=allow_code,
            verify=verify,
            force=force,
            explain=explain,
        )
        return
    only = {"--data": data, "--signature": signature, "--output": output, "--allow-code": allow_code}
    if given := [flag for flag, value in only.items() if value]:
        raise UsageError(f"{', '.join(given)} is for a model file, or --from", "name one: mltool convert model.keras")
    found = _find(source)

    from mltool.conversion.convert import convert
    from mltool.conversion.entries import calibrated_by, entries_for

    entries = calibrated_by(entries_for(found.spec, scheme), calibration)
    made = convert(found, entries, limits=limits, verify=verify, force=force, explain=explain)
    _show({"run": str(found.directory)}, str(found.directory), made)


def _is_foreign(source: str | None, made_by: str | None) -> bool:
    """Whether what is named is a model file, or a function, and no run."""
    if made_by is not None:
        if made_by not in ("torch", "jax"):
            raise UsageError(f"--from takes torch or jax (got {made_by!r})", "what its function returns a model of")
        if source is None:
            raise UsageError(f"--from {made_by} needs a function", f"mltool convert --from {made_by} my_models:make")
        return True
    if source is None:
        return False
    path = Path(source)
    return path.suffix.lower() in MODEL_ENDINGS or (path / "saved_model.pb").is_file()


def _convert_model(
    source: str,
    *,
    scheme: str | None,
    calibration: str | None,
    data: Path | None,
    made_by: Any,
    output: Path | None,
    **options: Any,
) -> None:
    from mltool.conversion.convert_model import convert_model
    from mltool.conversion.entries import calibrated_by, entries_without_run
    from mltool.spec.load import load_task_spec

    spec = None if data is None else load_task_spec(data)
    entries = calibrated_by(entries_without_run(spec, scheme), calibration)
    name = source.rpartition(":")[2] if made_by else Path(source).absolute().stem
    folder = output or Path(f"{name}-lite")
    made = convert_model(source, entries, folder, made_by=made_by, spec=spec, **options)
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


def _require_scheme(scheme: str | None) -> None:
    if scheme in (None, "", *KNOWN_SCHEMES):
        return
    if str(scheme).endswith(".json"):
        if not Path(str(scheme)).is_file():
            raise ArtifactError(f"{scheme} is not there", "name the JSON file of a recipe")
        return
    import difflib

    close = difflib.get_close_matches(str(scheme), KNOWN_SCHEMES, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"one of: {', '.join(KNOWN_SCHEMES)}"
    raise UsageError(f"no scheme is called {scheme!r}", hint)


def _parsed_limits(flags: dict[str, str | None]) -> dict[str, Any]:
    """The limits that were given, read as the spec reads them."""
    given = {key: text for key, text in flags.items() if text is not None}
    if not given:
        return {}
    from pydantic import ValidationError

    from mltool.spec.limits import LimitsSpec
    from mltool.yaml_reader import parse_value

    limits = {
        key: text if key == "metric" else parse_value(text, f"--{key.replace('_', '-')}") for key, text in given.items()
    }
    try:
        LimitsSpec.model_validate(limits)
    except ValidationError as error:
        found = error.errors()[0]
        flag = str(found["loc"][0]).replace("_", "-")
        context = found.get("ctx", {})
        raise UsageError(f"--{flag}: {context.get('text', found['msg'])}", str(context.get("hint", ""))) from error
    return limits

"""`mltool convert`."""

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from mltool import console
from mltool.cli.options import Force, RunArgument, examples, verb
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


@verb
def command(  # noqa: PLR0917  one parameter an option
    run: RunArgument = None,
    quantize: Quantize = None,
    verify: Verify = True,
    force: Force = False,
    metric: Annotated[str | None, _limit("metric")] = None,
    minimum: Annotated[str | None, _limit("min")] = None,
    maximum: Annotated[str | None, _limit("max")] = None,
    max_drop: Annotated[str | None, _limit("max_drop")] = None,
    max_size: Annotated[str | None, _limit("max_size")] = None,
    max_p90_latency: Annotated[str | None, _limit("max_p90_latency")] = None,
) -> None:
    """Convert a run to .tflite, quantized as asked, and verify it.

    Each file is read back (is it the scheme that was asked for?), run against the Keras model on the test split, and
    held against the limits; what fails goes to lite/rejected/ with its verdict, and the command exits 7 or 8.
    """
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
    found = _find(run)

    from mltool.conversion.convert import convert
    from mltool.conversion.entries import entries_for

    made = convert(found, entries_for(found.spec, scheme), limits=limits, verify=verify, force=force)
    from mltool.cli.artifact_table import artifact_table

    records = [item.record for item in made]
    document = {
        "run": str(found.directory),
        "artifacts": [{"path": str(i.path), "made": i.made, **i.record.to_json()} for i in made],
    }
    console.result(document, f"{found.directory}\n{artifact_table(records)}")


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

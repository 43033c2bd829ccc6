"""The options of `mltool convert`, and how they are read."""

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

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
        takes_value = following in KNOWN_SCHEMES or following.endswith(".json") or _looks_like_a_scheme(following)
        ready.append(f"--quantize={BARE}" if argument == "--quantize" and not takes_value else argument)
    return ready


def _looks_like_a_scheme(word: str) -> bool:
    """Whether a word is a scheme with a slip of the pen: then it is none of the other arguments."""
    import difflib

    return bool(difflib.get_close_matches(word, KNOWN_SCHEMES, n=1)) and not Path(word).exists()


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
InputShape = Annotated[
    list[str],
    typer.Option(
        "--input-shape",
        metavar="NAME=SIZE,...",
        help="Shape of the samples that are made up for a model without --data, where it leaves axes free; may be "
        "repeated.",
    ),
]
InputRange = Annotated[
    list[str],
    typer.Option(
        "--input-range",
        metavar="NAME=LOW,HIGH",
        help="Values of these samples, from LOW to below HIGH; else floats are N(0, 1), integers 0 and 1.",
    ),
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


def limit_option(key: str) -> Any:
    """The option of a key of `limits`."""
    return typer.Option(f"--{key.replace('_', '-')}", metavar="VALUE", help=LIMITS[key], show_default=False)


def require_scheme(scheme: str | None) -> None:
    """Holds what `--quantize` says against what there is, before anything heavy is imported.

    Raises:
        UsageError: if no scheme is called so.
        ArtifactError: if a recipe file is not there.
    """
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


def parsed_limits(flags: dict[str, str | None]) -> dict[str, Any]:
    """The limits that were given, read as the spec reads them.

    Raises:
        UsageError: if one cannot be read.
    """
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
        place = "".join(f"--{key}: ".replace("_", "-") for key in found["loc"][:1])  # none where two contradict
        context = found.get("ctx", {})
        raise UsageError(f"{place}{context.get('text', found['msg'])}", str(context.get("hint", ""))) from error
    return limits

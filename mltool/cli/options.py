"""Options and arguments that several commands share, and what every command does around its work."""

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from mltool import console
from mltool.errors import Interrupted, UsageError

SpecPath = Annotated[Path, typer.Argument(metavar="SPEC", help="The spec, a YAML file.", show_default=False)]
Overrides = Annotated[
    list[str],
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Replace a value of the spec, as in --set train.epochs=3; may be repeated."
    ),
]
RunDir = Annotated[
    Path | None,
    typer.Option(
        "--run-dir", metavar="DIR", help="Where the run goes; runs/NAME/<time> when left out.", show_default=False
    ),
]
RunArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="RUN",
        help="A run: its folder, id or the beginning of its id, or `latest`; the newest under ./runs when left out.",
        show_default=False,
    ),
]
ArtifactArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="RUN|FILE",
        help="A run, or a model file: .keras, SavedModel folder, .tflite, .onnx; the newest run under ./runs when left "
        "out.",
        show_default=False,
    ),
]
ModelArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="RUN|FILE|URL",
        help="A run, or a model file: .keras, SavedModel folder, .tflite, .onnx; or http://host:8501/v1/models/NAME of "
        "TensorFlow Serving; the newest run under ./runs when left out.",
        show_default=False,
    ),
]
RunOption = Annotated[
    str | None,
    typer.Option(
        "--run",
        metavar="RUN",
        help="The run that a URL, or a file that lies in none, is of: its folder, id, the beginning of its id, or "
        "`latest`.",
        show_default=False,
    ),
]

Force = Annotated[bool, typer.Option("--force", help="Also where equal inputs were worked on before.")]

_COMMON = {
    "json_output": typer.Option(False, "--json", help="Print one JSON document on stdout, errors included."),
    "quiet": typer.Option(False, "--quiet", "-q", help="No remarks and no progress."),
    "verbose": typer.Option(False, "--verbose", "-v", help="Details, and what TensorFlow prints."),
}


def verb(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command --json, -q and -v, and runs it with the console set up and foreign output captured."""

    @functools.wraps(command)
    def wrapped(*, json_output: bool, quiet: bool, verbose: bool, **arguments: Any) -> None:
        if quiet and verbose:
            raise UsageError("--quiet and --verbose contradict one another", "leave one of them out")
        console.configure(json_output=json_output, quiet=quiet, verbose=verbose)
        try:
            with console.captured_descriptors():
                command(**arguments)
        except KeyboardInterrupt:
            # The command-line library would end with the right code and say nothing.
            raise Interrupted("interrupted") from None
        except EOFError as error:
            # The command-line library takes it for Ctrl-D; nothing here reads from a terminal, so it is a flaw.
            raise RuntimeError("a file ended early") from error
        except BrokenPipeError as error:
            # The reader of a pipe has seen enough (`mltool schema | head`); typer would make exit code 1 of it.
            raise typer.Exit(0) from error

    signature = inspect.signature(command)
    common = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=option, annotation=bool)
        for name, option in _COMMON.items()
    ]
    parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in signature.parameters.values()]
    wrapped.__signature__ = signature.replace(parameters=[*parameters, *common])  # type: ignore[attr-defined]
    wrapped.__annotations__ = {**command.__annotations__, **dict.fromkeys(_COMMON, bool)}
    return wrapped


def examples(*lines: str) -> dict[str, Any]:
    """Settings of a command: its examples under the help, a line each."""
    # \b keeps the lines of a paragraph apart in the help of the command-line library.
    return {"epilog": "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)}

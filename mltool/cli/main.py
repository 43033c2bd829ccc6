"""The command line: a table of commands imported one by one, and errors turned into exit codes."""

import importlib
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import typer
from typer.core import TyperGroup

from mltool import __version__, console
from mltool.errors import EXIT_CODES, Interrupted, MltoolError, UsageError

COMMANDS: dict[str, str] = {
    "init": "Write a spec to start from.",
    "check": "Check a spec, all of it, without importing TensorFlow.",
    "schema": "Print the JSON Schema of the spec, for editors.",
    "run": "The whole chain: train, evaluate, export, convert, verify.",
    "train": "Train the model that a spec describes, or resume a run.",
    "launch": "Train with several workers, of this machine or of a cluster.",
    "evaluate": "Measure a run, an artifact or an endpoint on the test split.",
    "export": "Export a trained run to a SavedModel or to ONNX.",
    "convert": "Convert a run to .tflite, quantized as asked, and verify it.",
    "verify": "Prove that artifacts answer as the model that they came from.",
    "predict": "Answer samples with a run, an artifact or an endpoint.",
    "benchmark": "Measure latency and throughput of a run or an artifact.",
    "report": "Tell a run in one self-contained HTML page.",
    "inspect": "Show what a model costs, or what is in a model file.",
}
"""Every command with its line of help; its module is `mltool.cli.NAME_command`, imported when it is called."""

_EPILOG = "\n\n".join(
    [
        "Examples:",
        "  mltool run configs/digits.yaml         all of it: train ... verified int8 file\n\n"
        "  mltool init my.yaml && mltool train my.yaml\n\n"
        "  mltool convert --quantize float16      the newest run under ./runs\n\n"
        "  mltool COMMAND --help                  options and examples of a command",
        "Exit codes:",
        "\n\n".join(f"  {code:<4} {meaning}" for code, meaning in EXIT_CODES.items()),
    ]
)


_HELP = {"help_option_names": ["-h", "--help"]}


class CommandTable(TyperGroup):
    """Knows its commands by name and imports the one that is called."""

    _only_command = False

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Notes whether the line begins with a command, so that the options before it need no look."""
        self._only_command = bool(args) and not args[0].startswith("-")
        rest: list[str] = super().parse_args(ctx, args)
        return rest

    def get_params(self, ctx: Any) -> list[Any]:
        """The options before a command; none where none was given: typer imports pydantic, 0.1 s, to see that."""
        return [] if self._only_command else super().get_params(ctx)

    def list_commands(self, ctx: Any) -> list[str]:
        """The commands in the order of the work."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Imports a command; None for a name that is not in the table."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"mltool.cli.{cmd_name}_command")
        single = typer.Typer(add_completion=False, rich_markup_mode=None, context_settings=_HELP)
        single.command(name=cmd_name, **getattr(module, "SETTINGS", {}))(module.command)
        command: Any = typer.main.get_command(single)
        command.name = cmd_name
        return command

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Finds the command; one that is not in the table is answered with the one that was meant."""
        name = args[0]
        if name not in COMMANDS and not name.startswith("-"):
            import difflib

            close = difflib.get_close_matches(name, COMMANDS, n=1)
            raise UsageError(
                f"unknown command {name!r}", f"did you mean {close[0]!r}?" if close else "see mltool --help"
            )
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """The table itself: `--help` imports no command."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Examples and exit codes, line by line."""
        formatter.write_paragraph()
        formatter.write(_EPILOG.replace("\n\n", "\n") + "\n")


app = typer.Typer(
    cls=CommandTable,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    invoke_without_command=True,
    context_settings=_HELP,
)


def _print_version(value: bool) -> None:
    if value:
        typer.echo(f"mltool {__version__}")
        raise typer.Exit


@app.callback()
def mltool(
    ctx: typer.Context,
    version: bool = typer.Option(False, "--version", callback=_print_version, is_eager=True, help="Show the version."),
) -> None:
    """One YAML spec, from data to a verified, quantised flatbuffer: every step proven, or it fails."""
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help(), err=True)
        raise UsageError("no command was named", "take one of those above")


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs a command and exits: the one place that catches `MltoolError`."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    # What is wrong with the command line itself is said in the form that it asks for.
    console.configure(json_output="--json" in arguments, quiet=False, verbose=False)
    try:
        code = app(args=arguments, prog_name="mltool", standalone_mode=False)
    except MltoolError as error:
        _fail(error)
    except KeyboardInterrupt:
        _fail(Interrupted("interrupted"))
    except BrokenPipeError:
        # The reader of a pipe has seen enough (`mltool schema | head`); Python would complain again at exit.
        sys.stdout = None
        sys.exit(0)
    except Exception as error:
        usage = _as_usage(error)
        if usage is None:
            raise
        _fail(usage)
    sys.exit(code if isinstance(code, int) else 0)


def _fail(error: MltoolError) -> NoReturn:
    """Tells an error, where somebody still reads, and exits with its code."""
    try:
        console.error(error)
    except BrokenPipeError:
        sys.stdout = None
    sys.exit(error.exit_code)


def _as_usage(error: Exception) -> MltoolError | None:
    """The command-line library's own complaints, told apart from flaws by what they carry."""
    if isinstance(error, typer.Abort):
        return Interrupted("interrupted")
    message = getattr(error, "format_message", None)
    if message is None:
        return None
    context = getattr(error, "ctx", None)
    hint = f"{context.command_path} --help" if context is not None else "mltool --help"
    return UsageError(str(message()).rstrip("."), f"see {hint}")


if __name__ == "__main__":
    main()

"""What the user sees: results on stdout, remarks on stderr, one JSON document with --json.

The only module that knows rich.

Until a command calls `configure`, everything here is silent, so that mltool as a library prints nothing.
"""

import contextlib
import json
import logging
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import IO, Any, TextIO

from mltool.errors import Message, MltoolError

logger = logging.getLogger("mltool")


@dataclass
class _Settings:
    configured: bool = False
    json: bool = False
    quiet: bool = False
    verbose: bool = False
    saved_out: TextIO | None = None
    saved_err: TextIO | None = None
    noise: IO[bytes] | None = None

    @property
    def out(self) -> TextIO:
        """Where results go: stdout as it is now, unless foreign output is captured."""
        return self.saved_out or sys.stdout

    @property
    def err(self) -> TextIO:
        """Where remarks go."""
        return self.saved_err or sys.stderr


_settings = _Settings()


def configure(*, json_output: bool, quiet: bool, verbose: bool) -> None:
    """Sets how a command speaks; called once a command, before its work."""
    _settings.configured = True
    _settings.json, _settings.quiet, _settings.verbose = json_output, quiet, verbose
    _hear_remarks()


@dataclass(frozen=True)
class Speech:
    """How a command speaks, for a process that speaks in its place.

    Attributes:
        json_output: as of `configure`.
        quiet: likewise.
        verbose: likewise.
        descriptor: where remarks go; that process must inherit it.
    """

    json_output: bool
    quiet: bool
    verbose: bool
    descriptor: int


def speech() -> Speech | None:
    """How this command speaks; None where `configure` was not called, and everything is silent."""
    if not _settings.configured:
        return None
    try:
        descriptor = _settings.err.fileno()
    except (OSError, ValueError):  # a stream of the caller's, that is no file
        descriptor = sys.__stderr__.fileno() if sys.__stderr__ else 2
    return Speech(_settings.json, _settings.quiet, _settings.verbose, descriptor)


def speak_as(told: Speech | None) -> None:
    """Speaks in the place of the process that `speech` is of."""
    if told is None:
        return
    _settings.saved_err = os.fdopen(told.descriptor, "w", encoding="utf-8", closefd=False)
    configure(json_output=told.json_output, quiet=told.quiet, verbose=told.verbose)


def wants_json() -> bool:
    """Whether stdout takes one JSON document and nothing else."""
    return _settings.json


def _hear_remarks() -> None:
    """Shows what library code logs: remarks unless quiet, warnings always, details when verbose."""
    level = logging.DEBUG if _settings.verbose else logging.WARNING if _settings.quiet else logging.INFO
    logger.setLevel(level)
    logger.propagate = False
    logger.handlers = [_RemarkHandler()]


class _RemarkHandler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        prefix = "warning: " if record.levelno >= logging.WARNING else ""
        _print_err(f"{prefix}{record.getMessage()}")


def _print_err(text: str) -> None:
    with contextlib.suppress(BrokenPipeError):  # nobody reads any more: no reason to fail
        if _progress is not None:
            _progress.say(text)
        else:
            print(text, file=_settings.err, flush=True)


def result(document: Mapping[str, Any], text: str = "") -> None:
    """The result of a command: the document with --json, else the text."""
    if _settings.json:
        _print_document(document)
    elif text and _settings.configured:
        print(text, file=_settings.out, flush=True)


def text(shown: str) -> None:
    """What a command shows before it fails; nothing with --json, whose one document is the error."""
    if not _settings.json and _settings.configured:
        print(shown, file=_settings.out, flush=True)


def _print_document(document: Mapping[str, Any]) -> None:
    # Where stdout is not UTF-8 (LC_ALL=C), escapes keep the document whole; readers take both.
    encoding = (getattr(_settings.out, "encoding", None) or "utf-8").lower()
    text = json.dumps(document, ensure_ascii=encoding not in ("utf-8", "utf8"), allow_nan=False, indent=2)
    print(text, file=_settings.out, flush=True)


def remark(text: str) -> None:
    """Something worth knowing, on stderr; not with -q."""
    logger.info("%s", text)


def flags() -> tuple[str, ...]:
    """The options that let another mltool speak as loudly as this one."""
    return ("--verbose",) * _settings.verbose + ("--quiet",) * _settings.quiet


def beside_bar(text: str) -> None:
    """A line of another process, on stderr, where the bar of a third may stand."""
    clear = "\r\x1b[2K" if _settings.err.isatty() else ""
    print(f"{clear}{text}", file=_settings.err, flush=True)


def stderr_descriptor() -> int:
    """Where the remarks of another process go, so that it sees a terminal where there is one."""
    return _settings.err.fileno()


def error(problem: MltoolError) -> None:
    """A mistake: one line a message on stderr, or the document of an error on stdout with --json."""
    if _settings.json:
        messages = [message.to_json() for message in problem.messages]
        document = {"error": {"code": problem.exit_code, "messages": messages}}
        _print_document(document)
        return
    following = [message.hint for message in problem.messages[1:]]
    for message, following_hint in zip_longest(problem.messages, following):
        # A hint that several in a row share stands behind the last of them.
        shown = replace(message, hint="") if message.hint == following_hint else message
        print(_colored(shown), file=_settings.err, flush=True)


def _colored(message: Message) -> str:
    text = str(message)
    if not colors(_settings.err):
        return text if message.file else f"error: {text}"
    place, _, rest = text.partition(": ") if message.file else ("error", "", text)
    return f"\x1b[1;31m{place}\x1b[0m: {rest}"


def colors(stream: TextIO) -> bool:
    """Whether a stream takes colors: a terminal, and neither NO_COLOR (no-color.org) nor TERM=dumb says otherwise."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def counted(count: int, noun: str) -> str:
    """A number and what it counts: `1 epoch`, `2 epochs`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, title: str = "") -> str:
    """A table as text, as wide as it needs; columns but the first are set to the right."""
    import io

    from rich import box
    from rich.console import Console
    from rich.table import Table

    drawn = Table(title=title or None, box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False)
    for index, column in enumerate(columns):
        drawn.add_column(column, justify="left" if index == 0 else "right", no_wrap=True)
    for row in rows:
        drawn.add_row(*row)
    in_color = colors(_settings.out)
    buffer = io.StringIO()
    # A pipe or a file gets whole lines; only a terminal has a width to keep.
    width = None if in_color else 200
    # Names of classes and files are shown as they are: no markup, no :emoji:.
    console = Console(
        file=buffer, force_terminal=in_color, no_color=not in_color, width=width, markup=False, emoji=False
    )
    console.print(drawn)
    lines = buffer.getvalue().splitlines()
    return "\n".join(line.rstrip() for line in lines).strip("\n")


class Progress:
    """How far a long stage is; inert unless a command shows it."""

    is_shown = False
    """Whether somebody sees what `update` says."""

    def update(self, completed: int, note: str = "", rate: str = "") -> None:
        """Says how many units are done, with a note such as the metrics, and the rate where it is not one of units."""

    def line(self, text: str) -> None:
        """Says something that stays, such as the line of an epoch."""

    def say(self, text: str) -> None:
        """Prints a remark without disturbing the bar."""


class _Lines(Progress):
    """Plain lines, for CI logs and pipes: the lines that stay, no bar."""

    def line(self, text: str) -> None:
        self.say(text)

    def say(self, text: str) -> None:
        print(text, file=_settings.err, flush=True)


class _Bar(Progress):
    """A bar with rate and ETA on a terminal, and the note on the lines below it."""

    is_shown = True

    def __init__(self, what: str, total: int, unit: str) -> None:
        from rich import progress
        from rich.console import Console, RenderableType
        from rich.text import Text

        class WithNote(progress.Progress):
            def get_renderables(self) -> Iterator[RenderableType]:
                yield from super().get_renderables()
                if self.tasks and self.tasks[0].fields["note"]:
                    yield Text(self.tasks[0].fields["note"])

        self._unit = unit
        console = Console(
            file=_settings.err, force_terminal=True, no_color=not colors(_settings.err), width=_width(_settings.err)
        )
        self._bar = WithNote(
            progress.TextColumn("{task.description}"),
            progress.BarColumn(bar_width=24),
            progress.MofNCompleteColumn(),
            progress.TextColumn("{task.fields[rate]}"),
            progress.TextColumn("ETA"),
            progress.TimeRemainingColumn(),
            console=console,
            transient=True,
        )
        self._task = self._bar.add_task(what, total=total, note="", rate="")
        self._bar.start()

    def update(self, completed: int, note: str = "", rate: str = "") -> None:
        task = self._bar.tasks[0]
        own = f"{task.speed:,.0f} {self._unit}/s" if task.speed else ""
        self._bar.update(self._task, completed=completed, note=note, rate=rate or own)

    def line(self, text: str) -> None:
        self.say(text)

    def say(self, text: str) -> None:
        self._bar.console.print(text, highlight=False, markup=False)

    def stop(self) -> None:
        self._bar.stop()


def _width(stream: TextIO) -> int | None:
    """Of a terminal: rich would ask the descriptors 0 to 2, which lead elsewhere while foreign output is captured."""
    with contextlib.suppress(OSError, ValueError):
        return os.get_terminal_size(stream.fileno()).columns or None
    return None


_progress: Progress | None = None


@contextlib.contextmanager
def progress(what: str, total: int, unit: str = "steps", *, completed: int = 0) -> Iterator[Progress]:
    """Shows a stage of `total` units: a bar on a terminal, lines elsewhere, nothing when quiet or used as a library."""
    global _progress  # noqa: PLW0603  the one stream of remarks has to know the one bar
    if not _settings.configured or _settings.quiet:
        yield Progress()
        return
    bar = _Bar(what, total, unit) if _settings.err.isatty() else None
    _progress = bar or _Lines()
    if completed:
        _progress.update(completed)
    try:
        yield _progress
    finally:
        _progress = None
        if bar is not None:
            bar.stop()


@contextlib.contextmanager
def captured_descriptors() -> Iterator[None]:
    """Keeps what foreign code prints off the terminal and out of the --json document.

    TensorFlow's C++ writes to the descriptors 1 and 2 themselves, before and after any setting is read. While this is
    open, both lead to a file, and mltool's own words go to copies of the old ones. With -v the noise is shown, on
    stderr.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        saved_out, saved_err = os.dup(1), os.dup(2)
    except OSError:
        yield  # closed descriptors: there is nothing to keep clean
        return
    with (
        tempfile.TemporaryFile() as noise,
        os.fdopen(saved_out, "w", encoding="utf-8", errors="backslashreplace") as out,
        os.fdopen(saved_err, "w", encoding="utf-8", errors="backslashreplace") as err,
    ):
        sink = err.fileno() if _settings.verbose else noise.fileno()
        os.dup2(sink, 1)
        os.dup2(sink, 2)
        _settings.saved_out, _settings.saved_err, _settings.noise = out, err, noise
        try:
            yield
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os.dup2(out.fileno(), 1)
            os.dup2(err.fileno(), 2)
            _settings.saved_out = _settings.saved_err = _settings.noise = None


def captured_output(most: int = 4000) -> str:
    """The end of what was captured so far, for the report of a flaw."""
    if _settings.noise is None:
        return ""
    sys.stdout.flush()
    sys.stderr.flush()
    size = os.fstat(_settings.noise.fileno()).st_size
    return os.pread(_settings.noise.fileno(), most, max(0, size - most)).decode("utf-8", "replace")

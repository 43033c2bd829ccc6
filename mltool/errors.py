"""What can go wrong, by exit code: the user's mistakes are `MltoolError`, all else is a flaw, with a traceback."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, TypeVar

_A = TypeVar("_A")
_B = TypeVar("_B")


@dataclass(frozen=True, slots=True)
class Message:
    """One mistake: what was passed, what was expected, and how to fix it."""

    message: str
    """What is wrong, with the value that was received."""
    hint: str = ""
    """How to fix it; shown on the same line, after a semicolon."""
    file: str = ""
    """The file that holds the mistake, as the user wrote it; or `--set` for an override."""
    line: int | None = None
    """1-based."""
    column: int | None = None
    """1-based, in characters."""
    key: str = ""
    """Dotted path inside the spec, such as `train.optimizer.Adam.learning_rate`."""

    def __str__(self) -> str:
        """`file:line:column: key: message; hint`, without the parts that are not known."""
        place = ":".join(str(part) for part in (self.file, self.line, self.column) if part not in ("", None))
        text = f"{self.message}; {self.hint}" if self.hint else self.message
        return ": ".join(part for part in (place, self.key, text) if part)

    def to_json(self) -> dict[str, Any]:
        """The message as the `--json` document shows it: every field, `null` where unknown."""
        return {name: (value if value != "" else None) for name, value in asdict(self).items()}


class MltoolError(Exception):
    """A mistake that the user can mend; `cli/main.py` alone catches it and exits with `exit_code`.

    Args:
        messages: one or more mistakes; a string becomes a `Message` without a place.
        hint: how to fix it, for the string form.
    """

    exit_code: ClassVar[int] = 1
    ag_pass_through: ClassVar[bool] = True
    """Asks AutoGraph to hand it on as it is, not to wrap it in an error of its own."""

    def __init__(self, messages: str | Message | Iterable[Message], hint: str = "") -> None:
        if isinstance(messages, str):
            messages = Message(messages, hint)
        self.messages: tuple[Message, ...] = (messages,) if isinstance(messages, Message) else tuple(messages)
        super().__init__("\n".join(str(message) for message in self.messages))


def tried(items: Iterable[_A], work: Callable[[_A], _B], failures: list[MltoolError]) -> Iterator[_B]:
    """What became of each; one that fails does not keep the others from their turn.

    Args:
        items: of any kind.
        work: is done with each.
        failures: what failed is added to them; see `raise_all`.
    """
    for item in items:
        try:
            yield work(item)
        except MltoolError as error:
            failures.append(error)


def raise_all(failures: Sequence[MltoolError]) -> None:
    """Ends what had several parts, some of which failed; does nothing where none did.

    Raises:
        MltoolError: of the class of the first, with the messages of all; changed data, for one, fail every part alike,
            and are said once.
    """
    if failures:
        messages = dict.fromkeys(message for failure in failures for message in failure.messages)
        raise type(failures[0])(messages) from failures[0]


class UsageError(MltoolError):
    """The command line does not make sense."""

    exit_code = 2


class SpecError(MltoolError):
    """The spec has mistakes; every one of them is in `messages`."""

    exit_code = 3


class DataError(MltoolError):
    """Data are missing, damaged, of the wrong shape, or leak between splits or into calibration."""

    exit_code = 4


class ArtifactError(MltoolError):
    """A run or an artifact is missing, damaged, changed since it was made, or unsafe."""

    exit_code = 5


class TrainingError(MltoolError):
    """Training diverged, had no gradient, or lost a worker."""

    exit_code = 6


class ConversionError(MltoolError):
    """The converter failed, or its file is not of the scheme that was asked for."""

    exit_code = 7


class VerificationError(MltoolError):
    """An artifact does not answer as the model it came from, or breaks a limit."""

    exit_code = 8


class MissingExtraError(MltoolError):
    """A package or runtime that this verb needs is not installed."""

    exit_code = 9


class MachineError(MltoolError):
    """The machine: no such device, disk full, read-only, port in use, run locked by another process."""

    exit_code = 10


class DiskError(MachineError):
    """A file cannot be written."""


class Interrupted(MltoolError):  # noqa: N818  not an error: the user asked for it
    """Ctrl-C or SIGTERM; what was done so far is kept and can be resumed."""

    exit_code = 130


MISTAKES = (UsageError, SpecError, DataError, ArtifactError, MachineError, MissingExtraError)
"""What stands in the way of a training before it begins: a new run is taken away then.

After any other error of a training it stays, and can be resumed.
"""

EXIT_CODES: dict[int, str] = {
    0: "done",
    1: "a flaw in mltool (with a traceback)",
    2: "usage",
    3: "spec",
    4: "data (leaks between splits and into calibration too)",
    5: "run or artifact missing, damaged, changed or unsafe",
    6: "training failed (diverged, no gradient, lost worker)",
    7: "conversion failed, or the scheme is not the one asked for",
    8: "verification or a limit failed",
    9: "missing extra or runtime",
    10: "the machine: no such device, disk full, read-only, port in use, run locked",
    130: "interrupted (resumable)",
}
"""What the command's exit status means; `--help` and the README print this table."""

FINAL_EXIT_CODES: tuple[int, ...] = (2, 3, 4, 5, 7, 8, 9, 10)
"""After these a training that is started again ends the same, until something is mended: for `launch` and job files.

Not so 1, a flaw, which may be one of the moment, and 130, which goes on where it stopped. 6 is both: a training that
diverged does so again, and one that lost a worker goes on from its last checkpoint; `LOST_WORKER` tells them apart.
"""

LOST_WORKER = "another worker was lost"
"""How the message of a training begins that lost another worker; run.json of the chief holds it."""

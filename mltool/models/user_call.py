"""Runs classes and functions of the user's that stand in a model or beside it; what they raise becomes one message."""

import contextlib
import functools
import inspect
import re
import traceback
from collections.abc import Iterator, Mapping
from typing import Any

from mltool.data.sources.user_function import hash_of_code, load_function, running
from mltool.errors import Message, MltoolError, SpecError
from mltool.spec.user_code import find_file


def load_user(reference: str, *, key: str) -> Any:
    """The class or function that a checked reference means; imported once as long as its file is the same.

    Args:
        reference: to it.
        key: of the spec, for messages.

    Raises:
        SpecError: if the file raises when it is imported.
    """
    with calling(f"importing {reference.rpartition(':')[0]}", reference, key=key):
        return _load(reference, hash_of_code(reference))


@functools.lru_cache(maxsize=64)
def _load(reference: str, digest: str) -> Any:
    return load_function(reference)


def call_user(reference: str, arguments: Mapping[str, Any], *, key: str) -> Any:
    """What a class or function gives for keywords.

    Raises:
        SpecError: if it does not take the arguments, or raises.
    """
    function = load_user(reference, key=key)
    try:
        inspect.signature(function).bind(**arguments)
    except TypeError as error:
        raise refusal(f"{reference}: {error}", f"mend {key.removesuffix('python')}arguments", key=key) from error
    except ValueError:
        pass  # a function of C has no signature; calling it tells
    with calling(reference, reference, key=key):
        return function(**arguments)


@contextlib.contextmanager
def calling(what: str, reference: str, *, key: str) -> Iterator[None]:
    """Surrounds what runs code of the user's.

    It raises what it likes; that is not a flaw of ours. Nor may it end the process: exit code 0 would say that all is
    well.

    Raises:
        SpecError: with what it raised, and the line of its file.
    """
    with running(reference):
        try:
            yield
        except MltoolError:
            raise
        except (Exception, SystemExit) as error:
            hint = where(error, reference) or "call it by hand to see where"
            raise refusal(f"{what} raised {in_short(error)}", hint, key=key) from error


def refusal(message: str, hint: str, *, key: str) -> SpecError:
    """One mistake at a key of the spec."""
    return SpecError(Message(message, hint, key=key))


def described(value: Any) -> str:
    """What was returned, with its module where the name alone may mislead (`torch.nn.Module`, `tf_keras.Model`)."""
    kind = type(value)
    return kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"


_TRACED_FRAME = re.compile(r'File "(.+?)", line (\d+)')
_COLOR = re.compile(r"\x1b\[[0-9;]*m")
_OF_KERAS = "Exception encountered when calling"
_ERROR_LINE = re.compile(r"^\s*(\w*(?:Error|Exception)): (.+)$", re.MULTILINE)


def in_short(error: BaseException) -> str:
    """Kind and message, without what AutoGraph and Keras put around them: a traceback, the arguments of a layer."""
    text = _COLOR.sub("", str(error)).partition("Arguments received by")[0]
    if _OF_KERAS in text:
        text = text.rpartition(_OF_KERAS)[2].partition("\n")[2]
    text = text.rpartition("Error encountered:")[2]  # what Keras puts around the error of a layer without shapes
    inner = _ERROR_LINE.findall(text) if "in user code:" in text else []
    kind, said = inner[-1] if inner else (type(error).__name__, text)
    return f"{kind}: {' '.join(said.split())[:300]}"


def where(error: BaseException, reference: str) -> str:
    """The line of the user's file that an error came from, as far as tracebacks tell."""
    file = find_file(reference.rpartition(":")[0])
    lines: list[int | None] = []
    found: BaseException | None = error
    while found is not None and not lines:
        frames = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(found.__traceback__)]
        frames += [(name, int(line)) for name, line in _TRACED_FRAME.findall(str(found))]
        lines = [line for name, line in frames if file is not None and name == str(file)]
        found = found.__cause__ or found.__context__
    return f"see line {lines[-1]} of {file.name}" if file is not None and lines else ""

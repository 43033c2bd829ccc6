"""`python: "module:function"`: code of the user's, named in a spec; found and looked at without running it.

`importlib.util.find_spec("a.b")` would run `a`; so the file is found by its path, and the function in its syntax tree.
"""

import ast
import importlib.util
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mltool.spec.argument_check import did_you_mean, shown
from mltool.spec.catalogue import OWN, Problem
from mltool.spec.section import raise_problems

_NOT_PYTHON = (SyntaxError, ValueError, OSError)
"""What a file gives that cannot be read as Python."""

_FORM = re.compile(r"(?P<module>[A-Za-z_][\w.]*|.+\.py):(?P<function>[A-Za-z_]\w*)")


def check_reference(value: Any) -> str | None:
    """A reference whose function is there.

    Args:
        value: `module:function` of an installed package, or `FILE.py:function`, absolute; None stays None.

    Raises:
        ValidationError: if it is of another form, or the module or the function is not there.
    """
    if value is not None and (problem := reference_problem(value)):
        raise_problems([problem], None)
    return None if value is None else str(value)


def reference_problem(value: Any) -> Problem | None:
    """What is wrong with a reference, or None if its class or function is there."""
    found = _FORM.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        return _wrong(f"must be module:function (got {shown(value)})", 'write python: "my_data:load"')
    file = find_file(found["module"])
    if file is None:
        return _wrong(f"no module {found['module']!r} lies beside the spec or is installed", "check its name")
    try:
        functions = [node.name for node in _functions_of(file)]
    except _NOT_PYTHON as error:
        return _wrong(f"{file.name} cannot be read as Python: {error}", "mend it")
    if found["function"] not in functions:
        hint = did_you_mean(found["function"], functions) or f"it has: {', '.join(functions) or 'no functions'}"
        return _wrong(f"{file.name} has no function {found['function']!r}", hint)
    return None


def _wrong(message: str, hint: str) -> Problem:
    return Problem((), False, message, hint)


def find_file(module: str) -> Path | None:
    """The file of `FILE.py`, or of an installed module; nothing of it is run."""
    if module.endswith(".py"):
        return Path(module) if Path(module).is_file() else None
    top, *below = module.split(".")
    try:
        spec = importlib.util.find_spec(top)  # of a name without dots: runs nothing
    except (ImportError, ValueError):
        return None
    if spec is None or spec.origin is None:
        return None
    if not below:
        return Path(spec.origin) if spec.origin.endswith(".py") else None
    return _module_file(Path(spec.origin).parent, below)


def _module_file(folder: Path, parts: list[str]) -> Path | None:
    path = folder.joinpath(*parts)
    candidates = (path.with_suffix(".py"), path / "__init__.py")
    return next((file for file in candidates if file.is_file()), None)


def beside(reference: str, folder: Path) -> str:
    """A reference to a module in the folder of a spec, with its file in full; another reference as it is.

    Args:
        reference: as the spec has it.
        folder: that the spec lies in.
    """
    module, colon, function = reference.rpartition(":")
    if not colon:
        return reference
    file = folder / module if module.endswith(".py") else _module_file(folder, module.split("."))
    return f"{file}:{function}" if file is not None and file.is_file() else reference


def resolve_references(value: Any, folder: Path) -> None:
    """Puts the file in full into every `python:` of a map or a list, but for those among the user's own `arguments:`.

    Args:
        value: plain YAML data; changed.
        folder: that modules without a path are looked for in.
    """
    for key, item in list(value.items() if isinstance(value, dict) else enumerate(value)):
        if key == OWN and isinstance(item, str):
            value[key] = beside(item, folder)
        elif key != "arguments" and isinstance(item, dict | list):
            resolve_references(item, folder)


def argument_problems(reference: str, arguments: Mapping[str, Any], *, given: int = 0) -> Iterable[Problem]:
    """Keywords that a function does not take, or misses, as far as its syntax tree tells.

    Decorators may change what a function takes, so nothing is said of one with any.

    Args:
        reference: checked.
        arguments: that it is to be called with.
        given: arguments that a function gets before them, by position; a class gets none.
    """
    module, _, name = reference.rpartition(":")
    file = find_file(module)
    # The last one of a name is the one that counts.
    found = [node for node in _functions_of(file) if node.name == name] if file else []
    signature = _signature_of(found[-1], given) if found and not found[-1].decorator_list else None
    if signature is None:
        return
    known, needed, takes_all = signature
    meant = set()
    for key in arguments:
        if key not in known and not takes_all:
            meant.add(did_you_mean(key, known))
            hint = did_you_mean(key, known) or f"it takes: {', '.join(known) or 'none'}"
            yield Problem(("arguments", key), True, f"{name} takes no argument {key!r}", hint)
    # A misspelt keyword is one mistake: the one that it was meant to be is not missing too.
    missing = [key for key in needed if key not in arguments and f"did you mean {key!r}?" not in meant]
    if missing:
        hint = f"add arguments: {{{missing[0]}: ...}}"
        yield Problem(("python",), False, f"{name} needs the argument {', '.join(map(repr, missing))}", hint)


def _signature_of(node: ast.FunctionDef | ast.ClassDef, given: int) -> tuple[list[str], list[str], bool] | None:
    """The keywords that a function takes, those that it needs, and whether it takes any; None where unknown."""
    skipped = given
    if isinstance(node, ast.ClassDef):
        inits = [item for item in node.body if isinstance(item, ast.FunctionDef) and item.name == "__init__"]
        if not inits or inits[-1].decorator_list:
            return None
        node, skipped = inits[-1], 1
    taken = node.args
    positional = [*taken.posonlyargs, *taken.args][skipped:]
    without_default = positional[: max(len(positional) - len(taken.defaults), 0)]
    keywords = [each.arg for each in positional if each not in taken.posonlyargs]
    known = [*keywords, *(each.arg for each in taken.kwonlyargs)]
    needed = [each.arg for each in without_default]
    needed += [each.arg for each, default in zip(taken.kwonlyargs, taken.kw_defaults, strict=True) if default is None]
    return known, needed, taken.kwarg is not None


def _functions_of(file: Path) -> list[ast.FunctionDef | ast.ClassDef]:
    tree = ast.parse(file.read_text(encoding="utf-8"), str(file))
    return [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)]

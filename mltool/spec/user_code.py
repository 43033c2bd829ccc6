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
from mltool.spec.catalogue import Problem
from mltool.spec.section import raise_problem

_FORM = re.compile(r"(?P<module>[A-Za-z_][\w.]*|.+\.py):(?P<function>[A-Za-z_]\w*)")


def check_reference(value: Any) -> str | None:
    """A reference whose function is there.

    Args:
        value: `module:function` of an installed package, or `FILE.py:function`, absolute; None stays None.

    Raises:
        ValidationError: if it is of another form, or the module or the function is not there.
    """
    if value is None:
        return None
    found = _FORM.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise_problem(f"must be module:function (got {shown(value)})", 'write python: "my_data:load"')
    file = find_file(found["module"])
    if file is None:
        raise_problem(f"no module {found['module']!r} lies beside the spec or is installed", "check its name")
    functions = [node.name for node in _functions_of(file)]
    if found["function"] not in functions:
        hint = did_you_mean(found["function"], functions) or f"it has: {', '.join(functions) or 'no functions'}"
        raise_problem(f"{file.name} has no function {found['function']!r}", hint)
    return str(value)


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


def argument_problems(reference: str, arguments: Mapping[str, Any]) -> Iterable[Problem]:
    """Keywords that a function does not take, or misses, as far as its syntax tree tells.

    Decorators may change what a function takes, so nothing is said of one with any.

    Args:
        reference: checked.
        arguments: that it is to be called with.
    """
    module, _, name = reference.rpartition(":")
    file = find_file(module)
    # The last one of a name is the one that counts.
    found = [node for node in _functions_of(file) if node.name == name] if file else []
    signature = _signature_of(found[-1]) if found and not found[-1].decorator_list else None
    if signature is None:
        return
    known, needed, takes_all = signature
    for key in arguments:
        if key not in known and not takes_all:
            hint = did_you_mean(key, known) or f"it takes: {', '.join(known) or 'none'}"
            yield Problem(("arguments", key), True, f"{name} takes no argument {key!r}", hint)
    missing = [key for key in needed if key not in arguments]
    if missing:
        hint = f"add arguments: {{{missing[0]}: ...}}"
        yield Problem(("python",), False, f"{name} needs the argument {', '.join(map(repr, missing))}", hint)


def _signature_of(node: ast.FunctionDef | ast.ClassDef) -> tuple[list[str], list[str], bool] | None:
    """The keywords that a function takes, those that it needs, and whether it takes any; None where unknown."""
    skipped = 0
    if isinstance(node, ast.ClassDef):
        inits = [item for item in node.body if isinstance(item, ast.FunctionDef) and item.name == "__init__"]
        if not inits or inits[-1].decorator_list:
            return None
        node, skipped = inits[-1], 1
    taken = node.args
    positional = [*taken.posonlyargs, *taken.args][skipped:]
    without_default = positional[: len(positional) - len(taken.defaults)]
    keywords = [each.arg for each in positional if each not in taken.posonlyargs]
    known = [*keywords, *(each.arg for each in taken.kwonlyargs)]
    needed = [each.arg for each in without_default]
    needed += [each.arg for each, default in zip(taken.kwonlyargs, taken.kw_defaults, strict=True) if default is None]
    return known, needed, taken.kwarg is not None


def _functions_of(file: Path) -> list[ast.FunctionDef | ast.ClassDef]:
    try:
        tree = ast.parse(file.read_text(encoding="utf-8"), str(file))
    except (SyntaxError, ValueError, OSError) as error:
        raise_problem(f"{file.name} cannot be read as Python: {error}", "mend it")
    return [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)]

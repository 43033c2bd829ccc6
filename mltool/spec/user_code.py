"""`python: "module:function"`: code of the user's, named in a spec; found and looked at without running it.

`importlib.util.find_spec("a.b")` would run `a`; so the file is found by its path, and the function in its syntax tree.
"""

import ast
import importlib.util
import re
from pathlib import Path
from typing import Any

from mltool.spec.argument_check import did_you_mean, shown
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
    functions = _functions_of(file)
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


def _functions_of(file: Path) -> list[str]:
    try:
        tree = ast.parse(file.read_text(encoding="utf-8"), str(file))
    except (SyntaxError, ValueError, OSError) as error:
        raise_problem(f"{file.name} cannot be read as Python: {error}", "mend it")
    return [node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)]

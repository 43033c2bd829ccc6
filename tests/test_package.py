"""The wheel: what travels in it, and that it works where nothing of the checkout is."""

import ast
import importlib
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

import mltool

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index", "-q"]
    subprocess.run([*command, "-w", folder, ROOT], check=True, capture_output=True)
    return next(folder.glob("mltool_tf-*.whl"))


@pytest.mark.parametrize(
    "name",
    [
        "mltool/configs/digits.yaml",
        "mltool/configs/mnist.yaml",
        "mltool/templates/starter.yaml",
        "mltool/data/digits.npz",
        "mltool/data/digits.LICENSE",
        "mltool/spec/catalogue.json",
        "mltool/py.typed",
    ],
)
def test_it_travels_in_the_wheel(wheel: Path, name: str) -> None:
    with zipfile.ZipFile(wheel) as archive:
        assert name in archive.namelist()


def test_the_wheel_works_in_an_environment_of_its_own(wheel: Path, tmp_path: Path) -> None:
    home = tmp_path / "venv"
    venv.create(home, with_pip=True)
    python = home / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "-q", "--no-deps", "--no-index", wheel], check=True)
    # The dependencies of this environment, without the editable install of the checkout.
    own = Path(
        subprocess.check_output(
            [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], text=True
        ).strip()
    )
    (own / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    mltool_command = home / "bin" / "mltool"
    bare = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    place = subprocess.check_output(
        [python, "-c", "import mltool; print(mltool.__file__)"], text=True, cwd=tmp_path, env=bare
    )
    assert str(own) in place
    subprocess.run([mltool_command, "init", "my.yaml"], check=True, cwd=tmp_path, capture_output=True, env=bare)
    done = subprocess.run(
        [mltool_command, "check", "my.yaml"], check=True, cwd=tmp_path, capture_output=True, text=True, env=bare
    )
    assert "ok" in done.stdout


@pytest.mark.parametrize("name", sorted(set(mltool.__all__) - {"__version__"}))
def test_the_package_offers_the_verb(name: str) -> None:
    assert getattr(mltool, name).__name__ == name


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'mltool' has no attribute 'trian'"):
        _ = mltool.trian


def test_no_room_bears_the_name_of_a_verb() -> None:
    rooms = {folder.name for folder in (ROOT / "mltool").iterdir() if folder.is_dir()}
    assert len(rooms) > 10
    assert not rooms & set(mltool.__all__)


def test_importing_mltool_imports_nothing_heavy() -> None:
    heavy = ("tensorflow", "keras", "numpy", "pydantic", "yaml")
    code = f"import sys, mltool; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


def test_every_module_imports() -> None:
    """A path that no command reaches would hide a broken import."""
    names = [
        ".".join(file.relative_to(ROOT).with_suffix("").parts)
        for file in (ROOT / "mltool").rglob("*.py")
        if file.name != "__init__.py"
    ]
    assert len(names) > 50
    for name in names:
        importlib.import_module(name)


def test_only_one_place_catches_the_errors_of_the_user() -> None:
    """`cli/main.py` alone turns `MltoolError` into an exit code.

    Elsewhere it is collected and raised again, but for `inspect` (a file of a damaged run is shown without the names of
    its layers) and the report (without data at hand it says so instead of showing samples).
    """
    catching = []
    for file in (ROOT / "mltool").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.ExceptHandler)
                and node.type is not None
                and "MltoolError" in ast.unparse(node.type)
            ):
                catching.append(file.relative_to(ROOT / "mltool").as_posix())
    assert set(catching) == {
        "cli/main.py",
        "child.py",
        "cli/run_command.py",
        "conversion/sources/foreign.py",
        "conversion/sources/keras_files.py",
        "errors.py",
        "inference/keras_predictor.py",
        "inspection/inspect.py",
        "models/user_call.py",
        "report/examples.py",
        "training/train.py",
    }

"""Every command of the README runs, in its order, from an empty folder; what it shows is what the code says."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mltool.errors import EXIT_CODES
from mltool.spec.load import load_spec

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")

INSTALLS = {
    "pip install -e '.[train]' && mltool run configs/digits.yaml": "`.ci/run` runs it; here its verb",
    "pip install -e '.[dev]' && pytest": "`.ci/run` runs it; this is it",
    "pip install .": "test_package.py installs the wheel in a new environment",
}
"""Commands that install, each with where it is run instead."""


def commands() -> list[str]:
    """The commands of all `sh` blocks, without their comments."""
    blocks = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    lines = [re.split(r"\s{2,}#", line)[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line]


def test_the_readme_has_its_commands() -> None:
    found = commands()
    assert len(found) >= 15
    assert set(INSTALLS) <= set(found)
    verbs = {command.split()[1] for command in found if command.startswith("mltool ")}
    from mltool.cli.main import COMMANDS

    assert verbs == set(COMMANDS)


def test_every_command_of_the_readme_runs(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    bin_folder = Path(sys.executable).parent
    for command in ["mltool run configs/digits.yaml", *commands()]:
        if command in INSTALLS:
            continue
        environment = {"PATH": f"{bin_folder}:/usr/bin:/bin", "HOME": str(tmp_path), "LANG": "C.UTF-8"}
        done = subprocess.run(
            ["sh", "-c", command], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr


def test_the_spec_of_the_readme_is_one(tmp_path: Path) -> None:
    spec = re.search(r"```yaml\n(version: 1.*?)```", README, re.DOTALL)
    assert spec
    file = tmp_path / "my.yaml"
    file.write_text(spec[1], encoding="utf-8")
    assert load_spec(file).name == "digits"


@pytest.mark.parametrize("code", EXIT_CODES, ids=[f"exit code {code}" for code in EXIT_CODES])
def test_the_readme_names_every_exit_code(code: int) -> None:
    row = next(line for line in README.splitlines() if line.startswith(f"| {code} |"))
    assert EXIT_CODES[code].split(" (")[0] in row

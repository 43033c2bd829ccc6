"""Every command of the README runs, in its order, from an empty folder; what it shows is what the code says."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

import mltool
from mltool.errors import EXIT_CODES
from mltool.spec.load import load_spec
from mltool.spec.train import TrainSpec

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


def test_the_readme_names_all_that_a_training_may_keep() -> None:
    line = next(line for line in README.splitlines() if "  keep: best " in line)
    assert [kept for kept in get_args(TrainSpec.model_fields["keep"].annotation) if kept not in line] == []
    assert "`keep: average`" in README
    assert "`average_from: " in README


TASKS = re.findall(r"```yaml\n(.*?)```", README.partition("\n## Tasks\n")[2].partition("\n## ")[0], re.DOTALL)
TABLES = {
    "trees.csv": ("species,height,girth", lambda n: f"{('ash', 'elm', 'oak')[n % 3]},{n / 7},{n % 11}"),
    "meadows.csv": ("wet,sunny,old", lambda n: f"{n % 2},{int(n % 3 == 0)},{int(n % 5 > 2)}"),
    "pumps.csv": ("state", lambda n: "worn" if n % 9 == 0 else "good"),
}
"""Targets of the tables that the section on tasks names, each with what a row of it holds."""


@pytest.mark.parametrize(("spec", "table"), zip(TASKS, TABLES, strict=True), ids=list(TABLES))
def test_the_tasks_of_the_readme_are_trained_and_answer_with_their_metrics(spec, table, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    targets, values = TABLES[table]
    rows = [f"{n % 13}.5,{n % 8}.25,{n % 17},{values(n)}" for n in range(90)]
    (tmp_path / table).write_text("\n".join([f"current,pressure,temperature,{targets}", *rows]), encoding="utf-8")
    (tmp_path / "task.yaml").write_text(f"name: task\n{spec}", encoding="utf-8")
    run = mltool.Run.create(load_spec(tmp_path / "task.yaml", ["train.epochs=1"]), tmp_path / "run")
    mltool.train(run)
    assert list(mltool.evaluate(run).metrics) == METRICS_OF_TASKS[table]


METRICS_OF_TASKS = {
    "trees.csv": [
        *("species_accuracy", "size_mean_absolute_error", "species_f1_score", "size_root_mean_squared_error"),
        "size_r2_score",
    ],
    "meadows.csv": ["accuracy", "auc", "f1_score"],
    "pumps.csv": ["auc", "accuracy", "f1_score"],
}


@pytest.mark.parametrize("code", EXIT_CODES, ids=[f"exit code {code}" for code in EXIT_CODES])
def test_the_readme_names_every_exit_code(code: int) -> None:
    row = next(line for line in README.splitlines() if line.startswith(f"| {code} |"))
    assert EXIT_CODES[code].split(" (")[0] in row

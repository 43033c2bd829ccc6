"""The manners of the command line: help without anything heavy, exit codes, one document, one place for mistakes."""

import inspect
import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

import mltool as package
from mltool import errors
from mltool.cli import main as main_module
from mltool.cli.main import COMMANDS
from mltool.errors import EXIT_CODES, DataError, Message, MltoolError

HERE = Path(__file__).parent
HEAVY = ("tensorflow", "keras", "numpy", "pandas", "rich", "ai_edge_litert")
PRINT_HEAVY = f"print('HEAVY', sorted(set({HEAVY!r}) & set(sys.modules)))"


def in_a_process(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "mltool.cli.main", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "COLUMNS": "80", **environment},
        check=False,
    )


# Help


@pytest.mark.parametrize("command", ["", *COMMANDS], ids=["the table", *COMMANDS])
def test_help_imports_nothing_heavy(command):
    arguments = [part for part in (command, "--help") if part]
    code = (
        "import sys\nfrom mltool.cli.main import main\n"
        f"try:\n    main({arguments!r})\nexcept SystemExit as end:\n    {PRINT_HEAVY}\n    sys.exit(end.code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "HEAVY []"
    assert "Usage: mltool" in done.stdout
    assert "Examples:" in done.stdout
    assert done.stderr == ""


def test_the_help_is_as_it_was_agreed():
    golden = (HERE / "help.txt").read_text(encoding="utf-8")
    assert in_a_process("--help").stdout == golden


def test_every_command_of_the_table_has_a_file_and_every_file_is_in_the_table():
    files = {path.name.removesuffix("_command.py") for path in Path(main_module.__file__).parent.glob("*_command.py")}
    assert files == set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_a_command_says_what_the_table_says(command, mltool):
    ran = mltool(command, "--help")
    assert ran.code == 0
    assert ran.out.split("\n\n")[1].split()[:2] == COMMANDS[command].split()[:2] or command in ("check", "run")
    assert {"--json", "--quiet", "--verbose"} <= set(re.findall(r"--\w+", ran.out))


def test_the_version_is_that_of_the_package(mltool):
    ran = mltool("--version")
    assert (ran.code, ran.out, ran.err) == (0, f"mltool {package.__version__}\n", "")


# Exit codes


def error_classes():
    return {
        value
        for value in vars(errors).values()
        if inspect.isclass(value) and issubclass(value, MltoolError) and value is not MltoolError
    }


def test_every_exit_code_but_done_and_flaw_is_that_of_one_class():
    # A kind of a kind, such as that of a full disk, exits as its kind.
    codes = sorted(found.exit_code for found in error_classes() if "exit_code" in vars(found))
    assert codes == sorted(set(EXIT_CODES) - {0, 1})


def test_help_names_every_exit_code():
    text = in_a_process("--help").stdout
    assert all(
        re.search(rf"^ +{code} +{re.escape(meaning)}$", text, re.MULTILINE) for code, meaning in EXIT_CODES.items()
    )


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        pytest.param(["chek"], 2, "error: unknown command 'chek'; did you mean 'check'?", id="a command misspelt"),
        pytest.param(["frobnicate"], 2, "error: unknown command 'frobnicate'; see mltool --help", id="no such command"),
        pytest.param(["check"], 2, "error: Missing argument 'SPEC'; see mltool check --help", id="an argument missing"),
        pytest.param(["check", "a", "b"], 2, "unexpected extra argument", id="an argument too many"),
        pytest.param(["check", "a", "--jsn"], 2, "error: No such option: --jsn (Possible options: --json", id="option"),
        pytest.param(["--jsn"], 2, "error: No such option: --jsn", id="an option of no command"),
        pytest.param(
            ["check", "a", "--set"], 2, "Option '--set' requires an argument", id="an option without its value"
        ),
        pytest.param(["check", "none.yaml", "-q", "-v"], 2, "error: --quiet and --verbose contradict", id="-q and -v"),
        pytest.param(["check", "none.yaml"], 3, "none.yaml: no such file; `mltool init` writes", id="no spec"),
        pytest.param(["check", "."], 3, ".: is a directory", id="a folder for a spec"),
        pytest.param(["check", "x" * 300], 3, "cannot be read (File name too long)", id="a name too long"),
        pytest.param(["train", "none.yaml"], 3, "none.yaml: no such file", id="nothing to train"),
        pytest.param(["train"], 2, "error: name a SPEC to train, or --resume", id="train without a spec"),
        pytest.param(["train", "--resume"], 5, "error: no run with training to go on with", id="nothing to resume"),
        pytest.param(
            ["train", "--resume", "--set", "seed=1"], 2, "--set and --run-dir are for a new run", id="resume and set"
        ),
        pytest.param(["evaluate"], 5, "error: no run with a trained model", id="nothing to evaluate"),
        pytest.param(["evaluate", "zzz"], 5, "error: no run, folder or file is called 'zzz'", id="no such run"),
    ],
)
def test_what_the_user_gets_wrong_is_one_line_and_an_exit_code(arguments, code, expected, mltool):
    ran = mltool(*arguments)
    assert (ran.code, ran.out) == (code, "")
    assert expected in ran.err
    assert len(ran.err.splitlines()) == 1
    assert "Traceback" not in ran.err


@pytest.mark.parametrize("command", ["train", "check", "run", "launch"])
def test_a_run_for_a_spec_is_answered_with_how_to_go_on(command, mltool, tmp_path):
    folder = tmp_path / "my runs"
    folder.mkdir()
    (folder / "run.json").write_text("{}")
    ran = mltool(command, str(folder))
    assert (ran.code, ran.out) == (3, "")
    go_on = f"go on with it: mltool train --resume '{folder}'; or name its {folder}/spec.yaml"
    assert ran.err == f"{folder}: is the directory of a run; {go_on}\n"


def test_without_a_command_the_help_goes_to_stderr_and_the_exit_code_is_2(mltool):
    ran = mltool()
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("Usage: mltool")
    assert ran.err.endswith("error: no command was named; take one of those above\n")


def test_a_flaw_keeps_its_traceback(monkeypatch):
    monkeypatch.setattr(main_module, "app", lambda **options: 1 / 0)
    with pytest.raises(ZeroDivisionError, match="division by zero"):
        main_module.main(["check"])


def test_ctrl_c_is_130(monkeypatch, mltool):
    def interrupt(**options):
        raise KeyboardInterrupt

    monkeypatch.setattr(main_module, "app", interrupt)
    ran = mltool("train")
    assert (ran.code, ran.out, ran.err) == (130, "", "error: interrupted\n")


@pytest.mark.parametrize(
    "kind", sorted(error_classes(), key=lambda kind: kind.exit_code), ids=lambda kind: kind.__name__
)
def test_an_error_exits_with_the_code_of_its_class(kind, monkeypatch, mltool):
    def fail(**options):
        raise kind("it went wrong", "do it right")

    monkeypatch.setattr(main_module, "app", fail)
    ran = mltool("train")
    assert (ran.code, ran.out, ran.err) == (kind.exit_code, "", "error: it went wrong; do it right\n")


def test_a_hint_that_several_share_is_said_once(monkeypatch, mltool):
    def fail(**options):
        shared = [Message(f"{name} is off", "look") for name in "ab"]
        raise DataError([*shared, Message("c is off", "ask"), Message("d is off", "look"), Message("e is off")])

    monkeypatch.setattr(main_module, "app", fail)
    told = ["a is off", "b is off; look", "c is off; ask", "d is off; look", "e is off"]
    assert mltool("train").err == "".join(f"error: {text}\n" for text in told)


# --json


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        pytest.param(["chek", "--json"], 2, "unknown command 'chek'", id="usage"),
        pytest.param(["check", "--json"], 2, "Missing argument 'SPEC'", id="an argument missing"),
        pytest.param(["check", "none.yaml", "--json"], 3, "no such file", id="spec"),
        pytest.param(["evaluate", "zzz", "--json"], 5, "no run, folder or file is called 'zzz'", id="run"),
    ],
)
def test_with_json_a_mistake_is_one_document(arguments, code, message, mltool):
    ran = mltool(*arguments)
    assert ran.code == code
    assert ran.err == ""
    assert set(ran.document) == {"error"}
    assert ran.document["error"]["code"] == code
    assert ran.document["error"]["messages"][0]["message"] == message
    assert set(ran.document["error"]["messages"][0]) == {"file", "line", "column", "key", "message", "hint"}


def test_with_json_every_mistake_has_its_place(mltool, spec):
    spec.write_text(spec.read_text().replace("digits", "digit").replace("units", "unit"))
    messages = mltool("check", "my.yaml", "--json").document["error"]["messages"]
    assert [(m["file"], m["line"], m["column"], m["key"]) for m in messages] == [
        ("my.yaml", 2, 26, "data.source.dataset"),
        ("my.yaml", 3, 36, "model.layers.1.Dense.unit"),
    ]


def test_with_json_an_error_beyond_ascii_is_whole_where_stdout_is_not_utf8():
    done = in_a_process("check", "größe-🙂.yaml", "--json", PYTHONIOENCODING="ascii", LC_ALL="C")
    assert json.loads(done.stdout)["error"]["messages"][0]["file"] == "größe-🙂.yaml"


# Streams


def test_colors_are_for_terminals_only(mltool):
    assert "\x1b" not in mltool("check", "none.yaml").err


def on_a_terminal(*arguments, **environment):
    """What a command prints on a terminal."""
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "mltool.cli.main", *arguments],
        stdout=follower,
        stderr=follower,
        env={key: value for key, value in {**os.environ, "TERM": "xterm", **environment}.items() if value is not None},
    )
    os.close(follower)
    shown = b""
    try:
        while block := os.read(leader, 4096):
            shown += block
    except OSError:  # EIO: the other end is closed
        pass
    finally:
        os.close(leader)
        process.wait(timeout=60)
    return shown.decode()


def test_a_terminal_gets_colors():
    assert "\x1b[1;31mnone.yaml\x1b[0m: no such file" in on_a_terminal("check", "none.yaml", NO_COLOR=None)


@pytest.mark.parametrize(
    "environment", [{"NO_COLOR": "1"}, {"TERM": "dumb", "NO_COLOR": None}], ids=["NO_COLOR", "dumb"]
)
def test_a_terminal_may_refuse_colors(environment):
    shown = on_a_terminal("check", "none.yaml", **environment)
    assert shown.startswith("none.yaml: no such file")
    assert "\x1b" not in shown


def test_a_reader_who_has_seen_enough_is_no_error():
    process = subprocess.Popen(
        [sys.executable, "-m", "mltool.cli.main", "schema"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "{\n"
    process.stdout.close()
    assert process.wait(timeout=60) == 0
    assert process.stderr.read() == ""
    process.stderr.close()


def test_what_foreign_code_prints_reaches_no_stream(mltool, spec, monkeypatch):
    def noisy(path, overrides):
        os.write(1, b"from C on stdout\n")
        os.write(2, b"from C on stderr\n")
        raise DataError("it went wrong")

    monkeypatch.setattr("mltool.spec.load.load_spec", noisy)
    ran = mltool("check", "my.yaml")
    assert (ran.code, ran.out, ran.err) == (4, "", "error: it went wrong\n")


def test_with_v_what_foreign_code_prints_is_shown_on_stderr(mltool, spec, monkeypatch):
    def noisy(path, overrides):
        os.write(1, b"from C on stdout\n")
        raise DataError("it went wrong")

    monkeypatch.setattr("mltool.spec.load.load_spec", noisy)
    ran = mltool("check", "my.yaml", "-v")
    assert (ran.code, ran.out, ran.err) == (4, "", "from C on stdout\nerror: it went wrong\n")


PRINTING = """
import numpy as np

def load():
    print("said by your code")
    return {"x": np.arange(80.0, dtype="float32").reshape(40, 2), "y": np.arange(40) % 2}
"""


@pytest.mark.parametrize(("options", "shown"), [((), False), (("-v",), True)], ids=["as ever", "-v"])
def test_what_code_of_the_user_prints_is_never_on_stdout_and_with_v_on_stderr(tmp_path, options, shown):
    (tmp_path / "mine.py").write_text(PRINTING, encoding="utf-8")
    spec = tmp_path / "my.yaml"
    spec.write_text(
        'name: small\ndata: {source: {python: "mine:load"}}\nmodel: {layers: [{Dense: {units: 2}}]}\n'
        "train: {loss: {SparseCategoricalCrossentropy: {from_logits: true}}}\n"
    )
    done = in_a_process("check", str(spec), "--data", *options)
    assert done.returncode == 0, done.stderr
    assert "train" in done.stdout
    assert "said by your code" not in done.stdout
    assert ("said by your code" in done.stderr) == shown


def test_the_package_offers_the_verbs():
    assert {"load_spec", "Run", "train", "evaluate", "export", "convert", "verify"} <= set(dir(package))
    assert package.load_spec.__name__ == "load_spec"
    with pytest.raises(AttributeError, match="has no attribute 'quantise'"):
        _ = package.quantise


def test_importing_the_package_imports_nothing_heavy():
    code = f"import sys, mltool; {PRINT_HEAVY}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "HEAVY []\n"


def test_an_error_that_nobody_reads_keeps_its_exit_code(tmp_path):
    """The reader of both streams is gone, as a launcher's that was killed."""
    reader, writer = os.pipe()
    os.close(reader)
    words = [sys.executable, "-m", "mltool.cli.main", "train", str(tmp_path / "no.yaml"), "--json"]
    ended = subprocess.run(words, stdout=writer, stderr=subprocess.PIPE, check=False)
    os.close(writer)
    assert (ended.returncode, ended.stderr) == (3, b"")

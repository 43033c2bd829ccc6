"""`mltool check`."""

from mltool import console
from mltool.cli.options import Overrides, SpecPath, examples, verb

SETTINGS = examples("mltool check my.yaml", "mltool check my.yaml --set train.epochs=3 --json")


@verb
def command(spec: SpecPath, overrides: Overrides = []) -> None:  # noqa: B006  typer copies it
    """Check SPEC, all of it, without importing TensorFlow.

    Every mistake is reported in one go, as file:line:column: key: what is wrong; exit code 3.
    """
    from mltool.spec.load import load_spec

    checked = load_spec(spec, overrides)
    console.result({"spec": str(spec), "name": checked.name, "ok": True}, f"{spec}: ok")

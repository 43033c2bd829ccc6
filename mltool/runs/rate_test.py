"""What a test of learning rates leaves: a folder beside the runs that is none, so that no verb takes it for one."""

import datetime
import os
import secrets
from pathlib import Path

from mltool.errors import MachineError


class RateTestFolder:
    """The folder of a test of learning rates.

    Attributes:
        directory: absolute; the other attributes are the files in it, whether they are there or not.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = Path(os.path.abspath(directory))  # noqa: PTH100  as in `Run`
        self.curve_file = self.directory / "learning_rates.json"
        self.picture_file = self.directory / "learning_rates.svg"

    @classmethod
    def choose(cls, name: str, directory: Path | None = None) -> "RateTestFolder":
        """The folder to write to; it is made with its first file.

        Args:
            name: of the spec.
            directory: where; `runs/NAME/find-lr-<time>-<random>` under the working directory when left out.

        Raises:
            MachineError: if `directory` is a file, or holds something already.
        """
        if directory is None:
            now = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
            directory = Path("runs") / name / f"find-lr-{now}-{secrets.token_hex(2)}"
        if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
            raise MachineError(f"{directory} is there already; nothing is overwritten", "choose another --run-dir")
        return cls(directory)

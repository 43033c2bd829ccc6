"""What training writes down of its epochs: metrics.jsonl and events for TensorBoard."""

import errno
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mltool import extras
from mltool.runs.atomic import cannot_write, finite, write_text
from mltool.spec.outputs import OF_VALIDATION


def append_line(file: Path, line: Mapping[str, Any]) -> None:
    """Adds an epoch to metrics.jsonl, whole or not at all; NaN becomes null, as in every JSON of a run.

    Raises:
        DiskError: if it cannot be written.
    """
    size = file.stat().st_size if file.exists() else 0
    try:
        with file.open("a", encoding="utf-8", newline="\n") as opened:
            opened.write(json.dumps(finite(dict(line)), allow_nan=False) + "\n")
    except OSError as error:
        if file.exists():
            os.truncate(file, size)
        raise cannot_write(file, error) from error


def read_lines(file: Path) -> list[dict[str, Any]]:
    """The epochs of metrics.jsonl; a last line that a killed process left half is not among them."""
    if not file.is_file():
        return []
    lines = []
    for text in file.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            lines.append(json.loads(text))
        except ValueError:
            break
    return lines


def keep_lines(file: Path, epochs: int) -> None:
    """Takes out the lines of epochs that will run again."""
    kept = [line for line in read_lines(file) if line["epoch"] <= epochs]
    write_text(file, "".join(json.dumps(line) + "\n" for line in kept))


class Events:
    """The lines of metrics.jsonl as scalars for TensorBoard, which draws both curves of a metric into one chart.

    Folders and names are those of Keras' `TensorBoard` callback: `train/` and `validation/`, `epoch_loss` in both; the
    step is the epoch, from 1. A process of another backend writes none, as there may be no TensorFlow; the one that
    started it writes all of them at the end, if it can.

    Args:
        folder: `events/` of the run.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writers: dict[str, Any] = {}

    def begin(self, lines: Iterable[Mapping[str, Any]]) -> None:
        """Replaces what a process before left: what it wrote of an epoch that runs again would contradict.

        Args:
            lines: of the epochs that count.
        """
        self._writers.clear()
        if not _can_be_written():
            return
        for folder in _FOLDERS.values():
            for file in (self._folder / folder).glob("events.out.tfevents.*"):
                file.unlink()
        for line in lines:
            self.write(line)

    def write(self, line: Mapping[str, Any]) -> None:
        """Writes the numbers of an epoch.

        Raises:
            DiskError: if that cannot be done.
        """
        if not _can_be_written():
            return
        try:
            self._write_line(line)
        except extras.tensorflow().errors.OpError as error:
            raise cannot_write(self._folder, _system_error(error.message)) from error

    def _write_line(self, line: Mapping[str, Any]) -> None:
        for begins, folder in _FOLDERS.items():
            found = {
                name.removeprefix(begins): value
                for name, value in finite(dict(line)).items()
                if name not in _NO_SCALARS and value is not None and name.startswith(OF_VALIDATION) == bool(begins)
            }
            self._write(folder, line["epoch"], found)

    def _write(self, folder: str, step: int, scalars: Mapping[str, float]) -> None:
        tf = extras.tensorflow()
        if folder not in self._writers:
            self._writers[folder] = tf.summary.create_file_writer(str(self._folder / folder))
        # What `tf.summary.scalar` writes, which needs the tensorboard package; TensorBoard reads it all the same.
        plugin = tf.compat.v1.SummaryMetadata.PluginData(plugin_name="scalars")
        metadata = tf.compat.v1.SummaryMetadata(plugin_data=plugin)
        with self._writers[folder].as_default(step=step):
            for name, value in scalars.items():
                tf.summary.write(f"epoch_{name}", tf.constant(value, tf.float32), metadata=metadata)
        self._writers[folder].flush()


def _can_be_written() -> bool:
    return extras.backend() == "tensorflow"


_FOLDERS = {"": "train", OF_VALIDATION: "validation"}
"""By what the names in a line of metrics.jsonl begin with."""

_NO_SCALARS = ("epoch", "phase", "step", "seconds")


def _system_error(message: str) -> OSError:
    """The error of the system that TensorFlow tells in words of its own."""
    codes = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EIO)
    code = next((code for code in codes if os.strerror(code) in message), None)
    return OSError(message.strip().partition("\n")[0]) if code is None else OSError(code, os.strerror(code))

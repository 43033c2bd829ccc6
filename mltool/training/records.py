"""What training writes down of its epochs: metrics.jsonl and events for TensorBoard."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mltool import extras
from mltool.runs.atomic import finite, write_text


def append_line(file: Path, line: Mapping[str, Any]) -> None:
    """Adds an epoch to metrics.jsonl; NaN becomes null, as in every JSON of a run."""
    with file.open("a", encoding="utf-8", newline="\n") as opened:
        opened.write(json.dumps(finite(dict(line)), allow_nan=False) + "\n")


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
    """Scalars for TensorBoard; the file is made with the first one.

    Args:
        folder: `events/` of the run.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writer: Any = None

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Writes a value for every name; with another backend nothing, see `write_events`."""
        if extras.backend() != "tensorflow":
            return
        tf = extras.tensorflow()
        if self._writer is None:
            self._writer = tf.summary.create_file_writer(str(self._folder))
        # What `tf.summary.scalar` writes, which needs the tensorboard package; TensorBoard reads it all the same.
        plugin = tf.compat.v1.SummaryMetadata.PluginData(plugin_name="scalars")
        metadata = tf.compat.v1.SummaryMetadata(plugin_data=plugin)
        with self._writer.as_default(step=step):
            for name, value in scalars.items():
                tf.summary.write(name, tf.constant(value, tf.float32), metadata=metadata)
        self._writer.flush()


def write_events(folder: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    """Writes the events of a finished training from its lines: where JAX or PyTorch trains, TensorFlow may be missing.

    Args:
        folder: `events/` of the run.
        lines: of metrics.jsonl.
    """
    events = Events(folder)
    for line in lines:
        kept = {name: value for name, value in line.items() if value is not None}
        events.write(line["epoch"], {name: kept[name] for name in kept if name not in NO_SCALARS})


NO_SCALARS = ("epoch", "phase", "step", "seconds")
"""What a line of metrics.jsonl holds beside scalars."""

"""Tables of Arrow's in a file without a name, read from there when cells are asked for."""

import mmap
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from mltool import extras
from mltool.errors import MachineError

BLOCK_BYTES = 8 * 2**20
"""Text of a table that is parsed at once; a row must fit into it."""


def kept_on_disk(schema: Any, batches: Iterable[Any]) -> tuple[Any, mmap.mmap]:
    """A table whose columns lie in a file that goes with it, and the map of the file.

    Args:
        schema: of Arrow.
        batches: of Arrow; drawn one after the other.

    Raises:
        MachineError: if the disk is full.
    """
    pa, ipc = extras.require("pyarrow"), extras.require("pyarrow.ipc")
    with tempfile.TemporaryFile(prefix="mltool-", suffix=".arrow") as file:
        with _room_for(file):
            sink = pa.PythonFile(file, mode="w")  # not closed here: it would close the file
            writer = ipc.new_file(sink, schema)
        for batch in batches:
            with _room_for(file):
                writer.write_batch(batch)
        with _room_for(file):
            writer.close()
            file.flush()
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return ipc.open_file(pa.py_buffer(mapped)).read_all(), mapped


@contextmanager
def _room_for(file: Any) -> Iterator[None]:
    """Tells a full disk, and forgets what was not written: closing the file would fail once more."""
    try:
        yield
    except OSError as error:
        file.raw.close()
        message = f"the rows of a table cannot be kept in {tempfile.gettempdir()}: {error.strerror or error}"
        raise MachineError(message, "set TMPDIR to a larger disk") from error

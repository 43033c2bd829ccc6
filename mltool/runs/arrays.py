"""Arrays in .npz files, read so that every damage is one of a few errors, and no object in them is unpickled."""

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

UNREADABLE_NPZ = (
    OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, MemoryError,
    OverflowError,
)  # fmt: skip
"""What numpy and zipfile raise for a file that is missing, damaged, encrypted, or holds objects; a damaged header can
claim any size."""

_BEGINNINGS = (b"PK", b"\x93NUMPY")
"""Of an .npz, which is a .zip, and of an .npy (numpy.lib.format)."""


def load_arrays(path: Path, *, on_disk: bool = False) -> "np.ndarray[Any, Any] | dict[str, np.ndarray[Any, Any]]":
    """The one array of an .npy file, or all arrays of an .npz.

    Args:
        path: of the file.
        on_disk: leaves the array of an .npy file there, to be read when samples are asked for.

    Raises:
        OSError: and the others of `UNREADABLE_NPZ`, if it is missing or damaged.
    """
    import numpy as np

    if path.exists() and not path.is_file() and not path.is_dir():
        raise ValueError("it is no plain file")  # a FIFO would be waited for without end
    with path.open("rb") as file:
        if not file.read(6).startswith(_BEGINNINGS):
            # Else numpy takes it for pickled objects, and says how to run what is in them.
            raise ValueError("it is no file of numpy's")
    try:
        loaded = np.load(path, mmap_mode="r" if on_disk else None, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return loaded
        with loaded as arrays:
            return dict(arrays)
    except ValueError as error:
        if "pickle" not in str(error):
            raise
        raise ValueError("it holds pickled objects, which could run code") from error


def read_npz(path: Path) -> "dict[str, np.ndarray[Any, Any]]":
    """All arrays of a file, in memory.

    Raises:
        ValueError: if it holds a single array without a name.
        OSError: and the others of `UNREADABLE_NPZ`, if it is missing or damaged.
    """
    loaded = load_arrays(path)
    if not isinstance(loaded, dict):
        raise ValueError("it holds a single array without a name")
    return loaded


def write_npz(file: "Path | IO[bytes]", arrays: "Mapping[str, np.ndarray[Any, Any]]", *, small: bool = False) -> None:
    """Writes arrays that `numpy.load` reads; arrays of equal values and layout give equal bytes.

    `numpy.savez` takes names as arguments, so an input called `file` is none that it can write; it pickles objects
    unasked, and notes the time.

    Args:
        file: path, or open for writing.
        arrays: by name.
        small: compresses them.

    Raises:
        ValueError: if an array holds objects.
    """
    import numpy as np

    with zipfile.ZipFile(file, "w") as archive:
        for name, array in arrays.items():
            entry = zipfile.ZipInfo(f"{name}.npy")
            entry.compress_type = zipfile.ZIP_DEFLATED if small else zipfile.ZIP_STORED
            with archive.open(entry, "w", force_zip64=True) as opened:
                np.lib.format.write_array(opened, np.asanyarray(array), allow_pickle=False)


def of_output(array: "np.ndarray[Any, Any]", name: str) -> "np.ndarray[Any, Any]":
    """What an array of targets or of outputs has of one output: a field where there are several, else all of it."""
    return array[name] if array.dtype.names else array


def together(parts: "Mapping[str, np.ndarray[Any, Any]]") -> "np.ndarray[Any, Any]":
    """One array [samples] of targets or of outputs: as it is where there is one, with a field for each of several."""
    import numpy as np

    if len(parts) == 1:
        return next(iter(parts.values()))
    fields = [(name, part.dtype, part.shape[1:]) for name, part in parts.items()]
    joined: np.ndarray[Any, Any] = np.empty(len(next(iter(parts.values()))), fields)
    for name, part in parts.items():
        joined[name] = part
    return joined

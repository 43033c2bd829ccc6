"""A bound on the memory of a child process, while it loads what may be a bomb."""

import contextlib
import resource
from collections.abc import Iterator
from pathlib import Path

LEAST_BYTES = 4 << 30
"""Memory that loading may take beside what the process had: TensorFlow's own threads and arenas are below 1 GiB."""

TIMES_ON_DISK = 20
"""How many times the size of a model on the disk loading it may take: weights, their copies, and a traced graph."""


@contextlib.contextmanager
def bounded_memory(path: Path) -> Iterator[None]:
    """Bounds what this process may take for a model; what goes beyond fails, and ends the process where it is C++.

    Args:
        path: the model, a file or a folder.
    """
    before = resource.getrlimit(resource.RLIMIT_DATA)
    wanted = _in_use() + max(LEAST_BYTES, TIMES_ON_DISK * _size(path))
    hard = before[1]
    soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)


def _in_use() -> int:
    """Bytes of data that this process holds now; 0 where the system does not tell."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmData:"):
                return int(line.split()[1]) * 1024
    return 0


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())

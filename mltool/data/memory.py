"""How much memory can be had."""

from pathlib import Path

from mltool import extras

_CGROUP = Path("/sys/fs/cgroup")
"""Of the container itself, where there is one (cgroup v2)."""


def free_memory_bytes() -> int:
    """Memory that can be had without swapping: what the kernel says is available, and the container's limit leaves."""
    free = int(extras.require("psutil").virtual_memory().available)
    in_container = _free_in_container()
    return free if in_container is None else min(free, in_container)


def _free_in_container() -> int | None:
    """What the limit of a container leaves; None without one.

    What files have cached counts as taken there, and is given back when somebody wants it.
    """
    try:
        limit = (_CGROUP / "memory.max").read_text(encoding="ascii").strip()
        taken = int((_CGROUP / "memory.current").read_text(encoding="ascii"))
        stats = dict(line.split() for line in (_CGROUP / "memory.stat").read_text(encoding="ascii").splitlines())
        return None if limit == "max" else max(int(limit) - taken + int(stats["inactive_file"]), 0)
    except (OSError, ValueError, KeyError):
        return None  # no cgroup v2, or not Linux

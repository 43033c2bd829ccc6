"""Free memory: what the machine has, or what a container leaves of it."""

from pathlib import Path

import psutil
import pytest

from mltool.data import memory
from mltool.data.memory import free_memory_bytes

GB = 10**9


@pytest.fixture
def cgroup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One of 2 GB, of which 1.5 are taken, 0.3 of them by files that were read."""
    for name, content in {
        "memory.max": f"{2 * GB}\n",
        "memory.current": f"{3 * GB // 2}\n",
        "memory.stat": f"anon {GB}\ninactive_file {3 * GB // 10}\nactive_file 7\n",
    }.items():
        (tmp_path / name).write_text(content)
    monkeypatch.setattr(memory, "_CGROUP", tmp_path)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: type("Memory", (), {"available": 16 * GB}))
    return tmp_path


def test_a_container_has_what_its_limit_leaves(cgroup):
    assert free_memory_bytes() == 8 * GB // 10


def test_a_container_without_a_limit_has_what_the_machine_has(cgroup):
    (cgroup / "memory.max").write_text("max\n")
    assert free_memory_bytes() == 16 * GB


def test_a_machine_with_less_than_the_limit_has_what_it_has(cgroup):
    (cgroup / "memory.max").write_text(f"{64 * GB}\n")
    assert free_memory_bytes() == 16 * GB


def test_without_cgroups_the_machine_is_asked(cgroup):
    (cgroup / "memory.max").unlink()
    assert free_memory_bytes() == 16 * GB

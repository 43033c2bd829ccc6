"""What a run was made with: versions, devices, determinism; part of run.json."""

import os
import platform
import subprocess
import sys
from typing import Any

from mltool import extras
from mltool.training.strategy import device_names

_DISTRIBUTIONS = ("tensorflow", "keras", "numpy", "ai-edge-litert", "litert-quantizer")
_OF_BACKEND = {"tensorflow": (), "jax": ("jax", "jaxlib"), "torch": ("torch",)}


def describe_environment(strategy: Any) -> dict[str, Any]:
    """Versions, devices, strategy, the commit of the working directory, and what changes the last digits."""
    return {
        "versions": _versions(),
        "platform": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "backend": extras.backend(),
        "devices": device_names() if extras.backend() == "tensorflow" else list(strategy.devices),
        "strategy": type(strategy).__name__,
        "replicas": int(strategy.num_replicas_in_sync),
        "determinism": {"TF_ENABLE_ONEDNN_OPTS": os.environ.get("TF_ENABLE_ONEDNN_OPTS")},
        "git_commit": _git_commit(),
        "command": sys.argv,
    }


def _versions() -> dict[str, str]:
    found = {name: extras.version_of(name) for name in (*_DISTRIBUTIONS, *_OF_BACKEND[extras.backend()])}
    own = {"mltool": extras.version_of("mltool-tf") or "source", "python": platform.python_version()}
    return own | {name: version for name, version in found.items() if version is not None}


def _git_commit() -> str | None:
    """The commit of the user's working directory, None outside of a repository or without git."""
    command = ["git", "rev-parse", "HEAD"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)  # noqa: S603  fixed
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() or None

"""What a run was made with: versions, devices, determinism; part of run.json."""

import os
import platform
import subprocess
import sys
from typing import Any

from mltool import extras
from mltool.training.devices.runtime import ONEDNN
from mltool.training.devices.strategy import device_names

_DISTRIBUTIONS = ("tensorflow", "keras", "numpy", "ai-edge-litert", "litert-quantizer")
_OF_BACKEND = {"tensorflow": (), "jax": ("jax", "jaxlib"), "torch": ("torch",)}


def describe_environment(strategy: Any, *, jit_compile: bool, deterministic: bool) -> dict[str, Any]:
    """Versions, devices, strategy, the commit of the working directory, and what changes the last digits."""
    backend, devices = extras.backend(), device_names()
    return {
        "versions": _versions(),
        "platform": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "backend": backend,
        "devices": devices,
        "strategy": type(strategy).__name__,
        "replicas": int(strategy.num_replicas_in_sync),
        "determinism": {
            "jit_compile": jit_compile,
            "deterministic": deterministic and (backend == "tensorflow" or "CPU" in devices[0]),
            **_numerics(),
        },
        "git_commit": _git_commit(),
        "command": sys.argv,
    }


def _numerics() -> dict[str, Any]:
    """What else changes TensorFlow's last digits; nothing of it is a setting of the other backends."""
    if extras.backend() != "tensorflow":
        return {}
    config = extras.tensorflow().config
    return {
        ONEDNN: os.environ.get(ONEDNN),
        "threads": config.threading.get_intra_op_parallelism_threads() or os.cpu_count(),
        "tf32": config.experimental.tensor_float_32_execution_enabled(),
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

"""Which of Keras' callbacks a spec may name, and why not the others; and where those may write."""

from pathlib import Path
from typing import Final

OUR_CALLBACKS: Final = ("EarlyStopping", "ReduceLROnPlateau")
"""Ours, under Keras' names, with their state in the checkpoint."""

CALLBACKS: Final = (*OUR_CALLBACKS, "CSVLogger", "RemoteMonitor")
"""All that may be named; those of Keras that are not ours only look on."""

_CHECKPOINTS: Final = "mltool keeps checkpoints itself", "write keep: best, or last; mltool train --resume goes on"

REFUSED_CALLBACKS: Final = {
    "ModelCheckpoint": _CHECKPOINTS,
    "BackupAndRestore": _CHECKPOINTS,
    "OrbaxCheckpoint": _CHECKPOINTS,
    "TensorBoard": ("mltool writes events/ of the run itself", "leave it out; mltool train --profile has a profile"),
    "TerminateOnNaN": ("a loss that is not finite ends every training, with exit code 6", "leave it out"),
    "SwapEMAWeights": ("mltool validates and keeps the averages of use_ema itself", "leave it out"),
}
"""What mltool does itself, and what to write in the place of the callback."""


def lies_in_the_run(filename: str) -> bool:
    """Whether what a callback writes lies in `callbacks/` of its run, whatever the working directory."""
    path = Path(filename)
    return bool(path.parts) and not path.is_absolute() and path.parts[0][0] != "~" and ".." not in path.parts

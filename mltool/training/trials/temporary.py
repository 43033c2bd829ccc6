"""What runs a few steps of a training, and leaves no run: one way to begin for all of them."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mltool.cluster.join import require_one_process
from mltool.runs.run import Run
from mltool.spec.backend import require_tensorflow
from mltool.spec.spec import Spec
from mltool.training.interrupts import Interrupts
from mltool.training.memory import out_of_memory

IF_IT_DOES_NOT_FIT = "write train.accumulate: 2 or more, a smaller data.batch_size, or a smaller model"
"""What to do where memory runs out; --find-batch-size does the second."""


def require_trials(spec: Spec, what: str) -> None:
    """Such steps are TensorFlow's, of one process.

    Args:
        spec: checked.
        what: that is to run, for messages.

    Raises:
        SpecError: if the spec trains with another backend.
        UsageError: if it is for several processes.
    """
    require_tensorflow(spec, f"{what} runs TensorFlow's steps")
    require_one_process(spec, what, "add --set train.strategy=one_device")


@contextmanager
def temporary_run(spec: Spec, what: str) -> Iterator[Run]:
    """A run that goes when this ends, however it ends.

    Args:
        spec: checked.
        what: that runs in it, for messages.

    Raises:
        OutOfMemory: if memory runs out inside.
        UsageError, SpecError: as `require_trials`.
    """
    require_trials(spec, what)
    # SIGTERM as Ctrl-C, so that the folder goes then too.
    with Interrupts(), tempfile.TemporaryDirectory(prefix="mltool-trial-") as folder, out_of_memory(1):
        yield Run.create(spec, Path(folder) / "run")

"""What must be set before TensorFlow runs its first operation, and what is decided when its devices are known."""

import logging
import os
from typing import Any

from mltool import extras
from mltool.errors import MachineError, Message, SpecError
from mltool.spec.train import TrainSpec

logger = logging.getLogger("mltool")

ONEDNN = "TF_ENABLE_ONEDNN_OPTS"
"""Read when TensorFlow is imported."""


def prepare_runtime(spec: TrainSpec) -> None:
    """Sets kernels, threads and determinism; they hold for the whole process.

    Raises:
        MachineError: if the environment says otherwise than the spec, or TensorFlow runs already.
    """
    _set_onednn(spec)
    if spec.threads is not None:
        _set_threads(spec.threads)
    # Asking for the devices costs the import of TensorFlow, which bad data should not have to wait for.
    if not spec.tf32:
        extras.tensorflow().config.experimental.enable_tensor_float_32_execution(False)


def make_deterministic(spec: TrainSpec) -> None:
    """Lets a GPU give the same bits twice, as a CPU does anyway."""
    tf = extras.tensorflow()
    if spec.deterministic and tf.config.list_physical_devices("GPU"):
        tf.config.experimental.enable_op_determinism()


def _set_onednn(spec: TrainSpec) -> None:
    if spec.onednn == "auto":
        return
    wanted, found = str(int(spec.onednn)), os.environ.get(ONEDNN)
    if found is not None and found != wanted:
        message = f"{ONEDNN} is {found!r} in the environment, and train.onednn is {str(spec.onednn).lower()}"
        raise MachineError(message, f"unset {ONEDNN}, or write onednn: auto")
    os.environ[ONEDNN] = wanted


def _set_threads(threads: int) -> None:
    threading = extras.tensorflow().config.threading
    if threading.get_intra_op_parallelism_threads() == threads:
        return
    try:
        threading.set_intra_op_parallelism_threads(threads)
        threading.set_inter_op_parallelism_threads(threads)
    except RuntimeError as error:
        raise MachineError(
            f"train.threads: {threads} cannot be set: TensorFlow runs already", "train in a process of its own"
        ) from error


def compiles(spec: TrainSpec, model: Any, strategy: Any) -> bool:
    """Whether XLA compiles forward and backward pass.

    `auto`: on GPUs and TPUs where it can; XLA knows no text, and no collective of a synchronized BatchNormalization.

    Raises:
        SpecError: if it was asked for, and cannot work.
    """
    why_not = _no_compilation(model, strategy)
    if spec.jit_compile == "auto":
        tf = extras.tensorflow()
        accelerated = bool(tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("TPU"))
        if accelerated and why_not:
            logger.info("XLA is off: %s", why_not)
        return accelerated and not why_not
    if spec.jit_compile and why_not:
        raise SpecError(Message(f"XLA cannot compile this model: {why_not}", "write auto", key="train.jit_compile"))
    return bool(spec.jit_compile)


def _no_compilation(model: Any, strategy: Any) -> str | None:
    """Why XLA cannot compile the passes of a model; None where it can."""
    texts = [one.name for one in model.inputs if one.dtype == "string"]
    if texts:
        return f"the input {texts[0]!r} is text"
    synchronized = [layer.name for layer in model._flatten_layers() if getattr(layer, "synchronized", False)]
    if synchronized and strategy.num_replicas_in_sync > 1:
        return f"{synchronized[0]!r} sums its statistics over the replicas"
    return None

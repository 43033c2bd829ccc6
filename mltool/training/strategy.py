"""How training is distributed over devices."""

from typing import Any

from mltool import extras


def build_strategy() -> Any:
    """The strategy `auto`: all GPUs of the machine when there are several, else one device."""
    tf = extras.tensorflow()
    if len(tf.config.list_logical_devices("GPU")) > 1:
        return tf.distribute.MirroredStrategy()
    return tf.distribute.get_strategy()


def make_deterministic() -> None:
    """Lets a GPU give the same bits twice, as a CPU does anyway; it holds for the whole process."""
    tf = extras.tensorflow()
    if tf.config.list_physical_devices("GPU"):
        tf.config.experimental.enable_op_determinism()


def device_names() -> list[str]:
    """The devices that training may use, such as `/device:CPU:0`."""
    tf = extras.tensorflow()
    return [device.name for device in tf.config.list_logical_devices() if device.device_type in ("CPU", "GPU", "TPU")]

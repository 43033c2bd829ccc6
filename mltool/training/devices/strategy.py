"""From `train.strategy` to a strategy of tf.distribute: what the machine does not have is refused, with the reason."""

import re
import socket
import textwrap
from collections.abc import Callable, Sequence
from typing import Any, assert_never

from mltool import extras
from mltool.errors import MachineError
from mltool.spec.strategy import (
    AutoStrategy,
    CentralStorageStrategy,
    MirroredStrategy,
    MultiWorkerStrategy,
    OneDeviceStrategy,
    ParameterServerStrategy,
    StrategySpec,
    TpuStrategy,
)


def build_strategy(spec: StrategySpec) -> Any:  # noqa: PLR0911  a case a strategy
    """The strategy that `spec` describes, on this machine.

    Raises:
        MachineError: if a device, or another process, is not there.
    """
    tf = extras.tensorflow()
    match spec:
        case AutoStrategy():
            several = len(tf.config.list_logical_devices("GPU")) > 1
            return tf.distribute.MirroredStrategy() if several else tf.distribute.get_strategy()
        case OneDeviceStrategy():
            return _one_device(spec)
        case MirroredStrategy():
            return tf.distribute.MirroredStrategy(
                _require_devices(spec.devices, spec.NAME), cross_device_ops=_cross_device_ops(spec)
            )
        case CentralStorageStrategy():
            devices = _require_devices(spec.devices, spec.NAME)
            return tf.distribute.experimental.CentralStorageStrategy(devices, "CPU:0")
        case MultiWorkerStrategy():
            return _multi_worker(spec)
        case ParameterServerStrategy():
            resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
            return tf.distribute.ParameterServerStrategy(resolver)
        case TpuStrategy():
            return _tpu(spec)
    return assert_never(spec)  # type: ignore[arg-type]


def _one_device(spec: OneDeviceStrategy) -> Any:
    tf = extras.tensorflow()
    gpus = [short_name(device.name) for device in tf.config.list_logical_devices("GPU")]
    (device,) = _require_devices((spec.device,), spec.NAME) if spec.device else (gpus or ["CPU:0"])[:1]
    default = (gpus or ["CPU:0"])[0]
    # The default strategy is the same on the device that TensorFlow takes by itself, and costs nothing.
    return tf.distribute.get_strategy() if device == default else tf.distribute.OneDeviceStrategy(f"/{device}")


def _require_devices(devices: Sequence[str] | None, strategy: str) -> list[str]:
    """The devices that were asked for, or all GPUs.

    Raises:
        MachineError: if there are fewer.
    """
    tf = extras.tensorflow()
    if devices is None:
        found = [short_name(device.name) for device in tf.config.list_logical_devices("GPU")]
        if not found:
            message = f"{strategy} takes all GPUs of the machine, and TensorFlow sees none"
            raise MachineError(message, f"name devices: {strategy}: {{devices: [CPU:0, CPU:1]}}, or take auto")
        return found
    _split_cpu(devices)
    known = [short_name(device.name) for device in tf.config.list_logical_devices()]
    missing = [device for device in devices if device not in known]
    if missing:
        there = ", ".join(name for name in known if re.match("CPU|GPU|TPU", name))
        raise MachineError(
            f"{strategy} asks for {', '.join(missing)}, which this machine does not have", f"TensorFlow sees {there}"
        )
    return list(devices)


def _split_cpu(devices: Sequence[str]) -> None:
    """Makes several devices of the CPU where several are named; possible only before TensorFlow's first operation.

    Raises:
        MachineError: if that is over.
    """
    tf = extras.tensorflow()
    count = 1 + max((int(name[4:]) for name in devices if name.startswith("CPU:")), default=0)
    if count == 1:
        return
    (cpu,) = tf.config.list_physical_devices("CPU")
    made = tf.config.get_logical_device_configuration(cpu)
    if made is not None and len(made) >= count:
        return
    try:
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * count)
    except RuntimeError as error:
        raise MachineError(
            f"{count} CPU devices cannot be made: TensorFlow runs already", "train in a process of its own"
        ) from error


def _cross_device_ops(spec: MirroredStrategy) -> Any:
    tf = extras.tensorflow()
    match spec.communication:
        case "auto":
            return None
        case "nccl":
            if not tf.config.list_physical_devices("GPU"):
                raise MachineError("NCCL is for GPUs, and TensorFlow sees none", "take communication: auto")
            return tf.distribute.NcclAllReduce()
        case "hierarchical_copy":
            return tf.distribute.HierarchicalCopyAllReduce()
        case "reduce_to_one":
            return tf.distribute.ReductionToOneDevice()
    return assert_never(spec.communication)


def _multi_worker(spec: MultiWorkerStrategy) -> Any:
    tf = extras.tensorflow()
    communication = tf.distribute.experimental.CommunicationImplementation
    implementation = {"auto": communication.AUTO, "ring": communication.RING, "nccl": communication.NCCL}
    if spec.communication == "nccl" and not tf.config.list_physical_devices("GPU"):
        raise MachineError("NCCL is for GPUs, and TensorFlow sees none", "take communication: ring")
    options = tf.distribute.experimental.CommunicationOptions(implementation=implementation[spec.communication])
    return tf.distribute.MultiWorkerMirroredStrategy(communication_options=options)


def _tpu(spec: TpuStrategy) -> Any:
    """Connects to a TPU.

    Raises:
        MachineError: if the name means nothing, nothing answers, or there is none: TensorFlow has an error for each.
    """
    tf = extras.tensorflow()
    hint = "take strategy: auto, or name a TPU that this machine reaches"
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(spec.name, zone=spec.zone, project=spec.project)
        machines = [] if spec.name == "local" else _addresses_of(resolver)
    except (ValueError, RuntimeError, OSError) as error:
        raise MachineError(f"the TPU {spec.name!r} cannot be found: {_first_line(error)}", hint) from error
    try:
        if spec.name != "local":
            _require_answers(machines)
            tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
    except (tf.errors.NotFoundError, tf.errors.InvalidArgumentError) as error:
        raise MachineError(
            f"this TensorFlow has no TPU, or none is reachable: {_first_sentence(error)}", hint
        ) from error
    except (tf.errors.OpError, ValueError, RuntimeError, OSError) as error:
        raise MachineError(f"the TPU {spec.name!r} does not answer: {_first_line(error)}", hint) from error
    return tf.distribute.TPUStrategy(resolver)


ANSWER_SECONDS = 10.0
"""How long a TPU's machine may take to take a connection; TensorFlow itself would try for ever."""


def _addresses_of(resolver: Any) -> list[str]:
    return [address for addresses in resolver.cluster_spec().as_dict().values() for address in addresses]


def _require_answers(addresses: Sequence[str]) -> None:
    """Connects to every machine of a TPU once.

    Raises:
        OSError: if one does not answer.
    """
    for address in addresses:
        host, _, port = address.rpartition(":")
        socket.create_connection((host, int(port)), timeout=ANSWER_SECONDS).close()


def _first_line(error: BaseException) -> str:
    """Of what TensorFlow says; a long one is cut at a word."""
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return textwrap.shorten(line, 200, placeholder=" ...")


def _first_sentence(error: BaseException) -> str:
    """Of what TensorFlow says, without the node of its graph and what follows it."""
    return re.split(r"(?<=[^ .])[.;](?:\s|$)| used by \{\{", _first_line(error))[0]


def short_name(name: str) -> str:
    """`GPU:0` of `/device:GPU:0`, and of longer names."""
    return name.rpartition("device:")[2]


def distribution_of(strategy: Any) -> Callable[[Any], Any] | None:
    """Makes of a dataset, one share after the other, what the strategy runs on; None on one device."""
    if strategy.num_replicas_in_sync == 1:
        return None
    return lambda dataset: strategy.distribute_datasets_from_function(lambda _: dataset)


def needs_static_shapes(strategy: Any) -> bool:
    """Whether every batch must have one size."""
    return isinstance(strategy, extras.tensorflow().distribute.TPUStrategy)


def device_names() -> list[str]:
    """The devices that training may use, such as `/device:CPU:0`; another backend than TensorFlow takes one alone."""
    backend = extras.backend()
    if backend == "jax":
        return [f"/device:{extras.require('jax').default_backend().upper()}:0"]
    if backend == "torch":
        return [f"/device:{'GPU' if extras.require('torch').cuda.is_available() else 'CPU'}:0"]
    tf = extras.tensorflow()
    return [device.name for device in tf.config.list_logical_devices() if device.device_type in ("CPU", "GPU", "TPU")]

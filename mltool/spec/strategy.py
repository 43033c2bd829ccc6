"""`train.strategy`: over which devices and processes a training is spread, in tf.distribute's words."""

import re
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, Strict, ValidationError, model_validator

from mltool.spec.argument_check import Problem, did_you_mean, shown
from mltool.spec.section import DURATION, Checked, Section, error_details, raise_problem, raise_problems

_DEVICE = r"^(CPU|GPU):\d+$"


def _check_device(value: Any) -> Any:
    if value is not None and not (isinstance(value, str) and re.match(_DEVICE, value)):
        raise_problem(f"must be a device (got {shown(value)})", "write GPU:0, GPU:1, ... or CPU:0")
    return value


Device = Annotated[str, Checked(_check_device, lambda: {"type": "string", "pattern": _DEVICE})]


class StrategySpec(Section):
    """A strategy; without arguments it is written as its name alone."""

    NAME: ClassVar[str]
    """As the spec has it."""

    def to_spec(self) -> Any:
        """The value as YAML has it."""
        fields = type(self).model_fields.items()
        said = {name: getattr(self, name) for name, field in fields if getattr(self, name) != field.default}
        plain = {name: list(value) if isinstance(value, tuple) else value for name, value in said.items()}
        return {self.NAME: plain} if plain else self.NAME


class AutoStrategy(StrategySpec):
    """All GPUs of the machine when there are several, else the one, else the CPU."""

    NAME = "auto"


class OneDeviceStrategy(StrategySpec):
    """One device."""

    NAME = "one_device"
    device: Annotated[
        str | None,
        Checked(_check_device, lambda: {"anyOf": [{"type": "string", "pattern": _DEVICE}, {"type": "null"}]}),
    ] = None
    """Such as GPU:1; the first GPU, else the CPU, when left out."""


class _OverDevices(StrategySpec):
    devices: Annotated[tuple[Device, ...] | None, Strict(False), Field(min_length=1)] = None
    """Such as [GPU:0, GPU:1]; all GPUs when left out. CPU:0, CPU:1, ... are parts of one processor, to try things
    out."""

    @model_validator(mode="after")
    def _each_once(self) -> "_OverDevices":
        devices = self.devices or ()
        twice = next((index for index, device in enumerate(devices) if device in devices[:index]), None)
        if twice is not None:
            raise_problem(f"{devices[twice]} stands twice", "name every device once", path=("devices", twice))
        if len({device.partition(":")[0] for device in devices}) > 1:
            raise_problem("devices of one kind are needed", "name GPUs, or CPUs, alone", path=("devices",))
        return self


class MirroredStrategy(_OverDevices):
    """A replica on every device of this machine; all change the weights alike in every step."""

    NAME = "mirrored"
    communication: Literal["auto", "nccl", "hierarchical_copy", "reduce_to_one"] = "auto"
    """How gradients are summed; auto takes NCCL for GPUs."""


class CentralStorageStrategy(_OverDevices):
    """Weights on the CPU, or on the only GPU; replicas on every device of this machine compute with them."""

    NAME = "central_storage"


class _OverProcesses(StrategySpec):
    start_timeout: Annotated[float, DURATION] = 300.0
    """How long to wait for the other processes: seconds, or with a unit (5 min)."""


class MultiWorkerStrategy(_OverProcesses):
    """Several processes, on one machine or many, that change the weights alike in every step."""

    NAME = "multi_worker"
    communication: Literal["auto", "ring", "nccl"] = "auto"
    """How gradients are summed between processes."""


class ParameterServerStrategy(_OverProcesses):
    """Workers that change weights on parameter servers, each when it is done: never the same bits twice."""

    NAME = "parameter_server"


class TpuStrategy(StrategySpec):
    """The cores of a TPU; batches are filled up to one size there, and no sample is left out."""

    NAME = "tpu"
    name: Annotated[str, Field(min_length=1)] = "local"
    """Its name or address; local on a TPU VM."""
    zone: str | None = None
    """Google Cloud's zone of a TPU that is named."""
    project: str | None = None
    """Google Cloud's project of a TPU that is named."""

    @model_validator(mode="after")
    def _place_of_a_name(self) -> "TpuStrategy":
        given = [key for key in ("zone", "project") if getattr(self, key) is not None]
        if self.name == "local" and given:
            raise_problem(
                f"{given[0]} is of a TPU that is named", f"add name, or leave {given[0]} out", path=(given[0],)
            )
        return self


STRATEGIES: dict[str, type[StrategySpec]] = {
    strategy.NAME: strategy
    for strategy in (
        AutoStrategy,
        OneDeviceStrategy,
        MirroredStrategy,
        MultiWorkerStrategy,
        ParameterServerStrategy,
        CentralStorageStrategy,
        TpuStrategy,
    )
}
"""Every strategy by its name."""


def parse_strategy(value: Any) -> StrategySpec:
    """A name, or a map of one name to its arguments.

    Raises:
        ValidationError: if it is neither, or an argument is wrong.
    """
    if isinstance(value, StrategySpec):
        return value
    if isinstance(value, dict) and len(value) == 1:
        ((name, arguments),) = value.items()
    else:
        name, arguments = value, None
    if not isinstance(name, str):
        raise_problem(f"must be a strategy (got {shown(value)})", "write mirrored, or mirrored: {devices: [GPU:0]}")
    if name not in STRATEGIES:
        hint = did_you_mean(name, list(STRATEGIES)) or f"known: {', '.join(STRATEGIES)}"
        raise_problem(f"unknown strategy {name!r}", hint, path=(name,) if isinstance(value, dict) else (), at_key=True)
    if arguments is not None and not isinstance(arguments, dict):
        raise_problem(f"must be a map of arguments (got {shown(arguments)})", f"write {name}, or {name}: {{...}}")
    return _checked(name, arguments or {})


def _checked(name: str, arguments: dict[str, Any]) -> StrategySpec:
    section = STRATEGIES[name]
    known = list(section.model_fields)
    problems = [
        Problem((name, str(key)), True, "unknown argument", did_you_mean(str(key), known) or _known(known))
        for key in arguments
        if key not in known
    ]
    raise_problems(problems, arguments)
    try:
        return section.model_validate(arguments)
    except ValidationError as error:
        details = [{**detail, "loc": (name, *detail["loc"])} for detail in error_details(error)]
        raise ValidationError.from_exception_data("spec", details) from None  # type: ignore[arg-type]


def _known(names: list[str]) -> str:
    return f"known: {', '.join(names)}" if names else "it takes none"


def _schema() -> dict[str, Any]:
    """Every name, bare or with its arguments."""
    forms = {name: strategy.model_json_schema() for name, strategy in STRATEGIES.items()}
    return {
        "anyOf": [
            {"enum": list(forms)},
            {
                "type": "object",
                "properties": forms,
                "additionalProperties": False,
                "minProperties": 1,
                "maxProperties": 1,
            },
        ]
    }


Strategy = Annotated[StrategySpec, Checked(parse_strategy, _schema)]

"""EarlyStopping and ReduceLROnPlateau under Keras' names, with a state that a checkpoint can hold.

What they do is always told, whatever `verbose`.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol

import numpy as np

from mltool import extras
from mltool.console import counted
from mltool.errors import Message, SpecError
from mltool.spec.catalogue import KerasObject

logger = logging.getLogger("mltool")

Mode = Literal["auto", "min", "max"]
"""Whether less or more of a monitor is better; `auto` is gone when a callback of the spec was built."""


def improves(mode: Mode, value: float, best: float | None, min_delta: float = 0.0) -> bool:
    """Whether `value` is better than `best` by more than `min_delta`.

    NaN never is. (With Keras the value of the first epoch always is; when that is NaN nothing improves ever after.)
    """
    if np.isnan(value):
        return False
    if best is None:
        return True
    return value - abs(min_delta) > best if mode == "max" else value + abs(min_delta) < best


def learning_rate_of(optimizer: Any) -> float:
    """What the next step goes by; of several devices, which hold it each, that of the first."""
    return float(extras.keras().ops.convert_to_numpy(optimizer.learning_rate))


@dataclass
class EarlyStopping:
    """Stops when the monitor has not improved for `patience` epochs; arguments as in keras.callbacks.EarlyStopping."""

    STATE: ClassVar[tuple[str, ...]] = ("best", "wait")

    monitor: str = "val_loss"
    min_delta: float = 0.0
    patience: int = 0
    verbose: int = 0
    mode: Mode = "auto"
    baseline: float | None = None
    restore_best_weights: bool = False
    start_from_epoch: int = 0
    best: float | None = None
    wait: int = 0

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float], optimizer: Any) -> str | None:
        """Returns why training stops, or None; `epoch` counts from 0."""
        if epoch < self.start_from_epoch:
            return None
        value = logs[self.monitor]
        self.wait += 1
        if improves(self.mode, value, self.best, self.min_delta):
            self.best = value
            if self.baseline is None or improves(self.mode, value, self.baseline, self.min_delta):
                self.wait = 0
            return None
        if self.wait >= self.patience and epoch > 0:
            return f"{self.monitor} has not improved for {counted(self.wait, 'epoch')}"
        return None


@dataclass
class ReduceLROnPlateau:
    """Multiplies the learning rate by `factor` when the monitor stalls; as keras.callbacks.ReduceLROnPlateau."""

    STATE: ClassVar[tuple[str, ...]] = ("best", "wait", "cooldown_left")

    monitor: str = "val_loss"
    factor: float = 0.1
    patience: int = 10
    verbose: int = 0
    mode: Mode = "auto"
    min_delta: float = 1e-4
    cooldown: int = 0
    min_lr: float = 0.0
    best: float | None = None
    wait: int = 0
    cooldown_left: int = 0

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float], optimizer: Any) -> str | None:
        """Changes the optimizer's learning rate where it is due; never stops training."""
        value = logs[self.monitor]
        if self.cooldown_left > 0:
            self.cooldown_left -= 1
            self.wait = 0
        if improves(self.mode, value, self.best, self.min_delta):
            self.best, self.wait = value, 0
        elif self.cooldown_left <= 0:
            self.wait += 1
            if self.wait >= self.patience and (before := self._reduce(optimizer)) is not None:
                logger.info(
                    "%s has not improved for %s: the learning rate goes from %.3g to %.3g",
                    *(self.monitor, counted(self.wait, "epoch"), before, learning_rate_of(optimizer)),
                )
                self.cooldown_left, self.wait = self.cooldown, 0
        return None

    def _reduce(self, optimizer: Any) -> float | None:
        """Gives the learning rate of before; None where it is as low as it may be."""
        rate = learning_rate_of(optimizer)
        # The optimizer keeps float32, so the floor has to be compared as one.
        if rate <= np.float32(self.min_lr):
            return None
        optimizer.learning_rate = max(rate * self.factor, self.min_lr)
        return rate


class Callback(Protocol):
    """What the loop knows of a callback."""

    STATE: ClassVar[tuple[str, ...]]
    monitor: str
    mode: Mode

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float], optimizer: Any) -> str | None:
        """Sees the results of an epoch; returns why training stops, or None."""


_CALLBACKS: dict[str, type[EarlyStopping] | type[ReduceLROnPlateau]] = {
    "EarlyStopping": EarlyStopping,
    "ReduceLROnPlateau": ReduceLROnPlateau,
}


def build_callback(callback: KerasObject, greater_is_better: Mapping[str, bool | None], *, at: str = "") -> Callback:
    """One callback of the spec.

    Args:
        callback: of the spec.
        greater_is_better: of every result by name, without `val_`; None where that is not known.
        at: dotted key of the spec, for messages.

    Raises:
        SpecError: if its arguments make no sense, or mode `auto` cannot be told.
    """
    built = _CALLBACKS[callback.name](**callback.arguments)
    if isinstance(built, ReduceLROnPlateau) and built.factor >= 1:
        message = f"must be less than 1 (got {built.factor:g})"
        raise SpecError(Message(message, "the learning rate is multiplied by it", key=f"{at}.factor"))
    if built.mode == "auto":
        direction = greater_is_better[built.monitor.removeprefix("val_")]
        if direction is None:
            message = f"whether more of {built.monitor} is better is not known"
            raise SpecError(Message(message, "write mode: max, or mode: min", key=at))
        built.mode = "max" if direction else "min"
    return built


def state_of(callback: Callback) -> dict[str, Any]:
    """What a checkpoint holds of a callback."""
    return {name: getattr(callback, name) for name in callback.STATE}


def restore(callback: Callback, state: Mapping[str, Any]) -> None:
    """Puts a checkpoint's state back."""
    for name in callback.STATE:
        setattr(callback, name, state[name])

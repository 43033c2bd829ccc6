"""A schedule of Keras', made smaller: what going back to a checkpoint does to the learning rate."""

import functools
from typing import Any

from mltool import extras


def scaled_schedule(plain: Any, factor: float) -> Any:
    """A keras LearningRateSchedule that gives `factor` times what `plain` does; it has both as attributes."""
    return _scaled_class()(plain, factor)


@functools.cache
def _scaled_class() -> type:
    base: type = extras.keras().optimizers.schedules.LearningRateSchedule

    class Scaled(base):  # type: ignore[misc]
        def __init__(self, plain: Any, factor: float) -> None:
            self.plain, self.factor = plain, factor

        def __call__(self, step: Any) -> Any:
            return self.plain(step) * self.factor

    return Scaled

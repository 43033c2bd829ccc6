"""`train.step`: a training step of the user's in the place of mltool's."""

from typing import Annotated, Any

from pydantic import model_validator

from mltool.spec.section import Checked, Section, raise_problems
from mltool.spec.user_code import argument_problems, check_reference

GIVEN = 4
"""What a step is called with before the spec's keywords: model, optimizer, loss, batch."""


class StepSpec(Section):
    """A training step of yours."""

    python: Annotated[str, Checked(check_reference, lambda: {"type": "string"})]
    """A function of (model, optimizer, loss, batch), `module:name`, from the spec's own folder or an installed package;
    it is run. It applies the gradients itself, and returns the loss, or {"loss": ..., "outputs": ...} where training
    metrics are to be counted."""
    arguments: dict[str, Any] | None = None
    """Keywords for `python`."""

    @model_validator(mode="after")
    def _arguments_fit(self) -> "StepSpec":
        raise_problems(argument_problems(self.python, self.arguments or {}, given=GIVEN), None)
        return self

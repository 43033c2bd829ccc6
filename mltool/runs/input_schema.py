"""What a model needs to be understood: inputs, task, labels, output; one record that travels with every artifact."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from mltool.errors import ArtifactError

Task = Literal["classification", "binary", "regression"]


@dataclass(frozen=True, slots=True)
class InputInfo:
    """One input of the model.

    Attributes:
        name: the same in every artifact.
        dtype: such as `float32`.
        shape: of one sample, without the batch axis.
        minimum: least value in the training data.
        maximum: greatest value in the training data.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    minimum: float
    maximum: float


@dataclass(frozen=True, slots=True)
class InputSchema:
    """The record `input.json`.

    Attributes:
        inputs: in the order of the model.
        output: name of the model's output.
        output_shape: of one sample.
        task: what the output answers.
        activation: what the outputs are: `logits`, `probabilities` or `values`.
        labels: names of the classes, in the order of the outputs; empty for regression.
        preprocessing: the preprocessing layers that are inside the artifact.
    """

    inputs: tuple[InputInfo, ...]
    output: str
    output_shape: tuple[int, ...]
    task: Task
    activation: Literal["logits", "probabilities", "values"]
    labels: tuple[str, ...]
    preprocessing: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The record as it is written."""
        return {"schema_version": 1, **asdict(self)}

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> "InputSchema":
        """Reads the record.

        Raises:
            ArtifactError: if a key is missing.
        """
        try:
            inputs = tuple(
                InputInfo(i["name"], i["dtype"], tuple(i["shape"]), i["minimum"], i["maximum"])
                for i in document["inputs"]
            )
            return cls(
                inputs=inputs,
                output=document["output"],
                output_shape=tuple(document["output_shape"]),
                task=document["task"],
                activation=document["activation"],
                labels=tuple(document["labels"]),
                preprocessing=tuple(document["preprocessing"]),
            )
        except (KeyError, TypeError) as error:
            raise ArtifactError(f"input.json lacks {error}", "convert the run again") from error


def load_input_schema(path: Path) -> InputSchema:
    """Reads `input.json`.

    Raises:
        ArtifactError: if it is missing or damaged.
    """
    try:
        return InputSchema.from_json(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path} is missing or damaged: {error}", "copy the whole lite/ folder") from error

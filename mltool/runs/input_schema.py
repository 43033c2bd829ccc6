"""What a model needs to be understood: inputs, task, labels, output; one record that travels with every artifact."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from mltool.errors import ArtifactError

Task = Literal["classification", "binary", "regression", "segmentation"]


@dataclass(frozen=True, slots=True)
class InputInfo:
    """One input of the model.

    Attributes:
        name: the same in every artifact.
        dtype: `float32` or `string`.
        shape: of one sample, without the batch axis.
        minimum: least value in the training data; None for text.
        maximum: greatest value in the training data; None for text.
        kind: `number`, `category`, `text`, `image`, `audio`, `series`, or "" where nothing is known.
        original: what the data call it, where that is no identifier.
        missing: whether values were missing in the training data, and may be.
        categories: of a category, in the training data; empty for all other kinds, and where there are too many.
        sample_rate: of audio, per second.
        resize: how images are brought to `shape` before the model takes them (bilinear): `stretch`, `crop`, `pad`; None
            where they have it.
        columns: of a series that is cut from the rows of a table, in their order; empty for all else.
        time: the column that these rows are sorted by; None: as they stand in the file.
        group: the column that tells several series of one table apart.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    minimum: float | None
    maximum: float | None
    kind: str = ""
    original: str | None = None
    missing: bool = False
    categories: tuple[str, ...] = ()
    sample_rate: int | None = None
    resize: Literal["stretch", "crop", "pad"] | None = None
    columns: tuple[str, ...] = ()
    time: str | None = None
    group: str | None = None


@dataclass(frozen=True, slots=True)
class PreprocessStep:
    """One preprocessing layer of the model.

    Attributes:
        name: of the layer.
        class_name: of Keras, or a block of ours.
        input: of the model that it belongs to; "" where it takes several.
        takes_text: whether text goes into it, which LiteRT does not take.
        arguments: of the layer, as far as they say what it computes.
        vocabulary: file beside input.json that holds its words, in the order of their numbers.
    """

    name: str
    class_name: str
    input: str
    takes_text: bool
    arguments: dict[str, Any] = field(default_factory=dict)
    vocabulary: str | None = None


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
        preprocessing: the preprocessing layers, in the order of the model.
        scaled_output: whether the model ends in a layer that brings its answer to the units of the targets.
        missing_markers: what stands for a missing value in a table; empty where the data are no table.
    """

    inputs: tuple[InputInfo, ...]
    output: str
    output_shape: tuple[int, ...]
    task: Task
    activation: Literal["logits", "probabilities", "values"]
    labels: tuple[str, ...]
    preprocessing: tuple[PreprocessStep, ...] = ()
    scaled_output: bool = False
    missing_markers: tuple[str, ...] = ()

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
                InputInfo(
                    **i | {"shape": tuple(i["shape"])} | {k: tuple(i.get(k, ())) for k in ("categories", "columns")}
                )
                for i in document["inputs"]
            )
            return cls(
                inputs=inputs,
                output=document["output"],
                output_shape=tuple(document["output_shape"]),
                task=document["task"],
                activation=document["activation"],
                labels=tuple(document["labels"]),
                scaled_output=bool(document["scaled_output"]),
                missing_markers=tuple(document["missing_markers"]),
                preprocessing=tuple(PreprocessStep(**step) for step in document["preprocessing"]),
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

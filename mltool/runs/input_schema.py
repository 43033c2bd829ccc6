"""What a model needs to be understood: inputs, outputs, tasks, labels; one record that travels with every artifact."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from mltool.errors import ArtifactError
from mltool.spec.task import OutputKind, Task


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
class OutputInfo:
    """One output of the model.

    Attributes:
        name: the same in every artifact.
        shape: of one sample.
        task: what it answers.
        activation: what its values are: `logits`, `probabilities` or `values`.
        labels: names of the classes, in the order of the values; empty for regression.
        scaled: whether a layer at its end brings the answer to the units of the targets.
        threshold: of an anomaly: the score from which on a sample is one.
        columns: of a regression, what the data call its values, each; empty where they have no names.
    """

    name: str
    shape: tuple[int, ...]
    task: Task
    activation: OutputKind
    labels: tuple[str, ...] = ()
    scaled: bool = False
    threshold: float | None = None
    columns: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class InputSchema:
    """The record `input.json`.

    Attributes:
        inputs: in the order of the model.
        outputs: likewise.
        preprocessing: the preprocessing layers, in the order of the model.
        missing_markers: what stands for a missing value in a table; empty where the data are no table.
    """

    inputs: tuple[InputInfo, ...]
    outputs: tuple[OutputInfo, ...]
    preprocessing: tuple[PreprocessStep, ...] = ()
    missing_markers: tuple[str, ...] = ()

    @property
    def output_names(self) -> list[str]:
        """Names of the outputs, in their order."""
        return [output.name for output in self.outputs]

    def output(self, name: str) -> OutputInfo:
        """The output of a name; "" is the only one."""
        return next(output for output in self.outputs if name in ("", output.name))

    def to_json(self) -> dict[str, Any]:
        """The record as it is written."""
        return {"schema_version": 2, **asdict(self)}

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
            outputs = tuple(
                OutputInfo(**o | {key: tuple(o[key]) for key in ("shape", "labels", "columns")})
                for o in document["outputs"]
            )
            return cls(
                inputs=inputs,
                outputs=outputs,
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

"""The part of a model that LiteRT can run: all but the steps that take text, which are done outside of the file."""

import contextlib
import logging
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mltool import extras
from mltool.errors import ConversionError
from mltool.exporting.export import SIGNATURE, write_saved_model
from mltool.inference.keras_predictor import load_keras_model
from mltool.inference.text_steps import TextStep, Vocabulary, reason_against
from mltool.runs.input_schema import InputSchema, PreprocessStep

logger = logging.getLogger("mltool")


@dataclass(frozen=True)
class Core:
    """What of a model goes into a `.tflite` file.

    Attributes:
        saved_model: the folder that is converted; None where there is only a `.tflite` file.
        signature: key of what is converted.
        float_file: a float `.tflite` file that holds the same; None where an engine makes it when it needs one.
        steps: outside of it; empty where the whole model goes in.
        vocabularies: of the steps, by the name of the file that they are written to.
    """

    saved_model: Path | None
    signature: str
    float_file: Path | None = None
    steps: Sequence[TextStep] = ()
    vocabularies: Sequence[tuple[str, Vocabulary]] = ()


def steps_outside(schema: InputSchema) -> list[PreprocessStep]:
    """The steps that a `.tflite` file cannot hold, because they take text.

    Raises:
        ConversionError: if one of them cannot be done outside either.
    """
    steps = [step for step in schema.preprocessing if step.takes_text]
    for step in steps:
        if reason := reason_against(step):
            raise ConversionError(f"LiteRT takes no text, and the layer {step.name!r} {reason}")
        if sum(other.input == step.input for other in steps) > 1:
            raise ConversionError(f"LiteRT takes no text, and {step.input!r} goes through several layers of text")
    return steps


def write_core(keras_file: Path, schema: InputSchema, folder: Path) -> Core:
    """Cuts a model behind the steps that take text, and writes the rest as a SavedModel.

    Args:
        keras_file: of the run.
        schema: of the run.
        folder: where; must not be there.

    Raises:
        ConversionError: if a step that takes text cannot be done outside.
    """
    steps = steps_outside(schema)
    model = load_keras_model(keras_file)
    behind = {step.input: model.get_layer(step.name) for step in steps}
    inputs = {info.name: _tensor(model, info.name, behind) for info in schema.inputs}
    with _without_warnings():
        core = extras.keras().Model(list(inputs.values()), model.output)
    write_saved_model(core, schema.output_names, folder, list(inputs))
    words = {step.name: _vocabulary(behind[step.input]) for step in steps}
    logger.info(
        "LiteRT takes no text: %s is done outside of the files, with the vocabulary beside them",
        ", ".join(step.name for step in steps),
    )
    return Core(
        folder,
        SIGNATURE,
        None,
        [TextStep(step, words[step.name]) for step in steps],
        [(str(step.vocabulary), words[step.name]) for step in steps],
    )


def _tensor(model: Any, name: str, behind: dict[str, Any]) -> Any:
    if name in behind:
        return behind[name].output
    return next(tensor for tensor in model.inputs if tensor.name == name)


def _vocabulary(layer: Any) -> Vocabulary:
    tokens = [str(token) for token in layer.get_vocabulary(include_special_tokens=True)]
    weights = None
    if layer.get_config().get("output_mode") == "tf_idf":
        # Keras has no public way to them.
        weights = np.asarray(getattr(layer, "_lookup_layer", layer).idf_weights, dtype=np.float32)
    return Vocabulary(tokens, weights)


@contextlib.contextmanager
def _without_warnings() -> Iterator[None]:
    """Keras remarks that the new inputs have no names; the signature gives them theirs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield

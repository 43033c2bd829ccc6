"""What becomes of every layer of Keras from spec to `.tflite`: `python tests/conversion/layer_table.py` writes it down.

The functions are those of the commands: `build_model`, `write_saved_model`, the converter in a child process,
`read_back`, the predictors. Only Select TF operators are tried with the bare converter: mltool has no option for them.
"""

import contextlib
import functools
import logging
import re
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from layer_cases import AT_REST, CASES, Case
from pydantic import ValidationError

from mltool import extras
from mltool.child import Child, ChildCrashed
from mltool.conversion.read_back import read_back
from mltool.conversion.schemes import SCHEMES
from mltool.conversion.sources.core import Core, steps_outside, write_core
from mltool.conversion.workbench import CONVERTER
from mltool.errors import ConversionError, MltoolError
from mltool.exporting.export import SIGNATURE, TOLERANCE, write_saved_model
from mltool.inference.keras_predictor import KerasPredictor
from mltool.inference.litert import LiteRtPredictor
from mltool.inference.outside import OutsidePredictor
from mltool.inference.predictor import Predictor
from mltool.inference.saved_model import SavedModelPredictor
from mltool.models.build import build_model
from mltool.models.preprocess import ModelInput
from mltool.models.steps import steps_of
from mltool.runs.input_schema import InputInfo, InputSchema, OutputInfo
from mltool.spec.catalogue_entries import load_entry, refused_names
from mltool.spec.model import ModelSpec

PAGE = Path(__file__).parents[2] / "docs" / "layers.md"
SAMPLES = 6
OUTPUT = "out"

WORKS, OUTSIDE, FLEX, REFUSED, WRONG = "works", "works, outside", "needs Flex", "refused", "wrong answers"
"""Verdicts on a `.tflite` file."""

INTRODUCTION = """\
# Every layer of Keras

What becomes of each public class of `keras.layers` {keras}: from a spec to a model, a SavedModel and a float `.tflite`
file, on TensorFlow {tensorflow} and LiteRT {litert}. A test makes every row anew and fails where it differs, and where
Keras has a layer that is not here. Written by `python tests/conversion/layer_table.py`; do not edit.

Each layer is a model of its own, with random weights, of {samples} random samples and batch 1. Errors are the largest
difference from Keras' answer, as a share of the range of the answers ("0": none at all); SavedModel and `.tflite` file
may differ by {saved:g} and {lite:g} of it. What acts while training only is at rest, as in every artifact, and leaves
no operator in a file: a Rescaling stands behind it.

- **works**: the file has builtin operators only, and answers as Keras.
- **works, outside**: LiteRT takes no text. The step is cut off, and `mltool` does it outside of the file.
- **needs Flex**: TensorFlow's converter writes a file with Select TF operators, for a runtime with the Flex delegate.
  **mltool refuses it**: no wheel of LiteRT or TensorFlow on this stack has that delegate, so nobody could hold its
  answers against the model's. The test made such a file with the bare converter, and ran none.
- **refused**: the converter, or mltool, makes no file, with the reason that the command gives.

| layer | spec | build | SavedModel | `.tflite` |
|---|---|---|---|---|
"""


@dataclass(frozen=True)
class Step:
    """How far a row came at one step.

    Attributes:
        verdict: in words.
        reason: of a verdict that is none of the good ones.
        error: from Keras' answers, as a share of their range; None where nothing was compared.
    """

    verdict: str
    reason: str = ""
    error: float | None = None

    def __str__(self) -> str:
        error = "" if self.error is None else f", {'0' if self.error == 0 else f'{self.error:.0e}'}"
        return f"{self.verdict}{error}{f': {self.reason}' if self.reason else ''}".replace("|", "\\|")


@dataclass(frozen=True)
class Row:
    """One layer of the page."""

    layer: str
    spec: str
    build: Step
    saved_model: Step | None = None
    lite: Step | None = None

    def __str__(self) -> str:
        spec = f"`{self.spec}`" if self.spec else ""
        return f"| {self.layer} | {spec} | {self.build} | {self.saved_model or ''} | {self.lite or ''} |"


def public_classes() -> dict[str, set[str]]:
    """Every public class of `keras.layers`: its names, by the one that the catalogue or its list of refusals has."""
    layers = extras.keras().layers
    found: dict[str, set[str]] = {}
    for name in (name for name in dir(layers) if isinstance(getattr(layers, name), type)):
        subject = getattr(layers, name)
        names = {other for other in dir(layers) if getattr(layers, other) is subject}
        known = {*refused_names("layer"), *(entry.name for other in names if (entry := load_entry("layer", other)))}
        found[min(names & known, default=name)] = names
    return found


def make_rows() -> Iterator[Row]:
    """The rows of all layers, by name."""
    extras.keras().utils.set_random_seed(5)
    with Child() as converter, Child("layer_table") as bare, Child() as interpreter:
        maker = _Maker(converter, bare, interpreter)
        for name in sorted(public_classes()):
            yield maker.row(name)


@dataclass(frozen=True)
class _Maker:
    """Warm processes for all rows."""

    converter: Child
    bare: Child
    interpreter: Child

    def row(self, name: str) -> Row:
        others = sorted(public_classes()[name] - {name})
        label = f"{name} ({', '.join(others)})" if others else name
        if reason := refused_names("layer").get(name):
            return Row(label, "", Step(REFUSED, reason))
        case = CASES[name]
        try:
            spec = _spec(case)
            data = _data(case)
            model = build_model(spec, _inputs(data), name="net")
        except ValidationError as error:
            found = error.errors()[0]
            return Row(label, case.entry, Step(REFUSED, f"{found['msg']}; {found['ctx']['hint']}"))
        except MltoolError as error:
            return Row(label, case.entry, Step(REFUSED, _reason(error)))
        _randomize(model)
        with tempfile.TemporaryDirectory() as scratch:
            saved_model, lite = self._artifacts(model, spec, data, Path(scratch))
        return Row(label, case.entry, Step(WORKS), saved_model, lite)

    def _artifacts(self, model: Any, spec: ModelSpec, data: dict[str, Any], scratch: Path) -> tuple[Step, Step | None]:
        expected = KerasPredictor(model, [OUTPUT]).predict(data)[OUTPUT]
        write_saved_model(model, [OUTPUT], scratch / "saved_model")
        saved_model = _compared(SavedModelPredictor(scratch / "saved_model"), data, expected, TOLERANCE)
        schema = _schema(model, spec, data)
        try:
            core = Core(scratch / "saved_model", SIGNATURE)
            if steps_outside(schema):
                model.save(scratch / "model.keras")
                core = write_core(scratch / "model.keras", schema, scratch / "core")
            names = [layer.name for layer in model.layers if layer.name not in data]
            return saved_model, self._lite(core, names, data, expected, scratch / "net.tflite")
        except ConversionError as error:
            if "no builtin operator" in str(error) and (operators := self._flex_operators(scratch / "saved_model")):
                return saved_model, Step(FLEX, ", ".join(operators))
            return saved_model, Step(REFUSED, _reason(error))

    def _lite(self, core: Core, names: list[str], data: dict[str, Any], expected: Any, path: Path) -> Step:
        try:
            self.converter.call(
                CONVERTER,
                saved_model=str(core.saved_model),
                signature=SIGNATURE,
                output=str(path),
                quantize="none",
                io="float32",
                batch=1,
                representative=None,
                keep_float=[],
                layer_names=names,
            )
            read_back(path, quantize="none", io="float32", layer_names=names)
        except ChildCrashed as error:
            return Step(REFUSED, f"the converter {error.status}")
        file: Predictor = LiteRtPredictor(path, child=self.interpreter)
        step = _compared(OutsidePredictor(file, core.steps), data, expected, SCHEMES["none"].max_error)
        return Step(OUTSIDE, error=step.error) if core.steps and step.verdict == WORKS else step

    def _flex_operators(self, saved_model: Path) -> list[str]:
        """Operators of TensorFlow in the file that the bare converter makes; none where it makes none."""
        with contextlib.suppress(ConversionError, ChildCrashed):
            found: list[str] = self.bare.call("layer_table:convert_with_flex", saved_model=str(saved_model))
            return found
        return []


def convert_with_flex(saved_model: str) -> list[str]:
    """Names of the Select TF operators in a converted SavedModel; runs in a child process."""
    import tensorflow as tf
    from ai_edge_litert import schema_py_generated as schema
    from tensorflow.lite.python.convert_phase import ConverterError

    converter = tf.lite.TFLiteConverter.from_saved_model(saved_model, signature_keys=[SIGNATURE])
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS, tf.lite.OpsSet.SELECT_TF_OPS]
    try:
        model = schema.ModelT.InitFromPackedBuf(converter.convert())
    except ConverterError as error:
        raise ConversionError("not with Flex either") from error
    custom = [code.customCode.decode() for code in model.operatorCodes if code.customCode]
    return sorted(name.removeprefix("Flex") for name in custom)


def _spec(case: Case) -> ModelSpec:
    """The layer alone; `Identity` where it preprocesses, for a model needs layers."""
    section = {"layers": [yaml.safe_load(AT_REST)] if case.at_rest else ["Identity"]}
    before = [yaml.safe_load(case.entry)]
    if case.place == "preprocess":
        return ModelSpec.model_validate({**section, "preprocess": before})
    return ModelSpec.model_validate({"layers": [*before, *section["layers"]] if case.at_rest else before})


def _data(case: Case) -> dict[str, Any]:
    """Samples by the name of the input, the same at every call."""
    numbers = np.random.default_rng(11)
    draw = {
        "normal": lambda shape: numbers.normal(size=shape),
        "sound": lambda shape: numbers.uniform(-1, 1, shape),
        "ids": lambda shape: numbers.integers(0, 4, shape),
        "bits": lambda shape: numbers.integers(0, 2, shape),
        "pixels": lambda shape: numbers.integers(0, 256, shape),
        "words": lambda shape: numbers.choice(["red", "green", "blue"], shape),
    }[case.values]
    samples = {name: draw((SAMPLES, *shape)) for name, shape in zip("abc", case.shapes, strict=False)}
    return {name: array if array.dtype.kind == "U" else array.astype(np.float32) for name, array in samples.items()}


def _inputs(data: dict[str, Any]) -> dict[str, ModelInput]:
    return {
        name: ModelInput(array.shape[1:], _dtype(array), "", functools.partial(iter, [array]))
        for name, array in data.items()
    }


def _dtype(array: Any) -> str:
    return "string" if array.dtype.kind == "U" else "float32"


def _schema(model: Any, spec: ModelSpec, data: dict[str, Any]) -> InputSchema:
    """As much of `input.json` as tells which steps take text."""
    inputs = tuple(InputInfo(name, _dtype(array), array.shape[1:], None, None) for name, array in data.items())
    steps = steps_of(model, [layer.name for layer in spec.layers])
    return InputSchema(inputs, (OutputInfo(OUTPUT, (), "regression", "values"),), preprocessing=steps)


def _randomize(model: Any) -> None:
    """Weights that no folding can remove: biases are not 0 and variances not 1, as after training."""
    numbers = np.random.default_rng(3)
    for weight in model.weights:
        if weight.dtype == "float32" and (weight.trainable or "moving" in weight.path):
            values = numbers.normal(0, 0.3, weight.shape)
            weight.assign(np.abs(values) + 0.5 if "variance" in weight.path else values)


def _compared(predictor: Predictor, data: dict[str, Any], expected: Any, tolerance: float) -> Step:
    answers = predictor.predict(data)[OUTPUT]
    if answers.shape != expected.shape:
        return Step(WRONG, f"shape {answers.shape} instead of {expected.shape}")
    error = float(np.abs(answers - expected).max() / (np.ptp(expected) or 1.0))
    return Step(WORKS if error <= tolerance else WRONG, error=error)


def _reason(error: MltoolError) -> str:
    """The first line of the first message, without the place: there is only one layer."""
    line = " ".join(error.messages[0].message.splitlines()[0].split())[:200]
    return re.sub(r"seed_generator_\d+/", "seed_generator/", line)  # Keras counts those of a process


def page_of(rows: list[Row]) -> str:
    """The page as it stands in `docs`."""
    head = INTRODUCTION.format(
        keras=extras.version_of("keras"),
        tensorflow=extras.version_of("tensorflow"),
        litert=extras.version_of("ai-edge-litert"),
        samples=SAMPLES,
        saved=TOLERANCE,
        lite=SCHEMES["none"].max_error,
    )
    return head + "".join(f"{row}\n" for row in rows)


if __name__ == "__main__":
    logging.disable()
    extras.prepare_tensorflow()
    made = []
    for one in make_rows():
        made.append(one)
        print(one, file=sys.stderr)
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page_of(made), encoding="utf-8")

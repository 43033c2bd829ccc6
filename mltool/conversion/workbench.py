"""One attempt at a file: samples that calibrate, an engine, the file read back, its answers; nothing is kept here.

The verb keeps what holds (`convert.py`), the search compares what it tried (`search/`): both make files in this way.
"""

import contextlib
import logging
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mltool import console
from mltool.benchmarking.benchmark import percentiles_of
from mltool.child import Child, ChildCrashed, ChildTimedOut, ChildTooLarge
from mltool.conversion.calibration import Calibration
from mltool.conversion.engines.recipe import Recipe, is_calibrated, read_recipe, recipe_for
from mltool.conversion.entries import float_layers_of, precision_of, scheme_of, with_insides
from mltool.conversion.origin import Origin
from mltool.conversion.precision import Precision
from mltool.conversion.read_back import ReadBack, read_back
from mltool.data.memory import free_memory_bytes
from mltool.errors import ArtifactError, ConversionError, MachineError
from mltool.evaluation.judge import Measurements
from mltool.evaluation.reference import Reference, measure_file, trained_reference
from mltool.inference.outside import open_lite
from mltool.inference.predictor import Array
from mltool.inspection.flatbuffer import read_flatbuffer
from mltool.runs.arrays import write_npz
from mltool.spec.aware import AwareSpec
from mltool.spec.convert import ConvertSpec, is_recipe
from mltool.spec.spec import to_plain

logger = logging.getLogger("mltool")

CONVERTER = "mltool.conversion.engines.converter:convert_saved_model"
"""What the child is asked to call for what TensorFlow's converter makes."""

QUANTIZER = "mltool.conversion.engines.quantizer:quantize_file"
"""For what LiteRT's quantizer makes of a float file."""

TRAIN_AWARE = "mltool.conversion.aware.train:train_aware"
"""For what is trained on first."""

TRAINED_PER_TENSOR = ("FULLY_CONNECTED",)
"""Operators whose weights tensorflow-model-optimization trains with one scale, whatever is asked for."""

CONVERT_TIMEOUT_SECONDS = 1800.0
"""A conversion that takes longer is taken for hung."""

MEMORY_SHARE = 0.9
"""Of the memory that is free when a conversion begins; one that takes more is ended before the machine ends others."""

WARMUP_RUNS, LATENCY_RUNS = 10, 100
"""Calls of one sample before the first that counts, and that count: p90 then hangs on ten calls, not on one."""


@dataclass(frozen=True)
class Made:
    """A file that was made, and what it has to be.

    Attributes:
        entry: that it was made of.
        file: where it lies.
        calibration: what calibrated it; None for schemes without.
        precision: what each layer was to be; None where TensorFlow's converter made it.
        recipe: that the quantizer followed; None where the converter made it.
        layer_names: of the model that it was made of.
        preprocess_layers: those that prepare inputs.
        keep_float: those that had to stay float.
        training: what the training on told; empty for schemes without.
        keras: the model that was trained on; None for schemes without.
    """

    entry: ConvertSpec
    file: Path
    calibration: Calibration | None
    layer_names: Sequence[str]
    preprocess_layers: Sequence[str]
    keep_float: Sequence[str]
    precision: Precision | None = None
    recipe: Recipe | None = None
    training: Mapping[str, Any] = field(default_factory=dict)
    keras: Path | None = None


class Workbench:
    """Makes files of one origin, in processes that stay warm.

    Args:
        origin: what is converted.
        converter: runs the engines.
        interpreter: runs the files: a crash of the converter is none of the interpreter's, and latency is measured
            without TensorFlow.
        scratch: a folder for what is in between.
    """

    def __init__(self, origin: Origin, converter: Child, interpreter: Child, scratch: Path) -> None:
        self.origin, self.converter, self.interpreter, self.scratch = origin, converter, interpreter, scratch
        self._float_files: dict[int | str, Path] = {}

    def make(self, entry: ConvertSpec, output: Path) -> Made:
        """Makes the file of an entry.

        Raises:
            DataError: if there are no sound samples to calibrate with.
            ConversionError: if the engine fails, dies, hangs, or takes too much memory.
        """
        calibration = self.origin.calibration(entry) if needs_samples(entry) else None
        with tempfile.TemporaryDirectory(dir=self.scratch) as folder:
            representative = None
            if calibration is not None:
                representative = str(Path(folder) / "representative.npz")
                arrays = self.as_core_takes(calibration.samples.first(len(calibration.samples)))
                write_npz(Path(representative), arrays)
            names, schema = self.origin.layer_names, self.origin.schema
            made = Made(
                entry,
                output,
                calibration,
                names,
                with_insides([step.name for step in schema.preprocessing], names),
                with_insides(float_layers_of(entry, schema), names),
            )
            if entry.quantize == "qat":
                made, saved_model = self._trained(made)
                self._convert(made, saved_model, representative)
                return made
            if entry.uses_converter and self.origin.core.saved_model is not None:
                self._convert(made, self.origin.core.saved_model, representative)
                return made
            return self._quantize(made, representative)

    @property
    def can_train(self) -> bool:
        """Whether the model can be trained on: only that of a run can."""
        return self.origin.run is not None

    def as_core_takes(self, arrays: Mapping[str, Array]) -> dict[str, Array]:
        """Samples of the model as its file takes them: text as the steps outside make numbers of it."""
        return {**arrays, **{step.input: step(arrays[step.input]) for step in self.origin.core.steps}}

    def float_file(self, entry: ConvertSpec) -> Path:
        """The model as a float `.tflite` file with the batch of an entry; made once."""
        core = self.origin.core
        if core.float_file is not None:
            return core.float_file
        if entry.batch not in self._float_files:
            path = self.scratch / f"float-{entry.batch}.tflite"
            plain = ConvertSpec.model_validate({"quantize": "none", "batch": entry.batch})
            self.make(plain, path)
            self._float_files[entry.batch] = path
        return self._float_files[entry.batch]

    def _trained(self, made: Made) -> tuple[Made, Path]:
        """The model of a run, trained on with quantization in it; and as a SavedModel."""
        entry, run = made.entry, self.origin.run
        if run is None or self.origin.core.steps:
            steps = ", ".join(step.name for step in self.origin.core.steps)
            what = "a model of somebody else's" if run is None else f"a model with steps that take text ({steps})"
            raise ConversionError(f"{entry.name}: {what} cannot be trained on here", "use another scheme")
        asked = entry.qat or AwareSpec()
        folder = Path(tempfile.mkdtemp(prefix="trained-", dir=self.scratch))
        epochs = console.counted(asked.epochs, "epoch")
        logger.info("%s: the model is trained on for %s a stage", entry.name, epochs)
        # A process of its own: tensorflow-model-optimization turns tf.keras into tf_keras for all of it.
        with Child() as child:
            answer = self._call(
                entry,
                TRAIN_AWARE,
                child=child,
                takes_long=True,
                run=str(run.directory),
                folder=str(folder),
                granularity=entry.granularity,
                keep_float=list(entry.keep_float),
                **to_plain(asked),
            )
        names = answer.pop("layer_names")
        made = replace(
            made,
            layer_names=names,
            preprocess_layers=answer.pop("preprocess_layers"),
            keep_float=[name for name in with_insides(made.keep_float, names) if name in names],
            training=answer,
            keras=folder / "model.keras",
        )
        return made, folder / "saved_model"

    def _convert(self, made: Made, saved_model: Path, representative: str | None) -> None:
        entry = made.entry
        self._call(
            entry,
            CONVERTER,
            saved_model=str(saved_model),
            signature=self.origin.core.signature,
            output=str(made.file.absolute()),
            quantize=scheme_of(entry),
            io=entry.io,
            batch=None if entry.batch == "dynamic" else entry.batch,
            representative=representative,
            keep_float=list(made.keep_float),
            layer_names=list(made.layer_names),
            granularity=entry.granularity,
            scratch=str(self.scratch),
        )

    def _quantize(self, made: Made, representative: str | None) -> Made:
        """What the quantizer makes of the float file; a copy of that where nothing is to be quantized."""
        entry, source = made.entry, self.float_file(made.entry)
        if entry.quantize == "none" and not entry.layers:
            shutil.copy(source, made.file)
            return made
        precision = None if is_recipe(entry.quantize) else precision_of(entry, made.keep_float)
        try:
            if precision is None:
                recipe = read_recipe(Path(entry.quantize))
            else:
                precision.require_matches(made.layer_names)
                recipe = recipe_for(precision, read_flatbuffer(source, made.layer_names))
        except ConversionError as error:
            raise named(entry, error) from error
        self._call(
            entry,
            QUANTIZER,
            source=str(source.absolute()),
            output=str(made.file.absolute()),
            recipe=recipe,
            representative=representative,
            signature=self.origin.core.signature,
        )
        return replace(made, precision=precision, recipe=recipe)

    def _call(
        self,
        entry: ConvertSpec,
        function: str,
        *,
        child: Child | None = None,
        takes_long: bool = False,
        **arguments: Any,
    ) -> dict[str, Any]:
        """Calls an engine; what becomes of its process becomes a message."""
        memory = int(free_memory_bytes() * MEMORY_SHARE)
        timeout_seconds = None if takes_long else CONVERT_TIMEOUT_SECONDS
        try:
            answer: dict[str, Any] = (child or self.converter).call(
                function, timeout_seconds=timeout_seconds, memory_bytes=memory, **arguments
            )
        except ChildCrashed as error:
            message = f"{entry.name}: the converter {error.status}"
            raise ConversionError(message, f"the last it said: {_last_line(error.output)}") from error
        except ChildTimedOut as error:
            raise ConversionError(f"{entry.name}: the converter {error.status}") from error
        except ChildTooLarge as error:
            message = f"{entry.name}: the converter took more than {error.memory_bytes / 1e9:.1f} GB and was ended"
            raise MachineError(message, "free memory, or convert where there is more") from error
        except ConversionError as error:
            raise named(entry, error) from error
        for message in answer.get("messages", ()):
            logger.debug("%s: %s", entry.name, message)
        return answer

    def read_back(self, made: Made) -> ReadBack:
        """What a file is, proven to be what its entry asks for.

        Raises:
            ConversionError: if it is something else.
        """
        entry = made.entry
        try:
            with _as_conversion(made.file):
                return read_back(
                    made.file,
                    quantize=scheme_of(entry),
                    io=entry.io,
                    layer_names=made.layer_names,
                    preprocess_layers=made.preprocess_layers,
                    keep_float=made.keep_float,
                    granularity=entry.granularity,
                    precision=made.precision,
                    free_granularity=TRAINED_PER_TENSOR if made.training else (),
                )
        except ConversionError as error:
            raise named(entry, error) from error

    def measure(
        self,
        made: Path,
        reference: Reference,
        *,
        metric: str | None = None,
        latency: Mapping[str, float] | None = None,
    ) -> tuple[Measurements, Array]:
        """Runs a file on the samples of a reference; see `measure_file`.

        Raises:
            ConversionError: if the runtime cannot run it.
        """
        with _as_conversion(made):
            return measure_file(
                made, reference, child=self.interpreter, metric=metric, latency=latency, steps=self.origin.core.steps
            )

    def held_against(self, made: Made, reference: Reference) -> Reference:
        """What a file is held against: the reference, or where its model was trained on that model's answers."""
        return reference if made.keras is None else trained_reference(reference, made.keras)

    def latency(self, made: Path, reference: Reference) -> dict[str, float]:
        """Percentiles of one call with one sample on this host, milliseconds."""
        one = reference.samples.first(1)
        with _as_conversion(made), open_lite(made, child=self.interpreter, steps=self.origin.core.steps) as predictor:
            return percentiles_of(predictor.latencies_ms(one, warmup=WARMUP_RUNS, runs=LATENCY_RUNS))


@contextlib.contextmanager
def _as_conversion(made: Path) -> Iterator[None]:
    """What is damaged, or refused by the runtime: a fault of the conversion, and the file has only a temporary name."""
    try:
        yield
    except ArtifactError as error:
        text = error.messages[0].message.replace(f"{made.absolute()} ", "").replace(f"{made} ", "")
        hint = (
            "where raw features of very different ranges share a scale, keep what joins and scales them in float "
            "(keep_float), else take another scheme; --quantize auto looks for one"
        )
        raise ConversionError(f"the file that was made {text}", hint) from error


def needs_samples(entry: ConvertSpec) -> bool:
    """Whether samples are needed to make the file of an entry; of a recipe its rules tell.

    Raises:
        ArtifactError: if a recipe cannot be read.
        ConversionError: if it is none.
    """
    if is_recipe(entry.quantize) and not entry.layers:
        return is_calibrated(read_recipe(Path(entry.quantize)))
    return entry.calibrated


def named(entry: ConvertSpec, error: ConversionError) -> ConversionError:
    """The error with the entry in front, and without the temporary name of its file."""
    return ConversionError(replace(m, message=f"{entry.name}: {m.message}", file="") for m in error.messages)


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else "nothing"
